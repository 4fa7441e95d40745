// Convolutions of one tap: those with stride become dense ones over the positions that they see, and the weight's gradient is a product
// over k = (image, position) of which one side is read where it lies.
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

// Terms of a block that lie in one image: `length` of them, from place a of every row and row b of the lanes' panel on.
struct PointRun {
  int64_t a, b, length;
};

// As `tile`, over runs of terms; rows of a lie `a_row` apart.
template <int MR, int NV>
static void point_tile(const PointRun* runs, int64_t count, const float* a, int64_t a_row, const float* b, float* c, int64_t row, bool begun) {
  constexpr int kBases = (MR + 2) / 3;
  F acc[MR][NV];
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) acc[r][v] = F::set(0.0f);
  for (int64_t i = 0; i < count; ++i) {
    const float* from[kBases];  // one for three rows, so that they fit the registers
#pragma GCC unroll 16
    for (int n = 0; n < kBases; ++n) from[n] = a + runs[i].a + 3 * n * a_row;
    const float* pb = b + runs[i].b * NV * kLanes;
    for (int64_t k = 0; k < runs[i].length; ++k, pb += NV * kLanes) {
      F bv[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) bv[v] = F::load(pb + v * kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < MR; ++r) {
        const F av = F::set(load_f32(from[r / 3] + r % 3 * a_row, 0));
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) acc[r][v] = fma(av, bv[v], acc[r][v]);
      }
#pragma GCC unroll 16
      for (int n = 0; n < kBases; ++n) ++from[n];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      float* p = c + r * row + v * kLanes;
      (begun ? add(F::load(p), acc[r][v]) : acc[r][v]).store(p);
    }
}

using PointTile = void (*)(const PointRun*, int64_t, const float*, int64_t, const float*, float*, int64_t, bool);
static PointTile find_point_tile(int64_t rows, int64_t vectors) {
  return find_sized(rows, vectors, [](auto mr, auto nv) -> PointTile { return point_tile<mr, nv>; });
}

// Channels of x or dy, `plane` apart: the rows or the lanes of the sums. step: of the weight.
struct PointSide {
  const float* data;
  int64_t image, step;
};

// The weight's gradient of one tap without stride, for one group: rows [r0, r1), lanes [l0, l1).
static void point_weight_part(const Convolution& v, const PointSide& rows, const PointSide& lanes, const float* carry, float* dw, int64_t r0,
                              int64_t r1, int64_t l0, int64_t l1) {
  const int64_t plane = v.y_plane(), rows_here = r1 - r0, width = ceil_div(l1 - l0, kLanes) * kLanes, pitch = kDotBlock + 16;
  const bool in_place = plane % 1024 != 0;  // else a tile's rows would all lie in the same sets of the first cache
  const Panels panels = Panels::of(rows_here);
  float* const sums = (float*)scratch(1, sizeof(float) * rows_here * width);
  float* const copy = (float*)scratch(2, in_place ? 1 : sizeof(float) * rows_here * pitch);
  PointRun* const runs = (PointRun*)scratch(3, sizeof(PointRun) * kDotBlock);
  float* const packed = (float*)scratch(4, sizeof(float) * kDotBlock * width);
  const auto place = [&](int64_t r, int64_t l) { return (r0 + r) * rows.step + (l0 + l) * lanes.step; };
  if (!carry && v.start == v.stop) std::memset(sums, 0, sizeof(float) * rows_here * width);
  for (int64_t r = 0; carry && r < rows_here; ++r)
    for (int64_t l = 0; l < l1 - l0; ++l) sums[r * width + l] = load_f32(carry, place(r, l));
  for (int64_t k0 = v.start, k1; k0 < v.stop; k0 = k1) {
    k1 = min64((k0 / kDotBlock + 1) * kDotBlock, v.stop);
    const int64_t kc = k1 - k0;
    int64_t count = 0;
    for (int64_t k = k0, n; k < k1; k += n) {
      const int64_t image = k / plane, at = k % plane;
      n = min64(plane - at, k1 - k);
      runs[count++] = {image * rows.image + r0 * plane + at, k - k0, n};
      for (int64_t l = l0; l < l1; l += kCols) {
        const int64_t cols = min64(kCols, l1 - l), w = ceil_div(cols, kLanes) * kLanes;
        pack_transposed<kF32>({(const char*)(lanes.data + image * lanes.image + l * plane), 4 * plane, 4}, cols, at, n, w,
                              packed + (l - l0) * kc + (k - k0) * w);
      }
    }
    if (!in_place) {
      for (int64_t i = 0; i < count; ++i)
        for (int64_t r = 0; r < rows_here; ++r)
          std::memcpy(copy + r * pitch + runs[i].b, rows.data + runs[i].a + r * plane, sizeof(float) * runs[i].length);
      runs[0] = {0, 0, kc}, count = 1;
    }
    const float* const a = in_place ? rows.data : copy;
    const int64_t a_row = in_place ? plane : pitch;
    for (int64_t l = 0; l < l1 - l0; l += kCols) {
      const int64_t vectors = ceil_div(min64(kCols, l1 - l0 - l), kLanes);
      for (int64_t n = 0; n < panels.count; ++n) {
        const int64_t row = panels.start(n), height = panels.start(n + 1) - row;
        find_point_tile(height, vectors)(runs, count, a + row * a_row, a_row, packed + l * kc, sums + row * width + l, width,
                                         k0 > v.start || carry);
      }
    }
  }
  for (int64_t l = 0; l < l1 - l0; l += kLanes)
    for (int64_t r = 0; r < rows_here; r += kLanes) {
      F x[kLanes];
      const int64_t in_rows = min64(kLanes, rows_here - r), in_lanes = min64(kLanes, l1 - l0 - l);
      for (int64_t i = 0; i < kLanes; ++i) x[i] = i < in_rows ? canonical(F::load(sums + (r + i) * width + l)) : F::set(0.0f);
      if (lanes.step != 1) transpose(x);
      for (int64_t i = 0; i < (lanes.step == 1 ? in_rows : in_lanes); ++i)
        x[i].store(dw + (lanes.step == 1 ? place(r + i, l) : place(r, l + i)), (int)(lanes.step == 1 ? in_lanes : in_rows));
    }
}

}  // namespace RO_ISA
}  // namespace ro
