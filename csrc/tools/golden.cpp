// Runs a file of golden cases and compares the hash of every result: operators, programs of many steps, tile trees.
//
//   ro_golden FILE [--isa LIST] [--threads LIST] [--state LIST] [--offset N] [--only PREFIX]
//
// Each list is separated by commas. isa: names of instruction sets, default all of this processor; state: the caller's floating-point
// state, of none, flush, up, down, zero, trap, default none; every combination is run. offset: bytes by which each tensor is moved off
// its natural alignment. Every tensor has a block of its own with not a byte more than it needs, so that AddressSanitizer sees any access
// outside. Exit code 0: every hash is the file's; 1: some differ (they are named) or a state was not given back; 2: usage.
#include <omp.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>

#include "hash/tree.h"
#include "kernels/fpenv.h"
#include "kernels/registry.h"
#include "tools/case_file.h"

namespace {

using namespace ro::tools;
using Hash = std::vector<uint8_t>;

// ---- the caller's floating-point state ----------------------------------------------------------------------------------------

#if defined(__x86_64__)
uint64_t read_state() { return _mm_getcsr() & ~0x3Fu; }  // without the sticky flags
void write_state(uint64_t state) { _mm_setcsr((unsigned)state); }
const std::pair<const char*, uint64_t> kStates[] = {
    {"none", 0x1F80}, {"flush", 0x9FC0}, {"down", 0x3F80}, {"up", 0x5F80}, {"zero", 0xFFC0 /* flushes too */}, {"trap", 0x0000}};
#else
uint64_t read_state() {
  uint64_t state;
  asm volatile("mrs %0, fpcr" : "=r"(state));
  return state;
}
void write_state(uint64_t state) { asm volatile("msr fpcr, %0" : : "r"(state) : "memory"); }
// flush: FZ, FZ16 and DN (every NaN the default one); trap: the processor may not have it.
const std::pair<const char*, uint64_t> kStates[] = {{"none", 0},
                                                    {"flush", 1 << 24 | 1 << 19 | 1 << 25},
                                                    {"up", 1 << 22},
                                                    {"down", 2 << 22},
                                                    {"zero", 3 << 22 | 1 << 24},
                                                    {"trap", 0x9F00}};
#endif

// Sets the state of this thread and of the pool's.
void set_state(uint64_t state, int threads) {
#pragma omp parallel num_threads(threads)
  write_state(state);
}

int threads_with_another_state(uint64_t state, int threads) {
  int changed = 0;
#pragma omp parallel num_threads(threads) reduction(+ : changed)
  changed += read_state() != state;
  return changed;
}

// ---- memory -------------------------------------------------------------------------------------------------------------------

class Block {
 public:
  Block(const ro::Tensor& tensor, int64_t offset)
      : bytes(ro::element_count(tensor) * ro::item_size(tensor.dtype)), memory_((char*)std::malloc((size_t)(bytes + offset)), std::free) {
    this->tensor = tensor;
    this->tensor.data = memory_.get() + offset;
    if (bytes > 0) std::memset(this->tensor.data, 0xA5, (size_t)bytes);
  }
  Block(const Data& data, int64_t offset) : Block(data.tensor, offset) { fill(data, (char*)tensor.data); }

  void hash_onto(Hash& to) const {
    to.resize(to.size() + 32);
    ro::hash::keccak256((const uint8_t*)tensor.data, bytes, to.data() + to.size() - 32);
  }
  ro::Memory memory() const { return {tensor.data, bytes}; }

  int64_t bytes;
  ro::Tensor tensor;

 private:
  std::unique_ptr<char, void (*)(void*)> memory_;
};

std::vector<Block> blocks(const std::vector<Data>& list, int64_t offset) {
  std::vector<Block> made;
  for (const Data& data : list) made.emplace_back(data, offset);
  return made;
}

std::vector<ro::Memory> memories(const std::vector<Block>& list) {
  std::vector<ro::Memory> made;
  for (const Block& block : list) made.push_back(block.memory());
  return made;
}

// ---- cases --------------------------------------------------------------------------------------------------------------------

struct Setting {
  ro::Isa isa;
  int threads;
  int64_t offset;
};

Hash run_call(const Case& c, const std::vector<Block>& inputs, const Setting& s) {
  const Block out(c.out, s.offset);
  std::vector<ro::Tensor> tensors;
  for (const Block& block : inputs) tensors.push_back(block.tensor);
  const ro::Call call{tensors.data(),    (int32_t)tensors.size(),    c.params.data(), (int32_t)c.params.size(),
                      c.literals.data(), (int32_t)c.literals.size(), out.tensor,      s.threads};
  if (!ro::run_operator(c.op, s.isa, call)) throw std::runtime_error("no operator " + c.op + " in this build");
  Hash hash;
  out.hash_onto(hash);
  return hash;
}

// The new state lies in the old one's memory after every other step.
Hash run_program(const Case& c, const Layout& layout, const Setting& s) {
  ro::Plan plan(layout.steps, layout.arena_bytes, s.isa);
  std::vector<Block> state = blocks(c.state, s.offset), other = blocks(c.state, s.offset);
  const std::vector<Block> constants = blocks(c.constants, s.offset);
  for (size_t step = 0; step < c.batches.size(); ++step) {
    const std::vector<Block> batch = blocks(c.batches[step], s.offset);
    const bool donate = step % 2 == 1;
    plan.run(memories(state), memories(batch), memories(constants), memories(donate ? state : other), s.threads);
    if (!donate) state.swap(other);
  }
  Hash roots, hash(32);
  for (const Block& block : state) block.hash_onto(roots);
  ro::hash::keccak256(roots.data(), (int64_t)roots.size(), hash.data());
  return hash;
}

Hash run_root(const std::vector<Block>& inputs, const Setting& s) {
  // Where an instruction set has no hashing of its own the scalar one does it, as in the library.
  const ro::hash::Lanes* lanes = ro::hash::find_lanes(ro::isa_name(s.isa));
  Hash hash(32);
  ro::hash::tensor_root(lanes ? *lanes : *ro::hash::lanes_scalar(), (const uint8_t*)inputs[0].tensor.data, inputs[0].bytes, s.threads,
                        hash.data());
  return hash;
}

std::string hex(const uint8_t* bytes) {
  std::string text;
  for (int i = 0; i < kHashBytes; ++i) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", bytes[i]);
    text += two;
  }
  return text;
}

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> items{""};
  for (char c : list) {
    if (c == ',') items.emplace_back();
    else items.back() += c;
  }
  return items;
}

struct Options {
  std::string file, only;
  std::vector<ro::Isa> isas = ro::available_isas();
  std::vector<int> threads{1};
  std::vector<std::pair<const char*, uint64_t>> states{kStates[0]};
  int64_t offset = 0;
};

Options parse(int argc, char** argv) {
  Options o;
  const auto unknown = [](const std::string& what) { return std::invalid_argument("unknown: " + what); };
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name.rfind("--", 0) != 0) {
      o.file = name;
      continue;
    }
    if (i + 1 == argc) throw std::invalid_argument(name + " needs a value");
    const std::string value = argv[++i];
    if (name == "--isa") {
      o.isas.clear();
      for (const std::string& wanted : split(value)) {
        const size_t before = o.isas.size();
        for (ro::Isa isa : ro::available_isas())
          if (wanted == ro::isa_name(isa)) o.isas.push_back(isa);
        if (o.isas.size() == before) throw unknown("instruction set " + wanted);
      }
    } else if (name == "--threads") {
      o.threads.clear();
      for (const std::string& count : split(value)) o.threads.push_back(std::stoi(count));
    } else if (name == "--state") {
      o.states.clear();
      for (const std::string& wanted : split(value)) {
        const size_t before = o.states.size();
        for (const auto& state : kStates)
          if (wanted == state.first) o.states.push_back(state);
        if (o.states.size() == before) throw unknown("state " + wanted);
      }
    } else if (name == "--offset") {
      o.offset = std::stoi(value);
    } else if (name == "--only") {
      o.only = value;
    } else {
      throw unknown(name);
    }
  }
  if (o.file.empty()) throw std::invalid_argument("give a file of golden cases");
  return o;
}

struct Counts {
  int64_t runs = 0, cases = 0, differ = 0, states = 0;
};

void run_case(const Case& c, const Options& o, Counts& counts) {
  const std::vector<Block> inputs = blocks(c.inputs, o.offset);
  bool same = true;
  for (ro::Isa isa : o.isas)
    for (int threads : o.threads)
      for (const auto& named : o.states) {
        const char* state_name = named.first;
        const uint64_t state = named.second;
        const Setting setting{isa, threads, o.offset};
        const auto compare = [&](const char* how, const auto& run) {
          set_state(state, threads);
          const uint64_t held = read_state();  // a processor may not have all of it
          const Hash hash = run();
          const int changed = threads_with_another_state(held, threads);
          set_state(kStates[0].second, threads);
          ++counts.runs;
          if (changed > 0) {
            ++counts.states;
            std::printf("STATE %s%s: %d threads have another floating-point state than before: %s, %d threads, state %s\n", c.name.c_str(),
                        how, changed, ro::isa_name(isa), threads, state_name);
          }
          if (std::memcmp(hash.data(), c.expected, kHashBytes) == 0) return;
          if (same) ++counts.differ;
          same = false;
          std::printf("DIFFERS %s%s: %s, not %s: %s, %d threads, state %s\n", c.name.c_str(), how, hex(hash.data()).c_str(),
                      hex(c.expected).c_str(), ro::isa_name(isa), threads, state_name);
        };
        if (c.kind == kCall) compare("", [&] { return run_call(c, inputs, setting); });
        if (c.kind == kRoot) compare("", [&] { return run_root(inputs, setting); });
        for (const Layout& layout : c.layouts)
          if (!layout.fused || isa != ro::kScalar)
            compare(layout.fused ? " (fused)" : "", [&] { return run_program(c, layout, setting); });
      }
  ++counts.cases;
}

int run(const Options& o) {
  std::ifstream stream(o.file, std::ios::binary);
  if (!stream) throw std::invalid_argument("cannot read " + o.file);
  const std::vector<char> file{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  Counts counts;
  for (const Case& c : Reader(file).cases())
    if (c.name.rfind(o.only, 0) == 0) run_case(c, o, counts);
  std::string isas;
  for (ro::Isa isa : o.isas) isas += std::string(isas.empty() ? "" : ", ") + ro::isa_name(isa);
  std::printf("%lld cases, %lld runs (%s): %lld cases differ, %lld states were not given back\n", (long long)counts.cases,
              (long long)counts.runs, isas.c_str(), (long long)counts.differ, (long long)counts.states);
  return counts.cases > 0 && counts.differ == 0 && counts.states == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(parse(argc, argv));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ro_golden: %s\n", error.what());
    return 2;
  }
}
