// The reference of convolution and its gradients. Part of element.h.
#pragma once
#include "window.h"

namespace ro {
namespace RO_ISA {

// ---- convolution ----------------------------------------------------------------------------------------------------------

RO_ELEMENT(conv2d) {
  const Tensor &x = call.in[0], &weight = call.in[1];
  const Convolution v(call, x, weight, call.out);
  const int64_t ow = index % v.w.out, oh = index / v.w.out % v.h.out, map = index / v.y_plane();
  const int64_t o = map % (v.groups * v.filters), image = map / (v.groups * v.filters);
  const int64_t first = (image * v.groups + o / v.filters) * v.channels, taps = v.taps();
  const auto row = [&](int64_t k) { return v.h.source(oh, k % taps / v.w.taps); };
  const auto column = [&](int64_t k) { return v.w.source(ow, k % v.w.taps); };
  BlockSum sum;
  if (call.inputs > 2) sum.carry(load_f32(call.in[2].data, index));
  return pattern(call, dot(
      sum, v.start, v.stop, [&](int64_t k) { return v.h.inside(row(k)) && v.w.inside(column(k)); },
      [&](int64_t k) { return load_real(x.data, x.dtype, ((first + k / taps) * v.h.in + row(k)) * v.w.in + column(k)); },
      [&](int64_t k) { return load_real(weight.data, weight.dtype, o * v.channels * taps + k); }));
}
RO_ELEMENT(conv2d_dx) {
  const Tensor &dy = call.in[0], &weight = call.in[1];
  const Convolution v(call, call.out, weight, dy);
  const int64_t iw = index % v.w.in, ih = index / v.w.in % v.h.in, map = index / v.x_plane();
  const int64_t channel = map % (v.groups * v.channels), image = map / (v.groups * v.channels);
  const int64_t group = channel / v.channels, c = channel % v.channels, taps = v.taps();
  const auto row = [&](int64_t k) { return v.h.reader(ih, k % taps / v.w.taps); };
  const auto column = [&](int64_t k) { return v.w.reader(iw, k % v.w.taps); };
  const auto filter = [&](int64_t k) { return group * v.filters + k / taps; };
  BlockSum sum;
  if (call.inputs > 2) sum.carry(load_f32(call.in[2].data, index));
  return pattern(call, dot(
      sum, v.start, v.stop, [&](int64_t k) { return row(k) >= 0 && column(k) >= 0; },
      [&](int64_t k) {
        return load_real(dy.data, dy.dtype, ((image * v.groups * v.filters + filter(k)) * v.h.out + row(k)) * v.w.out + column(k));
      },
      [&](int64_t k) { return load_real(weight.data, weight.dtype, (filter(k) * v.channels + c) * taps + k % taps); }));
}
RO_ELEMENT(conv2d_dw) {
  const Tensor &dy = call.in[0], &x = call.in[1];
  const Convolution v(call, x, call.out, dy);
  const int64_t tap = index % v.taps(), c = index / v.taps() % v.channels, o = index / v.taps() / v.channels;
  const int64_t kh = tap / v.w.taps, kw = tap % v.w.taps, positions = v.y_plane();
  const int64_t filters = v.groups * v.filters, channels = v.groups * v.channels;
  const int64_t channel = o / v.filters * v.channels + c;
  const auto row = [&](int64_t k) { return v.h.source(k % positions / v.w.out, kh); };
  const auto column = [&](int64_t k) { return v.w.source(k % v.w.out, kw); };
  BlockSum sum;
  if (call.inputs > 2) sum.carry(load_f32(call.in[2].data, index));
  return pattern(call, dot(
      sum, v.start, v.stop, [&](int64_t k) { return v.h.inside(row(k)) && v.w.inside(column(k)); },
      [&](int64_t k) { return load_real(dy.data, dy.dtype, (k / positions * filters + o) * positions + k % positions); },
      [&](int64_t k) {
        return load_real(x.data, x.dtype, ((k / positions * channels + channel) * v.h.in + row(k)) * v.w.in + column(k));
      }));
}

}  // namespace RO_ISA
}  // namespace ro
