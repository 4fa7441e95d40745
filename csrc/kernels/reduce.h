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

// What a reduction sees: inputs broadcast to X = [outer, count, inner], strides in bytes (0 along a broadcast dimension).
struct Source {
  const char* data;
  int64_t outer, fold, inner;
  int32_t dtype;
};
struct Reduction {
  int64_t outer, count, inner;
  int64_t start, stop;
  Source in[4];
  const char* carry;  // nullptr: none; f32 or i64, laid out as out
  char* out;
  int32_t out_dtype;
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
  r.out_dtype = call.out.dtype;
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
  // From here on only the terms that this call folds exist, so that a link of a long fold copies no more than it needs.
  const int64_t skipped = r.start, length = r.count;
  r.count = r.stop -= r.start;
  r.start = 0;
  const int64_t run_items = r.count * r.inner;  // of one outer index
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
         joint_stride(stride, shape, a1, rank), t.dtype};
    if (s.outer >= 0 && s.fold >= 0 && s.inner >= 0) {
      s.data += skipped * s.fold;
      continue;
    }
    char* copy = (char*)scratch(4 + i, r.outer * run_items * size);
    for (int64_t o = 0; o < r.outer; ++o) {
      int64_t at[kMaxRank], rest = (o * length + skipped) * r.inner;
      const char* from = (const char*)t.data;
      for (int d = rank - 1; d >= 0 && run_items > 0; --d) {
        at[d] = rest % shape[d];
        rest /= shape[d];
        from += at[d] * stride[d];
      }
      for (int64_t e = 0; e < run_items; ++e) {
        std::memcpy(copy + (o * run_items + e) * size, from, size);
        for (int d = rank - 1; d >= 0; --d) {
          from += stride[d];
          if (++at[d] < shape[d]) break;
          from -= stride[d] * shape[d];
          at[d] = 0;
        }
      }
    }
    s = {copy, run_items * size, r.inner * size, size, t.dtype};
  }
  return r;
}

// Gives an input with one value per row a copy of it for every column.
static void expand_columns(Reduction& r, int k) {
  Source& s = r.in[k];
  char* copy = (char*)scratch(4 + k, 4 * r.outer * r.count * r.inner);
  for (int64_t o = 0; o < r.outer; ++o)
    for (int64_t i = 0; i < r.count; ++i)
      for (int64_t c = 0; c < r.inner; ++c)
        store_f32(copy, (o * r.count + i) * r.inner + c, ro::load_real(s.data + o * s.outer + i * s.fold, s.dtype, 0));
  s = {copy, 4 * r.count * r.inner, 4 * r.inner, 4, kF32};
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

// How a row's vectors are read and written: whole, or, at its end, the first n lanes.
struct Whole {
  RO_MEMBER F load(const char* p) const { return F::load(p); }
  RO_MEMBER F load_halves(const char* p) const { return RO_ISA::load_halves(p); }
  RO_MEMBER void store(F x, char* p) const { x.store(p); }
  RO_MEMBER F keep(F x, F) const { return x; }
};
struct Part {
  int n;
  RO_MEMBER F load(const char* p) const { return F::load(p, n); }
  RO_MEMBER F load_halves(const char* p) const { return load(p); }
  RO_MEMBER void store(F x, char* p) const { x.store(p, n); }
  RO_MEMBER F keep(F x, F other) const { return select(first(n), x, other); }
};

// K sums of one block of n <= 1,024 terms, down to kLanes lanes each. term(lanes, i, v, at) adds the terms from i + v * kLanes on, read by
// `at`, to lanes[0 .. K).
template <int K, class Term>
RO_INLINE void fold_block(int64_t n, F (&sum)[K], const Term& term) {
  F lane[kSumVectors][K];
#pragma GCC unroll 8
  for (int v = 0; v < kSumVectors; ++v)
    for (int k = 0; k < K; ++k) lane[v][k] = F::set(0.0f);
  int64_t i = 0;
  for (; i + kSumLanes <= n; i += kSumLanes) {
#pragma GCC unroll 8
    for (int v = 0; v < kSumVectors; ++v) term(lane[v], i, v, Whole{});
  }
  if (i < n) {
#pragma GCC unroll 8
    for (int v = 0; v < kSumVectors; ++v) {
      const int64_t rest = n - i - v * kLanes;
      if (rest >= kLanes) {
        term(lane[v], i, v, Whole{});
      } else if (rest > 0) {
        const Part at{(int)rest};
        F added[K];
        for (int k = 0; k < K; ++k) added[k] = lane[v][k];
        term(added, i, v, at);
        for (int k = 0; k < K; ++k) lane[v][k] = at.keep(added[k], lane[v][k]);
      }
    }
  }
#pragma GCC unroll 8
  for (int h = kSumVectors / 2; h > 0; h /= 2)
    for (int v = 0; v < h; ++v)
      for (int k = 0; k < K; ++k) lane[v][k] = add(lane[v][k], lane[v + h][k]);
  for (int k = 0; k < K; ++k) sum[k] = lane[0][k];
}

// K sums RSUM of one row of n terms, canonical. term as for fold_block; i counts from the row's beginning.
template <int K, class Term>
RO_INLINE void sum_row(int64_t n, float (&total)[K], const Term& term) {
  for (int k = 0; k < K; ++k) total[k] = 0.0f;
  for (int64_t b = 0; b < n; b += kSumBlock) {
    F sum[K];
    fold_block<K>(min64(kSumBlock, n - b), sum, [&](F* lane, int64_t i, int v, auto at) RO_LAMBDA { term(lane, b + i, v, at); });
    for (int k = 0; k < K; ++k) total[k] = b == 0 ? tree(sum[k]) : add_rn(total[k], tree(sum[k]));
  }
  for (int k = 0; k < K; ++k) total[k] = ro::canonical(total[k]);
}

// RSUM of terms [begin, end) of one row. p[k] + i * inc[k] is where input k has 32 values from term i on (inc 0: 32 equal f32 ones).
// dtypes: of the inputs, nullptr if all are f32; what is not is widened block by block.
template <class Step>
RO_INLINE float fold_row(const char* const* p, const int64_t* inc, int64_t begin, int64_t end, const char* carry,
                         const int32_t* dtypes = nullptr) {
  constexpr int N = Step::kInputs;
  alignas(64) float wide[N][kSumBlock];
  float total = carry ? load_f32(carry, 0) : 0.0f;
  bool some = carry != nullptr;
  for (int64_t b = begin; b < end; b += kSumBlock) {
    const int64_t n = min64(kSumBlock, end - b);
    const char* q[N];
    int64_t step[N];
    for (int k = 0; k < N; ++k) {
      const bool low = dtypes && inc[k] != 0 && dtypes[k] != kF32;
      if (low) widen(dtypes[k], p[k] + b * inc[k], wide[k], n);
      q[k] = low ? (const char*)wide[k] : p[k] + b * inc[k];
      step[k] = low ? 4 : inc[k];
    }
    F lanes[1];
    fold_block<1>(n, lanes, [&](F* lane, int64_t i, int v, auto at) RO_LAMBDA {
      F x[N];
#pragma GCC unroll 4
      for (int k = 0; k < N; ++k) x[k] = at.load(q[k] + i * step[k] + v * kLanes * 4);
      lane[0] = Step::step(lane[0], x);
    });
    const float sum = tree(lanes[0]);
    total = some ? add_rn(total, sum) : sum;
    some = true;
  }
  return ro::canonical(total);
}

// What fold_row reads for row o: an input with one value for the row is 32 copies of it.
template <int N>
struct RowInputs {
  alignas(64) float splat[N][kSumLanes];
  const char* p[N];
  int64_t inc[N];
  int32_t dtypes[N];
  RO_MEMBER RowInputs(const Reduction& r, int64_t o) {
    for (int k = 0; k < N; ++k) {
      p[k] = r.in[k].data + o * r.in[k].outer;
      inc[k] = r.in[k].fold;
      dtypes[k] = r.in[k].dtype;
      if (inc[k] != 0 || r.stop == r.start) continue;
      const F x = F::set(ro::load_real(p[k], dtypes[k], 0));
      for (int v = 0; v < kSumVectors; ++v) x.store(splat[k] + v * kLanes);
      p[k] = (const char*)splat[k];
    }
  }
  RowInputs(const RowInputs&) = delete;
};

constexpr int64_t kShortFold = 256;  // terms; the trees of kLanes such rows are taken together

// The fold h = kLanes / 2, .., 1 of each of kLanes vectors.
RO_INLINE F trees(F (&rows)[kLanes]) {
  transpose(rows);
#pragma GCC unroll 4
  for (int h = kLanes / 2; h > 0; h /= 2)
    for (int j = 0; j < h; ++j) rows[j] = add(rows[j], rows[j + h]);
  return rows[0];
}

// fold_rows for fewer rows than threads, which share out the blocks.
template <class Step>
static void fold_blocks(const Reduction& r) {
  constexpr int N = Step::kInputs;
  const int64_t blocks = ceil_div(r.stop - r.start, kSumBlock);
  float* const sums = (float*)scratch(1, sizeof(float) * r.outer * blocks);
  parallel_for(r.outer * blocks, 16, r.threads, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const RowInputs<N> in(r, t / blocks);
      const int64_t b = r.start + t % blocks * kSumBlock;
      sums[t] = fold_row<Step>(in.p, in.inc, b, min64(b + kSumBlock, r.stop), nullptr, in.dtypes);
    }
  });
  for (int64_t o = 0; o < r.outer; ++o) {
    float total = r.carry ? add_rn(load_f32(r.carry, o), sums[o * blocks]) : sums[o * blocks];
    for (int64_t k = 1; k < blocks; ++k) total = add_rn(total, sums[o * blocks + k]);
    store_real(r.out, r.out_dtype, o, ro::canonical(total));
  }
}

template <class Step>
static void fold_rows(const Reduction& r) {
  constexpr int N = Step::kInputs;
  if (r.outer < r.threads && r.stop - r.start >= 32 * kSumBlock) return fold_blocks<Step>(r);
  parallel_for(r.outer, ceil_div(16384, max64(1, r.count)), r.threads, [&](int64_t o0, int64_t o1) {
    bool short_rows = !r.carry && r.start == 0 && r.stop <= kShortFold && r.out_dtype == kF32;
    for (int k = 0; k < N; ++k) short_rows = short_rows && r.in[k].dtype == kF32;
    int64_t o = o0;
    for (; short_rows && o + kLanes <= o1; o += kLanes) {
      F sums[kLanes];
      for (int j = 0; j < kLanes; ++j) {
        const RowInputs<N> in(r, o + j);
        F sum[1];
        fold_block<1>(r.stop, sum, [&](F* lane, int64_t i, int v, auto at) RO_LAMBDA {
          F x[N];
#pragma GCC unroll 4
          for (int k = 0; k < N; ++k) x[k] = at.load(in.p[k] + i * in.inc[k] + v * kLanes * 4);
          lane[0] = Step::step(lane[0], x);
        });
        sums[j] = sum[0];
      }
      canonical(trees(sums)).store(r.out + 4 * o);
    }
    for (; o < o1; ++o) {
      const RowInputs<N> in(r, o);
      const char* carry = r.carry ? r.carry + 4 * o : nullptr;
      store_real(r.out, r.out_dtype, o, fold_row<Step>(in.p, in.inc, r.start, r.stop, carry, in.dtypes));
    }
  });
}

// A power of two, at least as many lanes as have terms.
RO_INLINE int lanes_with_terms(int64_t terms) {
  int used = kSumLanes;
  while (used > 1 && used / 2 >= terms) used /= 2;
  return used;
}

// The tree over the lanes of `width` columns, lane l from lanes[l * width] on; the sums in lanes[0 .. width). What lies behind the lanes
// in the last vector may change.
RO_INLINE void fold_lanes(float* lanes, int used, int64_t width) {
  // Lanes without terms are +0; adding them once is adding them as often as the tree does.
  if (used < kSumLanes)
    for (int64_t c = 0; c < used * width; c += kLanes) add(F::load(lanes + c), F::set(0.0f)).store(lanes + c);
  for (int h = used / 2; h > 0; h /= 2)
    for (int64_t c = 0; c < h * width; c += kLanes) add(F::load(lanes + c), F::load(lanes + c + h * width)).store(lanes + c);
}

constexpr int kColumnVectors = 8;         // columns taken together, in vectors
constexpr int64_t kRowGroup = 8 * kSumLanes;  // rows taken together: 8 terms to a lane between a load and a store of it

// The same for NV vectors of columns from column c0 on (with NV = 1 for the first `columns` lanes). Inputs in the set Splat have one
// value per row. Lane l of all columns is row l of a buffer in L1.
template <class Step, unsigned Splat, int NV>
static void fold_columns_part(const Reduction& r, int64_t o, int64_t c0, int columns) {
  constexpr int N = Step::kInputs;
  constexpr int kWidth = NV * kLanes;
  alignas(64) float lanes[kSumLanes * kWidth];
  alignas(64) float wide[N][kWidth];
  const int width = NV > 1 ? kWidth : columns;
  const int64_t out = o * r.inner + c0;
  const char* base[N];
  for (int k = 0; k < N; ++k) base[k] = r.in[k].data + o * r.in[k].outer + c0 * r.in[k].inner;
  F total[NV];
  bool some = r.carry != nullptr;
  for (int v = 0; v < NV; ++v) total[v] = some ? F::load(r.carry + 4 * (out + v * kLanes), NV > 1 ? kLanes : columns) : F::set(0.0f);
  for (int64_t b = r.start; b < r.stop; b += kSumBlock) {
    const int64_t stop = min64(b + kSumBlock, r.stop);
    const int used = lanes_with_terms(stop - b);
    std::memset(lanes, 0, sizeof(float) * used * kWidth);
    for (int64_t group = b; group < stop; group += kRowGroup) {
      const int64_t end = min64(group + kRowGroup, stop);
      for (int64_t l = 0; l < kSumLanes && group + l < end; ++l) {
        float* lane = lanes + l * kWidth;
        F acc[NV];
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) acc[v] = F::load(lane + v * kLanes);
        for (int64_t i = group + l; i < end; i += kSumLanes) {
          const char* p[N];
          F row[N];
#pragma GCC unroll 4
          for (int k = 0; k < N; ++k) {
            p[k] = base[k] + i * r.in[k].fold;
            if (Splat >> k & 1) {
              row[k] = F::set(ro::load_real(p[k], r.in[k].dtype, 0));
            } else if (__builtin_expect(r.in[k].dtype != kF32, 0)) {
              widen(r.in[k].dtype, p[k], wide[k], width);
              p[k] = (const char*)wide[k];
            }
          }
#pragma GCC unroll 8
          for (int v = 0; v < NV; ++v) {
            F x[N];
#pragma GCC unroll 4
            for (int k = 0; k < N; ++k) {
              if (Splat >> k & 1) {
                x[k] = row[k];
              } else {
                x[k] = NV > 1 ? F::load(p[k] + v * kLanes * 4) : F::load(p[k], columns);
                // The next lane's row: every row may begin a new page, where the processor's own prefetch stops.
                if (v * kLanes % 16 == 0) __builtin_prefetch(p[k] + v * kLanes * 4 + r.in[k].fold);
              }
            }
            acc[v] = Step::step(acc[v], x);
          }
        }
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) acc[v].store(lane + v * kLanes);
      }
    }
    fold_lanes(lanes, used, kWidth);
    for (int v = 0; v < NV; ++v) {
      const F sum = F::load(lanes + v * kLanes);
      total[v] = some ? add(total[v], sum) : sum;
    }
    some = true;
  }
  if (r.out_dtype != kF32) {
    for (int v = 0; v < NV; ++v) total[v].store(lanes + v * kLanes);
    return narrow(r.out_dtype, lanes, r.out + 2 * out, width);
  }
  for (int v = 0; v < NV; ++v) canonical(total[v]).store(r.out + 4 * (out + v * kLanes), NV > 1 ? kLanes : columns);
}

// Runs body(outer index, first column, columns) over all columns, in parts of about `unit` columns.
template <class Body>
RO_INLINE void for_columns(const Reduction& r, int64_t unit, const Body& body) {
  if (r.outer * r.inner == 0) return;
  if (r.outer * ceil_div(r.inner, unit) < r.threads)
    unit = min64(unit, ceil_div(ceil_div(r.inner * r.outer, r.threads), kLanes) * kLanes);
  const int64_t parts = ceil_div(r.inner, unit);
  const int64_t terms = max64(1, (r.stop - r.start) * min64(r.inner, unit));
  parallel_for(r.outer * parts, ceil_div(16384, terms), r.threads, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t c0 = t % parts * unit;
      body(t / parts, c0, min64(unit, r.inner - c0));
    }
  });
}

template <class Step, unsigned Splat>
static void fold_columns(const Reduction& r) {
  for_columns(r, kColumnVectors * kLanes, [&](int64_t o, int64_t c0, int64_t columns) {
    const int64_t c1 = c0 + columns;
    for (; c0 + kColumnVectors * kLanes <= c1; c0 += kColumnVectors * kLanes)
      fold_columns_part<Step, Splat, kColumnVectors>(r, o, c0, kLanes);
    for (; c0 + 2 * kLanes <= c1; c0 += 2 * kLanes) fold_columns_part<Step, Splat, 2>(r, o, c0, kLanes);
    for (; c0 < c1; c0 += kLanes) fold_columns_part<Step, Splat, 1>(r, o, c0, (int)min64(kLanes, c1 - c0));
  });
}

constexpr int64_t kStreamColumns = 512;

// lanes[i] after the terms at p[k] + 4 i + j stride, j ascending below J.
template <class Step, int J>
RO_INLINE void add_rows(float* lanes, const char* const* p, int64_t stride, int64_t n, int64_t ahead) {
  constexpr int N = Step::kInputs;
  const auto run = [&](int64_t i, auto at) RO_LAMBDA {
    F lane = at.load((const char*)(lanes + i));
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j) {
      F x[N];
#pragma GCC unroll 4
      for (int k = 0; k < N; ++k) x[k] = at.load(p[k] + j * stride + 4 * i);
      lane = Step::step(lane, x);
    }
    at.store(lane, (char*)(lanes + i));
  };
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j)
      for (int k = 0; k < N; ++k) __builtin_prefetch(p[k] + j * stride + 4 * i + ahead);
#pragma GCC unroll 4
    for (int v = 0; v < 16; v += kLanes) run(i + v, Whole{});
  }
  for (; i < n; i += kLanes) run(i, Part{(int)min64(kLanes, n - i)});
}

// The block sums of `width` columns from c0 on, terms [b, stop) of one block, in lanes[0 .. width). The inputs are f32 and lie as
// [outer, count, inner]: 32 rows are one run of memory, four such runs are read side by side.
template <class Step>
static void fold_block_of_columns(const Reduction& r, int64_t o, int64_t c0, int64_t width, int64_t b, int64_t stop, float* lanes) {
  constexpr int N = Step::kInputs;
  constexpr int kRuns = 4;
  const int64_t row = 4 * r.inner, stride = kSumLanes * row;
  const bool whole = width == r.inner;
  const int used = lanes_with_terms(stop - b);
  std::memset(lanes, 0, sizeof(float) * used * width);
  for (int64_t i = b; i < stop;) {
    const int64_t rows = min64(kSumLanes, stop - i), pieces = whole ? 1 : rows;
    const int64_t n = whole ? rows * width : width, ahead = whole ? 1024 : row;
    const bool several = stop - i >= kRuns * kSumLanes;
    for (int64_t l = 0; l < pieces; ++l) {
      const char* p[N];
      for (int k = 0; k < N; ++k) p[k] = r.in[k].data + o * r.in[k].outer + (i + l) * row + 4 * c0;
      if (several) add_rows<Step, kRuns>(lanes + l * width, p, stride, n, ahead);
      else add_rows<Step, 1>(lanes + l * width, p, stride, n, ahead);
    }
    i += several ? kRuns * kSumLanes : rows;
  }
  fold_lanes(lanes, used, width);
}

// fold_columns for such inputs. Where the outputs are too few for the threads, these share out the blocks.
template <class Step>
static void fold_streams(const Reduction& r) {
  const int64_t blocks = ceil_div(r.stop - r.start, kSumBlock), parts = ceil_div(r.inner, kStreamColumns);
  const bool share = r.outer * parts < r.threads && blocks > 1;
  float* const sums = share ? (float*)scratch(1, sizeof(float) * (r.outer * blocks * r.inner + kLanes)) : nullptr;
  const auto block = [&](int64_t o, int64_t c0, int64_t width, int64_t k) {
    float* const lanes = (float*)scratch(0, sizeof(float) * (kSumLanes * width + kLanes));
    const int64_t b = r.start + k * kSumBlock;
    fold_block_of_columns<Step>(r, o, c0, width, b, min64(b + kSumBlock, r.stop), lanes);
    return lanes;
  };
  if (share)
    parallel_for(r.outer * parts * blocks, 16, r.threads, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const int64_t k = t % blocks, o = t / blocks / parts, c0 = t / blocks % parts * kStreamColumns;
        const int64_t width = min64(kStreamColumns, r.inner - c0);
        std::memcpy(sums + (o * blocks + k) * r.inner + c0, block(o, c0, width, k), sizeof(float) * width);
      }
    });
  for_columns(r, kStreamColumns, [&](int64_t o, int64_t c0, int64_t width) {
    alignas(64) float total[kStreamColumns + kLanes];
    const int64_t out = o * r.inner + c0;
    std::memset(total, 0, sizeof(float) * width);
    if (r.carry) std::memcpy(total, r.carry + 4 * out, 4 * width);
    bool some = r.carry != nullptr;
    for (int64_t k = 0; k < blocks; ++k) {
      const float* sum = share ? sums + (o * blocks + k) * r.inner + c0 : block(o, c0, width, k);
      for (int64_t c = 0; c < width; c += kLanes) {
        const F x = F::load(sum + c);
        (some ? add(F::load(total + c), x) : x).store(total + c);
      }
      some = true;
    }
    if (r.out_dtype != kF32) return narrow(r.out_dtype, total, r.out + 2 * out, width);
    for (int64_t c = 0; c < width; c += kLanes) canonical(F::load(total + c)).store(r.out + 4 * (out + c), (int)min64(kLanes, width - c));
  });
}

// RowInputs: the inputs that usually have one value per row (statistics of a normalised row).
template <class Step, unsigned RowInputs>
RO_INLINE void fold(const Call& call) {
  Reduction r = read_reduction(call, Step::kInputs);
  if (r.inner == 1) return fold_rows<Step>(r);
  bool streams = true;
  for (int k = 0; k < Step::kInputs; ++k)
    streams = streams && r.in[k].dtype == kF32 && r.in[k].inner == 4 && r.in[k].fold == 4 * r.inner;
  if (streams) return fold_streams<Step>(r);
  unsigned splat = 0;
  for (int k = 0; k < Step::kInputs; ++k) splat |= r.in[k].inner == 0 ? 1u << k : 0u;
  if (RowInputs && splat == RowInputs) return fold_columns<Step, RowInputs>(r);
  for (int k = 0; k < Step::kInputs; ++k)
    if (r.in[k].inner == 0) expand_columns(r, k);
  fold_columns<Step, 0>(r);
}

RO_KERNEL_ANY(sum_sq) { fold<StepSquare, 0>(call); }
RO_KERNEL_ANY(sum_mul) { fold<StepProduct, 0>(call); }
RO_KERNEL_ANY(sum_sq_centered) { fold<StepCentered, 2>(call); }
RO_KERNEL_ANY(sum_exp) { fold<StepExp, 2>(call); }
RO_KERNEL_ANY(sum_mul_normalized) { fold<StepNormalized, 12>(call); }

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

RO_KERNEL_ANY(sum) {
  if (is_floating(call.in[0].dtype)) return fold<StepSum, 0>(call);
  const Reduction r = read_reduction(call, 1);
  if (call.in[0].dtype == kI32) sum_integers(r, [](const char* p) { return (int64_t)load_i32(p, 0); });
  else if (call.in[0].dtype == kI64) sum_integers(r, [](const char* p) { return load_i64(p, 0); });
  else sum_integers(r, [](const char* p) { return (int64_t)load_bool(p, 0); });
}

// The maximum of a row by vectors. Zeros of either sign compare equal, so a zero result is settled by a second look.
RO_INLINE float max_row(const char* p, int64_t n) {
  F best[4];
  for (int v = 0; v < 4; ++v) best[v] = F::bits(kMinusInfBits);
  M nan = is_nan(best[0]);
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    F x[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      x[v] = F::load(p + 4 * (i + v * kLanes));
      best[v] = max_raw(best[v], x[v]);
    }
    nan = or_(nan, or_(is_nan(x[0], x[1]), is_nan(x[2], x[3])));
  }
  for (; i < n; i += kLanes) {
    const int64_t lanes = min64(kLanes, n - i);
    const F x = select(first(lanes), F::load(p + 4 * i, (int)lanes), F::bits(kMinusInfBits));
    best[0] = max_raw(best[0], x);
    nan = or_(nan, is_nan(x));
  }
  if (any(nan)) return ro::float_of(kNanBits);
  float all[kLanes];
  max_raw(max_raw(best[0], best[1]), max_raw(best[2], best[3])).store(all);
  float m = all[0];
  for (int j = 1; j < kLanes; ++j) m = all[j] > m ? all[j] : m;
  if (m != 0.0f) return m;
  for (int64_t j = 0; j < n; ++j)
    if (ro::bits_of(load_f32(p, j)) == 0) return 0.0f;
  return -0.0f;
}

// The same of elements [begin, end) of any float dtype.
RO_INLINE float max_row(int32_t dtype, const char* p, int64_t begin, int64_t end) {
  if (dtype == kF32) return max_row(p + 4 * begin, end - begin);
  alignas(64) float wide[kSumBlock];
  float m = ro::float_of(kMinusInfBits);
  for (int64_t b = begin; b < end; b += kSumBlock) {
    const int64_t n = min64(kSumBlock, end - b);
    widen(dtype, p + 2 * b, wide, n);
    m = maximum_f32(m, max_row((const char*)wide, n));
  }
  return m;
}

constexpr int64_t kMaxColumns = 512;

RO_KERNEL_ANY(amax) {
  const Reduction r = read_reduction(call, 1);
  const int32_t dtype = r.in[0].dtype;
  if (r.inner == 1) {
    parallel_for(r.outer, ceil_div(16384, max64(1, r.stop - r.start)), r.threads, [&](int64_t o0, int64_t o1) {
      for (int64_t o = o0; o < o1; ++o) {
        const float m = max_row(dtype, r.in[0].data + o * r.in[0].outer, r.start, r.stop);
        store_real(r.out, r.out_dtype, o, r.carry ? maximum_f32(load_f32(r.carry, o), m) : m);
      }
    });
    return;
  }
  for_columns(r, kMaxColumns, [&](int64_t o, int64_t c0, int64_t columns) {
    alignas(64) float best[kMaxColumns], wide[kMaxColumns];
    const int64_t out = o * r.inner + c0;
    for (int64_t c = 0; c < columns; c += kLanes)
      (r.carry ? F::load(r.carry + 4 * (out + c), (int)min64(kLanes, columns - c)) : F::bits(kMinusInfBits)).store(best + c);
    for (int64_t i = r.start; i < r.stop; ++i) {
      const char* p = as_f32(dtype, r.in[0].data + o * r.in[0].outer + i * r.in[0].fold + r.in[0].inner * c0, wide, columns);
      int64_t c = 0;
      for (; c + kLanes <= columns; c += kLanes) {
        if (c % 16 == 0 && dtype == kF32) __builtin_prefetch(p + 4 * c + 2 * r.in[0].fold);
        maximum(F::load(best + c), F::load(p + 4 * c)).store(best + c);
      }
      if (c < columns) maximum(F::load(best + c), F::load(p + 4 * c, (int)(columns - c))).store(best + c);
    }
    if (r.out_dtype != kF32) return narrow(r.out_dtype, best, r.out + 2 * out, columns);
    for (int64_t c = 0; c < columns; c += kLanes) F::load(best + c).store(r.out + 4 * (out + c), (int)min64(kLanes, columns - c));
  });
}

}  // namespace RO_ISA
}  // namespace ro
