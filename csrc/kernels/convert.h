// Dtypes other than a kernel's own: blocks of bf16 and f16 to f32 and back, casts, and kernels that compute in f32, i64 and bool
// only, run on tensors of other dtypes (docs/spec/operators.md, "Dtypes").
//
// Include after prim.h, registry.h, parallel.h and simd.h.
#pragma once
#include <cstring>
#include <vector>

#include "parallel.h"
#include "prim.h"
#include "registry.h"
#include "simd.h"

namespace ro {
namespace RO_ISA {

template <int32_t dtype>
static void widen_block(const char* from, float* to, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) canonical(load_as<dtype>(from + 2 * i)).store(to + i);
  if (i < n) canonical(load_as<dtype>(from + 2 * i, (int)(n - i))).store(to + i, (int)(n - i));
}
template <int32_t dtype>
static void narrow_block(const float* from, char* to, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store_as<dtype>(F::load(from + i), to + 2 * i);
  if (i < n) store_as<dtype>(F::load(from + i, (int)(n - i)), to + 2 * i, (int)(n - i));
}

// n elements of bf16 or f16 as f32.
RO_INLINE void widen(int32_t dtype, const void* from, float* to, int64_t n) {
  if (dtype == kBF16) widen_block<kBF16>((const char*)from, to, n);
  else widen_block<kF16>((const char*)from, to, n);
}
// n results, rounded to bf16 or f16.
RO_INLINE void narrow(int32_t dtype, const float* from, void* to, int64_t n) {
  if (dtype == kBF16) narrow_block<kBF16>(from, (char*)to, n);
  else narrow_block<kF16>(from, (char*)to, n);
}
// n f32 values as they are, or n elements of bf16 or f16 in `buffer`: where the f32 values lie.
RO_INLINE const char* as_f32(int32_t dtype, const void* from, float* buffer, int64_t n) {
  if (dtype == kF32) return (const char*)from;
  widen(dtype, from, buffer, n);
  return (const char*)buffer;
}

RO_INLINE bool is_plain(int32_t dtype) { return dtype == kF32 || dtype == kI64 || dtype == kBool; }
RO_INLINE bool is_plain(const Call& call) {
  bool plain = is_plain(call.out.dtype);
  for (int k = 0; k < call.inputs; ++k) plain = plain && is_plain(call.in[k].dtype);
  for (int k = 0; k < call.more_count; ++k) plain = plain && is_plain(call.more[k].dtype);
  return plain;
}
// The dtype in which such a kernel takes it.
RO_INLINE int32_t plain_dtype(int32_t dtype) { return is_floating(dtype) ? kF32 : dtype == kI32 ? kI64 : dtype; }

// n elements of bf16, f16 or i32 to their plain dtype, and back.
RO_INLINE void to_plain(int32_t dtype, const void* from, void* to, int64_t n) {
  if (dtype != kI32) return widen(dtype, from, (float*)to, n);
  for (int64_t i = 0; i < n; ++i) store_i64(to, i, load_i32(from, i));
}
RO_INLINE void from_plain(const void* from, int32_t dtype, void* to, int64_t n) {
  if (dtype != kI32) return narrow(dtype, (const float*)from, to, n);
  for (int64_t i = 0; i < n; ++i) store_i32(to, i, (int32_t)(uint64_t)load_i64(from, i));
}

RO_INLINE char* at(const Tensor& t, int64_t i) { return (char*)t.data + i * item_size(t.dtype); }

// Runs a kernel that takes f32, i64 and bool only. Other tensors are converted in the calling thread's working memory: exact, because
// an operator is defined on the values in f32 (or i64) and rounds its result once, from a canonical NaN.
static void run_plain(Kernel kernel, const Call& call) {
  if (is_plain(call)) return kernel(call);
  std::vector<Tensor> tensors(call.in, call.in + call.inputs);
  tensors.push_back(call.out);
  tensors.insert(tensors.end(), call.more, call.more + call.more_count);
  const std::vector<Tensor> stored = tensors;
  int64_t bytes = 0;
  std::vector<int64_t> offset(tensors.size(), -1);
  for (size_t k = 0; k < tensors.size(); ++k) {
    if (is_plain(tensors[k].dtype)) continue;
    tensors[k].dtype = plain_dtype(tensors[k].dtype);
    offset[k] = bytes;
    bytes += (element_count(tensors[k]) * item_size(tensors[k].dtype) + 63) / 64 * 64;
  }
  char* const memory = (char*)scratch(8, bytes);
  const size_t inputs = call.inputs;
  const auto each = [&](size_t k, auto convert) {
    if (offset[k] < 0) return;
    tensors[k].data = memory + offset[k];
    parallel_for(element_count(tensors[k]), 1 << 14, call.threads, convert);
  };
  for (size_t k = 0; k < inputs; ++k)
    each(k, [&](int64_t begin, int64_t end) {
      const Tensor &from = stored[k], &to = tensors[k];
      to_plain(from.dtype, at(from, begin), at(to, begin), end - begin);
    });
  for (size_t k = inputs; k < tensors.size(); ++k)
    if (offset[k] >= 0) tensors[k].data = memory + offset[k];
  Call plain = call;
  plain.in = tensors.data();
  plain.out = tensors[inputs];
  plain.more = call.more ? tensors.data() + inputs + 1 : nullptr;
  kernel(plain);
  for (size_t k = inputs; k < tensors.size(); ++k)
    each(k, [&](int64_t begin, int64_t end) {
      const Tensor &from = tensors[k], &to = stored[k];
      from_plain(at(from, begin), to.dtype, at(to, begin), end - begin);
    });
}

// The same part by part, each part in working memory of its own thread: a part is `per_part` of `items` equal pieces of every tensor but
// the shared ones (bit k: input k), as [pieces, rest] or, with keep_shape, with the tensor's own inner dimensions.
static void run_parts(Kernel kernel, const Call& call, int64_t items, int64_t per_part, unsigned shared, bool keep_shape) {
  if (is_plain(call)) return kernel(call);
  if (items == 0) return run_plain(kernel, call);
  const int64_t parts = (items + per_part - 1) / per_part;
  const auto run = [&](int64_t part, int threads) {
    const int64_t begin = part * per_part, count = items - begin < per_part ? items - begin : per_part;
    const auto piece = [&](Tensor t) {
      const int64_t each = element_count(t) / items;
      t.data = (char*)t.data + begin * each * item_size(t.dtype);
      if (keep_shape) {
        t.shape[0] = count;
      } else {
        t.rank = 2;
        t.shape[0] = count;
        t.shape[1] = each;
      }
      return t;
    };
    Tensor tensors[16];
    for (int k = 0; k < call.inputs; ++k) tensors[k] = shared >> k & 1 ? call.in[k] : piece(call.in[k]);
    for (int k = 0; k < call.more_count; ++k) tensors[call.inputs + k] = piece(call.more[k]);
    Call own = call;
    own.in = tensors;
    own.out = piece(call.out);
    own.more = tensors + call.inputs;
    own.threads = threads;
    run_plain(kernel, own);
  };
  if (parts < call.threads) {
    for (int64_t i = 0; i < parts; ++i) run(i, call.threads);
  } else {
    parallel_dynamic(parts, call.threads, [&](int64_t i) { run(i, 1); });
  }
}
// Every tensor is [heads, .., ..]: head by head.
static void run_heads(Kernel kernel, const Call& call) { run_parts(kernel, call, call.out.shape[0], 1, 0, true); }

// ---- cast -----------------------------------------------------------------------------------------------------------------

template <int32_t from>
RO_INLINE int64_t load_whole(const void* p, int64_t i) {
  if constexpr (from == kBool) return load_bool(p, i);
  else return load_integer(p, from, i);
}
template <int32_t to>
RO_INLINE void store_whole(void* p, int64_t i, int64_t x) {
  if constexpr (to == kBool) store_bool(p, i, x != 0);
  else if constexpr (to == kI64) store_i64(p, i, x);
  else store_i32(p, i, (int32_t)(uint64_t)x);
}

// n elements from one dtype to another.
template <int32_t from, int32_t to>
static void cast_block(const char* p, char* out, int64_t n) {
  if constexpr (is_floating(from) && is_floating(to)) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store_as<to>(load_as<from>(p + i * item_size(from)), out + i * item_size(to));
    const int rest = (int)(n - i);
    if (rest > 0) store_as<to>(load_as<from>(p + i * item_size(from), rest), out + i * item_size(to), rest);
  } else if constexpr (is_floating(from)) {
    for (int64_t i = 0; i < n; ++i) {
      const float x = ro::load_real(p, from, i);
      if constexpr (to == kBool) store_bool(out, i, f32_to_bool(x));
      else store_whole<to>(out, i, to == kI64 ? f32_to_i64(x) : (int64_t)f32_to_i32(x));
    }
  } else {
    for (int64_t i = 0; i < n; ++i) {
      const int64_t x = load_whole<from>(p, i);
      if constexpr (to == kF32) store_f32(out, i, i64_to_f32(x));
      else if constexpr (to == kBF16) store_u16(out, i, i64_to_bf16(x));
      else if constexpr (to == kF16) store_u16(out, i, i64_to_f16(x));
      else store_whole<to>(out, i, x);
    }
  }
}

}  // namespace RO_ISA
}  // namespace ro
