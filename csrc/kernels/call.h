// The calling convention of every kernel: plain arrays, no Python, no torch.
#pragma once
#include <cstdint>

#if defined(__CUDACC__)
#define RO_HD __host__ __device__
#else
#define RO_HD
#endif

namespace ro {

constexpr int kMaxRank = 8;

// Codes of docs/spec/programs.md.
enum DType : int32_t { kF32 = 1, kBF16 = 2, kF16 = 3, kI64 = 4, kI32 = 5, kBool = 6 };

RO_HD static constexpr int item_size(int32_t dtype) {
  return dtype == kI64 ? 8 : dtype == kBool ? 1 : (dtype == kBF16 || dtype == kF16) ? 2 : 4;
}

RO_HD static constexpr bool is_floating(int32_t dtype) { return dtype == kF32 || dtype == kBF16 || dtype == kF16; }

// A contiguous row-major tensor. The memory needs no alignment beyond one byte.
struct Tensor {
  void* data;
  int32_t dtype;
  int32_t rank;
  int64_t shape[kMaxRank];
};

RO_HD static inline int64_t element_count(const Tensor& t) {
  int64_t n = 1;
  for (int d = 0; d < t.rank; ++d) n *= t.shape[d];
  return n;
}

// One execution of one node. Shapes, dtypes, params and literals were checked against the operator's
// rule before; a kernel is total on what passes and never raises.
struct Call {
  const Tensor* in;
  int32_t inputs;
  const int64_t* params;
  int32_t param_count;
  const uint64_t* literals;  // raw bit patterns, low bits
  int32_t literal_count;
  Tensor out;    // never overlaps an input, unless the table marks the operator as safe in place
  int32_t threads;
  const Tensor* more = nullptr;  // further outputs of a fused kernel; nothing for an operator
  int32_t more_count = 0;
};

using Kernel = void (*)(const Call&);
// The reference definition: the bit pattern of output element `index` (row-major).
using Element = uint64_t (*)(const Call&, int64_t index);

enum Isa : int32_t { kScalar = 0, kAvx2 = 1, kAvx512 = 2, kNeon = 3 };

}  // namespace ro
