// The gradient of a convolution's weight: k = (image, oh, ow), and one product for each tap. Output channels are the lanes, input channels
// the rows, and all of a tile sees the same positions: runs of them.
#pragma once
#include "conv_forward.h"
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

template <int NV>
static RunTile run_tile_of_rows(int rows) {
  switch (rows) {
    case 1: return run_tile<1, NV>;
    case 2: return run_tile<2, NV>;
    case 3: return run_tile<3, NV>;
    case 4: return run_tile<4, NV>;
    case 5: return run_tile<5, NV>;
#if defined(RO_ISA_AVX512)
    case 6: return run_tile<6, NV>;
    case 7: return run_tile<7, NV>;
    case 8: return run_tile<8, NV>;
    case 9: return run_tile<9, NV>;
    case 10: return run_tile<10, NV>;
    case 11: return run_tile<11, NV>;
    case 12: return run_tile<12, NV>;
    case 13: return run_tile<13, NV>;
#endif
    default: return run_tile<kRows, NV>;
  }
}

static RunTile find_run_tile(int rows, int vectors) {
  switch (vectors) {
    case 1: return run_tile_of_rows<1>(rows);
#if defined(RO_ISA_NEON)
    case 2: return run_tile_of_rows<2>(rows);
    case 3: return run_tile_of_rows<3>(rows);
#endif
    default: return run_tile_of_rows<kVectors>(rows);
  }
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
          find_run_tile((int)rows, (int)vectors)(runs, found, packed_x + row * positions, packed_dy + j * kc, v.w.stride,
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

RO_KERNEL(conv2d_dw) {
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
  if (v.channels < kRows) return few_channels(v, dy, x, carry, dw, (int)workers);
  // Parts of the output: filters in whole tiles, channels in whole panels, at least one for each thread.
  const int64_t filters = min64(ceil_div(v.filters, kCols) * kCols, max64(1, kWeightSums / (taps * kRows) / kCols) * kCols);
  int64_t channels = max64(1, kWeightSums / (taps * filters) / kRows) * kRows;
  int64_t step_o = filters;
  if (ceil_div(v.filters, step_o) * ceil_div(v.channels, channels) < workers) {
    channels = max64(1, ceil_div(ceil_div(v.channels, workers), kRows)) * kRows;
    const int64_t parts = ceil_div(v.channels, channels);
    if (parts < workers) step_o = max64(1, min64(step_o, ceil_div(v.filters * parts, workers * kCols) * kCols));
  }
  const int64_t in_o = ceil_div(v.filters, step_o), in_c = ceil_div(v.channels, channels);
  parallel_for(v.groups * in_o * in_c, 1, (int)workers, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t group = i / (in_o * in_c), c0 = i % in_c * channels, o0 = i / in_c % in_o * step_o;
      const int64_t at = group * v.filters * v.channels * taps;
      const WeightGradient g{v, dy + group * v.filters * v.y_plane(), x + group * v.channels * v.x_plane(),
                             carry ? carry + at : nullptr, dw + at};
      weight_part(g, c0, min64(c0 + channels, v.channels), o0, min64(o0 + step_o, v.filters));
    }
  });
}

}  // namespace RO_ISA
}  // namespace ro
