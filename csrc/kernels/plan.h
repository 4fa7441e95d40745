// A program compiled to a list of kernel calls: no graph, no Python, an arena for the intermediate tensors of a run.
#pragma once
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "arena.h"
#include "call.h"

namespace ro {

// Where a tensor of a step lies.
enum class Place : int32_t { kState = 0, kBatch = 1, kConstant = 2, kArena = 3, kNewState = 4 };

struct Operand {
  Place place;
  int64_t index;  // of the tensor; for kArena the byte offset
  Tensor tensor;  // data is filled in at each run
};

struct PlanStep {
  std::string op;  // an operator or a fused group
  std::vector<int64_t> params;
  std::vector<uint64_t> literals;
  std::vector<Operand> inputs;
  std::vector<Operand> outputs;  // one for an operator; first the one in Call::out
  bool in_place = false;         // outputs may lie exactly on an input
};

class PlanError : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

struct Memory {
  void* data;
  int64_t bytes;
};

class Plan {
 public:
  // Throws PlanError: unknown operator, operand outside the arena, output overlapping an input of a step that is not in place.
  // keep: an arena of this size stays in memory between runs, as long as the plan lives.
  Plan(std::vector<PlanStep> steps, int64_t arena_bytes, Isa isa, bool keep = true);

  // May run in several threads at once.
  // Throws PlanError if a tensor is missing or has another size, or if a donated state tensor would be read after it is written.
  // seconds: what each step took is appended.
  void run(const std::vector<Memory>& state, const std::vector<Memory>& batch, const std::vector<Memory>& constants,
           const std::vector<Memory>& new_state, int threads, std::vector<double>* seconds = nullptr);

  int64_t arena_bytes() const { return arena_bytes_; }
  size_t size() const { return steps_.size(); }

 private:
  struct Bound {
    Kernel kernel;
    Element element;  // if there is no kernel
  };
  struct Need {
    int64_t bytes = -1;  // -1: never used
    int64_t last_read = -1, first_write = -1;
  };

  void note(const Operand& operand, int64_t step, bool write);
  void check(const char* what, const std::vector<Memory>& given, const std::vector<Need>& needs) const;
  void check_donation(const std::vector<Memory>& state, const std::vector<Memory>& new_state) const;

  std::vector<PlanStep> steps_;
  std::vector<Bound> bound_;
  std::vector<Need> needs_[5];
  int64_t arena_bytes_;
  std::unique_ptr<Reservation> reservation_;
};

}  // namespace ro
