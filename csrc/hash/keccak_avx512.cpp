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

// The permutation with all 32 registers allotted by hand: from the text in permute.h GCC 12 spills thirty words a round.
// A round works in place: word (y, 2x + 3y) goes where word (x, y) was, so after 24 rounds every word is home again, and
// each round names the registers in another order. Two copies a row are all that chi then wants. Words of a row get
// their theta just before they are needed, one row ahead of chi: with all of theta first the scheduler is full of
// operations that wait, and a permutation takes 940 cycles instead of 760 (Zen 5). Registers 25 to 31: parities of the
// columns, then what theta adds to them (30, 28, 31, 25, 26) and the copies (27, 29).
#define RO_PARITY(c, a0, a1, a2, a3, a4)                                  \
  "vpxorq %%zmm" #a0 ", %%zmm" #a1 ", %%zmm" #c "\n\t"                    \
  "vpternlogq $0x96, %%zmm" #a2 ", %%zmm" #a3 ", %%zmm" #c "\n\t"         \
  "vpxorq %%zmm" #a4 ", %%zmm" #c ", %%zmm" #c "\n\t"
#define RO_THETA(d, right, left)                         \
  "vprolq $1, %%zmm" #right ", %%zmm" #d "\n\t"          \
  "vpxorq %%zmm" #left ", %%zmm" #d ", %%zmm" #d "\n\t"
#define RO_RHO(d, r, a)                               \
  "vpxorq %%zmm" #d ", %%zmm" #a ", %%zmm" #a "\n\t"  \
  "vprolq $" #r ", %%zmm" #a ", %%zmm" #a "\n\t"
#define RO_CHI(b0, b1, b2) "vpternlogq $0xd2, %%zmm" #b2 ", %%zmm" #b1 ", %%zmm" #b0 "\n\t"
#define RO_ROW(b0, b1, b2, b3, b4)          \
  "vmovdqa64 %%zmm" #b0 ", %%zmm27\n\t"     \
  "vmovdqa64 %%zmm" #b1 ", %%zmm29\n\t"     \
  RO_CHI(b0, b1, b2) RO_CHI(b1, b2, b3) RO_CHI(b2, b3, b4) RO_CHI(b3, b4, 27) RO_CHI(b4, 27, 29)
// axy: the register of word (x, y), 5y + x in the text of Keccak.
#define RO_ROUND(n, a00, a10, a20, a30, a40, a01, a11, a21, a31, a41, a02, a12, a22, a32, a42, a03, a13, a23, a33, a43, a04, a14, a24, a34, a44) \
  RO_PARITY(25, a00, a01, a02, a03, a04)                                                                                                         \
  RO_PARITY(26, a10, a11, a12, a13, a14)                                                                                                         \
  RO_PARITY(27, a20, a21, a22, a23, a24)                                                                                                         \
  RO_PARITY(28, a30, a31, a32, a33, a34)                                                                                                         \
  RO_PARITY(29, a40, a41, a42, a43, a44)                                                                                                         \
  RO_THETA(30, 26, 29) RO_THETA(31, 28, 26) RO_THETA(26, 25, 28) RO_THETA(28, 27, 25) RO_THETA(25, 29, 27)                                       \
  "vpxorq %%zmm30, %%zmm" #a00 ", %%zmm" #a00 "\n\t"                                                                                             \
  RO_RHO(28, 44, a11) RO_RHO(31, 43, a22) RO_RHO(25, 21, a33) RO_RHO(26, 14, a44)                                                                \
  RO_RHO(25, 28, a30) RO_RHO(26, 20, a41) RO_RHO(30, 3, a02) RO_RHO(28, 45, a13) RO_RHO(31, 61, a24)                                             \
  RO_ROW(a00, a11, a22, a33, a44)                                                                                                                \
  "vpxorq 8*" #n "(%[constant])%{1to8%}, %%zmm" #a00 ", %%zmm" #a00 "\n\t"                                                                       \
  RO_RHO(28, 1, a10) RO_RHO(31, 6, a21) RO_RHO(25, 25, a32) RO_RHO(26, 8, a43) RO_RHO(30, 18, a04)                                               \
  RO_ROW(a30, a41, a02, a13, a24)                                                                                                                \
  RO_RHO(26, 27, a40) RO_RHO(30, 36, a01) RO_RHO(28, 10, a12) RO_RHO(31, 15, a23) RO_RHO(25, 56, a34)                                            \
  RO_ROW(a10, a21, a32, a43, a04)                                                                                                                \
  RO_RHO(31, 62, a20) RO_RHO(25, 55, a31) RO_RHO(26, 39, a42) RO_RHO(30, 41, a03) RO_RHO(28, 2, a14)                                             \
  RO_ROW(a40, a01, a12, a23, a34) RO_ROW(a20, a31, a42, a03, a14)
#define RO_LOAD(n) "vmovdqu64 64*" #n "(%[state]), %%zmm" #n "\n\t"
#define RO_STORE(n) "vmovdqu64 %%zmm" #n ", 64*" #n "(%[state])\n\t"
#define RO_WORDS(op)                                                                                     \
  op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11) op(12) op(13) op(14) op(15) \
  op(16) op(17) op(18) op(19) op(20) op(21) op(22) op(23) op(24)

template <>
__attribute__((noinline)) void permute<Vec8>(Vec8* state) {
  asm volatile(
      RO_WORDS(RO_LOAD)
      RO_ROUND(0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24)
      RO_ROUND(1, 0, 6, 12, 18, 24, 3, 9, 10, 16, 22, 1, 7, 13, 19, 20, 4, 5, 11, 17, 23, 2, 8, 14, 15, 21)
      RO_ROUND(2, 0, 9, 13, 17, 21, 18, 22, 1, 5, 14, 6, 10, 19, 23, 2, 24, 3, 7, 11, 15, 12, 16, 20, 4, 8)
      RO_ROUND(3, 0, 22, 19, 11, 8, 17, 14, 6, 3, 20, 9, 1, 23, 15, 12, 21, 18, 10, 7, 4, 13, 5, 2, 24, 16)
      RO_ROUND(4, 0, 14, 23, 7, 16, 11, 20, 9, 18, 2, 22, 6, 15, 4, 13, 8, 17, 1, 10, 24, 19, 3, 12, 21, 5)
      RO_ROUND(5, 0, 20, 15, 10, 5, 7, 2, 22, 17, 12, 14, 9, 4, 24, 19, 16, 11, 6, 1, 21, 23, 18, 13, 8, 3)
      RO_ROUND(6, 0, 2, 4, 1, 3, 10, 12, 14, 11, 13, 20, 22, 24, 21, 23, 5, 7, 9, 6, 8, 15, 17, 19, 16, 18)
      RO_ROUND(7, 0, 12, 24, 6, 18, 1, 13, 20, 7, 19, 2, 14, 21, 8, 15, 3, 10, 22, 9, 16, 4, 11, 23, 5, 17)
      RO_ROUND(8, 0, 13, 21, 9, 17, 6, 19, 2, 10, 23, 12, 20, 8, 16, 4, 18, 1, 14, 22, 5, 24, 7, 15, 3, 11)
      RO_ROUND(9, 0, 19, 8, 22, 11, 9, 23, 12, 1, 15, 13, 2, 16, 5, 24, 17, 6, 20, 14, 3, 21, 10, 4, 18, 7)
      RO_ROUND(10, 0, 23, 16, 14, 7, 22, 15, 13, 6, 4, 19, 12, 5, 3, 21, 11, 9, 2, 20, 18, 8, 1, 24, 17, 10)
      RO_ROUND(11, 0, 15, 5, 20, 10, 14, 4, 19, 9, 24, 23, 13, 3, 18, 8, 7, 22, 12, 2, 17, 16, 6, 21, 11, 1)
      RO_ROUND(12, 0, 4, 3, 2, 1, 20, 24, 23, 22, 21, 15, 19, 18, 17, 16, 10, 14, 13, 12, 11, 5, 9, 8, 7, 6)
      RO_ROUND(13, 0, 24, 18, 12, 6, 2, 21, 15, 14, 8, 4, 23, 17, 11, 5, 1, 20, 19, 13, 7, 3, 22, 16, 10, 9)
      RO_ROUND(14, 0, 21, 17, 13, 9, 12, 8, 4, 20, 16, 24, 15, 11, 7, 3, 6, 2, 23, 19, 10, 18, 14, 5, 1, 22)
      RO_ROUND(15, 0, 8, 11, 19, 22, 13, 16, 24, 2, 5, 21, 4, 7, 10, 18, 9, 12, 15, 23, 1, 17, 20, 3, 6, 14)
      RO_ROUND(16, 0, 16, 7, 23, 14, 19, 5, 21, 12, 3, 8, 24, 10, 1, 17, 22, 13, 4, 15, 6, 11, 2, 18, 9, 20)
      RO_ROUND(17, 0, 5, 10, 15, 20, 23, 3, 8, 13, 18, 16, 21, 1, 6, 11, 14, 19, 24, 4, 9, 7, 12, 17, 22, 2)
      RO_ROUND(18, 0, 3, 1, 4, 2, 15, 18, 16, 19, 17, 5, 8, 6, 9, 7, 20, 23, 21, 24, 22, 10, 13, 11, 14, 12)
      RO_ROUND(19, 0, 18, 6, 24, 12, 4, 17, 5, 23, 11, 3, 16, 9, 22, 10, 2, 15, 8, 21, 14, 1, 19, 7, 20, 13)
      RO_ROUND(20, 0, 17, 9, 21, 13, 24, 11, 3, 15, 7, 18, 5, 22, 14, 1, 12, 4, 16, 8, 20, 6, 23, 10, 2, 19)
      RO_ROUND(21, 0, 11, 22, 8, 19, 21, 7, 18, 4, 10, 17, 3, 14, 20, 6, 13, 24, 5, 16, 2, 9, 15, 1, 12, 23)
      RO_ROUND(22, 0, 7, 14, 16, 23, 8, 10, 17, 24, 1, 11, 18, 20, 2, 9, 19, 21, 3, 5, 12, 22, 4, 6, 13, 15)
      RO_ROUND(23, 0, 10, 20, 5, 15, 16, 1, 11, 21, 6, 7, 17, 2, 12, 22, 23, 8, 18, 3, 13, 14, 24, 9, 19, 4)
      RO_WORDS(RO_STORE)
      :
      : [state] "r"(state), [constant] "r"(kRoundConstants)
      : "memory", "cc", "zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8", "zmm9", "zmm10",
        "zmm11", "zmm12", "zmm13", "zmm14", "zmm15", "zmm16", "zmm17", "zmm18", "zmm19", "zmm20", "zmm21",
        "zmm22", "zmm23", "zmm24", "zmm25", "zmm26", "zmm27", "zmm28", "zmm29", "zmm30", "zmm31");
}

#undef RO_PARITY
#undef RO_THETA
#undef RO_RHO
#undef RO_CHI
#undef RO_ROW
#undef RO_ROUND
#undef RO_LOAD
#undef RO_STORE
#undef RO_WORDS

constexpr Lanes kLanes = {"avx512", Vec8::kWidth, sponge_tiles<Vec8>, sponge_pairs<Vec8>, sponge_states<Vec8>};

}  // namespace

const Lanes* lanes_avx512() { return &kLanes; }

}  // namespace ro::hash

#else
namespace ro::hash {
const Lanes* lanes_avx512() { return nullptr; }
}  // namespace ro::hash
#endif
