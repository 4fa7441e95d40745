#include "hash/keccak.h"

#include <algorithm>
#include <cstring>

#include "hash/word.h"

namespace ro::hash {
namespace {

constexpr Lanes kScalar = {"scalar", Word::kWidth, sponge_tiles<Word>, sponge_pairs<Word>, sponge_states<Word>};

// The instruction sets with which the build compiles the wider units, not only the ones that they name.
bool runs_avx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

bool runs_avx512() {
#if defined(__x86_64__)
  return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#else
  return false;
#endif
}

// Messages of `stride` bytes, `width` at a time. A short last group repeats its last message in the idle lanes.
void hash_rows(const Lanes& lanes, void (*hash)(const uint8_t* const*, uint8_t*), const uint8_t* in, int64_t stride,
               int64_t count, uint8_t* out) {
  const uint8_t* row[kMaxLanes];
  int64_t done = 0;
  for (; done + lanes.width <= count; done += lanes.width) {
    for (int lane = 0; lane < lanes.width; ++lane) row[lane] = in + (done + lane) * stride;
    hash(row, out + done * kHashBytes);
  }
  if (done == count) return;
  const int64_t left = count - done;
  for (int lane = 0; lane < lanes.width; ++lane) row[lane] = in + (done + std::min<int64_t>(lane, left - 1)) * stride;
  uint8_t last[kMaxLanes * kHashBytes];
  hash(row, last);
  std::memcpy(out + done * kHashBytes, last, static_cast<size_t>(left * kHashBytes));
}

}  // namespace

const Lanes* lanes_scalar() { return &kScalar; }

void keccak256(const uint8_t* data, int64_t bytes, uint8_t* out) {
  Word state[25] = {};
  for (; bytes >= kRateBytes; bytes -= kRateBytes, data += kRateBytes) {
    for (int i = 0; i < kRateWords; ++i) state[i] = Word::xor2(state[i], Word::load(&data, 8 * i));
    permute(state);
  }
  uint8_t tail[kRateBytes] = {};
  if (bytes > 0) std::memcpy(tail, data, static_cast<size_t>(bytes));
  tail[bytes] = static_cast<uint8_t>(kPadFirst);
  tail[kRateBytes - 1] |= 0x80;
  const uint8_t* block = tail;
  for (int i = 0; i < kRateWords; ++i) state[i] = Word::xor2(state[i], Word::load(&block, 8 * i));
  permute(state);
  Word::store4(state, out);
}

const std::vector<const Lanes*>& available() {
  static const std::vector<const Lanes*> all = [] {
    std::vector<const Lanes*> found;
    if (lanes_avx512() != nullptr && runs_avx512()) found.push_back(lanes_avx512());
    if (lanes_avx2() != nullptr && runs_avx2()) found.push_back(lanes_avx2());
    if (lanes_neon() != nullptr) found.push_back(lanes_neon());
    found.push_back(lanes_scalar());
    return found;
  }();
  return all;
}

const Lanes* find_lanes(const char* name) {
  if (name == nullptr || *name == '\0') return available().front();
  for (const Lanes* lanes : available())
    if (std::strcmp(lanes->name, name) == 0) return lanes;
  return nullptr;
}

void hash_tiles(const Lanes& lanes, const uint8_t* in, int64_t count, uint8_t* out) {
  // A lone message gains nothing from wide registers.
  const Lanes& used = count == 1 ? kScalar : lanes;
  hash_rows(used, used.tiles, in, kTileBytes, count, out);
}

void hash_pairs(const Lanes& lanes, const uint8_t* in, int64_t count, uint8_t* out) {
  const Lanes& used = count == 1 ? kScalar : lanes;
  hash_rows(used, used.pairs, in, kPairBytes, count, out);
}

void hash_states(const Lanes& lanes, const uint8_t* in, int64_t count, uint8_t* out) {
  hash_rows(lanes, lanes.states, in, kStateBytes, count, out);
}

}  // namespace ro::hash
