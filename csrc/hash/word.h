// The scalar state word: one message at a time on any machine.
#pragma once
#include <cstring>

#include "hash/permute.h"

namespace ro::hash {
namespace {

struct Word {
  static constexpr int kWidth = 1;
  uint64_t v;

  static RO_INLINE Word xor2(Word a, Word b) { return {a.v ^ b.v}; }
  static RO_INLINE Word xor3(Word a, Word b, Word c) { return {a.v ^ b.v ^ c.v}; }
  static RO_INLINE Word chi(Word a, Word b, Word c) { return {a.v ^ (~b.v & c.v)}; }
  template <int n>
  static RO_INLINE Word rotl(Word a) {
    return {(a.v << n) | (a.v >> (64 - n))};
  }
  static RO_INLINE Word broadcast(uint64_t word) { return {word}; }
  static RO_INLINE Word load(const uint8_t* const* in, int64_t offset) {
    Word w;
    std::memcpy(&w.v, in[0] + offset, 8);
    return w;
  }
  static RO_INLINE void load8(const uint8_t* const* in, int64_t offset, Word* w) {
    std::memcpy(w, in[0] + offset, 64);
  }
  static RO_INLINE void store4(const Word* state, uint8_t* out) { std::memcpy(out, state, 32); }
};

}  // namespace
}  // namespace ro::hash
