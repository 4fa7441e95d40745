#include "registry.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <new>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "arena.h"
#include "parallel.h"

namespace ro {
namespace {

struct Entry {
  Kernel kernels[4] = {};
  Kernel fused[4] = {};
  FindSpan spans[4] = {};
  Element element = nullptr;
};

std::map<std::string, Entry>& entries() {
  static std::map<std::string, Entry> table;
  return table;
}

Isa lower(Isa isa) { return isa == kAvx512 ? kAvx2 : kScalar; }

Kernel find(const std::string& name, Isa isa, Kernel (Entry::*list)[4]) {
  const auto it = entries().find(name);
  if (it == entries().end()) return nullptr;
  for (;; isa = lower(isa)) {
    if (Kernel kernel = (it->second.*list)[isa]) return kernel;
    if (isa == kScalar) return nullptr;
  }
}

void store_bits(void* data, int32_t dtype, int64_t index, uint64_t bits) {
  const int size = item_size(dtype);
  std::memcpy((char*)data + index * size, &bits, size);  // little-endian
}

struct FreeAligned {
  void operator()(void* p) const { std::free(p); }
};
struct Slot {
  std::unique_ptr<void, FreeAligned> memory;
  size_t bytes = 0;
};
thread_local Slot scratch_slots[9];

}  // namespace

Registered::Registered(const char* name, Isa isa, Kernel kernel, bool fused) {
  (fused ? entries()[name].fused : entries()[name].kernels)[isa] = kernel;
}
Registered::Registered(const char* name, Element element) { entries()[name].element = element; }

Registered::Registered(const char* name, Isa isa, FindSpan find) { entries()[name].spans[isa] = find; }

Kernel find_kernel(const std::string& name, Isa isa) { return find(name, isa, &Entry::kernels); }
Kernel find_fused(const std::string& name, Isa isa) { return find(name, isa, &Entry::fused); }

Element find_element(const std::string& name) {
  const auto it = entries().find(name);
  return it == entries().end() ? nullptr : it->second.element;
}

void run_elements(Element element, const Call& call) {
  parallel_for(element_count(call.out), 64, call.threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) store_bits(call.out.data, call.out.dtype, i, element(call, i));
  });
}

bool run_operator(const std::string& name, Isa isa, const Call& call) {
  FpGuard guard;
  if (Kernel kernel = find_kernel(name, isa)) {
    kernel(call);
    return true;
  }
  if (Element element = find_element(name)) {
    run_elements(element, call);
    return true;
  }
  return false;
}

std::vector<std::string> operator_names() {
  std::vector<std::string> names;
  for (const auto& [name, entry] : entries())
    if (entry.element || find_kernel(name, kAvx512) || find_kernel(name, kNeon)) names.push_back(name);
  return names;
}

std::vector<std::string> kernel_names(Isa isa) {
  std::vector<std::string> names;
  for (const auto& [name, entry] : entries())
    if (entry.kernels[isa]) names.push_back(name);
  return names;
}

std::vector<std::string> fused_names(Isa isa) {
  std::vector<std::string> names;
  for (const auto& [name, entry] : entries())
    if (entry.fused[isa]) names.push_back(name);
  return names;
}

std::vector<std::string> pointwise_names() {
  std::vector<std::string> names;
  for (const auto& [name, entry] : entries())
    if (entry.spans[kAvx512] || entry.spans[kAvx2] || entry.spans[kNeon]) names.push_back(name);
  return names;
}

std::vector<FindSpan> pointwise_spans(Isa isa) {
  std::vector<FindSpan> spans;
  for (const std::string& name : pointwise_names()) spans.push_back(entries()[name].spans[isa]);
  return spans;
}

std::vector<Isa> available_isas() {
  std::vector<Isa> isas;
#if defined(__x86_64__)
  __builtin_cpu_init();
  unsigned a, b, c = 0, d;
  const bool f16c = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
  const bool avx2 = f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  [[maybe_unused]] const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#if defined(RO_EMULATE_AVX512)
  isas.push_back(kAvx512);
#else
  if (avx512) isas.push_back(kAvx512);
#endif
  if (avx2) isas.push_back(kAvx2);
#elif defined(__aarch64__)
  isas.push_back(kNeon);
#endif
  isas.push_back(kScalar);
  return isas;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case kAvx512: return "avx512";
    case kAvx2: return "avx2";
    case kNeon: return "neon";
    case kScalar: return "scalar";
  }
  return "scalar";
}

void* scratch(int slot, size_t bytes) {
  Slot& s = scratch_slots[slot];
  if (s.bytes < bytes) {
    // Large ones in huge pages where the system has them: packed matrices then lie in a cache as they lie in memory, and touch few pages.
    const bool huge = bytes >= kHugePage / 4;
    const size_t unit = huge ? kHugePage : 4096, rounded = (bytes + unit - 1) / unit * unit;
    s.memory.reset();
    s.bytes = 0;
    void* p = std::aligned_alloc(huge ? kHugePage : 64, rounded);
    if (!p) throw std::bad_alloc();
    s.memory.reset(p);
    if (huge) advise_huge(p, rounded);
    s.bytes = rounded;
  }
  return s.memory.get();
}

}  // namespace ro
