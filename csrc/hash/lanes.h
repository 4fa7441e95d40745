// What one instruction set offers: keccak-256 of several equally long messages at once.
#pragma once
#include <cstdint>

namespace ro::hash {

constexpr int64_t kTileBytes = 1024;
constexpr int64_t kHashBytes = 32;
constexpr int64_t kPairBytes = 2 * kHashBytes;
constexpr int64_t kStateBytes = 512;  // of RepVM
constexpr int kMaxLanes = 8;

struct Lanes {
  const char* name;  // "scalar", "avx2", "avx512", "neon"
  int width;         // messages a call hashes, at most kMaxLanes
  // in: `width` pointers (any alignment, may repeat) to kTileBytes, kPairBytes or kStateBytes each; out: width * kHashBytes.
  void (*tiles)(const uint8_t* const* in, uint8_t* out);
  void (*pairs)(const uint8_t* const* in, uint8_t* out);
  void (*states)(const uint8_t* const* in, uint8_t* out);
};

// Null where the compiler's target has no such instruction set; says nothing of the machine that runs.
const Lanes* lanes_scalar();
const Lanes* lanes_avx2();
const Lanes* lanes_avx512();
const Lanes* lanes_neon();

}  // namespace ro::hash
