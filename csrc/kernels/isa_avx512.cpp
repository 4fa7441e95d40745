// The kernels for AVX-512 (F, DQ, BW, VL), 16 lanes.
#if defined(__x86_64__)
#define RO_ISA avx512
#define RO_ISA_AVX512
#include "prim.h"
#include "registry.h"
#include "simd.h"
#include "matmul.h"
#if __has_include("functions.h")
#include "reduce.h"
#endif
#if __has_include("pointwise.h")
#include "pointwise.h"
#endif
#if __has_include("movement.h")
#include "movement.h"
#endif
#endif
