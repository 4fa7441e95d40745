// Convolution and the gradient of its input with filters (or channels) as lanes: a tile's rows are positions that see the same taps, and
// what they see is broadcast from where it lies; only weights are packed.
//
// Include after conv_direct.h.
#pragma once
#include "conv_direct.h"

namespace ro {
namespace RO_ISA {

// A position: its place in the input for a term at 0, and the place of its sums.
struct Spot {
  int64_t in, sum;
};

// As `tile`, with numbers of the input at the spots and rows of the weights (kCols wide) chosen by the terms: S = S + P, or P.
template <int MR, int NV>
static void spot_tile(const Term* t, int64_t count, const Spot* spots, const float* x, const float* b, float* sums, bool begun) {
  F acc[MR][NV];
  const float* from[MR];
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r) {
    from[r] = x + spots[r].in;
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) acc[r][v] = F::set(0.0f);
  }
  for (const Term* const end = t + count; t < end; ++t) {
    const float* bk = b + t->at * kCols;
    const int64_t in = t->in;
    F bv[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) bv[v] = F::load(bk + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r) {
      const F av = F::set(load_f32(from[r] + in, 0));
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[r][v] = fma(av, bv[v], acc[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      float* p = sums + spots[r].sum + v * kLanes;
      (begun ? add(F::load(p), acc[r][v]) : acc[r][v]).store(p);
    }
}

constexpr int kAloneRows = kRows - 1;

// The same over terms that are blocks of their own. ADD(-0, P) is P.
template <int MR, int NV>
static void alone_tile(const Term* t, int64_t count, const Spot* spots, const float* x, const float* b, float* sums, bool begun) {
  F s[MR][NV];
  const float* from[MR];
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r) {
    from[r] = x + spots[r].in;
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) s[r][v] = begun ? F::load(sums + spots[r].sum + v * kLanes) : F::set(-0.0f);
  }
  for (const Term* const end = t + count; t < end; ++t) {
    const float* bk = b + t->at * kCols;
    const int64_t in = t->in;
    F bv[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) bv[v] = F::load(bk + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r) {
      const F av = F::set(load_f32(from[r] + in, 0));
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) s[r][v] = add(s[r][v], fma(av, bv[v], F::set(0.0f)));
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) s[r][v].store(sums + spots[r].sum + v * kLanes);
}

using SpotTile = void (*)(const Term*, int64_t, const Spot*, const float*, const float*, float*, bool);

static SpotTile find_spot_tile(bool alone, int64_t rows, int64_t vectors) {
  return find_sized(rows, vectors, [&](auto mr, auto nv) -> SpotTile {
    return alone ? alone_tile<(mr < kRows ? mr : 1), nv> : spot_tile<mr, nv>;
  });
}

// A part of the work: lines (image, row) and columns of the output, filters of one group.
struct LanePart {
  int64_t group, l0, l1, j0, j1, o0, o1;
  RO_MEMBER int64_t columns() const { return j1 - j0; }
  RO_MEMBER int64_t positions() const { return (l1 - l0) * (j1 - j0); }
};

// The indices i < c.count of the positions c.first + i * c.step in [from, to).
RO_INLINE int64_t class_begin(const AxisClass& c, int64_t from) {
  return from <= c.first ? 0 : min64(c.count, ceil_div(from - c.first, c.step));
}

// Calls body(place in the input, line, column) for the positions of a class in a part of the work.
template <class Body>
RO_INLINE void for_spots(const Gathered& g, const LanePart& p, const Sight& s, const Body& body) {
  const AxisClass &h = s.h, &w = s.w;
  const int64_t b0 = class_begin(w, p.j0), b1 = class_begin(w, p.j1);
  for (int64_t image = p.l0 / g.out_rows; b0 < b1 && image * g.out_rows < p.l1; ++image) {
    const int64_t line = image * g.out_rows, a0 = class_begin(h, p.l0 - line), a1 = class_begin(h, p.l1 - line);
    for (int64_t a = a0; a < a1; ++a)
      for (int64_t b = b0; b < b1; ++b)
        body(image * g.in_image + a * h.source_step * g.in_width + b * w.source_step, line + h.first + a * h.step, w.first + b * w.step);
  }
}
static int64_t count_spots(const Gathered& g, const LanePart& p, const Sight& s) {
  const int64_t columns = class_begin(s.w, p.j1) - class_begin(s.w, p.j0);
  int64_t count = 0;
  for (int64_t line = p.l0 / g.out_rows * g.out_rows; line < p.l1; line += g.out_rows)
    count += columns * (class_begin(s.h, p.l1 - line) - class_begin(s.h, p.l0 - line));
  return count;
}

// Calls body(output, row of the sums, length) for the runs of a part's positions that lie together in a plane of the output.
template <class Body>
RO_INLINE void for_runs(const Gathered& g, const LanePart& p, const Body& body) {
  const bool whole = p.columns() == g.out_width;
  for (int64_t l = p.l0; l < p.l1;) {
    const int64_t image = l / g.out_rows, i = l % g.out_rows, lines = whole ? min64(g.out_rows - i, p.l1 - l) : 1;
    body(image * g.out_image + i * g.out_width + p.j0, (l - p.l0) * p.columns(), lines * p.columns());
    l += lines;
  }
}

// N positions and as many filters as a vector has, transposed; the first n positions and `lanes` filters are there.
RO_INLINE void write_square(const float* from, int64_t width, float* to, int64_t plane, int64_t n, int64_t lanes) {
  F t[kLanes];
  if (n >= kLanes && lanes >= kLanes) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) t[i] = canonical(F::load(from + i * width));
    transpose(t);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) t[i].store(to + i * plane);
    return;
  }
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) t[i] = i < n ? canonical(F::load(from + i * width)) : F::set(0.0f);
  transpose(t);
  for (int i = 0; i < min64(lanes, kLanes); ++i) t[i].store(to + i * plane, (int)min64(n, kLanes));
}

// The sums to the output: [position][filter] to planes.
static void write_lanes(const Gathered& g, const LanePart& p, const float* sums, int64_t width) {
  for_runs(g, p, [&](int64_t at, int64_t row, int64_t length) {
    for (int64_t o = p.o0; o < p.o1; o += kLanes)
      for (int64_t j = 0; j < length; j += kLanes)
        write_square(sums + (row + j) * width + o - p.o0, width, g.out + o * g.out_plane + at + j, g.out_plane, length - j, p.o1 - o);
  });
}
static void read_lanes(const Gathered& g, const LanePart& p, float* sums, int64_t width) {
  for_runs(g, p, [&](int64_t at, int64_t row, int64_t length) {
    for (int64_t o = p.o0; o < p.o1; ++o)
      for (int64_t j = 0; j < length; ++j) sums[(row + j) * width + o - p.o0] = load_f32(g.carry + o * g.out_plane + at, j);
  });
}

// Calls body(sum, place in the output, length) for the runs of a part's tiles.
template <class Body>
RO_INLINE void for_tile_runs(const Gathered& g, const LanePart& p, float* sums, int64_t width, const Body& body) {
  for (int64_t l = p.l0; l < p.l1; ++l)
    for (int64_t o = p.o0, length; o < p.o1; o += length) {
      const int64_t j = o % g.tile_w, i = o / g.tile_w % g.tile_h, plane = o / (g.tile_w * g.tile_h);
      length = min64(g.tile_w - j, p.o1 - o);
      const int64_t at = l / g.out_rows * g.out_image + plane * g.out_plane + (l % g.out_rows * g.tile_h + i) * g.out_line + j;
      for (int64_t c = p.j0; c < p.j1; ++c)
        body(sums + ((l - p.l0) * p.columns() + c - p.j0) * width + o - p.o0, at + c * g.tile_w, length);
    }
}

// Few taps, less than a vector has lanes, of n <= kCols filters, which lie `row` floats apart: dst[tap][kCols]. Vectors are loaded whole, up to
// `end`: masked loads of rows that are in no cache took three times as long.
RO_INLINE void pack_few_taps(const float* a, int64_t row, int64_t n, int64_t taps, const float* end, float* dst) {
  for (int64_t r0 = 0; r0 < n; r0 += kLanes) {
    const float* const from = a + r0 * row;
    F x[kLanes];
    if (n - r0 >= kLanes && end - from >= (kLanes - 1) * row + kLanes) {
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) x[r] = F::load(from + r * row);
    } else {
      for (int r = 0; r < kLanes; ++r) x[r] = r < n - r0 ? F::load(from + r * row, (int)taps) : F::set(0.0f);
    }
    transpose(x);
#pragma GCC unroll 16
    for (int t = 0; t < kLanes - 1; ++t)
      if (t < taps) x[t].store(dst + t * kCols + r0);
  }
}

// kCols filters: dst[k][kCols]. A filter is contiguous (conv2d), or its channels are (conv2d_dx).
static void pack_filters(const Gathered& g, int64_t o, int64_t filters, float* dst) {
  const int64_t taps = g.kh * g.kw;
  const View a{(const char*)(g.a + o * g.a_row), 4 * g.a_row, 4};
  if (g.a_channel == taps) return pack_transposed<kF32>(a, filters, g.start, g.depth(), kCols, dst);
  if (taps == 1) return pack_straight<kF32>({a.data + 4 * g.start * g.a_channel, 4 * g.a_channel, 4}, filters, g.depth(), kCols, dst);
  const float* const end = g.a + ceil_div(g.stop, taps) * g.a_channel;
  for (int64_t k = g.start; k < g.stop;) {
    const int64_t tap = k % taps, n = min64(taps - tap, g.stop - k);
    const View own{a.data + 4 * (k / taps * g.a_channel), a.row, 4};
    // The last taps as a whole vector, which begins earlier.
    const int64_t whole = n % kLanes && n > kLanes ? n / kLanes * kLanes : 0;
    if (n < kLanes) {
      pack_few_taps((const float*)own.data + tap, g.a_row, filters, n, end, dst);
    } else if (whole) {
      pack_transposed<kF32>(own, filters, tap, whole, kCols, dst);
      pack_transposed<kF32>(own, filters, tap + n - kLanes, kLanes, kCols, dst + (n - kLanes) * kCols);
    } else {
      pack_transposed<kF32>(own, filters, tap, n, kCols, dst);
    }
    dst += n * kCols;
    k += n;
  }
}

// What a part reads of a few planes, copied together: lines and columns from (top, left) on.
struct Slab {
  int64_t image, images, top, rows, left, columns;
  RO_MEMBER int64_t pitch() const { return (ceil_div(rows * columns, 16) | 1) * 16; }  // planes in different sets of the first cache
};

// The positions [lo, hi) of the input that positions [from, to) of the output read along one axis.
RO_INLINE void extend(const AxisClass& c, int64_t from, int64_t to, int64_t* lo, int64_t* hi) {
  const int64_t a = class_begin(c, from), b = class_begin(c, to), reach = (c.taps - 1) * c.source_tap;
  if (a >= b) return;
  *lo = min64(*lo, c.source + a * c.source_step + min64(0, reach));
  *hi = max64(*hi, c.source + (b - 1) * c.source_step + max64(0, reach) + 1);
}

static Slab find_slab(const Gathered& g, const std::vector<Sight>& sights, const LanePart& p) {
  const int64_t image = p.l0 / g.out_rows, images = (p.l1 - 1) / g.out_rows - image + 1;
  const int64_t i0 = images > 1 ? 0 : p.l0 - image * g.out_rows, i1 = images > 1 ? g.out_rows : p.l1 - image * g.out_rows;
  int64_t top = INT64_MAX, bottom = 0, left = INT64_MAX, right = 0;
  for (const Sight& s : sights) {
    extend(s.h, i0, i1, &top, &bottom);
    extend(s.w, p.j0, p.j1, &left, &right);
  }
  if (bottom == 0 || right == 0) return {image, images, 0, 0, 0, 0};
  return {image, images, top, bottom - top, left, right - left};
}

// Planes [q0, q1) of every image.
static void copy_slab(const Gathered& g, const Slab& s, int64_t q0, int64_t q1, int64_t planes, float* to) {
  const bool whole = s.columns == g.in_width;
  for (int64_t i = 0; i < s.images; ++i)
    for (int64_t q = q0; q < q1; ++q) {
      const float* from = g.in + (s.image + i) * g.in_image + q * g.in_plane + s.top * g.in_width + s.left;
      float* plane = to + (i * planes + q - q0) * s.pitch();
      for (int64_t r = 0; r < (whole ? 1 : s.rows); ++r)
        std::memcpy(plane + r * s.columns, from + r * g.in_width, sizeof(float) * s.columns * (whole ? s.rows : 1));
    }
}

// packed: the weights of the part's filters, panel by panel; nullptr: they are packed here. span: the positions k that are taken together,
// whole blocks.
static void lane_part(const Gathered& all, const std::vector<Sight>& sights, const LanePart& p, bool sparse, const float* packed,
                      int64_t span) {
  const int64_t width = ceil_div(p.o1 - p.o0, kLanes) * kLanes, depth = all.depth(), taps = all.kh * all.kw;
  Gathered g = all;  // with the slab for the input
  // Copied is what is read often, if it lies in many pages or in few sets of the first cache.
  const int64_t planes = (span - 1) / taps + 2;
  const bool copies = !sparse && g.in_plane * 20 <= (p.o1 - p.o0) * taps * g.out_plane && (planes > 48 || g.in_plane % 512 == 0);
  const Slab slab = copies ? find_slab(all, sights, p) : Slab{};
  const int64_t pitch = slab.pitch();
  if (copies) {
    g.in = (float*)scratch(7, sizeof(float) * (slab.images * planes * pitch + kLanes));
    g.in_image = planes * pitch, g.in_plane = pitch, g.in_width = slab.columns;
  }
  int64_t* const first = (int64_t*)scratch(3, sizeof(int64_t) * (sights.size() + 1) + sights.size());
  bool* const begun = (bool*)(first + sights.size() + 1);
  first[0] = 0;
  for (size_t c = 0; c < sights.size(); ++c) {
    first[c + 1] = first[c] + count_spots(g, p, sights[c]);
    begun[c] = g.carry != nullptr;
  }
  // Rows of sums for all positions of the part, or for those of the classes.
  const int64_t found = first[sights.size()], size = (sparse ? found : p.positions()) * width;
  Spot* const spots = (Spot*)scratch(2, sizeof(Spot) * found + 1);
  float* const sums = (float*)scratch(1, sizeof(float) * (size + kLanes));
  Spot* next = spots;
  for (const Sight& s : sights)
    for_spots(g, p, s, [&](int64_t in, int64_t line, int64_t column) {
      *next = {in, width * (sparse ? next - spots : (line - p.l0) * p.columns() + column - p.j0)};
      ++next;
    });
  // Calls body(its sum, its place in the output) for every spot and filter.
  const auto scattered = [&](const auto& body) {
    float* own = sums;
    for (const Sight& s : sights)
      for_spots(g, p, s, [&](int64_t, int64_t line, int64_t column) {
        for (int64_t o = p.o0; o < p.o1; ++o)
          body(own[o - p.o0], line / g.out_rows * g.out_image + o * g.out_plane + line % g.out_rows * g.out_width + column);
        own += width;
      });
  };
  if (!g.carry) std::memset(sums, 0, sizeof(float) * size);
  else if (g.tile_w)
    for_tile_runs(g, p, sums, width, [&](float* sum, int64_t at, int64_t n) { std::memcpy(sum, g.carry + at, sizeof(float) * n); });
  else if (sparse) scattered([&](float& sum, int64_t at) { sum = load_f32(g.carry, at); });
  else read_lanes(g, p, sums, width);
  for (int64_t k0 = g.start, k1; k0 < g.stop; k0 = k1) {
    k1 = min64(g.stop, (k0 / span + 1) * span);
    const float* x = g.in;  // where the input begins or would begin
    if (copies) {
      copy_slab(all, slab, k0 / taps, (k1 - 1) / taps + 1, planes, (float*)g.in);
      x -= slab.image * g.in_image + k0 / taps * pitch + slab.top * g.in_width + slab.left;
    }
    const float* weights = packed;
    int64_t panel = depth;  // rows of a panel
    if (!packed) {
      panel = k1 - k0;
      float* const own = (float*)scratch(0, sizeof(float) * panel * ceil_div(p.o1 - p.o0, kCols) * kCols);
      Gathered part = all;
      part.start = k0, part.stop = k1;
      for (int64_t o = p.o0; o < p.o1; o += kCols) pack_filters(part, o, min64(kCols, p.o1 - o), own + (o - p.o0) * panel);
      weights = own - (k0 - g.start) * kCols;
    }
    for (size_t c = 0; c < sights.size(); ++c) {
      const int64_t count = first[c + 1] - first[c];
      if (count == 0) continue;
      const Terms t(g, sights[c], k0, k1, 4);
      if (t.count == 0) continue;
      const bool alone = t.count == t.blocks;
      const Panels tiles = {count, ceil_div(count, alone ? kAloneRows : kRows)};
      for (int64_t o = p.o0; o < p.o1; o += kCols) {
        const int64_t vectors = ceil_div(min64(kCols, p.o1 - o), kLanes);
        const float* const b = weights + (o - p.o0) * panel;
        for (int64_t i = 0; i < tiles.count; ++i) {
          const int64_t at = tiles.start(i), rows = tiles.start(i + 1) - at;
          const Spot* const own = spots + first[c] + at;
          const SpotTile tile = find_spot_tile(alone, rows, vectors);
          if (alone) {
            tile(t.list, t.count, own, x, b, sums + o - p.o0, begun[c]);
          } else {
            for (int64_t block = 0; block < t.blocks; ++block)
              tile(t.list + t.begin[block], t.begin[block + 1] - t.begin[block], own, x, b, sums + o - p.o0, block > 0 || begun[c]);
          }
        }
      }
      begun[c] = true;
    }
  }
  if (g.tile_w)
    return for_tile_runs(g, p, sums, width, [&](const float* sum, int64_t at, int64_t n) {
      for (int64_t i = 0; i < n; i += kLanes) store_columns(F::load(sum + i), g.out + at + i, 1, n - i);
    });
  if (!sparse) return write_lanes(g, p, sums, width);
  scattered([&](float sum, int64_t at) { store_f32(g.out, at, ro::canonical(sum)); });
}

// Positions k that are taken together: as many blocks as have about 256 terms of a class.
static int64_t find_span(const Gathered& g, const std::vector<Sight>& sights) {
  int64_t most = 1;
  for (const Sight& s : sights) most = max64(most, Terms::most(g, s, g.block));
  return g.block * max64(1, kDotBlock / most);
}

constexpr int64_t kPartFilters = 256, kPartPositions = 512;  // of a part at most

// Whether parts of filters alone are enough, and as many for every thread, nearly.
RO_INLINE bool few_positions(const Gathered& g, int64_t positions, int64_t workers) {
  const int64_t tiles = g.groups * ceil_div(g.rows, kCols);
  return positions <= kPartPositions && (tiles % workers == 0 || tiles >= 8 * workers);
}

// sparse: only the positions of these classes are written; else all of the output.
static void by_lanes(const Gathered& g, const std::vector<Sight>& sights, bool sparse, int threads) {
  const int64_t lines = g.images * g.out_rows, taps = g.kh * g.kw, span = find_span(g, sights);
  int64_t all = lines * g.out_width;
  if (sparse) {
    all = 0;
    for (const Sight& s : sights) all += s.columns(g);
    if (all == 0) return;
  }
  const int64_t work = g.groups * g.rows * ceil_div(g.depth(), taps) * all, workers = max64(1, min64(threads, work / 32768));
  if (few_positions(g, all, workers)) {
    // A part has all positions: every filter is packed once, into a cache.
    const int64_t tiles = ceil_div(g.rows, kCols), least = g.groups * ceil_div(g.rows, kPartFilters);
    const int64_t in_o = min64(tiles, ceil_div(ceil_div(least, workers) * workers, g.groups));
    return parallel_dynamic(g.groups * in_o, (int)workers, [&](int64_t i) {
      const int64_t o = i % in_o;
      const LanePart part{i / in_o, 0, lines, 0, g.out_width, tiles * o / in_o * kCols, min64(g.rows, tiles * (o + 1) / in_o * kCols)};
      lane_part(g.of_group(part.group), sights, part, sparse, nullptr, span);
    });
  }
  // Filters of a part: their sums and what they read should stay in the second cache.
  const int64_t filters = ceil_div(ceil_div(g.rows, ceil_div(g.rows, kPartFilters)), kCols) * kCols, in_o = ceil_div(g.rows, filters);
  int64_t positions = min64(kPartPositions, 65536 / (min64(filters, g.rows) + ceil_div(ceil_div(span, taps) * g.in_plane, g.out_plane)));
  if (workers > 1) positions = min64(positions, ceil_div(all * in_o * g.groups, 2 * workers));
  positions = max64(positions, 8 * kRows) * lines * g.out_width / all;  // those that are left out do not count
  const int64_t in_j = ceil_div(g.out_width, positions), columns = ceil_div(g.out_width, in_j);
  const int64_t others = g.groups * in_o * in_j, least = others * ceil_div(lines, max64(1, positions / columns));
  const int64_t in_l = min64(lines, ceil_div(ceil_div(least, workers) * workers, others));  // as many parts for every thread
  // As many filters at a time as pack into 64 MiB.
  const int64_t unit = filters * g.depth(), most = max64(1, (16 << 20) / max64(1, unit)), units = g.groups * in_o;
  for (int64_t u0 = 0; u0 < units; u0 += most) {
    const int64_t u1 = min64(units, u0 + most), panels = filters / kCols;
    float* const packed = (float*)scratch(0, sizeof(float) * (u1 - u0) * unit + 64);
    parallel_for((u1 - u0) * panels, ceil_div(32768, kCols * max64(1, g.depth())), (int)workers, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t u = u0 + i / panels, o = u % in_o * filters + i % panels * kCols;
        if (o < g.rows) pack_filters(g.of_group(u / in_o), o, min64(kCols, g.rows - o), packed + i * kCols * g.depth());
      }
    });
    parallel_dynamic((u1 - u0) * in_l * in_j, (int)workers, [&](int64_t i) {
      const int64_t u = i / (in_l * in_j), l = i / in_j % in_l, j = i % in_j, o0 = (u0 + u) % in_o * filters;
      const LanePart part{(u0 + u) / in_o, lines * l / in_l, lines * (l + 1) / in_l, g.out_width * j / in_j, g.out_width * (j + 1) / in_j,
                          o0, min64(g.rows, o0 + filters)};
      lane_part(g.of_group(part.group), sights, part, sparse, packed + u * unit, span);
    });
  }
}

}  // namespace RO_ISA
}  // namespace ro
