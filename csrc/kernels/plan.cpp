#include "plan.h"

#include <algorithm>
#include <chrono>

#include "arena.h"
#include "fpenv.h"
#include "registry.h"

namespace ro {
namespace {

int64_t byte_count(const Tensor& t) { return element_count(t) * item_size(t.dtype); }

const char* place_name(Place place) {
  switch (place) {
    case Place::kState: return "state";
    case Place::kBatch: return "batch";
    case Place::kConstant: return "constant";
    case Place::kArena: return "arena";
    case Place::kNewState: return "new state";
  }
  return "unknown";
}

std::string name_of(const std::vector<PlanStep>& steps, int64_t i) {
  return "step " + std::to_string(i) + " (" + steps[i].op + ")";
}

bool overlap(int64_t a, int64_t a_bytes, int64_t b, int64_t b_bytes) {
  return a_bytes > 0 && b_bytes > 0 && a < b + b_bytes && b < a + a_bytes;
}

}  // namespace

Plan::Plan(std::vector<PlanStep> steps, int64_t arena_bytes, Isa isa, bool keep) : steps_(std::move(steps)), arena_bytes_(arena_bytes) {
  if (arena_bytes < 0) throw PlanError("the arena has a negative size");
  for (int64_t i = 0; i < (int64_t)steps_.size(); ++i) {
    const PlanStep& step = steps_[i];
    Bound bound{find_kernel(step.op, isa), nullptr};
    if (!bound.kernel) bound.element = find_element(step.op);
    const bool is_operator = bound.kernel || bound.element;
    if (!is_operator) bound.kernel = find_fused(step.op, isa);
    if (!bound.kernel && !bound.element) throw PlanError(name_of(steps_, i) + ": no operator or fused group of this name in this build");
    if (step.outputs.empty() || (is_operator && step.outputs.size() != 1))
      throw PlanError(name_of(steps_, i) + ": an operator has one output, a fused group at least one");
    bound_.push_back(bound);
    for (const Operand& in : step.inputs) note(in, i, false);
    for (const Operand& out : step.outputs) {
      if (out.place != Place::kArena && out.place != Place::kNewState)
        throw PlanError(name_of(steps_, i) + ": an output lies in the arena or the new state");
      note(out, i, true);
    }
    for (const Operand& out : step.outputs)
      for (const Operand& in : step.inputs) {
        if (in.place != out.place || (in.place == Place::kNewState && in.index != out.index)) continue;
        const int64_t in_offset = in.place == Place::kArena ? in.index : 0, out_offset = out.place == Place::kArena ? out.index : 0;
        const int64_t in_bytes = byte_count(in.tensor), out_bytes = byte_count(out.tensor);
        if (!overlap(in_offset, in_bytes, out_offset, out_bytes)) continue;
        if (!step.in_place || in_offset != out_offset || in_bytes != out_bytes)
          throw PlanError(name_of(steps_, i) + ": the output overlaps an input, and the step is not marked in place (or not exactly on it)");
      }
  }
  if (keep && arena_bytes > 0) reservation_ = std::make_unique<Reservation>((size_t)arena_bytes);
}

void Plan::note(const Operand& operand, int64_t step, bool write) {
  const int64_t bytes = byte_count(operand.tensor);
  if (operand.place == Place::kArena) {
    if (operand.index < 0 || operand.index > arena_bytes_ - bytes)
      throw PlanError(name_of(steps_, step) + ": an operand at offset " + std::to_string(operand.index) + " does not fit the arena of " +
                      std::to_string(arena_bytes_) + " bytes");
    return;
  }
  if (operand.index < 0 || operand.index >= 1 << 20)
    throw PlanError(name_of(steps_, step) + ": " + place_name(operand.place) + " tensor " + std::to_string(operand.index) + " is out of range");
  std::vector<Need>& needs = needs_[(int)operand.place];
  if ((int64_t)needs.size() <= operand.index) needs.resize(operand.index + 1);
  Need& need = needs[operand.index];
  if (need.bytes >= 0 && need.bytes != bytes)
    throw PlanError(name_of(steps_, step) + ": " + place_name(operand.place) + " tensor " + std::to_string(operand.index) +
                    " is used with two sizes");
  need.bytes = bytes;
  if (!write) {
    if (operand.place == Place::kNewState && need.first_write < 0)
      throw PlanError(name_of(steps_, step) + ": reads new state tensor " + std::to_string(operand.index) + " before it is written");
    need.last_read = step;
  } else if (need.first_write < 0) {
    need.first_write = step;
  }
}

void Plan::check(const char* what, const std::vector<Memory>& given, const std::vector<Need>& needs) const {
  for (size_t i = 0; i < needs.size(); ++i) {
    if (needs[i].bytes < 0) continue;
    if (i >= given.size())
      throw PlanError(std::string("the plan needs ") + what + " tensor " + std::to_string(i) + "; only " + std::to_string(given.size()) +
                      " were given");
    if (given[i].bytes != needs[i].bytes)
      throw PlanError(std::string(what) + " tensor " + std::to_string(i) + " has " + std::to_string(given[i].bytes) +
                      " bytes; the plan needs " + std::to_string(needs[i].bytes));
  }
}

// New state tensors may be the state's own buffers. Then nothing may read the old value after the new one is written.
void Plan::check_donation(const std::vector<Memory>& state, const std::vector<Memory>& new_state) const {
  const std::vector<Need>& reads = needs_[(int)Place::kState];
  const std::vector<Need>& writes = needs_[(int)Place::kNewState];
  struct Range {
    const char* begin;
    int64_t bytes;
    int64_t index;
    bool written;
  };
  std::vector<Range> ranges;
  for (size_t i = 0; i < reads.size(); ++i)
    if (reads[i].last_read >= 0 && state[i].bytes > 0) ranges.push_back({(const char*)state[i].data, state[i].bytes, (int64_t)i, false});
  for (size_t j = 0; j < writes.size(); ++j)
    if (writes[j].first_write >= 0 && new_state[j].bytes > 0)
      ranges.push_back({(const char*)new_state[j].data, new_state[j].bytes, (int64_t)j, true});
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
  // Ranges that begin before the end of an earlier one overlap it.
  for (size_t a = 0; a < ranges.size(); ++a)
    for (size_t b = a + 1; b < ranges.size() && ranges[b].begin < ranges[a].begin + ranges[a].bytes; ++b) {
      if (!ranges[a].written && !ranges[b].written) continue;  // the same tensor read under two names
      if (ranges[a].written && ranges[b].written)
        throw PlanError("new state tensors " + std::to_string(ranges[a].index) + " and " + std::to_string(ranges[b].index) +
                        " share memory");
      const Range& read = ranges[a].written ? ranges[b] : ranges[a];
      const Range& write = ranges[a].written ? ranges[a] : ranges[b];
      const int64_t last = reads[read.index].last_read, first = writes[write.index].first_write;
      const bool exact = read.begin == write.begin && read.bytes == write.bytes;
      if (!exact || last > first || (last == first && !steps_[first].in_place))
        throw PlanError("state tensor " + std::to_string(read.index) + " was donated to new state tensor " + std::to_string(write.index) +
                        ", which is written at " + name_of(steps_, first) + " while it is still read at " + name_of(steps_, last));
    }
}

void Plan::run(const std::vector<Memory>& state, const std::vector<Memory>& batch, const std::vector<Memory>& constants,
               const std::vector<Memory>& new_state, int threads, std::vector<double>* seconds) {
  const std::vector<Memory>* given[5] = {&state, &batch, &constants, nullptr, &new_state};
  for (int place = 0; place < 5; ++place)
    if (given[place]) check(place_name((Place)place), *given[place], needs_[place]);
  check_donation(state, new_state);

  const Arena arena((size_t)arena_bytes_);
  const auto locate = [&](const Operand& operand) {
    Tensor t = operand.tensor;
    t.data = operand.place == Place::kArena ? arena.data() + operand.index : (*given[(int)operand.place])[operand.index].data;
    return t;
  };
  using Clock = std::chrono::steady_clock;
  FpGuard guard;
  std::vector<Tensor> tensors;
  Clock::time_point start = Clock::now();
  for (size_t i = 0; i < steps_.size(); ++i) {
    const PlanStep& step = steps_[i];
    tensors.clear();
    for (const Operand& in : step.inputs) tensors.push_back(locate(in));
    for (const Operand& out : step.outputs) tensors.push_back(locate(out));
    const Tensor* outputs = tensors.data() + step.inputs.size();
    const Call call{tensors.data(),
                    (int32_t)step.inputs.size(),
                    step.params.data(),
                    (int32_t)step.params.size(),
                    step.literals.data(),
                    (int32_t)step.literals.size(),
                    outputs[0],
                    threads,
                    outputs + 1,
                    (int32_t)step.outputs.size() - 1};
    if (bound_[i].kernel) bound_[i].kernel(call);
    else run_elements(bound_[i].element, call);
    if (seconds) {
      const Clock::time_point end = Clock::now();
      seconds->push_back(std::chrono::duration<double>(end - start).count());
      start = end;
    }
  }
}

}  // namespace ro
