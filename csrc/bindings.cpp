// The module repops._kernels: kernels, the plan runner and hashing. nanobind only; no maths here.
#include <nanobind/nanobind.h>

void bind_kernels(nanobind::module_& m);
#if __has_include("hash/keccak.h")
void bind_hash(nanobind::module_& m);
#define RO_HAVE_HASH 1
#endif

NB_MODULE(_kernels, m) {
  m.doc() = "RepOps in C++: operators of profile RO-1, compiled programs, Keccak tensor roots.";
  bind_kernels(m);
#ifdef RO_HAVE_HASH
  bind_hash(m);
#endif
}
