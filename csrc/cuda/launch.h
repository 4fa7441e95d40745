// How CUDA operators are registered and called.
#pragma once
#include <cuda_runtime.h>

#include "kernels/call.h"

namespace ro::cuda {

constexpr int kMaxInputs = 64;
constexpr int kMaxParams = 64;
constexpr int kMaxLiterals = 16;

// A Call by value, as a kernel argument: everything but the tensors' memory.
struct PackedCall {
  Tensor in[kMaxInputs];
  int64_t params[kMaxParams];
  uint64_t literals[kMaxLiterals];
  Tensor out;
  int32_t inputs, param_count, literal_count;
};

using Launch = cudaError_t (*)(const PackedCall&);

// Registers the launcher of an operator; one that is `tuned` is taken before the reference for f32, i64 and bool.
struct Operator {
  Operator(const char* name, Launch launch, bool tuned);
};

}  // namespace ro::cuda
