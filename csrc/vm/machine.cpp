#include "vm/machine.h"

#include <omp.h>

#include <cstring>
#include <vector>

#include "hash/keccak.h"
#include "kernels/fpenv.h"
#include "kernels/prim.h"

namespace ro::vm {

namespace {

// Numbers of repops/vm/isa.py.
enum Op : uint8_t {
  kHalt = 0x01, kJmp, kBeq, kBne, kBlt, kBge,
  kAdd = 0x10, kSub, kMul, kDiv, kRem, kAnd, kOr, kXor, kShl, kShr, kSar, kMin, kMax, kSeq, kSlt, kSext, kSel,
  kParam = 0x28, kLiteral, kDim, kRank, kDtype, kInputs, kPlace,
  kLoad = 0x30, kRaw, kCode,
  kFadd = 0x38, kFsub, kFmul, kFdiv, kFsqrt, kFfma, kFmax, kFmin, kFeq, kFlt, kFle, kFnan, kItof, kFtoi, kNarrow,
  kGet = 0x48, kPut,
};

uint64_t bits(float x) { return bits_of(canonical(x)); }

int64_t remainder(int64_t x, int64_t y) { return sub_i64(x, mul_i64(div_i64(x, y), y)); }

uint64_t narrow(float x, uint32_t pattern, int32_t dtype) { return is_floating(dtype) ? real_bits(x, dtype) : pattern; }

void store_big(uint64_t x, int bytes, uint8_t* out) {
  for (int i = 0; i < bytes; ++i) out[i] = (uint8_t)(x >> 8 * (bytes - 1 - i));
}

uint64_t load_big(const uint8_t* in, int bytes) {
  uint64_t x = 0;
  for (int i = 0; i < bytes; ++i) x = x << 8 | in[i];
  return x;
}

}  // namespace

void encode(const State& state, uint8_t* out) {
  std::memset(out, 0, 32);
  out[0] = state.halted;
  store_big(state.pc, 4, out + 20);
  store_big(state.output, 8, out + 24);
  for (int i = 0; i < kRegisters; ++i) store_big(state.registers[i], 8, out + 32 + 8 * i);
  for (int i = 0; i < kScratch; ++i) store_big(state.scratch[i], 4, out + 32 + 8 * kRegisters + 4 * i);
}

State decode(const uint8_t* in) {
  State state{};
  state.halted = in[0] != 0;
  state.pc = (uint32_t)load_big(in + 20, 4);
  state.output = load_big(in + 24, 8);
  for (int i = 0; i < kRegisters; ++i) state.registers[i] = load_big(in + 32 + 8 * i, 8);
  for (int i = 0; i < kScratch; ++i) state.scratch[i] = (uint32_t)load_big(in + 32 + 8 * kRegisters + 4 * i, 4);
  return state;
}

Machine::Machine(const Call& call, const uint64_t* words, int64_t count, int height)
    : call_(call), words_(words), count_(count), limit_((int64_t)1 << height), space_{nullptr, 0, 0, {}} {
  for (int k = -1; k < call.inputs; ++k) space_.rank = tensor(k)->rank > space_.rank ? tensor(k)->rank : space_.rank;
  for (int d = 0; d < space_.rank; ++d) {
    space_.shape[d] = 1;
    for (int k = -1; k < call.inputs; ++k) {
      const Tensor& t = *tensor(k);
      const int own = d - (space_.rank - t.rank);
      if (own < 0 || space_.shape[d] == 0) continue;
      if (t.shape[own] == 0 || t.shape[own] > space_.shape[d]) space_.shape[d] = t.shape[own];
    }
  }
}

State Machine::start(int64_t element) {
  State state{};
  state.registers[1] = (uint64_t)element;
  return state;
}

State Machine::halted(uint64_t output) {
  State state{};
  state.halted = true;
  state.output = output;
  return state;
}

const Tensor* Machine::tensor(int64_t t) const {
  if (t == -1) return &call_.out;
  if (t == -2) return &space_;
  return t >= 0 && t < call_.inputs ? call_.in + t : nullptr;
}

int64_t Machine::place(int64_t index, int64_t t) const {
  const Tensor* const to = tensor(t);
  if (!to) return 0;
  if (index < 0) return -1;
  int64_t c[kMaxRank];
  for (int d = space_.rank - 1; d >= 0; --d) {
    if (space_.shape[d] == 0) return 0;
    c[d] = index % space_.shape[d];
    index /= space_.shape[d];
  }
  int64_t p = 0;
  for (int d = 0; d < to->rank; ++d)
    p = add_i64(mul_i64(p, to->shape[d]), to->shape[d] == 1 ? 0 : c[space_.rank - to->rank + d]);
  return p;
}

uint64_t Machine::load(int64_t index, int64_t t, bool raw) const {
  if (t < 0 || t >= call_.inputs) return 0;
  const Tensor& x = call_.in[t];
  if (index < 0 || index >= element_count(x)) return 0;
  uint64_t stored = 0;
  const int size = item_size(x.dtype);
  std::memcpy(&stored, (const char*)x.data + index * size, size);
  if (raw || x.dtype == kF32 || x.dtype == kI64) return stored;
  if (x.dtype == kBF16) return stored << 16;
  if (x.dtype == kF16) return bits_of(f16_to_f32((uint16_t)stored));
  return x.dtype == kI32 ? (uint64_t)(int64_t)(int32_t)stored : stored != 0;
}

void Machine::step(State& state, int64_t n) const {
  if (state.halted) return;
  if (!execute(state) || (n == limit_ - 1 && !state.halted)) state = halted(0);
}

bool Machine::execute(State& state) const {
  if (state.pc >= (uint64_t)count_) return false;
  const uint64_t word = words_[state.pc];
  const uint8_t op = word >> 56, a = word >> 48, b = word >> 40, c = word >> 32;
  const int32_t imm = (int32_t)word;
  uint64_t* const r = state.registers;
  const auto known = [](int64_t x) { return x >= 0 && x < kRegisters; };
  const auto real = [&](int x) { return float_of((uint32_t)r[x]); };
  if (!known(a) && op != kJmp) return false;

  switch (op) {
    case kHalt: {
      const int size = item_size(call_.out.dtype);
      state = halted(size == 8 ? r[a] : r[a] & ((1ull << 8 * size) - 1));
      return true;
    }
    case kJmp:
      state.pc = (uint32_t)imm;
      return true;
    case kBeq: case kBne: case kBlt: case kBge: {
      if (!known(b)) return false;
      const int64_t x = (int64_t)r[a], y = (int64_t)r[b];
      const bool taken = op == kBeq ? x == y : op == kBne ? x != y : op == kBlt ? x < y : x >= y;
      state.pc = taken ? (uint32_t)imm : state.pc + 1;
      return true;
    }
    case kGet: case kPut: {
      if (!known(b)) return false;
      const int64_t at = add_i64((int64_t)r[b], imm);
      if (at < 0 || at >= kScratch) return false;
      if (op == kGet) r[a] = state.scratch[at];
      else state.scratch[at] = (uint32_t)r[a];
      ++state.pc;
      return true;
    }
    default:
      break;
  }

  // What the fields must name depends on the form: see repops/vm/isa.py, OPERANDS.
  const bool integer = op >= kAdd && op <= kSlt;
  const bool sums = integer || (op >= kParam && op <= kDtype) || op == kPlace || (op >= kLoad && op <= kCode);
  const bool reads_b = integer || op == kSext || op == kSel || op == kDim || op == kPlace || op == kLoad || op == kRaw ||
                       (op >= kFadd && op <= kNarrow);
  const bool reads_c = sums || op == kSel || (op >= kFadd && op <= kFdiv) || (op >= kFfma && op <= kFle);
  if ((reads_b && !known(b)) || (reads_c && !known(c)) || ((op == kSel || op == kFfma) && !known(imm))) return false;
  const int64_t x = reads_b ? (int64_t)r[b] : 0, y = sums ? add_i64((int64_t)r[c], imm) : 0;
  uint64_t result;
  switch (op) {
    case kAdd: result = (uint64_t)add_i64(x, y); break;
    case kSub: result = (uint64_t)sub_i64(x, y); break;
    case kMul: result = (uint64_t)mul_i64(x, y); break;
    case kDiv: result = (uint64_t)div_i64(x, y); break;
    case kRem: result = (uint64_t)remainder(x, y); break;
    case kAnd: result = (uint64_t)(x & y); break;
    case kOr: result = (uint64_t)(x | y); break;
    case kXor: result = (uint64_t)(x ^ y); break;
    case kShl: result = y >= 0 && y < 64 ? (uint64_t)x << y : 0; break;
    case kShr: result = y >= 0 && y < 64 ? (uint64_t)x >> y : 0; break;
    case kSar: result = (uint64_t)(x >> (y >= 0 && y < 64 ? y : 63)); break;
    case kMin: result = (uint64_t)(x < y ? x : y); break;
    case kMax: result = (uint64_t)(x > y ? x : y); break;
    case kSeq: result = x == y; break;
    case kSlt: result = x < y; break;
    case kSext: result = (uint64_t)(int64_t)(int32_t)x; break;
    case kSel: result = x != 0 ? r[c] : r[imm]; break;
    case kParam: result = y >= 0 && y < call_.param_count ? (uint64_t)call_.params[y] : 0; break;
    case kLiteral: result = y >= 0 && y < call_.literal_count ? call_.literals[y] : 0; break;
    case kDim: {
      const Tensor* const t = tensor(y);
      result = t && x >= 0 && x < t->rank ? (uint64_t)t->shape[x] : 0;
      break;
    }
    case kRank: result = tensor(y) ? (uint64_t)tensor(y)->rank : 0; break;
    case kDtype: result = tensor(y) ? (uint64_t)tensor(y)->dtype : 0; break;
    case kInputs: result = (uint64_t)call_.inputs; break;
    case kPlace: result = (uint64_t)place(x, y); break;
    case kLoad: result = load(x, y, false); break;
    case kRaw: result = load(x, y, true); break;
    case kCode: result = y >= 0 && y < count_ ? words_[y] : 0; break;
    case kFadd: result = bits(add_rn(real(b), real(c))); break;
    case kFsub: result = bits(sub_rn(real(b), real(c))); break;
    case kFmul: result = bits(mul_rn(real(b), real(c))); break;
    case kFdiv: result = bits(div_rn(real(b), real(c))); break;
    case kFsqrt: result = bits(sqrt_rn(real(b))); break;
    case kFfma: result = bits(fma_rn(real(b), real(c), real(imm))); break;
    case kFmax: result = bits_of(maximum_f32(real(b), real(c))); break;
    case kFmin: result = bits_of(minimum_f32(real(b), real(c))); break;
    case kFeq: result = real(b) == real(c); break;
    case kFlt: result = real(b) < real(c); break;
    case kFle: result = real(b) <= real(c); break;
    case kFnan: result = is_nan(real(b)); break;
    case kItof: result = bits_of(i64_to_f32(x)); break;
    case kFtoi: result = (uint64_t)f32_to_i64(real(b)); break;
    case kNarrow: result = narrow(real(b), (uint32_t)x, call_.out.dtype); break;
    default: return false;
  }
  r[a] = result;
  ++state.pc;
  return true;
}

Run run(const Machine& machine, int64_t element) {
  State state = Machine::start(element);
  int64_t n = 0;
  for (; !state.halted; ++n) machine.step(state, n);
  return {state.output, n};
}

State state_after(const Machine& machine, int64_t element, int64_t n) {
  State state = Machine::start(element);
  for (int64_t i = 0; i < n && !state.halted; ++i) machine.step(state, i);
  return state;
}

void trace_leaves(const Machine& machine, int64_t element, int threads, uint8_t* out) {
  constexpr int64_t kChunk = 4096;  // states that are hashed at once
  const hash::Lanes& lanes = *hash::available().front();
  std::vector<uint8_t> states(kChunk * kStateBytes);
  State state = Machine::start(element);
  int64_t done = 0;
  while (done < machine.limit() && !state.halted) {
    int64_t count = 0;
    for (; count < kChunk && done + count < machine.limit() && !state.halted; ++count) {
      machine.step(state, done + count);
      encode(state, states.data() + count * kStateBytes);
    }
#pragma omp parallel num_threads(threads)
    {
      const int64_t parts = omp_get_num_threads(), part = omp_get_thread_num();
      const int64_t first = count * part / parts, last = count * (part + 1) / parts;
      hash::hash_states(lanes, states.data() + first * kStateBytes, last - first, out + (done + first) * hash::kHashBytes);
    }
    done += count;
  }
  // A halted state is its own successor.
  for (; done < machine.limit(); ++done)
    std::memcpy(out + done * hash::kHashBytes, out + (done - 1) * hash::kHashBytes, hash::kHashBytes);
}

}  // namespace ro::vm
