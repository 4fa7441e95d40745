// Kernels and reference definitions by name. They register themselves next to their code:
//
//   namespace ro::RO_ISA { RO_KERNEL(add) { ... use call ... } }         a kernel for the instruction set of this unit
//   namespace ro::RO_ISA { RO_FUSED(layer_norm_forward) { ... } }        a kernel over a group of nodes
//   namespace ro::RO_ISA { RO_POINTWISE(add) { ... use in, to; return {span, costly}; } }   a pointwise operator (pointwise.h)
//       Both see f32, i64 and bool tensors only: others are converted around them (convert.h, which they need).
//   RO_KERNEL_ANY(permute), RO_FUSED_ANY(chain) { ... }                  a kernel that takes every dtype of the operator's rule
//   RO_KERNEL_BY(run, op), RO_FUSED_BY(run, group)                       the same, called by run(kernel, call)
//   RO_ELEMENT(add) { ... use call, index ... return bits; }             the reference: bits of one output element
#pragma once
#include <cstddef>
#include <string>
#include <vector>

#include "call.h"

namespace ro {

// Computes n output elements of a pointwise operator. Input k starts at p[k] and advances by step[k] bytes: its item size, or 0;
// then 64 bytes at p[k] are filled with the value. literals: the node's. `out` may be an input with a step of its own size.
using Span = void (*)(const uint64_t* literals, const char* const* p, const int64_t* step, char* out, int64_t n);
struct Pointwise {
  Span span;
  bool costly;       // computes an elementary function: fewer elements are worth a thread
  bool any = false;  // takes these very dtypes; else it must be f32, i64 and bool, and others are converted (pointwise.h, TypedSpan)
  Span streamed = nullptr;  // the same past the caches; `out` is aligned to an element and no input
};
// The span for the dtypes of the inputs and of the output.
using FindSpan = Pointwise (*)(const int32_t* in, int32_t to);

struct Registered {
  Registered(const char* name, Isa isa, Kernel kernel, bool fused);
  Registered(const char* name, Element element);
  Registered(const char* name, Isa isa, FindSpan find);
};

// The kernel for `isa`, else for the next lower instruction set, else nullptr (then the reference is run element by element).
Kernel find_kernel(const std::string& name, Isa isa);
// As find_kernel, but only kernels registered with RO_FUSED; nullptr if there is none at or below `isa`.
Kernel find_fused(const std::string& name, Isa isa);
Element find_element(const std::string& name);

// Runs one operator: the best kernel at or below `isa`, or the reference. False if nobody registered the name.
bool run_operator(const std::string& name, Isa isa, const Call& call);
// Every output element by the reference definition, one after another.
void run_elements(Element element, const Call& call);

std::vector<std::string> operator_names();
// Names with a kernel of exactly this instruction set.
std::vector<std::string> kernel_names(Isa isa);
std::vector<std::string> fused_names(Isa isa);
// Pointwise operators, sorted; and their spans for exactly this instruction set in the same order, nullptr where it has none.
std::vector<std::string> pointwise_names();
std::vector<FindSpan> pointwise_spans(Isa isa);

// Instruction sets that this build has and this processor runs, best first; the last is always kScalar.
std::vector<Isa> available_isas();
const char* isa_name(Isa isa);

// Working memory of the calling thread, 64-byte aligned, at least `bytes` long; slots 0 .. 8 are independent (8: converted tensors). Contents are
// not kept. Valid until the thread asks for the same slot again.
void* scratch(int slot, size_t bytes);

}  // namespace ro

#define RO_KERNEL_ANY(op)                                                                           \
  static void kernel_##op(const ::ro::Call& call);                                                  \
  static const ::ro::Registered registered_##op(#op, ::ro::RO_ISA::kIsa, kernel_##op, false);       \
  static void kernel_##op([[maybe_unused]] const ::ro::Call& call)

#define RO_KERNEL_BY(run, op)                                                                       \
  static void kernel_##op(const ::ro::Call& call);                                                  \
  static void run_##op(const ::ro::Call& call) { run(kernel_##op, call); }                          \
  static const ::ro::Registered registered_##op(#op, ::ro::RO_ISA::kIsa, run_##op, false);          \
  static void kernel_##op([[maybe_unused]] const ::ro::Call& call)

#define RO_FUSED_ANY(op)                                                                            \
  static void fused_##op(const ::ro::Call& call);                                                   \
  static const ::ro::Registered registered_fused_##op(#op, ::ro::RO_ISA::kIsa, fused_##op, true);   \
  static void fused_##op([[maybe_unused]] const ::ro::Call& call)

#define RO_FUSED_BY(run, op)                                                                        \
  static void fused_##op(const ::ro::Call& call);                                                   \
  static void run_fused_##op(const ::ro::Call& call) { run(fused_##op, call); }                     \
  static const ::ro::Registered registered_fused_##op(#op, ::ro::RO_ISA::kIsa, run_fused_##op, true); \
  static void fused_##op([[maybe_unused]] const ::ro::Call& call)

#define RO_KERNEL(op) RO_KERNEL_BY(run_plain, op)
#define RO_FUSED(op) RO_FUSED_BY(run_plain, op)

#define RO_ELEMENT(op)                                                                              \
  static uint64_t element_##op(const ::ro::Call& call, int64_t index);                              \
  static const ::ro::Registered registered_element_##op(#op, element_##op);                         \
  static uint64_t element_##op([[maybe_unused]] const ::ro::Call& call, [[maybe_unused]] int64_t index)
