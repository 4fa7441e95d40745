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

// The permutation with all 32 registers allotted by hand: from the text in permute.h GCC 12 spills thirty words a round,
// and a root takes about 10 % longer. A row's five output words go into the registers of its five input words: with the
// word (x, y) of the odd rounds in the register of word (2x + y, 2x + 3y), the placement returns after two rounds.
#define RO_COLUMN(c, a0, a1, a2, a3, a4)                                                                                \
  "vmovdqa64 %%zmm" #a0 ", %%zmm" #c "\n\t"                                                                             \
  "vpternlogq $0x96, %%zmm" #a1 ", %%zmm" #a2 ", %%zmm" #c "\n\t"                                                       \
  "vpternlogq $0x96, %%zmm" #a3 ", %%zmm" #a4 ", %%zmm" #c "\n\t"
// Every word of a column ^= parity of the column to its left ^ rotated parity of the column to its right.
#define RO_THETA(left, right, a0, a1, a2, a3, a4)                                                                       \
  "vprolq $1, %%zmm" #right ", %%zmm30\n\t"                                                                             \
  "vpternlogq $0x96, %%zmm30, %%zmm" #left ", %%zmm" #a0 "\n\t"                                                         \
  "vpternlogq $0x96, %%zmm30, %%zmm" #left ", %%zmm" #a1 "\n\t"                                                         \
  "vpternlogq $0x96, %%zmm30, %%zmm" #left ", %%zmm" #a2 "\n\t"                                                         \
  "vpternlogq $0x96, %%zmm30, %%zmm" #left ", %%zmm" #a3 "\n\t"                                                         \
  "vpternlogq $0x96, %%zmm30, %%zmm" #left ", %%zmm" #a4 "\n\t"
#define RO_CHI(t0, t1, t2, o)                                                                                           \
  "vmovdqa64 %%zmm" #t0 ", %%zmm" #o "\n\t"                                                                             \
  "vpternlogq $0xd2, %%zmm" #t2 ", %%zmm" #t1 ", %%zmm" #o "\n\t"
// Rotated inputs a0 to a4 to the output registers o0 to o4, the same five in another order.
#define RO_ROW(a0, r0, a1, r1, a2, r2, a3, r3, a4, r4, o0, o1, o2, o3, o4)                                              \
  "vprolq $" #r0 ", %%zmm" #a0 ", %%zmm25\n\t"                                                                          \
  "vprolq $" #r1 ", %%zmm" #a1 ", %%zmm26\n\t"                                                                          \
  "vprolq $" #r2 ", %%zmm" #a2 ", %%zmm27\n\t"                                                                          \
  "vprolq $" #r3 ", %%zmm" #a3 ", %%zmm28\n\t"                                                                          \
  "vprolq $" #r4 ", %%zmm" #a4 ", %%zmm29\n\t"                                                                          \
  RO_CHI(25, 26, 27, o0) RO_CHI(26, 27, 28, o1) RO_CHI(27, 28, 29, o2) RO_CHI(28, 29, 25, o3) RO_CHI(29, 25, 26, o4)

template <>
__attribute__((noinline)) void permute<Vec8>(Vec8* state) {
  const uint64_t* constant = kRoundConstants;
  asm volatile(
      "vmovdqu64 0(%[state]), %%zmm0\n\t"
      "vmovdqu64 64(%[state]), %%zmm1\n\t"
      "vmovdqu64 128(%[state]), %%zmm2\n\t"
      "vmovdqu64 192(%[state]), %%zmm3\n\t"
      "vmovdqu64 256(%[state]), %%zmm4\n\t"
      "vmovdqu64 320(%[state]), %%zmm5\n\t"
      "vmovdqu64 384(%[state]), %%zmm6\n\t"
      "vmovdqu64 448(%[state]), %%zmm7\n\t"
      "vmovdqu64 512(%[state]), %%zmm8\n\t"
      "vmovdqu64 576(%[state]), %%zmm9\n\t"
      "vmovdqu64 640(%[state]), %%zmm10\n\t"
      "vmovdqu64 704(%[state]), %%zmm11\n\t"
      "vmovdqu64 768(%[state]), %%zmm12\n\t"
      "vmovdqu64 832(%[state]), %%zmm13\n\t"
      "vmovdqu64 896(%[state]), %%zmm14\n\t"
      "vmovdqu64 960(%[state]), %%zmm15\n\t"
      "vmovdqu64 1024(%[state]), %%zmm16\n\t"
      "vmovdqu64 1088(%[state]), %%zmm17\n\t"
      "vmovdqu64 1152(%[state]), %%zmm18\n\t"
      "vmovdqu64 1216(%[state]), %%zmm19\n\t"
      "vmovdqu64 1280(%[state]), %%zmm20\n\t"
      "vmovdqu64 1344(%[state]), %%zmm21\n\t"
      "vmovdqu64 1408(%[state]), %%zmm22\n\t"
      "vmovdqu64 1472(%[state]), %%zmm23\n\t"
      "vmovdqu64 1536(%[state]), %%zmm24\n\t"
      "1:\n\t"
      RO_COLUMN(25, 0, 5, 10, 15, 20)
      RO_COLUMN(26, 1, 6, 11, 16, 21)
      RO_COLUMN(27, 2, 7, 12, 17, 22)
      RO_COLUMN(28, 3, 8, 13, 18, 23)
      RO_COLUMN(29, 4, 9, 14, 19, 24)
      RO_THETA(29, 26, 0, 5, 10, 15, 20)
      RO_THETA(25, 27, 1, 6, 11, 16, 21)
      RO_THETA(26, 28, 2, 7, 12, 17, 22)
      RO_THETA(27, 29, 3, 8, 13, 18, 23)
      RO_THETA(28, 25, 4, 9, 14, 19, 24)
      RO_ROW(0, 0, 6, 44, 12, 43, 18, 21, 24, 14, 0, 12, 24, 6, 18)
      RO_ROW(3, 28, 9, 20, 10, 3, 16, 45, 22, 61, 16, 3, 10, 22, 9)
      RO_ROW(1, 1, 7, 6, 13, 25, 19, 8, 20, 18, 7, 19, 1, 13, 20)
      RO_ROW(4, 27, 5, 36, 11, 10, 17, 15, 23, 56, 23, 5, 17, 4, 11)
      RO_ROW(2, 62, 8, 55, 14, 39, 15, 41, 21, 2, 14, 21, 8, 15, 2)
      "vpxorq (%[constant])%{1to8%}, %%zmm0, %%zmm0\n\t"
      RO_COLUMN(25, 0, 16, 7, 23, 14)
      RO_COLUMN(26, 12, 3, 19, 5, 21)
      RO_COLUMN(27, 24, 10, 1, 17, 8)
      RO_COLUMN(28, 6, 22, 13, 4, 15)
      RO_COLUMN(29, 18, 9, 20, 11, 2)
      RO_THETA(29, 26, 0, 16, 7, 23, 14)
      RO_THETA(25, 27, 12, 3, 19, 5, 21)
      RO_THETA(26, 28, 24, 10, 1, 17, 8)
      RO_THETA(27, 29, 6, 22, 13, 4, 15)
      RO_THETA(28, 25, 18, 9, 20, 11, 2)
      RO_ROW(0, 0, 3, 44, 1, 43, 4, 21, 2, 14, 0, 1, 2, 3, 4)
      RO_ROW(6, 28, 9, 20, 7, 3, 5, 45, 8, 61, 5, 6, 7, 8, 9)
      RO_ROW(12, 1, 10, 6, 13, 25, 11, 8, 14, 18, 10, 11, 12, 13, 14)
      RO_ROW(18, 27, 16, 36, 19, 10, 17, 15, 15, 56, 15, 16, 17, 18, 19)
      RO_ROW(24, 62, 22, 55, 20, 39, 23, 41, 21, 2, 20, 21, 22, 23, 24)
      "vpxorq 8(%[constant])%{1to8%}, %%zmm0, %%zmm0\n\t"
      "addq $16, %[constant]\n\t"
      "cmpq %[end], %[constant]\n\t"
      "jb 1b\n\t"
      "vmovdqu64 %%zmm0, 0(%[state])\n\t"
      "vmovdqu64 %%zmm1, 64(%[state])\n\t"
      "vmovdqu64 %%zmm2, 128(%[state])\n\t"
      "vmovdqu64 %%zmm3, 192(%[state])\n\t"
      "vmovdqu64 %%zmm4, 256(%[state])\n\t"
      "vmovdqu64 %%zmm5, 320(%[state])\n\t"
      "vmovdqu64 %%zmm6, 384(%[state])\n\t"
      "vmovdqu64 %%zmm7, 448(%[state])\n\t"
      "vmovdqu64 %%zmm8, 512(%[state])\n\t"
      "vmovdqu64 %%zmm9, 576(%[state])\n\t"
      "vmovdqu64 %%zmm10, 640(%[state])\n\t"
      "vmovdqu64 %%zmm11, 704(%[state])\n\t"
      "vmovdqu64 %%zmm12, 768(%[state])\n\t"
      "vmovdqu64 %%zmm13, 832(%[state])\n\t"
      "vmovdqu64 %%zmm14, 896(%[state])\n\t"
      "vmovdqu64 %%zmm15, 960(%[state])\n\t"
      "vmovdqu64 %%zmm16, 1024(%[state])\n\t"
      "vmovdqu64 %%zmm17, 1088(%[state])\n\t"
      "vmovdqu64 %%zmm18, 1152(%[state])\n\t"
      "vmovdqu64 %%zmm19, 1216(%[state])\n\t"
      "vmovdqu64 %%zmm20, 1280(%[state])\n\t"
      "vmovdqu64 %%zmm21, 1344(%[state])\n\t"
      "vmovdqu64 %%zmm22, 1408(%[state])\n\t"
      "vmovdqu64 %%zmm23, 1472(%[state])\n\t"
      "vmovdqu64 %%zmm24, 1536(%[state])\n\t"
      : [constant] "+r"(constant)
      : [state] "r"(state), [end] "r"(kRoundConstants + 24)
      : "memory", "cc", "zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8", "zmm9", "zmm10",
        "zmm11", "zmm12", "zmm13", "zmm14", "zmm15", "zmm16", "zmm17", "zmm18", "zmm19", "zmm20", "zmm21",
        "zmm22", "zmm23", "zmm24", "zmm25", "zmm26", "zmm27", "zmm28", "zmm29", "zmm30", "zmm31");
}

#undef RO_COLUMN
#undef RO_THETA
#undef RO_CHI
#undef RO_ROW

constexpr Lanes kLanes = {"avx512", Vec8::kWidth, sponge_tiles<Vec8>, sponge_pairs<Vec8>, sponge_states<Vec8>};

}  // namespace

const Lanes* lanes_avx512() { return &kLanes; }

}  // namespace ro::hash

#else
namespace ro::hash {
const Lanes* lanes_avx512() { return nullptr; }
}  // namespace ro::hash
#endif
