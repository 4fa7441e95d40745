// Convolution with few filters, or the gradient of its input with few channels: output positions are the lanes, and columns are read
// where they lie.
//
// Include after conv.h.
#pragma once
#include "conv.h"

namespace ro {
namespace RO_ISA {

constexpr int kDirectRows = kRows / 2, kDirectVectors = 4;

// kDirectVectors vectors of neighbours at a time; all blocks. c: [MR][kDirectVectors * kLanes]. ahead: from a line to the next, which is
// fetched meanwhile.
template <int MR>
static void direct_tile(const Terms& t, const float* a, const float* const* from, int64_t ahead, float* c, bool begun) {
  constexpr int NV = kDirectVectors, kAhead = kLanes < 16 ? 2 : 1;  // a cache line each
  for (int64_t block = 0; block < t.blocks; ++block, begun = true) {
    F acc[MR][NV];
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[r][v] = F::set(0.0f);
    for (int64_t k = t.begin[block]; k < t.begin[block + 1]; ++k) {
      const float* ak = a + k * MR;
      const int64_t in = t.list[k].in;
#pragma GCC unroll 4
      for (int v = 0; v < NV; v += kAhead) __builtin_prefetch(from[v] + in + ahead);
      F av[MR];
#pragma GCC unroll 16
      for (int r = 0; r < MR; ++r) av[r] = F::set(ak[r]);
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        const F bv = F::load(from[v] + in);
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

// The same for short blocks, with the sums in registers. ADD(-0, P) is P.
template <int MR>
static void brief_tile(const Terms& t, const float* a, const float* const* from, int64_t, float* c, bool begun) {
  constexpr int NV = kDirectVectors / 2;
  for (int half = 0; half < 2; ++half, from += NV, c += NV * kLanes) {
    F sum[MR][NV];
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) sum[r][v] = begun ? F::load(c + (r * kDirectVectors + v) * kLanes) : F::set(-0.0f);
    for (int64_t block = 0; block < t.blocks; ++block) {
      F acc[MR][NV];
#pragma GCC unroll 16
      for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) acc[r][v] = F::set(0.0f);
      for (int64_t k = t.begin[block]; k < t.begin[block + 1]; ++k) {
        const float* ak = a + k * MR;
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) {
          const F bv = F::load(from[v] + t.list[k].in);
#pragma GCC unroll 16
          for (int r = 0; r < MR; ++r) acc[r][v] = fma(F::set(ak[r]), bv, acc[r][v]);
        }
      }
#pragma GCC unroll 16
      for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) sum[r][v] = add(sum[r][v], acc[r][v]);
    }
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) sum[r][v].store(c + (r * kDirectVectors + v) * kLanes);
  }
}

using DirectTile = void (*)(const Terms&, const float*, const float* const*, int64_t, float*, bool);
template <int... r>
RO_INLINE DirectTile direct_of_rows(bool brief, int64_t rows, std::integer_sequence<int, r...>) {
  static constexpr DirectTile tiles[2][kDirectRows] = {{direct_tile<r + 1>...}, {brief_tile<r + 1>...}};
  return tiles[brief][rows - 1];
}

// The first n lanes of x, or all, to elements `step` apart.
RO_INLINE void store_columns(F x, float* to, int64_t step, int64_t n) {
  x = canonical(x);
  if (step == 1) {
    if (n >= kLanes) x.store(to);
    else x.store(to, (int)n);
    return;
  }
  float lanes[kLanes];
  x.store(lanes);
  for (int64_t l = 0; l < n && l < kLanes; ++l) store_f32(to + l * step, 0, lanes[l]);
}

// Columns [n0, n1) of one class. packed: all rows' weights, term by term.
static void direct_part(const Gathered& g, const Sight& s, const float* packed, int64_t n0, int64_t n1) {
  constexpr int64_t kWidth = kDirectVectors * kLanes;
  const AxisClass &h = s.h, &w = s.w;
  const Terms t(g, s, g.start, g.stop, 4);
  float* const a = (float*)scratch(5, sizeof(float) * (t.count * g.rows + 1));  // the weights of these terms
  for (int64_t k = 0; k < t.count; ++k) std::memcpy(a + k * g.rows, packed + t.list[k].at * g.rows, sizeof(float) * g.rows);
  const DirectTile tile = direct_of_rows(t.count < 8 * t.blocks, g.rows, std::make_integer_sequence<int, kDirectRows>());
  alignas(64) float sums[kDirectRows * kWidth] = {};
  const float* from[kDirectVectors];
  int64_t to[kDirectVectors];
  int held = 0;
  const auto flush = [&] {
    for (int i = held; i < kDirectVectors; ++i) from[i] = from[0];
    if (g.carry)
      for (int64_t r = 0; r < g.rows; ++r)
        for (int64_t c = 0; c < held * kLanes; ++c)
          sums[r * kWidth + c] = load_f32(g.carry + r * g.out_plane + to[c / kLanes], c % kLanes * w.step);
    tile(t, a, from, h.source_step * g.in_width, sums, g.carry != nullptr);
    for (int64_t r = 0; r < g.rows; ++r)
      for (int i = 0; i < held; ++i)
        store_columns(F::load(sums + r * kWidth + i * kLanes), g.out + r * g.out_plane + to[i], w.step, kLanes);
    held = 0;
  };
  for (int64_t n = n0; n < n1; n += kLanes) {
    const int64_t line = n / w.count, j = min64(n % w.count, w.count - kLanes);  // the last vector of a line begins earlier
    const int64_t image = line / h.count, i = line % h.count;
    from[held] = g.in + image * g.in_image + i * h.source_step * g.in_width + j;
    to[held] = image * g.out_image + (h.first + i * h.step) * g.out_width + w.first + j * w.step;
    if (++held == kDirectVectors) flush();
    if (n % w.count + kLanes > w.count) n -= n % w.count + kLanes - w.count;
  }
  if (held) flush();
}

RO_INLINE bool direct_class(const Sight& s) { return s.w.source_step == 1 && s.w.count >= kLanes; }

static void by_direct(const Gathered& g, const std::vector<Sight>& sights, int threads) {
  struct Part {
    size_t sight;
    int64_t group, line0, line1;
  };
  const int64_t taps = g.kh * g.kw, depth = g.depth();
  float* const packed = (float*)scratch(0, sizeof(float) * g.groups * g.rows * depth + 1);
  for (int64_t group = 0; group < g.groups; ++group)
    for (int64_t k = 0; k < depth; ++k)
      for (int64_t r = 0; r < g.rows; ++r)
        packed[(group * depth + k) * g.rows + r] =
            load_f32(g.a + group * g.a_group + r * g.a_row + (g.start + k) / taps * g.a_channel, (g.start + k) % taps);
  int64_t columns = 0;
  for (const Sight& s : sights) columns += s.columns(g);
  const int64_t workers = max64(1, min64(threads, g.groups * g.rows * depth / taps * columns / 32768));
  std::vector<Part> parts;
  for (int64_t group = 0; group < g.groups; ++group)
    for (size_t i = 0; i < sights.size(); ++i) {
      const int64_t lines = g.images * sights[i].h.count;
      const int64_t count = workers == 1 ? 1 : min64(lines, max64(1, 4 * workers * sights[i].columns(g) / columns));
      for (int64_t l = 0; l < count; ++l) parts.push_back({i, group, lines * l / count, lines * (l + 1) / count});
    }
  parallel_dynamic((int64_t)parts.size(), (int)workers, [&](int64_t i) {
    const Part& p = parts[i];
    const int64_t width = sights[p.sight].w.count;
    direct_part(g.of_group(p.group), sights[p.sight], packed + p.group * depth * g.rows, p.line0 * width, p.line1 * width);
  });
}

}  // namespace RO_ISA
}  // namespace ro
