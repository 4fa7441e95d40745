// The kernels for 64-bit ARM (NEON), 4 lanes.
#if defined(__aarch64__)
#define RO_ISA neon
#define RO_ISA_NEON
#include "prim.h"
#include "registry.h"
#include "simd.h"
#include "matmul.h"
#include "conv_forward.h"
#include "conv_weight.h"
#include "reduce.h"
#include "attention.h"
#include "rows.h"
#include "pointwise.h"
#include "chain.h"
#include "optimizer.h"
#include "movement.h"
#include "pool.h"
#include "random.h"
#endif
