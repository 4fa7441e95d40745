// Groups of row nodes in one pass over each row, which stays in cache: statistics, then the pointwise node. Same bits as the nodes.
// Rows are the trailing axes; a row's length is that of the weight, or of x's last axis.
#pragma once
#include "reduce.h"

namespace ro {
namespace RO_ISA {

// Runs a kernel of this file on bf16 and f16: about 8,192 elements at a time. shared: the inputs that all rows read.
RO_INLINE void run_rows(Kernel kernel, const Call& call, int64_t length, unsigned shared) {
  const int64_t rows = length ? element_count(call.out) / length : 0;
  run_parts(kernel, call, rows, max64(1, 8192 / max64(1, length)), shared, false);
}
static void run_norm(Kernel kernel, const Call& call) { run_rows(kernel, call, element_count(call.in[1]), 6u); }
static void run_norm_grad(Kernel kernel, const Call& call) { run_rows(kernel, call, element_count(call.in[4]), 16u); }
static void run_softmax(Kernel kernel, const Call& call) { run_rows(kernel, call, call.out.shape[call.out.rank - 1], 0); }

// Runs body(row) for all rows.
template <class Body>
RO_INLINE void for_rows(int64_t rows, int64_t length, int threads, const Body& body) {
  parallel_for(rows, ceil_div(8192, max64(1, length)), threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) body(row);
  });
}

// 32 equal values, for an input of fold_row that is one value per row.
struct Splat {
  alignas(64) float lanes[kSumLanes];
  RO_MEMBER explicit Splat(float x) {
    for (int v = 0; v < kSumVectors; ++v) F::set(x).store(lanes + v * kLanes);
  }
  RO_MEMBER const char* data() const { return (const char*)lanes; }
};

// out[i] = f(vectors of the inputs at i), canonical.
template <int N, class Body>
RO_INLINE void map_row(const char* const (&in)[N], char* out, int64_t n, const Body& body) {
  int64_t i = 0;
  F x[N];
  for (; i + kLanes <= n; i += kLanes) {
    for (int k = 0; k < N; ++k) x[k] = F::load(in[k] + 4 * i);
    canonical(body(x)).store(out + 4 * i);
  }
  if (i < n) {
    const int rest = (int)(n - i);
    for (int k = 0; k < N; ++k) x[k] = F::load(in[k] + 4 * i, rest);
    canonical(body(x)).store(out + 4 * i, rest);
  }
}

// sum, div, sum_sq_centered, rstd, layer_norm. Inputs x, w, b; literals n (the divisor of div and of rstd), eps.
// Outputs: out (x's shape), mean, rstd (one value per row).
RO_FUSED_BY(run_norm, layer_norm_forward) {
  const int64_t n = element_count(call.in[1]), rows = n ? element_count(call.in[0]) / n : 0;
  const float count = literal_f32(call, 0), eps = literal_f32(call, 1);
  const char *w = (const char*)call.in[1].data, *b = (const char*)call.in[2].data;
  for_rows(rows, n, call.threads, [&](int64_t row) {
    const char* x = (const char*)call.in[0].data + 4 * row * n;
    const int64_t inc[2] = {4, 0};
    const float mean = ro::canonical(div_rn(fold_row<StepSum>(&x, inc, 0, n, nullptr), count));
    const Splat centre(mean);
    const char* const centred[2] = {x, centre.data()};
    const float ssq = fold_row<StepCentered>(centred, inc, 0, n, nullptr);
    const float rstd = ro::canonical(div_rn(1.0f, sqrt_rn(add_rn(div_rn(ssq, count), eps))));
    const F m = F::set(mean), r = F::set(rstd);
    map_row<3>({x, w, b}, (char*)call.out.data + 4 * row * n, n,
               [&](const F* v) { return fma(mul(sub(v[0], m), r), v[1], v[2]); });
    store_f32(call.more[0].data, row, mean);
    store_f32(call.more[1].data, row, rstd);
  });
}

struct StepWeightedNormalized {
  static constexpr int kInputs = 5;  // dy, w, x, mean, rstd
  RO_MEMBER static F step(F lane, const F* x) { return fma(mul(x[0], x[1]), mul(sub(x[2], x[3]), x[4]), lane); }
};

// c1 = DIV(sum_mul(dy, w), n), c2 = DIV(sum_mul_normalized(MUL(dy, w), x, mean, rstd), n), layer_norm_grad.
// Inputs dy, x, mean, rstd, w; literal n. Output: dx (x's shape).
RO_FUSED_BY(run_norm_grad, layer_norm_backward) {
  const int64_t n = element_count(call.in[4]), rows = n ? element_count(call.in[1]) / n : 0;
  const float count = literal_f32(call, 0);
  const char* w = (const char*)call.in[4].data;
  for_rows(rows, n, call.threads, [&](int64_t row) {
    const char *dy = (const char*)call.in[0].data + 4 * row * n, *x = (const char*)call.in[1].data + 4 * row * n;
    const float mean = load_f32(call.in[2].data, row), rstd = load_f32(call.in[3].data, row);
    const Splat means(mean), rstds(rstd);
    const char* const plain[2] = {dy, w};
    const char* const normalized[5] = {dy, w, x, means.data(), rstds.data()};
    const int64_t inc[5] = {4, 4, 4, 0, 0};
    const F c1 = F::set(div_rn(fold_row<StepProduct>(plain, inc, 0, n, nullptr), count));
    const F c2 = F::set(div_rn(fold_row<StepWeightedNormalized>(normalized, inc, 0, n, nullptr), count));
    const F m = F::set(mean), r = F::set(rstd);
    map_row<3>({dy, x, w}, (char*)call.out.data + 4 * row * n, n, [&](const F* v) {
      const F h = mul(sub(v[1], m), r);
      return mul(r, sub(sub(mul(v[0], v[2]), c1), mul(h, c2)));
    });
  });
}

// amax, sum_exp, softmax over the last axis. Input x; outputs: out (x's shape), max, sum (one value per row).
RO_FUSED_BY(run_softmax, softmax_forward) {
  const int64_t n = call.out.shape[call.out.rank - 1], rows = n ? element_count(call.out) / n : 0;
  for_rows(rows, n, call.threads, [&](int64_t row) {
    char* out = (char*)call.out.data + 4 * row * n;
    const char* const x[1] = {(const char*)call.in[0].data + 4 * row * n};
    const char* const terms[1] = {out};  // EXP(SUB(x, max)), computed once for both nodes
    const int64_t inc[1] = {4};
    const float max = max_row(x[0], n);
    const F m = F::set(max);
    map_row<1>(x, out, n, [&](const F* v) { return f_exp(sub(v[0], m)); });
    const float sum = fold_row<StepSum>(terms, inc, 0, n, nullptr);
    const F r = F::set(div_rn(1.0f, sum));
    map_row<1>({out}, out, n, [&](const F* v) { return mul(v[0], r); });
    store_f32(call.more[0].data, row, max);
    store_f32(call.more[1].data, row, sum);
  });
}

// amax, sum_exp, log_softmax over the last axis. Input x; outputs: out (x's shape), max, sum (one value per row).
RO_FUSED_BY(run_softmax, log_softmax_forward) {
  const int64_t n = call.out.shape[call.out.rank - 1], rows = n ? element_count(call.out) / n : 0;
  for_rows(rows, n, call.threads, [&](int64_t row) {
    const char* x = (const char*)call.in[0].data + 4 * row * n;
    char* out = (char*)call.out.data + 4 * row * n;
    const float max = max_row(x, n);
    const Splat maxima(max);
    const char* const terms[2] = {x, maxima.data()};
    const int64_t inc[2] = {4, 0};
    const float sum = fold_row<StepExp>(terms, inc, 0, n, nullptr);
    const F m = F::set(max), l = f_log(F::set(sum));
    map_row<1>({x}, out, n, [&](const F* v) { return sub(sub(v[0], m), l); });
    store_f32(call.more[0].data, row, max);
    store_f32(call.more[1].data, row, sum);
  });
}

// scatter of a value into zeros, mul, sum (all its links), exp, mul, sub: sub(value or 0 times scale, exp(x) times the row's sum of those).
// Inputs x (log_softmax), index, scale (one value per row each); literal: the value. Output: dx, which may lie exactly on x.
// The row's sum needs no pass: all terms but one are +-0, or, if the scale is not finite, NaN.
RO_FUSED(cross_entropy_backward) {
  const int64_t n = call.out.shape[call.out.rank - 1], rows = n ? element_count(call.out) / n : 0;
  const float value = literal_f32(call, 0);
  for_rows(rows, n, call.threads, [&](int64_t row) {
    const char* const x[1] = {(const char*)call.in[0].data + 4 * row * n};
    char* out = (char*)call.out.data + 4 * row * n;
    const int64_t target = load_i64(call.in[1].data, row);
    const float scale = load_f32(call.in[2].data, row), rest = mul_rn(0.0f, scale), hit = mul_rn(value, scale);
    const bool inside = target >= 0 && target < n;
    float sum = 0.0f;
    if (inside) sum = add_rn(sum, hit);
    if (n > 1 || !inside) sum = add_rn(sum, rest);
    const float at_target = inside ? load_f32(x[0], target) : 0.0f;
    const F s = F::set(sum), r = F::set(rest);
    map_row<1>(x, out, n, [&](const F* v) { return sub(r, mul(f_exp(v[0]), s)); });
    if (!inside) return;
    const F corrected = canonical(sub(F::set(hit), mul(f_exp(F::set(at_target)), s)));
    corrected.store(out + 4 * target, 1);
  });
}

}  // namespace RO_ISA
}  // namespace ro
