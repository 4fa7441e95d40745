// The gradient of a convolution's weight: k = (image, oh, ow), and one product for each tap. Output channels are the lanes, input channels
// the rows, and all of a tile sees the same positions: runs of them.
#pragma once
#include "conv_points.h"
#include "conv_taps.h"

namespace ro {
namespace RO_ISA {

// Terms that follow each other: `length` of them, from row b of the lanes' panel and row a of the rows' panel on.
struct TermRun {
  int64_t a, b, length;
};

// As `tile`, over runs of terms; rows of a are `step` apart.
template <int MR, int NV>
static void run_tile(const TermRun* runs, int64_t count, const float* a, const float* b, int64_t step, float* c, int64_t row, bool begun) {
  F acc[MR][NV];
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) acc[r][v] = F::set(0.0f);
  for (int64_t i = 0; i < count; ++i) {
    const float* pa = a + runs[i].a * MR;
    const float* pb = b + runs[i].b * NV * kLanes;
    for (int64_t k = 0; k < runs[i].length; ++k, pa += step * MR, pb += NV * kLanes) {
      F bv[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) bv[v] = F::load(pb + v * kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < MR; ++r) {
        const F av = F::set(pa[r]);
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) acc[r][v] = fma(av, bv[v], acc[r][v]);
      }
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

using RunTile = void (*)(const TermRun*, int64_t, const float*, const float*, int64_t, float*, int64_t, bool);
static RunTile find_run_tile(int64_t rows, int64_t vectors) {
  return find_sized(rows, vectors, [](auto mr, auto nv) -> RunTile { return run_tile<mr, nv>; });
}

// The positions of one block that lie in one image, and the part of the input that they read: rows top .. bottom, columns left .. right,
// packed from position `base` on.
struct ImagePart {
  int64_t image, begin, end;  // positions
  int64_t term;               // the first one's number in the block
  int64_t top, bottom, left, right, base;
};

// One group: dy, x and dw begin at its first filter or channel.
struct WeightGradient {
  const Convolution& v;
  const float *dy, *x, *carry;
  float* dw;
};

RO_INLINE int64_t find_parts(const Convolution& v, int64_t k0, int64_t k1, ImagePart* parts) {
  int64_t count = 0, base = 0;
  for (int64_t k = k0; k < k1;) {
    const int64_t image = k / v.y_plane(), begin = k % v.y_plane(), end = min64(v.y_plane(), begin + k1 - k);
    const int64_t oh0 = begin / v.w.out, oh1 = (end - 1) / v.w.out;
    ImagePart p{image, begin, end, k - k0, max64(0, v.h.source(oh0, 0)), min64(v.h.in - 1, v.h.source(oh1, v.h.taps - 1)),
                0, v.w.in - 1, base};
    if (oh0 == oh1) {
      p.left = max64(0, v.w.source(begin % v.w.out, 0));
      p.right = min64(v.w.in - 1, v.w.source((end - 1) % v.w.out, v.w.taps - 1));
    }
    base += max64(0, p.bottom - p.top + 1) * max64(0, p.right - p.left + 1);
    parts[count++] = p;
    k += end - begin;
  }
  return count;
}

// The terms of a tap in one block.
RO_INLINE int64_t find_terms(const Convolution& v, const ImagePart* parts, int64_t count, int64_t kh, int64_t kw, TermRun* runs) {
  int64_t found = 0;
  for (int64_t i = 0; i < count; ++i) {
    const ImagePart& p = parts[i];
    for (int64_t k = p.begin; k < p.end;) {
      const int64_t oh = k / v.w.out, ow0 = k % v.w.out, ow1 = min64(v.w.out, ow0 + p.end - k), ih = v.h.source(oh, kh);
      const int64_t next = k + ow1 - ow0, first = v.w.source(0, kw);
      // ow * stride + first in [0, in)
      const int64_t from = max64(ow0, first >= 0 ? 0 : ceil_div(-first, v.w.stride));
      const int64_t to = first >= v.w.in ? 0 : min64(ow1, (v.w.in - 1 - first) / v.w.stride + 1);
      if (v.h.inside(ih) && from < to) {
        const TermRun r{p.base + (ih - p.top) * (p.right - p.left + 1) + v.w.source(from, kw) - p.left, p.term + k - p.begin + from - ow0,
                        to - from};
        TermRun* last = found ? runs + found - 1 : nullptr;
        if (last && last->b + last->length == r.b && last->a + last->length * v.w.stride == r.a) last->length += r.length;
        else runs[found++] = r;
      }
      k = next;
    }
  }
  return found;
}

// The gradient for channels [c0, c1) and filters [o0, o1).
static void weight_part(const WeightGradient& g, int64_t c0, int64_t c1, int64_t o0, int64_t o1) {
  const Convolution& v = g.v;
  const int64_t taps = v.taps(), rows_here = c1 - c0, width = ceil_div(o1 - o0, kLanes) * kLanes, depth = v.channels * taps;
  const Panels panels = Panels::of(rows_here);
  float* const sums = (float*)scratch(1, sizeof(float) * taps * rows_here * width);  // [tap][channel][filter]
  bool* const begun = (bool*)scratch(2, taps);
  ImagePart* const parts = (ImagePart*)scratch(3, (sizeof(ImagePart) + sizeof(TermRun)) * kDotBlock);
  TermRun* const runs = (TermRun*)(parts + kDotBlock);
  for (int64_t t = 0; t < taps; ++t) begun[t] = g.carry != nullptr;
  const auto sum_at = [&](int64_t e) { return sums + (e % taps * rows_here + e / taps) * width; };
  if (g.carry)
    for (int64_t o = o0; o < o1; ++o)
      for (int64_t e = 0; e < rows_here * taps; ++e) sum_at(e)[o - o0] = load_f32(g.carry + o * depth + c0 * taps, e);
  float* const packed_dy = (float*)scratch(4, sizeof(float) * kDotBlock * width);
  for (int64_t k0 = v.start; k0 < v.stop; k0 = (k0 / kDotBlock + 1) * kDotBlock) {
    const int64_t k1 = min64((k0 / kDotBlock + 1) * kDotBlock, v.stop), kc = k1 - k0;
    const int64_t count = find_parts(v, k0, k1, parts);
    const ImagePart& end = parts[count - 1];
    const int64_t positions = end.base + max64(0, end.bottom - end.top + 1) * max64(0, end.right - end.left + 1);
    float* const packed_x = (float*)scratch(7, sizeof(float) * positions * rows_here + 64);
    for (int64_t i = 0; i < count; ++i) {
      const ImagePart& p = parts[i];
      const float* dy = g.dy + p.image * v.groups * v.filters * v.y_plane() + p.begin;
      for (int64_t j = o0; j < o1; j += kCols) {
        const int64_t cols = min64(kCols, o1 - j), w = ceil_div(cols, kLanes) * kLanes;
        pack_transposed<kF32>({(const char*)(dy + j * v.y_plane()), 4 * v.y_plane(), 4}, cols, 0, p.end - p.begin, w,
                        packed_dy + (j - o0) * kc + p.term * w);
      }
      const int64_t lines = p.bottom - p.top + 1, columns = p.right - p.left + 1;
      if (lines <= 0 || columns <= 0) continue;
      const bool joined = columns == v.w.in;
      for (int64_t n = 0; n < panels.count; ++n) {
        const int64_t row = panels.start(n), rows = panels.start(n + 1) - row;
        const float* x = g.x + (p.image * v.groups * v.channels + c0 + row) * v.x_plane() + p.top * v.w.in + p.left;
        float* to = packed_x + row * positions + p.base * rows;
        for (int64_t line = 0; line < (joined ? 1 : lines); ++line)
          pack_transposed<kF32>({(const char*)(x + line * v.w.in), 4 * v.x_plane(), 4}, rows, 0, joined ? lines * columns : columns, rows,
                          to + line * columns * rows);
      }
    }
    for (int64_t t = 0; t < taps; ++t) {
      const int64_t found = find_terms(v, parts, count, t / v.w.taps, t % v.w.taps, runs);
      if (found == 0) continue;
      for (int64_t j = 0; j < o1 - o0; j += kCols) {
        const int64_t vectors = ceil_div(min64(kCols, o1 - o0 - j), kLanes);
        for (int64_t n = 0; n < panels.count; ++n) {
          const int64_t row = panels.start(n), rows = panels.start(n + 1) - row;
          find_run_tile(rows, vectors)(runs, found, packed_x + row * positions, packed_dy + j * kc, v.w.stride,
                                                 sums + (t * rows_here + row) * width + j, width, begun[t]);
        }
      }
      begun[t] = true;
    }
  }
  for (int64_t t = 0; t < taps; ++t)
    if (!begun[t]) std::memset(sums + t * rows_here * width, 0, sizeof(float) * rows_here * width);
  for (int64_t o = o0; o < o1; o += kLanes)
    for (int64_t e = 0; e < rows_here * taps; e += kLanes) {
      const int64_t n = min64(kLanes, rows_here * taps - e);
      F x[kLanes];
      for (int64_t i = 0; i < kLanes; ++i) x[i] = i < n ? canonical(F::load(sum_at(e + i) + o - o0)) : F::set(0.0f);
      transpose(x);
      for (int64_t i = 0; i < kLanes && o + i < o1; ++i) x[i].store(g.dw + (o + i) * depth + c0 * taps + e, (int)n);
    }
}

constexpr int64_t kWeightSums = 192 << 10;  // sums that stay in the second cache, in floats

static void few_channels(const Convolution& v, const float* dy, const float* x, const float* carry, float* dw, int threads) {
  const int64_t depth = v.channels * v.taps(), step_o = min64(v.filters, 8 * kCols), across = ceil_div(v.filters, step_o);
  const int64_t most = max64(1, kWeightSums / step_o / kRows) * kRows;  // rows whose sums stay in the second cache
  const int64_t down = max64(ceil_div(depth, most), min64(ceil_div(depth, kRows), ceil_div(threads, v.groups * across)));
  parallel_dynamic(v.groups * across * down, threads, [&](int64_t i) {
    const int64_t group = i / (across * down), o0 = i / down % across * step_o, r = i % down;
    const int64_t at = group * v.filters * depth;
    few_channels_weight(v, dy + group * v.filters * v.y_plane(), x + group * v.channels * v.x_plane(), carry ? carry + at : nullptr,
                        dw + at, depth * r / down, depth * (r + 1) / down, o0, min64(o0 + step_o, v.filters));
  });
}

// Where every position is seen through every tap, the gradient is a plain product [filters, positions] x [positions, depth].
RO_INLINE bool sees_all(const Convolution& v) {
  const auto all = [](const Window& a) { return a.pad == 0; };
  return all(v.h) && all(v.w) && v.start < v.stop;
}

// Rows e of one position's product, channel and tap, that lie together in x, and where they go in the packed panels.
struct TapStretch {
  int64_t x, length, panel, column;
};

// One group, filters [o0, o1), rows [e0, e1) of (channel, kh, kw); e0 is a multiple of kCols.
static void whole_weight_part(const WeightGradient& g, int64_t o0, int64_t o1, int64_t e0, int64_t e1) {
  const Convolution& v = g.v;
  const int64_t taps = v.taps(), depth = v.channels * taps, wide = ceil_div(e1 - e0, kCols);
  constexpr int64_t kFilters = 32 * kRows;  // that are packed together: they stay in the second cache
  float* const a = (float*)scratch(1, sizeof(float) * kDotBlock * kFilters + 64);
  float* const b = (float*)scratch(2, sizeof(float) * kDotBlock * wide * kCols);
  TapStretch* const stretches = (TapStretch*)scratch(3, sizeof(TapStretch) * (e1 - e0));
  int64_t found = 0;
  for (int64_t e = e0; e < e1;) {
    const int64_t kw = e % v.w.taps, column = (e - e0) % kCols;
    const int64_t n = v.w.dilation > 1 ? 1 : min64(min64(v.w.taps - kw, kCols - column), e1 - e);
    stretches[found++] = {e / taps * v.x_plane() + e % taps / v.w.taps * v.h.dilation * v.w.in + kw * v.w.dilation, n, (e - e0) / kCols, column};
    e += n;
  }
  const Product p{{}, {}, v.filters, depth, v.stop - v.start, (char*)(g.dw), 4 * depth, 4, g.carry != nullptr, false, 0.0f};
  if (g.carry)
    for (int64_t o = o0; o < o1; ++o) std::memcpy(g.dw + o * depth + e0, g.carry + o * depth + e0, sizeof(float) * (e1 - e0));
  for (int64_t k0 = v.start, k1; k0 < v.stop; k0 = k1) {
    k1 = min64((k0 / kDotBlock + 1) * kDotBlock, v.stop);
    const int64_t kc = k1 - k0;
    const int mode = (k0 > v.start || g.carry ? kAdd : 0) | (k1 == v.stop ? kLast : 0);
    for (int64_t k = k0; k < k1; ++k) {
      const int64_t image = k / v.y_plane(), oh = k % v.y_plane() / v.w.out, ow = k % v.w.out;
      const float* x = g.x + image * v.groups * v.channels * v.x_plane() + oh * v.h.stride * v.w.in + ow * v.w.stride;
      float* const to = b + (k - k0) * kCols;
      for (int64_t i = 0; i < found; ++i) {
        const TapStretch& s = stretches[i];
        __builtin_prefetch(x + s.x + 4 * v.w.stride);  // positions ahead
        for (int64_t c = 0; c < s.length; c += kLanes) {
          const int lanes = (int)min64(kLanes, s.length - c);
          float* own = to + s.panel * kc * kCols + s.column + c;
          if (lanes == kLanes) F::load(x + s.x + c).store(own);
          else F::load(x + s.x + c, lanes).store(own, lanes);
        }
      }
    }
    for (int64_t c0 = o0; c0 < o1; c0 += kFilters) {
      const Panels panels = Panels::of(min64(kFilters, o1 - c0));
      for (int64_t k = k0, n; k < k1; k += n) {
        const int64_t image = k / v.y_plane(), at = k % v.y_plane();
        n = min64(v.y_plane() - at, k1 - k);
        const float* dy = g.dy + (image * v.groups * v.filters + c0) * v.y_plane();
        for (int64_t i = 0; i < panels.count; ++i) {
          const int64_t row = panels.start(i), rows = panels.start(i + 1) - row;
          pack_transposed<kF32>({(const char*)(dy + row * v.y_plane()), 4 * v.y_plane(), 4}, rows, at, n, rows,
                                a + row * kc + (k - k0) * rows);
        }
      }
      for (int64_t j = 0; j < wide; ++j) {
        const int64_t e = e0 + j * kCols, cols = min64(kCols, e1 - e);
        const float* pb = b + j * kc * kCols;
        for (int64_t i = 0; i < panels.count; ++i) {
          const int64_t row = panels.start(i), rows = panels.start(i + 1) - row;
          const Tile tile = find_tile(rows, kVectors);
          if (cols == kCols) tile(kc, a + row * kc, 0, pb, (char*)(g.dw + (c0 + row) * depth + e), 4 * depth, mode, 0.0f);
          else edge_tile(p, tile, kc, a + row * kc, 0, pb, c0 + row, rows, e, cols, kVectors, mode);
        }
      }
    }
  }
}

static void whole_weight(const Convolution& v, const float* dy, const float* x, const float* carry, float* dw, int threads) {
  const int64_t depth = v.channels * v.taps(), in_e = max64(ceil_div(depth, 24 * kCols), min64(ceil_div(depth, kCols), ceil_div(threads, v.groups)));
  const int64_t in_o = min64(ceil_div(v.filters, kRows), ceil_div(threads, v.groups * in_e));
  parallel_dynamic(v.groups * in_e * in_o, threads, [&](int64_t i) {
    const int64_t group = i / (in_e * in_o), e = i / in_o % in_e, o = i % in_o, at = group * v.filters * depth;
    const int64_t width = ceil_div(ceil_div(depth, in_e), kCols) * kCols;
    const WeightGradient g{v, dy + group * v.filters * v.y_plane(), x + group * v.channels * v.x_plane(), carry ? carry + at : nullptr, dw + at};
    if (e * width < depth)
      whole_weight_part(g, v.filters * o / in_o, v.filters * (o + 1) / in_o, e * width, min64(depth, (e + 1) * width));
  });
}

// Parts of the sums: lanes in whole tiles, and rows. All of nearly equal size, so many that every thread has as many as the others.
struct WeightParts {
  int64_t rows, lanes, tiles, in_lanes, in_rows;

  WeightParts(int64_t rows, int64_t lanes, int64_t taps, int64_t groups, int64_t workers) : rows(rows), lanes(lanes), tiles(ceil_div(lanes, kCols)) {
    in_lanes = ceil_div(tiles, max64(1, kWeightSums / (taps * kRows) / kCols));
    const int64_t width = ceil_div(tiles, in_lanes) * kCols, most = max64(1, kWeightSums / (taps * width) / kRows) * kRows;
    const int64_t least = groups * in_lanes * ceil_div(rows, most);
    in_rows = min64(ceil_div(rows, kRows), ceil_div(ceil_div(least, workers) * workers, groups * in_lanes));
    in_lanes = min64(tiles, max64(in_lanes, ceil_div(workers, groups * in_rows)));
  }
  RO_MEMBER int64_t count() const { return in_lanes * in_rows; }
  // Calls body(r0, r1, l0, l1).
  template <class Body>
  RO_MEMBER void part(int64_t i, const Body& body) const {
    const int64_t r = i % in_rows, l = i / in_rows;
    body(rows * r / in_rows, rows * (r + 1) / in_rows, tiles * l / in_lanes * kCols, min64(tiles * (l + 1) / in_lanes * kCols, lanes));
  }
};

// One tap without stride. The side with fewer channels is packed as lanes, unless that would leave more lanes unused.
static void point_weight(const Convolution& v, const float* dy, const float* x, const float* carry, float* dw, int64_t workers) {
  const int64_t plane = v.y_plane(), all_o = v.groups * v.filters * plane, all_c = v.groups * v.channels * plane;
  const bool by_channels = v.channels < v.filters && ceil_div(v.channels, kLanes) * v.filters <= ceil_div(v.filters, kLanes) * v.channels;
  const WeightParts parts(by_channels ? v.filters : v.channels, by_channels ? v.channels : v.filters, 1, v.groups, workers);
  parallel_dynamic(v.groups * parts.count(), (int)workers, [&](int64_t i) {
    const int64_t group = i / parts.count(), at = group * v.filters * v.channels;
    const PointSide o{dy + group * v.filters * plane, all_o, v.channels}, c{x + group * v.channels * plane, all_c, 1};
    parts.part(i % parts.count(), [&](int64_t r0, int64_t r1, int64_t l0, int64_t l1) {
      point_weight_part(v, by_channels ? o : c, by_channels ? c : o, carry ? carry + at : nullptr, dw + at, r0, r1, l0, l1);
    });
  });
}

static void convolve_weight(const Call& call) {
  const Convolution v(call, call.in[1], call.out, call.in[0]);
  if (element_count(call.out) == 0) return;
  const float *dy = floats(call.in[0]), *x = floats(call.in[1]), *carry = call.inputs > 2 ? floats(call.in[2]) : nullptr;
  float* const dw = (float*)call.out.data;
  const int64_t taps = v.taps(), work = v.groups * v.filters * v.channels * taps * (v.stop - v.start);
  const int64_t workers = max64(1, min64(call.threads, work / 32768));
  if (v.channels == 1 && v.filters == 1 && v.groups >= kLanes / 2) {
    parallel_for(ceil_div(v.groups, kLanes), 1, (int)workers, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) depthwise_weight(v, dy, x, carry, dw, i * kLanes);
    });
    return;
  }
  if (v.channels < kRows && v.w.taps >= 4 && sees_all(v)) return whole_weight(v, dy, x, carry, dw, (int)workers);
  if (v.channels < kRows) return few_channels(v, dy, x, carry, dw, (int)workers);
  if (is_point(v.h) && is_point(v.w) && v.x_plane() == v.y_plane()) return point_weight(v, dy, x, carry, dw, workers);
  const WeightParts parts(v.channels, v.filters, taps, v.groups, workers);
  parallel_dynamic(v.groups * parts.count(), (int)workers, [&](int64_t i) {
    const int64_t group = i / parts.count(), at = group * v.filters * v.channels * taps;
    const WeightGradient g{v, dy + group * v.filters * v.y_plane(), x + group * v.channels * v.x_plane(), carry ? carry + at : nullptr, dw + at};
    parts.part(i % parts.count(), [&](int64_t c0, int64_t c1, int64_t o0, int64_t o1) { weight_part(g, c0, c1, o0, o1); });
  });
}

RO_KERNEL(conv2d_dw) {
  const Convolution v(call, call.in[1], call.out, call.in[0]);
  if (gathers_points(v)) with_gathered_points(call, v, 1, convolve_weight);
  else convolve_weight(call);
}

}  // namespace RO_ISA
}  // namespace ro
