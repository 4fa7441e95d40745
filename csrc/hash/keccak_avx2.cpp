// Eight messages at a time, four to a vector. Compiled with AVX2 enabled; called only where the machine has it.
#include "hash/lanes.h"

#if defined(__AVX2__)
#include <immintrin.h>

#include "hash/permute.h"

namespace ro::hash {
namespace {

struct Vec4 {
  __m256i v;

  static RO_INLINE Vec4 xor2(Vec4 a, Vec4 b) { return {_mm256_xor_si256(a.v, b.v)}; }
  static RO_INLINE Vec4 xor3(Vec4 a, Vec4 b, Vec4 c) { return xor2(xor2(a, b), c); }
  static RO_INLINE Vec4 chi(Vec4 a, Vec4 b, Vec4 c) { return {_mm256_xor_si256(a.v, _mm256_andnot_si256(b.v, c.v))}; }
  template <int n>
  static RO_INLINE Vec4 rotl(Vec4 a) {
    if constexpr (n == 8) {
      return {_mm256_shuffle_epi8(a.v, _mm256_setr_epi8(7, 0, 1, 2, 3, 4, 5, 6, 15, 8, 9, 10, 11, 12, 13, 14,  //
                                                        7, 0, 1, 2, 3, 4, 5, 6, 15, 8, 9, 10, 11, 12, 13, 14))};
    } else if constexpr (n == 56) {
      return {_mm256_shuffle_epi8(a.v, _mm256_setr_epi8(1, 2, 3, 4, 5, 6, 7, 0, 9, 10, 11, 12, 13, 14, 15, 8,  //
                                                        1, 2, 3, 4, 5, 6, 7, 0, 9, 10, 11, 12, 13, 14, 15, 8))};
    } else if constexpr (n == 1) {
      return {_mm256_or_si256(_mm256_add_epi64(a.v, a.v), _mm256_srli_epi64(a.v, 63))};
    } else {
      return {_mm256_or_si256(_mm256_slli_epi64(a.v, n), _mm256_srli_epi64(a.v, 64 - n))};
    }
  }
  static RO_INLINE Vec4 broadcast(uint64_t word) { return {_mm256_set1_epi64x(static_cast<long long>(word))}; }

  static RO_INLINE long long word(const uint8_t* p) {
    long long w;
    __builtin_memcpy(&w, p, 8);
    return w;
  }
  static RO_INLINE Vec4 load(const uint8_t* const* in, int64_t offset) {
    return {_mm256_set_epi64x(word(in[3] + offset), word(in[2] + offset), word(in[1] + offset), word(in[0] + offset))};
  }
  static RO_INLINE void load4(const uint8_t* const* in, int64_t offset, Vec4* w) {
    __m256i r[4];
    for (int i = 0; i < 4; ++i) r[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in[i] + offset));
    const __m256i s0 = _mm256_unpacklo_epi64(r[0], r[1]), s1 = _mm256_unpackhi_epi64(r[0], r[1]);
    const __m256i s2 = _mm256_unpacklo_epi64(r[2], r[3]), s3 = _mm256_unpackhi_epi64(r[2], r[3]);
    w[0].v = _mm256_permute2x128_si256(s0, s2, 0x20);
    w[1].v = _mm256_permute2x128_si256(s1, s3, 0x20);
    w[2].v = _mm256_permute2x128_si256(s0, s2, 0x31);
    w[3].v = _mm256_permute2x128_si256(s1, s3, 0x31);
  }
  static RO_INLINE void load8(const uint8_t* const* in, int64_t offset, Vec4* w) {
    load4(in, offset, w);
    load4(in, offset + 32, w + 4);
  }
  static RO_INLINE void store4(const Vec4* state, uint8_t* out) {
    alignas(32) uint64_t words[4][4];
    for (int i = 0; i < 4; ++i) _mm256_store_si256(reinterpret_cast<__m256i*>(words[i]), state[i].v);
    for (int lane = 0; lane < 4; ++lane)
      for (int i = 0; i < 4; ++i) __builtin_memcpy(out + 32 * lane + 8 * i, &words[i][lane], 8);
  }
};

// Eight messages in two vectors. Their states take turns, round by round: while one waits for its column parities, which
// need all of the round before, the processor works at the other.
struct Vec4x2 {
  static constexpr int kWidth = 8;
  Vec4 half[2];

  static RO_INLINE Vec4x2 xor2(Vec4x2 a, Vec4x2 b) {
    return {{Vec4::xor2(a.half[0], b.half[0]), Vec4::xor2(a.half[1], b.half[1])}};
  }
  static RO_INLINE Vec4x2 broadcast(uint64_t word) { return {{Vec4::broadcast(word), Vec4::broadcast(word)}}; }
  static RO_INLINE Vec4x2 load(const uint8_t* const* in, int64_t offset) {
    return {{Vec4::load(in, offset), Vec4::load(in + 4, offset)}};
  }
  static RO_INLINE void load8(const uint8_t* const* in, int64_t offset, Vec4x2* w) {
    for (int h = 0; h < 2; ++h) {
      Vec4 words[8];
      Vec4::load8(in + 4 * h, offset, words);
      for (int i = 0; i < 8; ++i) w[i].half[h] = words[i];
    }
  }
  static RO_INLINE void store4(const Vec4x2* state, uint8_t* out) {
    for (int h = 0; h < 2; ++h) {
      const Vec4 words[4] = {state[0].half[h], state[1].half[h], state[2].half[h], state[3].half[h]};
      Vec4::store4(words, out + 4 * kHashBytes * h);
    }
  }
};

// The words of one half.
struct Half {
  Vec4x2* words;
  int h;
  RO_INLINE Vec4& operator[](int i) const { return words[i].half[h]; }
};

__attribute__((noinline)) void permute(Vec4x2* state) {
  Vec4x2 other[25];
  for (int r = 0; r < 24; r += 2) {
    for (int odd = 0; odd < 2; ++odd) {
      for (int h = 0; h < 2; ++h) {
        round<Vec4>(Half{odd ? other : state, h}, Half{odd ? state : other, h}, kRoundConstants[r + odd]);
        asm volatile("" ::"r"(state), "r"(other) : "memory");  // else compilers mix the halves, and spill
      }
    }
  }
}

constexpr Lanes kLanes = {"avx2", Vec4x2::kWidth, sponge_tiles<Vec4x2>, sponge_pairs<Vec4x2>, sponge_states<Vec4x2>};

}  // namespace

const Lanes* lanes_avx2() { return &kLanes; }

}  // namespace ro::hash

#else
namespace ro::hash {
const Lanes* lanes_avx2() { return nullptr; }
}  // namespace ro::hash
#endif
