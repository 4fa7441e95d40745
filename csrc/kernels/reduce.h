// Reductions over adjacent axes in the order RSUM of docs/spec/operators.md: blocks of 1,024 terms, in a block 32 strided lanes,
// then a tree, blocks ascending. Two paths: along the last axis the 32 lanes are vectors; along any other axis the columns are.
#pragma once
#include "functions.h"
#include "matmul.h"
#include "parallel.h"
#include "prim.h"
#include "registry.h"
#include "simd.h"

namespace ro {
namespace RO_ISA {

constexpr int64_t kSumBlock = 1024;
constexpr int kSumLanes = 32;
constexpr int kSumVectors = kSumLanes / kLanes;

RO_INLINE M first(int64_t n) { return lt(lane_index(), I::set((int32_t)n)); }

// The tree over 32 lanes held in vectors: h = 16, 8, 4, 2, 1.
RO_INLINE float tree(F (&lane)[kSumVectors]) {
  for (int h = kSumVectors / 2; h > 0; h /= 2)
    for (int v = 0; v < h; ++v) lane[v] = add(lane[v], lane[v + h]);
  return tree(lane[0]);
}

// What a reduction sees: inputs broadcast to X = [outer, count, inner], strides in bytes (0 along a broadcast dimension).
struct Source {
  const char* data;
  int64_t outer, fold, inner;
};
struct Reduction {
  int64_t outer, count, inner;
  int64_t start, stop;
  Source in[4];
  const char* carry;  // nullptr: none; laid out as out
  char* out;
  int threads;
};

// The stride of tensor `t` along axes [d0, d1) of X taken as one, or -1 if there is none.
RO_INLINE int64_t joint_stride(const int64_t* stride, const int64_t* shape, int d0, int d1) {
  int64_t joint = 0, size = 1;
  bool found = false;
  for (int d = d1 - 1; d >= d0; --d) {
    if (shape[d] == 1) continue;
    if (!found) joint = stride[d], found = true;
    else if (stride[d] != joint * size) return -1;
    size *= shape[d];
  }
  return joint;
}

// Reads the call; an input whose broadcast cannot be said by one stride per group is expanded into working memory.
static Reduction read_reduction(const Call& call, int inputs) {
  Reduction r{};
  const int axes = (int)call.params[0];
  r.start = call.params[1 + axes];
  r.stop = call.params[2 + axes];
  r.out = (char*)call.out.data;
  r.carry = call.inputs > inputs ? (const char*)call.in[inputs].data : nullptr;
  r.threads = call.threads;
  int rank = 0;
  int64_t shape[kMaxRank];
  for (int i = 0; i < inputs; ++i) rank = call.in[i].rank > rank ? call.in[i].rank : rank;
  for (int d = 0; d < rank; ++d) {
    shape[d] = 1;
    for (int i = 0; i < inputs; ++i) {
      const int k = d - (rank - call.in[i].rank);
      if (k >= 0 && call.in[i].shape[k] != 1) shape[d] = call.in[i].shape[k];
    }
  }
  const int a0 = axes ? (int)call.params[1] : rank, a1 = a0 + axes;
  r.outer = r.count = r.inner = 1;
  for (int d = 0; d < rank; ++d) (d < a0 ? r.outer : d < a1 ? r.count : r.inner) *= shape[d];
  const int64_t total = r.outer * r.count * r.inner;
  for (int i = 0; i < inputs; ++i) {
    const Tensor& t = call.in[i];
    const int size = item_size(t.dtype);
    int64_t stride[kMaxRank], run = size;
    for (int d = rank - 1; d >= 0; --d) {
      const int k = d - (rank - t.rank);
      const int64_t extent = k >= 0 ? t.shape[k] : 1;
      stride[d] = extent == 1 ? 0 : run;
      run *= extent;
    }
    Source& s = r.in[i];
    s = {(const char*)t.data, joint_stride(stride, shape, 0, a0), joint_stride(stride, shape, a0, a1),
         joint_stride(stride, shape, a1, rank)};
    if (s.outer < 0 || s.fold < 0 || s.inner < 0) {
      char* copy = (char*)scratch(4 + i, total * size);
      int64_t at[kMaxRank] = {};
      const char* from = (const char*)t.data;
      for (int64_t e = 0; e < total; ++e) {
        std::memcpy(copy + e * size, from, size);
        for (int d = rank - 1; d >= 0; --d) {
          from += stride[d];
          if (++at[d] < shape[d]) break;
          from -= stride[d] * shape[d];
          at[d] = 0;
        }
      }
      s = {copy, r.count * r.inner * size, r.inner * size, size};
    }
  }
  return r;
}

// Steps: what one term does to its lane.
struct StepSum {
  static constexpr int kInputs = 1;
  RO_MEMBER static F step(F lane, const F* x) { return add(lane, x[0]); }
};
struct StepSquare {
  static constexpr int kInputs = 1;
  RO_MEMBER static F step(F lane, const F* x) { return fma(x[0], x[0], lane); }
};
struct StepProduct {
  static constexpr int kInputs = 2;
  RO_MEMBER static F step(F lane, const F* x) { return fma(x[0], x[1], lane); }
};
struct StepCentered {
  static constexpr int kInputs = 2;
  RO_MEMBER static F step(F lane, const F* x) {
    const F d = sub(x[0], x[1]);
    return fma(d, d, lane);
  }
};
struct StepExp {
  static constexpr int kInputs = 2;
  RO_MEMBER static F step(F lane, const F* x) { return add(lane, f_exp(sub(x[0], x[1]))); }
};
struct StepNormalized {
  static constexpr int kInputs = 4;
  RO_MEMBER static F step(F lane, const F* x) { return fma(x[0], mul(sub(x[1], x[2]), x[3]), lane); }
};

// RSUM of terms [begin, end) of one row. p[k] + i * inc[k] is where input k has 32 values from term i on (inc 0: 32 equal ones).
template <class Step>
RO_INLINE float fold_row(const char* const* p, const int64_t* inc, int64_t begin, int64_t end, const char* carry) {
  constexpr int N = Step::kInputs;
  float total = carry ? load_f32(carry, 0) : 0.0f;
  bool some = carry != nullptr;
  for (int64_t b = begin; b < end; b += kSumBlock) {
    const int64_t stop = min64(b + kSumBlock, end);
    F lane[kSumVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kSumVectors; ++v) lane[v] = F::set(0.0f);
    int64_t i = b;
    for (; i + kSumLanes <= stop; i += kSumLanes) {
#pragma GCC unroll 8
      for (int v = 0; v < kSumVectors; ++v) {
        F x[N];
#pragma GCC unroll 4
        for (int k = 0; k < N; ++k) x[k] = F::load(p[k] + i * inc[k] + v * kLanes * 4);
        lane[v] = Step::step(lane[v], x);
      }
    }
    if (i < stop) {
#pragma GCC unroll 8
      for (int v = 0; v < kSumVectors; ++v) {
        const int64_t n = min64(kLanes, stop - i - v * kLanes);
        if (n <= 0) continue;
        F x[N];
#pragma GCC unroll 4
        for (int k = 0; k < N; ++k) x[k] = F::load(p[k] + i * inc[k] + v * kLanes * 4, (int)n);
        lane[v] = select(first(n), Step::step(lane[v], x), lane[v]);
      }
    }
    const float sum = tree(lane);
    total = some ? add_rn(total, sum) : sum;
    some = true;
  }
  return ro::canonical(total);
}

template <class Step>
static void fold_rows(const Reduction& r) {
  constexpr int N = Step::kInputs;
  parallel_for(r.outer, ceil_div(16384, max64(1, r.count)), r.threads, [&](int64_t o0, int64_t o1) {
    alignas(64) float splat[N][kSumLanes];
    const char* p[N];
    int64_t inc[N];
    for (int k = 0; k < N; ++k) inc[k] = r.in[k].fold;
    for (int64_t o = o0; o < o1; ++o) {
      for (int k = 0; k < N; ++k) {
        p[k] = r.in[k].data + o * r.in[k].outer;
        if (inc[k] == 0 && r.stop > r.start) {
          const F x = F::set(load_f32(p[k], 0));
          for (int v = 0; v < kSumVectors; ++v) x.store(splat[k] + v * kLanes);
          p[k] = (const char*)splat[k];
        }
      }
      store_f32(r.out, o, fold_row<Step>(p, inc, r.start, r.stop, r.carry ? r.carry + 4 * o : nullptr));
    }
  });
}

constexpr int64_t kColumnChunk = 128;

// The same for columns [c0, c0 + nc) of one outer index: lane l of all columns is a row of 128 values in L1.
template <class Step>
static void fold_columns_part(const Reduction& r, int64_t o, int64_t c0, int64_t nc) {
  constexpr int N = Step::kInputs;
  alignas(64) float lane[kSumLanes * kColumnChunk];
  alignas(64) float total[kColumnChunk];
  alignas(64) float splat[N][kLanes];
  const int64_t width = ceil_div(nc, kLanes) * kLanes;
  const int64_t out = o * r.inner + c0;
  bool some = r.carry != nullptr;
  for (int64_t c = 0; c < width; c += kLanes)
    (some ? F::load(r.carry + 4 * (out + c), (int)min64(kLanes, nc - c)) : F::set(0.0f)).store(total + c);
  for (int64_t b = r.start; b < r.stop; b += kSumBlock) {
    const int64_t stop = min64(b + kSumBlock, r.stop);
    int used = kSumLanes;  // a power of two, at least as many lanes as have terms
    while (used > 1 && used / 2 >= stop - b) used /= 2;
    std::memset(lane, 0, sizeof(float) * used * kColumnChunk);
    for (int64_t i = b; i < stop; ++i) {
      float* to = lane + (i - b) % kSumLanes * kColumnChunk;
      const char* p[N];
      int64_t inc[N];
      for (int k = 0; k < N; ++k) {
        p[k] = r.in[k].data + o * r.in[k].outer + i * r.in[k].fold + c0 * r.in[k].inner;
        inc[k] = r.in[k].inner;
        if (inc[k] == 0) {
          F::set(load_f32(p[k], 0)).store(splat[k]);
          p[k] = (const char*)splat[k];
        }
      }
      int64_t c = 0;
      for (; c + kLanes <= nc; c += kLanes) {
        F x[N];
        for (int k = 0; k < N; ++k) x[k] = F::load(p[k] + c * inc[k]);
        Step::step(F::load(to + c), x).store(to + c);
      }
      if (c < nc) {
        F x[N];
        for (int k = 0; k < N; ++k) x[k] = F::load(p[k] + c * inc[k], (int)(nc - c));
        Step::step(F::load(to + c), x).store(to + c);
      }
    }
    // Lanes without terms are +0; adding them once is adding them as often as the tree does.
    for (int64_t c = 0; c < width; c += kLanes) {
      if (used < kSumLanes)
        for (int j = 0; j < used; ++j) {
          float* to = lane + j * kColumnChunk + c;
          add(F::load(to), F::set(0.0f)).store(to);
        }
      for (int h = used / 2; h > 0; h /= 2)
        for (int j = 0; j < h; ++j) {
          float* to = lane + j * kColumnChunk + c;
          add(F::load(to), F::load(to + h * kColumnChunk)).store(to);
        }
      const F sum = F::load(lane + c);
      (some ? add(F::load(total + c), sum) : sum).store(total + c);
    }
    some = true;
  }
  for (int64_t c = 0; c < nc; c += kLanes) canonical(F::load(total + c)).store(r.out + 4 * (out + c), (int)min64(kLanes, nc - c));
}

template <class Step>
RO_INLINE void fold(const Call& call) {
  const Reduction r = read_reduction(call, Step::kInputs);
  if (r.inner == 1) return fold_rows<Step>(r);
  const int64_t chunks = ceil_div(r.inner, kColumnChunk);
  const int64_t terms = max64(1, (r.stop - r.start) * min64(r.inner, kColumnChunk));
  parallel_for(r.outer * chunks, ceil_div(16384, terms), r.threads, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t c0 = t % chunks * kColumnChunk;
      fold_columns_part<Step>(r, t / chunks, c0, min64(kColumnChunk, r.inner - c0));
    }
  });
}

RO_KERNEL(sum_sq) { fold<StepSquare>(call); }
RO_KERNEL(sum_mul) { fold<StepProduct>(call); }
RO_KERNEL(sum_sq_centered) { fold<StepCentered>(call); }
RO_KERNEL(sum_exp) { fold<StepExp>(call); }
RO_KERNEL(sum_mul_normalized) { fold<StepNormalized>(call); }

// Integer sums wrap, so their order is free.
template <class Load>
RO_INLINE void sum_integers(const Reduction& r, const Load& load) {
  parallel_for(r.outer * r.inner, ceil_div(16384, max64(1, r.stop - r.start)), r.threads, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const char* p = r.in[0].data + t / r.inner * r.in[0].outer + t % r.inner * r.in[0].inner;
      uint64_t total = r.carry ? (uint64_t)load_i64(r.carry, t) : 0;
      for (int64_t i = r.start; i < r.stop; ++i) total += (uint64_t)load(p + i * r.in[0].fold);
      store_i64(r.out, t, (int64_t)total);
    }
  });
}

RO_KERNEL(sum) {
  if (call.in[0].dtype == kF32) return fold<StepSum>(call);
  const Reduction r = read_reduction(call, 1);
  if (call.in[0].dtype == kI64) sum_integers(r, [](const char* p) { return load_i64(p, 0); });
  else sum_integers(r, [](const char* p) { return (int64_t)load_bool(p, 0); });
}

// The maximum of a row by vectors. Zeros of either sign compare equal, so a zero result is settled by a second look.
RO_INLINE float max_row(const char* p, int64_t n) {
  F best[4];
  for (int v = 0; v < 4; ++v) best[v] = F::bits(kMinusInfBits);
  M nan = is_nan(best[0]);
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      const F x = F::load(p + 4 * (i + v * kLanes));
      best[v] = max_raw(best[v], x);
      nan = or_(nan, is_nan(x));
    }
  }
  for (; i < n; i += kLanes) {
    const int64_t lanes = min64(kLanes, n - i);
    const F x = select(first(lanes), F::load(p + 4 * i, (int)lanes), F::bits(kMinusInfBits));
    best[0] = max_raw(best[0], x);
    nan = or_(nan, is_nan(x));
  }
  if (any(nan)) return ro::float_of(kNanBits);
  float all[4 * kLanes];
  for (int v = 0; v < 4; ++v) best[v].store(all + v * kLanes);
  float m = all[0];
  for (int j = 1; j < 4 * kLanes; ++j) m = all[j] > m ? all[j] : m;
  if (m != 0.0f) return m;
  for (int64_t j = 0; j < n; ++j)
    if (ro::bits_of(load_f32(p, j)) == 0) return 0.0f;
  return -0.0f;
}

RO_KERNEL(amax) {
  const Reduction r = read_reduction(call, 1);
  if (r.inner == 1) {
    parallel_for(r.outer, ceil_div(16384, max64(1, r.stop - r.start)), r.threads, [&](int64_t o0, int64_t o1) {
      for (int64_t o = o0; o < o1; ++o) {
        const float m = max_row(r.in[0].data + o * r.in[0].outer + 4 * r.start, r.stop - r.start);
        store_f32(r.out, o, r.carry ? maximum_f32(load_f32(r.carry, o), m) : m);
      }
    });
    return;
  }
  const int64_t chunks = ceil_div(r.inner, kColumnChunk);
  const int64_t terms = max64(1, (r.stop - r.start) * min64(r.inner, kColumnChunk));
  parallel_for(r.outer * chunks, ceil_div(16384, terms), r.threads, [&](int64_t begin, int64_t end) {
    alignas(64) float best[kColumnChunk];
    for (int64_t t = begin; t < end; ++t) {
      const int64_t o = t / chunks, c0 = t % chunks * kColumnChunk, nc = min64(kColumnChunk, r.inner - c0);
      const int64_t out = o * r.inner + c0;
      for (int64_t c = 0; c < nc; c += kLanes)
        (r.carry ? F::load(r.carry + 4 * (out + c), (int)min64(kLanes, nc - c)) : F::bits(kMinusInfBits)).store(best + c);
      for (int64_t i = r.start; i < r.stop; ++i) {
        const char* p = r.in[0].data + o * r.in[0].outer + i * r.in[0].fold + 4 * c0;
        for (int64_t c = 0; c < nc; c += kLanes)
          maximum(F::load(best + c), F::load(p + 4 * c, (int)min64(kLanes, nc - c))).store(best + c);
      }
      for (int64_t c = 0; c < nc; c += kLanes) F::load(best + c).store(r.out + 4 * (out + c), (int)min64(kLanes, nc - c));
    }
  });
}

}  // namespace RO_ISA
}  // namespace ro
