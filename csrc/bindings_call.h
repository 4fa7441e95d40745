// Tensors that come from Python: buffers held while C++ uses their memory.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <tuple>
#include <vector>

#include "kernels/call.h"

namespace nb = nanobind;

using Shape = std::vector<int64_t>;
using TensorArg = std::tuple<nb::object, int, Shape>;

// Holds a Python buffer (any object with the buffer protocol, C-contiguous) while a kernel uses its memory.
class Buffer {
 public:
  Buffer(nb::handle object, bool writable, const char* what) {
    const int flags = PyBUF_C_CONTIGUOUS | (writable ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(object.ptr(), &view_, flags) != 0) {
      PyErr_Clear();
      throw nb::type_error((std::string(what) + (writable ? " must be a writable" : " must be a") +
                            " C-contiguous buffer, such as a numpy array")
                               .c_str());
    }
  }
  Buffer(Buffer&& other) noexcept : view_(other.view_) { other.view_.obj = nullptr; }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() {
    if (view_.obj) PyBuffer_Release(&view_);
  }
  void* data() const { return view_.buf; }
  int64_t size() const { return (int64_t)view_.len; }

 private:
  Py_buffer view_{};
};

constexpr int64_t kMaxElements = (int64_t)1 << 40;

inline ro::Tensor make_tensor(void* data, int dtype, const Shape& shape, const std::string& what) {
  if (shape.size() > (size_t)ro::kMaxRank)
    throw nb::value_error((what + " has rank " + std::to_string(shape.size()) + "; the limit is 8").c_str());
  if (dtype < ro::kF32 || dtype > ro::kBool)
    throw nb::value_error((what + " has the unknown dtype code " + std::to_string(dtype)).c_str());
  ro::Tensor t{data, dtype, (int32_t)shape.size(), {}};
  int64_t count = 1;
  for (size_t d = 0; d < shape.size(); ++d) {
    if (shape[d] < 0 || shape[d] >= kMaxElements || (shape[d] > 0 && count > kMaxElements / shape[d]))
      throw nb::value_error((what + " has a shape outside the limits of 2^40 elements").c_str());
    if (shape[d] > 0) count *= shape[d];  // zeros left out: no product of some dimensions overflows
    t.shape[d] = shape[d];
  }
  return t;
}

inline int64_t byte_count(const ro::Tensor& t) { return ro::element_count(t) * ro::item_size(t.dtype); }

// Buffers and tensors of one call.
struct Arguments {
  std::vector<Buffer> buffers;
  std::vector<ro::Tensor> tensors;

  void add(const TensorArg& arg, bool writable, const std::string& what) {
    const auto& [object, dtype, shape] = arg;
    buffers.emplace_back(object, writable, what.c_str());
    ro::Tensor t = make_tensor(buffers.back().data(), dtype, shape, what);
    if (buffers.back().size() != byte_count(t))
      throw nb::value_error((what + " has " + std::to_string(buffers.back().size()) + " bytes; its shape and dtype need " +
                             std::to_string(byte_count(t)))
                                .c_str());
    tensors.push_back(t);
  }
};
