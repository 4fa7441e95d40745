// Data movement (docs/spec/operators.md, "Data movement"): bits are copied, never looked at, except in embedding_grad, which is a fold.
// Indices outside their range are total: a read gives zero bits, a write is dropped.
//
// Include after prim.h, registry.h, parallel.h, simd.h and pointwise.h.
#pragma once
#include <cstdint>
#include <cstring>

#include "parallel.h"
#include "pointwise.h"

namespace ro {
namespace RO_ISA {

constexpr int64_t kCopyGrain = 16384;  // items a thread gets at least

// Calls body with a value of the unsigned type of that size.
template <class Body>
static inline void with_item(int size, const Body& body) {
  switch (size) {
    case 1: body(uint8_t()); break;
    case 2: body(uint16_t()); break;
    case 4: body(uint32_t()); break;
    default: body(uint64_t()); break;
  }
}

// Whether an output of that many bytes is written past the caches, which could not keep it: its lines are not read first then. With one
// thread: two reach what the memory takes either way.
RO_OP bool past_caches(int64_t bytes, int64_t run, int threads) { return threads == 1 && bytes >= 12 << 20 && run >= 1024; }

// Copies past the caches; end_stream makes that visible to other threads.
#if defined(RO_ISA_AVX512) || defined(RO_ISA_AVX2)
RO_OP void copy_past_caches(char* to, const char* from, int64_t bytes) {
  constexpr int64_t kAhead = 2048;
  int64_t i = -(intptr_t)to & 63;
  std::memcpy(to, from, i);
  for (; i + 64 <= bytes; i += 64) {
    __builtin_prefetch(from + i + kAhead, 0, 0);
    for (int v = 0; v < 64; v += 32) _mm256_stream_si256((__m256i*)(to + i + v), _mm256_loadu_si256((const __m256i*)(from + i + v)));
  }
  std::memcpy(to + i, from + i, bytes - i);
}
#else
RO_OP void copy_past_caches(char* to, const char* from, int64_t bytes) { std::memcpy(to, from, bytes); }
#endif

// memcpy of a run: plain vector copies are faster than what the library does for runs from a cache line to pages, which fit the caches.
struct Copy {
  RO_MEMBER void operator()(char* to, const char* from, int64_t bytes) const {
    constexpr int64_t kVector = 4 * kLanes;
    if (bytes < kVector || bytes > (1 << 20)) {
      std::memcpy(to, from, bytes);
      return;
    }
    for (int64_t i = 0; i + kVector <= bytes; i += kVector) I::load(from + i).store(to + i);
    if (bytes % kVector) I::load(from + bytes - kVector).store(to + bytes - kVector);  // over what is there already
  }
};
struct CopyPastCaches {
  RO_MEMBER void operator()(char* to, const char* from, int64_t bytes) const {
    if (bytes >= 64) copy_past_caches(to, from, bytes);
    else std::memcpy(to, from, bytes);
  }
};

// Calls body(begin, end, copy) as parallel_for does. Two loops: one that can do both is up to a quarter slower with short runs.
template <class Body>
static inline void parallel_copies(int64_t n, int64_t grain, int threads, bool past, const Body& body) {
  if (!past) return parallel_for(n, grain, threads, [&](int64_t begin, int64_t end) { body(begin, end, Copy()); });
  parallel_for(n, grain, threads, [&](int64_t begin, int64_t end) {
    body(begin, end, CopyPastCaches());
    end_stream();
  });
}

// A grid of runs of `items` items: run (o, r) goes from `from` to `to`, each with a stride along o and r, all in items.
struct Grid {
  int64_t outer, rows, items;
  int64_t from_outer, from_row, to_outer, to_row;
};

template <class T>
static inline void copy_grid(const Grid& g, const char* from, char* to, int threads, int64_t output) {
  if (g.outer * g.rows * g.items == 0) return;
  if (g.items == 1) {  // one by one: split by rows
    parallel_for(g.outer * g.rows, kCopyGrain, threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end;) {
        const int64_t o = i / g.rows, r = i % g.rows, n = g.rows - r < end - i ? g.rows - r : end - i;
        const char* a = from + (o * g.from_outer + r * g.from_row) * (int64_t)sizeof(T);
        char* b = to + (o * g.to_outer + r * g.to_row) * (int64_t)sizeof(T);
        for (int64_t j = 0; j < n; ++j) std::memcpy(b + j * g.to_row * sizeof(T), a + j * g.from_row * sizeof(T), sizeof(T));
        i += n;
      }
    });
    return;
  }
  const int64_t n = g.outer * g.rows * g.items;
  const bool past = past_caches(output, g.items * sizeof(T), threads);
  parallel_copies(n, kCopyGrain, threads, past, [&](int64_t begin, int64_t end, const auto& copy) {
    int64_t item = begin % g.items, r = begin / g.items % g.rows, o = begin / g.items / g.rows;
    for (int64_t i = begin; i < end;) {
      const int64_t n = g.items - item < end - i ? g.items - item : end - i;
      copy(to + (o * g.to_outer + r * g.to_row + item) * sizeof(T), from + (o * g.from_outer + r * g.from_row + item) * sizeof(T),
           n * sizeof(T));
      i += n;
      item = 0;
      if (++r == g.rows) {
        r = 0;
        ++o;
      }
    }
  });
}
// output: bytes of the whole output.
static inline void copy_grid(int size, const Grid& g, const void* from, void* to, int threads, int64_t output) {
  with_item(size, [&](auto item) { copy_grid<decltype(item)>(g, (const char*)from, (char*)to, threads, output); });
}

// Sizes around an axis.
struct Around {
  int64_t outer = 1, length, inner = 1;
  Around(const Tensor& t, int axis) : length(t.shape[axis]) {
    for (int d = 0; d < axis; ++d) outer *= t.shape[d];
    for (int d = axis + 1; d < t.rank; ++d) inner *= t.shape[d];
  }
};

// ---- permute --------------------------------------------------------------------------------------------------------------

// The output's dimensions with their strides in the input, after dimensions of length 1 are dropped and neighbours joined.
struct Permuted {
  int rank = 0;
  int64_t shape[kMaxRank], stride[kMaxRank];
  explicit Permuted(const Call& call) {
    const Tensor& x = call.in[0];
    int64_t own[kMaxRank];
    int64_t run = 1;
    for (int d = x.rank - 1; d >= 0; --d) {
      own[d] = run;
      run *= x.shape[d];
    }
    for (int d = 0; d < call.out.rank; ++d) {
      const int64_t length = call.out.shape[d], s = own[call.params[d]];
      if (length == 1) continue;
      if (rank > 0 && stride[rank - 1] == s * length) {
        shape[rank - 1] *= length;
        stride[rank - 1] = s;
        continue;
      }
      shape[rank] = length;
      stride[rank++] = s;
    }
    if (rank == 0) {
      shape[0] = stride[0] = 1;
      rank = 1;
    }
  }
};

constexpr int kTile = 16;  // 64 bytes of f32: whole cache lines are read and written

// out[i * to + j] = in[j * from + i] for i < rows, j < columns.
template <class T>
static inline void transpose_tile(const char* in, int64_t from, char* out, int64_t to, int rows, int columns) {
  if (rows < kTile || columns < kTile) {
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < columns; ++j) std::memcpy(out + (i * to + j) * sizeof(T), in + (j * from + i) * sizeof(T), sizeof(T));
    }
  } else if constexpr (sizeof(T) == 4) {
    for (int i = 0; i < kTile; i += kLanes) {
      F block[kTile / kLanes][kLanes];
#pragma GCC unroll 4
      for (int b = 0; b < kTile / kLanes; ++b) {
#pragma GCC unroll 16
        for (int j = 0; j < kLanes; ++j) block[b][j] = F::load(in + ((b * kLanes + j) * from + i) * 4);
        transpose(block[b]);
      }
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r)
#pragma GCC unroll 4
        for (int b = 0; b < kTile / kLanes; ++b) block[b][r].store(out + ((i + r) * to + b * kLanes) * 4);
    }
  } else {
    T lines[kTile][kTile], block[kTile][kTile];
    for (int j = 0; j < kTile; ++j) std::memcpy(lines[j], in + j * from * sizeof(T), sizeof lines[j]);
    for (int i = 0; i < kTile; ++i) {
      for (int j = 0; j < kTile; ++j) block[i][j] = lines[j][i];
    }
    for (int i = 0; i < kTile; ++i) std::memcpy(out + i * to * sizeof(T), block[i], sizeof block[i]);
  }
}

template <class T>
static inline void permute_items(const Call& call) {
  const Permuted p(call);
  const char* const in = (const char*)call.in[0].data;
  char* const out = (char*)call.out.data;
  const int last = p.rank - 1;
  const int64_t n = element_count(call.out), row = p.shape[last];
  if (n == 0) return;
  int64_t to[kMaxRank];  // strides in the output
  int64_t run = 1;
  for (int d = last; d >= 0; --d) {
    to[d] = run;
    run *= p.shape[d];
  }
  // Runs of the output that are runs of the input, in the input's order or the output's: whichever has the shorter inner dimension, so
  // that the other side is a few streams.
  if (p.stride[last] == 1) {
    int order[kMaxRank];
    for (int d = 0; d < last; ++d) {
      int at = d;
      for (; at > 0 && p.stride[order[at - 1]] < p.stride[d]; --at) order[at] = order[at - 1];
      order[at] = d;
    }
    if (last > 0 && p.shape[order[last - 1]] >= p.shape[last - 1])
      for (int d = 0; d < last; ++d) order[d] = d;
    const bool past = past_caches(n * sizeof(T), row * sizeof(T), call.threads);
    parallel_copies(n / row, kCopyGrain / row + 1, call.threads, past, [&](int64_t begin, int64_t end, const auto& copy) {
      int64_t source = 0, target = 0, c[kMaxRank];
      for (int64_t k = last - 1, rest = begin; k >= 0; --k) {
        const int d = order[k];
        c[d] = rest % p.shape[d];
        rest /= p.shape[d];
        source += c[d] * p.stride[d];
        target += c[d] * to[d];
      }
      for (int64_t r = begin; r < end; ++r) {
        copy(out + target * sizeof(T), in + source * sizeof(T), row * sizeof(T));
        for (int k = last - 1; k >= 0; --k) {
          const int d = order[k];
          source += p.stride[d];
          target += to[d];
          if (++c[d] < p.shape[d]) break;
          c[d] = 0;
          source -= p.shape[d] * p.stride[d];
          target -= p.shape[d] * to[d];
        }
      }
    });
    return;
  }
  // Tiles over the output's last dimension and the dimension that is contiguous in the input.
  int flat = -1;
  for (int d = 0; d < last; ++d) {
    if (p.stride[d] == 1) flat = d;
  }
  const int64_t rows = p.shape[flat];
  const int64_t row_tiles = (rows + kTile - 1) / kTile, column_tiles = (row + kTile - 1) / kTile;
  const int64_t tiles = n / row / rows * row_tiles * column_tiles;
  parallel_for(tiles, kCopyGrain / (kTile * kTile), call.threads, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end;) {
      int64_t i = t % row_tiles;
      const int64_t i_end = row_tiles - i < end - t ? row_tiles : i + end - t, j = t / row_tiles % column_tiles * kTile;
      int64_t rest = t / row_tiles / column_tiles, source = j * p.stride[last], target = j;
      for (int d = last - 1; d >= 0; --d) {
        if (d == flat) continue;
        const int64_t c = rest % p.shape[d];
        rest /= p.shape[d];
        source += c * p.stride[d];
        target += c * to[d];
      }
      t += i_end - i;
      const int columns = (int)(row - j < kTile ? row - j : kTile);
      for (; i < i_end; ++i)
        transpose_tile<T>(in + (source + i * kTile) * sizeof(T), p.stride[last], out + (target + i * kTile * to[flat]) * sizeof(T), to[flat],
                          (int)(rows - i * kTile < kTile ? rows - i * kTile : kTile), columns);
    }
  });
}
RO_KERNEL_ANY(permute) {
  with_item(item_size(call.out.dtype), [&](auto item) { permute_items<decltype(item)>(call); });
}

// ---- expand, slice, cat ---------------------------------------------------------------------------------------------------

RO_KERNEL_ANY(expand) { run_pointwise(call, copies); }

RO_KERNEL_ANY(slice) {
  const int axis = (int)call.params[0];
  const Around x(call.in[0], axis), y(call.out, axis);
  const int64_t start = call.params[1], step = y.length > 1 ? call.params[2] : 1;  // any step fits a single position
  const int size = item_size(call.out.dtype);
  const char* from = (const char*)call.in[0].data + start * x.inner * size;
  const int64_t bytes = element_count(call.out) * size;
  const int64_t span = x.length * x.inner;
  if (step == 1) copy_grid(size, {x.outer, 1, y.length * x.inner, span, 0, y.length * x.inner, 0}, from, call.out.data, call.threads, bytes);
  else copy_grid(size, {x.outer, y.length, x.inner, span, step * x.inner, y.length * x.inner, x.inner}, from, call.out.data, call.threads, bytes);
}

RO_KERNEL_ANY(slice_grad) {
  const int axis = (int)call.params[0];
  const Around y(call.in[0], axis), x(call.out, axis);
  const int64_t start = call.params[1], step = y.length > 1 ? call.params[2] : 1;
  const int size = item_size(call.out.dtype);
  char* const out = (char*)call.out.data;
  parallel_for(element_count(call.out) * size, kCopyGrain * 4, call.threads,
               [&](int64_t begin, int64_t end) { std::memset(out + begin, 0, end - begin); });
  char* const to = out + start * x.inner * size;
  const int64_t span = x.length * x.inner;
  if (step == 1) copy_grid(size, {x.outer, 1, y.length * x.inner, y.length * x.inner, 0, span, 0}, call.in[0].data, to, call.threads, 0);
  else copy_grid(size, {x.outer, y.length, x.inner, y.length * x.inner, x.inner, span, step * x.inner}, call.in[0].data, to, call.threads, 0);
}

RO_KERNEL_ANY(cat) {
  const int axis = (int)call.params[0];
  const Around out(call.out, axis);
  const int size = item_size(call.out.dtype);
  const int64_t row = out.length * out.inner * size;
  if (row == 0) return;
  if (out.outer > call.threads && row >= 256) {  // in the output's order; not where the runs are a few bytes
    const bool past = past_caches(out.outer * row, row / call.inputs, call.threads);
    parallel_copies(out.outer, kCopyGrain * 4 / row + 1, call.threads, past, [&](int64_t begin, int64_t end, const auto& copy) {
      char* to = (char*)call.out.data + begin * row;
      for (int64_t o = begin; o < end; ++o)
        for (int k = 0; k < call.inputs; ++k) {
          const int64_t bytes = call.in[k].shape[axis] * out.inner * size;
          if (bytes > 0) copy(to, (const char*)call.in[k].data + o * bytes, bytes);
          to += bytes;
        }
    });
    return;
  }
  char* to = (char*)call.out.data;
  for (int k = 0; k < call.inputs; ++k) {
    const int64_t items = call.in[k].shape[axis] * out.inner;
    copy_grid(size, {out.outer, 1, items, items, 0, out.length * out.inner, 0}, call.in[k].data, to, call.threads, out.outer * row);
    to += items * size;
  }
}

// ---- indexed --------------------------------------------------------------------------------------------------------------

// The lines of an index tensor along an axis, and where each begins in a tensor x that is at least as long in the other dimensions.
struct Lines {
  int64_t inner;                // the stride along the axis in the index
  int64_t step;                 // and in x
  int rank = 0;                 // the other dimensions
  int64_t shape[kMaxRank], stride[kMaxRank];
  int64_t count = 1;
  int64_t outer_step;           // of the index
  Lines(const Tensor& index, const Tensor& x, int axis) {
    int64_t own = 1;
    inner = 1;
    for (int d = x.rank - 1; d >= 0; --d) {
      if (d == axis) step = own;
      if (d > axis) inner *= index.shape[d];
      own *= x.shape[d];
    }
    outer_step = inner * index.shape[axis];
    own = 1;
    for (int d = x.rank - 1; d >= 0; --d) {
      if (d != axis) {
        shape[rank] = index.shape[d];
        stride[rank++] = own;
        count *= index.shape[d];
      }
      own *= x.shape[d];
    }
  }
  RO_MEMBER int64_t begin_in_index(int64_t line) const { return line / inner * outer_step + line % inner; }
  RO_MEMBER int64_t begin_in_x(int64_t line) const {
    int64_t at = 0;
    for (int d = 0; d < rank; ++d) {
      at += line % shape[d] * stride[d];
      line /= shape[d];
    }
    return at;
  }
};

RO_KERNEL_ANY(gather) {
  const Tensor &x = call.in[0], &index = call.in[1];
  const int axis = (int)call.params[0];
  const int64_t length = index.shape[axis], range = x.shape[axis];
  if (element_count(index) == 0) return;
  const Lines lines(index, x, axis);
  const Tensor rows = index;
  const char* const from = (const char*)x.data;
  char* const out = (char*)call.out.data;
  with_item(item_size(x.dtype), [&](auto item) {
    using T = decltype(item);
    parallel_for(lines.count, kCopyGrain / 4 / length + 1, call.threads, [&](int64_t begin, int64_t end) {
      for (int64_t line = begin; line < end; ++line) {
        const int64_t at = lines.begin_in_index(line), base = lines.begin_in_x(line), step = lines.inner, stride = lines.step;
        for (int64_t i = 0; i < length; ++i) {
          const int64_t row = load_integer(rows.data, rows.dtype, at + i * step);
          const T value = row >= 0 && row < range ? load_item<T>(from + (base + row * stride) * (int64_t)sizeof(T)) : (T)0;
          store_item(out, at + i * step, value);
        }
      }
    });
  });
}

RO_KERNEL_ANY(scatter) {
  const Tensor &x = call.in[0], &index = call.in[1];
  const int axis = (int)call.params[0];
  const int size = item_size(x.dtype);
  const int64_t n = element_count(x);
  if (call.out.data != x.data) copy_grid(size, {1, 1, n, 0, 0, 0, 0}, x.data, call.out.data, call.threads, n * size);
  if (element_count(index) == 0) return;
  const int64_t length = index.shape[axis], range = x.shape[axis];
  const Lines lines(index, x, axis);  // different lines write to different places
  with_item(size, [&](auto item) {
    using T = decltype(item);
    const T value = (T)call.literals[0];
    parallel_for(lines.count, kCopyGrain / 4 / length + 1, call.threads, [&](int64_t begin, int64_t end) {
      for (int64_t line = begin; line < end; ++line) {
        const int64_t at = lines.begin_in_index(line), base = lines.begin_in_x(line), step = lines.inner, stride = lines.step;
        for (int64_t i = 0; i < length; ++i) {
          const int64_t row = load_integer(index.data, index.dtype, at + i * step);
          if (row >= 0 && row < range) store_item((char*)call.out.data, base + row * stride, value);
        }
      }
    });
  });
}

RO_KERNEL_ANY(embedding) {
  const Tensor &weight = call.in[0], &index = call.in[1];
  const int64_t bytes = weight.shape[1] * item_size(weight.dtype), range = weight.shape[0];
  if (bytes == 0) return;
  const int64_t count = element_count(index);
  const bool past = past_caches(count * bytes, bytes, call.threads);
  parallel_copies(count, 4 * kCopyGrain / bytes + 1, call.threads, past, [&](int64_t begin, int64_t end, const auto& copy) {
    int64_t row = load_integer(index.data, index.dtype, begin);
    for (int64_t t = begin; t < end; ++t) {
      const int64_t next = t + 1 < end ? load_integer(index.data, index.dtype, t + 1) : -1;
      if (next >= 0 && next < range)
        for (int64_t i = 0; i < bytes && i < 512; i += 64) __builtin_prefetch((const char*)weight.data + next * bytes + i);
      char* to = (char*)call.out.data + t * bytes;
      if (row >= 0 && row < range) copy(to, (const char*)weight.data + row * bytes, bytes);
      else std::memset(to, 0, bytes);
      row = next;
    }
  });
}

// Threads share out the output, to begin it in long runs; then the columns, or the rows where there are few columns: each adds its part
// in ascending t. An output in bf16 or f16 is summed in f32 in working memory, some rows at a time.
RO_KERNEL_ANY(embedding_grad) {
  constexpr int64_t kRowBlock = 1024, kColumns = 512;
  const Tensor &dy = call.in[0], &index = call.in[1];
  const int64_t start = call.params[0], stop = call.params[1];
  const int64_t rows = call.out.shape[0], width = call.out.shape[1];
  const int32_t out_dtype = call.out.dtype;
  const bool rounds = out_dtype != kF32;
  char* const out = (char*)call.out.data;
  const char* const carry = call.inputs > 2 ? (const char*)call.in[2].data : nullptr;
  if (rows * width == 0) return;
  // Zeros, or n values of the carry from element `at` on.
  const auto first = [&](int64_t at, int64_t n, char* to) {
    if (!carry) {
      std::memset(to, 0, 4 * n);
      return;
    }
    const char* from = carry + 4 * at;
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) canonical(F::load(from + 4 * i)).store(to + 4 * i);
    if (i < n) canonical(F::load(from + 4 * i, (int)(n - i))).store(to + 4 * i, (int)(n - i));
  };
  // Adds rows [row_begin, row_end), columns [begin, end) to `sums`, `stride` bytes a row.
  const auto fold = [&](int64_t row_begin, int64_t row_end, int64_t begin, int64_t end, char* sums, int64_t stride) {
    alignas(64) float wide[kColumns];
    for (int64_t t = start; t < stop; ++t) {
      const int64_t v = load_integer(index.data, index.dtype, t);
      if (v < row_begin || v >= row_end) continue;
      char* to = sums + (v - row_begin) * stride;
      const char* from = as_f32(dy.dtype, at(dy, t * width + begin), wide, end - begin);
      int64_t i = 0;
      for (; i + kLanes <= end - begin; i += kLanes) canonical(add(F::load(to + 4 * i), F::load(from + 4 * i))).store(to + 4 * i);
      const int rest = (int)(end - begin - i);
      if (rest > 0) canonical(add(F::load(to + 4 * i, rest), F::load(from + 4 * i, rest))).store(to + 4 * i, rest);
    }
  };
  const auto part = [&](int64_t row_begin, int64_t row_end, int64_t begin, int64_t end) {
    if (!rounds && dy.dtype == kF32) return fold(row_begin, row_end, begin, end, out + 4 * (row_begin * width + begin), 4 * width);
    for (int64_t c = begin; c < end; c += kColumns) {
      const int64_t last = c + kColumns < end ? c + kColumns : end;
      if (!rounds) {
        fold(row_begin, row_end, c, last, out + 4 * (row_begin * width + c), 4 * width);
        continue;
      }
      char* const sums = (char*)scratch(7, 4 * kRowBlock * kColumns);
      for (int64_t r = row_begin; r < row_end; r += kRowBlock) {
        const int64_t end_row = r + kRowBlock < row_end ? r + kRowBlock : row_end;
        for (int64_t v = r; v < end_row; ++v) first(v * width + c, last - c, sums + (v - r) * 4 * kColumns);
        fold(r, end_row, c, last, sums, 4 * kColumns);
        for (int64_t v = r; v < end_row; ++v)
          narrow(out_dtype, (const float*)(sums + (v - r) * 4 * kColumns), out + 2 * (v * width + c), last - c);
      }
    }
  };
  const int64_t work = rows * width + (stop - start) * width;
  const int64_t workers = work / kCopyGrain < call.threads ? work / kCopyGrain : call.threads;
  if (!rounds)
    parallel_for(rows * width, kCopyGrain * 4, call.threads, [&](int64_t begin, int64_t end) { first(begin, end - begin, out + 4 * begin); });
  if (width >= 64 * workers) {
    const int64_t blocks = (width + 15) / 16;  // whole cache lines
    parallel_for(blocks, (blocks + workers) / (workers + 1) + 1, call.threads, [&](int64_t begin, int64_t end) {
      part(0, rows, 16 * begin, 16 * end < width ? 16 * end : width);
    });
  } else {
    parallel_for(rows, rows / (workers + 1) + 1, call.threads, [&](int64_t begin, int64_t end) { part(begin, end, 0, width); });
  }
}

// ---- running sums ---------------------------------------------------------------------------------------------------------

RO_KERNEL(cumsum) {
  const Tensor& x = call.in[0];
  const Around a(x, (int)call.params[0]);
  if (element_count(x) == 0) return;
  parallel_for(a.outer * a.inner, kCopyGrain / 4 / a.length + 1, call.threads, [&](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; ++line) {
      int64_t at = line / a.inner * a.length * a.inner + line % a.inner, total = 0;
      for (int64_t i = 0; i < a.length; ++i, at += a.inner) {
        total = add_i64(total, x.dtype == kI64 ? load_i64(x.data, at) : (int64_t)load_bool(x.data, at));
        store_i64(call.out.data, at, total);
      }
    }
  });
}

// ---- made from nothing ----------------------------------------------------------------------------------------------------

RO_KERNEL_ANY(iota) {
  const int64_t start = call.params[0], step = call.params[1];
  void* const out = call.out.data;
  parallel_for(element_count(call.out), kCopyGrain, call.threads, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) store_i64(out, i, add_i64(start, mul_i64(step, i)));
  });
}

RO_KERNEL_ANY(fill) {
  with_item(item_size(call.out.dtype), [&](auto item) {
    using T = decltype(item);
    const T value = (T)call.literals[0];
    const uint8_t byte = (uint8_t)value;
    char* const out = (char*)call.out.data;
    bool uniform = true;  // zero, above all: memset is faster than any loop
    for (size_t b = 1; b < sizeof(T); ++b) uniform = uniform && (uint8_t)((uint64_t)value >> (8 * b)) == byte;
    parallel_for(element_count(call.out), kCopyGrain, call.threads, [=](int64_t begin, int64_t end) {
      if (uniform) std::memset(out + begin * (int64_t)sizeof(T), byte, (end - begin) * sizeof(T));
      else for (int64_t i = begin; i < end; ++i) store_item(out, i, value);
    });
  });
}

}  // namespace RO_ISA
}  // namespace ro
