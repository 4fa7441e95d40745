// Groups of row nodes in one pass over each row, which stays in cache: statistics, then the pointwise node. Same bits as the nodes.
// Rows are the trailing axes; a row's length is that of the weight, or of x's last axis.
#pragma once
#include <type_traits>

#include "reduce.h"
#include "stream.h"

namespace ro {
namespace RO_ISA {

// Runs a kernel of this file on bf16 and f16: about 8,192 elements at a time. shared: the inputs that all rows read.
RO_INLINE void run_rows(Kernel kernel, const Call& call, int64_t length, unsigned shared) {
  const int64_t rows = length ? element_count(call.out) / length : 0;
  run_parts(kernel, call, rows, max64(1, 8192 / max64(1, length)), shared, false);
}
static void run_norm(Kernel kernel, const Call& call) { run_rows(kernel, call, element_count(call.in[1]), 6u); }
static void run_norm_grad(Kernel kernel, const Call& call) {
  if (call.more_count) return run_plain(kernel, call);  // outputs that are sums over all rows
  run_rows(kernel, call, element_count(call.in[4]), 16u);
}
static void run_softmax(Kernel kernel, const Call& call) { run_rows(kernel, call, call.out.shape[call.out.rank - 1], 0); }

// Runs body(row) for all rows.
template <class Body>
RO_INLINE void for_rows(int64_t rows, int64_t length, int threads, const Body& body) {
  parallel_for(rows, ceil_div(8192, max64(1, length)), threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) body(row);
  });
}

// Where in a row of f32 the terms of sum_row lie.
RO_INLINE int64_t place(int64_t i, int v) { return 4 * i + 4 * v * kLanes; }

// out[i] = f(vectors of the inputs at i), canonical. The first `rows` inputs are rows of their tensors: what lies `ahead` bytes further is
// fetched, and so is what will be written there: a store then need not wait for its line.
template <int N, int rows = 0, class Body>
RO_INLINE void map_row(const char* const (&in)[N], char* out, int64_t n, const Body& body, int64_t ahead = 0) {
  constexpr int kLine = kLanes < 16 ? 16 : kLanes;
  int64_t i = 0;
  F x[N];
  for (; i + kLine <= n; i += kLine) {
    if (rows > 0) __builtin_prefetch(out + 4 * i + ahead, 1);
    for (int k = 0; k < rows; ++k) __builtin_prefetch(in[k] + 4 * i + ahead, 0, 2);
#pragma GCC unroll 4
    for (int64_t j = i; j < i + kLine; j += kLanes) {
      for (int k = 0; k < N; ++k) x[k] = F::load(in[k] + 4 * j);
      canonical(body(x)).store(out + 4 * j);
    }
  }
  for (; i < n; i += kLanes) {
    const int rest = (int)min64(kLanes, n - i);
    for (int k = 0; k < N; ++k) x[k] = F::load(in[k] + 4 * i, rest);
    canonical(body(x)).store(out + 4 * i, rest);
  }
}

// The same past the caches: out is aligned to an element, and no input.
template <int N, class Body>
RO_INLINE void stream_row(const char* const (&in)[N], char* out, int64_t n, const Body& body) {
  F x[N];
  const auto part = [&](int64_t i, int64_t count) RO_LAMBDA {
    for (int k = 0; k < N; ++k) x[k] = F::load(in[k] + 4 * i, (int)count);
    canonical(body(x)).store(out + 4 * i, (int)count);
  };
  int64_t i = min64(n, before_vector(out));
  if (i > 0) part(0, i);
  for (; i + kLanes <= n; i += kLanes) {
    for (int k = 0; k < N; ++k) x[k] = F::load(in[k] + 4 * i);
    canonical(body(x)).stream(out + 4 * i);
  }
  if (i < n) part(i, n - i);
}

// From a row to the next, if a few of them fit the first cache.
RO_INLINE int64_t next_row(int64_t n) { return n <= 2048 ? 4 * n : 0; }

// sum, div, sum_sq_centered, rstd, layer_norm. Inputs x, w, b; literals n (the divisor of div and of rstd), eps.
// Outputs: out (x's shape), mean, rstd (one value per row).
RO_FUSED_BY(run_norm, layer_norm_forward) {
  const int64_t n = element_count(call.in[1]), rows = n ? element_count(call.in[0]) / n : 0;
  const float count = literal_f32(call, 0), eps = literal_f32(call, 1);
  const char *w = (const char*)call.in[1].data, *b = (const char*)call.in[2].data;
  for_rows(rows, n, call.threads, [&](int64_t row) {
    const char* x = (const char*)call.in[0].data + 4 * row * n;
    char* out = (char*)call.out.data + 4 * row * n;
    float sum[1], ssq[1];
    sum_row<1>(n, sum, [&](F* lane, int64_t i, int v, auto at) RO_LAMBDA { lane[0] = add(lane[0], at.load(x + place(i, v))); });
    const float mean = ro::canonical(div_rn(sum[0], count));
    const F m = F::set(mean);
    sum_row<1>(n, ssq, [&](F* lane, int64_t i, int v, auto at) RO_LAMBDA {
      const F d = sub(at.load(x + place(i, v)), m);
      lane[0] = fma(d, d, lane[0]);
    });
    const float rstd = ro::canonical(div_rn(1.0f, sqrt_rn(add_rn(div_rn(ssq[0], count), eps))));
    const F r = F::set(rstd);
    map_row<3, 1>({x, w, b}, out, n, [&](const F* v) { return fma(mul(sub(v[0], m), r), v[1], v[2]); }, next_row(n));
    store_f32(call.more[0].data, row, mean);
    store_f32(call.more[1].data, row, rstd);
  });
}

struct NormGrad {
  const char *dy, *x, *mean, *rstd, *w;
  char* dx;
  int64_t n;
  float count;
};

// R rows of dx, from `row` on in steps of `apart`; with `sums` their terms are added to a lane of the column sums of dy h and of dy, too,
// which is read and written once for all of them.
template <bool sums, bool past, int R>
RO_INLINE void norm_grad_rows(const NormGrad& g, int64_t row, int64_t apart, int64_t ahead, float* dy_h, float* dy_alone) {
  F m[R], r[R], c1[R], c2[R];
  const char *dy[R], *x[R];
  char* dx[R];
  for (int j = 0; j < R; ++j) {
    const int64_t i = row + j * apart, at = 4 * i * g.n;
    dy[j] = g.dy + at, x[j] = g.x + at, dx[j] = g.dx + at;
    m[j] = F::set(load_f32(g.mean, i)), r[j] = F::set(load_f32(g.rstd, i));
    float dots[2];
    sum_row<2>(g.n, dots, [&, j](F* lane, int64_t i, int v, auto at) RO_LAMBDA {
      const F d = at.load(dy[j] + place(i, v)), weighted = mul(d, at.load(g.w + place(i, v)));
      lane[0] = fma(d, at.load(g.w + place(i, v)), lane[0]);
      lane[1] = fma(weighted, mul(sub(at.load(x[j] + place(i, v)), m[j]), r[j]), lane[1]);
    });
    c1[j] = F::set(div_rn(dots[0], g.count)), c2[j] = F::set(div_rn(dots[1], g.count));
  }
  const auto step = [&](int64_t i, auto at) RO_LAMBDA {
    const F weight = at.load(g.w + 4 * i);
    F with_h, alone;
    if constexpr (sums) with_h = F::load(dy_h + i), alone = F::load(dy_alone + i);
#pragma GCC unroll 4
    for (int j = 0; j < R; ++j) {
      const F d = at.load(dy[j] + 4 * i), h = mul(sub(at.load(x[j] + 4 * i), m[j]), r[j]);
      const F y = canonical(mul(r[j], sub(sub(mul(d, weight), c1[j]), mul(h, c2[j]))));
      if constexpr (past && std::is_same_v<decltype(at), Whole>) y.stream(dx[j] + 4 * i);
      else at.store(y, dx[j] + 4 * i);
      if constexpr (sums) with_h = fma(d, h, with_h), alone = add(alone, d);
    }
    if constexpr (sums) with_h.store(dy_h + i), alone.store(dy_alone + i);
  };
  int64_t i = 0;
  for (; i + 16 <= g.n; i += 16) {
#pragma GCC unroll 4
    for (int j = 0; j < R; ++j) {
      if (!past) __builtin_prefetch(dx[j] + 4 * i + ahead, 1);
      __builtin_prefetch(dy[j] + 4 * i + ahead, 0, 2);
      __builtin_prefetch(x[j] + 4 * i + ahead, 0, 2);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 16; j += kLanes) step(i + j, Whole{});
  }
  for (; i < g.n; i += kLanes) step(i, Part{(int)min64(kLanes, g.n - i)});
}

// The tree over 32 lanes of kLanes columns, lane l at `lanes` + l * stride.
RO_INLINE F column_tree(const float* lanes, int64_t stride) {
  F lane[kSumLanes / 2];
  for (int l = 0; l < kSumLanes / 2; ++l) lane[l] = add(F::load(lanes + l * stride), F::load(lanes + (l + kSumLanes / 2) * stride));
  for (int h = kSumLanes / 4; h > 0; h /= 2)
    for (int l = 0; l < h; ++l) lane[l] = add(lane[l], lane[l + h]);
  return lane[0];
}

// c1 = DIV(sum_mul(dy, w), n), c2 = DIV(sum_mul_normalized(MUL(dy, w), x, mean, rstd), n), layer_norm_grad; then, if asked for,
// sum_mul_normalized(dy, x, mean, rstd) and sum(dy) over the rows, in all their links.
// Inputs dy, x, mean, rstd, w; literal n. Outputs: dx (x's shape; it may lie exactly on dy or x), or dx, dw, db.
RO_FUSED_BY(run_norm_grad, layer_norm_backward) {
  const int64_t n = element_count(call.in[4]), rows = n ? element_count(call.in[1]) / n : 0;
  const auto data = [&](int k) { return (const char*)call.in[k].data; };
  const NormGrad g{data(0), data(1), data(2), data(3), data(4), (char*)call.out.data, n, literal_f32(call, 0)};
  if (call.more_count == 0)
    return for_rows(rows, n, call.threads, [&](int64_t i) { norm_grad_rows<false, false, 1>(g, i, 1, next_row(n), nullptr, nullptr); });
  // A thread takes all rows of a lane one after another, so that the lane stays in cache; short rows as they lie.
  const int64_t width = ceil_div(n, kLanes) * kLanes, group = n <= 128 ? kSumLanes : kSumBlock;
  const bool past = writes_past_caches(call) && n % kLanes == 0 && (uintptr_t)call.out.data % (4 * kLanes) == 0;
  const size_t lane = 2 * width;  // the sums of dy h, then those of dy
  float* const lanes = (float*)scratch(7, (kSumLanes + 1) * lane * sizeof(float));
  float* const total = lanes + kSumLanes * lane;
  std::memset(total, 0, lane * sizeof(float));
  for (int64_t b = 0; b < rows; b += kSumBlock) {
    const int64_t stop = min64(b + kSumBlock, rows), used = min64(kSumLanes, stop - b);
    std::memset(lanes, 0, kSumLanes * lane * sizeof(float));
    parallel_for(used, ceil_div(8192 * used, (stop - b) * n), call.threads, [&](int64_t first, int64_t last) {
      for (int64_t from = b; from < stop; from += group)
        for (int64_t l = first; l < last; ++l) {
          const int64_t end = min64(from + group, stop);
          float *const dy_h = lanes + l * lane, *const dy_alone = dy_h + width;
          int64_t i = from + l;
          const auto take = [&](auto past, auto together) RO_LAMBDA {
            constexpr int R = together.value;
            for (; i + (R - 1) * kSumLanes < end; i += R * kSumLanes)
              norm_grad_rows<true, past.value, R>(g, i, kSumLanes, group == kSumLanes ? 4 * n : 4 * n * R * kSumLanes, dy_h, dy_alone);
          };
          if (past) take(std::true_type(), std::integral_constant<int, 2>());
          else take(std::false_type(), std::integral_constant<int, 4>());
          take(std::false_type(), std::integral_constant<int, 1>());
        }
      if (past) end_stream();
    });
    parallel_for(lane / kLanes, 1024, call.threads, [&](int64_t first, int64_t last) {
      for (int64_t c = first * kLanes; c < last * kLanes; c += kLanes) {
        F sum = column_tree(lanes + c, lane);
        if (b > 0) sum = add(F::load(total + c), sum);
        sum.store(total + c);
      }
    });
  }
  for (int64_t c = 0; c < n; c += kLanes) {
    const int columns = (int)min64(kLanes, n - c);
    canonical(F::load(total + c)).store((char*)call.more[0].data + 4 * c, columns);
    canonical(F::load(total + width + c)).store((char*)call.more[1].data + 4 * c, columns);
  }
}

// amax, sum_exp, softmax over the last axis, each in one or several links. Input x; outputs: out (x's shape; it may lie exactly on x),
// max, sum (one value per row).
RO_FUSED_BY(run_softmax, softmax_forward) {
  const int64_t n = call.out.shape[call.out.rank - 1], rows = n ? element_count(call.out) / n : 0;
  for_rows(rows, n, call.threads, [&](int64_t row) {
    const char* x = (const char*)call.in[0].data + 4 * row * n;
    char* out = (char*)call.out.data + 4 * row * n;
    const float max = max_row(x, n);
    const F m = F::set(max);
    float sum[1];
    sum_row<1>(n, sum, [&](F* lane, int64_t i, int v, auto at) RO_LAMBDA {
      const F e = f_exp(sub(at.load(x + place(i, v)), m));
      at.store(e, out + place(i, v));
      lane[0] = add(lane[0], e);
    });
    const F r = F::set(div_rn(1.0f, sum[0]));
    map_row<1>({out}, out, n, [&](const F* v) { return mul(v[0], r); });
    store_f32(call.more[0].data, row, max);
    store_f32(call.more[1].data, row, sum[0]);
  });
}

// amax, sum_exp, log_softmax over the last axis, each in one or several links. Input x; outputs: out (x's shape; it may lie exactly on
// x), max, sum (one value per row).
RO_FUSED_BY(run_softmax, log_softmax_forward) {
  const int64_t n = call.out.shape[call.out.rank - 1], rows = n ? element_count(call.out) / n : 0;
  for_rows(rows, n, call.threads, [&](int64_t row) {
    const char* x = (const char*)call.in[0].data + 4 * row * n;
    char* out = (char*)call.out.data + 4 * row * n;
    const float max = max_row(x, n);
    const F m = F::set(max);
    float sum[1];
    sum_row<1>(n, sum, [&](F* lane, int64_t i, int v, auto at) RO_LAMBDA {
      lane[0] = add(lane[0], f_exp(sub(at.load(x + place(i, v)), m)));
    });
    const F l = f_log(F::set(sum[0]));
    map_row<1, 1>({x}, out, n, [&](const F* v) { return sub(sub(v[0], m), l); }, next_row(n));
    store_f32(call.more[0].data, row, max);
    store_f32(call.more[1].data, row, sum[0]);
  });
}

template <bool past>
RO_INLINE void softmax_grad_row(const char* dy, const char* y, char* out, int64_t n) {
  float sum[1];
  sum_row<1>(n, sum, [&](F* lane, int64_t i, int v, auto at) RO_LAMBDA {
    const char *a = dy + place(i, v), *b = y + place(i, v);
    lane[0] = past ? fma(at.load_halves(a), at.load_halves(b), lane[0]) : fma(at.load(a), at.load(b), lane[0]);
  });
  const F s = F::set(sum[0]);
  const auto gradient = [&](const F* v) RO_LAMBDA { return mul(sub(v[0], s), v[1]); };
  if (past) stream_row<2>({dy, y}, out, n, gradient);
  else map_row<2, 2>({dy, y}, out, n, gradient, next_row(n));
}

// sum_mul in all its links, sub, mul: MUL(SUB(dy, the row's sum of dy y), y). Inputs dy, y; output: dx, which may lie exactly on either.
RO_FUSED_BY(run_softmax, softmax_backward) {
  const int64_t n = call.out.shape[call.out.rank - 1], rows = n ? element_count(call.out) / n : 0;
  const char *dy = (const char*)call.in[0].data, *y = (const char*)call.in[1].data;
  char* const out = (char*)call.out.data;
  const bool past = writes_past_caches(call);
  parallel_for(rows, ceil_div(8192, max64(1, n)), call.threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = 4 * begin * n; i < 4 * end * n; i += 4 * n) {
      if (past) softmax_grad_row<true>(dy + i, y + i, out + i, n);
      else softmax_grad_row<false>(dy + i, y + i, out + i, n);
    }
    if (past) end_stream();
  });
}

// sum in all its links, exp, mul, sub: SUB(dy, MUL(EXP(y), the row's sum of dy)). Inputs dy, y; output: dx, which may lie exactly on either.
RO_FUSED_BY(run_softmax, log_softmax_backward) {
  const int64_t n = call.out.shape[call.out.rank - 1], rows = n ? element_count(call.out) / n : 0;
  for_rows(rows, n, call.threads, [&](int64_t row) {
    const char *dy = (const char*)call.in[0].data + 4 * row * n, *y = (const char*)call.in[1].data + 4 * row * n;
    char* out = (char*)call.out.data + 4 * row * n;
    float sum[1];
    sum_row<1>(n, sum, [&](F* lane, int64_t i, int v, auto at) RO_LAMBDA { lane[0] = add(lane[0], at.load(dy + place(i, v))); });
    const F s = F::set(sum[0]);
    map_row<2, 2>({dy, y}, out, n, [&](const F* v) { return sub(v[0], mul(f_exp(v[1]), s)); }, next_row(n));
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
