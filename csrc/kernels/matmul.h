// Matrix products in the order DOT of docs/spec/operators.md: per output element one chain of FMAs per block of 256 k, block
// sums added in ascending order. Vector lanes are output columns, so the order costs nothing; blocks of k are the cache blocks.
//
// Design: A packed into panels of up to kRows rows, B into panels of kCols columns for one k block (per thread, L2), a register
// tile kRows x kCols. Edges in M and N are padded with zeros or narrower tiles, never in K: FMA(0, 0, -0) is +0.
#pragma once
#include <type_traits>

#include "convert.h"
#include "parallel.h"
#include "prim.h"
#include "registry.h"
#include "simd.h"

namespace ro {
namespace RO_ISA {

constexpr int64_t kDotBlock = 256;

#if defined(RO_ISA_AVX512)
constexpr int kRows = 14, kVectors = 2;
#elif defined(RO_ISA_AVX2)
constexpr int kRows = 6, kVectors = 2;
#else
constexpr int kRows = 6, kVectors = 4;
#endif
constexpr int kCols = kVectors * kLanes;
constexpr int64_t kColumnBlock = 512;  // columns of B packed at a time: 512 KiB

RO_INLINE int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
RO_INLINE int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }
RO_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A matrix of floats in memory, strides in bytes; one of them is the item size (or the extent along it is 1).
struct View {
  const char* data;
  int64_t row, col;
  int32_t dtype = kF32;
  RO_MEMBER const char* at(int64_t r, int64_t c) const { return data + r * row + c * col; }
  RO_MEMBER View from(int64_t r, int64_t c) const { return {at(r, c), row, col, dtype}; }
  RO_MEMBER View transposed() const { return {data, col, row, dtype}; }
  RO_MEMBER float value(int64_t r, int64_t c) const { return ro::load_real(at(r, c), dtype, 0); }
  RO_MEMBER bool along_rows() const { return row == item_size(dtype); }
  RO_MEMBER bool along_columns() const { return col == item_size(dtype); }
};

// Calls body with a constant of the dtype.
template <class Body>
RO_INLINE void with_float(int32_t dtype, const Body& body) {
  if (dtype == kF32) body(std::integral_constant<int32_t, kF32>());
  else if (dtype == kBF16) body(std::integral_constant<int32_t, kBF16>());
  else body(std::integral_constant<int32_t, kF16>());
}

// How the block sum P of an output tile is joined to its sum S.
enum TileMode : int {
  kAdd = 1,    // S = ADD(S, P), else S = P
  kLast = 2,   // the last block: write canonical(S)
  kScale = 4,  // with kLast: write canonical(MUL(S, scale))
};

RO_INLINE F join(int mode, F old, F p, F scale) {
  F s = mode & kAdd ? add(old, p) : p;
  if (mode & kScale) s = mul(s, scale);
  return mode & kLast ? canonical(s) : s;
}

// One register tile: MR rows x NV vectors over kc values of k. a, packed: [kc][MR], and MR cache lines from `a_row` bytes after it on are
// fetched meanwhile. Else rows `a_row` bytes apart. b: [kc][NV * kLanes]. c: rows `row` bytes apart, fetched one by one, as all at
// once would hold up the loads of B.
template <int MR, int NV, bool packed>
static void tile(int64_t kc, const float* a, int64_t a_row, const float* b, char* c, int64_t row, int mode, float scale) {
  F acc[MR][NV];
  const char* from[MR];
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r) {
    from[r] = (const char*)a + r * a_row;
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) acc[r][v] = F::set(0.0f);
  }
  const int64_t step = kc / MR + 1;
  const char *ahead = (const char*)a + a_row, *c_row = c;
  for (int64_t k = 0; k < kc; ahead += 64, c_row += row) {
    if (packed) __builtin_prefetch(ahead, 0, 2);
    __builtin_prefetch(c_row, 1);
    if (NV * kLanes > 16) __builtin_prefetch(c_row + 64, 1);
    for (const int64_t end = min64(k + step, kc); k < end; ++k) {
      F bv[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) bv[v] = F::load(b + v * kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < MR; ++r) {
        const F av = F::set(packed ? a[r] : load_f32(from[r], k));
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) acc[r][v] = fma(av, bv[v], acc[r][v]);
      }
      a += MR;
      b += NV * kLanes;
    }
  }
  const F sv = F::set(scale);
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      char* p = c + r * row + v * kLanes * 4;
      join(mode, mode & kAdd ? F::load(p) : acc[r][v], acc[r][v], sv).store(p);
    }
}

// Calls body with a number of rows, of vectors as a constant.
template <int R = 1, class Body>
RO_INLINE auto with_rows(int64_t rows, const Body& body) {
  if constexpr (R < kRows)
    if (rows != R) return with_rows<R + 1>(rows, body);
  return body(std::integral_constant<int, R>());
}
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
// What find(rows, vectors) gives for these constants.
template <class Find>
RO_INLINE auto find_sized(int64_t rows, int64_t vectors, const Find& find) {
  return with_vectors(vectors, [&](auto nv) { return with_rows(rows, [&](auto mr) { return find(mr, nv); }); });
}

using Tile = void (*)(int64_t, const float*, int64_t, const float*, char*, int64_t, int, float);
template <bool packed = true>
static Tile find_tile(int64_t rows, int64_t vectors) {
  return find_sized(rows, vectors, [](auto mr, auto nv) -> Tile { return tile<mr, nv, packed>; });
}

// M rows in panels of nearly equal height, at most kRows.
struct Panels {
  int64_t rows, count;
  RO_INLINE Panels of(int64_t rows) { return {rows, ceil_div(rows, kRows)}; }
  RO_MEMBER int64_t start(int64_t i) const { return rows / count * i + min64(i, rows % count); }
};

// dst[k][height] = src row r, column k; the rows are contiguous along k: transposed in registers.
template <int32_t dtype>
RO_INLINE void pack_transposed(const View& src, int64_t height, int64_t k0, int64_t kc, int64_t width, float* dst) {
  for (int64_t r0 = 0; r0 < height; r0 += kLanes) {
    const int lanes = (int)min64(kLanes, height - r0);
    for (int64_t k = 0; k < kc; k += kLanes) {
      const int n = (int)min64(kLanes, kc - k);
      F t[kLanes];
      if (n == kLanes) {
#pragma GCC unroll 16
        for (int r = 0; r < kLanes; ++r) t[r] = r < lanes ? load_as<dtype>(src.at(r0 + r, k0 + k)) : F::set(0.0f);
      } else {
#pragma GCC unroll 16
        for (int r = 0; r < kLanes; ++r) t[r] = r < lanes ? load_as<dtype>(src.at(r0 + r, k0 + k), n) : F::set(0.0f);
      }
      transpose(t);
      float* out = dst + k * width + r0;
      // A full store may run into the next row of dst, which is written later; never past the panel's end.
      if (n == kLanes && (r0 + kLanes <= width || (r0 == 0 && (kc - k - kLanes) * width >= kLanes))) {
#pragma GCC unroll 16
        for (int j = 0; j < kLanes; ++j) t[j].store(out + j * width);
      } else {
        const int w = (int)min64(kLanes, width - r0);
        for (int j = 0; j < n; ++j) t[j].store(out + j * width, w);
      }
    }
  }
}

// dst[k][width] = src row k, columns 0 .. n - 1, zeros up to `width`; contiguous along the columns.
template <int32_t dtype>
RO_INLINE void pack_straight(const View& src, int64_t n, int64_t kc, int64_t width, float* dst) {
  for (int64_t k = 0; k < kc; ++k) {
    const char* from = src.at(k, 0);
    int64_t c = 0;
    for (; c + kLanes <= n; c += kLanes) load_as<dtype>(from + item_size(dtype) * c).store(dst + c);
    if (c < width) load_as<dtype>(from + item_size(dtype) * c, (int)(n - c)).store(dst + c, (int)(width - c < kLanes ? width - c : kLanes));
    dst += width;
  }
}

// Panels [i0, i1) of an A that is contiguous along its rows. A panel takes less than a cache line of every k, and where the k lie a
// multiple of a page apart few of them stay in a cache: so some panels for some k at a time, that every line is fetched once.
template <int32_t dtype>
static void pack_panels_straight(const View& a, const Panels& panels, int64_t i0, int64_t i1, int64_t depth, float* packed) {
  constexpr int64_t kSome = 16, kSteps = 8;
  for (int64_t i = i0; i < i1; i += kSome)
    for (int64_t k0 = 0; k0 < depth; k0 += kSteps)
      for (int64_t j = i; j < i1 && j < i + kSome; ++j) {
        const int64_t row = panels.start(j), height = panels.start(j + 1) - row;
        const int64_t width = ceil_div(height, kLanes) * kLanes, k1 = min64(k0 + kSteps, depth);
        const char* from = a.at(row, k0);
        float* to = packed + row * depth + k0 * height;
        // Whole vectors: a load may run into the panels after this one, a store into its own next k, which is written later.
        const int64_t whole = row + width <= panels.rows ? min64(k1, depth - ceil_div(width - height, height)) : k0;
        int64_t k = k0;
        for (; k < whole; ++k, from += a.col, to += height)
          for (int64_t c = 0; c < width; c += kLanes) load_as<dtype>(from + item_size(dtype) * c).store(to + c);
        if (k < k1) pack_straight<dtype>({from, a.col, a.row}, height, k1 - k, height, to);
      }
}

// Panels [i0, i1) of A, all of k: panel i at start(i) * depth as [k][height].
static void pack_panels(const View& a, const Panels& panels, int64_t i0, int64_t i1, int64_t depth, float* packed) {
  with_float(a.dtype, [&](auto dtype) {
    if (!a.along_columns()) return pack_panels_straight<dtype>(a, panels, i0, i1, depth, packed);
    for (int64_t i = i0; i < i1; ++i) {
      const int64_t row = panels.start(i), height = panels.start(i + 1) - row;
      pack_transposed<dtype>(a.from(row, 0), height, 0, depth, height, packed + row * depth);
    }
  });
}

// Columns n0 .. n0 + nc - 1 of B for one block of k: panels of kCols columns, the last one in whole vectors. Where B's rows lie along n
// f32: some of them at a time, as long runs, which the processor's prefetch follows (bf16 and f16 gain only where N is large).
static void pack_b(const View& b, int64_t k0, int64_t kc, int64_t n0, int64_t nc, float* dst) {
  const bool transposed = b.along_rows() && !b.along_columns();
  const int64_t step = transposed || b.dtype != kF32 ? kc : 8;
  with_float(b.dtype, [&](auto dtype) {
    for (int64_t k = 0; k < kc; k += step)
      for (int64_t j = 0; j < nc; j += kCols) {
        const int64_t n = min64(kCols, nc - j), width = ceil_div(n, kLanes) * kLanes;
        float* const to = dst + j * kc + k * width;
        if (transposed) pack_transposed<dtype>(b.from(0, n0 + j).transposed(), n, k0, kc, width, to);
        else pack_straight<dtype>(b.from(k0 + k, n0 + j), n, min64(step, kc - k), width, to);
      }
  });
}

// C = A B over k in [0, K). C's rows are `c_row` bytes apart; `c_col` is 4, or, for a product computed in transposed form, not.
struct Product {
  View a, b;  // [M, K], [K, N]
  int64_t m, n, k;
  char* c;
  int64_t c_row, c_col;
  bool carry;  // C holds the carry
  bool scaled;
  float scale;
  const char* packed = nullptr;  // columns [packed_at, packed_at + n) of a B that pack_all packed, in B's dtype; then b has no data
  int64_t packed_at = 0, packed_n = 0;
};

// All of B in panels, in its own dtype: block of k after block of k, each as pack_b leaves it.
static void pack_all(const View& b, int64_t k, int64_t n, char* to, int threads) {
  const int64_t columns = ceil_div(n, kLanes) * kLanes, size = item_size(b.dtype);
  const int64_t across = ceil_div(n, kCols), blocks = ceil_div(k, kDotBlock);
  parallel_for(across * blocks, 4, threads, [&](int64_t begin, int64_t end) {
    float* const buffer = (float*)scratch(1, sizeof(float) * kDotBlock * kCols);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t pc = i / across * kDotBlock, kc = min64(kDotBlock, k - pc), j = i % across * kCols, nc = min64(kCols, n - j);
      char* const panel = to + size * (pc * columns + j * kc);
      pack_b(b, pc, kc, j, nc, b.dtype == kF32 ? (float*)panel : buffer);
      if (b.dtype != kF32) narrow(b.dtype, buffer, panel, kc * ceil_div(nc, kLanes) * kLanes);
    }
  });
}

// The panels of columns jc .. jc + nc - 1 of B for one block of k; in the buffer, if they are not at hand.
static const float* panels_of_b(const Product& p, int64_t pc, int64_t kc, int64_t jc, int64_t nc, float* buffer) {
  if (!p.packed) {
    pack_b(p.b, pc, kc, jc, nc, buffer);
    return buffer;
  }
  const char* const from = p.packed + item_size(p.b.dtype) * (pc * ceil_div(p.packed_n, kLanes) * kLanes + (p.packed_at + jc) * kc);
  if (p.b.dtype == kF32) return (const float*)from;
  widen(p.b.dtype, from, buffer, kc * ceil_div(nc, kLanes) * kLanes);
  return buffer;
}

// The tile does not fit C as it lies: into a buffer, then joined element by element.
RO_INLINE void edge_tile(const Product& p, Tile kernel, int64_t kc, const float* a, int64_t a_row, const float* b, int64_t m0, int64_t rows,
                         int64_t n0, int64_t cols, int64_t vectors, int mode) {
  alignas(64) float buffer[kRows * kCols];
  const int64_t width = vectors * kLanes;
  kernel(kc, a, a_row, b, (char*)buffer, width * 4, 0, 0.0f);
  const F scale = F::set(p.scale);
  for (int64_t r = 0; r < rows; ++r) {
    char* c = p.c + (m0 + r) * p.c_row + n0 * p.c_col;
    if (p.c_col == 4) {
      for (int64_t v = 0; v * kLanes < cols; ++v) {
        const int lanes = (int)min64(kLanes, cols - v * kLanes);
        const F sum = F::load(buffer + r * width + v * kLanes);
        const F old = mode & kAdd ? F::load(c + v * kLanes * 4, lanes) : sum;
        join(mode, old, sum, scale).store(c + v * kLanes * 4, lanes);
      }
    } else {
      for (int64_t j = 0; j < cols; ++j) {
        const float sum = buffer[r * width + j];
        float s = mode & kAdd ? add_rn(load_f32(c + j * p.c_col, 0), sum) : sum;
        if (mode & kScale) s = mul_rn(s, p.scale);
        store_f32(c + j * p.c_col, 0, mode & kLast ? ro::canonical(s) : s);
      }
    }
  }
}

// The blocks of k in [k0, k1): of C the panels [panel0, panel1), columns [n0, n1), by one thread. packed: A for these k, panel i at
// start(i) * (k1 - k0); or nullptr: as it lies.
static void product_part(const Product& p, const Panels& panels, const float* packed, int64_t k0, int64_t k1, int64_t panel0,
                         int64_t panel1, int64_t n0, int64_t n1) {
  float* buffer = (float*)scratch(1, sizeof(float) * kDotBlock * (min64(n1 - n0, kColumnBlock) + kCols));
  for (int64_t jc = n0; jc < n1; jc += kColumnBlock) {
    const int64_t nc = min64(kColumnBlock, n1 - jc);
    for (int64_t pc = k0; pc < k1; pc += kDotBlock) {
      const int64_t kc = min64(kDotBlock, p.k - pc);
      const bool last = pc + kc == p.k;
      const int mode = (pc > 0 || p.carry ? kAdd : 0) | (last ? kLast : 0) | (last && p.scaled ? kScale : 0);
      const float* packed_b = panels_of_b(p, pc, kc, jc, nc, buffer);
      for (int64_t i = panel0; i < panel1; ++i) {
        const int64_t row = panels.start(i), rows = panels.start(i + 1) - row;
        const float* a = packed ? packed + row * (k1 - k0) + (pc - k0) * rows : (const float*)p.a.at(row, pc);
        const auto find = packed ? find_tile<true> : find_tile<false>;
        const Tile full = find(rows, kVectors);
        // Every tile fetches its share of the next panel.
        const int64_t next = 4 * rows * (k1 - k0), lines = rows * kc / 16;
        for (int64_t j = 0; j < nc; j += kCols) {
          const int64_t cols = min64(kCols, nc - j), fetched = j / kCols * rows;
          const int64_t a_row = packed ? fetched < lines ? next + 64 * fetched : 0 : p.a.row;
          const float* b = packed_b + j * kc;
          if (cols == kCols && p.c_col == 4) {
            full(kc, a, a_row, b, p.c + row * p.c_row + (jc + j) * 4, p.c_row, mode, p.scale);
          } else {
            const int64_t vectors = ceil_div(cols, kLanes);
            edge_tile(p, find(rows, vectors), kc, a, a_row, b, row, rows, jc + j, cols, vectors, mode);
          }
        }
      }
    }
  }
}

// K = 0: +0.0, or the carry.
static void product_empty(const Product& p) {
  for (int64_t i = 0; i < p.m; ++i)
    for (int64_t j = 0; j < p.n; ++j) {
      char* c = p.c + i * p.c_row + j * p.c_col;
      float s = p.carry ? load_f32(c, 0) : 0.0f;
      if (p.scaled) s = mul_rn(s, p.scale);
      store_f32(c, 0, ro::canonical(s));
    }
}

// Adds U rows of B from k on to the block sums of nc columns. x: R rows of the vectors, `stride` apart.
template <int R, int U, int32_t dtype>
RO_INLINE void gemv_rows(const char* b, int64_t row, const float* x, int64_t stride, float* sums, int64_t sums_stride, int64_t nc) {
  constexpr int kSide = 2;  // vectors: a cache line of f32 where there are 8 lanes
  int64_t j = 0;
  for (; j + kSide * kLanes <= nc; j += kSide * kLanes, b += kSide * kLanes * item_size(dtype)) {
    F s[R][kSide];
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < kSide; ++v) s[r][v] = F::load(sums + r * sums_stride + j + v * kLanes);
#pragma GCC unroll 8
    for (int u = 0; u < U; ++u) {
      __builtin_prefetch(b + u * row + 256, 0, 0);
      for (int v = 0; v < kSide; ++v) {
        const F bv = load_as<dtype>(b + u * row + v * kLanes * item_size(dtype));
        for (int r = 0; r < R; ++r) s[r][v] = fma(F::set(x[r * stride + u]), bv, s[r][v]);
      }
    }
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < kSide; ++v) s[r][v].store(sums + r * sums_stride + j + v * kLanes);
  }
  for (; j < nc; j += kLanes, b += kLanes * item_size(dtype)) {
    const int lanes = (int)min64(kLanes, nc - j);
    for (int r = 0; r < R; ++r) {
      F s = F::load(sums + r * sums_stride + j);
      for (int u = 0; u < U; ++u) s = fma(F::set(x[r * stride + u]), load_as<dtype>(b + u * row, lanes), s);
      s.store(sums + r * sums_stride + j);
    }
  }
}

// y = x B for up to 3 rows x, B contiguous along n: 8 rows of B at a time as long runs, which the processor's prefetch follows; the
// block sums pass through the caches.
template <int R, int32_t dtype>
static void gemv_straight(const Product& p, int64_t n0, int64_t n1) {
  constexpr int64_t kChunk = 16384;
  float* sums = (float*)scratch(2, sizeof(float) * R * kChunk);
  float* x = (float*)scratch(3, sizeof(float) * R * p.k);
  for (int r = 0; r < R; ++r)
    for (int64_t k = 0; k < p.k; ++k) x[r * p.k + k] = p.a.value(r, k);
  for (int64_t jc = n0; jc < n1; jc += kChunk) {
    const int64_t nc = min64(kChunk, n1 - jc);
    for (int64_t pc = 0; pc < p.k; pc += kDotBlock) {
      const int64_t end = min64(pc + kDotBlock, p.k);
      const bool last = end == p.k;
      const int mode = (pc > 0 || p.carry ? kAdd : 0) | (last ? kLast : 0) | (last && p.scaled ? kScale : 0);
      for (int r = 0; r < R; ++r) std::memset(sums + r * kChunk, 0, sizeof(float) * min64(kChunk, nc + kLanes));
      int64_t k = pc;
      for (; k + 8 <= end; k += 8) gemv_rows<R, 8, dtype>(p.b.at(k, jc), p.b.row, x + k, p.k, sums, kChunk, nc);
      for (; k < end; ++k) gemv_rows<R, 1, dtype>(p.b.at(k, jc), p.b.row, x + k, p.k, sums, kChunk, nc);
      for (int r = 0; r < R; ++r)
        for (int64_t j = 0; j < nc; j += kLanes) {
          const int lanes = (int)min64(kLanes, nc - j);
          char* c = p.c + r * p.c_row + (jc + j) * 4;
          const F sum = F::load(sums + r * kChunk + j);
          join(mode, mode & kAdd ? F::load(c, lanes) : sum, sum, F::set(p.scale)).store(c, lanes);
        }
    }
  }
}

// Groups of kLanes columns, taken together to hide the latency of a chain.
#if defined(RO_ISA_AVX2)
constexpr int kGroups = 4;
#else
constexpr int kGroups = 2;
#endif

// Adds n values of k to the sums of G groups of kLanes columns, or of the first `lanes` columns of one. b: the first column's run.
template <int R, int G, int32_t dtype>
RO_INLINE void gemv_run(const char* b, int64_t col, const float* x, int64_t stride, int64_t n, int lanes, F (&s)[G][R]) {
  constexpr int kStep = kTransposed<dtype>;
  int64_t k = 0;
  if (lanes == kLanes)
    for (; k + kStep <= n; k += kStep, b += kStep * item_size(dtype))
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) {
        F t[kStep];
        load_transposed<dtype>(t, b + g * kLanes * col, col);
#pragma GCC unroll 16
        for (int u = 0; u < kStep; ++u)
          for (int r = 0; r < R; ++r) s[g][r] = fma(F::set(x[r * stride + k + u]), t[u], s[g][r]);
      }
  for (; k < n; k += kLanes, b += kLanes * item_size(dtype)) {
    const int count = (int)min64(kLanes, n - k);
    for (int g = 0; g < G; ++g) {
      F t[kLanes];
      for (int i = 0; i < kLanes; ++i) t[i] = i < lanes ? load_as<dtype>(b + (g * kLanes + i) * col, count) : F::set(0.0f);
      transpose(t);
      for (int u = 0; u < count; ++u)
        for (int r = 0; r < R; ++r) s[g][r] = fma(F::set(x[r * stride + k + u]), t[u], s[g][r]);
    }
  }
}

// Columns j .. j + G kLanes - 1, or, with G = 1, j .. j + lanes - 1.
template <int R, int G, int32_t dtype>
static void gemv_columns(const Product& p, const float* x, int64_t j, int lanes) {
  F total[G][R];
  const auto c = [&](int g, int r) { return p.c + r * p.c_row + (j + g * kLanes) * 4; };
  for (int g = 0; g < G; ++g)
    for (int r = 0; r < R; ++r) total[g][r] = p.carry ? F::load(c(g, r), lanes) : F::set(0.0f);
  for (int64_t k = 0; k < p.k; k += kDotBlock) {
    F s[G][R];
    for (int g = 0; g < G; ++g)
      for (int r = 0; r < R; ++r) s[g][r] = F::set(0.0f);
    gemv_run<R, G, dtype>(p.b.at(k, j), p.b.col, x + k, p.k, min64(kDotBlock, p.k - k), lanes, s);
    for (int g = 0; g < G; ++g)
      for (int r = 0; r < R; ++r) total[g][r] = k > 0 || p.carry ? add(total[g][r], s[g][r]) : s[g][r];
  }
  for (int g = 0; g < G; ++g)
    for (int r = 0; r < R; ++r) canonical(p.scaled ? mul(total[g][r], F::set(p.scale)) : total[g][r]).store(c(g, r), lanes);
}

// A place in the matrix of one of two groups of kLanes columns that are taken together.
struct GemvGroup {
  int64_t j, k = 0;
  F total;
  RO_MEMBER int64_t length(const Product& p) const { return min64(kDotBlock, p.k - k); }
  // The block's sum; on to the next block, or to the next columns of this group.
  RO_MEMBER void join(const Product& p, F sum) {
    char* const c = p.c + j * 4;
    if (k == 0) total = p.carry ? add(F::load(c), sum) : sum;
    else total = add(total, sum);
    k += kDotBlock;
    if (k < p.k) return;
    canonical(p.scaled ? mul(total, F::set(p.scale)) : total).store(c);
    k = 0;
    j += 2 * kLanes;
  }
};

// `pairs` times 2 kLanes columns: two chains side by side hide their latency. The second is a block of k behind the first: where rows
// lie a multiple of a page apart, their lines would else not fit the ways of a cache.
template <int32_t dtype>
static void gemv_pairs(const Product& p, const float* x, int64_t j, int64_t pairs) {
  const int64_t units = pairs * ceil_div(p.k, kDotBlock);
  GemvGroup first{j, 0, F()}, second{j + kLanes, 0, F()};
  for (int64_t t = 0; t <= units; ++t) {
    const int64_t n0 = t < units ? first.length(p) : 0, n1 = t > 0 ? second.length(p) : 0;
    F s0[1][1] = {{F::set(0.0f)}}, s1[1][1] = {{F::set(0.0f)}};
    const char *b0 = p.b.at(first.k, first.j), *b1 = p.b.at(second.k, second.j);
    const float *x0 = x + first.k, *x1 = x + second.k;
    const int64_t both = min64(n0, n1) / kLanes * kLanes;
    for (int64_t k = 0; k < both; k += kLanes) {
      gemv_run<1, 1, dtype>(b0 + k * item_size(dtype), p.b.col, x0 + k, 0, kLanes, kLanes, s0);
      gemv_run<1, 1, dtype>(b1 + k * item_size(dtype), p.b.col, x1 + k, 0, kLanes, kLanes, s1);
    }
    gemv_run<1, 1, dtype>(b0 + both * item_size(dtype), p.b.col, x0 + both, 0, n0 - both, kLanes, s0);
    gemv_run<1, 1, dtype>(b1 + both * item_size(dtype), p.b.col, x1 + both, 0, n1 - both, kLanes, s1);
    if (t < units) first.join(p, s0[0][0]);
    if (t > 0) second.join(p, s1[0][0]);
  }
}

// A block of k of kLanes columns; next: the columns' next one, or the first of the next columns.
struct GemvBlock {
  int64_t j, k = 0;
  RO_MEMBER int64_t length(const Product& p) const { return min64(kDotBlock, p.k - k); }
  RO_MEMBER GemvBlock next(const Product& p) const {
    return k + kDotBlock < p.k ? GemvBlock{j, k + kDotBlock} : GemvBlock{j + kLanes, 0};
  }
};

// kLanes times `groups` columns from j on of a B that comes from memory. 16 columns at a time, as the processor follows no more streams;
// the next block of each is fetched meanwhile, column by column, as long runs.
template <int32_t dtype>
static void gemv_fetched(const Product& p, const float* x, int64_t j, int64_t groups) {
  constexpr int kChains = 16 / kLanes, kPiece = 16;
  constexpr int kRun = item_size(dtype) * kDotBlock, kShare = item_size(dtype) * kPiece * kLanes;
  const int64_t col = p.b.col;
  GemvBlock ahead{j};
  F total = F::set(0.0f);
  for (int64_t left = groups * ceil_div(p.k, kDotBlock); left > 0; left -= kChains) {
    GemvBlock own[kChains];
    const char *b[kChains], *soon[kChains];
    F s[kChains][1][1];
    int64_t both = kDotBlock;
    for (int u = 0; u < kChains; ++u) {
      own[u] = u < left ? ahead : own[u - 1];
      if (u + 1 < left) ahead = ahead.next(p);
      both = min64(both, own[u].length(p) / kPiece * kPiece);
      b[u] = p.b.at(own[u].k, own[u].j);
      s[u][0][0] = F::set(0.0f);
    }
    GemvBlock later = ahead;
    for (int u = 0; u < kChains; ++u, later = later.next(p)) soon[u] = p.b.at(later.k, later.j);
    for (int64_t k = 0; k < both; k += kPiece)
#pragma GCC unroll 4
      for (int u = 0; u < kChains; ++u) {
        const int64_t at = k / kPiece * kShare;
#pragma GCC unroll 16
        for (int i = 0; i < kShare; i += 64) __builtin_prefetch(soon[u] + at / kRun * col + at % kRun + i);
        gemv_run<1, 1, dtype>(b[u] + k * item_size(dtype), col, x + own[u].k + k, 0, kPiece, kLanes, s[u]);
      }
    for (int u = 0; u < kChains && u < left; ++u) {
      const GemvBlock& o = own[u];
      gemv_run<1, 1, dtype>(b[u] + both * item_size(dtype), col, x + o.k + both, 0, o.length(p) - both, kLanes, s[u]);
      char* const c = p.c + o.j * 4;
      if (o.k > 0) total = add(total, s[u][0][0]);
      else total = p.carry ? add(F::load(c), s[u][0][0]) : s[u][0][0];
      if (o.k + kDotBlock >= p.k) canonical(p.scaled ? mul(total, F::set(p.scale)) : total).store(c);
    }
  }
}

constexpr int64_t kFar = 16 << 20;  // bytes of B that do not stay in the last cache

// y = x B for up to 3 rows x, B contiguous along k (row-major weights [N, K]): kLanes rows by kLanes k transposed in registers.
template <int R, int32_t dtype>
static void gemv_transposed(const Product& p, int64_t n0, int64_t n1) {
  float* x = (float*)scratch(3, sizeof(float) * R * p.k);
  for (int r = 0; r < R; ++r)
    for (int64_t k = 0; k < p.k; ++k) x[r * p.k + k] = p.a.value(r, k);
  int64_t j = n0;
  if (R == 1 && p.k >= kDotBlock && p.n * p.b.col > kFar) {
    const int64_t groups = (n1 - n0) / kLanes;
    gemv_fetched<dtype>(p, x, j, groups);
    j += groups * kLanes;
  } else if (R == 1 && p.b.col % 4096 == 0) {
    const int64_t pairs = (n1 - n0) / (2 * kLanes);
    gemv_pairs<dtype>(p, x, j, pairs);
    j += pairs * 2 * kLanes;
  } else if (R == 1) {
    for (; j + kGroups * kLanes <= n1; j += kGroups * kLanes) gemv_columns<R, kGroups, dtype>(p, x, j, kLanes);
    for (; j + 2 * kLanes <= n1; j += 2 * kLanes) gemv_columns<R, 2, dtype>(p, x, j, kLanes);
  }
  for (; j < n1; j += kLanes) gemv_columns<R, 1, dtype>(p, x, j, (int)min64(kLanes, n1 - j));
}

// Columns a gemv thread takes at least: less than ~64k multiplications are not worth a second thread.
RO_INLINE int64_t gemv_grain(const Product& p) {
  return max64(1, ceil_div(65536, max64(1, p.m * p.k * kLanes)));
}

template <int32_t dtype>
static void gemv_part(const Product& p, int64_t n0, int64_t n1) {
  const bool straight = p.b.along_columns();
  switch (p.m) {
    case 1: return straight ? gemv_straight<1, dtype>(p, n0, n1) : gemv_transposed<1, dtype>(p, n0, n1);
    case 2: return straight ? gemv_straight<2, dtype>(p, n0, n1) : gemv_transposed<2, dtype>(p, n0, n1);
    default: return straight ? gemv_straight<3, dtype>(p, n0, n1) : gemv_transposed<3, dtype>(p, n0, n1);
  }
}

static void gemv(const Product& p, int threads) {
  parallel_for(ceil_div(p.n, kLanes), gemv_grain(p), threads, [&](int64_t begin, int64_t end) {
    const int64_t n0 = begin * kLanes, n1 = min64(end * kLanes, p.n);
    with_float(p.b.dtype, [&](auto dtype) { gemv_part<dtype>(p, n0, n1); });
  });
}

// Elements of A that are packed at once; of a larger A at a time, and rows of it.
constexpr int64_t kPackedWhole = 16 << 20, kPacked = 4 << 20, kPackedRows = 8192;

// All rows of C, the blocks of k in [k0, k1).
static void product_rows(const Product& p, bool in_place, int64_t k0, int64_t k1, int threads) {
  const Panels panels = Panels::of(p.m);
  const int64_t depth = k1 - k0, work = p.m * p.n * depth, workers = max64(1, min64(threads, work / 32768));
  float* packed = in_place ? nullptr : (float*)scratch(0, sizeof(float) * p.m * depth + 64);
  if (packed)
    parallel_for(panels.count, ceil_div(32768, kRows * depth), (int)workers, [&](int64_t begin, int64_t end) {
      pack_panels(p.a.from(0, k0), panels, begin, end, depth, packed);
    });
  // A grid of threads over C whose parts are nearly square; no more of them than there are panels.
  const int64_t columns = ceil_div(p.n, kCols);
  int64_t grid_m = 1, grid_n = 1;
  double best = -1;
  for (int64_t gm = 1; gm <= workers && gm <= panels.count; ++gm) {
    const int64_t gn = min64(workers / gm, columns);
    const double rows = (double)ceil_div(panels.count, gm) * kRows, cols = (double)ceil_div(columns, gn) * kCols;
    const double cost = rows * cols + 16 * cols + 4 * rows;  // products, packing B in every part, reading A
    if (best < 0 || cost < best) best = cost, grid_m = gm, grid_n = gn;
  }
  parallel_for(grid_m * grid_n, 1, (int)workers, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      const int64_t gm = g / grid_n, gn = g % grid_n;
      const int64_t n0 = columns * gn / grid_n * kCols, n1 = min64(columns * (gn + 1) / grid_n * kCols, p.n);
      const int64_t i0 = panels.count * gm / grid_m, i1 = panels.count * (gm + 1) / grid_m;
      if (i0 < i1 && n0 < n1) product_part(p, panels, packed, k0, k1, i0, i1, n0, n1);
    }
  });
}

// Any product, any size. The transposed problem has the same bits (a product commutes); it is taken where it fits the tiles.
static void product(Product p, int threads) {
  if (p.m == 0 || p.n == 0) return;
  if (p.k == 0) return product_empty(p);
  if (!p.packed && p.n < kLanes && p.m > p.n) {
    const View a = p.b.transposed();
    p.b = p.a.transposed();
    p.a = a;
    const int64_t m = p.m, row = p.c_row;
    p.m = p.n;
    p.n = m;
    p.c_row = p.c_col;
    p.c_col = row;
  }
  if (!p.packed && p.m <= 3 && p.c_col == 4) return gemv(p, threads);

  // A is read where it lies if one pass over it is enough and a panel's rows are not all in the same sets of the first cache. Of a large
  // one some rows at a time are packed, and for them some blocks of k: few rows for all of k would have all of B packed again.
  const bool in_place = p.a.dtype == kF32 && p.a.along_columns() && p.n <= kColumnBlock && p.a.row % 4096 != 0;
  if (in_place || p.m * p.k <= kPackedWhole) return product_rows(p, in_place, 0, p.k, threads);
  const int64_t parts = ceil_div(p.m, max64(kPackedRows, kPacked / p.k)), rows = ceil_div(ceil_div(p.m, parts), kRows) * kRows;
  for (int64_t m0 = 0; m0 < p.m; m0 += rows) {
    Product part = p;
    part.a = p.a.from(m0, 0);
    part.c = p.c + m0 * p.c_row;
    part.m = min64(rows, p.m - m0);
    // An odd number of blocks: panels that lie a power of two apart share the sets of a cache.
    const int64_t blocks = ceil_div(p.k, kDotBlock), most = max64(1, kPacked / part.m / kDotBlock);
    const int64_t step = (ceil_div(blocks, ceil_div(blocks, most)) | 1) * kDotBlock;
    for (int64_t k0 = 0; k0 < p.k; k0 += step) product_rows(part, false, k0, min64(k0 + step, p.k), threads);
  }
}

// The same for every matrix of a batch; whole matrices go to the threads while there are enough of them.
template <class Make>
RO_INLINE void batched_product(int64_t batch, int threads, const Make& make) {
  if (batch >= threads && batch > 1) {
    const Product p = make(0);
    const int64_t grain = max64(1, 65536 / max64(1, p.m * p.n * p.k));
    parallel_for(batch, grain, threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) product(make(i), 1);
    });
  } else {
    for (int64_t i = 0; i < batch; ++i) product(make(i), threads);
  }
}

RO_INLINE void copy_bytes(char* to, const char* from, int64_t bytes, int threads) {
  if (to == from) return;
  parallel_for(bytes, 1 << 18, threads, [&](int64_t begin, int64_t end) { std::memcpy(to + begin, from + begin, end - begin); });
}

// Products of which C is bf16 or f16: block by block of C, each computed in f32 in the thread's working memory. make(i): product i of the
// batch, whose c is its carry, if it has one; out: C, contiguous.
template <class Make>
static void rounded_products(const Tensor& out, int64_t batch, int threads, const Make& make) {
  const Product whole = make(0);
  int64_t rows = min64(whole.m, 512), columns = min64(whole.n, 2048);
  if (rows * columns == 0 || batch == 0) return;
  if (batch * ceil_div(whole.m, rows) * ceil_div(whole.n, columns) < threads && whole.m * whole.n * whole.k > 1 << 17) {
    if (whole.n >= whole.m) columns = ceil_div(ceil_div(whole.n, threads), kCols) * kCols;
    else rows = ceil_div(ceil_div(whole.m, threads), kRows) * kRows;
  }
  const int64_t down = ceil_div(whole.m, rows), across = ceil_div(whole.n, columns);
  parallel_dynamic(batch * down * across, threads, [&](int64_t t) {
    const int64_t i = t / across / down, m0 = t / across % down * rows, n0 = t % across * columns;
    Product p = make(i);
    const char* carry = p.c + m0 * p.c_row + n0 * 4;
    p.a = p.a.from(m0, 0);
    p.b = p.b.from(0, n0);
    p.packed_at = n0;
    p.m = min64(rows, whole.m - m0);
    p.n = min64(columns, whole.n - n0);
    p.c = (char*)scratch(7, sizeof(float) * p.m * p.n);
    p.c_row = 4 * p.n;
    if (p.carry)
      for (int64_t r = 0; r < p.m; ++r) std::memcpy(p.c + r * p.c_row, carry + r * whole.c_row, 4 * p.n);
    product(p, 1);
    for (int64_t r = 0; r < p.m; ++r)
      narrow(out.dtype, (const float*)(p.c + r * p.c_row), (char*)out.data + 2 * ((i * whole.m + m0 + r) * whole.n + n0), p.n);
  });
}

// matmul, or, with packed, matmul whose B is what matmul_pack made of it.
static void matmul(const Call& call, bool packed) {
  const Tensor &a = call.in[0], &b = call.in[1], &out = call.out;
  const int d = out.rank - 2;
  const int64_t batch = d ? out.shape[0] : 1, m = out.shape[d], n = out.shape[d + 1];
  const bool ta = call.params[0] != 0, tb = call.params[1] != 0;
  const int64_t start = call.params[2], k = call.params[3] - start;
  const int64_t depth = a.shape[ta ? d : d + 1];  // all of k; a link takes a part
  const int64_t size_a = item_size(a.dtype), size_b = item_size(b.dtype);
  const View va = ta ? View{nullptr, size_a, size_a * m, a.dtype} : View{nullptr, size_a * depth, size_a, a.dtype};
  const View vb = tb ? View{nullptr, size_b, size_b * depth, b.dtype} : View{nullptr, size_b * n, size_b, b.dtype};
  const bool carry = call.inputs > 2, rounds = out.dtype != kF32;
  char* const c = (char*)(rounds && carry ? call.in[2].data : out.data);
  const auto make = [&](int64_t i) {
    Product p{va, vb, m, n, k, c + 4 * i * m * n, 4 * n, 4, carry, false, 1.0f};
    p.a.data = (const char*)a.data + size_a * i * m * depth + start * va.col;
    if (packed) p.packed = (const char*)b.data + element_count(b) / batch * size_b * i, p.packed_n = n;
    else p.b.data = (const char*)b.data + size_b * i * depth * n + start * vb.row;
    return p;
  };
  if (rounds) return rounded_products(out, batch, call.threads, make);
  if (carry) copy_bytes(c, (const char*)call.in[2].data, 4 * element_count(out), call.threads);
  batched_product(batch, call.threads, make);
}

RO_KERNEL_ANY(matmul) { matmul(call, false); }

// A matmul whose B was packed once (repops/plan.py, freeze): inputs and params are the matmul's.
RO_FUSED_ANY(matmul_packed) { matmul(call, true); }

// B for matmul_packed, params as there. out: [batch, any] of B's dtype, at least k * (n up to a multiple of 16) elements for each.
RO_FUSED_ANY(matmul_pack) {
  const Tensor &b = call.in[0], &out = call.out;
  const int d = b.rank - 2;
  const int64_t batch = d ? b.shape[0] : 1, size = item_size(b.dtype);
  const bool tb = call.params[1] != 0;
  const int64_t depth = b.shape[tb ? d + 1 : d], n = b.shape[tb ? d : d + 1], start = call.params[2], k = call.params[3] - start;
  for (int64_t i = 0; i < batch; ++i) {
    View view = tb ? View{nullptr, size, size * depth, b.dtype} : View{nullptr, size * n, size, b.dtype};
    view.data = (const char*)b.data + size * i * depth * n + start * view.row;
    pack_all(view, k, n, (char*)out.data + element_count(out) / batch * size * i, call.threads);
  }
}

}  // namespace RO_ISA
}  // namespace ro
