// The attention group of docs/spec/operators.md, node by node and fused.
//
// A fold over "visible" positions is computed with the output rows (queries or keys) as vector lanes and the features as the rows of the
// register tile. Then a causal limit is a limit per lane: on the diagonal a lane takes an FMA or keeps its value, everywhere else the
// plain tile of matmul.h runs.
#pragma once
#include "matmul.h"
#include "reduce.h"

namespace ro {
namespace RO_ISA {

// Which k output row r sees: all; k <= r; k >= r.
enum class Sees { kAll, kUntil, kFrom };

// A tile of output rows (lanes) and its range of k.
struct LaneTile {
  Sees sees;
  int64_t r0, rows;  // rows <= kCols
  int64_t depth;     // all of k
  RO_MEMBER int64_t vectors() const { return ceil_div(rows, kLanes); }
  RO_MEMBER int64_t width() const { return vectors() * kLanes; }
  RO_MEMBER int64_t last() const { return r0 + rows - 1; }
  // The k that any row sees.
  RO_MEMBER int64_t begin() const { return sees == Sees::kFrom ? min64(r0, depth) : 0; }
  RO_MEMBER int64_t end() const { return sees == Sees::kUntil ? min64(last() + 1, depth) : depth; }
};

// A block of k on the diagonal: the first and last parts are seen by some lanes only.
struct Diagonal {
  Sees sees;
  int64_t r0;
  int64_t k0, k1;                      // the block
  int64_t begin, full0, full1, end;  // seen by any lane; by all
};

RO_INLINE M not_before(I r, int64_t k) { return not_(lt(r, I::set((int32_t)k))); }
RO_INLINE M visible(Sees sees, I r, int64_t k) {
  return sees == Sees::kUntil ? not_before(r, k) : lt(r, I::set((int32_t)(k + 1)));
}

// As `tile`, on the diagonal. a and b begin at k = d.begin; sums: [MR][NV * kLanes].
template <int MR, int NV>
static void diagonal_tile(const Diagonal& d, const float* a, const float* b, float* sums) {
  F acc[MR][NV];
  I row[NV];
  for (int v = 0; v < NV; ++v) row[v] = add(lane_index(), I::set((int32_t)(d.r0 + v * kLanes)));
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) acc[r][v] = F::set(0.0f);
  const auto some = [&](int64_t from, int64_t to) __attribute__((always_inline)) {
    for (int64_t k = from; k < to; ++k, a += MR, b += NV * kLanes)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        const M m = visible(d.sees, row[v], k);
        const F bv = F::load(b + v * kLanes);
#pragma GCC unroll 16
        for (int r = 0; r < MR; ++r) acc[r][v] = select(m, fma(F::set(a[r]), bv, acc[r][v]), acc[r][v]);
      }
  };
  some(d.begin, d.full0);
  for (int64_t k = d.full0; k < d.full1; ++k, a += MR, b += NV * kLanes) {
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
  some(d.full1, d.end);
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) {
    // A lane that sees nothing in this block keeps its sum; one that saw nothing before starts with this block's.
    const M active = d.sees == Sees::kUntil ? not_before(row[v], d.k0) : lt(row[v], I::set((int32_t)d.k1));
    const M begun = d.sees == Sees::kUntil ? lt(I::set(0), I::set((int32_t)d.k0)) : lt(row[v], I::set((int32_t)d.k0));
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r) {
      float* s = sums + (r * NV + v) * kLanes;
      const F old = F::load(s);
      select(active, select(begun, add(old, acc[r][v]), acc[r][v]), old).store(s);
    }
  }
}

using DiagonalTile = void (*)(const Diagonal&, const float*, const float*, float*);

static DiagonalTile find_diagonal(int64_t rows, int64_t vectors) {
  return find_sized(rows, vectors, [](auto mr, auto nv) -> DiagonalTile { return diagonal_tile<mr, nv>; });
}

// Adds the k of one block (k0 a multiple of 256) to the sums [features][width] of a lane tile. packed: X[k][feature] in panels of features
// over all of k; w: [k][width] from k = `w_begin` on.
static void fold_block(const LaneTile& t, int64_t k0, const Panels& panels, const float* packed, const float* w, int64_t w_begin,
                       float* sums) {
  const int64_t k1 = min64(k0 + kDotBlock, t.depth), width = t.width(), vectors = t.vectors();
  Diagonal d{t.sees, t.r0, k0, k1, k0, k0, k1, k1};
  bool uniform = true, begun = k0 > 0;
  if (t.sees == Sees::kUntil) {
    d.end = min64(k1, t.last() + 1);
    d.full1 = max64(k0, min64(k1, t.r0 + 1));
    uniform = d.full1 == k1;
  } else if (t.sees == Sees::kFrom) {
    d.begin = max64(k0, t.r0);
    d.full0 = max64(d.begin, min64(k1, t.last()));
    uniform = k0 > t.last();
  }
  if (d.begin >= d.end) return;
  const float* b = w + (d.begin - w_begin) * width;
  for (int64_t i = 0; i < panels.count; ++i) {
    const int64_t row = panels.start(i), rows = panels.start(i + 1) - row;
    const float* a = packed + row * t.depth + d.begin * rows;
    if (uniform) find_tile(rows, vectors)(k1 - k0, a, 0, b, (char*)(sums + row * width), width * 4, begun ? kAdd : 0, 1.0f);
    else find_diagonal(rows, vectors)(d, a, b, sums + row * width);
  }
}

// out[r][f] = canonical(MUL(sums[f][r], factor[r])), or without the factor where there is none.
static void store_tile(const float* sums, int64_t features, const LaneTile& t, const float* factor, char* out) {
  const int64_t width = t.width();
  for (int64_t v = 0; v < t.vectors(); ++v) {
    const int64_t rows = min64(kLanes, t.rows - v * kLanes);
    for (int64_t f = 0; f < features; f += kLanes) {
      const int64_t n = min64(kLanes, features - f);
      F x[kLanes];
      for (int64_t i = 0; i < kLanes; ++i) {
        x[i] = i < n ? F::load(sums + (f + i) * width + v * kLanes) : F::set(0.0f);
        if (factor) x[i] = mul(x[i], F::load(factor + v * kLanes));
        x[i] = canonical(x[i]);
      }
      transpose(x);
      for (int64_t r = 0; r < rows; ++r) x[r].store(out + 4 * ((t.r0 + v * kLanes + r) * features + f), (int)n);
    }
  }
}

// Packs X, whose element (k, f) is at view.at(f, k), into panels of features.
static void pack_features(const View& x, const Panels& panels, int64_t depth, float* packed) {
  pack_panels(x, panels, 0, panels.count, depth, packed);
}

// dst[k - k0][width]: rows of src (contiguous along k) become lanes; post(x, vector) sees them before they are stored.
template <class Post>
RO_INLINE void pack_lanes(const View& src, const LaneTile& t, int64_t k0, int64_t k1, float* dst, const Post& post) {
  for (int64_t v = 0; v < t.vectors(); ++v) {
    const int64_t rows = min64(kLanes, t.rows - v * kLanes);
    for (int64_t k = k0; k < k1; k += kLanes) {
      const int n = (int)min64(kLanes, k1 - k);
      F x[kLanes];
      for (int64_t i = 0; i < kLanes; ++i) x[i] = i < rows ? F::load(src.at(t.r0 + v * kLanes + i, k), n) : F::set(0.0f);
      transpose(x);
      for (int64_t j = 0; j < n; ++j) post(x[j], v).store(dst + (k - k0 + j) * t.width() + v * kLanes);
    }
  }
}

// The same where src is contiguous along the lanes: src.at(k, r); post(x, k).
template <class Post>
RO_INLINE void pack_rows(const View& src, const LaneTile& t, int64_t k0, int64_t k1, float* dst, const Post& post) {
  for (int64_t k = k0; k < k1; ++k)
    for (int64_t c = 0; c < t.rows; c += kLanes)
      post(F::load(src.at(k, t.r0 + c), (int)min64(kLanes, t.rows - c)), k).store(dst + (k - k0) * t.width() + c);
}

// One value per lane; lanes without a row get 1.
RO_INLINE void load_lanes(const char* from, const LaneTile& t, float* to) {
  for (int64_t c = 0; c < t.width(); ++c) to[c] = c < t.rows ? load_f32(from, t.r0 + c) : 1.0f;
}

RO_INLINE void reciprocal(float* lanes, int64_t n) {
  for (int64_t c = 0; c < n; c += kLanes) div(F::set(1.0f), F::load(lanes + c)).store(lanes + c);
}

struct AttentionShape {
  int64_t heads, queries, keys;
  bool causal;
  RO_MEMBER int64_t seen(int64_t query) const { return causal ? min64(query + 1, keys) : keys; }
};

// Runs body(head, tile index) for all tiles of all heads; prepare(head) first, once for each head, its memory shared by the head's tiles.
template <class Prepare, class Body>
RO_INLINE void for_heads(int64_t heads, int64_t tiles, int threads, const Prepare& prepare, const Body& body) {
  if (heads >= threads) {
    parallel_dynamic(heads, threads, [&](int64_t h) {
      const auto shared = prepare(h);
      for (int64_t i = 0; i < tiles; ++i) body(h, i, shared);
    });
  } else {
    for (int64_t h = 0; h < heads; ++h) {
      FpGuard guard;
      const auto shared = prepare(h);
      parallel_dynamic(tiles, threads, [&](int64_t i) { body(h, i, shared); });
    }
  }
}

// out[h][r][f] = MUL(DOT over the visible k of (W[r][k], X[k][f]), factor): pack(h, tile, k0, k1, dst) makes W, factor(h, tile, lanes) fills
// the factors of the lanes, or returns false where there are none.
template <class Pack, class Factor>
RO_INLINE void fold_heads(const Call& call, Sees sees, int64_t depth, const Tensor& x, const Pack& pack, const Factor& factor) {
  const int64_t heads = call.out.shape[0], rows = call.out.shape[1], features = call.out.shape[2];
  if (heads * rows * features == 0) return;
  const Panels panels = Panels::of(features);
  const auto prepare = [&](int64_t h) {
    float* packed = (float*)scratch(0, sizeof(float) * features * depth + 64);
    pack_features({(const char*)x.data + 4 * h * depth * features, 4, 4 * features}, panels, depth, packed);
    return (const float*)packed;
  };
  for_heads(heads, ceil_div(rows, kCols), call.threads, prepare, [&](int64_t h, int64_t i, const float* packed) {
    const LaneTile t{sees, i * kCols, min64(kCols, rows - i * kCols), depth};
    float* sums = (float*)scratch(1, sizeof(float) * features * kCols);
    float* w = (float*)scratch(2, sizeof(float) * kDotBlock * kCols);
    alignas(64) float lanes[kCols];
    std::memset(sums, 0, sizeof(float) * features * kCols);
    for (int64_t k0 = t.begin() / kDotBlock * kDotBlock; k0 < t.end(); k0 += kDotBlock) {
      const int64_t begin = max64(k0, t.begin()), end = min64(k0 + kDotBlock, t.end());
      pack(h, t, begin, end, w);
      fold_block(t, k0, panels, packed, w, begin, sums);
    }
    const bool scaled = factor(h, t, lanes);
    store_tile(sums, features, t, scaled ? lanes : nullptr, (char*)call.out.data + 4 * h * rows * features);
  });
}

// ---- the nodes ------------------------------------------------------------------------------------------------------------

// out = A B^T per head, of the visible part; the rest is `masked`.
static void visible_product(const Call& call, bool scaled, uint32_t masked) {
  const Tensor &a = call.in[0], &b = call.in[1];
  const AttentionShape g{call.out.shape[0], call.out.shape[1], call.out.shape[2], call.params[0] != 0};
  const int64_t depth = a.shape[2];
  const float scale = scaled ? literal_f32(call, 0) : 1.0f;
  const int64_t chunk = g.causal ? 128 : g.queries;  // rows computed to the chunk's last visible key
  if (g.heads * g.queries * g.keys == 0) return;
  const int64_t chunks = ceil_div(g.queries, chunk);
  const auto part = [&](int64_t i, int threads) {
    const int64_t h = i / chunks, q0 = i % chunks * chunk, q1 = min64(q0 + chunk, g.queries);
    char* out = (char*)call.out.data + 4 * (h * g.queries + q0) * g.keys;
    Product p{{(const char*)a.data + 4 * (h * g.queries + q0) * depth, 4 * depth, 4},
              {(const char*)b.data + 4 * h * g.keys * depth, 4, 4 * depth},
              q1 - q0, g.seen(q1 - 1), depth, out, 4 * g.keys, 4, false, scaled, scale};
    product(p, threads);
    for (int64_t q = q0; q < q1; ++q)
      for (int64_t j = g.seen(q); j < g.keys; j += kLanes)
        F::bits(masked).store((char*)call.out.data + 4 * ((h * g.queries + q) * g.keys + j), (int)min64(kLanes, g.keys - j));
  };
  if (g.heads * chunks >= call.threads) {
    parallel_dynamic(g.heads * chunks, call.threads, [&](int64_t i) { part(i, 1); });
  } else {
    for (int64_t i = 0; i < g.heads * chunks; ++i) part(i, call.threads);
  }
}

RO_KERNEL_BY(run_heads, attention_scores) { visible_product(call, true, kMinusInfBits); }
RO_KERNEL_BY(run_heads, attention_dp) { visible_product(call, false, 0); }

// Runs body(row, query's number of visible keys, address of the row of s).
template <class Body>
RO_INLINE void for_score_rows(const Call& call, const Body& body) {
  const Tensor& s = call.in[0];
  const AttentionShape g{s.shape[0], s.shape[1], s.shape[2], call.params[0] != 0};
  parallel_for(g.heads * g.queries, ceil_div(8192, max64(1, g.keys)), call.threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) body(row, g.seen(row % g.queries), (const char*)s.data + 4 * row * g.keys);
  });
}

RO_KERNEL_BY(run_heads, attention_max) {
  for_score_rows(call, [&](int64_t row, int64_t seen, const char* s) { store_f32(call.out.data, row, max_row(s, seen)); });
}

RO_KERNEL_BY(run_heads, attention_sum) {
  for_score_rows(call, [&](int64_t row, int64_t seen, const char* s) {
    alignas(64) float m[kSumLanes];
    for (int v = 0; v < kSumVectors; ++v) F::set(load_f32(call.in[1].data, row)).store(m + v * kLanes);
    const char* const p[2] = {s, (const char*)m};
    const int64_t inc[2] = {4, 0};
    store_f32(call.out.data, row, fold_row<StepExp>(p, inc, 0, seen, nullptr));
  });
}

RO_KERNEL_BY(run_heads, attention_ds) {
  const int64_t keys = call.out.shape[2];
  for_score_rows(call, [&](int64_t row, int64_t seen, const char* s) {
    const F m = F::set(load_f32(call.in[1].data, row)), l = div(F::set(1.0f), F::set(load_f32(call.in[2].data, row)));
    const F delta = F::set(load_f32(call.in[4].data, row));
    const char* dp = (const char*)call.in[3].data + 4 * row * keys;
    char* out = (char*)call.out.data + 4 * row * keys;
    for (int64_t j = 0; j < keys; j += kLanes) {
      const int n = (int)min64(kLanes, keys - j);
      const F p = mul(f_exp(sub(F::load(s + 4 * j, n), m)), l);
      const F ds = canonical(mul(p, sub(F::load(dp + 4 * j, n), delta)));
      select(first(seen - j < 0 ? 0 : seen - j), ds, F::set(0.0f)).store(out + 4 * j, n);
    }
  });
}

RO_KERNEL_BY(run_heads, attention_out) {
  const Tensor &s = call.in[0], &m = call.in[1], &l = call.in[2];
  const int64_t queries = s.shape[1], keys = s.shape[2];
  fold_heads(
      call, call.params[0] ? Sees::kUntil : Sees::kAll, keys, call.in[3],
      [&](int64_t h, const LaneTile& t, int64_t k0, int64_t k1, float* dst) {
        alignas(64) float max[kCols];
        load_lanes((const char*)m.data + 4 * h * queries, t, max);
        pack_lanes({(const char*)s.data + 4 * h * queries * keys, 4 * keys, 4}, t, k0, k1, dst,
                   [&](F x, int64_t v) { return f_exp(sub(x, F::load(max + v * kLanes))); });
      },
      [&](int64_t h, const LaneTile& t, float* lanes) {
        load_lanes((const char*)l.data + 4 * h * queries, t, lanes);
        reciprocal(lanes, t.width());
        return true;
      });
}

RO_KERNEL_BY(run_heads, attention_dv) {
  const Tensor &s = call.in[0], &m = call.in[1], &l = call.in[2];
  const int64_t queries = s.shape[1], keys = s.shape[2];
  fold_heads(
      call, call.params[0] ? Sees::kFrom : Sees::kAll, queries, call.in[3],
      [&](int64_t h, const LaneTile& t, int64_t k0, int64_t k1, float* dst) {
        pack_rows({(const char*)s.data + 4 * h * queries * keys, 4 * keys, 4}, t, k0, k1, dst, [&](F x, int64_t k) {
          const F max = F::set(load_f32(m.data, h * queries + k)), sum = F::set(load_f32(l.data, h * queries + k));
          return mul(f_exp(sub(x, max)), div(F::set(1.0f), sum));
        });
      },
      [](int64_t, const LaneTile&, float*) { return false; });
}

// All lanes times the literal.
struct ScaleFactor {
  float scale;
  RO_MEMBER bool operator()(int64_t, const LaneTile& t, float* lanes) const {
    for (int64_t c = 0; c < t.width(); ++c) lanes[c] = scale;
    return true;
  }
};

RO_KERNEL_BY(run_heads, attention_dq) {
  const Tensor& ds = call.in[0];
  const int64_t queries = ds.shape[1], keys = ds.shape[2];
  fold_heads(
      call, call.params[0] ? Sees::kUntil : Sees::kAll, keys, call.in[1],
      [&](int64_t h, const LaneTile& t, int64_t k0, int64_t k1, float* dst) {
        pack_lanes({(const char*)ds.data + 4 * h * queries * keys, 4 * keys, 4}, t, k0, k1, dst, [](F x, int64_t) { return x; });
      },
      ScaleFactor{literal_f32(call, 0)});
}

RO_KERNEL_BY(run_heads, attention_dk) {
  const Tensor& ds = call.in[0];
  const int64_t queries = ds.shape[1], keys = ds.shape[2];
  fold_heads(
      call, call.params[0] ? Sees::kFrom : Sees::kAll, queries, call.in[1],
      [&](int64_t h, const LaneTile& t, int64_t k0, int64_t k1, float* dst) {
        pack_rows({(const char*)ds.data + 4 * h * queries * keys, 4 * keys, 4}, t, k0, k1, dst, [](F x, int64_t) { return x; });
      },
      ScaleFactor{literal_f32(call, 0)});
}

// ---- fused forward --------------------------------------------------------------------------------------------------------

// Maximum over the visible keys of the scores [key][width] of a tile, per lane.
RO_INLINE void tile_max(const LaneTile& t, const float* scores, float* max) {
  const int64_t width = t.width(), full = t.sees == Sees::kAll ? t.depth : min64(t.r0 + 1, t.depth);
  for (int64_t v = 0; v < t.vectors(); ++v) {
    const I row = add(lane_index(), I::set((int32_t)(t.r0 + v * kLanes)));
    F best = F::bits(kMinusInfBits);
    M nan = is_nan(best);
    for (int64_t k = 0; k < full; ++k) {
      const F x = F::load(scores + k * width + v * kLanes);
      best = max_raw(best, x);
      nan = or_(nan, is_nan(x));
    }
    for (int64_t k = full; k < t.end(); ++k) {
      const F x = select(not_before(row, k), F::load(scores + k * width + v * kLanes), F::bits(kMinusInfBits));
      best = max_raw(best, x);
      nan = or_(nan, is_nan(x));
    }
    // Zeros of either sign compare equal: settled by the full rule, which is rarely needed.
    if (any(eq(best, F::set(0.0f)))) {
      F exact = F::bits(kMinusInfBits);
      for (int64_t k = 0; k < t.end(); ++k) {
        const F x = F::load(scores + k * width + v * kLanes);
        exact = maximum(exact, k < full ? x : select(not_before(row, k), x, F::bits(kMinusInfBits)));
      }
      best = exact;
    }
    select(nan, F::bits(kNanBits), best).store(max + v * kLanes);
  }
}

// scores become EXP(SUB(s, max)), +0 where masked; sum: RSUM per lane. A masked +0 does not change a lane: EXP is never -0.
RO_INLINE void tile_exp_sum(const LaneTile& t, float* scores, const float* max, float* sum) {
  alignas(64) float lane[kSumLanes * kCols];
  const int64_t width = t.width(), full = t.sees == Sees::kAll ? t.depth : min64(t.r0 + 1, t.depth);
  for (int64_t v = 0; v < t.vectors(); ++v) F::set(0.0f).store(sum + v * kLanes);
  for (int64_t b = 0; b < t.end(); b += kSumBlock) {
    const int64_t stop = min64(b + kSumBlock, t.end());
    std::memset(lane, 0, sizeof(float) * kSumLanes * width);
    for (int64_t k = b; k < stop; ++k)
      for (int64_t v = 0; v < t.vectors(); ++v) {
        float* at = scores + k * width + v * kLanes;
        F e = f_exp(sub(F::load(at), F::load(max + v * kLanes)));
        if (k >= full) {
          const I row = add(lane_index(), I::set((int32_t)(t.r0 + v * kLanes)));
          e = select(not_before(row, k), e, F::set(0.0f));
        }
        e.store(at);
        float* to = lane + (k - b) % kSumLanes * width + v * kLanes;
        add(F::load(to), e).store(to);
      }
    for (int h = kSumLanes / 2; h > 0; h /= 2)
      for (int64_t c = 0; c < h * width; c += kLanes) add(F::load(lane + c), F::load(lane + c + h * width)).store(lane + c);
    for (int64_t c = 0; c < width; c += kLanes) {
      const F s = F::load(lane + c);
      canonical(b > 0 ? add(F::load(sum + c), s) : s).store(sum + c);
    }
  }
}

RO_INLINE void store_lanes(const float* lanes, const LaneTile& t, char* to) {
  std::memcpy(to + 4 * t.r0, lanes, 4 * t.rows);
}

// scores [k][width] of a lane tile: MUL(DOT(a_k, lane), scale) for the panels that hold the k that it sees; not scaled: the DOT.
// packed: panels over k; lanes: [depth][width].
static void tile_scores(const Panels& panels, const float* packed, int64_t depth, const float* lanes, const LaneTile& t, bool scaled,
                        float scale, float* scores) {
  const int64_t width = t.width();
  for (int64_t i = 0; i < panels.count; ++i) {
    const int64_t row = panels.start(i), rows = panels.start(i + 1) - row;
    if (row + rows <= t.begin() || row >= t.end()) continue;
    const Tile kernel = find_tile(rows, t.vectors());
    for (int64_t d = 0; d < depth || d == 0; d += kDotBlock) {
      const int64_t n = min64(kDotBlock, depth - d);
      const bool last = d + n == depth;
      const int mode = (d > 0 ? kAdd : 0) | (last ? kLast : 0) | (last && scaled ? kScale : 0);
      kernel(n, packed + row * depth + d * rows, 0, lanes + d * width, (char*)(scores + row * width), width * 4, mode, scale);
    }
  }
}

// attention_scores, attention_max, attention_sum and attention_out in one: q, k, v; param causal; literal scale.
// Outputs: out [B, T, E], max [B, T, 1], sum [B, T, 1].
RO_FUSED_BY(run_heads, attention_forward) {
  const Tensor &q = call.in[0], &k = call.in[1], &v = call.in[2];
  const int64_t heads = q.shape[0], queries = q.shape[1], depth = q.shape[2], keys = k.shape[1], features = v.shape[2];
  const float scale = literal_f32(call, 0);
  const Panels key_panels = Panels::of(keys), panels = Panels::of(features);
  if (heads * queries == 0) return;
  const auto prepare = [&](int64_t h) {
    float* packed = (float*)scratch(0, sizeof(float) * keys * (features + depth) + 64);
    pack_features({(const char*)v.data + 4 * h * keys * features, 4, 4 * features}, panels, keys, packed);
    pack_features({(const char*)k.data + 4 * h * keys * depth, 4 * depth, 4}, key_panels, depth, packed + keys * features);
    return (const float*)packed;
  };
  for_heads(heads, ceil_div(queries, kCols), call.threads, prepare, [&](int64_t h, int64_t i, const float* packed) {
    const LaneTile t{call.params[0] ? Sees::kUntil : Sees::kAll, i * kCols, min64(kCols, queries - i * kCols), keys};
    float* sums = (float*)scratch(1, sizeof(float) * features * kCols);
    float* lanes = (float*)scratch(2, sizeof(float) * depth * kCols);
    float* scores = (float*)scratch(3, sizeof(float) * (keys + kRows) * kCols);
    alignas(64) float max[kCols], sum[kCols];
    pack_lanes({(const char*)q.data + 4 * h * queries * depth, 4 * depth, 4}, t, 0, depth, lanes, [](F x, int64_t) { return x; });
    tile_scores(key_panels, packed + keys * features, depth, lanes, t, true, scale, scores);
    tile_max(t, scores, max);
    tile_exp_sum(t, scores, max, sum);
    std::memset(sums, 0, sizeof(float) * features * kCols);
    for (int64_t k0 = 0; k0 < t.end(); k0 += kDotBlock) fold_block(t, k0, panels, packed, scores + k0 * t.width(), k0, sums);
    store_lanes(max, t, (char*)call.more[0].data + 4 * h * queries);
    store_lanes(sum, t, (char*)call.more[1].data + 4 * h * queries);
    reciprocal(sum, t.width());
    store_tile(sums, features, t, sum, (char*)call.out.data + 4 * h * queries * features);
  });
}

// ---- fused backward -------------------------------------------------------------------------------------------------------

// attention_scores, attention_dv, attention_dp, attention_ds, attention_dq and attention_dk in one: the scores are computed again
// from q and k. Inputs q, k, v, max, sum, do, delta; param causal; literal scale. Outputs: dq, dk, dv.
//
// Keys go in blocks of 256, the blocks of dq's fold. Of a block, tiles of keys give dk and dv at once and leave dS in a buffer
// [queries][256]; then tiles of queries add the block to their sums of dq.
class AttentionBackward {
 public:
  AttentionBackward(const Call& call, int threads)
      : call_(call), threads_(threads), queries_(call.in[0].shape[1]), depth_(call.in[0].shape[2]), keys_(call.in[1].shape[1]),
        features_(call.in[2].shape[2]), causal_(call.params[0] != 0), scale_(literal_f32(call, 0)),
        query_panels_(Panels::of(queries_)), depth_panels_(Panels::of(depth_)), feature_panels_(Panels::of(features_)) {}

  void run(int64_t head) {
    const int64_t rows = queries_ * depth_, outs = queries_ * features_;
    q_ = input(0, head * rows), k_ = input(1, head * keys_ * depth_), v_ = input(2, head * keys_ * features_);
    max_ = input(3, head * queries_), do_ = input(5, head * outs), delta_ = input(6, head * queries_);
    float* packed = (float*)scratch(0, sizeof(float) * (2 * rows + 2 * outs + keys_ * depth_) + 64);
    q_rows_ = packed, q_columns_ = packed + rows, do_rows_ = packed + 2 * rows, do_columns_ = packed + 2 * rows + outs;
    k_columns_ = packed + 2 * rows + 2 * outs;
    pack_features({q_, 4 * depth_, 4}, query_panels_, depth_, packed);
    pack_features({q_, 4, 4 * depth_}, depth_panels_, queries_, packed + rows);
    pack_features({do_, 4 * features_, 4}, query_panels_, features_, packed + 2 * rows);
    pack_features({do_, 4, 4 * features_}, feature_panels_, queries_, packed + 2 * rows + outs);
    pack_features({k_, 4, 4 * depth_}, depth_panels_, keys_, packed + 2 * rows + 2 * outs);
    const int64_t tiles = ceil_div(queries_, kCols);
    ds_ = (float*)scratch(4, sizeof(float) * queries_ * kDotBlock);
    dq_ = (float*)scratch(5, sizeof(float) * tiles * depth_ * kCols);
    inverse_ = (float*)scratch(6, sizeof(float) * queries_);
    std::memset(dq_, 0, sizeof(float) * tiles * depth_ * kCols);
    for (int64_t i = 0; i < queries_; ++i) inverse_[i] = div_rn(1.0f, load_f32(call_.in[4].data, head * queries_ + i));
    for (int64_t block = 0; block < keys_; block += kDotBlock) {
      const int64_t count = ceil_div(min64(kDotBlock, keys_ - block), kCols);
      parallel_dynamic(count, threads_, [&](int64_t i) { keys(head, block, block + i * kCols); });
      parallel_dynamic(tiles, threads_, [&](int64_t i) { add_dq(block, i); });
    }
    parallel_dynamic(tiles, threads_, [&](int64_t i) { store_scaled(dq_ + i * depth_ * kCols, depth_, query_tile(i), out(call_.out, head * rows)); });
  }

 private:
  const char* input(int i, int64_t element) const { return (const char*)call_.in[i].data + 4 * element; }
  static char* out(const Tensor& t, int64_t element) { return (char*)t.data + 4 * element; }
  LaneTile query_tile(int64_t i) const {
    return {causal_ ? Sees::kUntil : Sees::kAll, i * kCols, min64(kCols, queries_ - i * kCols), keys_};
  }

  void store_scaled(const float* sums, int64_t features, const LaneTile& t, char* to) const {
    alignas(64) float lanes[kCols];
    for (int c = 0; c < kCols; ++c) lanes[c] = scale_;
    store_tile(sums, features, t, lanes, to);
  }

  // One tile of keys: dk, dv, and its columns of dS.
  void keys(int64_t head, int64_t block, int64_t j0) const {
    const LaneTile t{causal_ ? Sees::kFrom : Sees::kAll, j0, min64(kCols, keys_ - j0), queries_};
    const int64_t width = t.width(), begin = t.begin();
    float* sums = (float*)scratch(1, sizeof(float) * (depth_ + features_) * kCols);
    float* lanes = (float*)scratch(2, sizeof(float) * (depth_ + features_) * kCols);
    float* p = (float*)scratch(3, sizeof(float) * 2 * (queries_ + kRows) * kCols);
    float* ds = p + (queries_ + kRows) * kCols;
    const auto same = [](F x, int64_t) { return x; };
    pack_lanes({k_, 4 * depth_, 4}, t, 0, depth_, lanes, same);
    pack_lanes({v_, 4 * features_, 4}, t, 0, features_, lanes + depth_ * width, same);
    tile_scores(query_panels_, q_rows_, depth_, lanes, t, true, scale_, p);
    tile_scores(query_panels_, do_rows_, features_, lanes + depth_ * width, t, false, 1.0f, ds);
    for (int64_t i = begin; i < queries_; ++i) {
      const F m = F::set(load_f32(max_, i)), r = F::set(inverse_[i]), delta = F::set(load_f32(delta_, i));
      for (int64_t c = 0; c < width; c += kLanes) {
        const F pi = mul(f_exp(sub(F::load(p + i * width + c), m)), r);
        const F di = canonical(mul(pi, sub(F::load(ds + i * width + c), delta)));
        pi.store(p + i * width + c);
        di.store(ds + i * width + c);
        di.store(ds_ + i * kDotBlock + (j0 - block) + c, (int)min64(kLanes, t.rows - c));
      }
    }
    float* dv = sums + depth_ * kCols;
    std::memset(sums, 0, sizeof(float) * (depth_ + features_) * kCols);
    for (int64_t k0 = begin / kDotBlock * kDotBlock; k0 < queries_; k0 += kDotBlock) {
      const int64_t first = max64(k0, begin);
      fold_block(t, k0, depth_panels_, q_columns_, ds + first * width, first, sums);
      fold_block(t, k0, feature_panels_, do_columns_, p + first * width, first, dv);
    }
    store_scaled(sums, depth_, t, out(call_.more[0], head * keys_ * depth_));
    store_tile(dv, features_, t, nullptr, out(call_.more[1], head * keys_ * features_));
  }

  // Adds one block of keys to a tile of dq.
  void add_dq(int64_t block, int64_t i) const {
    const LaneTile t = query_tile(i);
    const int64_t end = min64(block + kDotBlock, t.end());
    if (block >= end) return;
    float* w = (float*)scratch(2, sizeof(float) * kDotBlock * kCols);
    pack_lanes({(const char*)(ds_ - block), 4 * kDotBlock, 4}, t, block, end, w, [](F x, int64_t) { return x; });
    fold_block(t, block, depth_panels_, k_columns_, w, block, dq_ + i * depth_ * kCols);
  }

  const Call& call_;
  int threads_;
  int64_t queries_, depth_, keys_, features_;
  bool causal_;
  float scale_;
  Panels query_panels_, depth_panels_, feature_panels_;
  // Of the present head.
  const char *q_, *k_, *v_, *max_, *do_, *delta_;
  const float *q_rows_, *q_columns_, *do_rows_, *do_columns_, *k_columns_;  // packed: *_rows for products, *_columns for folds
  float *ds_, *dq_, *inverse_;
};

RO_FUSED_BY(run_heads, attention_backward) {
  const int64_t heads = call.in[0].shape[0];
  if (heads >= call.threads) {
    parallel_dynamic(heads, call.threads, [&](int64_t h) { AttentionBackward(call, 1).run(h); });
  } else {
    for (int64_t h = 0; h < heads; ++h) AttentionBackward(call, call.threads).run(h);
  }
}

}  // namespace RO_ISA
}  // namespace ro
