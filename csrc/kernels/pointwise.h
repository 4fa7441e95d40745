// Pointwise operators with NumPy broadcasting (docs/spec/operators.md, "Pointwise"), vectorised.
//
// A call is reduced to a loop nest with as few dimensions as the shapes allow. Innermost, every input either runs along with the
// output or stands still; one that stands still is read from a small block filled with its value, so the inner loops know one case
// only. Where the innermost dimension is short, broadcast inputs are first written out for a few hundred elements. Inputs of
// the output's shape are read where they lie, before the output is written there: safe in place.
//
// Include after prim.h, registry.h, parallel.h and simd.h.
#pragma once
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include "convert.h"
#include "functions.h"
#include "parallel.h"
#include "stream.h"

namespace ro {
namespace RO_ISA {

constexpr int kMaxInputs = 16;
constexpr int64_t kCheap = 16384;   // elements a thread gets at least: memory-bound operators
constexpr int64_t kCostly = 4096;   // and those that compute an elementary function

struct LoopNest {
  int inputs;
  int rank = 0;                               // at least 1 after the constructor
  int64_t shape[kMaxRank];                    // outermost first
  int64_t stride[kMaxInputs][kMaxRank];       // in elements; 0: broadcast
  int64_t size[kMaxInputs];                   // item sizes
  bool full[kMaxInputs];                      // as large as the output
  const char* data[kMaxInputs];

  LoopNest(const Call& call, int input_count) : inputs(input_count) {
    const Tensor& out = call.out;
    int64_t own[kMaxInputs][kMaxRank];
    for (int k = 0; k < inputs; ++k) {
      const Tensor& t = call.in[k];
      data[k] = (const char*)t.data;
      size[k] = item_size(t.dtype);
      full[k] = element_count(t) == element_count(out);
      int64_t run = 1;
      for (int d = out.rank - 1; d >= 0; --d) {
        const int td = d - (out.rank - t.rank);
        const int64_t length = td >= 0 ? t.shape[td] : 1;
        own[k][d] = length == 1 ? 0 : run;
        run *= length;
      }
    }
    // Innermost first; a dimension joins the one inside it if every input continues across.
    int64_t dims[kMaxRank], strides[kMaxInputs][kMaxRank];
    for (int d = out.rank - 1; d >= 0; --d) {
      if (out.shape[d] == 1) continue;
      bool joins = rank > 0;
      for (int k = 0; k < inputs && joins; ++k) joins = own[k][d] == strides[k][rank - 1] * dims[rank - 1];
      if (joins) {
        dims[rank - 1] *= out.shape[d];
        continue;
      }
      dims[rank] = out.shape[d];
      for (int k = 0; k < inputs; ++k) strides[k][rank] = own[k][d];
      ++rank;
    }
    if (rank == 0) {
      dims[0] = 1;
      for (int k = 0; k < inputs; ++k) strides[k][0] = 0;
      rank = 1;
    }
    for (int d = 0; d < rank; ++d) {
      shape[d] = dims[rank - 1 - d];
      for (int k = 0; k < inputs; ++k) stride[k][d] = strides[k][rank - 1 - d];
    }
  }

};

// The places of the inputs at the start of a row of the innermost dimension, row after row.
struct RowWalk {
  const LoopNest& nest;
  int64_t c[kMaxRank];
  int64_t at[kMaxInputs];  // in elements

  RO_MEMBER RowWalk(const LoopNest& loops, int64_t row) : nest(loops) {
    for (int k = 0; k < nest.inputs; ++k) at[k] = 0;
    for (int d = nest.rank - 2; d >= 0; --d) {
      c[d] = row % nest.shape[d];
      row /= nest.shape[d];
      for (int k = 0; k < nest.inputs; ++k) at[k] += c[d] * nest.stride[k][d];
    }
  }
  RO_MEMBER void next() {
    for (int d = nest.rank - 2; d >= 0; --d) {
      for (int k = 0; k < nest.inputs; ++k) at[k] += nest.stride[k][d];
      if (++c[d] < nest.shape[d]) return;
      c[d] = 0;
      for (int k = 0; k < nest.inputs; ++k) at[k] -= nest.shape[d] * nest.stride[k][d];
    }
  }
};

// 64 bytes of one value.
static inline void fill_block(char* to, const char* value, int64_t size) {
  if (size == 4) {
    const I x = I::set(load_i32(value, 0));
    for (int i = 0; i < 64; i += 4 * kLanes) x.store(to + i);
    return;
  }
  uint64_t x = 0;
  std::memcpy(&x, value, size);
  if (size == 1) x *= 0x0101010101010101u;
  if (size == 2) x *= 0x0001000100010001u;
  for (int i = 0; i < 64; i += 8) std::memcpy(to + i, &x, 8);
}

constexpr int64_t kShortRow = 64;  // rows shorter than this are staged,
constexpr int64_t kStaged = 512;   // so many elements at a time
using Staged = char[kStaged * 8 + 64];

// `count` times the same item, or `count` items in a row. May write up to 63 bytes more.
template <class T>
RO_OP void stage_row(char* to, const char* from, int64_t step, int64_t count) {
  if (step != 0) {
    std::memcpy(to, from, count * sizeof(T));
    return;
  }
  T x;
  std::memcpy(&x, from, sizeof(T));
  if constexpr (sizeof(T) == 4) {
    for (int64_t i = 0; i < count; i += kLanes) I::set((int32_t)x).store(to + 4 * i);
  } else {
    for (int64_t i = 0; i < count; ++i) std::memcpy(to + i * sizeof(T), &x, sizeof(T));
  }
}

// Writes out input k for n output elements from `begin`.
template <class T>
static inline void stage(const LoopNest& nest, int k, int64_t begin, int64_t n, char* to) {
  const int last = nest.rank - 1;
  const int64_t row = nest.shape[last], step = nest.stride[k][last];
  int64_t column = begin % row, c[kMaxRank], at = 0;
  for (int64_t d = last - 1, rest = begin / row; d >= 0; --d) {
    c[d] = rest % nest.shape[d];
    rest /= nest.shape[d];
    at += c[d] * nest.stride[k][d];
  }
  for (int64_t done = 0; done < n;) {
    const int64_t count = row - column < n - done ? row - column : n - done;
    stage_row<T>(to + done * sizeof(T), nest.data[k] + (at + column * step) * (int64_t)sizeof(T), step, count);
    done += count;
    column = 0;
    for (int d = last - 1; d >= 0; --d) {
      at += nest.stride[k][d];
      if (++c[d] < nest.shape[d]) break;
      c[d] = 0;
      at -= nest.shape[d] * nest.stride[k][d];
    }
  }
}

// Covers the output elements [begin, end) by calls body(p, step, i, n): n elements from i, inputs as a Span reads them.
template <class Body>
static inline void run_range(const LoopNest& nest, int64_t begin, int64_t end, const Body& body) {
  const int last = nest.rank - 1;
  const int64_t row = nest.shape[last];
  const char* p[kMaxInputs];
  int64_t step[kMaxInputs];
  if (nest.rank > 1 && row < kShortRow) {
    alignas(64) Staged staged[kMaxInputs];
    const int64_t block = kStaged / row * row;  // whole rows: an input that is the same in every row is written out once
    bool same[kMaxInputs];
    for (int k = 0; k < nest.inputs; ++k) {
      same[k] = true;
      for (int d = 0; d < last; ++d) same[k] = same[k] && nest.stride[k][d] == 0;
    }
    for (int64_t i = begin; i < end; i += block) {
      const int64_t n = end - i < block ? end - i : block;
      for (int k = 0; k < nest.inputs; ++k) {
        step[k] = nest.size[k];
        p[k] = nest.full[k] ? nest.data[k] + i * nest.size[k] : staged[k];
        if (nest.full[k] || (same[k] && i > begin)) continue;
        switch (nest.size[k]) {
          case 1: stage<uint8_t>(nest, k, i, n, staged[k]); break;
          case 2: stage<uint16_t>(nest, k, i, n, staged[k]); break;
          case 4: stage<uint32_t>(nest, k, i, n, staged[k]); break;
          default: stage<uint64_t>(nest, k, i, n, staged[k]); break;
        }
      }
      body(p, step, i, n);
    }
    return;
  }
  RowWalk walk(nest, begin / row);
  int64_t column = begin % row;
  alignas(64) char block[kMaxInputs][64];
  for (int64_t i = begin; i < end; column = 0, walk.next()) {
    const int64_t n = row - column < end - i ? row - column : end - i;
    for (int k = 0; k < nest.inputs; ++k) {
      step[k] = nest.stride[k][last] * nest.size[k];
      p[k] = nest.data[k] + (walk.at[k] + column * nest.stride[k][last]) * nest.size[k];
      if (step[k] != 0) continue;
      fill_block(block[k], p[k], nest.size[k]);
      p[k] = block[k];
    }
    body(p, step, i, n);
    i += n;
  }
}

// A span with its dtypes. Where it does not take them itself, blocks of its inputs are converted in L1 before it, and blocks of its
// output after it.
class TypedSpan {
 public:
  TypedSpan() = default;
  TypedSpan(FindSpan find, int inputs, const int32_t* in, int32_t to) : inputs_(inputs), to_(to), pointwise_(find(in, to)) {
    int32_t plain[kMaxInputs];
    converts_ = !pointwise_.any && !is_plain(to);
    for (int k = 0; k < inputs; ++k) {
      in_[k] = in[k];
      plain[k] = plain_dtype(in[k]);
      converts_ = converts_ || (!pointwise_.any && !is_plain(in[k]));
    }
    if (converts_) pointwise_ = find(plain, plain_dtype(to));
  }
  RO_MEMBER bool costly() const { return pointwise_.costly; }
  // From here on the output is written past the caches; false if the span cannot.
  bool stream() {
    if (converts_ || !pointwise_.streamed) return false;
    pointwise_.span = pointwise_.streamed;
    return true;
  }
  RO_MEMBER void run(const uint64_t* literals, const char* const* p, const int64_t* step, char* out, int64_t n) const {
    if (converts_) converted(literals, p, step, out, n);
    else pointwise_.span(literals, p, step, out, n);
  }

 private:
  static constexpr int64_t kBlock = 256;

  void converted(const uint64_t* literals, const char* const* p, const int64_t* step, char* out, int64_t n) const {
    alignas(64) char blocks[kMaxInputs][kBlock * 8];
    alignas(64) char result[kBlock * 8];
    const char* q[kMaxInputs];
    int64_t advance[kMaxInputs];
    for (int k = 0; k < inputs_; ++k) {
      q[k] = p[k];
      advance[k] = step[k];
      if (is_plain(in_[k])) continue;
      advance[k] = step[k] ? item_size(plain_dtype(in_[k])) : 0;
      // A value that stands still: 64 bytes of it, converted once.
      if (!step[k]) to_plain(in_[k], p[k], blocks[k], 64 / item_size(plain_dtype(in_[k])));
    }
    const int64_t size = item_size(to_);
    for (int64_t i = 0; i < n; i += kBlock) {
      const int64_t count = n - i < kBlock ? n - i : kBlock;
      for (int k = 0; k < inputs_; ++k) {
        if (is_plain(in_[k])) {
          q[k] = p[k] + i * step[k];
        } else {
          if (step[k]) to_plain(in_[k], p[k] + i * step[k], blocks[k], count);
          q[k] = blocks[k];
        }
      }
      pointwise_.span(literals, q, advance, is_plain(to_) ? out + i * size : result, count);
      if (!is_plain(to_)) from_plain(result, to_, out + i * size, count);
    }
  }

  int inputs_ = 0;
  int32_t in_[kMaxInputs], to_ = kF32;
  Pointwise pointwise_{};
  bool converts_ = false;
};

// The kernel of a pointwise operator.
static inline void run_pointwise(const Call& call, FindSpan find) {
  const int64_t n = element_count(call.out);
  if (n == 0) return;
  int32_t dtypes[kMaxInputs] = {};
  for (int k = 0; k < call.inputs; ++k) dtypes[k] = call.in[k].dtype;
  TypedSpan span(find, call.inputs, dtypes, call.out.dtype);
  const LoopNest nest(call, call.inputs);
  char* const out = (char*)call.out.data;
  const bool streams = writes_past_caches(call) && span.stream();
  const int64_t size = item_size(call.out.dtype);
  parallel_for(n, span.costly() ? kCostly : kCheap, call.threads, [&](int64_t begin, int64_t end) {
    run_range(nest, begin, end, [&](const char* const* p, const int64_t* step, int64_t i, int64_t count) {
      span.run(call.literals, p, step, out + i * size, count);
    });
    if (streams) end_stream();
  });
}

// Defines and registers a pointwise operator: from the dtypes of its inputs (`in`) and its output (`to`) to a Pointwise. Unless that
// says that it takes any dtypes, it is asked again with f32 for every float and i64 for i32.
#define RO_POINTWISE(op)                                                                                \
  static Pointwise pointwise_##op(const int32_t* in, int32_t to);                                       \
  static const ::ro::Registered registered_pointwise_##op(#op, kIsa, pointwise_##op);                   \
  RO_KERNEL_ANY(op) { run_pointwise(call, pointwise_##op); }                                            \
  static Pointwise pointwise_##op([[maybe_unused]] const int32_t* in, [[maybe_unused]] int32_t to)

// An operation without state, from its type alone: a span has no context but the node's literals.
template <class Op>
RO_OP const Op& stateless() {
  static_assert(std::is_empty_v<Op>, "an operation that a span applies captures nothing");
  alignas(Op) static const char nothing[sizeof(Op)] = {};
  return *(const Op*)nothing;
}

// ---- f32 to f32 -----------------------------------------------------------------------------------------------------------

// past: writes past the caches; out is aligned to an element.
template <bool past = false, class Op, size_t... k>
RO_OP void float_span(const Op& op, const char* const* p, const int64_t* step, char* out, int64_t n,
                    std::index_sequence<k...>) {
  const char* q[] = {p[k]...};
  const int64_t advance[] = {step[k] * kLanes...};
  const auto part = [&](int64_t i, int64_t count) RO_LAMBDA { op(F::load(q[k], (int)count)...).store(out + 4 * i, (int)count); };
  int64_t i = 0;
  if (past) {  // up to an aligned vector
    i = before_vector(out);
    if (i > n) i = n;
    if (i > 0) part(0, i);
    ((q[k] += i * step[k]), ...);
  }
  for (; i + kLanes <= n; i += kLanes) {
    if (past) op(load_halves(q[k])...).stream(out + 4 * i);
    else op(F::load(q[k])...).store(out + 4 * i);
    ((q[k] += advance[k]), ...);
  }
  if (i < n) part(i, n - i);
}

template <int inputs, bool past, class Op>
static void floats_span(const uint64_t*, const char* const* p, const int64_t* step, char* out, int64_t n) {
  float_span<past>(stateless<Op>(), p, step, out, n, std::make_index_sequence<inputs>());
}
template <int inputs, bool costly = false, class Op>
static inline Pointwise floats(const Op&) {
  return {floats_span<inputs, false, Op>, costly, false, costly ? nullptr : floats_span<inputs, true, Op>};
}

// ---- any type, one element at a time: the compiler vectorises these loops -------------------------------------------------

template <class T>
RO_OP T load_item(const char* p) {
  T x;
  std::memcpy(&x, p, sizeof(T));
  return x;
}
template <class T>
RO_OP void store_item(char* out, int64_t i, T x) {
  std::memcpy(out + i * (int64_t)sizeof(T), &x, sizeof(T));
}
template <class T>
struct Run {
  const char* p;
  int64_t step;
  RO_MEMBER T at(int64_t i) const { return load_item<T>(p + i * step); }
  RO_MEMBER T next_to(int64_t i) const { return load_item<T>(p + i * (int64_t)sizeof(T)); }
};
struct Bool {  // a stored bool: any byte but 0 is true
  uint8_t byte;
  RO_MEMBER operator bool() const { return byte != 0; }
};

template <class Op, class... In, size_t... k>
static inline void item_span(const Op& op, const char* const* p, const int64_t* step, char* out, int64_t n,
                             std::index_sequence<k...>) {
  const std::tuple<Run<In>...> runs(Run<In>{p[k], step[k]}...);  // no address taken: the stores cannot change them
  if (((step[k] == (int64_t)sizeof(In)) && ...)) {
    for (int64_t i = 0; i < n; ++i) store_item(out, i, op(std::get<k>(runs).next_to(i)...));
  } else {
    for (int64_t i = 0; i < n; ++i) store_item(out, i, op(std::get<k>(runs).at(i)...));
  }
}

// The output type is what op returns.
template <class... In, class Op>
static inline Pointwise items(const Op&) {
  return {[](const uint64_t*, const char* const* p, const int64_t* step, char* out, int64_t n) {
            item_span<Op, In...>(stateless<Op>(), p, step, out, n, std::index_sequence_for<In...>());
          },
          false};
}

// ---- masks and bytes ------------------------------------------------------------------------------------------------------

// kLanes bytes 0 or 1 from a mask.
RO_OP void store_bytes(M m, char* out) {
#if defined(RO_ISA_AVX512)
  _mm_storeu_si128((__m128i*)out, _mm_maskz_set1_epi8(m.v, 1));
#elif defined(RO_ISA_AVX2)
  const __m256i wide = _mm256_castps_si256(m.v);
  const __m128i half = _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  _mm_storel_epi64((__m128i*)out, _mm_and_si128(_mm_packs_epi16(half, half), _mm_set1_epi8(1)));
#else
  int32_t lanes[kLanes];
  select(m, I::set(1), I::set(0)).store(lanes);
  for (int i = 0; i < kLanes; ++i) out[i] = (char)lanes[i];
#endif
}
// The mask of kLanes stored bools.
RO_OP M load_bytes(const char* p) {
#if defined(RO_ISA_AVX512)
  const __m128i bytes = _mm_loadu_si128((const __m128i*)p);
  return {_mm_test_epi8_mask(bytes, bytes)};
#elif defined(RO_ISA_AVX2)
  const __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p));
  return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(wide, _mm256_setzero_si256()))};
#else
  int32_t lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = (uint8_t)p[i];
  return gt(I::load(lanes), I::set(0));
#endif
}

// f32 x f32 to bool.
template <class Op>
static inline Pointwise compares(const Op&) {
  return {[](const uint64_t*, const char* const* p, const int64_t* step, char* out, int64_t n) {
            const Op& compare = stateless<Op>();
            const char *a = p[0], *b = p[1];
            const int64_t step_a = step[0], step_b = step[1];
            int64_t i = 0;
            for (; i + kLanes <= n; i += kLanes) {
              store_bytes(compare(F::load(a + i * step_a), F::load(b + i * step_b)), out + i);
            }
            if (i < n) {
              const int rest = (int)(n - i);
              char bytes[kLanes];
              store_bytes(compare(F::load(a + i * step_a, rest), F::load(b + i * step_b, rest)), bytes);
              std::memcpy(out + i, bytes, rest);
            }
          },
          false};
}

// ---- the operators --------------------------------------------------------------------------------------------------------

#define RO_FLOAT1(op, costly, expression) \
  RO_POINTWISE(op) { return floats<1, costly>([](F x) { return expression; }); }
#define RO_FLOAT2(op, costly, a, b, expression) \
  RO_POINTWISE(op) { return floats<2, costly>([](F a, F b) { return expression; }); }
#define RO_NUMERIC(op, float_result, integer_result)                                       \
  RO_POINTWISE(op) {                                                                       \
    if (to == kF32) return floats<2>([](F a, F b) { return float_result; });               \
    return items<int64_t, int64_t>([](int64_t a, int64_t b) { return integer_result; });   \
  }
#define RO_COMPARE(op, symbol)                                                                   \
  RO_POINTWISE(op) {                                                                             \
    if (in[0] == kF32) return compares([](F a, F b) { return op(a, b); });                       \
    return items<int64_t, int64_t>([](int64_t a, int64_t b) { return (uint8_t)(a symbol b); });  \
  }

RO_NUMERIC(add, canonical(add(a, b)), add_i64(a, b))
RO_NUMERIC(sub, canonical(sub(a, b)), sub_i64(a, b))
RO_NUMERIC(mul, canonical(mul(a, b)), mul_i64(a, b))
RO_NUMERIC(maximum, maximum(a, b), a > b ? a : b)
RO_NUMERIC(minimum, minimum(a, b), a < b ? a : b)
RO_FLOAT2(div, false, a, b, canonical(div(a, b)))
RO_COMPARE(eq, ==)
RO_COMPARE(ne, !=)
RO_COMPARE(lt, <)
RO_COMPARE(le, <=)
RO_COMPARE(gt, >)
RO_COMPARE(ge, >=)

RO_POINTWISE(neg) {
  if (to == kF32) return floats<1>([](F x) { return canonical(neg(x)); });
  return items<int64_t>([](int64_t x) { return neg_i64(x); });
}
RO_POINTWISE(abs) {
  if (to == kF32) return floats<1>([](F x) { return canonical(abs(x)); });
  return items<int64_t>([](int64_t x) { return abs_i64(x); });
}

RO_OP F one() { return F::bits(kOneBits); }

RO_FLOAT1(sqrt, false, canonical(sqrt(x)))
RO_FLOAT1(rsqrt, false, canonical(div(one(), sqrt(x))))
RO_FLOAT1(exp, true, f_exp(x))
RO_FLOAT1(log, true, f_log(x))
RO_FLOAT1(exp2, true, f_exp2(x))
RO_FLOAT1(expm1, true, f_expm1(x))
RO_FLOAT1(log2, true, f_log2(x))
RO_FLOAT1(log10, true, f_log10(x))
RO_FLOAT1(log1p, true, f_log1p(x))
RO_FLOAT1(sin, true, f_sin(x))
RO_FLOAT1(cos, true, f_cos(x))
RO_FLOAT1(softplus, true, f_softplus(x))
RO_FLOAT2(pow, true, x, y, f_pow(x, y))
RO_FLOAT1(tanh, true, f_tanh(x))
RO_FLOAT1(sigmoid, true, f_sigmoid(x))
RO_FLOAT1(erf, true, f_erf(x))
RO_FLOAT1(gelu_erf, true, f_gelu_erf(x))
RO_FLOAT1(gelu_tanh, true, f_gelu_tanh(x))
RO_FLOAT1(silu, true, f_silu(x))
RO_FLOAT1(relu, false, maximum(x, F::bits(0)))
// Where dy and the output have one dtype, dy's bits are copied.
template <int32_t dtype>
static inline Pointwise relu_grad_halves() {
  struct Half {
    uint16_t bits;
  };
  Pointwise pointwise = items<uint16_t, Half>([](uint16_t dy, Half y) {
    return (uint16_t)((dtype == kBF16 ? bf16_to_f32(y.bits) : f16_to_f32(y.bits)) <= 0.0f ? 0 : dy);
  });
  pointwise.any = true;
  return pointwise;
}
RO_POINTWISE(relu_grad) {
  if (in[0] == to && to != kF32) {
    if (in[1] == kBF16) return relu_grad_halves<kBF16>();
    if (in[1] == kF16) return relu_grad_halves<kF16>();
    Pointwise pointwise = items<uint16_t, float>([](uint16_t dy, float y) { return (uint16_t)(y <= 0.0f ? 0 : dy); });
    pointwise.any = true;
    return pointwise;
  }
  return floats<2>([](F dy, F y) { return select(le(y, F::bits(0)), F::bits(0), dy); });
}
RO_FLOAT2(tanh_grad, false, dy, y, canonical(mul(dy, fma(neg(y), y, one()))))
RO_FLOAT2(sigmoid_grad, false, dy, y, canonical(mul(dy, mul(y, sub(one(), y)))))
RO_OP F silu_slope(F x) {
  const F s = f_sigmoid(x);
  return mul(s, fma(x, sub(one(), s), one()));
}
RO_FLOAT2(silu_grad, true, dy, x, canonical(mul(dy, silu_slope(x))))
RO_FLOAT2(gelu_erf_grad, true, dy, x, canonical(mul(dy, f_gelu_erf_slope(x))))
RO_FLOAT2(gelu_tanh_grad, true, dy, x, canonical(mul(dy, f_gelu_tanh_slope(x))))

RO_POINTWISE(logical_and) {
  return items<Bool, Bool>([](Bool a, Bool b) { return (uint8_t)((a.byte != 0) & (b.byte != 0)); });
}
RO_POINTWISE(logical_or) {
  return items<Bool, Bool>([](Bool a, Bool b) { return (uint8_t)((a.byte | b.byte) != 0); });
}
RO_POINTWISE(logical_xor) {
  return items<Bool, Bool>([](Bool a, Bool b) { return (uint8_t)((a.byte != 0) ^ (b.byte != 0)); });
}
RO_POINTWISE(logical_not) {
  return items<Bool>([](Bool a) { return (uint8_t)(a.byte == 0); });
}

template <class T>
static inline Pointwise where_items() {
  Pointwise pointwise = items<Bool, T, T>([](Bool c, T a, T b) { return c.byte != 0 ? a : b; });
  pointwise.any = true;
  return pointwise;
}
static inline void where_words(const uint64_t*, const char* const* p, const int64_t* step, char* out, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    select(load_bytes(p[0] + i * step[0]), F::load(p[1] + i * step[1]), F::load(p[2] + i * step[2])).store(out + 4 * i);
  }
  if (i < n) {
    const int rest = (int)(n - i);
    char bytes[kLanes] = {};
    for (int j = 0; j < rest; ++j) bytes[j] = p[0][(i + j) * step[0]];
    select(load_bytes(bytes), F::load(p[1] + i * step[1], rest), F::load(p[2] + i * step[2], rest)).store(out + 4 * i, rest);
  }
}
RO_POINTWISE(where) {
  switch (item_size(to)) {
    case 1: return where_items<uint8_t>();
    case 2: return where_items<uint16_t>();
    case 4: return {where_words, false, true};
    default: return where_items<uint64_t>();
  }
}

// Copies items with broadcasting: expand, and casts to the same dtype.
template <class T>
static inline Pointwise copy_items() {
  return {[](const uint64_t*, const char* const* p, const int64_t* step, char* out, int64_t n) {
            if (step[0] != 0) {
              std::memmove(out, p[0], n * sizeof(T));
              return;
            }
            const T x = load_item<T>(p[0]);
            for (int64_t i = 0; i < n; ++i) std::memcpy(out + i * sizeof(T), &x, sizeof(T));
          },
          false, true};
}
static inline Pointwise copies(const int32_t*, int32_t to) {
  switch (item_size(to)) {
    case 1: return copy_items<uint8_t>();
    case 2: return copy_items<uint16_t>();
    case 4: return copy_items<uint32_t>();
    default: return copy_items<uint64_t>();
  }
}

template <int32_t from, int32_t to>
static inline void cast_span(const uint64_t*, const char* const* p, const int64_t* step, char* out, int64_t n) {
  if (step[0] != 0) return cast_block<from, to>(p[0], out, n);
  if (n == 0) return;
  cast_block<from, to>(p[0], out, 1);
  for (int64_t i = 1; i < n; ++i) std::memcpy(out + i * item_size(to), out, item_size(to));
}
template <int32_t from>
static inline Span cast_to(int32_t to) {
  switch (to) {
    case kF32: return cast_span<from, kF32>;
    case kBF16: return cast_span<from, kBF16>;
    case kF16: return cast_span<from, kF16>;
    case kI64: return cast_span<from, kI64>;
    case kI32: return cast_span<from, kI32>;
    default: return cast_span<from, kBool>;
  }
}
RO_POINTWISE(cast) {
  if (in[0] == to) return copies(in, to);
  switch (in[0]) {
    case kF32: return {cast_to<kF32>(to), false, true};
    case kBF16: return {cast_to<kBF16>(to), false, true};
    case kF16: return {cast_to<kF16>(to), false, true};
    case kI64: return {cast_to<kI64>(to), false, true};
    case kI32: return {cast_to<kI32>(to), false, true};
    default: return {cast_to<kBool>(to), false, true};
  }
}

RO_POINTWISE(rstd) {
  return {[](const uint64_t* literals, const char* const* p, const int64_t* step, char* out, int64_t count) {
            const F n = F::bits((uint32_t)literals[0]), eps = F::bits((uint32_t)literals[1]);
            float_span([n, eps](F x) { return canonical(div(one(), sqrt(add(div(x, n), eps)))); }, p, step, out, count,
                       std::make_index_sequence<1>());
          },
          false};
}
RO_POINTWISE(normalize) {
  return floats<3>([](F x, F mean, F rstd) { return canonical(mul(sub(x, mean), rstd)); });
}
RO_POINTWISE(layer_norm) {
  return floats<5>([](F x, F mean, F rstd, F w, F b) { return canonical(fma(mul(sub(x, mean), rstd), w, b)); });
}
RO_POINTWISE(layer_norm_grad) {
  return floats<7>([](F dy, F x, F mean, F rstd, F w, F c1, F c2) {
    const F h = mul(sub(x, mean), rstd);
    return canonical(mul(rstd, sub(sub(mul(dy, w), c1), mul(h, c2))));
  });
}

// x, m and s, where per_s(s) is the same for a whole row if s is: then it is computed once.
template <bool costly, class PerS, class Op>
static inline Pointwise row_statistics(const PerS&, const Op&) {
  return {[](const uint64_t*, const char* const* p, const int64_t* step, char* out, int64_t n) {
            const PerS& per_s = stateless<PerS>();
            const Op& op = stateless<Op>();
            const bool fixed = step[2] == 0;
            F t = per_s(F::load(p[2], fixed || n >= kLanes ? kLanes : (int)n));
            int64_t i = 0;
            for (; i + kLanes <= n; i += kLanes) {
              if (!fixed) t = per_s(F::load(p[2] + i * step[2]));
              op(F::load(p[0] + i * step[0]), F::load(p[1] + i * step[1]), t).store(out + 4 * i);
            }
            if (i < n) {
              const int rest = (int)(n - i);
              if (!fixed) t = per_s(F::load(p[2] + i * step[2], rest));
              op(F::load(p[0] + i * step[0], rest), F::load(p[1] + i * step[1], rest), t).store(out + 4 * i, rest);
            }
          },
          costly};
}
RO_POINTWISE(softmax) {
  return row_statistics<true>([](F s) { return div(one(), s); },
                              [](F x, F m, F r) { return canonical(mul(f_exp(sub(x, m)), r)); });
}
RO_POINTWISE(log_softmax) {
  return row_statistics<false>([](F s) { return f_log(s); }, [](F x, F m, F l) { return canonical(sub(sub(x, m), l)); });
}

#undef RO_FLOAT1
#undef RO_FLOAT2
#undef RO_NUMERIC
#undef RO_COMPARE

}  // namespace RO_ISA
}  // namespace ro
