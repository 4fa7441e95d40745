// The reference of pooling and its gradients. Part of element.h.
#pragma once
#include "window.h"

namespace ro {
namespace RO_ISA {

// ---- pooling --------------------------------------------------------------------------------------------------------------

// Calls body(place of x) for every position of the window of output `index` that lies inside, row by row.
template <class Body>
RO_HD static inline void for_window(const Pool& v, int64_t index, Body body) {
  const int64_t ow = index % v.w.out, oh = index / v.w.out % v.h.out, plane = index / v.w.out / v.h.out;
  for (int64_t t = 0; t < v.h.count(oh); ++t) {
    const int64_t ih = v.h.begin(oh) + t * v.h.dilation;
    for (int64_t u = 0; v.h.inside(ih) && u < v.w.count(ow); ++u) {
      const int64_t iw = v.w.begin(ow) + u * v.w.dilation;
      if (v.w.inside(iw)) body((plane * v.h.in + ih) * v.w.in + iw);
    }
  }
}
// Calls body(oh, ow, place of y) for every window that has the position `index` of x, ascending.
template <class Body>
RO_HD static inline void for_windows(const Pool& v, int64_t index, Body body) {
  const int64_t iw = index % v.w.in, ih = index / v.w.in % v.h.in, plane = index / v.w.in / v.h.in;
  for (int64_t oh = v.h.first(ih); oh <= v.h.last(ih); ++oh) {
    for (int64_t ow = v.w.first(iw); v.h.has(oh, ih) && ow <= v.w.last(iw); ++ow) {
      if (v.w.has(ow, iw)) body(oh, ow, (plane * v.h.out + oh) * v.w.out + ow);
    }
  }
}

RO_ELEMENT(max_pool) {
  const Tensor& x = call.in[0];
  float m = float_of(kMinusInfBits);
  for_window(Pool(call, x, call.out, false), index, [&](int64_t i) { m = maximum_f32(m, load_real(x.data, x.dtype, i)); });
  return pattern(call, m);
}
RO_ELEMENT(max_pool_index) {
  const Tensor& x = call.in[0];
  const Pool v(call, x, call.out, false);
  int64_t found = -1;
  float m = 0.0f;
  for_window(v, index, [&](int64_t i) {
    const float a = load_real(x.data, x.dtype, i);
    if (found >= 0 && !(a > m) && !ro::is_nan(a)) return;
    m = a;
    found = i % (v.h.in * v.w.in);
  });
  return pattern(call, found);
}
RO_ELEMENT(max_pool_grad) {
  const Tensor &dy = call.in[0], &places = call.in[1];
  const Pool v(call, call.out, dy, false);
  const int64_t own = index % (v.h.in * v.w.in);
  float s = 0.0f;
  for_windows(v, index, [&](int64_t, int64_t, int64_t o) {
    if (load_integer(places.data, places.dtype, o) == own) s = add_rn(s, load_real(dy.data, dy.dtype, o));
  });
  return pattern(call, s);
}
RO_ELEMENT(avg_pool) {
  const Tensor& x = call.in[0];
  const Pool v(call, x, call.out, true);
  float s = 0.0f;
  for_window(v, index, [&](int64_t i) { s = add_rn(s, load_real(x.data, x.dtype, i)); });
  return pattern(call, div_rn(s, v.count(index / v.w.out % v.h.out, index % v.w.out)));
}
RO_ELEMENT(avg_pool_grad) {
  const Tensor& dy = call.in[0];
  const Pool v(call, call.out, dy, true);
  float s = 0.0f;
  for_windows(v, index, [&](int64_t oh, int64_t ow, int64_t o) {
    s = add_rn(s, div_rn(load_real(dy.data, dy.dtype, o), v.count(oh, ow)));
  });
  return pattern(call, s);
}

}  // namespace RO_ISA
}  // namespace ro
