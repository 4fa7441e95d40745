// Two messages at a time, on 64-bit ARM, where every processor has NEON.
#include "hash/lanes.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#include "hash/permute.h"

namespace ro::hash {
namespace {

struct Vec2 {
  static constexpr int kWidth = 2;
  uint64x2_t v;

  static RO_INLINE Vec2 xor2(Vec2 a, Vec2 b) { return {veorq_u64(a.v, b.v)}; }
  static RO_INLINE Vec2 xor3(Vec2 a, Vec2 b, Vec2 c) { return xor2(xor2(a, b), c); }
  static RO_INLINE Vec2 chi(Vec2 a, Vec2 b, Vec2 c) { return {veorq_u64(a.v, vbicq_u64(c.v, b.v))}; }
  template <int n>
  static RO_INLINE Vec2 rotl(Vec2 a) {
    return {vsriq_n_u64(vshlq_n_u64(a.v, n), a.v, 64 - n)};
  }
  static RO_INLINE Vec2 broadcast(uint64_t word) { return {vdupq_n_u64(word)}; }

  static RO_INLINE Vec2 load(const uint8_t* const* in, int64_t offset) {
    return {vreinterpretq_u64_u8(vcombine_u8(vld1_u8(in[0] + offset), vld1_u8(in[1] + offset)))};
  }
  static RO_INLINE void load8(const uint8_t* const* in, int64_t offset, Vec2* w) {
    for (int i = 0; i < 8; i += 2) {
      const uint64x2_t a = vreinterpretq_u64_u8(vld1q_u8(in[0] + offset + 8 * i));
      const uint64x2_t b = vreinterpretq_u64_u8(vld1q_u8(in[1] + offset + 8 * i));
      w[i].v = vtrn1q_u64(a, b);
      w[i + 1].v = vtrn2q_u64(a, b);
    }
  }
  static RO_INLINE void store4(const Vec2* state, uint8_t* out) {
    for (int i = 0; i < 4; i += 2) {
      vst1q_u8(out + 8 * i, vreinterpretq_u8_u64(vtrn1q_u64(state[i].v, state[i + 1].v)));
      vst1q_u8(out + 32 + 8 * i, vreinterpretq_u8_u64(vtrn2q_u64(state[i].v, state[i + 1].v)));
    }
  }
};

constexpr Lanes kLanes = {"neon", Vec2::kWidth, sponge_tiles<Vec2>, sponge_pairs<Vec2>, sponge_states<Vec2>};

}  // namespace

const Lanes* lanes_neon() { return &kLanes; }

}  // namespace ro::hash

#else
namespace ro::hash {
const Lanes* lanes_neon() { return nullptr; }
}  // namespace ro::hash
#endif
