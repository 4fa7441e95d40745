// Pooling and its gradients (docs/spec/operators.md, "Pooling"): an output row at a time, vectors along the row.
//
// A row that is read is laid out so that what outputs o, o + 1, .. fold next is contiguous, with what changes no result where they have
// nothing to fold. Where the stride is small that costs little: position k of the padded row lies at phase k mod stride, place k / stride.
// Otherwise (adaptive windows, large strides) each output's positions are copied by a table.
#pragma once
#include <vector>

#include "convert.h"
#include "parallel.h"
#include "window.h"

namespace ro {
namespace RO_ISA {

// How rows along the width lie.
struct PoolRow {
  PoolAxis axis;
  bool phased;
  int64_t stride, margin;        // phased; else 1, 0
  int64_t padded;                // the outputs' length in whole vectors
  int64_t count;                 // the most that an output folds of a row
  int64_t length, size;          // elements of a phase, of a row as laid out
  std::vector<int64_t> offsets;  // of the first output's t-th place
  std::vector<int32_t> table;    // not phased: the position at each place, the row's length if there is none

  // gradient: outputs are the positions of x, and they fold windows; but not if phased, where the windows are spread over positions.
  PoolRow(const PoolAxis& a, bool gradient) : axis(a) {
    const int64_t reach = (a.taps - 1) * a.dilation;
    phased = !a.adaptive() && a.stride <= 4 && reach <= a.in + 2 * a.pad + a.stride;
    stride = phased ? a.stride : 1;
    margin = phased ? a.pad : 0;
    const int64_t outputs = gradient && !phased ? a.in : a.out;
    padded = (outputs + kLanes - 1) / kLanes * kLanes;
    count = a.taps;
    if (phased) {
      const int64_t read = padded + reach / stride + 1, held = (a.in + a.pad) / stride + 1;
      length = read > held ? read : held;
      size = (length * stride + kLanes - 1) / kLanes * kLanes;
      for (int64_t t = 0; t < count; ++t) offsets.push_back(t * a.dilation % stride * length + t * a.dilation / stride);
      return;
    }
    if (gradient || a.adaptive()) count = 0;
    for (int64_t i = 0; i < outputs; ++i) {
      const int64_t own = gradient ? a.last(i) - a.first(i) + 1 : a.count(i);
      if (own > count) count = own;
    }
    length = padded;
    size = count * padded;
    if (!fits()) return;
    table.assign(size, (int32_t)(gradient ? a.out : a.in));
    for (int64_t t = 0; t < count; ++t) {
      offsets.push_back(t * padded);
      for (int64_t i = 0; i < outputs; ++i) {
        const int64_t window = a.first(i) + t, position = gradient ? 0 : a.begin(i) + t * a.dilation;
        const bool has = gradient ? window <= a.last(i) && a.has(window, i) : t < a.count(i) && a.inside(position);
        if (has) table[t * padded + i] = (int32_t)(gradient ? window : position);
      }
    }
  }
  // Whether rows may be laid out: a row has few enough places.
  bool fits() const { return size <= 1 << 24 && axis.in <= 1 << 30 && axis.out <= 1 << 30; }

  // Rows in their order to phases, and back.
  template <int64_t kStride>
  void split(const int32_t* from, int32_t* to) const {
    for (int64_t j = 0; j < length; ++j)
      for (int64_t r = 0; r < kStride; ++r) to[r * length + j] = from[j * kStride + r];
  }
  template <int64_t kStride>
  void join(const int32_t* from, int32_t* to) const {
    for (int64_t j = 0; j < length; ++j)
      for (int64_t r = 0; r < kStride; ++r) to[j * kStride + r] = from[r * length + j];
  }
  void split(const int32_t* from, int32_t* to) const { stride == 2 ? split<2>(from, to) : stride == 3 ? split<3>(from, to) : split<4>(from, to); }
  void join(const int32_t* from, int32_t* to) const { stride == 2 ? join<2>(from, to) : stride == 3 ? join<3>(from, to) : join<4>(from, to); }
  // By the table, from a row with what changes no result behind its end.
  void pick(const int32_t* from, int32_t* to) const {
    const int32_t* const at = table.data();
#pragma GCC unroll 8
    for (int64_t k = 0; k < size; ++k) to[k] = from[at[k]];
  }
};

// Keys: integers that are ordered as MAX orders floats, -0 below +0, NaN above all.
RO_INLINE I pool_key(F x) {
  const I bits = bits_of(canonical(x));
  return xor_(bits, and_(shr<31>(bits), I::set(0x7FFFFFFF)));
}
constexpr int32_t kPoolLowest = (int32_t)(kMinusInfBits ^ 0x7FFFFFFFu);  // the key of -inf
constexpr int32_t kPoolNan = (int32_t)kNanBits;
RO_INLINE F from_pool_key(I k) { return float_of(xor_(k, and_(shr<31>(k), I::set(0x7FFFFFFF)))); }

// What sums are divided by: counts of window row oh, a vector at a time.
struct PoolCounts {
  const Pool& v;
  std::vector<int32_t> columns;
  PoolCounts(const Pool& pool, int64_t padded) : v(pool), columns(padded + kLanes, 1) {
    for (int64_t o = 0; o < v.w.out; ++o) columns[o] = (int32_t)v.w.extent(o, v.padding);
  }
  // sums[0 .. out) divided in place; the memory may be written to the next whole vector.
  void divide(float* sums, int64_t oh) const {
    const F divisor = F::set(i64_to_f32(v.divisor));
    const I rows = I::set((int32_t)v.h.extent(oh, v.padding));
    for (int64_t o = 0; o < v.w.out; o += kLanes) {
      const F count = v.divisor != 0 ? divisor : to_float(mul(rows, I::load(columns.data() + o)));
      div(F::load(sums + o), count).store(sums + o);
    }
  }
};

// Working memory of a thread: a row as f32, a row in its order, and what an output row folds to, `held` elements.
struct PoolMemory {
  float* widened;
  int32_t *line, *state;
  PoolMemory(const PoolRow& w, int64_t held) {
    const int64_t row = (w.axis.in > w.axis.out ? w.axis.in : w.axis.out) + kLanes;
    widened = (float*)scratch(0, 4 * row);
    line = (int32_t*)scratch(1, 4 * (w.phased && w.size > 2 * row ? w.size : 2 * row));
    state = (int32_t*)scratch(3, 4 * held);
  }
};

// Rows that were made for an output row and that the next ones need again. make(row, to) makes one of `size` elements.
class PoolCache {
 public:
  // again: how many rows one output row needs.
  PoolCache(int slot, int64_t again, int64_t size) : rows_(1), size_(size) {
    while (again <= kRows && rows_ < again) rows_ *= 2;
    memory_ = (int32_t*)scratch(slot, 4 * rows_ * size);
    for (int64_t& t : tags_) t = -1;
  }
  template <class Make>
  const int32_t* get(int64_t row, const PoolMemory& memory, const Make& make) {
    const int64_t slot = row & (rows_ - 1);
    int32_t* const to = memory_ + slot * size_;
    if (tags_[slot] != row) make(memory, row, to);
    tags_[slot] = row;
    return to;
  }

 private:
  static constexpr int64_t kRows = 16;
  int64_t rows_, size_;
  int32_t* memory_;
  int64_t tags_[kRows];
};

// n elements of a row of floats through `change` to `to`.
template <class Change>
RO_INLINE void change_row(const char* from, int32_t* to, int64_t n, const Change& change) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) change(F::load(from + 4 * i)).store(to + i);
  if (i < n) change(F::load(from + 4 * i, (int)(n - i))).store(to + i, (int)(n - i));
}
// n results to a row of the output.
RO_INLINE void store_results(const float* from, int32_t dtype, char* to, int64_t n) {
  if (dtype == kF32) change_row((const char*)from, (int32_t*)to, n, [](F x) { return bits_of(canonical(x)); });
  else narrow(dtype, from, to, n);
}

// Lays out row `row` of x, changed; neutral: what changes no result.
template <class Change>
RO_INLINE void lay_row(const PoolRow& w, const PoolMemory& memory, const Tensor& x, int64_t row, int32_t neutral, int32_t* to,
                       const Change& change) {
  const int64_t n = w.axis.in;
  const char* const from = as_f32(x.dtype, at(x, row * n), memory.widened, n);
  int32_t* const line = w.phased && w.stride == 1 ? to : memory.line;
  if (!w.phased) {
    change_row(from, line, n, change);
    line[n] = neutral;
    return w.pick(line, to);
  }
  const int64_t held = n < w.size - w.margin ? n : w.size - w.margin;
  for (int64_t i = 0; i < w.margin; ++i) line[i] = neutral;
  change_row(from, line + w.margin, held, change);
  for (int64_t i = w.margin + held; i < w.size; ++i) line[i] = neutral;
  if (w.stride != 1) w.split(line, to);
}

// For every output row: start(state, oh), then step(state, row, ih) for the rows of its windows, laid out by make(memory, row, to), then
// finish(state, output row, oh). held: elements of the state.
template <class Start, class Make, class Step, class Finish>
RO_INLINE void for_pool_rows(const Call& call, const Pool& v, const PoolRow& w, int64_t held, const Start& start, const Make& make,
                             const Step& step, const Finish& finish) {
  const int64_t rows = call.out.shape[0] * v.h.out, cost = v.w.out * (v.h.adaptive() ? 8 : v.h.taps) + 1;
  parallel_for(rows, 16384 / cost + 1, call.threads, [&](int64_t begin, int64_t end) {
    const PoolMemory memory(w, held);
    PoolCache cache(2, v.h.adaptive() ? v.h.in / v.h.out + 2 : v.h.taps, w.size);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t plane = row / v.h.out, oh = row % v.h.out, count = v.h.count(oh);
      start(memory.state, oh);
      const int64_t begin = v.h.begin(oh), first = plane * v.h.in;
      for (int64_t t = 0, ih = begin; t < count; ++t, ih += v.h.dilation)
        if (v.h.inside(ih)) step(memory.state, cache.get(first + ih, memory, make), ih);
      finish(memory.state, row, oh);
    }
  });
}

RO_KERNEL_ANY(max_pool) {
  if (element_count(call.out) == 0) return;
  const Tensor& x = call.in[0];
  const Pool v(call, x, call.out, false);
  const PoolRow w(v.w, false);
  if (!w.fits()) return run_elements(find_element("max_pool"), call);
  for_pool_rows(
      call, v, w, w.padded,
      [&](int32_t* m, int64_t) {
        for (int64_t o = 0; o < w.padded; ++o) m[o] = kPoolLowest;
      },
      [&](const PoolMemory& memory, int64_t row, int32_t* to) { lay_row(w, memory, x, row, kPoolLowest, to, [](F a) { return pool_key(a); }); },
      [&](int32_t* m, const int32_t* row, int64_t) {
        for (int64_t o = 0; o < w.padded; o += kLanes) {
          I best = I::load(m + o);
          for (int64_t t = 0; t < w.count; ++t) best = max(best, I::load(row + w.offsets[t] + o));
          best.store(m + o);
        }
      },
      [&](int32_t* m, int64_t row, int64_t) {
        for (int64_t o = 0; o < w.padded; o += kLanes) bits_of(from_pool_key(I::load(m + o))).store(m + o);
        store_results((const float*)m, call.out.dtype, at(call.out, row * v.w.out), v.w.out);
      });
}

RO_KERNEL_ANY(max_pool_index) {
  if (element_count(call.out) == 0) return;
  const Tensor& x = call.in[0];
  const Pool v(call, x, call.out, false);
  const PoolRow w(v.w, false);
  if (!w.fits() || v.h.in * v.w.in >= INT32_MAX) return run_elements(find_element("max_pool_index"), call);
  const int64_t out = v.w.out;
  const I apart = mul(lane_index(), I::set((int32_t)w.stride));
  // The first position of a window that lies inside; -1 if none does.
  const auto first = [](const PoolAxis& a, int64_t o) {
    int64_t i = a.begin(o);
    if (i < 0) i += (-i + a.dilation - 1) / a.dilation * a.dilation;
    return i < a.in && i <= a.begin(o) + (a.count(o) - 1) * a.dilation ? i : -1;
  };
  std::vector<int32_t> firsts(out);
  for (int64_t o = 0; o < out; ++o) firsts[o] = (int32_t)first(v.w, o);
  // The largest keys so far, then their places. The keys are of x + 0, so that -0 and +0 are equal.
  for_pool_rows(
      call, v, w, 2 * w.padded,
      [&](int32_t* m, int64_t oh) {
        int32_t* const place = m + w.padded;
        const int64_t ih = first(v.h, oh);
        for (int64_t o = 0; o < w.padded; ++o) m[o] = kPoolLowest;
        for (int64_t o = 0; o < out; ++o) place[o] = ih < 0 || firsts[o] < 0 ? -1 : (int32_t)(ih * v.w.in + firsts[o]);
      },
      [&](const PoolMemory& memory, int64_t row, int32_t* to) { lay_row(w, memory, x, row, kPoolLowest, to, [](F a) { return pool_key(add(a, F::set(0.0f))); }); },
      [&](int32_t* m, const int32_t* row, int64_t ih) {
        int32_t* const place = m + w.padded;
        const I nan = I::set(kPoolNan), line = I::set((int32_t)(ih * v.w.in));
        for (int64_t o = 0; o < w.padded; o += kLanes) {
          I high = I::load(m + o), where = I::load(place + o);
          const I here = add(apart, I::set((int32_t)(o * w.stride - w.margin)));
          for (int64_t t = 0; t < w.count; ++t) {
            const I key = I::load(row + w.offsets[t] + o);
            const I column = w.phased ? add(here, I::set((int32_t)(t * w.axis.dilation))) : I::load(w.table.data() + w.offsets[t] + o);
            where = select(or_(gt(key, high), eq(key, nan)), add(line, column), where);
            high = max(high, key);
          }
          high.store(m + o);
          where.store(place + o);
        }
      },
      [&](const int32_t* m, int64_t row, int64_t) {
        const int32_t* const place = m + w.padded;
        char* const to = at(call.out, row * out);
        for (int64_t o = 0; o < out; ++o) store_i64(to, o, place[o]);
      });
}

RO_KERNEL_ANY(avg_pool) {
  if (element_count(call.out) == 0) return;
  const Tensor& x = call.in[0];
  const Pool v(call, x, call.out, true);
  const PoolRow w(v.w, false);
  if (!w.fits()) return run_elements(find_element("avg_pool"), call);
  const PoolCounts counts(v, w.padded);
  for_pool_rows(
      call, v, w, w.padded, [&](int32_t* sums, int64_t) { std::memset(sums, 0, 4 * w.padded); },
      [&](const PoolMemory& memory, int64_t row, int32_t* to) { lay_row(w, memory, x, row, 0, to, [](F a) { return bits_of(a); }); },
      [&](int32_t* sums, const int32_t* row, int64_t) {  // a sum from +0 is never -0, so that adding +0 changes nothing
        for (int64_t o = 0; o < w.padded; o += kLanes) {
          F sum = F::load(sums + o);
          for (int64_t t = 0; t < w.count; ++t) sum = add(sum, F::load(row + w.offsets[t] + o));
          sum.store(sums + o);
        }
      },
      [&](int32_t* state, int64_t row, int64_t oh) {
        float* const sums = (float*)state;
        counts.divide(sums, oh);
        store_results(sums, call.out.dtype, at(call.out, row * v.w.out), v.w.out);
      });
}

// For every row of dx: from +0, step(row of windows, ih, sums) for the window rows that have it, ascending; then stored.
// make(memory, row, to) lays out a row of windows, `size` elements.
template <class Make, class Step>
RO_INLINE void for_pool_grad_rows(const Call& call, const Pool& v, const PoolRow& w, int64_t size, const Make& make, const Step& step) {
  const int64_t rows = call.out.shape[0] * v.h.in, n = v.w.in, held = w.phased ? w.size : w.padded;
  const int64_t reach = v.h.adaptive() ? v.h.out / v.h.in + 2 : ((v.h.taps - 1) * v.h.dilation + v.h.stride) / v.h.stride;
  parallel_for(rows, 16384 / (n + 1) + 1, call.threads, [&](int64_t begin, int64_t end) {
    const PoolMemory memory(w, held);
    PoolCache cache(2, reach, size);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t plane = row / v.h.in, ih = row % v.h.in;
      int32_t* sums = memory.state;
      std::memset(sums, 0, 4 * held);
      const int64_t last = v.h.last(ih), first = plane * v.h.out;
      for (int64_t oh = v.h.first(ih); oh <= last; ++oh)
        if (v.h.has(oh, ih)) step(cache.get(first + oh, memory, make), ih, (float*)sums);
      if (w.stride != 1) {
        w.join(sums, memory.line);
        sums = memory.line;
      }
      store_results((const float*)sums + w.margin, call.out.dtype, at(call.out, row * n), n);
    }
  });
}
// Adds a row of windows to the sums. Phased: tap by tap, the last first, so that the windows of a position come ascending.
// term(k, t, o): what is added where outputs o, o + 1, .. fold place k of the row.
template <class Term>
RO_INLINE void add_windows(const PoolRow& w, float* sums, const Term& term) {
  for (int64_t n = 0; n < w.count; ++n) {
    const int64_t t = w.phased ? w.count - 1 - n : n, offset = w.offsets[t];
    float* const s = sums + (w.phased ? offset : 0);
    const int64_t from = w.phased ? 0 : offset;
    for (int64_t o = 0; o < w.padded; o += kLanes) add(F::load(s + o), term(from + o, t, o)).store(s + o);
  }
}
// Room for a row of windows and what stands behind it.
RO_INLINE int64_t pool_windows(const PoolRow& w) { return (w.axis.out + kLanes) / kLanes * kLanes; }
// Row `row` of dy as f32, then +0.
RO_INLINE void lay_gradient(const PoolRow& w, const Tensor& dy, int64_t row, float* to) {
  const int64_t n = w.axis.out;
  const char* const from = as_f32(dy.dtype, at(dy, row * n), to, n);
  if (from != (const char*)to) std::memcpy(to, from, 4 * n);
  for (int64_t o = n; o < pool_windows(w); ++o) to[o] = 0.0f;
}

RO_KERNEL_ANY(max_pool_grad) {
  if (element_count(call.out) == 0) return;
  const Tensor &dy = call.in[0], &places = call.in[1];
  const Pool v(call, call.out, dy, false);
  const PoolRow w(v.w, true);
  const int64_t plane = v.h.in * v.w.in, out = v.w.out, windows = pool_windows(w), half = w.phased ? windows : w.size;
  if (!w.fits() || plane >= INT32_MAX) return run_elements(find_element("max_pool_grad"), call);
  const I apart = mul(lane_index(), I::set((int32_t)w.stride));
  for_pool_grad_rows(
      call, v, w, 2 * half,
      [&](const PoolMemory& memory, int64_t row, int32_t* to) {  // dy, then the places, -1 if outside the plane
        int32_t* const line = w.phased ? to : memory.line;
        lay_gradient(w, dy, row, (float*)line);
        int32_t* const place = line + windows;
        for (int64_t o = 0; o < out; ++o) {
          const int64_t i = load_integer(places.data, places.dtype, row * out + o);
          place[o] = (uint64_t)i < (uint64_t)plane ? (int32_t)i : -1;
        }
        for (int64_t o = out; o < windows; ++o) place[o] = -1;
        if (w.phased) return;
        w.pick(line, to);
        w.pick(place, to + half);
      },
      [&](const int32_t* row, int64_t ih, float* sums) {
        const int64_t line = ih * v.w.in - w.margin;
        add_windows(w, sums, [&](int64_t k, int64_t t, int64_t o) {
          const int64_t first = line + o * w.stride + (w.phased ? t * w.axis.dilation : 0);
          const M hit = eq(I::load(row + half + k), add(apart, I::set((int32_t)first)));
          return select(hit, F::load(row + k), F::set(0.0f));
        });
      });
}

RO_KERNEL_ANY(avg_pool_grad) {
  if (element_count(call.out) == 0) return;
  const Tensor& dy = call.in[0];
  const Pool v(call, call.out, dy, true);
  const PoolRow w(v.w, true);
  if (!w.fits()) return run_elements(find_element("avg_pool_grad"), call);
  const int64_t windows = pool_windows(w);
  const PoolCounts counts(v, windows);
  for_pool_grad_rows(
      call, v, w, w.phased ? windows : w.size,
      [&](const PoolMemory& memory, int64_t row, int32_t* to) {
        int32_t* const line = w.phased ? to : memory.line;
        lay_gradient(w, dy, row, (float*)line);
        counts.divide((float*)line, row % v.h.out);
        if (!w.phased) w.pick(line, to);
      },
      [&](const int32_t* row, int64_t, float* sums) {
        add_windows(w, sums, [&](int64_t k, int64_t, int64_t) { return F::load(row + k); });
      });
}

}  // namespace RO_ISA
}  // namespace ro
