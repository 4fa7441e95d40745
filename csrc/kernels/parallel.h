// Threads: OpenMP's one pool (shared with torch, which loads the same libgomp). Work is split over outputs, or over the blocks and lanes
// that the definition of a fold has, whose results are then added in its order; so no result depends on the number of threads.
#pragma once
#include <omp.h>

#include <cstdint>

#include "fpenv.h"

namespace ro {

// Calls body(begin, end) on disjoint ranges that cover [0, n). At least `grain` items go to a thread.
template <class Body>
static inline void parallel_for(int64_t n, int64_t grain, int threads, const Body& body) {
  if (n <= 0) return;
  if (grain < 1) grain = 1;
  int64_t workers = (n + grain - 1) / grain;
  if (workers > threads) workers = threads;
  if (workers <= 1 || omp_in_parallel()) {
    FpGuard guard;
    body((int64_t)0, n);
    return;
  }
#pragma omp parallel num_threads((int)workers)
  {
    FpGuard guard;
    const int64_t team = omp_get_num_threads();
    const int64_t id = omp_get_thread_num();
    const int64_t begin = n / team * id + (n % team < id ? n % team : id);
    const int64_t end = begin + n / team + (id < n % team ? 1 : 0);
    if (begin < end) body(begin, end);
  }
}

// Calls body(i) for i in [0, n), handed out one at a time: for items of unequal cost.
template <class Body>
static inline void parallel_dynamic(int64_t n, int threads, const Body& body) {
  if (n <= 0) return;
  const int64_t workers = n < threads ? n : threads;
  if (workers <= 1 || omp_in_parallel()) {
    FpGuard guard;
    for (int64_t i = 0; i < n; ++i) body(i);
    return;
  }
#pragma omp parallel num_threads((int)workers)
  {
    FpGuard guard;
#pragma omp for schedule(dynamic, 1)
    for (int64_t i = 0; i < n; ++i) body(i);
  }
}

}  // namespace ro
