// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3"): four random words for a counter and a key.
// What the words of the operator `philox` are made of is in docs/spec/operators.md, "Random numbers".
//
// Include after prim.h, registry.h, parallel.h and simd.h.
#pragma once
#include <cstdint>

namespace ro {
namespace RO_ISA {

struct PhiloxKey {
  uint32_t node, step0, step1, key0, key1;
  RO_MEMBER explicit PhiloxKey(const Call& call) {
    const uint64_t seed = (uint64_t)load_i64(call.in[0].data, 0), step = (uint64_t)load_i64(call.in[1].data, 0);
    node = (uint32_t)call.params[0];
    step0 = (uint32_t)step;
    step1 = (uint32_t)(step >> 32);
    key0 = (uint32_t)seed;
    key1 = (uint32_t)(seed >> 32);
  }
};

constexpr uint32_t kPhiloxMul0 = 0xD2511F53u, kPhiloxMul1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxAdd0 = 0x9E3779B9u, kPhiloxAdd1 = 0xBB67AE85u;

// The words of blocks first .. first + N - 1: w[i][b] is word i of block first + b. Written so that compilers vectorise over b.
template <int N>
RO_HD static inline void philox_blocks(const PhiloxKey& k, uint64_t first, uint32_t (&w)[4][N]) {
  for (int b = 0; b < N; ++b) {
    const uint64_t block = first + (uint64_t)b;
    w[0][b] = (uint32_t)block;
    w[1][b] = (uint32_t)(block >> 32) | k.node << 8;
    w[2][b] = k.step0;
    w[3][b] = k.step1;
  }
  uint32_t key0 = k.key0, key1 = k.key1;
  for (int round = 0; round < 10; ++round) {
    for (int b = 0; b < N; ++b) {
      const uint64_t p0 = (uint64_t)kPhiloxMul0 * w[0][b], p1 = (uint64_t)kPhiloxMul1 * w[2][b];
      w[0][b] = (uint32_t)(p1 >> 32) ^ w[1][b] ^ key0;
      w[2][b] = (uint32_t)(p0 >> 32) ^ w[3][b] ^ key1;
      w[1][b] = (uint32_t)p1;
      w[3][b] = (uint32_t)p0;
    }
    key0 += kPhiloxAdd0;
    key1 += kPhiloxAdd1;
  }
}

// The upper 24 bits of a word as a number in [0, 1): exact.
RO_PRIM float philox_uniform(uint32_t word) { return mul_rn((float)(int32_t)(word >> 8), 0x1p-24f); }

}  // namespace RO_ISA
}  // namespace ro
