#include "arena.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>
#include <set>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace ro {
namespace {

constexpr size_t kSmall = 16 << 20;  // kept without a reservation

struct Block {
  size_t bytes;
  char* data;
};

class Pool {
 public:
  // The smallest that is large enough, or a new one.
  Block take(size_t bytes) {
    const size_t rounded = (bytes + kHugePage - 1) / kHugePage * kHugePage;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      const auto found = std::find_if(free_.begin(), free_.end(), [&](const Block& b) { return b.bytes >= rounded; });
      if (found != free_.end()) {
        const Block block = *found;
        free_.erase(found);
        return block;
      }
    }
    char* data = (char*)std::aligned_alloc(kHugePage, rounded);
    if (!data) throw std::bad_alloc();
    advise_huge(data, rounded);
    return {rounded, data};
  }

  void give(Block block) {
    std::lock_guard<std::mutex> lock(mutex_);
    free_.insert(std::find_if(free_.begin(), free_.end(), [&](const Block& b) { return b.bytes >= block.bytes; }), block);
    trim();
  }

  void reserve(size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    reserved_.insert(bytes);
  }

  void unreserve(size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    reserved_.erase(reserved_.find(bytes));
    trim();
  }

 private:
  // Frees what is larger than all that may be kept, then the smallest.
  void trim() {
    const size_t limit = kSmall + (reserved_.empty() ? 0 : *reserved_.rbegin());
    size_t total = 0;
    for (const Block& b : free_) total += b.bytes;
    while (total > limit) {
      const auto freed = free_.back().bytes > limit ? free_.end() - 1 : free_.begin();
      total -= freed->bytes;
      std::free(freed->data);
      free_.erase(freed);
    }
  }

  std::mutex mutex_;
  std::vector<Block> free_;  // by size
  std::multiset<size_t> reserved_;
};

// Never destroyed: plans may outlive whatever order the process ends in.
Pool& pool() {
  static Pool* made = new Pool;
  return *made;
}

}  // namespace

void advise_huge(void* data, size_t bytes) {
#if defined(MADV_HUGEPAGE)
  const uintptr_t start = ((uintptr_t)data + kHugePage - 1) / kHugePage * kHugePage, end = ((uintptr_t)data + bytes) / kHugePage * kHugePage;
  if (start < end) madvise((void*)start, end - start, MADV_HUGEPAGE);
#else
  (void)data, (void)bytes;
#endif
}

Arena::Arena(size_t bytes) {
  if (bytes == 0) return;
  const Block block = pool().take(bytes);
  data_ = block.data;
  bytes_ = block.bytes;
}

Arena::~Arena() {
  if (data_) pool().give({bytes_, data_});
}

Reservation::Reservation(size_t bytes) : bytes_(bytes) { pool().reserve(bytes_); }

Reservation::~Reservation() { pool().unreserve(bytes_); }

}  // namespace ro
