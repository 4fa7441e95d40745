// Convolution and the gradient of its input, in the order DOT by position index (docs/spec/operators.md, "Convolution"): taps that see
// nothing are skipped, which multiplying by zero would not be.
//
// Both are one product over k = (channel, kh, kw). Positions are sorted into classes with the same visible taps (interior, borders; for a
// gradient with stride one class for each remainder), so that all of a tile has the same k; the blocks of 256 stay those of the whole k.
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
  RO_MEMBER bool reads_as(const AxisClass& o) const {
    return count == o.count && taps == 1 && o.taps == 1 && source == o.source && source_step == o.source_step;
  }
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

// out[image, m, i, j] = DOT over k = (q, kh, kw) of (a[m, q, kh, kw], in[image, q, row, column]), for every group. Strides in floats.
struct Gathered {
  const float* in;
  int64_t in_group, in_image, in_plane, in_width;
  const float* a;
  int64_t a_group, a_row, a_channel;
  float* out;
  const float* carry;  // nullptr: none
  int64_t out_group, out_image, out_plane, out_rows, out_width;
  int64_t groups, images, rows, kh, kw, start, stop;
  int64_t block = kDotBlock;  // positions k of a block
  // Patches: row m is element (m / tile_plane, m / tile_w % tile_h, m % tile_w) of a tile, of which (i, j) has the place; else 0.
  int64_t tile_h = 0, tile_w = 0, out_line = 0;

  RO_MEMBER int64_t depth() const { return stop - start; }
  RO_MEMBER Gathered of_group(int64_t i) const {
    Gathered g = *this;
    g.in += i * in_group, g.a += i * a_group, g.out += i * out_group;
    if (carry) g.carry += i * out_group;
    return g;
  }
};

// Rows and columns of one class.
struct Sight {
  AxisClass h, w;
  RO_MEMBER int64_t columns(const Gathered& g) const { return g.images * h.count * w.count; }
};

// One k that a class sees: its place in the input, and its number in the range.
struct Term {
  int64_t in, at;
};

// The terms of a class in [k0, k1), and where the blocks begin: in the thread's scratch memory, which has room for `most`.
struct Terms {
  Term* list;
  int64_t* begin;
  int64_t count = 0, blocks = 0;

  static int64_t most(const Gathered& g, const Sight& s, int64_t range) {
    const int64_t taps = g.kh * g.kw;
    return min64(range, (ceil_div(range, taps) + 1) * s.h.taps * s.w.taps);
  }
  Terms(const Gathered& g, const Sight& s, int64_t k0, int64_t k1, int slot) {
    const int64_t taps = g.kh * g.kw, room = most(g, s, k1 - k0);
    list = (Term*)scratch(slot, sizeof(Term) * room + sizeof(int64_t) * (room + 1));
    begin = (int64_t*)(list + room);
    int64_t next = 0;  // the first k of a later block
    for (int64_t q = k0 / taps; q * taps < k1; ++q)
      for (int64_t u = 0; u < s.h.taps; ++u) {
        const int64_t line = q * g.in_plane + (s.h.source + u * s.h.source_tap) * g.in_width + s.w.source;
        int64_t k = q * taps + (s.h.tap + u * s.h.tap_step) * g.kw + s.w.tap;
        for (int64_t v = 0; v < s.w.taps; ++v, k += s.w.tap_step) {
          if (k < k0 || k >= k1) continue;
          if (k >= next) {
            next = (k / g.block + 1) * g.block;
            begin[blocks++] = count;
          }
          list[count++] = {line + v * s.w.source_tap, k - g.start};
        }
      }
    begin[blocks] = count;
  }
};

// +0.0, or the carry, everywhere.
static void gathered_empty(const Gathered& g, int64_t elements, int threads) {
  parallel_for(elements, 1 << 14, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) store_f32(g.out, i, g.carry ? ro::canonical(load_f32(g.carry, i)) : 0.0f);
  });
}

}  // namespace RO_ISA
}  // namespace ro
