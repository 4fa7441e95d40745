// The kernels for AVX2 and FMA, 8 lanes.
#if defined(__x86_64__)
#define RO_ISA avx2
#define RO_ISA_AVX2
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
