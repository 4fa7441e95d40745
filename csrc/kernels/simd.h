// Vectors of f32 and i32: every function is exactly one IEEE operation, one bit operation or one data move per lane.
//
// One unit per instruction set includes this file with RO_ISA set to the name of its namespace and one of RO_ISA_AVX512,
// RO_ISA_AVX2, RO_ISA_NEON or RO_ISA_SCALAR defined. Everything lives in ro::RO_ISA, so that no two units share a symbol. All three
// types have kLanes lanes. M is a mask as the instruction set likes it; its lanes are all ones or all zeros.
//
//   F  add sub mul div sqrt fma neg abs maximum minimum canonical    lt le gt ge eq ne is_nan -> M    select(M, a, b) = m ? a : b
//   I  add sub and_ or_ xor_ andnot(a, b) = ~a & b, shl<n> shr<n> (arithmetic) shr_logical<n>    lt gt eq -> M    min max
//   F <-> I  bits_of, float_of (same bits), to_float (RNE), to_int (truncates; valid for |x| < 2^31)
//   M  and_ or_ not_ any all none
//   widen16(p) -> I, zero-extended; narrow16(I, p), the low halves; from_f16(p) -> F; to_f16(F, p), rounded, no NaN
//   transpose(F[kLanes]) load_transposed tree(F) -> float even(a, b) -> lanes 0, 2, 4 .. of a, then of b    not in the scalar unit
//   F::set F::bits F::load F::load(p, n) x.store(p) x.store(p, n)    n lanes from lane 0 (0 <= n <= kLanes), other lanes load +0
//   x.stream(p)    past the caches where the processor can; p is aligned to the vector
#pragma once
#include <cstdint>
#include <cstring>
#if defined(RO_ISA_AVX512) || defined(RO_ISA_AVX2)
#include <immintrin.h>
#elif defined(RO_ISA_NEON)
#include <arm_neon.h>
#endif

#include "call.h"
#include "prim.h"

#define RO_OP RO_HD RO_INLINE
#define RO_MEMBER RO_HD inline __attribute__((always_inline))

namespace ro {
namespace RO_ISA {

#if defined(RO_ISA_AVX512)

constexpr Isa kIsa = kAvx512;
constexpr int kLanes = 16;
RO_OP __mmask16 first_lanes(int n) { return (__mmask16)((1u << n) - 1u); }

struct M {
  __mmask16 v;
};
struct I {
  __m512i v;
  RO_MEMBER static I set(int32_t x) { return {_mm512_set1_epi32(x)}; }
  RO_MEMBER static I load(const void* p) { return {_mm512_loadu_si512(p)}; }
  RO_MEMBER static I load(const void* p, int n) { return {_mm512_maskz_loadu_epi32(first_lanes(n), p)}; }
  RO_MEMBER void store(void* p) const { _mm512_storeu_si512(p, v); }
  RO_MEMBER void store(void* p, int n) const { _mm512_mask_storeu_epi32(p, first_lanes(n), v); }
};
struct F {
  using Int = I;
  using Mask = M;
  __m512 v;
  RO_MEMBER static F set(float x) { return {_mm512_set1_ps(x)}; }
  RO_MEMBER static F bits(uint32_t u) { return {_mm512_castsi512_ps(_mm512_set1_epi32((int)u))}; }
  RO_MEMBER static F load(const void* p) { return {_mm512_loadu_ps(p)}; }
  RO_MEMBER static F load(const void* p, int n) { return {_mm512_maskz_loadu_ps(first_lanes(n), p)}; }
  RO_MEMBER void store(void* p) const { _mm512_storeu_ps(p, v); }
  RO_MEMBER void stream(void* p) const { _mm512_stream_ps((float*)p, v); }
  RO_MEMBER void store(void* p, int n) const { _mm512_mask_storeu_ps(p, first_lanes(n), v); }
};

RO_OP M and_(M a, M b) { return {(__mmask16)(a.v & b.v)}; }
RO_OP M or_(M a, M b) { return {(__mmask16)(a.v | b.v)}; }
RO_OP M not_(M a) { return {(__mmask16)~a.v}; }
RO_OP bool any(M a) { return a.v != 0; }
RO_OP bool all(M a) { return a.v == 0xFFFF; }

RO_OP F add(F a, F b) { return {_mm512_add_ps(a.v, b.v)}; }
RO_OP F sub(F a, F b) { return {_mm512_sub_ps(a.v, b.v)}; }
RO_OP F mul(F a, F b) { return {_mm512_mul_ps(a.v, b.v)}; }
RO_OP F div(F a, F b) { return {_mm512_div_ps(a.v, b.v)}; }
RO_OP F sqrt(F a) { return {_mm512_sqrt_ps(a.v)}; }
RO_OP F fma(F a, F b, F c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
RO_OP F and_(F a, F b) { return {_mm512_and_ps(a.v, b.v)}; }
RO_OP F or_(F a, F b) { return {_mm512_or_ps(a.v, b.v)}; }
RO_OP F xor_(F a, F b) { return {_mm512_xor_ps(a.v, b.v)}; }
RO_OP M lt(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
RO_OP M le(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
RO_OP M gt(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
RO_OP M ge(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)}; }
RO_OP M eq(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
RO_OP M ne(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_NEQ_UQ)}; }
RO_OP M is_nan(F a) { return {_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q)}; }
RO_OP M is_nan(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_UNORD_Q)}; }
RO_OP F select(M m, F a, F b) { return {_mm512_mask_blend_ps(m.v, b.v, a.v)}; }
RO_OP I select(M m, I a, I b) { return {_mm512_mask_blend_epi32(m.v, b.v, a.v)}; }
// One operand wins where the other is NaN; for use where neither is, and where the sign of zero is settled.
RO_OP F max_raw(F a, F b) { return {_mm512_max_ps(a.v, b.v)}; }
RO_OP F min_raw(F a, F b) { return {_mm512_min_ps(a.v, b.v)}; }

RO_OP I add(I a, I b) { return {_mm512_add_epi32(a.v, b.v)}; }
RO_OP I sub(I a, I b) { return {_mm512_sub_epi32(a.v, b.v)}; }
RO_OP I mul(I a, I b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
RO_OP I and_(I a, I b) { return {_mm512_and_si512(a.v, b.v)}; }
RO_OP I or_(I a, I b) { return {_mm512_or_si512(a.v, b.v)}; }
RO_OP I xor_(I a, I b) { return {_mm512_xor_si512(a.v, b.v)}; }
RO_OP I andnot(I a, I b) { return {_mm512_andnot_si512(a.v, b.v)}; }
template <int n> RO_OP I shl(I a) { return {_mm512_slli_epi32(a.v, n)}; }
template <int n> RO_OP I shr(I a) { return {_mm512_srai_epi32(a.v, n)}; }
template <int n> RO_OP I shr_logical(I a) { return {_mm512_srli_epi32(a.v, n)}; }
RO_OP I min(I a, I b) { return {_mm512_min_epi32(a.v, b.v)}; }
RO_OP I max(I a, I b) { return {_mm512_max_epi32(a.v, b.v)}; }
RO_OP M lt(I a, I b) { return {_mm512_cmplt_epi32_mask(a.v, b.v)}; }
RO_OP M gt(I a, I b) { return {_mm512_cmpgt_epi32_mask(a.v, b.v)}; }
RO_OP M eq(I a, I b) { return {_mm512_cmpeq_epi32_mask(a.v, b.v)}; }
RO_OP I bits_of(F a) { return {_mm512_castps_si512(a.v)}; }
RO_OP F float_of(I a) { return {_mm512_castsi512_ps(a.v)}; }
RO_OP F to_float(I a) { return {_mm512_cvtepi32_ps(a.v)}; }
RO_OP I to_int(F a) { return {_mm512_cvttps_epi32(a.v)}; }
RO_OP I widen16(const void* p) { return {_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p))}; }
RO_OP void narrow16(I a, void* p) { _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(a.v)); }
RO_OP F from_f16(const void* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p))}; }
RO_OP void to_f16(F a, void* p) {
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
// F::load of what no cache holds: where memory is the limit, lines arrive up to a tenth faster if each is asked for twice.
RO_OP F load_halves(const char* p) {
  return {_mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps((const float*)p)), _mm256_loadu_ps((const float*)(p + 32)), 1)};
}
RO_OP I lane_index() { return {_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)}; }

// r[i] lane j becomes r[j] lane i.
RO_OP void transpose(F (&r)[16]) {
  __m512 t[16];
  for (int i = 0; i < 16; i += 4) {
    const __m512 a = _mm512_unpacklo_ps(r[i].v, r[i + 1].v), b = _mm512_unpackhi_ps(r[i].v, r[i + 1].v);
    const __m512 c = _mm512_unpacklo_ps(r[i + 2].v, r[i + 3].v), d = _mm512_unpackhi_ps(r[i + 2].v, r[i + 3].v);
    t[i] = _mm512_shuffle_ps(a, c, 0x44);
    t[i + 1] = _mm512_shuffle_ps(a, c, 0xEE);
    t[i + 2] = _mm512_shuffle_ps(b, d, 0x44);
    t[i + 3] = _mm512_shuffle_ps(b, d, 0xEE);
  }
  for (int j = 0; j < 4; ++j) {
    const __m512 a = _mm512_shuffle_f32x4(t[j], t[4 + j], 0x88), b = _mm512_shuffle_f32x4(t[8 + j], t[12 + j], 0x88);
    const __m512 c = _mm512_shuffle_f32x4(t[j], t[4 + j], 0xDD), d = _mm512_shuffle_f32x4(t[8 + j], t[12 + j], 0xDD);
    r[j].v = _mm512_shuffle_f32x4(a, b, 0x88);
    r[8 + j].v = _mm512_shuffle_f32x4(a, b, 0xDD);
    r[4 + j].v = _mm512_shuffle_f32x4(c, d, 0x88);
    r[12 + j].v = _mm512_shuffle_f32x4(c, d, 0xDD);
  }
}

RO_OP F even(F a, F b) {
  const __m512i lanes = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  return {_mm512_permutex2var_ps(a.v, lanes, b.v)};
}

// The fold h = 8, 4, 2, 1: lane_j = add(lane_j, lane_(j+h)); lane 0.
RO_OP float tree(F a) {
  const __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
  const __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));
  return _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)));
}

#elif defined(RO_ISA_AVX2)

constexpr Isa kIsa = kAvx2;
constexpr int kLanes = 8;
RO_OP __m256i first_lanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
// In halves: a masked store takes dozens of micro-operations on AMD processors.
RO_OP void store_first(void* p, int n, __m256 v) {
  if (n == 8) return _mm256_storeu_ps((float*)p, v);
  __m128 part = _mm256_castps256_ps128(v);
  char* to = (char*)p;
  if (n & 4) {
    _mm_storeu_ps((float*)to, part);
    part = _mm256_extractf128_ps(v, 1);
    to += 16;
  }
  if (n & 2) {
    const int64_t two = _mm_cvtsi128_si64(_mm_castps_si128(part));
    std::memcpy(to, &two, 8);
    part = _mm_movehl_ps(part, part);
    to += 8;
  }
  if (n & 1) {
    const float one = _mm_cvtss_f32(part);
    std::memcpy(to, &one, 4);
  }
}

struct M {
  __m256 v;
};
struct I {
  __m256i v;
  RO_MEMBER static I set(int32_t x) { return {_mm256_set1_epi32(x)}; }
  RO_MEMBER static I load(const void* p) { return {_mm256_loadu_si256((const __m256i*)p)}; }
  RO_MEMBER static I load(const void* p, int n) { return {_mm256_maskload_epi32((const int*)p, first_lanes(n))}; }
  RO_MEMBER void store(void* p) const { _mm256_storeu_si256((__m256i*)p, v); }
  RO_MEMBER void store(void* p, int n) const { store_first(p, n, _mm256_castsi256_ps(v)); }
};
struct F {
  using Int = I;
  using Mask = M;
  __m256 v;
  RO_MEMBER static F set(float x) { return {_mm256_set1_ps(x)}; }
  RO_MEMBER static F bits(uint32_t u) { return {_mm256_castsi256_ps(_mm256_set1_epi32((int)u))}; }
  RO_MEMBER static F load(const void* p) { return {_mm256_loadu_ps((const float*)p)}; }
  RO_MEMBER static F load(const void* p, int n) { return {_mm256_maskload_ps((const float*)p, first_lanes(n))}; }
  RO_MEMBER void store(void* p) const { _mm256_storeu_ps((float*)p, v); }
  RO_MEMBER void stream(void* p) const { _mm256_stream_ps((float*)p, v); }
  RO_MEMBER void store(void* p, int n) const { store_first(p, n, v); }
};

RO_OP M and_(M a, M b) { return {_mm256_and_ps(a.v, b.v)}; }
RO_OP M or_(M a, M b) { return {_mm256_or_ps(a.v, b.v)}; }
RO_OP M not_(M a) { return {_mm256_xor_ps(a.v, _mm256_castsi256_ps(_mm256_set1_epi32(-1)))}; }
RO_OP bool any(M a) { return _mm256_movemask_ps(a.v) != 0; }
RO_OP bool all(M a) { return _mm256_movemask_ps(a.v) == 0xFF; }

RO_OP F add(F a, F b) { return {_mm256_add_ps(a.v, b.v)}; }
RO_OP F sub(F a, F b) { return {_mm256_sub_ps(a.v, b.v)}; }
RO_OP F mul(F a, F b) { return {_mm256_mul_ps(a.v, b.v)}; }
RO_OP F div(F a, F b) { return {_mm256_div_ps(a.v, b.v)}; }
RO_OP F sqrt(F a) { return {_mm256_sqrt_ps(a.v)}; }
RO_OP F fma(F a, F b, F c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
RO_OP F and_(F a, F b) { return {_mm256_and_ps(a.v, b.v)}; }
RO_OP F or_(F a, F b) { return {_mm256_or_ps(a.v, b.v)}; }
RO_OP F xor_(F a, F b) { return {_mm256_xor_ps(a.v, b.v)}; }
RO_OP M lt(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
RO_OP M le(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ)}; }
RO_OP M gt(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ)}; }
RO_OP M ge(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GE_OQ)}; }
RO_OP M eq(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)}; }
RO_OP M ne(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_NEQ_UQ)}; }
RO_OP M is_nan(F a) { return {_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q)}; }
RO_OP M is_nan(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_UNORD_Q)}; }
RO_OP F select(M m, F a, F b) { return {_mm256_blendv_ps(b.v, a.v, m.v)}; }
RO_OP I select(M m, I a, I b) {
  return {_mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(b.v), _mm256_castsi256_ps(a.v), m.v))};
}
RO_OP F max_raw(F a, F b) { return {_mm256_max_ps(a.v, b.v)}; }
RO_OP F min_raw(F a, F b) { return {_mm256_min_ps(a.v, b.v)}; }

RO_OP I add(I a, I b) { return {_mm256_add_epi32(a.v, b.v)}; }
RO_OP I sub(I a, I b) { return {_mm256_sub_epi32(a.v, b.v)}; }
RO_OP I mul(I a, I b) { return {_mm256_mullo_epi32(a.v, b.v)}; }
RO_OP I and_(I a, I b) { return {_mm256_and_si256(a.v, b.v)}; }
RO_OP I or_(I a, I b) { return {_mm256_or_si256(a.v, b.v)}; }
RO_OP I xor_(I a, I b) { return {_mm256_xor_si256(a.v, b.v)}; }
RO_OP I andnot(I a, I b) { return {_mm256_andnot_si256(a.v, b.v)}; }
template <int n> RO_OP I shl(I a) { return {_mm256_slli_epi32(a.v, n)}; }
template <int n> RO_OP I shr(I a) { return {_mm256_srai_epi32(a.v, n)}; }
template <int n> RO_OP I shr_logical(I a) { return {_mm256_srli_epi32(a.v, n)}; }
RO_OP I min(I a, I b) { return {_mm256_min_epi32(a.v, b.v)}; }
RO_OP I max(I a, I b) { return {_mm256_max_epi32(a.v, b.v)}; }
RO_OP M lt(I a, I b) { return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(b.v, a.v))}; }
RO_OP M gt(I a, I b) { return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(a.v, b.v))}; }
RO_OP M eq(I a, I b) { return {_mm256_castsi256_ps(_mm256_cmpeq_epi32(a.v, b.v))}; }
RO_OP I bits_of(F a) { return {_mm256_castps_si256(a.v)}; }
RO_OP F float_of(I a) { return {_mm256_castsi256_ps(a.v)}; }
RO_OP F to_float(I a) { return {_mm256_cvtepi32_ps(a.v)}; }
RO_OP I to_int(F a) { return {_mm256_cvttps_epi32(a.v)}; }
RO_OP I widen16(const void* p) { return {_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p))}; }
RO_OP void narrow16(I a, void* p) {
  const __m256i low = _mm256_and_si256(a.v, _mm256_set1_epi32(0xFFFF));
  _mm_storeu_si128((__m128i*)p, _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1)));
}
RO_OP F from_f16(const void* p) { return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p))}; }
RO_OP void to_f16(F a, void* p) { _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT)); }
RO_OP I lane_index() { return {_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)}; }

// r[i] lane j becomes r[j] lane i.
RO_OP void transpose(F (&r)[8]) {
  __m256 t[8];
  for (int i = 0; i < 8; i += 4) {
    const __m256 a = _mm256_unpacklo_ps(r[i].v, r[i + 1].v), b = _mm256_unpackhi_ps(r[i].v, r[i + 1].v);
    const __m256 c = _mm256_unpacklo_ps(r[i + 2].v, r[i + 3].v), d = _mm256_unpackhi_ps(r[i + 2].v, r[i + 3].v);
    t[i] = _mm256_shuffle_ps(a, c, 0x44);
    t[i + 1] = _mm256_shuffle_ps(a, c, 0xEE);
    t[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
    t[i + 3] = _mm256_shuffle_ps(b, d, 0xEE);
  }
  for (int j = 0; j < 4; ++j) {
    r[j].v = _mm256_permute2f128_ps(t[j], t[4 + j], 0x20);
    r[4 + j].v = _mm256_permute2f128_ps(t[j], t[4 + j], 0x31);
  }
}

// t[i] lane j: float i of row j, for 4 of them, the rows `row` bytes apart. Halves of vectors, joined while they are loaded, save a
// third of the shuffles.
RO_OP void load_transposed(F (&t)[4], const char* p, int64_t row) {
  __m256 r[4];
  for (int j = 0; j < 4; ++j)
    r[j] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps((const float*)(p + j * row))),
                                _mm_loadu_ps((const float*)(p + (j + 4) * row)), 1);
  const __m256 a = _mm256_unpacklo_ps(r[0], r[1]), b = _mm256_unpackhi_ps(r[0], r[1]);
  const __m256 c = _mm256_unpacklo_ps(r[2], r[3]), d = _mm256_unpackhi_ps(r[2], r[3]);
  t[0].v = _mm256_shuffle_ps(a, c, 0x44);
  t[1].v = _mm256_shuffle_ps(a, c, 0xEE);
  t[2].v = _mm256_shuffle_ps(b, d, 0x44);
  t[3].v = _mm256_shuffle_ps(b, d, 0xEE);
}

RO_OP F even(F a, F b) {
  const __m256 mixed = _mm256_shuffle_ps(a.v, b.v, 0x88);
  return {_mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(mixed), 0xD8))};
}

// The fold h = 4, 2, 1: lane_j = add(lane_j, lane_(j+h)); lane 0.
RO_OP float tree(F a) {
  const __m128 c = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  const __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));
  return _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)));
}

#elif defined(RO_ISA_NEON)

constexpr Isa kIsa = kNeon;
constexpr int kLanes = 4;

struct M {
  uint32x4_t v;
};
struct I {
  int32x4_t v;
  RO_MEMBER static I set(int32_t x) { return {vdupq_n_s32(x)}; }
  RO_MEMBER static I load(const void* p) { return {vreinterpretq_s32_u8(vld1q_u8((const uint8_t*)p))}; }
  RO_MEMBER static I load(const void* p, int n) {
    int32_t lanes[4] = {0, 0, 0, 0};
    std::memcpy(lanes, p, 4 * n);
    return {vld1q_s32(lanes)};
  }
  RO_MEMBER void store(void* p) const { vst1q_u8((uint8_t*)p, vreinterpretq_u8_s32(v)); }
  RO_MEMBER void store(void* p, int n) const {
    int32_t lanes[4];
    vst1q_s32(lanes, v);
    std::memcpy(p, lanes, 4 * n);
  }
};
struct F {
  using Int = I;
  using Mask = M;
  float32x4_t v;
  RO_MEMBER static F set(float x) { return {vdupq_n_f32(x)}; }
  RO_MEMBER static F bits(uint32_t u) { return {vreinterpretq_f32_u32(vdupq_n_u32(u))}; }
  RO_MEMBER static F load(const void* p) { return {vreinterpretq_f32_u8(vld1q_u8((const uint8_t*)p))}; }
  RO_MEMBER static F load(const void* p, int n) { return {vreinterpretq_f32_s32(I::load(p, n).v)}; }
  RO_MEMBER void store(void* p) const { vst1q_u8((uint8_t*)p, vreinterpretq_u8_f32(v)); }
  RO_MEMBER void stream(void* p) const { store(p); }
  RO_MEMBER void store(void* p, int n) const { I{vreinterpretq_s32_f32(v)}.store(p, n); }
};

RO_OP M and_(M a, M b) { return {vandq_u32(a.v, b.v)}; }
RO_OP M or_(M a, M b) { return {vorrq_u32(a.v, b.v)}; }
RO_OP M not_(M a) { return {vmvnq_u32(a.v)}; }
RO_OP bool any(M a) { return vmaxvq_u32(a.v) != 0; }
RO_OP bool all(M a) { return vminvq_u32(a.v) != 0; }

RO_OP F add(F a, F b) { return {vaddq_f32(a.v, b.v)}; }
RO_OP F sub(F a, F b) { return {vsubq_f32(a.v, b.v)}; }
RO_OP F mul(F a, F b) { return {vmulq_f32(a.v, b.v)}; }
RO_OP F div(F a, F b) { return {vdivq_f32(a.v, b.v)}; }
RO_OP F sqrt(F a) { return {vsqrtq_f32(a.v)}; }
RO_OP F fma(F a, F b, F c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
RO_OP I bits_of(F a) { return {vreinterpretq_s32_f32(a.v)}; }
RO_OP F float_of(I a) { return {vreinterpretq_f32_s32(a.v)}; }
RO_OP F and_(F a, F b) { return float_of(I{vandq_s32(bits_of(a).v, bits_of(b).v)}); }
RO_OP F or_(F a, F b) { return float_of(I{vorrq_s32(bits_of(a).v, bits_of(b).v)}); }
RO_OP F xor_(F a, F b) { return float_of(I{veorq_s32(bits_of(a).v, bits_of(b).v)}); }
RO_OP M lt(F a, F b) { return {vcltq_f32(a.v, b.v)}; }
RO_OP M le(F a, F b) { return {vcleq_f32(a.v, b.v)}; }
RO_OP M gt(F a, F b) { return {vcgtq_f32(a.v, b.v)}; }
RO_OP M ge(F a, F b) { return {vcgeq_f32(a.v, b.v)}; }
RO_OP M eq(F a, F b) { return {vceqq_f32(a.v, b.v)}; }
RO_OP M ne(F a, F b) { return {vmvnq_u32(vceqq_f32(a.v, b.v))}; }
RO_OP M is_nan(F a) { return ne(a, a); }
RO_OP M is_nan(F a, F b) { return or_(ne(a, a), ne(b, b)); }
RO_OP F select(M m, F a, F b) { return {vbslq_f32(m.v, a.v, b.v)}; }
RO_OP I select(M m, I a, I b) { return {vbslq_s32(m.v, a.v, b.v)}; }
RO_OP F max_raw(F a, F b) { return {vmaxq_f32(a.v, b.v)}; }
RO_OP F min_raw(F a, F b) { return {vminq_f32(a.v, b.v)}; }

RO_OP I add(I a, I b) { return {vaddq_s32(a.v, b.v)}; }
RO_OP I sub(I a, I b) { return {vsubq_s32(a.v, b.v)}; }
RO_OP I mul(I a, I b) { return {vmulq_s32(a.v, b.v)}; }
RO_OP I and_(I a, I b) { return {vandq_s32(a.v, b.v)}; }
RO_OP I or_(I a, I b) { return {vorrq_s32(a.v, b.v)}; }
RO_OP I xor_(I a, I b) { return {veorq_s32(a.v, b.v)}; }
RO_OP I andnot(I a, I b) { return {vbicq_s32(b.v, a.v)}; }
template <int n> RO_OP I shl(I a) { return {vshlq_n_s32(a.v, n)}; }
template <int n> RO_OP I shr(I a) { return {vshrq_n_s32(a.v, n)}; }
template <int n> RO_OP I shr_logical(I a) {
  return {vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a.v), n))};
}
RO_OP I min(I a, I b) { return {vminq_s32(a.v, b.v)}; }
RO_OP I max(I a, I b) { return {vmaxq_s32(a.v, b.v)}; }
RO_OP M lt(I a, I b) { return {vcltq_s32(a.v, b.v)}; }
RO_OP M gt(I a, I b) { return {vcgtq_s32(a.v, b.v)}; }
RO_OP M eq(I a, I b) { return {vceqq_s32(a.v, b.v)}; }
RO_OP F to_float(I a) { return {vcvtq_f32_s32(a.v)}; }
RO_OP I to_int(F a) { return {vcvtq_s32_f32(a.v)}; }
RO_OP I widen16(const void* p) { return {vreinterpretq_s32_u32(vmovl_u16(vreinterpret_u16_u8(vld1_u8((const uint8_t*)p))))}; }
RO_OP void narrow16(I a, void* p) { vst1_u8((uint8_t*)p, vreinterpret_u8_u16(vmovn_u32(vreinterpretq_u32_s32(a.v)))); }
RO_OP F from_f16(const void* p) { return {vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8((const uint8_t*)p)))}; }
RO_OP void to_f16(F a, void* p) { vst1_u8((uint8_t*)p, vreinterpret_u8_f16(vcvt_f16_f32(a.v))); }
RO_OP I lane_index() {
  const int32_t lanes[4] = {0, 1, 2, 3};
  return {vld1q_s32(lanes)};
}

// r[i] lane j becomes r[j] lane i.
RO_OP void transpose(F (&r)[4]) {
  const float32x4x2_t a = vtrnq_f32(r[0].v, r[1].v), b = vtrnq_f32(r[2].v, r[3].v);
  r[0].v = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
  r[1].v = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
  r[2].v = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
  r[3].v = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}

RO_OP F even(F a, F b) { return {vuzp1q_f32(a.v, b.v)}; }

// The fold h = 2, 1: lane_j = add(lane_j, lane_(j+h)); lane 0.
RO_OP float tree(F a) {
  const float32x2_t c = vadd_f32(vget_low_f32(a.v), vget_high_f32(a.v));
  return vget_lane_f32(c, 0) + vget_lane_f32(c, 1);
}

#elif defined(RO_ISA_SCALAR)

constexpr Isa kIsa = kScalar;
constexpr int kLanes = 1;

struct M {
  bool v;
};
struct I {
  int32_t v;
  RO_MEMBER static I set(int32_t x) { return {x}; }
  RO_MEMBER static I load(const void* p) {
    int32_t x;
    std::memcpy(&x, p, 4);
    return {x};
  }
  RO_MEMBER static I load(const void* p, int n) { return n > 0 ? load(p) : I{0}; }
  RO_MEMBER void store(void* p) const { std::memcpy(p, &v, 4); }
  RO_MEMBER void store(void* p, int n) const {
    if (n > 0) store(p);
  }
};
struct F {
  using Int = I;
  using Mask = M;
  float v;
  RO_MEMBER static F set(float x) { return {x}; }
  RO_MEMBER static F bits(uint32_t u) { return {ro::float_of(u)}; }
  RO_MEMBER static F load(const void* p) { return {load_f32(p, 0)}; }
  RO_MEMBER static F load(const void* p, int n) { return n > 0 ? load(p) : F{0.0f}; }
  RO_MEMBER void store(void* p) const { std::memcpy(p, &v, 4); }
  RO_MEMBER void stream(void* p) const { store(p); }
  RO_MEMBER void store(void* p, int n) const {
    if (n > 0) store(p);
  }
};

RO_OP M and_(M a, M b) { return {a.v && b.v}; }
RO_OP M or_(M a, M b) { return {a.v || b.v}; }
RO_OP M not_(M a) { return {!a.v}; }
RO_OP bool any(M a) { return a.v; }
RO_OP bool all(M a) { return a.v; }

RO_OP I bits_of(F a) { return {(int32_t)ro::bits_of(a.v)}; }
RO_OP F float_of(I a) { return {ro::float_of((uint32_t)a.v)}; }
RO_OP F add(F a, F b) { return {add_rn(a.v, b.v)}; }
RO_OP F sub(F a, F b) { return {sub_rn(a.v, b.v)}; }
RO_OP F mul(F a, F b) { return {mul_rn(a.v, b.v)}; }
RO_OP F div(F a, F b) { return {div_rn(a.v, b.v)}; }
RO_OP F sqrt(F a) { return {sqrt_rn(a.v)}; }
RO_OP F fma(F a, F b, F c) { return {fma_rn(a.v, b.v, c.v)}; }
RO_OP F and_(F a, F b) { return float_of(I{bits_of(a).v & bits_of(b).v}); }
RO_OP F or_(F a, F b) { return float_of(I{bits_of(a).v | bits_of(b).v}); }
RO_OP F xor_(F a, F b) { return float_of(I{bits_of(a).v ^ bits_of(b).v}); }
RO_OP M lt(F a, F b) { return {a.v < b.v}; }
RO_OP M le(F a, F b) { return {a.v <= b.v}; }
RO_OP M gt(F a, F b) { return {a.v > b.v}; }
RO_OP M ge(F a, F b) { return {a.v >= b.v}; }
RO_OP M eq(F a, F b) { return {a.v == b.v}; }
RO_OP M ne(F a, F b) { return {a.v != b.v}; }
RO_OP M is_nan(F a) { return {ro::is_nan(a.v)}; }
RO_OP M is_nan(F a, F b) { return {ro::is_nan(a.v) || ro::is_nan(b.v)}; }
RO_OP F select(M m, F a, F b) { return m.v ? a : b; }
RO_OP I select(M m, I a, I b) { return m.v ? a : b; }
RO_OP F max_raw(F a, F b) { return a.v > b.v ? a : b; }
RO_OP F min_raw(F a, F b) { return a.v < b.v ? a : b; }

RO_OP I add(I a, I b) { return {(int32_t)((uint32_t)a.v + (uint32_t)b.v)}; }
RO_OP I sub(I a, I b) { return {(int32_t)((uint32_t)a.v - (uint32_t)b.v)}; }
RO_OP I mul(I a, I b) { return {(int32_t)((uint32_t)a.v * (uint32_t)b.v)}; }
RO_OP I and_(I a, I b) { return {a.v & b.v}; }
RO_OP I or_(I a, I b) { return {a.v | b.v}; }
RO_OP I xor_(I a, I b) { return {a.v ^ b.v}; }
RO_OP I andnot(I a, I b) { return {~a.v & b.v}; }
template <int n> RO_OP I shl(I a) { return {(int32_t)((uint32_t)a.v << n)}; }
template <int n> RO_OP I shr(I a) { return {a.v >> n}; }
template <int n> RO_OP I shr_logical(I a) { return {(int32_t)((uint32_t)a.v >> n)}; }
RO_OP I min(I a, I b) { return a.v < b.v ? a : b; }
RO_OP I max(I a, I b) { return a.v > b.v ? a : b; }
RO_OP M lt(I a, I b) { return {a.v < b.v}; }
RO_OP M gt(I a, I b) { return {a.v > b.v}; }
RO_OP M eq(I a, I b) { return {a.v == b.v}; }
RO_OP F to_float(I a) { return {(float)a.v}; }
RO_OP I to_int(F a) { return {(int32_t)a.v}; }
RO_OP I widen16(const void* p) { return {(int32_t)load_u16(p, 0)}; }
RO_OP void narrow16(I a, void* p) { std::memcpy(p, &a.v, 2); }
RO_OP F from_f16(const void* p) { return {f16_to_f32(load_u16(p, 0))}; }
RO_OP void to_f16(F a, void* p) {
  const uint16_t h = f32_to_f16(a.v);
  std::memcpy(p, &h, 2);
}
RO_OP I lane_index() { return {0}; }

#else
#error "define RO_ISA and one of RO_ISA_AVX512, RO_ISA_AVX2, RO_ISA_NEON, RO_ISA_SCALAR before including simd.h"
#endif

#if !defined(RO_ISA_AVX512)
RO_OP F load_halves(const char* p) { return F::load(p); }
#endif
RO_OP bool none(M a) { return !any(a); }
RO_OP F neg(F a) { return xor_(a, F::bits(0x80000000u)); }
RO_OP F abs(F a) { return and_(a, F::bits(0x7FFFFFFFu)); }
// Every vector that an operator writes goes through this.
RO_OP F canonical(F a) { return select(is_nan(a), F::bits(kNanBits), a); }

// kLanes elements in memory of a floating dtype, as f32; what is stored is rounded to the dtype, a NaN is canonical.
template <int32_t dtype>
RO_OP F load_as(const void* p) {
  if constexpr (dtype == kBF16) return float_of(shl<16>(widen16(p)));
  else if constexpr (dtype == kF16) return from_f16(p);
  else return F::load(p);
}
template <int32_t dtype>
RO_OP void store_as(F a, void* p) {
  const F x = canonical(a);
  if constexpr (dtype == kBF16) {
    const I u = bits_of(x);
    narrow16(shr_logical<16>(add(u, add(I::set(0x7FFF), and_(shr_logical<16>(u), I::set(1))))), p);
  } else if constexpr (dtype == kF16) {
    to_f16(x, p);
  } else {
    x.store(p);
  }
}
// The first n of them; other lanes load +0.
template <int32_t dtype>
RO_OP F load_as(const void* p, int n) {
  if constexpr (dtype == kF32) {
    return F::load(p, n);
  } else {
    uint16_t lanes[kLanes] = {};
    std::memcpy(lanes, p, 2 * n);
    return load_as<dtype>(lanes);
  }
}
template <int32_t dtype>
RO_OP void store_as(F a, void* p, int n) {
  if constexpr (dtype == kF32) {
    canonical(a).store(p, n);
  } else {
    uint16_t lanes[kLanes];
    store_as<dtype>(a, lanes);
    std::memcpy(p, lanes, 2 * n);
  }
}

// Loaded once: a compiler would repeat the load in every instruction that takes its operand from memory.
RO_OP F loaded(F a) {
#if defined(RO_ISA_AVX512) && !defined(RO_EMULATE_AVX512)
  asm("" : "+v"(a.v));
#endif
  return a;
}

#if !defined(RO_ISA_SCALAR)
// How many elements of every row load_transposed takes.
#if defined(RO_ISA_AVX2)
template <int32_t dtype> constexpr int kTransposed = dtype == kF32 ? 4 : kLanes;
#else
template <int32_t dtype> constexpr int kTransposed = kLanes;
#endif
// t[i] lane j: element i of row j, for kLanes rows, `row` bytes apart.
template <int32_t dtype>
RO_OP void load_transposed(F (&t)[kTransposed<dtype>], const char* p, int64_t row) {
  if constexpr (kTransposed<dtype> == kLanes) {
    // Rows in fours by a running pointer: the compiler would keep the distance of every row, in more registers than there are.
    int64_t three = 3 * row;
    asm("" : "+r"(three));
#pragma GCC unroll 4
    for (int j = 0; j < kLanes; j += 4, p += 4 * row) {
      asm("" : "+r"(p));
      t[j] = loaded(load_as<dtype>(p)), t[j + 1] = loaded(load_as<dtype>(p + row));
      t[j + 2] = loaded(load_as<dtype>(p + 2 * row)), t[j + 3] = loaded(load_as<dtype>(p + three));
    }
    transpose(t);
  } else {
    load_transposed(t, p, row);
  }
}
#endif

// IEEE 754-2019 maximum and minimum: NaN if either is NaN; -0 < +0.
RO_OP F maximum(F a, F b) {
  const F m = select(eq(a, b), and_(a, b), select(gt(a, b), a, b));
  return select(is_nan(a, b), F::bits(kNanBits), m);
}
RO_OP F minimum(F a, F b) {
  const F m = select(eq(a, b), or_(a, b), select(lt(a, b), a, b));
  return select(is_nan(a, b), F::bits(kNanBits), m);
}

}  // namespace RO_ISA
}  // namespace ro
