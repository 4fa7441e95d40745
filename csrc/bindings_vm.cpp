// Python's view of csrc/vm; repops/vm is the front.
#include <nanobind/ndarray.h>

#include <memory>

#include "bindings_call.h"
#include "hash/lanes.h"
#include "kernels/fpenv.h"
#include "vm/machine.h"

using nb::literals::operator""_a;

namespace {

// The image and the node of a run.
class Program {
 public:
  Program(std::vector<uint64_t> words, int height, std::vector<int64_t> params, std::vector<uint64_t> literals,
          const std::vector<TensorArg>& inputs, int out_dtype, const Shape& out_shape)
      : words_(std::move(words)), params_(std::move(params)), literals_(std::move(literals)) {
    if (height < 0 || height > 40) throw nb::value_error("a trace has a height of 0 to 40");
    for (size_t i = 0; i < inputs.size(); ++i) arguments_.add(inputs[i], false, "input " + std::to_string(i));
    const ro::Tensor out = make_tensor(nullptr, out_dtype, out_shape, "the output");
    call_ = {arguments_.tensors.data(), (int32_t)arguments_.tensors.size(), params_.data(), (int32_t)params_.size(),
             literals_.data(),          (int32_t)literals_.size(),          out,            1};
    machine_ = std::make_unique<ro::vm::Machine>(call_, words_.data(), (int64_t)words_.size(), height);
  }
  const ro::vm::Machine& machine() const { return *machine_; }

 private:
  std::vector<uint64_t> words_;
  std::vector<int64_t> params_;
  std::vector<uint64_t> literals_;
  Arguments arguments_;
  ro::Call call_;
  std::unique_ptr<ro::vm::Machine> machine_;
};

std::tuple<uint64_t, int64_t> run(const Program& program, int64_t element) {
  nb::gil_scoped_release released;
  ro::FpGuard guard;
  const ro::vm::Run r = ro::vm::run(program.machine(), element);
  return {r.output, r.instructions};
}

nb::bytes state(const Program& program, int64_t element, int64_t n) {
  if (n < 0 || n > program.machine().limit()) throw nb::index_error("a run has no such instruction");
  uint8_t out[ro::vm::kStateBytes];
  {
    nb::gil_scoped_release released;
    ro::FpGuard guard;
    ro::vm::encode(ro::vm::state_after(program.machine(), element, n), out);
  }
  return nb::bytes((const char*)out, sizeof out);
}

nb::bytes step(const Program& program, nb::bytes state, int64_t n) {
  if (state.size() != ro::vm::kStateBytes) throw nb::value_error("a state has 512 bytes");
  if (n < 0 || n >= program.machine().limit()) throw nb::index_error("a run has no such instruction");
  ro::vm::State s = ro::vm::decode((const uint8_t*)state.c_str());
  uint8_t out[ro::vm::kStateBytes];
  ro::FpGuard guard;
  program.machine().step(s, n);
  ro::vm::encode(s, out);
  return nb::bytes((const char*)out, sizeof out);
}

nb::ndarray<nb::numpy, uint8_t, nb::shape<-1, 32>, nb::c_contig> leaves(const Program& program, int64_t element, int threads) {
  const size_t count = (size_t)program.machine().limit();
  auto owned = std::make_unique<std::vector<uint8_t>>(count * ro::hash::kHashBytes);
  {
    nb::gil_scoped_release released;
    ro::FpGuard guard;
    ro::vm::trace_leaves(program.machine(), element, threads < 1 ? 1 : threads, owned->data());
  }
  std::vector<uint8_t>* const data = owned.release();
  nb::capsule owner(data, [](void* p) noexcept { delete static_cast<std::vector<uint8_t>*>(p); });
  return {data->data(), {count, (size_t)ro::hash::kHashBytes}, owner};
}

}  // namespace

void bind_vm(nb::module_& m) {
  nb::class_<Program>(m, "VmProgram",
                      "A RepVM image with the node and the inputs that it runs on (docs/spec/repvm.md).\n\n"
                      "VmProgram(words, height, params, literals, inputs, out_dtype, out_shape): words are uint64, height is the node's\n"
                      "vmHeight, inputs a list of (buffer, dtype code, shape), C-contiguous; the buffers are held.\n"
                      "Raises ValueError for a size that is not its shape's, TypeError for what is no buffer.")
      .def(nb::init<std::vector<uint64_t>, int, std::vector<int64_t>, std::vector<uint64_t>, const std::vector<TensorArg>&, int,
                    const Shape&>(),
           "words"_a, "height"_a, "params"_a, "literals"_a, "inputs"_a, "out_dtype"_a, "out_shape"_a)
      .def("run", &run, "element"_a, "(output, instructions) of the run for an element, up to and with the instruction that halts.")
      .def("state", &state, "element"_a, "n"_a, "The 512 bytes of the state after n instructions. Raises IndexError beyond 2^height.")
      .def("step", &step, "state"_a, "n"_a,
           "The successor of a state of 512 bytes, as instruction number n of a run. Raises ValueError for another size, IndexError\n"
           "unless 0 <= n < 2^height.")
      .def("leaves", &leaves, "element"_a, "threads"_a, "The leaves of the element's trace: a uint8 array (2^height, 32).");
}
