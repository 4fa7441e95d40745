// Every operator from the text of its reference definition (kernels/element.h): one thread computes one output element.
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "cuda/cuda.h"
#include "cuda/launch.h"
#include "kernels/registry.h"

namespace ro::cuda {
namespace {

struct Entry {
  Launch reference = nullptr;
  Launch tuned = nullptr;  // for f32, i64 and bool
};

std::map<std::string, Entry>& entries() {
  static std::map<std::string, Entry> table;
  return table;
}

thread_local std::string last_error;

int fail(const std::string& text) {
  last_error = text;
  return 1;
}
int check(cudaError_t status, const char* what) {
  return status == cudaSuccess ? 0 : fail(std::string(what) + ": " + cudaGetErrorString(status));
}

using DeviceElement = uint64_t (*)(const Call&, int64_t);

template <DeviceElement kElement>
__global__ void element_kernel(const __grid_constant__ PackedCall packed, int64_t count) {
  Call call{};
  call.in = packed.in;
  call.inputs = packed.inputs;
  call.params = packed.params;
  call.param_count = packed.param_count;
  call.literals = packed.literals;
  call.literal_count = packed.literal_count;
  call.out = packed.out;
  call.threads = 1;
  const int size = item_size(call.out.dtype);
  const int64_t stride = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
    const uint64_t bits = kElement(call, i);
    memcpy((char*)call.out.data + i * size, &bits, size);
  }
}

template <DeviceElement kElement>
cudaError_t launch_element(const PackedCall& packed) {
  const int64_t count = element_count(packed.out);
  if (count == 0) return cudaSuccess;
  const int64_t blocks = (count + 127) / 128;
  element_kernel<kElement><<<(unsigned)(blocks < 65535 ? blocks : 65535), 128>>>(packed, count);
  return cudaGetLastError();
}

}  // namespace

Operator::Operator(const char* name, Launch launch, bool tuned) {
  Entry& entry = entries()[name];
  (tuned ? entry.tuned : entry.reference) = launch;
}

}  // namespace ro::cuda

// The scalar instantiation of the vector types, and the reference on top of it, with every definition compiled for the device.
#define RO_ISA cuda_scalar
#define RO_ISA_SCALAR
#include "kernels/prim.h"
#include "kernels/simd.h"
#include "kernels/functions.h"
#undef RO_ELEMENT
#define RO_ELEMENT(op)                                                                                     \
  static RO_HD uint64_t element_##op(const ::ro::Call& call, int64_t index);                               \
  static const ::ro::cuda::Operator cuda_##op(#op, ::ro::cuda::launch_element<element_##op>, false);       \
  static RO_HD uint64_t element_##op([[maybe_unused]] const ::ro::Call& call, [[maybe_unused]] int64_t index)
#include "kernels/element.h"

namespace ro::cuda {
namespace {

bool is_plain(int32_t dtype) { return dtype == kF32 || dtype == kI64 || dtype == kBool; }
int64_t bytes_of(const Tensor& t) { return element_count(t) * item_size(t.dtype); }

// Host tensors copied to the device for one call.
struct Staged {
  std::vector<void*> memory;
  ~Staged() {
    for (void* p : memory) cudaFree(p);
  }
  int put(Tensor& t, bool copy) {
    void* p = nullptr;
    const int64_t bytes = bytes_of(t);
    if (int bad = check(cudaMalloc(&p, bytes > 0 ? bytes : 1), "cudaMalloc")) return bad;
    memory.push_back(p);
    if (copy && bytes > 0)
      if (int bad = check(cudaMemcpy(p, t.data, bytes, cudaMemcpyHostToDevice), "copy to the device")) return bad;
    t.data = p;
    return 0;
  }
};

}  // namespace
}  // namespace ro::cuda

using namespace ro::cuda;

extern "C" int ro_cuda_run(const char* op, const ro::Call* call, int host) {
  const auto found = entries().find(op);
  if (found == entries().end()) return fail(std::string("no operator '") + op + "' in the CUDA build");
  if (call->inputs > kMaxInputs || call->param_count > kMaxParams || call->literal_count > kMaxLiterals)
    return fail(std::string(op) + ": more inputs, params or literals than a node may have");
  PackedCall packed{};
  packed.inputs = call->inputs;
  packed.param_count = call->param_count;
  packed.literal_count = call->literal_count;
  std::memcpy(packed.in, call->in, sizeof(ro::Tensor) * call->inputs);
  if (call->param_count) std::memcpy(packed.params, call->params, 8 * (size_t)call->param_count);
  if (call->literal_count) std::memcpy(packed.literals, call->literals, 8 * (size_t)call->literal_count);
  packed.out = call->out;
  Staged staged;
  if (host) {
    for (int i = 0; i < packed.inputs; ++i)
      if (int bad = staged.put(packed.in[i], true)) return bad;
    if (int bad = staged.put(packed.out, false)) return bad;
  }
  bool plain = is_plain(packed.out.dtype);
  for (int i = 0; i < packed.inputs; ++i) plain = plain && is_plain(packed.in[i].dtype);
  const Launch launch = plain && found->second.tuned ? found->second.tuned : found->second.reference;
  if (int bad = check(launch(packed), op)) return bad;
  if (!host) return 0;
  if (int bad = check(cudaDeviceSynchronize(), op)) return bad;
  const int64_t bytes = bytes_of(call->out);
  return bytes ? check(cudaMemcpy(call->out.data, packed.out.data, bytes, cudaMemcpyDeviceToHost), "copy from the device") : 0;
}

extern "C" const char* ro_cuda_error() { return last_error.c_str(); }

extern "C" const char* ro_cuda_operators() {
  static std::string names;
  names.clear();
  for (const auto& [name, entry] : entries()) names += (names.empty() ? "" : "\n") + name;
  return names.c_str();
}

extern "C" void* ro_cuda_alloc(int64_t bytes) {
  void* p = nullptr;
  return check(cudaMalloc(&p, bytes > 0 ? bytes : 1), "cudaMalloc") ? nullptr : p;
}
extern "C" void ro_cuda_free(void* p) { cudaFree(p); }
extern "C" int ro_cuda_upload(void* device, const void* host, int64_t bytes) {
  return check(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice), "copy to the device");
}
extern "C" int ro_cuda_download(void* host, const void* device, int64_t bytes) {
  return check(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost), "copy from the device");
}
extern "C" int ro_cuda_synchronize() { return check(cudaDeviceSynchronize(), "synchronize"); }
