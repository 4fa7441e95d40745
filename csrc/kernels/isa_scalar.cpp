// The reference definitions, compiled for the baseline of the target: what the kernels are compared with.
#define RO_ISA scalar
#define RO_ISA_SCALAR
#include "prim.h"
#include "registry.h"
#include "simd.h"
#include "functions.h"
#include "element.h"
