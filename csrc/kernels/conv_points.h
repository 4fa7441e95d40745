// Convolutions of one tap: those with stride become dense ones over the positions that they see, and the weight's gradient is a product
// over k = (image, position) of which one side is read where it lies.
//
// Include after conv_weight.h's and conv_forward.h's other ways.
#pragma once
#include <algorithm>

#include "matmul.h"
#include "window.h"

namespace ro {
namespace RO_ISA {

RO_INLINE bool is_point(const Window& a) { return a.taps == 1 && a.pad == 0; }

// to[j] = from[j * stride].
RO_INLINE void gather_line(const float* from, int64_t n, int64_t stride, float* to) {
  int64_t j = 0;
  if (stride == 2)
    for (; j < n; j += kLanes, from += 2 * kLanes) {
      const int64_t count = min64(kLanes, n - j), reach = 2 * count - 1;
      even(F::load(from, (int)min64(kLanes, reach)), F::load(from + kLanes, (int)max64(0, reach - kLanes))).store(to + j, (int)count);
    }
  for (; j < n; ++j) to[j] = load_f32(from + j * stride, 0);
}

// Whether x is gathered: it is read often enough, and what is seen of it is not too large a copy.
RO_INLINE bool gathers_points(const Convolution& v) {
  const bool strided = v.h.stride > 1 || v.w.stride > 1;
  return strided && is_point(v.h) && is_point(v.w) && v.filters >= kLanes && v.channels >= kRows &&
         v.images * v.groups * v.channels * v.y_plane() <= 16 << 20;
}

// Calls body with a convolution without stride, whose x, input `which`, has the positions alone that are seen.
template <class Body>
static void with_gathered_points(const Call& call, const Convolution& v, int which, const Body& body) {
  const int64_t planes = v.images * v.groups * v.channels, n = v.y_plane();
  const float* const x = (const float*)call.in[which].data;
  float* const seen = (float*)scratch(6, sizeof(float) * planes * n + 1);
  parallel_for(planes, ceil_div(1 << 14, n + 1), call.threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t r = 0; r < v.h.out; ++r) {
        const float* ahead = x + i * v.x_plane() + (r + 8) * v.h.stride * v.w.in;
        for (int64_t c = 0; c < v.w.in; c += 16) __builtin_prefetch(ahead + c);
        gather_line(x + i * v.x_plane() + r * v.h.stride * v.w.in, v.w.out, v.w.stride, seen + i * n + r * v.w.out);
      }
  });
  Tensor in[3];
  int64_t params[9];
  std::copy_n(call.in, call.inputs, in);
  std::copy_n(call.params, 9, params);
  in[which].data = seen, in[which].shape[2] = v.h.out, in[which].shape[3] = v.w.out;
  params[1] = params[2] = 1;
  Call dense = call;
  dense.in = in, dense.params = params;
  body(dense);
}

}  // namespace RO_ISA
}  // namespace ro
