// The kernels for 64-bit ARM (NEON), 4 lanes.
#if defined(__aarch64__)
#define RO_ISA neon
#define RO_ISA_NEON
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
