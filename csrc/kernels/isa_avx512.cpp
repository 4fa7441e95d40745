// The kernels for AVX-512 (F, DQ, BW, VL), 16 lanes.
#if defined(__x86_64__) && !defined(RO_WITHOUT_AVX512)
#if defined(RO_EMULATE_AVX512)
#include "emulated_avx512.h"
#endif
#define RO_ISA avx512
#define RO_ISA_AVX512
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
