// Scalar primitives of profile RO-1 (docs/spec/operators.md, "Primitives"): each is one IEEE 754-2019 operation, round to
// nearest even, or one bit operation. The same text serves the host and a CUDA device.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "call.h"

// Static and always inlined: the units of different instruction sets must never share one compiled copy.
#define RO_INLINE static inline __attribute__((always_inline))
#define RO_LAMBDA __attribute__((always_inline))  // between the parameters and the body of a lambda
#define RO_PRIM RO_HD RO_INLINE

namespace ro {

constexpr uint32_t kNanBits = 0x7FC00000u;
constexpr uint32_t kInfBits = 0x7F800000u;
constexpr uint32_t kMinusInfBits = 0xFF800000u;

RO_PRIM uint32_t bits_of(float x) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  return u;
}
RO_PRIM float float_of(uint32_t u) {
  float x;
  std::memcpy(&x, &u, 4);
  return x;
}

RO_PRIM bool is_nan(float x) { return (bits_of(x) & 0x7FFFFFFFu) > kInfBits; }
// Every NaN an operator writes goes through this.
RO_PRIM float canonical(float x) { return is_nan(x) ? float_of(kNanBits) : x; }

#if defined(__CUDA_ARCH__)
RO_PRIM float fma_rn(float a, float b, float c) { return __fmaf_rn(a, b, c); }
RO_PRIM float add_rn(float a, float b) { return __fadd_rn(a, b); }
RO_PRIM float sub_rn(float a, float b) { return __fsub_rn(a, b); }
RO_PRIM float mul_rn(float a, float b) { return __fmul_rn(a, b); }
RO_PRIM float div_rn(float a, float b) { return __fdiv_rn(a, b); }
RO_PRIM float sqrt_rn(float a) { return __fsqrt_rn(a); }
#else
RO_PRIM float fma_rn(float a, float b, float c) { return std::fma(a, b, c); }
RO_PRIM float add_rn(float a, float b) { return a + b; }
RO_PRIM float sub_rn(float a, float b) { return a - b; }
RO_PRIM float mul_rn(float a, float b) { return a * b; }
RO_PRIM float div_rn(float a, float b) { return a / b; }
RO_PRIM float sqrt_rn(float a) { return std::sqrt(a); }
#endif

RO_PRIM float neg_f32(float x) { return float_of(bits_of(x) ^ 0x80000000u); }
RO_PRIM float abs_f32(float x) { return float_of(bits_of(x) & 0x7FFFFFFFu); }

// IEEE 754-2019 maximum and minimum: NaN if either is NaN; -0 < +0.
RO_PRIM float maximum_f32(float a, float b) {
  if (is_nan(a) || is_nan(b)) return float_of(kNanBits);
  if (a == b) return float_of(bits_of(a) & bits_of(b));  // differ only as +0 and -0
  return a > b ? a : b;
}
RO_PRIM float minimum_f32(float a, float b) {
  if (is_nan(a) || is_nan(b)) return float_of(kNanBits);
  if (a == b) return float_of(bits_of(a) | bits_of(b));
  return a < b ? a : b;
}

// Integers wrap modulo 2^64; division is total.
RO_PRIM int64_t add_i64(int64_t a, int64_t b) { return (int64_t)((uint64_t)a + (uint64_t)b); }
RO_PRIM int64_t sub_i64(int64_t a, int64_t b) { return (int64_t)((uint64_t)a - (uint64_t)b); }
RO_PRIM int64_t mul_i64(int64_t a, int64_t b) { return (int64_t)((uint64_t)a * (uint64_t)b); }
RO_PRIM int64_t neg_i64(int64_t a) { return (int64_t)(0 - (uint64_t)a); }
RO_PRIM int64_t abs_i64(int64_t a) { return a < 0 ? neg_i64(a) : a; }
RO_PRIM int64_t div_i64(int64_t a, int64_t b) { return b == 0 ? 0 : b == -1 ? neg_i64(a) : a / b; }

RO_PRIM float i64_to_f32(int64_t a) {
#if defined(__CUDA_ARCH__)
  return __ll2float_rn(a);
#else
  return (float)a;
#endif
}
// Truncates, saturates; NaN gives 0.
RO_PRIM int64_t f32_to_i64(float x) {
  if (is_nan(x)) return 0;
  if (x >= 9223372036854775808.0f) return INT64_MAX;
  if (x < -9223372036854775808.0f) return INT64_MIN;
  return (int64_t)x;
}
RO_PRIM bool f32_to_bool(float x) { return x != 0.0f; }  // NaN: true
RO_PRIM int32_t f32_to_i32(float x) {
  const int64_t i = f32_to_i64(x);
  return i > INT32_MAX ? INT32_MAX : i < INT32_MIN ? INT32_MIN : (int32_t)i;
}

// bf16 and f16 as bit patterns: to f32 exactly, from f32 rounded once; a NaN is written 0x7FC0 or 0x7E00.
RO_PRIM float bf16_to_f32(uint16_t h) { return float_of((uint32_t)h << 16); }
RO_PRIM uint16_t f32_to_bf16(float x) {
  const uint32_t u = bits_of(canonical(x));
  return (uint16_t)((u + 0x7FFFu + (u >> 16 & 1u)) >> 16);
}
RO_PRIM float f16_to_f32(uint16_t h) {
  const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = h >> 10 & 31u, mantissa = h & 0x3FFu;
  if (exponent == 31) return float_of(sign | kInfBits | mantissa << 13);
  if (exponent == 0) return float_of(sign | bits_of(mul_rn((float)mantissa, float_of(0x33800000u))));  // mantissa * 2^-24
  return float_of(sign | (exponent + 112) << 23 | mantissa << 13);
}
RO_PRIM uint16_t f32_to_f16(float x) {
  if (is_nan(x)) return 0x7E00u;
  const uint32_t sign = bits_of(x) >> 16 & 0x8000u, u = bits_of(x) & 0x7FFFFFFFu;
  if (u >= 0x477FF000u) return (uint16_t)(sign | 0x7C00u);  // from 65520 on: infinity
  // Below 2^-14 the unit is 2^-24, the unit of f32 in [0.5, 1).
  if (u < 0x38800000u) return (uint16_t)(sign | (bits_of(add_rn(float_of(u), 0.5f)) - 0x3F000000u));
  return (uint16_t)(sign | (u - (112u << 23) + 0xFFFu + (u >> 13 & 1u)) >> 13);
}
// To f16 by way of f32: an i64 that f32 rounds is above f16's range. Not so for bf16.
RO_PRIM uint16_t i64_to_f16(int64_t a) { return f32_to_f16(i64_to_f32(a)); }
RO_PRIM uint16_t i64_to_bf16(int64_t a) {
  uint64_t u = a < 0 ? 0 - (uint64_t)a : (uint64_t)a;
  float scale = 1.0f;
  // Rounds to odd, to 17 bits at least, so that the second rounding is the only one.
  for (; u >> 24; scale = mul_rn(scale, 256.0f)) u = u >> 8 | ((u & 255u) != 0);
  const float x = mul_rn((float)(int32_t)u, scale);
  return f32_to_bf16(a < 0 ? neg_f32(x) : x);
}

// Loads and stores of element i at any alignment.
RO_PRIM float load_f32(const void* p, int64_t i) {
  float x;
  std::memcpy(&x, (const char*)p + 4 * i, 4);
  return x;
}
RO_PRIM int64_t load_i64(const void* p, int64_t i) {
  int64_t x;
  std::memcpy(&x, (const char*)p + 8 * i, 8);
  return x;
}
RO_PRIM bool load_bool(const void* p, int64_t i) { return ((const unsigned char*)p)[i] != 0; }
RO_PRIM uint16_t load_u16(const void* p, int64_t i) {
  uint16_t x;
  std::memcpy(&x, (const char*)p + 2 * i, 2);
  return x;
}
RO_PRIM int32_t load_i32(const void* p, int64_t i) {
  int32_t x;
  std::memcpy(&x, (const char*)p + 4 * i, 4);
  return x;
}
// An f32, bf16 or f16 as f32; an i64 or i32 as i64.
RO_PRIM float load_real(const void* p, int32_t dtype, int64_t i) {
  return dtype == kF32 ? load_f32(p, i) : dtype == kBF16 ? bf16_to_f32(load_u16(p, i)) : f16_to_f32(load_u16(p, i));
}
RO_PRIM int64_t load_integer(const void* p, int32_t dtype, int64_t i) {
  return dtype == kI64 ? load_i64(p, i) : (int64_t)load_i32(p, i);
}
RO_PRIM void store_f32(void* p, int64_t i, float x) { std::memcpy((char*)p + 4 * i, &x, 4); }
RO_PRIM void store_i64(void* p, int64_t i, int64_t x) { std::memcpy((char*)p + 8 * i, &x, 8); }
RO_PRIM void store_u16(void* p, int64_t i, uint16_t x) { std::memcpy((char*)p + 2 * i, &x, 2); }
RO_PRIM void store_i32(void* p, int64_t i, int32_t x) { std::memcpy((char*)p + 4 * i, &x, 4); }
RO_PRIM void store_bool(void* p, int64_t i, bool x) { ((unsigned char*)p)[i] = x ? 1 : 0; }

// The pattern of a result as an operator writes it in a floating or integer dtype.
RO_PRIM uint64_t real_bits(float x, int32_t dtype) {
  return dtype == kF32 ? bits_of(canonical(x)) : dtype == kBF16 ? f32_to_bf16(x) : f32_to_f16(x);
}
RO_PRIM uint64_t integer_bits(int64_t x, int32_t dtype) { return dtype == kI64 ? (uint64_t)x : (uint32_t)x; }
RO_PRIM void store_real(void* p, int32_t dtype, int64_t i, float x) {
  const uint64_t bits = real_bits(x, dtype);
  const int size = item_size(dtype);
  std::memcpy((char*)p + size * i, &bits, size);  // little-endian
}

// |x| 2/pi modulo 4, for 2^18 <= |x| < 2^128: quadrant + fraction, the fraction in [-1/2, 1/2] as the sum of two floats. It is
// exact to 2^-62 before the rounding to those: m W / 2^32 modulo 2^64 with the significand m and the 96 bits W of 2/pi that matter.
// Any other x gives some result.
struct Turns {
  uint32_t quadrant;
  float high, low;
};
RO_PRIM Turns turns(float x, const uint32_t* two_over_pi) {
  const uint32_t bits = bits_of(x) & 0x7FFFFFFFu;
  const uint64_t m = (bits & 0x007FFFFFu) | 0x00800000u;
  const int exponent = (int)(bits >> 23);
  const int at = (exponent < 145 ? 145 : exponent > 254 ? 254 : exponent) - 120;  // the first bit of W
  const uint32_t* const w = two_over_pi + (at >> 5);
  const int shift = at & 31;
  const uint64_t first = (uint64_t)w[0] << 32 | w[1], second = (uint64_t)w[2] << 32 | w[3];
  const uint64_t high = shift == 0 ? first : first << shift | second >> (64 - shift), low = second << shift >> 32;
  const uint64_t product = m * high + (m * low >> 32);
  const uint64_t quadrant = (product + (1ull << 61)) >> 62;
  const int64_t fraction = (int64_t)(product - (quadrant << 62));
  const float whole = i64_to_f32(fraction);
  return {(uint32_t)quadrant & 3u, whole, i64_to_f32(fraction - (int64_t)whole)};
}

RO_PRIM float literal_f32(const Call& call, int k) { return float_of((uint32_t)call.literals[k]); }

}  // namespace ro
