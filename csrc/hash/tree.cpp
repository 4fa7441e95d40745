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

int64_t chunks_of(int64_t count, int height = kChunkHeight) {
  return (count >> height) + ((count & ((int64_t{1} << height) - 1)) != 0 ? 1 : 0);
}

int team(int threads, int64_t chunks) { return static_cast<int>(std::clamp<int64_t>(chunks, 1, threads)); }

// Leaves `first` to `first + 2^height` of a tensor, as far as it has them.
struct Chunk {
  const Span* tensor;
  int64_t first;
};

// The node over a chunk, by one thread: at `height`, or at the height of a tensor that is no larger than a chunk.
void chunk_node(const Lanes& lanes, const Chunk& chunk, int height, uint8_t* out) {
  uint8_t nodes[2][kChunk * kHashBytes];
  const int64_t leaves = tile_count(chunk.tensor->bytes);
  int64_t count = std::min(int64_t{1} << height, leaves - chunk.first);
  const int top = std::min(height, height_of(leaves));
  leaves_of(lanes, chunk.tensor->data, chunk.tensor->bytes, chunk.first, count, nodes[0]);
  for (int level = 0; level < top; ++level) {
    const int64_t parents = real_nodes(count, 1);
    parents_of(lanes, nodes[level & 1], count, level, 0, parents, nodes[(level + 1) & 1]);
    count = parents;
  }
  std::memcpy(out, nodes[top & 1], kHashBytes);
}

// `count` nodes of `level` become their root, which takes the first one's place.
void fold_to_root(const Lanes& lanes, uint8_t* nodes, int64_t count, int level, int threads) {
  std::vector<uint8_t> above(static_cast<size_t>(real_nodes(count, 1) * kHashBytes));
  for (; count > 1; ++level) {
    parent_level(lanes, nodes, count, level, threads, above.data());
    count = real_nodes(count, 1);
    std::memcpy(nodes, above.data(), static_cast<size_t>(count * kHashBytes));
  }
}

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

void tensor_roots(const Lanes& lanes, const Span* tensors, int64_t count, int threads, uint8_t* out) {
  int64_t all = 0;
  for (int64_t t = 0; t < count; ++t) all += tile_count(tensors[t].bytes);
  // Few chunks are shared out unevenly: 2,304 leaves are five of 2^9, of which one of two threads gets three.
  const int height = threads > 1 && all < 64 * kChunk ? kChunkHeight - 2 : kChunkHeight;
  std::vector<Chunk> chunks;
  std::vector<int64_t> ends;
  for (int64_t t = 0; t < count; ++t) {
    const int64_t parts = chunks_of(tile_count(tensors[t].bytes), height);
    for (int64_t part = 0; part < parts; ++part) chunks.push_back({&tensors[t], part << height});
    ends.push_back(static_cast<int64_t>(chunks.size()));
  }
  const auto jobs = static_cast<int64_t>(chunks.size());
  std::vector<uint8_t> nodes(static_cast<size_t>(jobs * kHashBytes));
#pragma omp parallel for schedule(dynamic) num_threads(team(threads, jobs)) if (jobs > 1)
  for (int64_t i = 0; i < jobs; ++i) chunk_node(lanes, chunks[static_cast<size_t>(i)], height, &nodes[i * kHashBytes]);
  for (int64_t t = 0; t < count; ++t) {
    const int64_t first = t == 0 ? 0 : ends[static_cast<size_t>(t - 1)], parts = ends[static_cast<size_t>(t)] - first;
    uint8_t* root = out + t * kHashBytes;
    if (parts == 0) {
      std::memset(root, 0, kHashBytes);
    } else {
      fold_to_root(lanes, &nodes[first * kHashBytes], parts, height, threads);
      std::memcpy(root, &nodes[first * kHashBytes], kHashBytes);
    }
  }
}

}  // namespace ro::hash
