// Convolution and its gradients in the order DOT by position index (docs/spec/operators.md, "Convolution"): taps outside the input are
// skipped, which multiplying by zero would not be.
//
// conv2d and conv2d_dx are one product: output positions are the lanes, k = (channel, kh, kw). Positions are sorted into classes
// with the same visible taps (interior, borders; for a gradient with stride one class for each remainder), so that inside a class every
// lane has the same k and the plain tiles of matmul.h serve; the blocks of 256 stay those of the whole k. conv2d_dw has k = (image, oh, ow)
// and one product for each tap: output channels are the lanes, input channels the rows, and all of a tile sees the same positions.
#pragma once
#include <vector>

#include "matmul.h"
#include "window.h"

namespace ro {
namespace RO_ISA {

RO_INLINE const float* floats(const Tensor& t) { return (const float*)t.data; }

// The positions first + j * step, j < count, of one axis, which all see the taps tap + u * tap_step, u < taps:
// source + j * source_step + u * source_tap.
struct AxisClass {
  int64_t first, step, count, tap, tap_step, taps, source, source_step, source_tap;
};

// Sorts an axis into classes; those without a tap are left out. `gradient`: input positions that read the output.
struct AxisClasses {
  std::vector<AxisClass> list;
  bool complete = true;  // no position is left out

  AxisClasses(const Window& a, bool gradient) {
    const int64_t positions = gradient ? a.in : a.out;
    const auto source = [&](int64_t i, int64_t t) {
      if (gradient) return a.reader(i, t);
      const int64_t s = a.source(i, t);
      return a.inside(s) ? s : -1;
    };
    for (int64_t i = 0; i < positions; ++i) {
      AxisClass c{i, 1, 1, 0, 1, 0, 0, 1, 0};
      for (int64_t t = 0; t < a.taps; ++t) {
        const int64_t s = source(i, t);
        if (s < 0) continue;
        if (c.taps == 0) {
          c.tap = t;
          c.source = s;
        } else if (c.taps == 1) {
          c.tap_step = t - c.tap;
          c.source_tap = s - c.source;
        }
        ++c.taps;
      }
      if (c.taps == 0) {
        complete = false;
        continue;
      }
      size_t k = 0;
      while (k < list.size() && (list[k].tap != c.tap || list[k].taps != c.taps)) ++k;
      if (k == list.size()) {
        list.push_back(c);
        continue;
      }
      AxisClass& known = list[k];
      if (known.count == 1) {
        known.step = i - known.first;
        known.source_step = c.source - known.source;
      }
      ++known.count;
    }
  }
};

// out[image, m, i, j] = DOT over k = (q, kh, kw) of (a[m, q, kh, kw], in[image, q, row, column]). Strides in floats.
struct Gathered {
  const float* in;
  int64_t in_image, in_plane, in_width;
  const float* a;
  int64_t a_row, a_channel;
  float* out;
  const float* carry;  // nullptr: none
  int64_t out_image, out_plane, out_width;
  int64_t images, rows, channels, kh, kw, start, stop;
};

// The k of one class: where each is in `in` and in `a`; and where the blocks of 256 begin.
struct Terms {
  int64_t *in, *a, *begin;
  int64_t count = 0, blocks = 0;

  Terms(const Gathered& g, const AxisClass& h, const AxisClass& w, int slot) {
    const int64_t most = g.stop - g.start, taps = g.kh * g.kw;
    in = (int64_t*)scratch(slot, sizeof(int64_t) * (3 * most + 2));
    a = in + most;
    begin = a + most;
    int64_t block = -1;
    for (int64_t q = g.start / taps; q * taps < g.stop; ++q)
      for (int64_t u = 0; u < h.taps; ++u)
        for (int64_t v = 0; v < w.taps; ++v) {
          const int64_t tap = (h.tap + u * h.tap_step) * g.kw + w.tap + v * w.tap_step, k = q * taps + tap;
          if (k < g.start || k >= g.stop) continue;
          if (k / kDotBlock != block) {
            block = k / kDotBlock;
            begin[blocks++] = count;
          }
          in[count] = q * g.in_plane + (h.source + u * h.source_tap) * g.in_width + w.source + v * w.source_tap;
          a[count++] = q * g.a_channel + tap;
        }
    begin[blocks] = count;
  }
};

// Neighbouring columns of a product that lie in steps in the input and in the output.
struct ColumnRun {
  int64_t in, out, column, length;
};

// The columns [n0, n1) of a class (image, row, column of its positions) as runs.
RO_INLINE int64_t find_runs(const Gathered& g, const AxisClass& h, const AxisClass& w, int64_t n0, int64_t n1, ColumnRun* runs) {
  int64_t count = 0;
  for (int64_t n = n0; n < n1;) {
    const int64_t line = n / w.count, j = n % w.count, image = line / h.count, i = line % h.count;
    const int64_t length = min64(w.count - j, n1 - n);
    const ColumnRun r{image * g.in_image + i * h.source_step * g.in_width + j * w.source_step,
                image * g.out_image + (h.first + i * h.step) * g.out_width + w.first + j * w.step, n - n0, length};
    ColumnRun* last = count ? runs + count - 1 : nullptr;
    if (last && last->in + last->length * w.source_step == r.in && last->out + last->length * w.step == r.out) last->length += length;
    else runs[count++] = r;
    n += length;
  }
  return count;
}

// to[i] = from[i * step]; may write up to a vector more.
RO_INLINE void gather_run(float* to, const float* from, int64_t length, int64_t step) {
  if (step == 1) {
    int64_t i = 0;
    for (; i + kLanes <= length; i += kLanes) F::load(from + i).store(to + i);
    if (i < length) F::load(from + i, (int)(length - i)).store(to + i);
  } else {
    for (int64_t i = 0; i < length; ++i) to[i] = load_f32(from + i * step, 0);
  }
}
// to[i * step] = from[i].
RO_INLINE void scatter_run(float* to, const float* from, int64_t length, int64_t step) {
  if (step == 1) {
    int64_t i = 0;
    for (; i + kLanes <= length; i += kLanes) F::load(from + i).store(to + i);
    if (i < length) F::load(from + i).store(to + i, (int)(length - i));
  } else {
    for (int64_t i = 0; i < length; ++i) store_f32(to + i * step, 0, from[i]);
  }
}

// Columns of the input for one block of k: panels of kCols columns as pack_b makes them. line: room for one line of them.
static void pack_columns(const Gathered& g, const Terms& t, int64_t k0, int64_t kc, const ColumnRun* runs, int64_t count, int64_t step,
                         int64_t nc, float* line, float* dst) {
  for (int64_t k = 0; k < kc; ++k) {
    const float* from = g.in + t.in[k0 + k];
    for (int64_t r = 0; r < count; ++r) gather_run(line + runs[r].column, from + runs[r].in, runs[r].length, step);
    F::set(0.0f).store(line + nc);
    for (int64_t j = 0; j < nc; j += kCols) {
      const int64_t width = ceil_div(min64(kCols, nc - j), kLanes) * kLanes;
      float* to = dst + j * kc + k * width;
      for (int64_t c = 0; c < width; c += kLanes) F::load(line + j + c).store(to + c);
    }
  }
}

// Columns [n0, n1) of a class, panels [panel0, panel1) of its rows. packed: panel i at start(i) * t.count.
static void gathered_part(const Gathered& g, const AxisClass& h, const AxisClass& w, const Terms& t, const Panels& panels,
                          const float* packed, int64_t panel0, int64_t panel1, int64_t n0, int64_t n1) {
  const int64_t row0 = panels.start(panel0), rows_here = panels.start(panel1) - row0;
  const int64_t widest = min64(kColumnBlock, ceil_div(n1 - n0, kLanes) * kLanes);
  const bool summed = t.blocks > 1 || g.carry;
  int64_t longest = 0;
  for (int64_t b = 0; b < t.blocks; ++b) longest = max64(longest, t.begin[b + 1] - t.begin[b]);
  float* const b = (float*)scratch(1, sizeof(float) * longest * widest);
  float* const sums = (float*)scratch(2, summed ? sizeof(float) * rows_here * widest : 64);
  ColumnRun* const runs = (ColumnRun*)scratch(3, sizeof(ColumnRun) * kColumnBlock + sizeof(float) * (kColumnBlock + 2 * kLanes));
  float* const line = (float*)(runs + kColumnBlock);
  alignas(64) float buffer[kRows * kCols];
  for (int64_t jc = n0; jc < n1; jc += kColumnBlock) {
    const int64_t nc = min64(kColumnBlock, n1 - jc);
    const int64_t count = find_runs(g, h, w, jc, jc + nc, runs);
    if (g.carry)
      for (int64_t m = 0; m < rows_here; ++m)
        for (int64_t r = 0; r < count; ++r)
          for (int64_t i = 0; i < runs[r].length; ++i)
            sums[m * widest + runs[r].column + i] = load_f32(g.carry + (row0 + m) * g.out_plane + runs[r].out + i * w.step, 0);
    for (int64_t block = 0; block < t.blocks; ++block) {
      const int64_t k0 = t.begin[block], kc = t.begin[block + 1] - k0;
      const bool last = block + 1 == t.blocks, begun = block > 0 || g.carry;
      pack_columns(g, t, k0, kc, runs, count, w.source_step, nc, line, b);
      for (int64_t i = panel0; i < panel1; ++i) {
        const int64_t row = panels.start(i), rows = panels.start(i + 1) - row;
        const float* a = packed + row * t.count + k0 * rows;
        int64_t run = 0;
        for (int64_t j = 0; j < nc; j += kCols) {
          const int64_t cols = min64(kCols, nc - j), vectors = ceil_div(cols, kLanes), width = vectors * kLanes;
          float* sum = sums + (row - row0) * widest + j;
          const Tile kernel = find_tile((int)rows, (int)vectors);
          if (!last) {
            kernel(kc, a, b + j * kc, (char*)sum, 4 * widest, begun ? kAdd : 0, 0.0f);
            continue;
          }
          kernel(kc, a, b + j * kc, (char*)buffer, 4 * width, 0, 0.0f);
          for (int64_t r = 0; r < rows; ++r)
            for (int64_t c = 0; c < width; c += kLanes) {
              float* p = buffer + r * width + c;
              canonical(begun ? add(F::load(sum + r * widest + c), F::load(p)) : F::load(p)).store(p);
            }
          while (runs[run].column + runs[run].length <= j) ++run;
          for (int64_t k = run; k < count && runs[k].column < j + cols; ++k) {
            const int64_t begin = max64(runs[k].column, j), end = min64(runs[k].column + runs[k].length, j + cols);
            float* to = g.out + row * g.out_plane + runs[k].out + (begin - runs[k].column) * w.step;
            for (int64_t r = 0; r < rows; ++r) scatter_run(to + r * g.out_plane, buffer + r * width + begin - j, end - begin, w.step);
          }
        }
      }
    }
  }
}

// +0.0, or the carry, at the positions of a class.
static void gathered_empty(const Gathered& g, const AxisClass& h, const AxisClass& w) {
  for (int64_t m = 0; m < g.images * g.rows; ++m)
    for (int64_t i = 0; i < h.count; ++i)
      for (int64_t j = 0; j < w.count; ++j) {
        const int64_t map = m / g.rows * g.out_image + m % g.rows * g.out_plane;
        const int64_t at = map + (h.first + i * h.step) * g.out_width + w.first + j * w.step;
        store_f32(g.out, at, g.carry ? ro::canonical(load_f32(g.carry, at)) : 0.0f);
      }
}

static void gathered_class(const Gathered& g, const AxisClass& h, const AxisClass& w, int threads) {
  const Terms t(g, h, w, 4);
  if (t.count == 0) return gathered_empty(g, h, w);
  // As many rows at a time as pack into 64 MiB.
  const int64_t chunk = max64(kRows, (64 << 20) / (4 * t.count) / kRows * kRows);
  if (g.rows > chunk) {
    for (int64_t m0 = 0; m0 < g.rows; m0 += chunk) {
      Gathered part = g;
      part.a += m0 * g.a_row;
      part.out += m0 * g.out_plane;
      if (part.carry) part.carry += m0 * g.out_plane;
      part.rows = min64(chunk, g.rows - m0);
      gathered_class(part, h, w, threads);
    }
    return;
  }
  const Panels panels = Panels::of(g.rows);
  float* const packed = (float*)scratch(0, sizeof(float) * g.rows * t.count + 64);
  const int64_t n = g.images * h.count * w.count, work = g.rows * n * t.count;
  const int64_t workers = max64(1, min64(threads, work / 32768));
  const bool whole = t.count == g.stop - g.start && g.a_channel == g.kh * g.kw;
  parallel_for(panels.count, ceil_div(32768, kRows * t.count), (int)workers, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = panels.start(i), rows = panels.start(i + 1) - row;
      float* to = packed + row * t.count;
      if (whole) {
        pack_a({(const char*)(g.a + g.start), 4 * g.a_row, 4}, row, rows, 0, t.count, to);
        continue;
      }
      for (int64_t k = 0; k < t.count; ++k)
        for (int64_t r = 0; r < rows; ++r) *to++ = load_f32(g.a + (row + r) * g.a_row + t.a[k], 0);
    }
  });
  const int64_t columns = ceil_div(n, kCols), grid_n = min64(workers, columns), grid_m = min64(workers / grid_n, panels.count);
  parallel_for(grid_m * grid_n, 1, (int)workers, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const int64_t i = p / grid_n, j = p % grid_n;
      const int64_t n0 = columns * j / grid_n * kCols, n1 = min64(columns * (j + 1) / grid_n * kCols, n);
      const int64_t i0 = panels.count * i / grid_m, i1 = panels.count * (i + 1) / grid_m;
      if (i0 < i1 && n0 < n1) gathered_part(g, h, w, t, panels, packed, i0, i1, n0, n1);
    }
  });
}

static void gathered(const Gathered& g, const AxisClasses& h, const AxisClasses& w, int threads) {
  if (!h.complete || !w.complete) {
    const AxisClass rows{0, 1, g.out_plane / max64(1, g.out_width), 0, 1, 0, 0, 1, 0}, columns{0, 1, g.out_width, 0, 1, 0, 0, 1, 0};
    gathered_empty(g, rows, columns);
  }
  for (const AxisClass& rows : h.list)
    for (const AxisClass& columns : w.list) gathered_class(g, rows, columns, threads);
}

RO_KERNEL(conv2d) {
  const Convolution v(call, call.in[0], call.in[1], call.out);
  if (element_count(call.out) == 0) return;
  const AxisClasses h(v.h, false), w(v.w, false);
  const int64_t depth = v.channels * v.taps();
  for (int64_t i = 0; i < v.groups; ++i) {
    Gathered g{};
    g.in = floats(call.in[0]) + i * v.channels * v.x_plane();
    g.in_image = v.groups * v.channels * v.x_plane();
    g.in_plane = v.x_plane();
    g.in_width = v.w.in;
    g.a = floats(call.in[1]) + i * v.filters * depth;
    g.a_row = depth;
    g.a_channel = v.taps();
    const int64_t at = i * v.filters * v.y_plane();
    g.out = (float*)call.out.data + at;
    g.carry = call.inputs > 2 ? floats(call.in[2]) + at : nullptr;
    g.out_image = v.groups * v.filters * v.y_plane();
    g.out_plane = v.y_plane();
    g.out_width = v.w.out;
    g.images = v.images, g.rows = v.filters, g.channels = v.channels, g.kh = v.h.taps, g.kw = v.w.taps;
    g.start = v.start, g.stop = v.stop;
    gathered(g, h, w, call.threads);
  }
}

RO_KERNEL(conv2d_dx) {
  const Convolution v(call, call.out, call.in[1], call.in[0]);
  if (element_count(call.out) == 0) return;
  const AxisClasses h(v.h, true), w(v.w, true);
  for (int64_t i = 0; i < v.groups; ++i) {
    Gathered g{};
    g.in = floats(call.in[0]) + i * v.filters * v.y_plane();
    g.in_image = v.groups * v.filters * v.y_plane();
    g.in_plane = v.y_plane();
    g.in_width = v.w.out;
    g.a = floats(call.in[1]) + i * v.filters * v.channels * v.taps();
    g.a_row = v.taps();
    g.a_channel = v.channels * v.taps();
    const int64_t at = i * v.channels * v.x_plane();
    g.out = (float*)call.out.data + at;
    g.carry = call.inputs > 2 ? floats(call.in[2]) + at : nullptr;
    g.out_image = v.groups * v.channels * v.x_plane();
    g.out_plane = v.x_plane();
    g.out_width = v.w.in;
    g.images = v.images, g.rows = v.channels, g.channels = v.filters, g.kh = v.h.taps, g.kw = v.w.taps;
    g.start = v.start, g.stop = v.stop;
    gathered(g, h, w, call.threads);
  }
}

// ---- gradient of the weight -----------------------------------------------------------------------------------------------

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

RO_KERNEL(conv2d_dw) {
  const Convolution v(call, call.in[1], call.out, call.in[0]);
  if (element_count(call.out) == 0) return;
  const int64_t taps = v.taps(), work = v.filters * v.channels * taps * (v.stop - v.start);
  const int64_t workers = max64(1, min64(call.threads, work / 32768));
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
      const WeightGradient g{v, floats(call.in[0]) + group * v.filters * v.y_plane(),
                             floats(call.in[1]) + group * v.channels * v.x_plane(),
                             call.inputs > 2 ? floats(call.in[2]) + at : nullptr, (float*)call.out.data + at};
      weight_part(g, c0, min64(c0 + channels, v.channels), o0, min64(o0 + step_o, v.filters));
    }
  });
}

}  // namespace RO_ISA
}  // namespace ro
