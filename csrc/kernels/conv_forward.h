// Convolution and the gradient of its input: which of the ways is taken.
#pragma once
#include "conv_lanes.h"
#include "conv_planes.h"
#include "conv_points.h"

namespace ro {
namespace RO_ISA {

// Lanes are filters; with few of them, positions where enough lie together.
static void gathered(const Gathered& g, const AxisClasses& h, const AxisClasses& w, int64_t elements, int threads) {
  std::vector<Sight> sights, direct, rest;
  for (const AxisClass& i : h.list)
    for (const AxisClass& j : w.list) {
      sights.push_back({i, j});
      (direct_class(sights.back()) ? direct : rest).push_back(sights.back());
    }
  if (g.rows > kDirectRows || direct.empty()) return by_lanes(g, sights, false, threads);
  if (!h.complete || !w.complete) gathered_empty(g, elements, threads);
  by_direct(g, direct, threads);
  by_lanes(g, rest, true, threads);
}

// Whether windows lie side by side, and a filter's taps are whole blocks or divide one.
RO_INLINE bool as_patches(const Convolution& v) {
  const auto beside = [](const Window& a) { return a.stride == a.taps && a.pad == 0 && a.dilation == 1; };
  const int64_t taps = v.taps();
  return beside(v.h) && beside(v.w) && v.w.taps >= 4 && (taps >= kDotBlock || kDotBlock % taps == 0) && v.start % taps == 0 &&
         v.stop % taps == 0;
}

// Whether each position is multiplied by itself, and enough of them fill the tiles of a product.
RO_INLINE bool as_product(const Convolution& v) {
  const auto same = [](const Window& a) { return a.taps == 1 && a.stride == 1 && a.pad == 0; };
  const int64_t n = v.y_plane();
  return same(v.h) && same(v.w) && v.start % kDotBlock == 0 && v.start < v.stop && ceil_div(n, kLanes) * kLanes * 20 <= n * 21;
}

// Windows of one tap: out[image] = A in[image], matrices [rows, k] and [k, positions].
static void convolve_points(const Gathered& g, int threads) {
  const Panels panels = Panels::of(g.rows);
  const int64_t n = g.out_plane, depth = g.depth(), work = g.groups * g.rows * depth * g.images * n;
  const int64_t workers = max64(1, min64(threads, work / 32768));
  // Parts of a group: images, columns, rows; several for each thread.
  const int64_t across = ceil_div(n, kColumnBlock), down = min64(panels.count, max64(1, workers * 4 / (g.images * across)));
  for (int64_t group = 0; group < g.groups; ++group) {
    const Gathered own = g.of_group(group);
    const bool along = g.a_channel == 1;
    const View a{(const char*)(own.a + g.start * g.a_channel), along ? 4 * g.a_row : 4, along ? 4 : 4 * g.a_channel};
    float* const packed = (float*)scratch(0, sizeof(float) * g.rows * depth + 64);
    parallel_for(panels.count, ceil_div(32768, kRows * depth), (int)workers, [&](int64_t begin, int64_t end) {
      pack_panels(a, panels, begin, end, depth, packed);
    });
    parallel_dynamic(g.images * across * down, (int)workers, [&](int64_t i) {
      const int64_t image = i / (across * down), y = i % down, x = i / down % across;
      const int64_t p0 = panels.count * y / down, p1 = panels.count * (y + 1) / down;
      const int64_t n0 = min64(n, ceil_div(n * x / across, kCols) * kCols), n1 = x + 1 == across ? n : ceil_div(n * (x + 1) / across, kCols) * kCols;
      const Product p{a, {(const char*)(own.in + image * g.in_image + g.start * g.in_plane), 4 * g.in_plane, 4}, g.rows, n, depth,
                      (char*)(own.out + image * g.out_image), 4 * g.out_plane, 4, g.carry != nullptr, false, 0.0f};
      if (g.carry)
        for (int64_t r = panels.start(p0); r < panels.start(p1); ++r)
          std::memcpy(own.out + image * g.out_image + r * n + n0, own.carry + image * g.out_image + r * n + n0, sizeof(float) * (n1 - n0));
      product_part(p, panels, packed, 0, p.k, p0, p1, n0, n1);
    });
  }
}

// conv2d, or, the input's gradient, conv2d_dx. in: [images, groups, O or C, plane] beside weights, out likewise.
static void convolve(const Call& call, const Convolution& v, bool gradient) {
  if (element_count(call.out) == 0) return;
  if (by_planes(call, v, gradient)) return convolve_planes(call, v, gradient, floats(call.in[0]), floats(call.in[1]), (float*)call.out.data);
  const int64_t x_plane = v.x_plane(), y_plane = v.y_plane(), taps = v.taps();
  Gathered g{};
  g.in = floats(call.in[0]), g.a = floats(call.in[1]), g.out = (float*)call.out.data;
  g.carry = call.inputs > 2 ? floats(call.in[2]) : nullptr;
  g.groups = v.groups, g.images = v.images, g.kh = v.h.taps, g.kw = v.w.taps, g.start = v.start, g.stop = v.stop;
  const int64_t depth = gradient ? v.filters : v.channels;  // planes of the input
  g.rows = gradient ? v.channels : v.filters;
  g.in_plane = gradient ? y_plane : x_plane, g.in_width = gradient ? v.w.out : v.w.in;
  g.out_plane = gradient ? x_plane : y_plane, g.out_rows = gradient ? v.h.in : v.h.out, g.out_width = gradient ? v.w.in : v.w.out;
  g.in_group = depth * g.in_plane, g.in_image = v.groups * g.in_group;
  g.out_group = g.rows * g.out_plane, g.out_image = v.groups * g.out_group;
  g.a_group = v.filters * v.channels * taps;
  g.a_row = gradient ? taps : v.channels * taps, g.a_channel = gradient ? v.channels * taps : taps;
  if (gradient && as_patches(v)) {
    // Every position of dy is multiplied with all of a patch: one product, in which a filter's taps are a block or a part of one.
    if (v.h.in % v.h.taps || v.w.in % v.w.taps || v.start == v.stop) gathered_empty(g, element_count(call.out), call.threads);
    g.tile_h = v.h.taps, g.tile_w = v.w.taps, g.out_line = v.w.in, g.out_rows = v.h.out, g.out_width = v.w.out;
    g.rows = v.channels * taps, g.a_row = 1, g.kh = g.kw = 1;
    g.start /= taps, g.stop /= taps, g.block = max64(1, kDotBlock / taps);
    const auto all = [](int64_t count) { return AxisClass{0, 1, count, 0, 1, 1, 0, 1, 0}; };
    return by_lanes(g, {{all(v.h.out), all(v.w.out)}}, false, call.threads);
  }
  if (as_product(v)) return convolve_points(g, call.threads);
  gathered(g, AxisClasses(v.h, gradient), AxisClasses(v.w, gradient), element_count(call.out), call.threads);
}

RO_KERNEL(conv2d) {
  const auto run = [](const Call& c) { convolve(c, Convolution(c, c.in[0], c.in[1], c.out), false); };
  const Convolution v(call, call.in[0], call.in[1], call.out);
  if (gathers_points(v)) with_gathered_points(call, v, 0, run);
  else run(call);
}
RO_KERNEL(conv2d_dx) { convolve(call, Convolution(call, call.out, call.in[1], call.in[0]), true); }

}  // namespace RO_ISA
}  // namespace ro
