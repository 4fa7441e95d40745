// Trees of docs/spec/commitments.md. Only nodes over real leaves are kept: the nodes over missing leaves of one level
// all have one value, zero_root(level).
#pragma once
#include <cstdint>

#include "hash/keccak.h"

namespace ro::hash {

constexpr int kMaxHeight = 64;

// ceil(log2(max(count, 1)))
int height_of(int64_t count);
// Real nodes at a level: ceil(count / 2^level).
int64_t real_nodes(int64_t count, int level);
// Z_k, the root of a tree of height `level` (0 to kMaxHeight) without leaves.
const uint8_t* zero_root(int level);

// Leaves of a tensor: ceil(bytes / kTileBytes) hashes of its tiles, the last one padded with zero bytes.
int64_t tile_count(int64_t bytes);
void tile_leaves(const Lanes& lanes, const uint8_t* data, int64_t bytes, int threads, uint8_t* out);

// One level up: `count` real nodes of `level` to real_nodes(count, 1) nodes of level + 1.
void parent_level(const Lanes& lanes, const uint8_t* nodes, int64_t count, int level, int threads, uint8_t* out);

struct Span {
  const uint8_t* data;
  int64_t bytes;
};

// The roots of `count` tensors, kHashBytes each; ZERO for one without bytes. Threads share out the chunks of all of
// them, so small tensors keep them busy, too. Needs memory for one hash per 128 or 512 KiB only.
void tensor_roots(const Lanes& lanes, const Span* tensors, int64_t count, int threads, uint8_t* out);
inline void tensor_root(const Lanes& lanes, const uint8_t* data, int64_t bytes, int threads, uint8_t* out) {
  const Span tensor{data, bytes};
  tensor_roots(lanes, &tensor, 1, threads, out);
}

}  // namespace ro::hash
