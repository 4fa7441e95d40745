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
    for (int64_t v = 0; v < vectors; ++v)
      for (const PlaneTap& t : taps) {
        if (v >= full0 && v < full1) continue;
        const int64_t from = max64(-1, min64(kLanes, t.lo - v * kLanes) - 1), to = max64(0, min64(kLanes, t.hi - v * kLanes));
        masks.push_back(and_(gt(lane_index(), I::set((int32_t)from)), lt(lane_index(), I::set((int32_t)to))));
      }
  }
};

// How planes are read: rows copied with every `phases`-th column together, each phase between margins.
struct PlaneShape {
  int64_t phases, left, pitch;
  std::vector<PlaneColumns> columns;
  std::vector<M> all;  // for each tap of a row: every lane

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
    all.assign(w.taps, gt(lane_index(), I::set(-1)));
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

// A tap: its place from that of column 0 on, its number along the row.
struct PlaneTerm {
  int64_t offset;
  float weight;
  int64_t tap;
};

// R rows, `row` apart in the input and out_row in the output, and NV vectors of each, from column j on. kEdge: the first and the last
// vector keep their sums where a mask has no lane.
template <int R, int NV, bool kEdge>
static void plane_tile(const PlaneTerm* terms, int64_t count, const float* from, int64_t row, const M* first, const M* last, float* to,
                       int64_t out_row, int64_t step, int64_t columns) {
  F acc[R][NV];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) acc[r][v] = F::set(0.0f);
  for (int64_t t = 0; t < count; ++t) {
    const F w = F::set(terms[t].weight);
    const float* x = from + terms[t].offset;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) {
        F p = fma(F::load(x + r * row + v * kLanes), w, acc[r][v]);
        if (kEdge && v == 0) p = select(first[terms[t].tap], p, acc[r][v]);
        if (kEdge && v == NV - 1) p = select(last[terms[t].tap], p, acc[r][v]);
        acc[r][v] = p;
      }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) store_columns(acc[r][v], to + r * out_row + v * kLanes * step, step, columns - v * kLanes);
}

using PlaneTile = void (*)(const PlaneTerm*, int64_t, const float*, int64_t, const M*, const M*, float*, int64_t, int64_t, int64_t);
constexpr int kPlaneVectors = 8;
// Rows that are taken together where a row has few vectors.
constexpr int plane_rows(int64_t vectors) { return vectors == 1 ? 6 : vectors == 2 ? 4 : vectors <= 4 ? 2 : 1; }
template <int NV, bool kEdge, int... r>
RO_INLINE PlaneTile plane_tile_of_rows(int64_t rows, std::integer_sequence<int, r...>) {
  static constexpr PlaneTile tiles[] = {plane_tile<r + 1, NV, kEdge>...};
  return tiles[rows - 1];
}
template <bool kEdge, int... v>
RO_INLINE PlaneTile find_plane_tile(int64_t rows, int64_t vectors, std::integer_sequence<int, v...>) {
  PlaneTile tile = nullptr;
  ((vectors == v + 1 ? (void)(tile = plane_tile_of_rows<v + 1, kEdge>(rows, std::make_integer_sequence<int, plane_rows(v + 1)>()))
                     : (void)0),
   ...);
  return tile;
}

// The vectors [v0, v1) of a row, or of several rows.
static void plane_columns(const PlaneColumns& c, int64_t v0, int64_t v1, int64_t rows, const PlaneTerm* terms, int64_t count, const float* from,
                          int64_t row, const M* all, float* to, int64_t out_row) {
  const auto masks = [&](int64_t v) { return v < c.full0 || v >= c.full1 ? c.mask(v) : all; };
  const M *const first = masks(v0), *const last = masks(v1 - 1);
  const auto numbers = std::make_integer_sequence<int, kPlaneVectors>();
  const PlaneTile tile = first == all && last == all ? find_plane_tile<false>(rows, v1 - v0, numbers) : find_plane_tile<true>(rows, v1 - v0, numbers);
  const int64_t j = v0 * kLanes;
  tile(terms, count, from + j, row, first, last, to + j * c.step, out_row, c.step, c.count - j);
}

// A plane of the input: where its column 0 lies, and from row to row.
struct Plane {
  const float* data;
  int64_t pitch, phase;  // phase: from phase to phase
};

// For every row of the output and tap: the row of the input, or -1; and how many rows from this one on see the same taps, each `advance`
// rows further.
struct PlaneRows {
  int64_t taps, advance;
  std::vector<int64_t> reads, run;

  PlaneRows(const Window& h, bool gradient) : taps(h.taps), advance(gradient ? 1 : h.stride) {
    const int64_t rows = gradient ? h.in : h.out;
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t t = 0; t < taps; ++t) {
        const int64_t row = gradient ? h.reader(i, t) : h.source(i, t);
        reads.push_back(gradient || h.inside(row) ? row : -1);
      }
    run.assign(rows, 1);
    for (int64_t i = rows - 1; i-- > 0;) {
      bool alike = true;
      for (int64_t t = 0; t < taps; ++t) {
        const int64_t row = reads[i * taps + t], next = reads[(i + 1) * taps + t];
        alike &= row < 0 ? next < 0 : next == row + advance;
      }
      if (alike) run[i] = run[i + 1] + 1;
    }
  }
};

// One output plane.
static void convolve_plane(const PlaneRows& h, const PlaneShape& shape, const Plane& plane, const float* weight, int64_t taps_w, float* out,
                           int64_t out_width, PlaneTerm* terms) {
  for (const PlaneColumns& c : shape.columns) {
    const int64_t vectors = ceil_div(c.count, kLanes), parts = ceil_div(vectors, kPlaneVectors);
    const bool inner = c.full0 <= 1 && c.full1 >= vectors - 1;  // edges are in the first and the last vector
    const int64_t most = inner ? plane_rows(vectors) : 1;
    for (int64_t i = 0, end; i < (int64_t)h.run.size(); i = end) {
      end = i + h.run[i];
      int64_t count = 0;
      for (int64_t t = 0; t < h.taps; ++t) {
        const int64_t row = h.reads[i * h.taps + t];
        for (size_t n = 0; row >= 0 && n < c.taps.size(); ++n) {
          const PlaneTap& tap = c.taps[n];
          terms[count++] = {row * plane.pitch + tap.phase * plane.phase + tap.shift, load_f32(weight, t * taps_w + tap.tap), (int64_t)n};
        }
      }
      const int64_t tall = ceil_div(end - i, most);
      for (int64_t n = 0; n < tall; ++n) {
        const int64_t r0 = (end - i) * n / tall, r1 = (end - i) * (n + 1) / tall;
        const float* const from = plane.data + r0 * h.advance * plane.pitch;
        float* const to = out + (i + r0) * out_width + c.first;
        for (int64_t p = 0; p < parts; ++p) {
          const int64_t v0 = vectors * p / parts, v1 = vectors * (p + 1) / parts, each = inner ? v1 - v0 : 1;
          for (int64_t v = v0; v < v1; v += each)
            plane_columns(c, v, v + each, r1 - r0, terms, count, from, h.advance * plane.pitch, shape.all.data(), to, out_width);
        }
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
  const PlaneRows rows(v.h, gradient);
  const Window& h = v.h;
  const int64_t in_rows = gradient ? h.out : h.in, in_width = gradient ? v.w.out : v.w.in, out_width = gradient ? v.w.in : v.w.out;
  const int64_t out_plane = gradient ? v.x_plane() : v.y_plane(), each = gradient ? v.channels : v.filters;
  const int64_t planes = v.images * v.groups, work = each * out_plane * v.taps();
  parallel_for(planes, max64(1, 32768 / max64(1, work)), call.threads, [&](int64_t begin, int64_t end) {
    const int64_t size = in_rows * shape.phases * shape.pitch + kLanes, in_plane = in_rows * in_width;
    float* const copy = (float*)scratch(1, sizeof(float) * size);
    PlaneTerm* const terms = (PlaneTerm*)scratch(2, sizeof(PlaneTerm) * v.taps());
    std::memset(copy, 0, sizeof(float) * size);
    for (int64_t p = begin; p < end; ++p) {
      // Read in place, if what is read beside the plane lies in the tensor; what it holds does not matter.
      const bool in_place = shape.phases == 1 && min64(p, planes - 1 - p) * in_plane >= shape.pitch;
      for (int64_t r = 0; r < (in_place ? 0 : in_rows); ++r)
        copy_phases(in + p * in_plane + r * in_width, in_width, shape.phases, shape.left, shape.pitch, copy + r * shape.phases * shape.pitch);
      const Plane plane = in_place ? Plane{in + p * in_plane, in_width, 0} : Plane{copy + shape.left, shape.phases * shape.pitch, shape.pitch};
      for (int64_t o = 0; o < each; ++o)
        convolve_plane(rows, shape, plane, weight + (p % v.groups * each + o) * v.taps(), v.w.taps, out + (p * each + o) * out_plane,
                       out_width, terms);
    }
  });
}

}  // namespace RO_ISA
}  // namespace ro
