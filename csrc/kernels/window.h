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

}  // namespace RO_ISA
}  // namespace ro
