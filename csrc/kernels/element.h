// The reference of profile RO-1: for every operator of docs/spec/operators.md one function that gives the bits of one output
// element by the definition, in plain loops, without allocation. The vector kernels are tested against it, and a processor without a
// vector kernel runs it.
//
// Include after prim.h, registry.h, simd.h and functions.h in one unit, the scalar one: it registers the definitions.
#pragma once
#include <cstdint>

namespace ro {
namespace RO_ISA {

// ---- loads, indices -------------------------------------------------------------------------------------------------------

// The scalar primitives, beside the vector ones of the same name.
using ro::bits_of;
using ro::canonical;
using ro::float_of;

// A result as it is written in the output's dtype.
RO_PRIM uint64_t pattern(const Call& call, float x) { return real_bits(x, call.out.dtype); }
RO_PRIM uint64_t pattern(const Call& call, int64_t x) { return integer_bits(x, call.out.dtype); }
RO_PRIM uint64_t pattern(const Call&, bool x) { return x ? 1 : 0; }

// The stored bytes of element i, as they are.
RO_HD static inline uint64_t stored(const Tensor& t, int64_t i) {
  uint64_t bits = 0;
  const int size = item_size(t.dtype);
  std::memcpy(&bits, (const char*)t.data + i * size, size);
  return bits;
}
RO_PRIM uint64_t low_bytes(uint64_t literal, int32_t dtype) {
  const int size = item_size(dtype);
  return size == 8 ? literal : literal & ((1ull << (8 * size)) - 1);
}

// The coordinates of a row-major index.
RO_HD static inline void coordinates(const Tensor& t, int64_t index, int64_t* c) {
  for (int d = t.rank - 1; d >= 0; --d) {
    c[d] = index % t.shape[d];
    index /= t.shape[d];
  }
}
RO_HD static inline int64_t position(const Tensor& t, const int64_t* c) {
  int64_t i = 0;
  for (int d = 0; d < t.rank; ++d) i = i * t.shape[d] + c[d];
  return i;
}
// Where the element of t lies that broadcasting puts at the coordinates c of a tensor of that rank.
RO_HD static inline int64_t broadcast_position(const Tensor& t, const int64_t* c, int rank) {
  int64_t i = 0;
  for (int d = 0; d < t.rank; ++d) i = i * t.shape[d] + (t.shape[d] == 1 ? 0 : c[rank - t.rank + d]);
  return i;
}
RO_HD static inline int64_t source(const Call& call, int input, int64_t index) {
  int64_t c[kMaxRank];
  coordinates(call.out, index, c);
  return broadcast_position(call.in[input], c, call.out.rank);
}
RO_HD static inline float real(const Call& call, int input, int64_t index) {
  return load_real(call.in[input].data, call.in[input].dtype, source(call, input, index));
}
RO_HD static inline int64_t integer(const Call& call, int input, int64_t index) {
  return load_integer(call.in[input].data, call.in[input].dtype, source(call, input, index));
}
RO_HD static inline bool truth(const Call& call, int input, int64_t index) {
  return load_bool(call.in[input].data, source(call, input, index));
}

RO_HD static inline float exp_f32(float x) { return f_exp(F{x}).v; }
RO_HD static inline float log_f32(float x) { return f_log(F{x}).v; }
RO_HD static inline float sigmoid_f32(float x) { return f_sigmoid(F{x}).v; }

// ---- pointwise ------------------------------------------------------------------------------------------------------------

#define RO_UNARY(op, expression)            \
  RO_ELEMENT(op) {                          \
    const float x = real(call, 0, index);   \
    return pattern(call, expression);             \
  }
#define RO_BINARY(op, a, b, expression)     \
  RO_ELEMENT(op) {                          \
    const float a = real(call, 0, index);   \
    const float b = real(call, 1, index);   \
    return pattern(call, expression);             \
  }
// The same operator on floats or on integers.
#define RO_NUMERIC(op, floats, integers)          \
  RO_ELEMENT(op) {                                \
    if (is_floating(call.in[0].dtype)) {          \
      const float a = real(call, 0, index);       \
      const float b = real(call, 1, index);       \
      return pattern(call, floats);                     \
    }                                             \
    const int64_t a = integer(call, 0, index);    \
    const int64_t b = integer(call, 1, index);    \
    return pattern(call, integers);                     \
  }

RO_NUMERIC(add, add_rn(a, b), add_i64(a, b))
RO_NUMERIC(sub, sub_rn(a, b), sub_i64(a, b))
RO_NUMERIC(mul, mul_rn(a, b), mul_i64(a, b))
RO_NUMERIC(maximum, maximum_f32(a, b), a > b ? a : b)
RO_NUMERIC(minimum, minimum_f32(a, b), a < b ? a : b)
RO_NUMERIC(eq, a == b, a == b)
RO_NUMERIC(ne, a != b, a != b)
RO_NUMERIC(lt, a < b, a < b)
RO_NUMERIC(le, a <= b, a <= b)
RO_NUMERIC(gt, a > b, a > b)
RO_NUMERIC(ge, a >= b, a >= b)
RO_BINARY(div, a, b, div_rn(a, b))

RO_ELEMENT(neg) {
  if (is_floating(call.in[0].dtype)) return pattern(call, neg_f32(real(call, 0, index)));
  return pattern(call, neg_i64(integer(call, 0, index)));
}
RO_ELEMENT(abs) {
  if (is_floating(call.in[0].dtype)) return pattern(call, abs_f32(real(call, 0, index)));
  return pattern(call, abs_i64(integer(call, 0, index)));
}

RO_UNARY(sqrt, sqrt_rn(x))
RO_UNARY(rsqrt, div_rn(1.0f, sqrt_rn(x)))
RO_UNARY(exp, exp_f32(x))
RO_UNARY(log, log_f32(x))
RO_UNARY(exp2, f_exp2(F{x}).v)
RO_UNARY(expm1, f_expm1(F{x}).v)
RO_UNARY(log2, f_log2(F{x}).v)
RO_UNARY(log10, f_log10(F{x}).v)
RO_UNARY(log1p, f_log1p(F{x}).v)
RO_UNARY(sin, f_sin(F{x}).v)
RO_UNARY(cos, f_cos(F{x}).v)
RO_UNARY(softplus, f_softplus(F{x}).v)
RO_BINARY(pow, x, y, f_pow(F{x}, F{y}).v)
RO_UNARY(tanh, f_tanh(F{x}).v)
RO_UNARY(sigmoid, sigmoid_f32(x))
RO_UNARY(erf, f_erf(F{x}).v)
RO_UNARY(gelu_erf, f_gelu_erf(F{x}).v)
RO_UNARY(gelu_tanh, f_gelu_tanh(F{x}).v)
RO_UNARY(silu, f_silu(F{x}).v)
RO_UNARY(relu, maximum_f32(x, 0.0f))

// Copies dy where the dtype stays, so it keeps the payload of a NaN.
RO_ELEMENT(relu_grad) {
  if (real(call, 1, index) <= 0.0f) return 0;
  if (call.in[0].dtype == call.out.dtype) return stored(call.in[0], source(call, 0, index));
  return pattern(call, real(call, 0, index));
}
RO_BINARY(tanh_grad, dy, y, mul_rn(dy, fma_rn(neg_f32(y), y, 1.0f)))
RO_BINARY(sigmoid_grad, dy, y, mul_rn(dy, mul_rn(y, sub_rn(1.0f, y))))
RO_ELEMENT(silu_grad) {
  const float dy = real(call, 0, index), x = real(call, 1, index), s = sigmoid_f32(x);
  return pattern(call, mul_rn(dy, mul_rn(s, fma_rn(x, sub_rn(1.0f, s), 1.0f))));
}
RO_BINARY(gelu_erf_grad, dy, x, mul_rn(dy, f_gelu_erf_slope(F{x}).v))
RO_BINARY(gelu_tanh_grad, dy, x, mul_rn(dy, f_gelu_tanh_slope(F{x}).v))

#define RO_LOGICAL(op, expression)          \
  RO_ELEMENT(op) {                          \
    const bool a = truth(call, 0, index);   \
    const bool b = truth(call, 1, index);   \
    return pattern(call, (bool)(expression));     \
  }
RO_LOGICAL(logical_and, a && b)
RO_LOGICAL(logical_or, a || b)
RO_LOGICAL(logical_xor, a != b)
RO_ELEMENT(logical_not) { return pattern(call, !truth(call, 0, index)); }

RO_ELEMENT(where) {
  const int chosen = truth(call, 0, index) ? 1 : 2;
  return stored(call.in[chosen], source(call, chosen, index));
}

RO_ELEMENT(cast) {
  const Tensor& x = call.in[0];
  const int64_t i = source(call, 0, index);
  const int32_t from = x.dtype, to = call.out.dtype;
  if (from == to) return stored(x, i);
  if (is_floating(from)) {
    const float a = load_real(x.data, from, i);
    if (is_floating(to)) return pattern(call, a);
    if (to == kBool) return pattern(call, f32_to_bool(a));
    return pattern(call, to == kI64 ? f32_to_i64(a) : (int64_t)f32_to_i32(a));
  }
  const int64_t a = from == kBool ? (int64_t)load_bool(x.data, i) : load_integer(x.data, from, i);
  if (to == kF32) return pattern(call, i64_to_f32(a));
  if (to == kBF16) return i64_to_bf16(a);
  if (to == kF16) return i64_to_f16(a);
  return to == kBool ? pattern(call, a != 0) : pattern(call, a);
}

RO_UNARY(rstd, div_rn(1.0f, sqrt_rn(add_rn(div_rn(x, literal_f32(call, 0)), literal_f32(call, 1)))))

RO_ELEMENT(softmax) {
  const float x = real(call, 0, index), m = real(call, 1, index), s = real(call, 2, index);
  return pattern(call, mul_rn(exp_f32(sub_rn(x, m)), div_rn(1.0f, s)));
}
RO_ELEMENT(log_softmax) {
  const float x = real(call, 0, index), m = real(call, 1, index), s = real(call, 2, index);
  return pattern(call, sub_rn(sub_rn(x, m), log_f32(s)));
}
RO_ELEMENT(normalize) {
  const float x = real(call, 0, index), mean = real(call, 1, index), rstd = real(call, 2, index);
  return pattern(call, mul_rn(sub_rn(x, mean), rstd));
}
RO_ELEMENT(layer_norm) {
  const float x = real(call, 0, index), mean = real(call, 1, index), rstd = real(call, 2, index);
  const float w = real(call, 3, index), b = real(call, 4, index);
  return pattern(call, fma_rn(mul_rn(sub_rn(x, mean), rstd), w, b));
}
RO_ELEMENT(layer_norm_grad) {
  const float dy = real(call, 0, index), x = real(call, 1, index), mean = real(call, 2, index);
  const float rstd = real(call, 3, index), w = real(call, 4, index), c1 = real(call, 5, index), c2 = real(call, 6, index);
  const float h = mul_rn(sub_rn(x, mean), rstd);
  return pattern(call, mul_rn(rstd, sub_rn(sub_rn(mul_rn(dy, w), c1), mul_rn(h, c2))));
}

// ---- folds ----------------------------------------------------------------------------------------------------------------

constexpr int64_t kDotBlock = 256;
constexpr int64_t kSumBlock = 1024;
constexpr int kSumLanes = 32;

// Adds block results in ascending order; the first is taken as it is, unless a carry precedes it.
struct BlockSum {
  float s = 0.0f;
  bool begun = false;
  RO_MEMBER void carry(float x) {
    s = x;
    begun = true;
  }
  RO_MEMBER void block(float x) {
    s = begun ? add_rn(s, x) : x;
    begun = true;
  }
};

RO_HD static inline float lane_tree(float* lane) {
  for (int h = kSumLanes / 2; h >= 1; h /= 2) {
    for (int j = 0; j < h; ++j) lane[j] = add_rn(lane[j], lane[j + h]);
  }
  return lane[0];
}

// DOT over the k of [start, stop) for which visible(k); a block without one is skipped.
template <class Visible, class A, class B>
RO_HD static inline float dot(BlockSum sum, int64_t start, int64_t stop, Visible visible, A a, B b) {
  for (int64_t block = start; block < stop; block = (block / kDotBlock + 1) * kDotBlock) {
    const int64_t end = (block / kDotBlock + 1) * kDotBlock < stop ? (block / kDotBlock + 1) * kDotBlock : stop;
    float p = 0.0f;
    bool some = false;
    for (int64_t k = block; k < end; ++k) {
      if (!visible(k)) continue;
      p = fma_rn(a(k), b(k), p);
      some = true;
    }
    if (some) sum.block(p);
  }
  return sum.s;
}

// RSUM over the i of [start, stop) for which visible(i); step(lane, i) is the lane after term i.
template <class Visible, class Step>
RO_HD static inline float strided_sum(BlockSum sum, int64_t start, int64_t stop, Visible visible, Step step) {
  for (int64_t block = start; block < stop; block = (block / kSumBlock + 1) * kSumBlock) {
    const int64_t end = (block / kSumBlock + 1) * kSumBlock < stop ? (block / kSumBlock + 1) * kSumBlock : stop;
    float lane[kSumLanes];
    for (int j = 0; j < kSumLanes; ++j) lane[j] = 0.0f;
    bool some = false;
    for (int64_t i = block; i < end; ++i) {
      if (!visible(i)) continue;
      lane[i % kSumLanes] = step(lane[i % kSumLanes], i);
      some = true;
    }
    if (some) sum.block(lane_tree(lane));
  }
  return sum.s;
}

struct Always {
  RO_MEMBER bool operator()(int64_t) const { return true; }
};

// A reduction's inputs, without the carry, and where term i of output element `index` lies in each.
struct Reduction {
  int64_t c[kMaxRank];      // the output element, 0 along the reduced axes
  int64_t shape[kMaxRank];  // the common shape X
  int rank, first, axes;
  int64_t start, stop;

  RO_MEMBER Reduction(const Call& call, int inputs, int64_t index) {
    rank = call.out.rank;
    for (int d = 0; d < rank; ++d) {
      shape[d] = 1;
      for (int k = 0; k < inputs; ++k) {
        const int own = d - (rank - call.in[k].rank);
        if (own >= 0 && call.in[k].shape[own] != 1) shape[d] = call.in[k].shape[own];
      }
    }
    axes = (int)call.params[0];
    first = axes > 0 ? (int)call.params[1] : 0;  // the reduced axes are adjacent
    start = call.params[1 + axes];
    stop = call.params[2 + axes];
    coordinates(call.out, index, c);
  }
  RO_MEMBER int64_t at(const Tensor& t, int64_t i) const {
    int64_t full[kMaxRank];
    for (int d = 0; d < rank; ++d) full[d] = c[d];
    for (int d = first + axes - 1; d >= first; --d) {
      full[d] = i % shape[d];
      i /= shape[d];
    }
    return broadcast_position(t, full, rank);
  }
};

// Runs RSUM with step(lane, offsets) where offsets[k] is the place of the term in input k.
template <int kInputs, class Step>
RO_HD static inline uint64_t reduce(const Call& call, int64_t index, Step step) {
  const Reduction r(call, kInputs, index);
  BlockSum sum;
  if (call.inputs > kInputs) sum.carry(load_f32(call.in[kInputs].data, index));  // a carry is f32
  return pattern(call, strided_sum(sum, r.start, r.stop, Always(), [&](float lane, int64_t i) {
    int64_t offsets[kInputs];
    for (int k = 0; k < kInputs; ++k) offsets[k] = r.at(call.in[k], i);
    return step(lane, offsets);
  }));
}
RO_PRIM float term(const Call& call, int input, const int64_t* offsets) {
  return load_real(call.in[input].data, call.in[input].dtype, offsets[input]);
}

RO_ELEMENT(sum) {
  const Tensor& x = call.in[0];
  if (is_floating(x.dtype)) {
    return reduce<1>(call, index, [&](float lane, const int64_t* o) { return add_rn(lane, term(call, 0, o)); });
  }
  const Reduction r(call, 1, index);
  int64_t total = call.inputs > 1 ? load_i64(call.in[1].data, index) : 0;
  for (int64_t i = r.start; i < r.stop; ++i) {
    const int64_t o = r.at(x, i);
    total = add_i64(total, x.dtype == kBool ? (int64_t)load_bool(x.data, o) : load_integer(x.data, x.dtype, o));
  }
  return pattern(call, total);
}
RO_ELEMENT(amax) {
  const Reduction r(call, 1, index);
  float m = call.inputs > 1 ? load_f32(call.in[1].data, index) : float_of(kMinusInfBits);
  for (int64_t i = r.start; i < r.stop; ++i) {
    const int64_t o = r.at(call.in[0], i);
    m = maximum_f32(m, term(call, 0, &o));
  }
  return pattern(call, m);
}
RO_ELEMENT(sum_sq) {
  return reduce<1>(call, index, [&](float lane, const int64_t* o) {
    const float x = term(call, 0, o);
    return fma_rn(x, x, lane);
  });
}
RO_ELEMENT(sum_mul) {
  return reduce<2>(call, index, [&](float lane, const int64_t* o) { return fma_rn(term(call, 0, o), term(call, 1, o), lane); });
}
RO_ELEMENT(sum_sq_centered) {
  return reduce<2>(call, index, [&](float lane, const int64_t* o) {
    const float d = sub_rn(term(call, 0, o), term(call, 1, o));
    return fma_rn(d, d, lane);
  });
}
RO_ELEMENT(sum_exp) {
  return reduce<2>(call, index, [&](float lane, const int64_t* o) {
    return add_rn(lane, exp_f32(sub_rn(term(call, 0, o), term(call, 1, o))));
  });
}
RO_ELEMENT(sum_mul_normalized) {
  return reduce<4>(call, index, [&](float lane, const int64_t* o) {
    const float h = mul_rn(sub_rn(term(call, 1, o), term(call, 2, o)), term(call, 3, o));
    return fma_rn(term(call, 0, o), h, lane);
  });
}

// ---- matmul ---------------------------------------------------------------------------------------------------------------

RO_ELEMENT(matmul) {
  const Tensor &a = call.in[0], &b = call.in[1];
  const int r = call.out.rank;
  const int64_t columns = call.out.shape[r - 1], rows = call.out.shape[r - 2];
  const int64_t n = index % columns, m = index / columns % rows, batch = index / columns / rows;
  const bool ta = call.params[0] != 0, tb = call.params[1] != 0;
  const int64_t depth = ta ? a.shape[r - 2] : a.shape[r - 1];
  BlockSum sum;
  if (call.inputs > 2) sum.carry(load_f32(call.in[2].data, index));
  return pattern(call, dot(
      sum, call.params[2], call.params[3], Always(),
      [&](int64_t k) { return load_real(a.data, a.dtype, batch * rows * depth + (ta ? k * rows + m : m * depth + k)); },
      [&](int64_t k) { return load_real(b.data, b.dtype, batch * columns * depth + (tb ? n * depth + k : k * columns + n)); }));
}

// ---- attention ------------------------------------------------------------------------------------------------------------

// One tensor of a group: [B, rows, columns].
struct Heads {
  const void* data;
  int32_t dtype;
  int64_t rows, columns;
  RO_MEMBER explicit Heads(const Tensor& t) : data(t.data), dtype(t.dtype), rows(t.shape[1]), columns(t.shape[2]) {}
  RO_MEMBER float operator()(int64_t b, int64_t i, int64_t j) const {
    return load_real(data, dtype, (b * rows + i) * columns + j);
  }
};
struct HeadIndex {
  int64_t b, i, j;
  RO_MEMBER HeadIndex(const Call& call, int64_t index)
      : b(index / call.out.shape[2] / call.out.shape[1]),
        i(index / call.out.shape[2] % call.out.shape[1]),
        j(index % call.out.shape[2]) {}
};
RO_PRIM bool sees(const Call& call, int64_t query, int64_t key) { return call.params[0] == 0 || key <= query; }

RO_ELEMENT(attention_scores) {
  const Heads q(call.in[0]), k(call.in[1]);
  const HeadIndex e(call, index);
  if (!sees(call, e.i, e.j)) return pattern(call, float_of(kMinusInfBits));
  const float s = dot(
      BlockSum(), 0, q.columns, Always(), [&](int64_t d) { return q(e.b, e.i, d); }, [&](int64_t d) { return k(e.b, e.j, d); });
  return pattern(call, mul_rn(s, literal_f32(call, 0)));
}
RO_ELEMENT(attention_max) {
  const Heads s(call.in[0]);
  const HeadIndex e(call, index);
  float m = float_of(kMinusInfBits);
  for (int64_t j = 0; j < s.columns; ++j) {
    if (sees(call, e.i, j)) m = maximum_f32(m, s(e.b, e.i, j));
  }
  return pattern(call, m);
}
RO_ELEMENT(attention_sum) {
  const Heads s(call.in[0]), m(call.in[1]);
  const HeadIndex e(call, index);
  return pattern(call, strided_sum(
      BlockSum(), 0, s.columns, [&](int64_t j) { return sees(call, e.i, j); },
      [&](float lane, int64_t j) { return add_rn(lane, exp_f32(sub_rn(s(e.b, e.i, j), m(e.b, e.i, 0)))); }));
}
RO_ELEMENT(attention_out) {
  const Heads s(call.in[0]), m(call.in[1]), l(call.in[2]), v(call.in[3]);
  const HeadIndex e(call, index);
  const float o = dot(
      BlockSum(), 0, s.columns, [&](int64_t j) { return sees(call, e.i, j); },
      [&](int64_t j) { return exp_f32(sub_rn(s(e.b, e.i, j), m(e.b, e.i, 0))); }, [&](int64_t j) { return v(e.b, j, e.j); });
  return pattern(call, mul_rn(o, div_rn(1.0f, l(e.b, e.i, 0))));
}
// P_ij = MUL(EXP(SUB(s_ij, m_i)), DIV(1, l_i)).
RO_HD static inline float probability(const Heads& s, const Heads& m, const Heads& l, int64_t b, int64_t i, int64_t j) {
  return mul_rn(exp_f32(sub_rn(s(b, i, j), m(b, i, 0))), div_rn(1.0f, l(b, i, 0)));
}
RO_ELEMENT(attention_dv) {
  const Heads s(call.in[0]), m(call.in[1]), l(call.in[2]), dout(call.in[3]);
  const HeadIndex e(call, index);
  return pattern(call, dot(
      BlockSum(), 0, s.rows, [&](int64_t i) { return sees(call, i, e.i); },
      [&](int64_t i) { return probability(s, m, l, e.b, i, e.i); }, [&](int64_t i) { return dout(e.b, i, e.j); }));
}
RO_ELEMENT(attention_dp) {
  const Heads dout(call.in[0]), v(call.in[1]);
  const HeadIndex e(call, index);
  if (!sees(call, e.i, e.j)) return 0;
  return pattern(call, dot(
      BlockSum(), 0, dout.columns, Always(), [&](int64_t d) { return dout(e.b, e.i, d); },
      [&](int64_t d) { return v(e.b, e.j, d); }));
}
RO_ELEMENT(attention_ds) {
  const Heads s(call.in[0]), m(call.in[1]), l(call.in[2]), dp(call.in[3]), delta(call.in[4]);
  const HeadIndex e(call, index);
  if (!sees(call, e.i, e.j)) return 0;
  return pattern(call, mul_rn(probability(s, m, l, e.b, e.i, e.j), sub_rn(dp(e.b, e.i, e.j), delta(e.b, e.i, 0))));
}
RO_ELEMENT(attention_dq) {
  const Heads ds(call.in[0]), k(call.in[1]);
  const HeadIndex e(call, index);
  const float x = dot(
      BlockSum(), 0, ds.columns, [&](int64_t j) { return sees(call, e.i, j); }, [&](int64_t j) { return ds(e.b, e.i, j); },
      [&](int64_t j) { return k(e.b, j, e.j); });
  return pattern(call, mul_rn(x, literal_f32(call, 0)));
}
RO_ELEMENT(attention_dk) {
  const Heads ds(call.in[0]), q(call.in[1]);
  const HeadIndex e(call, index);
  const float x = dot(
      BlockSum(), 0, ds.rows, [&](int64_t i) { return sees(call, i, e.i); }, [&](int64_t i) { return ds(e.b, i, e.i); },
      [&](int64_t i) { return q(e.b, i, e.j); });
  return pattern(call, mul_rn(x, literal_f32(call, 0)));
}

// ---- data movement --------------------------------------------------------------------------------------------------------

RO_ELEMENT(permute) {
  int64_t c[kMaxRank], from[kMaxRank];
  coordinates(call.out, index, c);
  for (int d = 0; d < call.out.rank; ++d) from[call.params[d]] = c[d];
  return stored(call.in[0], position(call.in[0], from));
}
RO_ELEMENT(expand) { return stored(call.in[0], source(call, 0, index)); }
RO_ELEMENT(slice) {
  int64_t c[kMaxRank];
  coordinates(call.out, index, c);
  c[call.params[0]] = call.params[1] + c[call.params[0]] * call.params[2];
  return stored(call.in[0], position(call.in[0], c));
}
RO_ELEMENT(slice_grad) {
  int64_t c[kMaxRank];
  coordinates(call.out, index, c);
  const int axis = (int)call.params[0];
  const int64_t offset = c[axis] - call.params[1], step = call.params[2];
  if (offset < 0 || offset % step != 0 || offset / step >= call.in[0].shape[axis]) return 0;
  c[axis] = offset / step;
  return stored(call.in[0], position(call.in[0], c));
}
RO_ELEMENT(cat) {
  int64_t c[kMaxRank];
  coordinates(call.out, index, c);
  const int axis = (int)call.params[0];
  int k = 0;
  while (c[axis] >= call.in[k].shape[axis]) c[axis] -= call.in[k++].shape[axis];
  return stored(call.in[k], position(call.in[k], c));
}
RO_ELEMENT(gather) {
  const Tensor& x = call.in[0];
  const int axis = (int)call.params[0];
  const int64_t i = load_integer(call.in[1].data, call.in[1].dtype, index);
  if (i < 0 || i >= x.shape[axis]) return 0;
  int64_t c[kMaxRank];
  coordinates(call.out, index, c);
  c[axis] = i;
  return stored(x, position(x, c));
}
RO_ELEMENT(scatter) {
  const Tensor& where = call.in[1];
  const int axis = (int)call.params[0];
  int64_t c[kMaxRank];
  coordinates(call.out, index, c);
  const int64_t own = c[axis];
  bool covered = true;
  for (int d = 0; d < where.rank; ++d) covered = covered && (d == axis || c[d] < where.shape[d]);
  for (int64_t i = 0; covered && i < where.shape[axis]; ++i) {
    c[axis] = i;
    if (load_integer(where.data, where.dtype, position(where, c)) == own) return low_bytes(call.literals[0], call.out.dtype);
  }
  return stored(call.in[0], index);
}
RO_ELEMENT(embedding) {
  const Tensor& weight = call.in[0];
  const int64_t width = weight.shape[1], row = load_integer(call.in[1].data, call.in[1].dtype, index / width);
  return row < 0 || row >= weight.shape[0] ? 0 : stored(weight, row * width + index % width);
}
RO_ELEMENT(embedding_grad) {
  const Tensor &dy = call.in[0], &rows = call.in[1];
  const int64_t width = call.out.shape[1];
  float s = call.inputs > 2 ? load_f32(call.in[2].data, index) : 0.0f;
  for (int64_t t = call.params[0]; t < call.params[1]; ++t) {
    if (load_integer(rows.data, rows.dtype, t) == index / width) s = add_rn(s, load_real(dy.data, dy.dtype, t * width + index % width));
  }
  return pattern(call, s);
}
RO_ELEMENT(iota) { return pattern(call, add_i64(call.params[0], mul_i64(call.params[1], index))); }
RO_ELEMENT(fill) { return low_bytes(call.literals[0], call.out.dtype); }

#undef RO_UNARY
#undef RO_BINARY
#undef RO_NUMERIC
#undef RO_LOGICAL

}  // namespace RO_ISA
}  // namespace ro

#include "element_conv.h"
#include "element_pool.h"
#include "element_random.h"
