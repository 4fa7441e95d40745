#include "hash/tree.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

namespace ro::hash {
namespace {

// Work of one thread at a time: 2^9 leaves stay in the first cache while they are folded to one node.
constexpr int kChunkHeight = 9;
constexpr int64_t kChunk = int64_t{1} << kChunkHeight;

using ZeroTable = std::array<std::array<uint8_t, kHashBytes>, kMaxHeight + 1>;

ZeroTable make_zero_table() {
  ZeroTable table{};
  for (int level = 0; level < kMaxHeight; ++level) {
    uint8_t pair[kPairBytes];
    std::memcpy(pair, table[level].data(), kHashBytes);
    std::memcpy(pair + kHashBytes, table[level].data(), kHashBytes);
    keccak256(pair, kPairBytes, table[level + 1].data());
  }
  return table;
}

// Leaves `first` to `first + count` of a tensor, by one thread.
void leaves_of(const Lanes& lanes, const uint8_t* data, int64_t bytes, int64_t first, int64_t count, uint8_t* out) {
  const int64_t whole = std::min(first + count, bytes / kTileBytes) - first;
  if (whole > 0) hash_tiles(lanes, data + first * kTileBytes, whole, out);
  if (whole == count) return;
  uint8_t tile[kTileBytes] = {};
  const int64_t begin = (first + whole) * kTileBytes;
  std::memcpy(tile, data + begin, static_cast<size_t>(bytes - begin));
  hash_tiles(lanes, tile, 1, out + whole * kHashBytes);
}

// Parents `first` to `first + count` of `nodes`, by one thread; the last one may lack its right child.
void parents_of(const Lanes& lanes, const uint8_t* nodes, int64_t node_count, int level, int64_t first, int64_t count,
                uint8_t* out) {
  const int64_t whole = std::min(first + count, node_count / 2) - first;
  if (whole > 0) hash_pairs(lanes, nodes + first * kPairBytes, whole, out);
  if (whole == count) return;
  uint8_t pair[kPairBytes];
  std::memcpy(pair, nodes + (node_count - 1) * kHashBytes, kHashBytes);
  std::memcpy(pair + kHashBytes, zero_root(level), kHashBytes);
  hash_pairs(lanes, pair, 1, out + whole * kHashBytes);
}

int64_t chunks_of(int64_t count) { return (count + kChunk - 1) / kChunk; }

int team(int threads, int64_t chunks) { return static_cast<int>(std::clamp<int64_t>(chunks, 1, threads)); }

}  // namespace

int height_of(int64_t count) {
  int height = 0;
  while (height < 62 && (int64_t{1} << height) < count) ++height;
  return height;
}

int64_t real_nodes(int64_t count, int level) {
  if (level >= 63) return count > 0 ? 1 : 0;
  return (count >> level) + ((count & ((int64_t{1} << level) - 1)) != 0 ? 1 : 0);
}

const uint8_t* zero_root(int level) {
  static const ZeroTable table = make_zero_table();
  return table[static_cast<size_t>(level)].data();
}

int64_t tile_count(int64_t bytes) { return bytes / kTileBytes + (bytes % kTileBytes != 0 ? 1 : 0); }

void tile_leaves(const Lanes& lanes, const uint8_t* data, int64_t bytes, int threads, uint8_t* out) {
  const int64_t count = tile_count(bytes), chunks = chunks_of(count);
#pragma omp parallel for schedule(dynamic) num_threads(team(threads, chunks)) if (chunks > 1)
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const int64_t first = chunk * kChunk;
    leaves_of(lanes, data, bytes, first, std::min(kChunk, count - first), out + first * kHashBytes);
  }
}

void parent_level(const Lanes& lanes, const uint8_t* nodes, int64_t count, int level, int threads, uint8_t* out) {
  const int64_t parents = real_nodes(count, 1), chunks = chunks_of(parents);
#pragma omp parallel for schedule(dynamic) num_threads(team(threads, chunks)) if (chunks > 1)
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const int64_t first = chunk * kChunk;
    parents_of(lanes, nodes, count, level, first, std::min(kChunk, parents - first), out + first * kHashBytes);
  }
}

void tensor_root(const Lanes& lanes, const uint8_t* data, int64_t bytes, int threads, uint8_t* out) {
  const int64_t leaves = tile_count(bytes), chunks = chunks_of(leaves);
  if (leaves == 0) {
    std::memset(out, 0, kHashBytes);
    return;
  }
  const int chunk_height = chunks > 1 ? kChunkHeight : height_of(leaves);
  std::vector<uint8_t> nodes(static_cast<size_t>(chunks * kHashBytes));
#pragma omp parallel for schedule(dynamic) num_threads(team(threads, chunks)) if (chunks > 1)
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    uint8_t level_nodes[2][kChunk * kHashBytes];
    const int64_t first = chunk * kChunk;
    int64_t count = std::min(kChunk, leaves - first);
    leaves_of(lanes, data, bytes, first, count, level_nodes[0]);
    for (int level = 0; level < chunk_height; ++level) {
      const int64_t parents = real_nodes(count, 1);
      parents_of(lanes, level_nodes[level & 1], count, level, 0, parents, level_nodes[(level + 1) & 1]);
      count = parents;
    }
    std::memcpy(nodes.data() + chunk * kHashBytes, level_nodes[chunk_height & 1], kHashBytes);
  }
  std::vector<uint8_t> above(static_cast<size_t>(real_nodes(chunks, 1) * kHashBytes));
  int64_t count = chunks;
  for (int level = chunk_height; count > 1; ++level) {
    parent_level(lanes, nodes.data(), count, level, threads, above.data());
    nodes.swap(above);
    count = real_nodes(count, 1);
  }
  std::memcpy(out, nodes.data(), kHashBytes);
}

}  // namespace ro::hash
