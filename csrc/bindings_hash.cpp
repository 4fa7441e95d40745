// Python's view of csrc/hash. Plain arrays and ValueErrors; repops/commit.py is the front for people.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "hash/tree.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

namespace hash = ro::hash;

using Buffer = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
using Hashes = nb::ndarray<nb::ro, const uint8_t, nb::shape<-1, 32>, nb::c_contig, nb::device::cpu>;
using HashArray = nb::ndarray<nb::numpy, uint8_t, nb::shape<-1, 32>, nb::c_contig>;
using ByteView = nb::ndarray<nb::numpy, const uint8_t, nb::ndim<1>, nb::c_contig>;

const hash::Lanes& lanes_named(const std::optional<std::string>& isa) {
  const hash::Lanes* lanes = hash::find_lanes(isa ? isa->c_str() : nullptr);
  if (lanes == nullptr)
    throw nb::value_error(("this machine hashes without '" + *isa + "'; see hash_isas()").c_str());
  return *lanes;
}

void check_threads(int threads) {
  if (threads < 1) throw nb::value_error("threads must be at least 1");
}

int64_t bytes_of(const Buffer& buffer) {
  if (buffer.dtype().lanes != 1 || buffer.dtype().bits % 8 != 0)
    throw nb::value_error("elements must be whole bytes");
  return static_cast<int64_t>(buffer.size() * (buffer.dtype().bits / 8u));
}

const uint8_t* data_of(const Buffer& buffer) { return static_cast<const uint8_t*>(buffer.data()); }

using Level = std::unique_ptr<std::vector<uint8_t>>;

Level make_level(int64_t nodes) { return std::make_unique<std::vector<uint8_t>>(nodes * hash::kHashBytes); }

HashArray to_array(Level level) {
  std::vector<uint8_t>* owned = level.release();
  nb::capsule owner(owned, [](void* p) noexcept { delete static_cast<std::vector<uint8_t>*>(p); });
  return HashArray(owned->data(), {owned->size() / hash::kHashBytes, static_cast<size_t>(hash::kHashBytes)}, owner);
}

nb::list to_list(std::vector<Level> levels) {
  nb::list arrays;
  for (Level& level : levels) arrays.append(nb::cast(to_array(std::move(level))));
  return arrays;
}

// All levels above `leaves`, which is level 0.
void add_parents(const hash::Lanes& lanes, std::vector<Level>& levels, const uint8_t* leaves, int64_t count, int height,
                 int threads) {
  const uint8_t* below = leaves;
  for (int level = 0; level < height; ++level) {
    const int64_t parents = hash::real_nodes(count, 1);
    levels.push_back(make_level(parents));
    hash::parent_level(lanes, below, count, level, threads, levels.back()->data());
    below = levels.back()->data();
    count = parents;
  }
}

nb::bytes to_bytes(const uint8_t* hash) { return nb::bytes(reinterpret_cast<const char*>(hash), hash::kHashBytes); }

nb::bytes keccak256(const Buffer& data) {
  uint8_t out[hash::kHashBytes];
  hash::keccak256(data_of(data), bytes_of(data), out);
  return to_bytes(out);
}

nb::list tensor_roots(const std::vector<Buffer>& buffers, int threads, const std::optional<std::string>& isa) {
  const hash::Lanes& lanes = lanes_named(isa);
  check_threads(threads);
  std::vector<hash::Span> tensors;
  for (const Buffer& buffer : buffers) tensors.push_back({data_of(buffer), bytes_of(buffer)});
  std::vector<uint8_t> roots(tensors.size() * hash::kHashBytes);
  {
    nb::gil_scoped_release release;
    hash::tensor_roots(lanes, tensors.data(), static_cast<int64_t>(tensors.size()), threads, roots.data());
  }
  nb::list made;
  for (size_t i = 0; i < tensors.size(); ++i) made.append(to_bytes(&roots[i * hash::kHashBytes]));
  return made;
}

nb::list tensor_levels(const Buffer& buffer, int threads, const std::optional<std::string>& isa) {
  const hash::Lanes& lanes = lanes_named(isa);
  check_threads(threads);
  const int64_t bytes = bytes_of(buffer), count = hash::tile_count(bytes);
  std::vector<Level> levels;
  {
    nb::gil_scoped_release release;
    levels.push_back(make_level(count));
    hash::tile_leaves(lanes, data_of(buffer), bytes, threads, levels[0]->data());
    add_parents(lanes, levels, levels[0]->data(), count, hash::height_of(count), threads);
  }
  return to_list(std::move(levels));
}

nb::list tree_levels(const Hashes& leaves, int height, int threads, const std::optional<std::string>& isa) {
  const hash::Lanes& lanes = lanes_named(isa);
  check_threads(threads);
  const int64_t count = static_cast<int64_t>(leaves.shape(0));
  if (height < 0 || height > hash::kMaxHeight) throw nb::value_error("height must be 0 to 64");
  if (hash::height_of(count) > height) throw nb::value_error("more leaves than a tree of this height has");
  std::vector<Level> levels;
  {
    nb::gil_scoped_release release;
    add_parents(lanes, levels, leaves.data(), count, height, threads);
  }
  return to_list(std::move(levels));
}

nb::bytes zero_root(int height) {
  if (height < 0 || height > hash::kMaxHeight) throw nb::value_error("height must be 0 to 64");
  return to_bytes(hash::zero_root(height));
}

ByteView byte_view(Buffer buffer) {
  const int64_t bytes = bytes_of(buffer);
  const uint8_t* data = data_of(buffer);
  auto* kept = new Buffer(std::move(buffer));
  nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<Buffer*>(p); });
  return ByteView(data, {static_cast<size_t>(bytes)}, owner);
}

std::vector<std::string> hash_isas() {
  std::vector<std::string> names;
  for (const hash::Lanes* lanes : hash::available()) names.emplace_back(lanes->name);
  return names;
}

}  // namespace

void bind_hash(nb::module_& m) {
  // noconvert: nothing is copied behind the caller's back.
  m.def("keccak256", &keccak256, "data"_a.noconvert(), "Ethereum's keccak-256 of a contiguous buffer's bytes.");
  m.def("tensor_roots", &tensor_roots, "buffers"_a.noconvert(), "threads"_a, "isa"_a = nb::none(),
        "Roots of the tile trees of contiguous CPU buffers (docs/spec/commitments.md, Tensor), all in one go.");
  m.def("tensor_levels", &tensor_levels, "buffer"_a.noconvert(), "threads"_a, "isa"_a = nb::none(),
        "The real nodes of the tile tree, leaves first: a list of uint8 arrays (n, 32).");
  m.def("tree_levels", &tree_levels, "leaves"_a.noconvert(), "height"_a, "threads"_a, "isa"_a = nb::none(),
        "The real nodes above leaves (n, 32), bottom-up: `height` uint8 arrays (n, 32); missing leaves are ZERO.");
  m.def("zero_root", &zero_root, "height"_a, "Root of a tree of that height (0 to 64) without leaves.");
  m.def("byte_view", &byte_view, "buffer"_a.noconvert(),
        "A read-only uint8 array over a contiguous CPU buffer's own memory.");
  m.def("hash_isas", &hash_isas, "Instruction sets for hashing that this machine runs, best first.");
}
