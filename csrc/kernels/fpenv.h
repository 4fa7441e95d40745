// The floating-point state of a thread. FTZ, DAZ and the rounding mode are per thread and a caller may have changed them
// (torch.set_flush_denormal, a library linked with -ffast-math); RO-1 needs round to nearest even and gradual underflow.
#pragma once
#include <cstdint>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace ro {

// Sets the state on construction, restores the caller's on destruction. Every worker thread holds one while it computes.
class FpGuard {
 public:
#if defined(__x86_64__)
  __attribute__((always_inline)) FpGuard() : saved_(_mm_getcsr()) { _mm_setcsr(0x1F80); }
  __attribute__((always_inline)) ~FpGuard() { _mm_setcsr(saved_); }

 private:
  uint32_t saved_;
#elif defined(__aarch64__)
  __attribute__((always_inline)) FpGuard() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" : : "r"((uint64_t)0) : "memory");
  }
  __attribute__((always_inline)) ~FpGuard() { asm volatile("msr fpcr, %0" : : "r"(saved_) : "memory"); }

 private:
  uint64_t saved_;
#else
#error "no floating-point guard for this processor: add one to fpenv.h"
#endif
 public:
  FpGuard(const FpGuard&) = delete;
  FpGuard& operator=(const FpGuard&) = delete;
};

}  // namespace ro
