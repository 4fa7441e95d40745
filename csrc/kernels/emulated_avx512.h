// The AVX-512 unit on a processor without AVX-512, for tests: SIMDe (Debian's libsimde-dev) carries out its intrinsics with
// AVX2. Same lanes, same register tiles, same masks, so the same text is checked; only the speed is not. SIMDe lacks a few
// of them; they follow here.
#pragma once
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx2.h>
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>
#include <simde/x86/fma.h>

#include <cmath>
#include <cstring>

namespace ro {
namespace emulated {

constexpr int kWords = 16;

template <class T, class V>
static inline void words_of(V v, T (&w)[kWords]) {
  static_assert(sizeof v == sizeof w, "16 words");
  std::memcpy(w, &v, sizeof w);
}
template <class V, class T>
static inline V vector_of(const T (&w)[kWords]) {
  V v;
  std::memcpy(&v, w, sizeof v);
  return v;
}

static inline __mmask16 less(__m512i a, __m512i b) { return _mm512_cmpgt_epi32_mask(b, a); }
static inline __m512 to_float(__m512i a) {
  int32_t w[kWords];
  float f[kWords];
  words_of(a, w);
  for (int i = 0; i < kWords; ++i) f[i] = (float)w[i];
  return vector_of<__m512>(f);
}
static inline __m512i to_int(__m512 a) {
  __m256 halves[2];
  __m256i ints[2];
  std::memcpy(halves, &a, sizeof halves);
  for (int h = 0; h < 2; ++h) ints[h] = _mm256_cvttps_epi32(halves[h]);
  __m512i out;
  std::memcpy(&out, ints, sizeof out);
  return out;
}
static inline __m256 half(__m512 a, int which) {
  __m256 halves[2];
  std::memcpy(halves, &a, sizeof halves);
  return halves[which];
}
template <class V>
static inline V load_some(__mmask16 m, const void* p) {
  uint32_t w[kWords] = {};
  for (int i = 0; i < kWords; ++i)
    if (m >> i & 1) std::memcpy(&w[i], (const char*)p + 4 * i, 4);
  return vector_of<V>(w);
}
template <class V>
static inline void store_some(void* p, __mmask16 m, V v) {
  uint32_t w[kWords];
  words_of(v, w);
  for (int i = 0; i < kWords; ++i)
    if (m >> i & 1) std::memcpy((char*)p + 4 * i, &w[i], 4);
}
// Blocks of 128 bits: two of a, two of b.
template <class V>
static inline V blocks(V a, V b, int choice) {
  uint32_t x[kWords], y[kWords], w[kWords];
  words_of(a, x);
  words_of(b, y);
  for (int i = 0; i < 4; ++i) std::memcpy(w + 4 * i, (i < 2 ? x : y) + 4 * (choice >> 2 * i & 3), 16);
  return vector_of<V>(w);
}
static inline __m512i shift_right(__m512i a, int n) {
  int32_t w[kWords];
  words_of(a, w);
  for (int i = 0; i < kWords; ++i) w[i] >>= n;
  return vector_of<__m512i>(w);
}
static inline __m128i bytes_where(__mmask16 m, char x) {
  char w[kWords];
  for (int i = 0; i < kWords; ++i) w[i] = m >> i & 1 ? x : 0;
  __m128i v;
  std::memcpy(&v, w, sizeof v);
  return v;
}
static inline __mmask16 bytes_common(__m128i a, __m128i b) {
  uint8_t x[kWords], y[kWords];
  std::memcpy(x, &a, sizeof x);
  std::memcpy(y, &b, sizeof y);
  unsigned m = 0;
  for (int i = 0; i < kWords; ++i) m |= (unsigned)((x[i] & y[i]) != 0) << i;
  return (__mmask16)m;
}
// 16 halves of 16 bits to words, and words to halves: two vectors of 8.
template <class V, class Half, class Convert>
static inline V widened(__m256i a, const Convert& convert) {
  const Half halves[2] = {convert(_mm256_castsi256_si128(a)), convert(_mm256_extracti128_si256(a, 1))};
  V v;
  std::memcpy(&v, halves, sizeof v);
  return v;
}
template <class Half, class V, class Convert>
static inline __m256i narrowed(V a, const Convert& convert) {
  Half halves[2];
  std::memcpy(halves, &a, sizeof halves);
  const __m128i out[2] = {convert(halves[0]), convert(halves[1])};
  __m256i v;
  std::memcpy(&v, out, sizeof v);
  return v;
}
static inline __m512i words_of_halves(__m256i a) {
  return widened<__m512i, __m256i>(a, [](__m128i h) { return _mm256_cvtepu16_epi32(h); });
}
static inline __m512 floats_of_halves(__m256i a) {
  return widened<__m512, __m256>(a, [](__m128i h) { return _mm256_cvtph_ps(h); });
}
static inline __m256i low_halves(__m512i a) {
  uint32_t w[kWords];
  uint16_t h[kWords];
  words_of(a, w);
  for (int i = 0; i < kWords; ++i) h[i] = (uint16_t)w[i];
  __m256i v;
  std::memcpy(&v, h, sizeof v);
  return v;
}
static inline __m256i halves_of_floats(__m512 a) {
  return narrowed<__m256>(a, [](__m256 f) { return _mm256_cvtps_ph(f, _MM_FROUND_TO_NEAREST_INT); });
}

}  // namespace emulated
}  // namespace ro

#define _mm512_cmplt_epi32_mask(a, b) ::ro::emulated::less(a, b)
#define _mm512_cvtepi32_ps(a) ::ro::emulated::to_float(a)
#define _mm512_cvttps_epi32(a) ::ro::emulated::to_int(a)
#define _mm512_extractf32x8_ps(a, which) ::ro::emulated::half(a, which)
#define _mm512_maskz_loadu_ps(m, p) ::ro::emulated::load_some<__m512>(m, p)
#define _mm512_maskz_loadu_epi32(m, p) ::ro::emulated::load_some<__m512i>(m, p)
#define _mm512_stream_ps(p, v) _mm512_storeu_ps(p, v)
#define _mm512_mask_storeu_ps(p, m, v) ::ro::emulated::store_some(p, m, v)
#define _mm512_mask_storeu_epi32(p, m, v) ::ro::emulated::store_some(p, m, v)
#define _mm512_shuffle_f32x4(a, b, choice) ::ro::emulated::blocks<__m512>(a, b, choice)
#define _mm512_shuffle_i64x2(a, b, choice) ::ro::emulated::blocks<__m512i>(a, b, choice)
#define _mm512_srai_epi32(a, n) ::ro::emulated::shift_right(a, n)
#define _mm_maskz_set1_epi8(m, x) ::ro::emulated::bytes_where(m, x)
#define _mm_test_epi8_mask(a, b) ::ro::emulated::bytes_common(a, b)
#define _mm512_cvtepu16_epi32(a) ::ro::emulated::words_of_halves(a)
#define _mm512_cvtepi32_epi16(a) ::ro::emulated::low_halves(a)
#define _mm512_cvtph_ps(a) ::ro::emulated::floats_of_halves(a)
#define _mm512_cvtps_ph(a, rounding) ::ro::emulated::halves_of_floats(a)
