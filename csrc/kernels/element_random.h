// The reference of running sums and random numbers. Part of element.h.
#pragma once
#include "philox.h"

namespace ro {
namespace RO_ISA {

// ---- random numbers, running sums -----------------------------------------------------------------------------------------

RO_ELEMENT(philox) {
  uint32_t words[4][1];
  philox_blocks<1>(PhiloxKey(call), (uint64_t)index >> 2, words);
  return pattern(call, philox_uniform(words[index & 3][0]));
}

RO_ELEMENT(cumsum) {
  const Tensor& x = call.in[0];
  const int axis = (int)call.params[0];
  int64_t c[kMaxRank], total = 0;
  coordinates(call.out, index, c);
  const int64_t last = c[axis];
  for (c[axis] = 0; c[axis] <= last; ++c[axis]) {
    const int64_t i = position(x, c);
    total = add_i64(total, x.dtype == kI64 ? load_i64(x.data, i) : (int64_t)load_bool(x.data, i));
  }
  return pattern(call, total);
}

}  // namespace RO_ISA
}  // namespace ro
