// Random numbers: the kernel of `philox`.
#pragma once
#include "parallel.h"
#include "philox.h"

namespace ro {
namespace RO_ISA {

RO_KERNEL(philox) {
  constexpr int kBlocks = 16;  // blocks made together: 64 numbers
  const PhiloxKey key(call);
  const int64_t n = element_count(call.out), groups = (n + 4 * kBlocks - 1) / (4 * kBlocks);
  char* const out = (char*)call.out.data;
  parallel_for(groups, 256, call.threads, [&](int64_t begin, int64_t end) {
    uint32_t words[4][kBlocks];
    float numbers[4 * kBlocks];
    for (int64_t g = begin; g < end; ++g) {
      philox_blocks<kBlocks>(key, (uint64_t)(g * kBlocks), words);
      for (int b = 0; b < kBlocks; ++b)
        for (int i = 0; i < 4; ++i) numbers[4 * b + i] = philox_uniform(words[i][b]);
      const int64_t first = g * 4 * kBlocks, count = n - first < 4 * kBlocks ? n - first : 4 * kBlocks;
      std::memcpy(out + 4 * first, numbers, 4 * count);
    }
  });
}

}  // namespace RO_ISA
}  // namespace ro
