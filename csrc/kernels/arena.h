#pragma once
#include <cstddef>

namespace ro {

constexpr size_t kHugePage = 2 << 20;

// Asks for huge pages where memory holds whole ones, before it is written: they take fewer faults and fewer entries of the TLB. Advice only.
void advise_huge(void* data, size_t bytes);

// Memory for the intermediate tensors of one run: taken from a pool of the process, given back when the run is over.
class Arena {
 public:
  explicit Arena(size_t bytes);  // throws std::bad_alloc
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  char* data() const { return data_; }

 private:
  char* data_ = nullptr;
  size_t bytes_ = 0;
};

// Between runs the pool keeps a few small arenas, and one as large as the largest reservation that lives.
class Reservation {
 public:
  explicit Reservation(size_t bytes);
  ~Reservation();
  Reservation(const Reservation&) = delete;
  Reservation& operator=(const Reservation&) = delete;

 private:
  size_t bytes_;
};

}  // namespace ro
