// RepVM (docs/spec/repvm.md), fast: runs the program of an operator for one element of a node's output. The readable
// interpreter is repops/vm/machine.py; tests hold the two together.
#pragma once
#include <cstdint>

#include "kernels/call.h"

namespace ro::vm {

constexpr int kRegisters = 32;
constexpr int kScratch = 56;
constexpr int64_t kStateBytes = 512;

struct State {
  bool halted;
  uint32_t pc;
  uint64_t output;
  uint64_t registers[kRegisters];
  uint32_t scratch[kScratch];
};

// The hashed form, kStateBytes, and back; bytes 1 to 19 are written zero and not read.
void encode(const State& state, uint8_t* out);
State decode(const uint8_t* in);

class Machine {
 public:
  // The call's tensors (its output needs no memory) and the image must outlive the machine. height: the node's vmHeight, at most 40.
  Machine(const Call& call, const uint64_t* words, int64_t count, int height);

  static State start(int64_t element);
  static State halted(uint64_t output);
  // The successor, as instruction number n of the run. The caller holds an FpGuard.
  void step(State& state, int64_t n) const;
  // Instructions that a run may have: 2^height.
  int64_t limit() const { return limit_; }

 private:
  bool execute(State& state) const;  // false: TRAP
  const Tensor* tensor(int64_t t) const;
  int64_t place(int64_t index, int64_t t) const;
  uint64_t load(int64_t index, int64_t t, bool raw) const;

  const Call& call_;
  const uint64_t* words_;
  int64_t count_, limit_;
  Tensor space_;
};

struct Run {
  uint64_t output;
  int64_t instructions;  // up to and with the one that halts
};
Run run(const Machine& machine, int64_t element);

// The state after n instructions, n <= limit.
State state_after(const Machine& machine, int64_t element, int64_t n);

// The leaves of the trace: limit() hashes of 32 bytes.
void trace_leaves(const Machine& machine, int64_t element, int threads, uint8_t* out);

}  // namespace ro::vm
