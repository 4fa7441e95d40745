// Eight messages at a time. Compiled with AVX-512 enabled; called only where the machine has it.
#include "hash/lanes.h"

#if defined(__AVX512F__)
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 13
// Those compilers' own header declares the "undefined" operand of a full mask as `__m512i __Y = __Y`.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "hash/permute.h"

namespace ro::hash {
namespace {

struct Vec8 {
  static constexpr int kWidth = 8;
  __m512i v;

  static RO_INLINE Vec8 xor2(Vec8 a, Vec8 b) { return {_mm512_xor_si512(a.v, b.v)}; }
  static RO_INLINE Vec8 xor3(Vec8 a, Vec8 b, Vec8 c) { return {_mm512_ternarylogic_epi64(a.v, b.v, c.v, 0x96)}; }
  static RO_INLINE Vec8 chi(Vec8 a, Vec8 b, Vec8 c) { return {_mm512_ternarylogic_epi64(a.v, b.v, c.v, 0xd2)}; }
  template <int n>
  static RO_INLINE Vec8 rotl(Vec8 a) {
    return {_mm512_rol_epi64(a.v, n)};
  }
  static RO_INLINE Vec8 broadcast(uint64_t word) { return {_mm512_set1_epi64(static_cast<long long>(word))}; }

  static RO_INLINE long long word(const uint8_t* p) {
    long long w;
    __builtin_memcpy(&w, p, 8);
    return w;
  }
  static RO_INLINE Vec8 load(const uint8_t* const* in, int64_t offset) {
    return {_mm512_set_epi64(word(in[7] + offset), word(in[6] + offset), word(in[5] + offset), word(in[4] + offset),
                             word(in[3] + offset), word(in[2] + offset), word(in[1] + offset), word(in[0] + offset))};
  }
  // Eight rows of 64 bytes, transposed: a gather costs more, above all on machines with gather mitigations.
  static RO_INLINE void load8(const uint8_t* const* in, int64_t offset, Vec8* w) {
    __m512i r[8], s[8], t[8];
    for (int i = 0; i < 8; ++i) r[i] = _mm512_loadu_si512(in[i] + offset);
    for (int i = 0; i < 8; i += 2) {
      s[i] = _mm512_unpacklo_epi64(r[i], r[i + 1]);
      s[i + 1] = _mm512_unpackhi_epi64(r[i], r[i + 1]);
    }
    // s[i]: even words of rows i, i + 1; s[i + 1]: odd words. Now join four rows, then eight.
    for (int i = 0; i < 8; i += 4) {
      t[i] = _mm512_shuffle_i64x2(s[i], s[i + 2], 0x88);          // words 0 and 4
      t[i + 1] = _mm512_shuffle_i64x2(s[i + 1], s[i + 3], 0x88);  // words 1 and 5
      t[i + 2] = _mm512_shuffle_i64x2(s[i], s[i + 2], 0xdd);      // words 2 and 6
      t[i + 3] = _mm512_shuffle_i64x2(s[i + 1], s[i + 3], 0xdd);  // words 3 and 7
    }
    for (int i = 0; i < 4; ++i) {
      w[i].v = _mm512_shuffle_i64x2(t[i], t[i + 4], 0x88);
      w[i + 4].v = _mm512_shuffle_i64x2(t[i], t[i + 4], 0xdd);
    }
  }
  static RO_INLINE void store4(const Vec8* state, uint8_t* out) {
    alignas(64) uint64_t words[4][8];
    for (int i = 0; i < 4; ++i) _mm512_store_si512(words[i], state[i].v);
    for (int lane = 0; lane < 8; ++lane)
      for (int i = 0; i < 4; ++i) __builtin_memcpy(out + 32 * lane + 8 * i, &words[i][lane], 8);
  }
};

constexpr Lanes kLanes = {"avx512", Vec8::kWidth, sponge_tiles<Vec8>, sponge_pairs<Vec8>};

}  // namespace

const Lanes* lanes_avx512() { return &kLanes; }

}  // namespace ro::hash

#else
namespace ro::hash {
const Lanes* lanes_avx512() { return nullptr; }
}  // namespace ro::hash
#endif
