// The binary files of golden cases that tests/repops/golden.py writes: what to run, with which data, and the hash of the result.
// Numbers are little-endian 64-bit integers; strings and lists are a count and then their items.
#pragma once
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/plan.h"

namespace ro::tools {

// Where a tensor's bytes come from: a generator (the same in tests/repops/golden_data.py) or the file.
enum Kind : int64_t { kPlain = 0, kSpecial = 1, kBits = 2, kRange = 3, kBytes = 4 };

struct Data {
  Tensor tensor;  // dtype and shape
  int64_t kind, seed, low, count;
  const char* bytes = nullptr;  // kBytes

  int64_t size() const { return element_count(tensor) * item_size(tensor.dtype); }
};

struct Layout {  // one way to compute a program
  bool fused;
  int64_t arena_bytes;
  std::vector<PlanStep> steps;
};

constexpr int kHashBytes = 16;  // of keccak-256, in the files

enum CaseKind : int64_t { kCall = 0, kProgram = 1, kRoot = 2 };

struct Case {
  std::string name;
  uint8_t expected[kHashBytes];
  int64_t kind;
  // kCall: one operator. kRoot: the tile tree of inputs[0].
  std::string op;
  std::vector<int64_t> params;
  std::vector<uint64_t> literals;
  std::vector<Data> inputs;
  Tensor out;
  // kProgram: batches.size() steps from a state.
  std::vector<Layout> layouts;
  std::vector<Data> state, constants;
  std::vector<std::vector<Data>> batches;
};

class Reader {
 public:
  explicit Reader(const std::vector<char>& file) : at_(file.data()), end_(file.data() + file.size()) {}

  std::vector<Case> cases() {
    if (text() != "verde golden cases 1") throw std::runtime_error("not a file of golden cases, or of another version");
    std::vector<Case> all(count());
    for (Case& c : all) read(c);
    if (at_ != end_) throw std::runtime_error("bytes after the last case");
    return all;
  }

 private:
  const char* take(int64_t bytes) {
    if (bytes < 0 || bytes > end_ - at_) throw std::runtime_error("the file ends too early");
    const char* p = at_;
    at_ += bytes;
    return p;
  }
  int64_t number() {
    int64_t x;
    std::memcpy(&x, take(8), 8);
    return x;
  }
  size_t count() {
    const int64_t n = number();
    if (n < 0 || n > end_ - at_) throw std::runtime_error("a list is longer than the file");
    return (size_t)n;
  }
  std::string text() {
    const size_t n = count();
    return std::string(take((int64_t)n), n);
  }
  template <class Item, class Read>
  std::vector<Item> list(const Read& item) {
    std::vector<Item> items(count());
    for (Item& i : items) i = item();
    return items;
  }
  Tensor tensor() {
    Tensor t{};
    t.dtype = (int32_t)number();
    const size_t rank = count();
    if (rank > kMaxRank) throw std::runtime_error("a rank above 8");
    t.rank = (int32_t)rank;
    for (size_t d = 0; d < rank; ++d) t.shape[d] = number();
    return t;
  }
  Data data() {
    Data d{};
    d.tensor = tensor();
    d.kind = number();
    if (d.kind == kBytes) {
      d.bytes = take(d.size());
    } else {
      d.seed = number();
      d.low = number();
      d.count = number();
    }
    return d;
  }
  Operand operand() {
    Operand o{};
    o.place = (Place)number();
    o.index = number();
    o.tensor = tensor();
    return o;
  }
  PlanStep step() {
    PlanStep s;
    s.op = text();
    s.params = list<int64_t>([&] { return number(); });
    s.literals = list<uint64_t>([&] { return (uint64_t)number(); });
    s.inputs = list<Operand>([&] { return operand(); });
    s.outputs = list<Operand>([&] { return operand(); });
    s.in_place = number() != 0;
    return s;
  }
  Layout layout() {
    Layout l;
    l.fused = number() != 0;
    l.arena_bytes = number();
    l.steps = list<PlanStep>([&] { return step(); });
    return l;
  }
  std::vector<Data> tensors() {
    return list<Data>([&] { return data(); });
  }
  void read(Case& c) {
    c.name = text();
    std::memcpy(c.expected, take(kHashBytes), kHashBytes);
    c.kind = number();
    if (c.kind == kProgram) {
      c.layouts = list<Layout>([&] { return layout(); });
      c.state = tensors();
      c.constants = tensors();
      c.batches = list<std::vector<Data>>([&] { return tensors(); });
      return;
    }
    c.op = text();
    c.params = list<int64_t>([&] { return number(); });
    c.literals = list<uint64_t>([&] { return (uint64_t)number(); });
    c.inputs = tensors();
    c.out = tensor();
  }

  const char* at_;
  const char* end_;
};

// ---- the generator: integers only, so that no compiler and no floating-point state changes the data --------------------------

inline uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

constexpr uint64_t kGolden = 0x9E3779B97F4A7C15u;

constexpr uint32_t kSpecialF32[32] = {
    0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007FFFFF, 0x807FFFFF, 0x00800000, 0x80800000,
    0x3F800000, 0xBF800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00000,
    0x7F800001, 0xFFFFFFFF, 0x7FFFFFFF, 0xFF812345, 0x5F000000, 0xDF000000, 0x42B17218, 0xC2CFF1B5,
    0x33800000, 0x3F7FFFFF, 0x3F800001, 0x4B7FFFFF, 0xCB000001, 0x4F000000, 0xCF000001, 0x40490FDB};
constexpr uint16_t kSpecialF16[32] = {
    0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x83FF, 0x0400, 0x8400, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00, 0xFE00,
    0x7C01, 0xFFFF, 0x7FFF, 0xFD23, 0x7800, 0xF800, 0x498C, 0xCB00, 0x1000, 0x3BFF, 0x3C01, 0x67FF, 0xE401, 0x7000, 0xF001, 0x4248};
constexpr int64_t kSpecialI64[16] = {0, 1, -1, 2, -2, INT64_MAX, INT64_MIN, INT64_MIN + 1, (int64_t)1 << 53, ((int64_t)1 << 53) + 1,
                                     ((int64_t)1 << 24) + 1, -((int64_t)1 << 24) - 1, INT32_MAX, INT32_MIN, (int64_t)1 << 32, 63};
constexpr int32_t kSpecialI32[16] = {0, 1, -1, 2, -2, INT32_MAX, INT32_MIN, INT32_MIN + 1, 1 << 24, (1 << 24) + 1,
                                     -(1 << 24) - 1, 255, -256, 65535, 31, 32};

// Small numbers: floats of magnitude 2^-6 to 4 (their exponent from the word's low bits), integers -20 to 20.
inline uint64_t plain(int32_t dtype, uint64_t w) {
  const uint64_t f32 = (w >> 32 & 0x807FFFFF) | (w % 8 + 121) << 23;
  switch (dtype) {
    case kF32: return f32;
    case kBF16: return f32 >> 16;
    case kF16: return (w >> 32 & 0x83FF) | (w % 8 + 9) << 10;
    case kBool: return w >> 32 & 1;
    default: return (w >> 32) % 41 - 20;
  }
}

// Of eight numbers one is special, one any bit pattern, the others plain.
inline uint64_t special(int32_t dtype, uint64_t w) {
  const uint64_t choice = w >> 3 & 7;
  if (choice == 1) return w >> 32;
  if (choice != 0) return plain(dtype, w);
  switch (dtype) {
    case kF32: return kSpecialF32[w >> 8 & 31];
    case kBF16: return kSpecialF32[w >> 8 & 31] >> 16;
    case kF16: return kSpecialF16[w >> 8 & 31];
    case kI64: return (uint64_t)kSpecialI64[w >> 8 & 15];
    case kI32: return (uint32_t)kSpecialI32[w >> 8 & 15];
    default: return w >> 8;
  }
}

inline void fill(const Data& d, char* to) {
  if (d.kind == kBytes) {
    if (d.size() > 0) std::memcpy(to, d.bytes, (size_t)d.size());
    return;
  }
  const int size = item_size(d.tensor.dtype);
  const uint64_t base = mix((uint64_t)d.seed + kGolden);
  for (int64_t i = 0, n = element_count(d.tensor); i < n; ++i) {
    const uint64_t w = mix(base + ((uint64_t)i + 1) * kGolden);
    uint64_t bits = w;
    if (d.kind == kPlain) bits = plain(d.tensor.dtype, w);
    if (d.kind == kSpecial) bits = special(d.tensor.dtype, w);
    if (d.kind == kRange) bits = (uint64_t)d.low + (w >> 8) % (uint64_t)d.count;
    std::memcpy(to + i * size, &bits, (size_t)size);
  }
}

}  // namespace ro::tools
