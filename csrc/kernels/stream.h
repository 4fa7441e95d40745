// Writing past the caches, which would not keep an output until it is read: its lines are not read first then.
#pragma once
#include "call.h"
#include "simd.h"

namespace ro {
namespace RO_ISA {

// Whether a kernel writes its f32 output by F::stream. Two threads reach what the memory takes either way, so they need a little more.
// Not over an input, whose lines are in the first cache already.
static inline bool writes_past_caches(const Call& call) {
  int64_t bytes = element_count(call.out) * item_size(call.out.dtype);
  bool can = (uintptr_t)call.out.data % 4 == 0;
  for (int k = 0; k < call.inputs; ++k) {
    bytes += element_count(call.in[k]) * item_size(call.in[k].dtype);
    can = can && call.in[k].data != call.out.data;
  }
  return can && bytes >= (int64_t)(call.threads == 1 ? 32 : 36) << 20;
}

// How many elements lie between p and the next aligned vector.
RO_OP int64_t before_vector(const char* p) { return (-(intptr_t)p & (4 * kLanes - 1)) / 4; }

// After the last F::stream of a thread: makes what was written visible to others.
RO_OP void end_stream() {
#if defined(RO_ISA_AVX512) || defined(RO_ISA_AVX2)
  _mm_sfence();
#endif
}

}  // namespace RO_ISA
}  // namespace ro
