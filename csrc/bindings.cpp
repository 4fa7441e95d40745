// The module repops._kernels: kernels, the plan runner, hashing and RepVM. nanobind only; no maths here.
#include <nanobind/nanobind.h>

void bind_kernels(nanobind::module_& m);
void bind_hash(nanobind::module_& m);
void bind_vm(nanobind::module_& m);

NB_MODULE(_kernels, m) {
  nanobind::set_leak_warnings(false);  // caches of torch hold plans until the interpreter ends
  m.doc() = "RepOps in C++: operators of profile RO-1, compiled programs, Keccak tensor roots.";
  bind_kernels(m);
  bind_hash(m);
  bind_vm(m);
}
