// Convolution of one plane at a time, for groups of one channel (depthwise): lanes are columns of an output row, the taps are read from
// a padded copy of the plane, and lanes without a tap keep their sum. All of k is one block.
//
// Include after conv_direct.h.
#pragma once
#include "conv_direct.h"

namespace ro {
namespace RO_ISA {

// One tap along a row: column first + j * step of the output reads element j + shift of `phase`, for lo <= j < hi.
struct PlaneTap {
  int64_t tap, phase, shift, lo, hi;
};

// The columns first, first + step .. of the output, and their taps in ascending order.
struct PlaneColumns {
  int64_t first, step, count;
  int64_t full0, full1;  // the vectors of which every lane sees all taps
  std::vector<PlaneTap> taps;
  std::vector<M> masks;  // of the other vectors, for each tap: the lanes that see it

  RO_MEMBER const M* mask(int64_t vector) const {
    return masks.data() + (vector < full0 ? vector : vector - full1 + full0) * (int64_t)taps.size();
  }
  void find_masks(int64_t lo, int64_t hi) {  // lo <= j < hi: all taps are seen
    const int64_t vectors = ceil_div(count, kLanes);
    full0 = min64(vectors, ceil_div(lo, kLanes));
    full1 = max64(full0, hi >= count ? vectors : hi > 0 ? hi / kLanes : 0);
    for (int64_t v = 0; v < vectors; v = v + 1 == full0 ? full1 : v + 1)
      for (const PlaneTap& t : taps) {
        const int64_t from = max64(-1, min64(kLanes, t.lo - v * kLanes) - 1), to = max64(0, min64(kLanes, t.hi - v * kLanes));
        masks.push_back(and_(gt(lane_index(), I::set((int32_t)from)), lt(lane_index(), I::set((int32_t)to))));
      }
  }
};

// How planes are read: rows copied with every `phases`-th column together, each phase between margins.
struct PlaneShape {
  int64_t phases, left, pitch;
  std::vector<PlaneColumns> columns;

  PlaneShape(const Window& w, bool gradient) {
    const int64_t in = gradient ? w.out : w.in, out = gradient ? w.in : w.out;
    phases = gradient ? 1 : w.stride;
    const int64_t steps = gradient ? w.stride : 1;
    int64_t low = 0, high = 0, longest = 0;
    for (int64_t first = 0; first < steps && first < out; ++first) {
      PlaneColumns c{first, steps, ceil_div(out - first, steps), 0, 0, {}, {}};
      int64_t lo = 0, hi = c.count;
      longest = max64(longest, ceil_div(c.count, kLanes) * kLanes);
      for (int64_t t = 0; t < w.taps; ++t) {
        const int64_t at = gradient ? first + w.pad - t * w.dilation : t * w.dilation - w.pad;
        const int64_t shift = at >= 0 ? at / w.stride : -ceil_div(-at, w.stride), rest = at - shift * w.stride;
        if (gradient && rest != 0) continue;
        const int64_t length = gradient ? in : ceil_div(max64(0, in - rest), w.stride);
        const PlaneTap tap{t, gradient ? 0 : rest, shift, max64(0, -shift), min64(c.count, length - shift)};
        if (tap.lo >= tap.hi) continue;
        lo = max64(lo, tap.lo), hi = min64(hi, tap.hi);
        low = min64(low, shift), high = max64(high, shift);
        c.taps.push_back(tap);
      }
      c.find_masks(lo, hi);
      columns.push_back(std::move(c));
    }
    left = -low;
    pitch = left + max64(longest + high, ceil_div(in, phases)) + kLanes;
  }
};

// to[phase][left + j] = from[j * phases + phase].
RO_INLINE void copy_phases(const float* from, int64_t n, int64_t phases, int64_t left, int64_t pitch, float* to) {
  to += left;
  if (phases == 1) {
    std::memcpy(to, from, sizeof(float) * n);
  } else if (phases == 2) {
    int64_t j = 0;
    for (; 2 * j + 2 * kLanes + 1 <= n; j += kLanes) {
      even(F::load(from + 2 * j), F::load(from + 2 * j + kLanes)).store(to + j);
      even(F::load(from + 2 * j + 1), F::load(from + 2 * j + kLanes + 1)).store(to + pitch + j);
    }
    for (int64_t i = 2 * j; i < n; ++i) to[i % 2 * pitch + i / 2] = load_f32(from + i, 0);
  } else {
    for (int64_t i = 0; i < n; ++i) to[i % phases * pitch + i / phases] = load_f32(from + i, 0);
  }
}

struct PlaneTerm {
  const float* from;  // of column 0
  float weight;
  int64_t tap;  // its number along the row
};

template <int NV>
RO_INLINE void plane_vectors(const PlaneTerm* terms, int64_t count, int64_t j, F (&acc)[NV]) {
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) acc[v] = F::set(0.0f);
  for (int64_t t = 0; t < count; ++t) {
    const F w = F::set(terms[t].weight);
    const float* from = terms[t].from + j;
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) acc[v] = fma(F::load(from + v * kLanes), w, acc[v]);
  }
}
RO_INLINE F plane_edge(const PlaneTerm* terms, int64_t count, int64_t j, const M* masks) {
  F acc = F::set(0.0f);
  for (int64_t t = 0; t < count; ++t)
    acc = select(masks[terms[t].tap], fma(F::load(terms[t].from + j), F::set(terms[t].weight), acc), acc);
  return acc;
}

// One output plane. plane: the padded copy of the input's.
static void convolve_plane(const Window& h, bool gradient, const PlaneShape& shape, const float* plane, const float* weight, int64_t taps_w,
                           float* out, int64_t out_width, PlaneTerm* terms) {
  const int64_t rows = gradient ? h.in : h.out;
  for (int64_t i = 0; i < rows; ++i)
    for (const PlaneColumns& c : shape.columns) {
      int64_t count = 0;
      for (int64_t t = 0; t < h.taps; ++t) {
        const int64_t row = gradient ? h.reader(i, t) : h.source(i, t);
        if (gradient ? row < 0 : !h.inside(row)) continue;
        for (size_t n = 0; n < c.taps.size(); ++n) {
          const PlaneTap& tap = c.taps[n];
          terms[count++] = {plane + (row * shape.phases + tap.phase) * shape.pitch + shape.left + tap.shift, load_f32(weight, t * taps_w + tap.tap),
                            (int64_t)n};
        }
      }
      float* const to = out + i * out_width + c.first;
      for (int64_t v = 0; v * kLanes < c.count;) {
        const int64_t j = v * kLanes;
        if (v < c.full0 || v >= c.full1) {
          store_columns(plane_edge(terms, count, j, c.mask(v)), to + j * c.step, c.step, c.count - j);
          v += 1;
        } else if (v + 4 <= c.full1) {
          F acc[4];
          plane_vectors<4>(terms, count, j, acc);
          for (int i4 = 0; i4 < 4; ++i4)
            store_columns(acc[i4], to + (j + i4 * kLanes) * c.step, c.step, c.count - j - i4 * kLanes);
          v += 4;
        } else {
          F acc[1];
          plane_vectors<1>(terms, count, j, acc);
          store_columns(acc[0], to + j * c.step, c.step, c.count - j);
          v += 1;
        }
      }
    }
}

// Whether planes serve: one input plane for each output, all taps in one block, few phases.
RO_INLINE bool by_planes(const Call& call, const Convolution& v, bool gradient) {
  if (v.w.stride > 4) return false;
  return (gradient ? v.filters : v.channels) == 1 && call.inputs == 2 && v.taps() <= kDotBlock && v.start == 0 && v.stop == v.taps();
}

// conv2d of groups of one channel, conv2d_dx of groups of one filter.
static void convolve_planes(const Call& call, const Convolution& v, bool gradient, const float* in, const float* weight, float* out) {
  const PlaneShape shape(v.w, gradient);
  const Window& h = v.h;
  const int64_t in_rows = gradient ? h.out : h.in, in_width = gradient ? v.w.out : v.w.in, out_width = gradient ? v.w.in : v.w.out;
  const int64_t out_plane = gradient ? v.x_plane() : v.y_plane(), each = gradient ? v.channels : v.filters;
  const int64_t planes = v.images * v.groups, work = each * out_plane * v.taps();
  parallel_for(planes, max64(1, 32768 / max64(1, work)), call.threads, [&](int64_t begin, int64_t end) {
    const int64_t size = in_rows * shape.phases * shape.pitch + kLanes;
    float* const plane = (float*)scratch(1, sizeof(float) * size);
    PlaneTerm* const terms = (PlaneTerm*)scratch(2, sizeof(PlaneTerm) * v.taps());
    std::memset(plane, 0, sizeof(float) * size);
    for (int64_t p = begin; p < end; ++p) {
      for (int64_t r = 0; r < in_rows; ++r)
        copy_phases(in + (p * in_rows + r) * in_width, in_width, shape.phases, shape.left, shape.pitch,
                    plane + r * shape.phases * shape.pitch);
      for (int64_t o = 0; o < each; ++o)
        convolve_plane(h, gradient, shape, plane, weight + (p % v.groups * each + o) * v.taps(), v.w.taps, out + (p * each + o) * out_plane,
                       out_width, terms);
    }
  });
}

}  // namespace RO_ISA
}  // namespace ro
