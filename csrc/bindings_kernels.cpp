#include <nanobind/stl/optional.h>

#include <cstdlib>
#include <optional>

#include "bindings_call.h"
#include "kernels/arena.h"
#include "kernels/fpenv.h"
#include "kernels/plan.h"
#include "kernels/registry.h"

using nb::literals::operator""_a;

namespace {

ro::Isa parse_isa(const std::optional<std::string>& name) {
  const std::vector<ro::Isa> isas = ro::available_isas();
  std::string wanted;
  if (name) wanted = *name;
  else if (const char* env = std::getenv("REPOPS_ISA")) wanted = env;
  if (wanted.empty()) return isas.front();
  std::string known;
  for (ro::Isa isa : isas) {
    if (wanted == ro::isa_name(isa)) return isa;
    known += std::string(known.empty() ? "" : ", ") + ro::isa_name(isa);
  }
  throw nb::value_error(("no instruction set '" + wanted + "' on this processor; it has: " + known).c_str());
}

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (ro::Isa isa : ro::available_isas()) names.emplace_back(ro::isa_name(isa));
  return names;
}

void run(const std::string& op, const std::optional<std::string>& isa_arg, int threads, const Shape& params,
         const std::vector<uint64_t>& literals, const std::vector<TensorArg>& inputs, const TensorArg& out) {
  const ro::Isa isa = parse_isa(isa_arg);
  Arguments args;
  for (size_t i = 0; i < inputs.size(); ++i) args.add(inputs[i], false, "input " + std::to_string(i) + " of " + op);
  args.add(out, true, "the output of " + op);
  ro::Call call{args.tensors.data(), (int32_t)inputs.size(),   params.data(),       (int32_t)params.size(),
                literals.data(),     (int32_t)literals.size(), args.tensors.back(), threads < 1 ? 1 : threads};
  bool known;
  {
    nb::gil_scoped_release released;
    known = ro::run_operator(op, isa, call);
  }
  if (!known) throw nb::key_error(("no operator '" + op + "' in this build; operators() lists them").c_str());
}

void run_fused(const std::string& group, const std::optional<std::string>& isa_arg, int threads, const Shape& params,
               const std::vector<uint64_t>& literals, const std::vector<TensorArg>& inputs, const std::vector<TensorArg>& outs) {
  const ro::Kernel kernel = ro::find_fused(group, parse_isa(isa_arg));
  if (!kernel) throw nb::key_error(("no fused kernel '" + group + "' for this instruction set").c_str());
  if (outs.empty()) throw nb::value_error("a fused kernel needs at least one output");
  Arguments args;
  for (size_t i = 0; i < inputs.size(); ++i) args.add(inputs[i], false, "input " + std::to_string(i) + " of " + group);
  for (size_t i = 0; i < outs.size(); ++i) args.add(outs[i], true, "output " + std::to_string(i) + " of " + group);
  const ro::Tensor* first = args.tensors.data() + inputs.size();
  ro::Call call{args.tensors.data(), (int32_t)inputs.size(),   params.data(), (int32_t)params.size(),
                literals.data(),     (int32_t)literals.size(), *first,        threads < 1 ? 1 : threads,
                first + 1,           (int32_t)outs.size() - 1};
  nb::gil_scoped_release released;
  ro::FpGuard guard;
  kernel(call);
}

uint64_t element(const std::string& op, const Shape& params, const std::vector<uint64_t>& literals,
                 const std::vector<TensorArg>& inputs, int out_dtype, const Shape& out_shape, int64_t index) {
  const ro::Element reference = ro::find_element(op);
  if (!reference) throw nb::key_error(("no operator '" + op + "' in this build; operators() lists them").c_str());
  Arguments args;
  for (size_t i = 0; i < inputs.size(); ++i) args.add(inputs[i], false, "input " + std::to_string(i) + " of " + op);
  const ro::Tensor out = make_tensor(nullptr, out_dtype, out_shape, "the output of " + op);
  if (index < 0 || index >= ro::element_count(out))
    throw nb::index_error(("element " + std::to_string(index) + " of an output of " + std::to_string(ro::element_count(out))).c_str());
  const ro::Call call{args.tensors.data(), (int32_t)inputs.size(),   params.data(), (int32_t)params.size(),
                      literals.data(),     (int32_t)literals.size(), out,           1};
  nb::gil_scoped_release released;
  ro::FpGuard guard;
  return reference(call, index);
}

using OperandArg = std::tuple<int, int64_t, int, Shape>;
using StepArg = std::tuple<std::string, Shape, std::vector<uint64_t>, std::vector<OperandArg>, std::vector<OperandArg>, bool>;

void make_plan(ro::Plan* self, const std::vector<StepArg>& steps, int64_t arena_bytes, const std::optional<std::string>& isa,
               bool keep) {
  const auto operand = [](const OperandArg& arg, const std::string& what) {
    const auto& [place, index, dtype, shape] = arg;
    if (place < 0 || place > 4) throw nb::value_error((what + " has the unknown place " + std::to_string(place)).c_str());
    return ro::Operand{(ro::Place)place, index, make_tensor(nullptr, dtype, shape, what)};
  };
  std::vector<ro::PlanStep> made;
  for (const auto& [op, params, literals, inputs, outputs, in_place] : steps) {
    ro::PlanStep step{op, params, literals, {}, {}, in_place};
    for (const OperandArg& arg : inputs) step.inputs.push_back(operand(arg, "an input of " + op));
    for (const OperandArg& arg : outputs) step.outputs.push_back(operand(arg, "an output of " + op));
    made.push_back(std::move(step));
  }
  new (self) ro::Plan(std::move(made), arena_bytes, parse_isa(isa), keep);
}

std::vector<double> run_plan(ro::Plan& plan, const std::vector<nb::object>& state, const std::vector<nb::object>& batch,
                             const std::vector<nb::object>& constants, const std::vector<nb::object>& new_state, int threads,
                             bool profile) {
  std::vector<Buffer> buffers;
  buffers.reserve(state.size() + batch.size() + constants.size() + new_state.size());
  const auto memory = [&](const std::vector<nb::object>& objects, bool writable, const char* what) {
    std::vector<ro::Memory> list;
    for (const nb::object& object : objects) {
      buffers.emplace_back(object, writable, what);
      list.push_back({buffers.back().data(), buffers.back().size()});
    }
    return list;
  };
  const auto s = memory(state, false, "a state tensor"), b = memory(batch, false, "a batch tensor");
  const auto c = memory(constants, false, "a constant"), n = memory(new_state, true, "a new state tensor");
  std::vector<double> seconds;
  nb::gil_scoped_release released;
  plan.run(s, b, c, n, threads < 1 ? 1 : threads, profile ? &seconds : nullptr);
  return seconds;
}

}  // namespace

void bind_kernels(nb::module_& m) {
  m.def("isas", &isas,
        "Instruction sets of this build that this processor runs, best first; the last is 'scalar', the reference run element by "
        "element. All give the same bits. The environment variable REPOPS_ISA or an `isa` argument chooses a lower one.");
  m.def("operators", &ro::operator_names, "Names of all operators of profile RO-1 in this build, sorted.");
  m.def(
      "kernels", [](const std::string& isa) { return ro::kernel_names(parse_isa(isa)); }, "isa"_a,
      "Operators that have a kernel of exactly this instruction set (others use a lower one, at last the reference).");
  m.def(
      "fused", [](const std::string& isa) { return ro::fused_names(parse_isa(isa)); }, "isa"_a,
      "Groups that have a fused kernel of exactly this instruction set.");
  m.def("pointwise", &ro::pointwise_names, "Pointwise operators, sorted; a chain names them by their place in this list.");
  m.def("run", &run, "op"_a, "isa"_a.none(), "threads"_a, "params"_a, "literals"_a, "inputs"_a, "out"_a,
        "Run one operator. inputs: list of (buffer, dtype code, shape), C-contiguous, any alignment; out: the same, writable, not "
        "overlapping an input unless the operator is safe in place. Shapes and params must satisfy the operator's rule "
        "(docs/spec/operators.md); they are not checked again here. isa None: the best, or REPOPS_ISA.\n"
        "Raises KeyError for an unknown operator, ValueError for a buffer whose size is not its shape's, TypeError for what is no buffer.");
  m.def("run_fused", &run_fused, "group"_a, "isa"_a.none(), "threads"_a, "params"_a, "literals"_a, "inputs"_a, "outs"_a,
        "Run the fused kernel of a group of nodes: the group's outer inputs to its outputs. Same bits as the nodes one by one.");
  m.def("element", &element, "op"_a, "params"_a, "literals"_a, "inputs"_a, "out_dtype"_a, "out_shape"_a, "index"_a,
        "The reference: the bit pattern of one output element (row-major index) by the operator's definition.");
  m.def(
      "advise_huge",
      [](nb::handle memory) {
        const Buffer buffer(memory, true, "the memory");
        ro::advise_huge(buffer.data(), (size_t)buffer.size());
      },
      "memory"_a,
      "Ask the system for huge pages where a C-contiguous buffer that nobody has written yet holds whole ones. They make large results\n"
      "faster: fewer page faults.");
  nb::class_<ro::Plan>(m, "Plan",
                       "A program compiled to kernel calls.\n\n"
                       "Plan(steps, arena_bytes, isa, keep): steps is a list of (op, params, literals, inputs, outputs, in_place).\n"
                       "  op        an operator, or a fused group (fused()), whose outputs then are several\n"
                       "  params    list of int64; literals: list of uint64 patterns\n"
                       "  inputs    list of (place, index, dtype code, shape); place: 0 state, 1 batch, 2 constant (the kinds of a ref),\n"
                       "            3 the arena (index = byte offset; multiples of 64 are fastest), 4 new state (written by an earlier step)\n"
                       "  outputs   the same with place 3 or 4\n"
                       "  in_place  the operator allows its output exactly on an input of the same size; otherwise an overlap is refused\n"
                       "keep: an arena of this size stays in memory between runs, as long as the plan lives.\n"
                       "Raises ValueError for an unknown operator, an operand outside the arena, an overlap, a size used two ways.")
      .def("__init__", &make_plan, "steps"_a, "arena_bytes"_a, "isa"_a.none() = nb::none(), "keep"_a = true)
      .def("run", &run_plan, "state"_a, "batch"_a, "constants"_a, "new_state"_a, "threads"_a, "profile"_a = false,
           "Run all steps. Four lists of C-contiguous buffers by index; only those that a step uses need the right size, lists may be\n"
           "shorter or longer than what is used. new_state[j] may be the buffer of state[i] (a donation): ValueError if a step\n"
           "would read the old value after the new one is written. Intermediate tensors live in the arena, which each run\n"
           "has to itself. The GIL is released; several threads may run one plan. Slots that no step writes are not touched.\n"
           "profile: give the seconds that each step took, else an empty list.")
      .def_prop_ro("arena_bytes", &ro::Plan::arena_bytes)
      .def("__len__", &ro::Plan::size);
}
