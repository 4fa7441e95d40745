// Keccak-f[1600] (FIPS 202) and the sponge over it for tiles and pairs, as templates over a vector type. Every
// instruction set's translation unit includes this text; all of it has internal linkage, so that no code compiled with
// wider instructions can be picked by the linker for a narrower machine.
//
// A vector type V holds one 64-bit word of each of `V::kWidth` independent states and offers
//   xor2, xor3, chi(a, b, c) = a ^ (~b & c), rotl<n>, broadcast(word),
//   load(in, offset): word at byte `offset` of each message, load8(in, offset, w): eight consecutive words of each,
//   store4(state, out): the first four words of each state, one message after the other.
#pragma once
#include <cstdint>

#include "hash/lanes.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensors and Keccak words are little-endian");

namespace ro::hash {
namespace {

#define RO_INLINE inline __attribute__((always_inline))

alignas(64) constexpr uint64_t kRoundConstants[24] = {
    0x0000000000000001, 0x0000000000008082, 0x800000000000808a, 0x8000000080008000, 0x000000000000808b,
    0x0000000080000001, 0x8000000080008081, 0x8000000000008009, 0x000000000000008a, 0x0000000000000088,
    0x0000000080008009, 0x000000008000000a, 0x000000008000808b, 0x800000000000008b, 0x8000000000008089,
    0x8000000000008003, 0x8000000000008002, 0x8000000000000080, 0x000000000000800a, 0x800000008000000a,
    0x8000000080008081, 0x8000000000008080, 0x0000000080000001, 0x8000000080008008};

constexpr int kRateWords = 17;  // 136 bytes
constexpr int kRateBytes = 8 * kRateWords;
constexpr uint64_t kPadFirst = 0x01;             // the padding of Ethereum's keccak-256, not SHA-3's 0x06
constexpr uint64_t kPadLast = uint64_t{1} << 63;  // the last bit of the rate

// One round from `a` to `e`. Word (x, y) is at x + 5 * y. Each output row takes one word of every input row, rotated
// (rho, pi), so only the five column parities and one row are alive beside the state. Words: V*, or what is indexed like it.
template <class V, class Words>
RO_INLINE void round(Words a, Words e, uint64_t constant) {
  const V c0 = V::xor3(V::xor3(a[0], a[5], a[10]), a[15], a[20]);
  const V c1 = V::xor3(V::xor3(a[1], a[6], a[11]), a[16], a[21]);
  const V c2 = V::xor3(V::xor3(a[2], a[7], a[12]), a[17], a[22]);
  const V c3 = V::xor3(V::xor3(a[3], a[8], a[13]), a[18], a[23]);
  const V c4 = V::xor3(V::xor3(a[4], a[9], a[14]), a[19], a[24]);
  const V d0 = V::xor2(c4, V::template rotl<1>(c1));
  const V d1 = V::xor2(c0, V::template rotl<1>(c2));
  const V d2 = V::xor2(c1, V::template rotl<1>(c3));
  const V d3 = V::xor2(c2, V::template rotl<1>(c4));
  const V d4 = V::xor2(c3, V::template rotl<1>(c0));
  {
    const V b0 = V::xor2(a[0], d0);
    const V b1 = V::template rotl<44>(V::xor2(a[6], d1));
    const V b2 = V::template rotl<43>(V::xor2(a[12], d2));
    const V b3 = V::template rotl<21>(V::xor2(a[18], d3));
    const V b4 = V::template rotl<14>(V::xor2(a[24], d4));
    e[0] = V::xor2(V::chi(b0, b1, b2), V::broadcast(constant));
    e[1] = V::chi(b1, b2, b3);
    e[2] = V::chi(b2, b3, b4);
    e[3] = V::chi(b3, b4, b0);
    e[4] = V::chi(b4, b0, b1);
  }
  {
    const V b0 = V::template rotl<28>(V::xor2(a[3], d3));
    const V b1 = V::template rotl<20>(V::xor2(a[9], d4));
    const V b2 = V::template rotl<3>(V::xor2(a[10], d0));
    const V b3 = V::template rotl<45>(V::xor2(a[16], d1));
    const V b4 = V::template rotl<61>(V::xor2(a[22], d2));
    e[5] = V::chi(b0, b1, b2);
    e[6] = V::chi(b1, b2, b3);
    e[7] = V::chi(b2, b3, b4);
    e[8] = V::chi(b3, b4, b0);
    e[9] = V::chi(b4, b0, b1);
  }
  {
    const V b0 = V::template rotl<1>(V::xor2(a[1], d1));
    const V b1 = V::template rotl<6>(V::xor2(a[7], d2));
    const V b2 = V::template rotl<25>(V::xor2(a[13], d3));
    const V b3 = V::template rotl<8>(V::xor2(a[19], d4));
    const V b4 = V::template rotl<18>(V::xor2(a[20], d0));
    e[10] = V::chi(b0, b1, b2);
    e[11] = V::chi(b1, b2, b3);
    e[12] = V::chi(b2, b3, b4);
    e[13] = V::chi(b3, b4, b0);
    e[14] = V::chi(b4, b0, b1);
  }
  {
    const V b0 = V::template rotl<27>(V::xor2(a[4], d4));
    const V b1 = V::template rotl<36>(V::xor2(a[5], d0));
    const V b2 = V::template rotl<10>(V::xor2(a[11], d1));
    const V b3 = V::template rotl<15>(V::xor2(a[17], d2));
    const V b4 = V::template rotl<56>(V::xor2(a[23], d3));
    e[15] = V::chi(b0, b1, b2);
    e[16] = V::chi(b1, b2, b3);
    e[17] = V::chi(b2, b3, b4);
    e[18] = V::chi(b3, b4, b0);
    e[19] = V::chi(b4, b0, b1);
  }
  {
    const V b0 = V::template rotl<62>(V::xor2(a[2], d2));
    const V b1 = V::template rotl<55>(V::xor2(a[8], d3));
    const V b2 = V::template rotl<39>(V::xor2(a[14], d4));
    const V b3 = V::template rotl<41>(V::xor2(a[15], d0));
    const V b4 = V::template rotl<2>(V::xor2(a[21], d1));
    e[20] = V::chi(b0, b1, b2);
    e[21] = V::chi(b1, b2, b3);
    e[22] = V::chi(b2, b3, b4);
    e[23] = V::chi(b3, b4, b0);
    e[24] = V::chi(b4, b0, b1);
  }
}

template <class V>
__attribute__((noinline)) void permute(V* state) {
  V a[25], e[25];
  for (int i = 0; i < 25; ++i) a[i] = state[i];
  for (int r = 0; r < 24; r += 2) {
    round<V>(a, e, kRoundConstants[r]);
    round<V>(e, a, kRoundConstants[r + 1]);
  }
  for (int i = 0; i < 25; ++i) state[i] = a[i];
}

// The same place of the tiles that most likely come next; a prefetch beyond the tensor is void.
template <class V>
RO_INLINE void prefetch_next(const uint8_t* const* in, int64_t base) {
  for (int lane = 0; lane < V::kWidth; ++lane) {
    __builtin_prefetch(in[lane] + V::kWidth * kTileBytes + base);
    __builtin_prefetch(in[lane] + V::kWidth * kTileBytes + base + 64);
  }
}

// 1,024 bytes: seven full blocks, then nine words and the padding.
template <class V>
void sponge_tiles(const uint8_t* const* in, uint8_t* out) {
  constexpr int kFullBlocks = kTileBytes / kRateBytes;
  static_assert(kTileBytes - kFullBlocks * kRateBytes == 9 * 8, "a tile ends with nine words");
  V state[25];
  V words[8];
  for (int i = 0; i < 25; ++i) state[i] = V::broadcast(0);
  for (int block = 0; block < kFullBlocks; ++block) {
    const int64_t base = int64_t{block} * kRateBytes;
    prefetch_next<V>(in, base);
    V::load8(in, base, words);
    for (int i = 0; i < 8; ++i) state[i] = V::xor2(state[i], words[i]);
    V::load8(in, base + 64, words);
    for (int i = 0; i < 8; ++i) state[8 + i] = V::xor2(state[8 + i], words[i]);
    state[16] = V::xor2(state[16], V::load(in, base + 128));
    permute(state);
  }
  constexpr int64_t kTail = int64_t{kFullBlocks} * kRateBytes;
  prefetch_next<V>(in, kTail);
  V::load8(in, kTail, words);
  for (int i = 0; i < 8; ++i) state[i] = V::xor2(state[i], words[i]);
  state[8] = V::xor2(state[8], V::load(in, kTail + 64));
  state[9] = V::xor2(state[9], V::broadcast(kPadFirst));
  state[16] = V::xor2(state[16], V::broadcast(kPadLast));
  permute(state);
  V::store4(state, out);
}

// 512 bytes: three full blocks, then thirteen words and the padding.
template <class V>
void sponge_states(const uint8_t* const* in, uint8_t* out) {
  constexpr int kFullBlocks = kStateBytes / kRateBytes, kTailWords = (kStateBytes - kFullBlocks * kRateBytes) / 8;
  V state[25];
  for (int i = 0; i < 25; ++i) state[i] = V::broadcast(0);
  for (int block = 0; block < kFullBlocks; ++block) {
    for (int i = 0; i < kRateWords; ++i) state[i] = V::xor2(state[i], V::load(in, int64_t{block} * kRateBytes + 8 * i));
    permute(state);
  }
  for (int i = 0; i < kTailWords; ++i)
    state[i] = V::xor2(state[i], V::load(in, int64_t{kFullBlocks} * kRateBytes + 8 * i));
  state[kTailWords] = V::xor2(state[kTailWords], V::broadcast(kPadFirst));
  state[16] = V::xor2(state[16], V::broadcast(kPadLast));
  permute(state);
  V::store4(state, out);
}

// 64 bytes: one block.
template <class V>
void sponge_pairs(const uint8_t* const* in, uint8_t* out) {
  V state[25];
  V::load8(in, 0, state);
  for (int i = 8; i < 25; ++i) state[i] = V::broadcast(0);
  state[8] = V::broadcast(kPadFirst);
  state[16] = V::broadcast(kPadLast);
  permute(state);
  V::store4(state, out);
}

}  // namespace
}  // namespace ro::hash
