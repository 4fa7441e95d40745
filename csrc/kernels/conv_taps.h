// The gradient of a convolution's weight where a group has few channels: the rows of a tile are (channel, kh, kw), which do not all see
// the same positions. Runs of positions say which rows see them; the others keep their sums.
//
// Lanes are the group's filters, and x is read in place; of a depthwise layer, groups are the lanes, and x is packed lane by lane.
//
// Include after conv_lanes.h.
#pragma once
#include "conv_lanes.h"

namespace ro {
namespace RO_ISA {

constexpr int kTapRows = 12;  // rows of a tile of a depthwise layer
constexpr int kMostRows = kRows > kTapRows ? kRows : kTapRows;

// Positions that follow each other and are seen by the same rows: the first one's place in x, for a tap at 0, and its number in the block.
struct TapRun {
  int64_t x, dy, length;
  uint32_t rows;
};

// The rows of a tile.
struct TapTile {
  int count;
  int64_t kh[kMostRows], kw[kMostRows], offset[kMostRows];  // offset: in x, from a tap at 0 of channel 0
  int64_t lo[kMostRows], hi[kMostRows];                     // the columns of dy that the row sees
};

RO_INLINE TapTile find_tap_tile(const Convolution& v, int64_t row0, int64_t rows) {
  TapTile t;
  t.count = (int)rows;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t e = row0 + r, tap = e % v.taps();
    t.kh[r] = tap / v.w.taps, t.kw[r] = tap % v.w.taps;
    t.offset[r] = e / v.taps() * v.x_plane() + t.kh[r] * v.h.dilation * v.w.in + t.kw[r] * v.w.dilation;
    const int64_t first = v.w.source(0, t.kw[r]);
    t.lo[r] = first >= 0 ? 0 : ceil_div(-first, v.w.stride);
    t.hi[r] = first >= v.w.in ? 0 : min64(v.w.out, (v.w.in - 1 - first) / v.w.stride + 1);
  }
  return t;
}

// The runs of positions [k0, k1); x_image: from image to image in x, counted from image `image0`.
RO_INLINE int64_t find_tap_runs(const Convolution& v, const TapTile& t, int64_t k0, int64_t k1, int64_t x_image, int64_t image0,
                                TapRun* runs, uint32_t* seen) {
  int64_t count = 0;
  *seen = 0;
  for (int64_t k = k0; k < k1;) {
    const int64_t image = k / v.y_plane() - image0, oh = k % v.y_plane() / v.w.out, ow0 = k % v.w.out;
    const int64_t ow1 = min64(v.w.out, ow0 + k1 - k);
    int64_t lo = ow0, hi = ow1;  // the columns that all rows see that see the line at all
    uint32_t rows = 0;
    for (int r = 0; r < t.count; ++r)
      if (v.h.inside(v.h.source(oh, t.kh[r]))) {
        rows |= 1u << r;
        lo = max64(lo, t.lo[r]), hi = min64(hi, t.hi[r]);
      }
    const int64_t line = image * x_image + v.h.source(oh, 0) * v.w.in + v.w.source(0, 0);
    for (int64_t ow = ow0; rows && ow < ow1;) {
      TapRun run{line + ow * v.w.stride, k - k0 + ow - ow0, 1, rows};
      if (ow == lo && lo < hi) {
        run.length = hi - lo;
      } else {
        for (int r = 0; r < t.count; ++r)
          if (ow < t.lo[r] || ow >= t.hi[r]) run.rows &= ~(1u << r);
      }
      ow += run.length;
      if (run.rows == 0) continue;
      *seen |= run.rows;
      runs[count++] = run;
    }
    k += ow1 - ow0;
  }
  return count;
}

// Rows of c are `row` floats apart; those of `seen` get a block's sum, added to what those of `begun` hold. x_step: from position to
// position. kPacked: x has NV vectors for each place, else one number.
template <int MR, int NV, bool kPacked>
static void tap_tile(const TapRun* runs, int64_t count, const int64_t* offsets, const float* x, int64_t x_step, const float* dy, float* c,
                     int64_t row, uint32_t seen, uint32_t begun) {
  constexpr int64_t kUnit = kPacked ? NV * kLanes : 1;
  constexpr uint32_t kAll = (1u << MR) - 1;
  F acc[MR][NV];
  int64_t offset[MR];
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r) {
    offset[r] = offsets[r] * kUnit;
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) acc[r][v] = F::set(0.0f);
  }
  const auto multiply = [&](int r, int64_t at, const F* lanes) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v)
      acc[r][v] = fma(lanes[v], kPacked ? F::load(x + at + offset[r] + v * kLanes) : F::set(load_f32(x + at + offset[r], 0)), acc[r][v]);
  };
  for (int64_t i = 0; i < count; ++i) {
    int64_t at = runs[i].x * kUnit;
    const float* from = dy + runs[i].dy * NV * kLanes;
    const uint32_t rows = runs[i].rows;
    for (int64_t k = 0; k < runs[i].length; ++k, at += x_step * kUnit, from += NV * kLanes) {
      F lanes[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) lanes[v] = F::load(from + v * kLanes);
      if (rows == kAll) {
#pragma GCC unroll 16
        for (int r = 0; r < MR; ++r) multiply(r, at, lanes);
      } else {
#pragma GCC unroll 16
        for (int r = 0; r < MR; ++r)
          if (rows >> r & 1) multiply(r, at, lanes);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r)
    if (seen >> r & 1)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        float* p = c + r * row + v * kLanes;
        (begun >> r & 1 ? add(F::load(p), acc[r][v]) : acc[r][v]).store(p);
      }
}

using TapFunction = void (*)(const TapRun*, int64_t, const int64_t*, const float*, int64_t, const float*, float*, int64_t, uint32_t, uint32_t);
template <int NV, bool kPacked, int... r>
RO_INLINE TapFunction tap_of_rows(int rows, std::integer_sequence<int, r...>) {
  static constexpr TapFunction tiles[] = {tap_tile<r + 1, NV, kPacked>...};
  return tiles[rows - 1];
}

// kLanes groups of one channel and one filter each, from group g0 on.
static void depthwise_weight(const Convolution& v, const float* dy, const float* x, const float* carry, float* dw, int64_t g0) {
  const int64_t taps = v.taps(), lanes = min64(kLanes, v.groups - g0), tiles = ceil_div(taps, kTapRows), x_plane = v.x_plane();
  float* const sums = (float*)scratch(1, sizeof(float) * taps * kLanes);
  // Images packed together: at least those that a block may see.
  const int64_t most = min64(v.images, max64(ceil_div(kDotBlock, v.y_plane()) + 1, (1 << 17) / (x_plane * kLanes + 1)));
  float* const packed_dy = (float*)scratch(4, sizeof(float) * kDotBlock * kLanes);
  TapRun* const runs = (TapRun*)scratch(3, sizeof(TapRun) * kDotBlock + sizeof(TapTile) * tiles + sizeof(uint32_t) * tiles);
  TapTile* const tile = (TapTile*)(runs + kDotBlock);
  uint32_t* const begun = (uint32_t*)(tile + tiles);
  for (int64_t t = 0; t < tiles; ++t) {
    tile[t] = find_tap_tile(v, t * kTapRows, min64(kTapRows, taps - t * kTapRows));
    begun[t] = carry ? ~0u : 0u;
  }
  std::memset(sums, 0, sizeof(float) * taps * kLanes);
  if (carry)
    for (int64_t e = 0; e < taps; ++e)
      for (int64_t l = 0; l < lanes; ++l) sums[e * kLanes + l] = load_f32(carry, (g0 + l) * taps + e);
  const auto planes = [&](const float* p, int64_t plane, int64_t image, int64_t from, int64_t n, float* to) {
    pack_transposed<kF32>({(const char*)(p + (image * v.groups + g0) * plane), 4 * plane, 4}, lanes, from, n, kLanes, to);
  };
  int64_t held = -1, end = -1;  // the images of which x is packed
  for (int64_t k0 = v.start, k1; k0 < v.stop; k0 = k1) {
    k1 = min64((k0 / kDotBlock + 1) * kDotBlock, v.stop);
    const int64_t first = k0 / v.y_plane(), last = (k1 - 1) / v.y_plane();
    float* const packed_x = (float*)scratch(2, sizeof(float) * most * x_plane * kLanes);
    if (first < held || last >= end) {
      held = first, end = min64(first + most, v.images);
      for (int64_t i = held; i < end; ++i) planes(x, x_plane, i, 0, x_plane, packed_x + (i - held) * x_plane * kLanes);
    }
    for (int64_t k = k0; k < k1;) {
      const int64_t at = k % v.y_plane(), n = min64(v.y_plane() - at, k1 - k);
      planes(dy, v.y_plane(), k / v.y_plane(), at, n, packed_dy + (k - k0) * kLanes);
      k += n;
    }
    for (int64_t t = 0; t < tiles; ++t) {
      uint32_t seen;
      const int64_t count = find_tap_runs(v, tile[t], k0, k1, x_plane, held, runs, &seen);
      const TapFunction run = tap_of_rows<1, true>(tile[t].count, std::make_integer_sequence<int, kTapRows>());
      run(runs, count, tile[t].offset, packed_x, v.w.stride, packed_dy, sums + t * kTapRows * kLanes, kLanes, seen,
          begun[t]);
      begun[t] |= seen;
    }
  }
  for (int64_t e = 0; e < taps; ++e)
    for (int64_t l = 0; l < lanes; ++l) store_f32(dw, (g0 + l) * taps + e, ro::canonical(sums[e * kLanes + l]));
}

// One group: its rows [row0, row1) of (channel, kh, kw), and filters [o0, o1). dy, x, carry and dw begin at the group.
static void few_channels_weight(const Convolution& v, const float* dy, const float* x, const float* carry, float* dw, int64_t row0,
                                int64_t row1, int64_t o0, int64_t o1) {
  const int64_t depth = v.channels * v.taps(), rows_here = row1 - row0, width = ceil_div(o1 - o0, kLanes) * kLanes;
  const int64_t x_image = v.groups * v.channels * v.x_plane();
  const Panels panels = Panels::of(rows_here);
  float* const sums = (float*)scratch(1, sizeof(float) * rows_here * width);
  float* const packed = (float*)scratch(4, sizeof(float) * kDotBlock * width);
  TapRun* const runs = (TapRun*)scratch(3, sizeof(TapRun) * kDotBlock + sizeof(uint32_t) * panels.count);
  uint32_t* const begun = (uint32_t*)(runs + kDotBlock);
  for (int64_t i = 0; i < panels.count; ++i) begun[i] = carry ? ~0u : 0u;
  std::memset(sums, 0, sizeof(float) * rows_here * width);
  if (carry)
    for (int64_t e = 0; e < rows_here; ++e)
      for (int64_t o = o0; o < o1; ++o) sums[e * width + o - o0] = load_f32(carry, o * depth + row0 + e);
  for (int64_t k0 = v.start, k1; k0 < v.stop; k0 = k1) {
    k1 = min64((k0 / kDotBlock + 1) * kDotBlock, v.stop);
    for (int64_t k = k0; k < k1;) {
      const int64_t at = k % v.y_plane(), n = min64(v.y_plane() - at, k1 - k);
      const float* from = dy + k / v.y_plane() * v.groups * v.filters * v.y_plane();
      for (int64_t j = o0; j < o1; j += kCols) {
        const int64_t cols = min64(kCols, o1 - j), w = ceil_div(cols, kLanes) * kLanes;
        pack_transposed<kF32>({(const char*)(from + j * v.y_plane()), 4 * v.y_plane(), 4}, cols, at, n, w,
                              packed + (j - o0) * (k1 - k0) + (k - k0) * w);
      }
      k += n;
    }
    for (int64_t i = 0; i < panels.count; ++i) {
      const int64_t row = panels.start(i), rows = panels.start(i + 1) - row;
      const TapTile tile = find_tap_tile(v, row0 + row, rows);
      uint32_t seen;
      const int64_t count = find_tap_runs(v, tile, k0, k1, x_image, 0, runs, &seen);
      for (int64_t j = 0; count && j < o1 - o0; j += kCols)
        with_vectors(ceil_div(min64(kCols, o1 - o0 - j), kLanes), [&](auto nv) {
          tap_of_rows<nv, false>((int)rows, std::make_integer_sequence<int, kRows>())(
              runs, count, tile.offset, x, v.w.stride, packed + j * (k1 - k0), sums + row * width + j, width, seen, begun[i]);
        });
      begun[i] |= seen;
    }
  }
  for (int64_t o = o0; o < o1; o += kLanes)
    for (int64_t e = 0; e < rows_here; e += kLanes) {
      const int64_t n = min64(kLanes, rows_here - e);
      F t[kLanes];
      for (int64_t i = 0; i < kLanes; ++i) t[i] = i < n ? canonical(F::load(sums + (e + i) * width + o - o0)) : F::set(0.0f);
      transpose(t);
      for (int64_t i = 0; i < kLanes && o + i < o1; ++i) t[i].store(dw + (o + i) * depth + row0 + e, (int)n);
    }
}

}  // namespace RO_ISA
}  // namespace ro
