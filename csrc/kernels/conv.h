// Convolution and the gradient of its input, in the order DOT by position index (docs/spec/operators.md, "Convolution"): taps that see
// nothing are skipped, which multiplying by zero would not be.
//
// Both are one product: output positions are the lanes, k = (channel, kh, kw). Positions are sorted into classes with the same visible
// taps (interior, borders; for a gradient with stride one class for each remainder), so that inside a class every lane has the same k
// and plain tiles serve; the blocks of 256 stay those of the whole k. Columns are packed panel by panel, runs of neighbours at a time.
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
  const float *in, *in_end;
  int64_t in_group, in_image, in_plane, in_width;
  const float* a;
  int64_t a_group, a_row, a_channel;
  float* out;
  const float* carry;  // nullptr: none
  int64_t out_group, out_image, out_plane, out_width;
  int64_t groups, images, rows, kh, kw, start, stop;

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

// The k that a class sees: where each is in the input, its number in a packed row; and where the blocks of 256 begin.
struct Terms {
  int64_t *in, *at, *begin;
  int64_t count = 0, blocks = 0, furthest = 0;

  Terms(const Gathered& g, const Sight& s, int slot) {
    const int64_t taps = g.kh * g.kw, most = min64(g.depth(), (ceil_div(g.depth(), taps) + 1) * s.h.taps * s.w.taps);
    in = (int64_t*)scratch(slot, sizeof(int64_t) * (3 * most + 2));
    at = in + most;
    begin = at + most;
    int64_t next = 0;  // the first k of a later block
    for (int64_t q = g.start / taps; q * taps < g.stop; ++q)
      for (int64_t u = 0; u < s.h.taps; ++u) {
        const int64_t line = q * g.in_plane + (s.h.source + u * s.h.source_tap) * g.in_width + s.w.source;
        int64_t k = q * taps + (s.h.tap + u * s.h.tap_step) * g.kw + s.w.tap;
        for (int64_t v = 0; v < s.w.taps; ++v, k += s.w.tap_step) {
          if (k < g.start || k >= g.stop) continue;
          if (k >= next) {
            next = (k / kDotBlock + 1) * kDotBlock;
            begin[blocks++] = count;
          }
          in[count] = line + v * s.w.source_tap;
          furthest = max64(furthest, in[count]);
          at[count++] = k - g.start;
        }
      }
    begin[blocks] = count;
  }
};

// Neighbouring columns of a panel that lie in steps in the input and in the output.
struct Piece {
  int64_t in, out, column, length;
};

// The columns [n0, n1) of a class (image, row, column of its positions).
RO_INLINE int find_pieces(const Gathered& g, const Sight& s, int64_t n0, int64_t n1, Piece* pieces) {
  const AxisClass &h = s.h, &w = s.w;
  int count = 0;
  for (int64_t n = n0; n < n1;) {
    const int64_t line = n / w.count, j = n % w.count, image = line / h.count, i = line % h.count;
    const int64_t length = min64(w.count - j, n1 - n);
    const Piece p{image * g.in_image + i * h.source_step * g.in_width + j * w.source_step,
                  image * g.out_image + (h.first + i * h.step) * g.out_width + w.first + j * w.step, n - n0, length};
    Piece* const last = count ? pieces + count - 1 : nullptr;
    if (last && last->in + last->length * w.source_step == p.in && last->out + last->length * w.step == p.out)
      last->length += length;
    else
      pieces[count++] = p;
    n += length;
  }
  return count;
}

struct Move {
  const float* from;
  int64_t column;
};

// One panel of columns over kc terms: dst[k][width]. A move copies a vector; what it writes beyond its piece is overwritten later.
template <int kMoves, int kStep>
static void move_panel(const Move* moves, int count, const int64_t* at, int64_t kc, int64_t width, float* dst) {
  for (int64_t k = 0; k < kc; ++k, dst += width) {
    __builtin_prefetch(moves[0].from + at[k] + kStep * 2 * kCols);
#pragma GCC unroll 4
    for (int i = 0; i < (kMoves ? kMoves : count); ++i) {
      const float* from = moves[i].from + at[k];
      const F x = kStep == 1 ? F::load(from) : even(F::load(from), F::load(from + kLanes));
      x.store(dst + moves[i].column);
    }
  }
}

template <int kStep>
static void move_panel(const Move* moves, int count, const int64_t* at, int64_t kc, int64_t width, float* dst) {
  switch (count) {
    case 1: return move_panel<1, kStep>(moves, count, at, kc, width, dst);
    case 2: return move_panel<2, kStep>(moves, count, at, kc, width, dst);
    case 3: return move_panel<3, kStep>(moves, count, at, kc, width, dst);
    case 4: return move_panel<4, kStep>(moves, count, at, kc, width, dst);
    default: return move_panel<0, kStep>(moves, count, at, kc, width, dst);
  }
}

static void pack_panel(const Gathered& g, const Terms& t, int64_t k0, int64_t kc, const Piece* pieces, int count, int64_t step,
                       int64_t width, float* dst) {
  Move moves[2 * kCols];
  int64_t furthest = 0;
  int found = 0;
  for (int i = 0; i < count; ++i)
    for (int64_t c = 0; c < pieces[i].length; c += kLanes) {
      furthest = max64(furthest, pieces[i].in + c * step);
      moves[found++] = {g.in + pieces[i].in + c * step, pieces[i].column + c};
    }
  // Vectors may run over their piece, but not over the input.
  if (step <= 2 && furthest + t.furthest + step * kLanes <= g.in_end - g.in) {
    if (step == 1) move_panel<1>(moves, found, t.in + k0, kc, width, dst);
    else move_panel<2>(moves, found, t.in + k0, kc, width, dst);
    return;
  }
  for (int64_t k = 0; k < kc; ++k)
    for (int i = 0; i < count; ++i) {
      const float* from = g.in + t.in[k0 + k] + pieces[i].in;
      float* to = dst + k * width + pieces[i].column;
      for (int64_t c = 0; c < pieces[i].length; ++c) to[c] = load_f32(from + c * step, 0);
    }
}

// As `tile`, with the rows of A chosen by `at`: c = c + sum or the sum; c's rows are `row` floats apart.
template <int MR, int NV>
static void chosen_tile(int64_t kc, const int64_t* at, const float* a, const float* b, float* c, int64_t row, bool begun) {
  F acc[MR][NV];
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) acc[r][v] = F::set(0.0f);
  for (int64_t k = 0; k < kc; ++k, b += NV * kLanes) {
    const float* ak = a + at[k] * MR;
    F bv[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) bv[v] = F::load(b + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r) {
      const F av = F::set(ak[r]);
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[r][v] = fma(av, bv[v], acc[r][v]);
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

// Many short blocks, [begin[i], begin[i + 1]), with the sums in registers. a (rows of `height`) and b from term
// begin[0] on.
template <int MR, int NV>
static void short_tile(const int64_t* begin, int64_t blocks, const float* a, int64_t height, const float* b, float* c, int64_t row,
                       bool begun) {
  F sum[MR][NV];
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) sum[r][v] = begun ? F::load(c + r * row + v * kLanes) : F::set(0.0f);
  for (int64_t block = 0; block < blocks; ++block) {
    F acc[MR][NV];
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[r][v] = F::set(0.0f);
    for (int64_t k = begin[block]; k < begin[block + 1]; ++k, a += height, b += NV * kLanes) {
      F bv[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) bv[v] = F::load(b + v * kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < MR; ++r) {
        const F av = F::set(a[r]);
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) acc[r][v] = fma(av, bv[v], acc[r][v]);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) sum[r][v] = begun ? add(sum[r][v], acc[r][v]) : acc[r][v];
    begun = true;
  }
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) sum[r][v].store(c + r * row + v * kLanes);
}

using ChosenTile = void (*)(int64_t, const int64_t*, const float*, const float*, float*, int64_t, bool);
using ShortTile = void (*)(const int64_t*, int64_t, const float*, int64_t, const float*, float*, int64_t, bool);
constexpr int kShortRows = kRows / 2;

// Tables of tiles by rows and vectors.
template <int NV, int... r>
RO_INLINE ChosenTile chosen_of_rows(int rows, std::integer_sequence<int, r...>) {
  static constexpr ChosenTile tiles[] = {chosen_tile<r + 1, NV>...};
  return tiles[rows - 1];
}
template <int NV, int... r>
RO_INLINE ShortTile short_of_rows(int rows, std::integer_sequence<int, r...>) {
  static constexpr ShortTile tiles[] = {short_tile<r + 1, NV>...};
  return tiles[rows - 1];
}
// Calls body with the number of vectors as a constant.
template <class Body>
RO_INLINE auto with_vectors(int64_t vectors, const Body& body) {
  switch (vectors) {
    case 1: return body(std::integral_constant<int, 1>());
#if defined(RO_ISA_NEON)
    case 2: return body(std::integral_constant<int, 2>());
    case 3: return body(std::integral_constant<int, 3>());
#endif
    default: return body(std::integral_constant<int, kVectors>());
  }
}
static ChosenTile find_chosen_tile(int64_t rows, int64_t vectors) {
  return with_vectors(vectors, [&](auto nv) { return chosen_of_rows<nv>((int)rows, std::make_integer_sequence<int, kRows>()); });
}
static ShortTile find_short_tile(int64_t rows, int64_t vectors) {
  return with_vectors(vectors, [&](auto nv) { return short_of_rows<nv>((int)rows, std::make_integer_sequence<int, kShortRows>()); });
}

constexpr int kDirectRows = kRows / 2, kDirectVectors = 4;

// Few rows: columns are read where they lie, kDirectVectors vectors of neighbours at a time; all blocks. c: [MR][kDirectVectors * kLanes].
template <int MR>
static void direct_tile(const Terms& t, const float* a, const float* const* from, float* c, bool begun) {
  constexpr int NV = kDirectVectors;
  for (int64_t block = 0; block < t.blocks; ++block, begun = true) {
    F acc[MR][NV];
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[r][v] = F::set(0.0f);
    for (int64_t k = t.begin[block]; k < t.begin[block + 1]; ++k) {
      const float* ak = a + t.at[k] * MR;
      F av[MR];
#pragma GCC unroll 16
      for (int r = 0; r < MR; ++r) av[r] = F::set(ak[r]);
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        const F bv = F::load(from[v] + t.in[k]);
#pragma GCC unroll 16
        for (int r = 0; r < MR; ++r) acc[r][v] = fma(av[r], bv, acc[r][v]);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        float* p = c + (r * NV + v) * kLanes;
        (begun ? add(F::load(p), acc[r][v]) : acc[r][v]).store(p);
      }
  }
}

using DirectTile = void (*)(const Terms&, const float*, const float* const*, float*, bool);
template <int... r>
RO_INLINE DirectTile direct_of_rows(int64_t rows, std::integer_sequence<int, r...>) {
  static constexpr DirectTile tiles[] = {direct_tile<r + 1>...};
  return tiles[rows - 1];
}

// Rows of one panel over the blocks [b0, b1) of one packed panel of columns, added to the sums.
RO_INLINE void gathered_tile(const Terms& t, int64_t b0, int64_t b1, bool chosen, bool brief, const float* a, int64_t rows,
                             const float* b, int64_t vectors, float* sum, int64_t row, bool begun) {
  if (brief) {
    for (int64_t r = 0; r < rows; r += kShortRows)
      find_short_tile(min64(kShortRows, rows - r), vectors)(t.begin + b0, b1 - b0, a + r, rows, b, sum + r * row, row, begun);
    return;
  }
  for (int64_t block = b0; block < b1; ++block) {
    const int64_t k = t.begin[block], kc = t.begin[block + 1] - k;
    const float* own = b + (k - t.begin[b0]) * vectors * kLanes;
    if (chosen) find_chosen_tile(rows, vectors)(kc, t.at + k, a, own, sum, row, begun);
    else find_tile((int)rows, (int)vectors)(kc, a + k * rows, own, (char*)sum, 4 * row, begun ? kAdd : 0, 0.0f);
    begun = true;
  }
}

// Sums of `rows` rows to the output, or the carry to the sums.
RO_INLINE void write_pieces(const float* sum, int64_t width, const Piece* pieces, int count, int64_t rows, float* out, int64_t plane,
                            int64_t step) {
  for (int64_t r = 0; r < rows; ++r, sum += width, out += plane)
    for (int i = 0; i < count; ++i)
      for (int64_t c = 0; c < pieces[i].length; c += kLanes) {
        const int64_t n = min64(kLanes, pieces[i].length - c);
        const F x = canonical(F::load(sum + pieces[i].column + c));
        float* to = out + pieces[i].out + c * step;
        if (step == 1) {
          if (n == kLanes) x.store(to);
          else x.store(to, (int)n);
        } else {
          float lanes[kLanes];
          x.store(lanes);
          for (int64_t l = 0; l < n; ++l) store_f32(to + l * step, 0, lanes[l]);
        }
      }
}
RO_INLINE void read_pieces(float* sum, int64_t width, const Piece* pieces, int count, int64_t rows, const float* carry, int64_t plane,
                           int64_t step) {
  for (int64_t r = 0; r < rows; ++r, sum += width, carry += plane)
    for (int i = 0; i < count; ++i)
      for (int64_t c = 0; c < pieces[i].length; ++c) sum[pieces[i].column + c] = load_f32(carry + pieces[i].out + c * step, 0);
}

// Columns [n0, n1) of one class, a product of few rows.
static void direct_part(const Gathered& g, const Sight& s, const float* packed, int64_t n0, int64_t n1) {
  constexpr int64_t kWidth = kDirectVectors * kLanes;
  const Terms t(g, s, 4);
  const DirectTile tile = direct_of_rows(g.rows, std::make_integer_sequence<int, kDirectRows>());
  alignas(64) float sums[kDirectRows * kWidth] = {};
  const float* from[kDirectVectors];
  Piece pieces[kDirectVectors];
  int held = 0;
  const auto flush = [&] {
    for (int i = held; i < kDirectVectors; ++i) from[i] = from[0];
    if (g.carry) read_pieces(sums, kWidth, pieces, held, g.rows, g.carry, g.out_plane, s.w.step);
    tile(t, packed, from, sums, g.carry != nullptr);
    write_pieces(sums, kWidth, pieces, held, g.rows, g.out, g.out_plane, s.w.step);
    held = 0;
  };
  for (int64_t n = n0; n < n1;) {
    const int64_t j = n % s.w.count, end = min64(s.w.count, j + n1 - n);
    const int64_t first = min64(j, s.w.count - kLanes);  // the last vector of a line begins earlier
    Piece p[1];
    find_pieces(g, s, n - j + first, n - j + first + 1, p);
    p[0].column = held * kLanes, p[0].length = kLanes;
    from[held] = g.in + p[0].in;
    pieces[held] = p[0];
    if (++held == kDirectVectors) flush();
    n += min64(kLanes, end - j);
  }
  if (held) flush();
}

constexpr int64_t kPanelsAtOnce = 256 / kCols;  // panels of columns packed together where there are many rows

// Columns [n0, n1) of classes that read the same, panels [panel0, panel1) of the rows. packed: A, panel i at start(i) * depth.
static void gathered_part(const Gathered& g, const Sight* sights, int64_t count, const Panels& panels, const float* packed,
                          int64_t panel0, int64_t panel1, int64_t n0, int64_t n1) {
  const int64_t row0 = panels.start(panel0), rows_here = panels.start(panel1) - row0, step = sights[0].w.source_step;
  const int64_t width = count > 1 ? 8 * kCols : rows_here <= 128 ? 2 * kCols : kPanelsAtOnce * kCols;
  float* const sums = (float*)scratch(2, sizeof(float) * rows_here * width);
  Piece pieces[kPanelsAtOnce][kCols];
  int found[kPanelsAtOnce];
  Terms t(g, sights[0], 4);
  for (int64_t jc = n0; jc < n1; jc += width) {
    const int64_t nc = min64(width, n1 - jc);
    for (int64_t s = 0; s < count; ++s) {
      if (count > 1) t = Terms(g, sights[s], 4);
      const bool chosen = t.count < g.depth(), brief = t.count < 8 * t.blocks;
      for (int64_t j = 0; j < nc; j += kCols)
        found[j / kCols] = find_pieces(g, sights[s], jc + j, jc + min64(nc, j + kCols), pieces[j / kCols]);
      const auto vectors = [&](int64_t j) { return ceil_div(min64(kCols, nc - j), kLanes); };
      const int64_t out_step = sights[s].w.step;
      if (g.carry)
        for (int64_t j = 0; j < nc; j += kCols)
          read_pieces(sums + j, width, pieces[j / kCols], found[j / kCols], rows_here, g.carry + row0 * g.out_plane, g.out_plane, out_step);
      else if (t.blocks == 0)
        std::memset(sums, 0, sizeof(float) * rows_here * width);
      // Whole blocks that are packed together: all of them if other classes read them too.
      for (int64_t b0 = 0, b1; b0 < t.blocks; b0 = b1) {
        for (b1 = b0 + 1; b1 < t.blocks && (count > 1 || t.begin[b1 + 1] - t.begin[b0] <= kDotBlock);) ++b1;
        const int64_t k0 = t.begin[b0], kc = t.begin[b1] - k0;
        float* const b = (float*)scratch(1, sizeof(float) * (kc * width + kLanes));
        if (s == 0)
          for (int64_t j = 0; j < nc; j += kCols)
            pack_panel(g, t, k0, kc, pieces[j / kCols], found[j / kCols], step, vectors(j) * kLanes, b + j * kc);
        for (int64_t i = panel0; i < panel1; ++i) {
          const int64_t row = panels.start(i), rows = panels.start(i + 1) - row;
          const float* a = packed + row * g.depth();
          if (brief) {  // what is scattered over all of A is read once
            float* const own = (float*)scratch(5, sizeof(float) * kc * rows);
            for (int64_t k = 0; k < kc; ++k)
              for (int64_t r = 0; r < rows; ++r) own[k * rows + r] = a[t.at[k0 + k] * rows + r];
            a = own;
          }
          for (int64_t j = 0; j < nc; j += kCols)
            gathered_tile(t, b0, b1, chosen, brief, a, rows, b + j * kc, vectors(j), sums + (row - row0) * width + j, width,
                          b0 > 0 || g.carry);
        }
      }
      for (int64_t j = 0; j < nc; j += kCols)
        write_pieces(sums + j, width, pieces[j / kCols], found[j / kCols], rows_here, g.out + row0 * g.out_plane, g.out_plane, out_step);
    }
  }
}

// One panel of A: dst[k][height]. A row is contiguous (conv2d), or its channels are (conv2d_dx).
static void pack_weights(const Gathered& g, int64_t row, int64_t height, float* dst) {
  const int64_t taps = g.kh * g.kw;
  const View a{(const char*)(g.a + row * g.a_row), 4 * g.a_row, 4};
  if (g.a_channel == taps) return pack_transposed<kF32>(a, height, g.start, g.depth(), height, dst);
  if (taps == 1) return pack_straight<kF32>({a.data + 4 * g.start * g.a_channel, 4 * g.a_channel, 4}, height, g.depth(), height, dst);
  for (int64_t k = g.start; k < g.stop;) {
    const int64_t tap = k % taps, n = min64(taps - tap, g.stop - k);
    pack_transposed<kF32>({a.data + 4 * (k / taps * g.a_channel), a.row, 4}, height, tap, n, height, dst);
    dst += n * height;
    k += n;
  }
}

// +0.0, or the carry, everywhere.
static void gathered_empty(const Gathered& g, int64_t elements, int threads) {
  parallel_for(elements, 1 << 14, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) store_f32(g.out, i, g.carry ? ro::canonical(load_f32(g.carry, i)) : 0.0f);
  });
}

// Classes of one axis that read the same positions, each of them through another tap.
static std::vector<std::vector<AxisClass>> read_alike(const std::vector<AxisClass>& list) {
  std::vector<std::vector<AxisClass>> out;
  for (const AxisClass& c : list) {
    size_t i = 0;
    while (i < out.size() && !out[i][0].reads_as(c)) ++i;
    if (i == out.size()) out.emplace_back();
    out[i].push_back(c);
  }
  return out;
}

struct GatheredPart {
  size_t first, last;  // sights
  int64_t group, panel0, panel1, n0, n1;
  bool direct;
};

// Panels [p0, p1) of the rows of all groups.
static void gathered_panels(const Gathered& g, const std::vector<Sight>& sights, const std::vector<size_t>& alike, const Panels& panels,
                            int64_t p0, int64_t p1, int threads) {
  const auto row_of = [&](int64_t p) { return p / panels.count * g.rows + panels.start(p % panels.count); };
  const int64_t base = row_of(p0), depth = g.depth();
  float* const packed = (float*)scratch(0, sizeof(float) * (row_of(p1) - base) * depth + 64);
  int64_t columns = 0;
  for (const Sight& s : sights) columns += s.columns(g);
  const int64_t work = (row_of(p1) - base) * depth * columns, workers = max64(1, min64(threads, work / 32768));
  parallel_for(p1 - p0, ceil_div(32768, kRows * depth), (int)workers, [&](int64_t begin, int64_t end) {
    for (int64_t p = p0 + begin; p < p0 + end; ++p) {
      const int64_t row = panels.start(p % panels.count), height = panels.start(p % panels.count + 1) - row;
      pack_weights(g.of_group(p / panels.count), row, height, packed + (row_of(p) - base) * depth);
    }
  });
  std::vector<GatheredPart> parts;
  for (int64_t p = p0; p < p1;) {
    const int64_t group = p / panels.count, i0 = p % panels.count, i1 = min64(panels.count, i0 + p1 - p);
    for (size_t a = 0; a + 1 < alike.size(); ++a) {
      const Sight& s = sights[alike[a]];
      const bool direct = g.rows <= kDirectRows && alike[a + 1] - alike[a] == 1 && s.w.source_step == 1 && s.w.count >= kLanes;
      // Several parts for each thread, of whole panels or whole lines.
      const int64_t n = s.columns(g), unit = direct ? s.w.count : kCols, wide = ceil_div(n, unit);
      const int64_t across = workers == 1 ? 1 : min64(wide, max64(1, 4 * workers * n / columns));
      const int64_t down = workers == 1 ? 1 : min64(i1 - i0, max64(1, 2 * workers / (across * g.groups)));
      for (int64_t x = 0; x < across; ++x)
        for (int64_t y = 0; y < down; ++y)
          parts.push_back({alike[a], alike[a + 1], group, i0 + (i1 - i0) * y / down, i0 + (i1 - i0) * (y + 1) / down,
                           wide * x / across * unit, min64(wide * (x + 1) / across * unit, n), direct});
    }
    p += i1 - i0;
  }
  parallel_dynamic((int64_t)parts.size(), (int)workers, [&](int64_t i) {
    const GatheredPart& p = parts[i];
    const float* own = packed + (p.group * g.rows - base) * depth;
    if (p.direct) return direct_part(g.of_group(p.group), sights[p.first], own, p.n0, p.n1);
    gathered_part(g.of_group(p.group), sights.data() + p.first, p.last - p.first, panels, own, p.panel0, p.panel1, p.n0, p.n1);
  });
}

static void gathered(const Gathered& g, const AxisClasses& h, const AxisClasses& w, int64_t elements, int threads) {
  if (!h.complete || !w.complete || g.depth() == 0) gathered_empty(g, elements, threads);
  if (g.depth() == 0) return;
  std::vector<Sight> sights;
  std::vector<size_t> alike{0};
  const auto columns = read_alike(w.list);
  for (const auto& rows : read_alike(h.list))
    for (const auto& across : columns) {
      for (const AxisClass& i : rows)
        for (const AxisClass& j : across) sights.push_back({i, j});
      alike.push_back(sights.size());
    }
  if (sights.empty()) return;
  const Panels panels = Panels::of(g.rows);
  // As many panels at a time as pack into 64 MiB.
  const int64_t most = max64(1, (16 << 20) / (g.depth() * kRows)), all = g.groups * panels.count;
  for (int64_t p = 0; p < all; p += most) gathered_panels(g, sights, alike, panels, p, min64(all, p + most), threads);
}

}  // namespace RO_ISA
}  // namespace ro
