// keccak-256 as Ethereum defines it (Keccak[c = 512] with the padding byte 0x01), and the choice of an instruction set.
#pragma once
#include <cstdint>
#include <vector>

#include "hash/lanes.h"

namespace ro::hash {

// One message of any length; out: kHashBytes.
void keccak256(const uint8_t* data, int64_t bytes, uint8_t* out);

// What this machine can run, best first; never empty, the last is scalar.
const std::vector<const Lanes*>& available();

// By name; null or "" is the best. Returns null if this machine does not have it.
const Lanes* find_lanes(const char* name);

// `count` consecutive tiles (pairs of hashes, RepVM states) to `count` hashes. `out` may not overlap `in`.
void hash_tiles(const Lanes& lanes, const uint8_t* in, int64_t count, uint8_t* out);
void hash_pairs(const Lanes& lanes, const uint8_t* in, int64_t count, uint8_t* out);
void hash_states(const Lanes& lanes, const uint8_t* in, int64_t count, uint8_t* out);

}  // namespace ro::hash
