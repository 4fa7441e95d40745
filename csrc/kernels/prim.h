// Scalar primitives of profile RO-1 (docs/spec/operators.md, "Primitives"): each is one IEEE 754-2019 operation, round to
// nearest even, or one bit operation. The same text serves the host and a CUDA device.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "call.h"

// Static and always inlined: the units of different instruction sets must never share one compiled copy.
#define RO_INLINE static inline __attribute__((always_inline))
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
RO_PRIM void store_f32(void* p, int64_t i, float x) { std::memcpy((char*)p + 4 * i, &x, 4); }
RO_PRIM void store_i64(void* p, int64_t i, int64_t x) { std::memcpy((char*)p + 8 * i, &x, 8); }
RO_PRIM void store_bool(void* p, int64_t i, bool x) { ((unsigned char*)p)[i] = x ? 1 : 0; }

RO_PRIM float literal_f32(const Call& call, int k) { return float_of((uint32_t)call.literals[k]); }

}  // namespace ro
