// Geometry of convolution and pooling, shared by the reference and the kernels.
//
// Include after prim.h and simd.h.
#pragma once
#include <cstdint>

namespace ro {
namespace RO_ISA {

// One axis: output position o reads the input at o * stride - pad + t * dilation for tap t, where that is inside.
struct Window {
  int64_t in, out, taps, stride, pad, dilation;
  RO_MEMBER int64_t source(int64_t o, int64_t t) const { return o * stride - pad + t * dilation; }
  RO_MEMBER bool inside(int64_t source) const { return source >= 0 && source < in; }
  // The output position that reads input position i with tap t; -1 if there is none.
  RO_MEMBER int64_t reader(int64_t i, int64_t t) const {
    const int64_t q = i + pad - t * dilation;
    return q >= 0 && q % stride == 0 && q / stride < out ? q / stride : -1;
  }
};

// A convolution: x [N, G C, H, W], w [G O, C, KH, KW], y [N, G O, OH, OW]; params groups, strides, pads, dilations, start, stop.
struct Convolution {
  int64_t images, groups, channels, filters;  // C and O are of one group
  Window h, w;
  int64_t start, stop;
  RO_MEMBER Convolution(const Call& call, const Tensor& x, const Tensor& weight, const Tensor& y) {
    const int64_t* p = call.params;
    images = x.shape[0];
    groups = p[0];
    channels = weight.shape[1];
    filters = weight.shape[0] / groups;
    h = {x.shape[2], y.shape[2], weight.shape[2], p[1], p[3], p[5]};
    w = {x.shape[3], y.shape[3], weight.shape[3], p[2], p[4], p[6]};
    start = p[7];
    stop = p[8];
  }
  RO_MEMBER int64_t taps() const { return h.taps * w.taps; }
  RO_MEMBER int64_t x_plane() const { return h.in * w.in; }
  RO_MEMBER int64_t y_plane() const { return h.out * w.out; }
};

// One axis of pooling: a Window, or, with taps = 0, adaptive: output o has the positions from floor(o in / out) to ceil((o + 1) in / out) - 1.
struct PoolAxis : Window {
  RO_MEMBER bool adaptive() const { return taps == 0; }
  RO_MEMBER int64_t begin(int64_t o) const { return adaptive() ? o * in / out : o * stride - pad; }
  RO_MEMBER int64_t count(int64_t o) const { return adaptive() ? ((o + 1) * in + out - 1) / out - o * in / out : taps; }
  // Windows that may have position i are those from first(i) to last(i).
  RO_MEMBER int64_t first(int64_t i) const {
    if (adaptive()) return i * out / in;
    const int64_t q = i + pad - (taps - 1) * dilation;
    return q <= 0 ? 0 : (q + stride - 1) / stride;
  }
  RO_MEMBER int64_t last(int64_t i) const {
    const int64_t o = adaptive() ? ((i + 1) * out - 1) / in : (i + pad) / stride;
    return o < out ? o : out - 1;
  }
  RO_MEMBER bool has(int64_t o, int64_t i) const { return dilation == 1 || (i - begin(o)) % dilation == 0; }  // for o from first(i) to last(i)
  // The extent of window o: of what lies inside, or of what lies inside or in the padding.
  RO_MEMBER int64_t extent(int64_t o, bool padding) const {
    if (adaptive()) return count(o);
    const int64_t low = begin(o), end = low + taps, limit = padding ? in + pad : in;
    return (end < limit ? end : limit) - (padding || low > 0 ? low : 0);
  }
};

// A pooling: x [P, H, W], y [P, OH, OW]; params taps, strides, pads, then dilations, or, averaging, whether padding counts and the divisor.
struct Pool {
  PoolAxis h, w;
  bool padding;
  int64_t divisor;
  RO_MEMBER Pool(const Call& call, const Tensor& x, const Tensor& y, bool averages) {
    const int64_t* p = call.params;
    h = {{x.shape[1], y.shape[1], p[0], p[2], p[4], averages ? 1 : p[6]}};
    w = {{x.shape[2], y.shape[2], p[1], p[3], p[5], averages ? 1 : p[7]}};
    padding = averages && p[6] != 0;
    divisor = averages ? p[7] : 0;
  }
  // What the sum of window (oh, ow) is divided by.
  RO_MEMBER float count(int64_t oh, int64_t ow) const {
    return i64_to_f32(divisor != 0 ? divisor : h.extent(oh, padding) * w.extent(ow, padding));
  }
};

}  // namespace RO_ISA
}  // namespace ro
