// matmul with the DOT order of RO-1 (256-blocks, k ascending, one FMA chain per block) as a register-tiled SIMT kernel: a thread
// owns 8 x 8 outputs, so their chains run in parallel; only fmaf, never tensor cores, whose sums are not binary32.
#include "cuda/launch.h"
#include "kernels/prim.h"

namespace ro::cuda {
namespace {

constexpr int kTile = 128;     // outputs of a thread block: kTile x kTile
constexpr int kDepth = 8;      // k per shared-memory stage; divides the block of 256
constexpr int kOwn = 8;        // outputs of a thread: kOwn x kOwn
constexpr int kBlock = 256;    // RO-1: terms of one FMA chain
constexpr int kThreads = (kTile / kOwn) * (kTile / kOwn);

struct Problem {
  const float *a, *b, *carry;
  float* out;
  int64_t m, n, k, start, stop;      // k: full inner length; the range [start, stop) is summed
  int64_t a_batch, b_batch;
  bool ta, tb;
};

__device__ inline float at_a(const Problem& p, const float* a, int64_t i, int64_t k) { return p.ta ? a[k * p.m + i] : a[i * p.k + k]; }
__device__ inline float at_b(const Problem& p, const float* b, int64_t k, int64_t j) { return p.tb ? b[j * p.k + k] : b[k * p.n + j]; }

__global__ void __launch_bounds__(kThreads) matmul_kernel(const __grid_constant__ Problem p) {
  __shared__ float sa[kDepth][kTile + 4];
  __shared__ float sb[kDepth][kTile + 4];
  const float* a = p.a + blockIdx.z * p.a_batch;
  const float* b = p.b + blockIdx.z * p.b_batch;
  const int64_t row0 = (int64_t)blockIdx.y * kTile, col0 = (int64_t)blockIdx.x * kTile;
  const int tx = threadIdx.x % (kTile / kOwn), ty = threadIdx.x / (kTile / kOwn);
  float part[kOwn][kOwn], sum[kOwn][kOwn];
  bool first = p.carry == nullptr;
#pragma unroll
  for (int i = 0; i < kOwn; ++i)
#pragma unroll
    for (int j = 0; j < kOwn; ++j) {
      const int64_t r = row0 + ty * kOwn + i, c = col0 + tx * kOwn + j;
      sum[i][j] = !first && r < p.m && c < p.n ? p.carry[(blockIdx.z * p.m + r) * p.n + c] : 0.0f;
    }
  for (int64_t block = p.start; block < p.stop; block += kBlock) {
    const int64_t end = block + kBlock < p.stop ? block + kBlock : p.stop;
#pragma unroll
    for (int i = 0; i < kOwn; ++i)
#pragma unroll
      for (int j = 0; j < kOwn; ++j) part[i][j] = 0.0f;
    for (int64_t k0 = block; k0 < end; k0 += kDepth) {
      for (int t = threadIdx.x; t < kDepth * kTile; t += kThreads) {
        // Neighbouring threads read neighbouring addresses in either layout.
        const int ak = p.ta ? t / kTile : t % kDepth, ai = p.ta ? t % kTile : t / kDepth;
        const int bk = p.tb ? t % kDepth : t / kTile, bj = p.tb ? t / kDepth : t % kTile;
        sa[ak][ai] = k0 + ak < end && row0 + ai < p.m ? at_a(p, a, row0 + ai, k0 + ak) : 0.0f;
        sb[bk][bj] = k0 + bk < end && col0 + bj < p.n ? at_b(p, b, k0 + bk, col0 + bj) : 0.0f;
      }
      __syncthreads();
      const int depth = end - k0 < kDepth ? (int)(end - k0) : kDepth;  // no padding terms: they would turn -0 into +0
#pragma unroll
      for (int k = 0; k < kDepth; ++k) {
        if (k < depth) {
          float x[kOwn], y[kOwn];
#pragma unroll
          for (int i = 0; i < kOwn; ++i) x[i] = sa[k][ty * kOwn + i];
#pragma unroll
          for (int j = 0; j < kOwn; ++j) y[j] = sb[k][tx * kOwn + j];
#pragma unroll
          for (int i = 0; i < kOwn; ++i)
#pragma unroll
            for (int j = 0; j < kOwn; ++j) part[i][j] = fma_rn(x[i], y[j], part[i][j]);
        }
      }
      __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < kOwn; ++i)
#pragma unroll
      for (int j = 0; j < kOwn; ++j) sum[i][j] = first ? part[i][j] : add_rn(sum[i][j], part[i][j]);
    first = false;
  }
#pragma unroll
  for (int i = 0; i < kOwn; ++i)
#pragma unroll
    for (int j = 0; j < kOwn; ++j) {
      const int64_t r = row0 + ty * kOwn + i, c = col0 + tx * kOwn + j;
      if (r < p.m && c < p.n) p.out[(blockIdx.z * p.m + r) * p.n + c] = canonical(sum[i][j]);
    }
}

cudaError_t launch_matmul(const PackedCall& call) {
  const Tensor &a = call.in[0], &b = call.in[1], &out = call.out;
  const int r = out.rank;
  Problem p{};
  p.a = (const float*)a.data;
  p.b = (const float*)b.data;
  p.carry = call.inputs > 2 ? (const float*)call.in[2].data : nullptr;
  p.out = (float*)out.data;
  p.ta = call.params[0] != 0;
  p.tb = call.params[1] != 0;
  p.start = call.params[2];
  p.stop = call.params[3];
  p.m = out.shape[r - 2];
  p.n = out.shape[r - 1];
  p.k = a.shape[p.ta ? r - 2 : r - 1];
  p.a_batch = p.m * p.k;
  p.b_batch = p.k * p.n;
  const int64_t batch = r == 3 ? out.shape[0] : 1;
  if (batch == 0 || p.m == 0 || p.n == 0) return cudaSuccess;
  for (int64_t z = 0; z < batch; z += 65535) {
    const int64_t count = batch - z < 65535 ? batch - z : 65535;
    Problem part = p;
    part.a += z * p.a_batch;
    part.b += z * p.b_batch;
    part.out += z * p.m * p.n;
    if (part.carry) part.carry += z * p.m * p.n;
    const dim3 grid((unsigned)((p.n + kTile - 1) / kTile), (unsigned)((p.m + kTile - 1) / kTile), (unsigned)count);
    matmul_kernel<<<grid, kThreads>>>(part);
    if (cudaError_t status = cudaGetLastError()) return status;
  }
  return cudaSuccess;
}

const Operator matmul("matmul", launch_matmul, true);

}  // namespace
}  // namespace ro::cuda
