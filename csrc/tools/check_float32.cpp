// contracts/libraries/Float32.sol, ported to C++ by scripts/solidity_to_cpp.py, against the processor's own floats (kernels/prim.h).
// scripts/check_float32.py builds and runs it.
//
//   check_float32 OPERATION random SEED COUNT       cases of random_case
//   check_float32 OPERATION every FIRST STEP        every STEP-th pattern of the one operand, from FIRST on
//   check_float32 OPERATION records SEED COUNT      writes such cases: a, b, c (4 bytes each), the processor's result (8), big-endian
//   check_float32 OPERATION vectors                 writes the cases of tests/vectors/float32.json in the same form
//
// The first two print one JSON object: cases, those that differ, and the first of them.
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>
#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "float32_port.h"
#include "kernels/prim.h"

namespace {

using evm::Word;

struct Case {
  uint32_t a = 0, b = 0, c = 0;
  float x() const { return ro::float_of(a); }
  float y() const { return ro::float_of(b); }
  float z() const { return ro::float_of(c); }
  int64_t integer() const { return (int64_t)((uint64_t)a << 32 | b); }
};

uint64_t pattern(float x) { return ro::bits_of(ro::canonical(x)); }

#if defined(__F16C__)
uint64_t widen_f16(uint16_t h) {
  const uint32_t x = ro::bits_of(_cvtsh_ss(h));
  return (h & 0x7FFF) > 0x7C00 ? (x & ~0x400000u) | (h & 0x200u) << 13 : x;  // the instruction quiets a NaN
}
uint64_t narrow_f16(float x) { return ro::is_nan(x) ? 0x7E00 : _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT); }
#else
uint64_t widen_f16(uint16_t h) { return ro::bits_of(ro::f16_to_f32(h)); }
uint64_t narrow_f16(float x) { return ro::f32_to_f16(x); }
#endif

struct Operation {
  const char* name;
  int operands;  // patterns that are read
  int bits;      // of the one operand, 0 if there are more
  uint64_t (*port)(const Case&);
  uint64_t (*processor)(const Case&);
};

#define PORT [](const Case& k) -> uint64_t
const Operation kOperations[] = {
    {"add", 2, 0, PORT { return port::add_(k.a, k.b).low(); }, PORT { return pattern(ro::add_rn(k.x(), k.y())); }},
    {"sub", 2, 0, PORT { return port::sub_(k.a, k.b).low(); }, PORT { return pattern(ro::sub_rn(k.x(), k.y())); }},
    {"mul", 2, 0, PORT { return port::mul_(k.a, k.b).low(); }, PORT { return pattern(ro::mul_rn(k.x(), k.y())); }},
    {"div", 2, 0, PORT { return port::div_(k.a, k.b).low(); }, PORT { return pattern(ro::div_rn(k.x(), k.y())); }},
    {"sqrt", 1, 32, PORT { return port::sqrt_(k.a).low(); }, PORT { return pattern(ro::sqrt_rn(k.x())); }},
    {"fma", 3, 0, PORT { return port::fma_(k.a, k.b, k.c).low(); }, PORT { return pattern(ro::fma_rn(k.x(), k.y(), k.z())); }},
    {"eq", 2, 0, PORT { return port::eq_(k.a, k.b); }, PORT { return k.x() == k.y(); }},
    {"lt", 2, 0, PORT { return port::lt_(k.a, k.b); }, PORT { return k.x() < k.y(); }},
    {"le", 2, 0, PORT { return port::le_(k.a, k.b); }, PORT { return k.x() <= k.y(); }},
    {"isNaN", 1, 32, PORT { return port::isNaN_(k.a); }, PORT { return k.x() != k.x(); }},
    {"maximum", 2, 0, PORT { return port::maximum_(k.a, k.b).low(); }, PORT { return pattern(ro::maximum_f32(k.x(), k.y())); }},
    {"minimum", 2, 0, PORT { return port::minimum_(k.a, k.b).low(); }, PORT { return pattern(ro::minimum_f32(k.x(), k.y())); }},
    {"fromInt64", 2, 0, PORT { return port::fromInt64_(evm::sign_extend((uint64_t)k.integer(), 64)).low(); },
     PORT { return pattern((float)k.integer()); }},
    {"toInt64", 1, 32, PORT { return port::toInt64_(k.a).low(); }, PORT { return (uint64_t)ro::f32_to_i64(k.x()); }},
    {"widenF16", 1, 16, PORT { return port::widenF16_(k.a & 0xFFFF).low(); }, PORT { return widen_f16((uint16_t)k.a); }},
    {"widenBF16", 1, 16, PORT { return port::widenBF16_(k.a & 0xFFFF).low(); }, PORT { return ro::bits_of(ro::bf16_to_f32((uint16_t)k.a)); }},
    {"narrowF16", 1, 32, PORT { return port::narrowF16_(k.a).low(); }, PORT { return narrow_f16(k.x()); }},
    {"narrowBF16", 1, 32, PORT { return port::narrowBF16_(k.a).low(); }, PORT { return ro::f32_to_bf16(k.x()); }},
};
#undef PORT

// ---- cases

// Zero, the ends of the subnormals and the normals, the neighbours of powers of two, infinity, NaNs; both signs are taken.
const uint32_t kSpecial[] = {0x00000000, 0x00000001, 0x00000002, 0x00400000, 0x007FFFFF, 0x00800000, 0x00800001, 0x33800000, 0x33FFFFFF,
                             0x3F000000, 0x3F7FFFFF, 0x3F800000, 0x3F800001, 0x40400000, 0x4B7FFFFF, 0x4B800000, 0x5F000000, 0x7F000000,
                             0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000, 0x7FD5AA01};
constexpr size_t kSpecials = sizeof kSpecial / sizeof *kSpecial;

struct Random {
  uint64_t state;
  uint64_t next() {  // splitmix64
    uint64_t z = state += 0x9E3779B97F4A7C15ull;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ z >> 27) * 0x94D049BB133111EBull;
    return z ^ z >> 31;
  }
  uint32_t below(uint32_t n) { return (uint32_t)((next() >> 32) * n >> 32); }
};

uint32_t special(Random& r) { return kSpecial[r.below(kSpecials)] | r.below(2) << 31; }

// A pattern of the wanted exponent field (cut to 0 .. 255), whose fraction is random, sparse, dense or a run of ones, perhaps one unit beside.
uint32_t shaped(Random& r, int exponent) {
  uint32_t fraction = 0;
  switch (r.below(5)) {
    case 0:
      fraction = (uint32_t)r.next();
      break;
    case 1:
      for (int i = (int)r.below(4); i > 0; --i) fraction |= 1u << r.below(23);
      break;
    case 2:
      for (int i = (int)r.below(4); i > 0; --i) fraction |= 1u << r.below(23);
      fraction = ~fraction;
      break;
    case 3:
      fraction = (1u << r.below(24)) - (1u << r.below(24));
      break;
    default:
      fraction = (uint32_t)r.next() << r.below(24);
  }
  fraction += r.below(4) == 0 ? r.below(3) - 1 : 0;
  exponent = exponent < 0 ? 0 : exponent > 255 ? 255 : exponent;
  return (uint32_t)(r.next() & 1) << 31 | (uint32_t)exponent << 23 | (fraction & 0x7FFFFFu);
}

int field(uint32_t a) { return (int)(a >> 23 & 255); }

// Operands that meet: sums that cancel or tie, products and quotients at the edges of the range, summands near minus the product.
Case random_case(const Operation& operation, Random& r) {
  Case k;
  if (std::strcmp(operation.name, "fromInt64") == 0) {
    uint64_t u = r.next() >> r.below(64);
    // As wide, but for 25 leading digits made of a tie, perhaps one beside.
    if (r.below(2) == 0 && u >> 25) {
      const int drop = 63 - __builtin_clzll(u) - 24;
      u = ((u >> drop | 1) << drop) + (r.below(3) - 1ull) * r.below(2);
    }
    if (r.below(2)) u = 0 - u;
    if (r.below(64) == 0) u = (1ull << 63) + r.below(3) - 1;
    return {(uint32_t)(u >> 32), (uint32_t)u, 0};
  }
  const uint32_t kind = r.below(16);
  if (kind == 0) return {special(r), special(r), special(r)};
  if (kind < 4) return {(uint32_t)r.next(), (uint32_t)r.next(), (uint32_t)r.next()};
  k.a = shaped(r, (int)r.below(256));
  const int ea = field(k.a);
  if (operation.operands == 3) {
    // A product anywhere or near the edges, and a summand beside it or at its rounding unit.
    const uint32_t where = r.below(4);
    const int product = where == 0 ? (int)r.below(40) - 30 : where == 1 ? 250 + (int)r.below(8) : (int)r.below(256);
    k.b = shaped(r, product - ea + 127);
    const float minus = ro::neg_f32(ro::mul_rn(k.x(), k.y()));
    if (kind < 8) k.c = ro::bits_of(minus) + r.below(5) - 2;
    else if (kind < 15) k.c = shaped(r, product + (int)r.below(kind < 12 ? 60 : 300) - (kind < 12 ? 30 : 150));
    else k.c = special(r);
    return k;
  }
  if (kind < 7) k.b = k.a + r.below(5) - 2;
  else if (kind < 10) k.b = shaped(r, ea + (int)r.below(56) - 28);
  else if (kind < 12) k.b = shaped(r, 127 - ea + (r.below(2) ? (int)r.below(40) - 30 : 120 + (int)r.below(16)));  // a b at the edges
  else if (kind < 14) k.b = shaped(r, ea - 127 + (r.below(2) ? 90 + (int)r.below(70) : (int)r.below(16) - 130 + 127));  // a / b
  else k.b = shaped(r, (int)r.below(256));
  if (kind & 1) k.b ^= 0x80000000u;
  // A dividend that is a product, so that quotients are exact or nearly so.
  if (kind == 14) k.a = ro::bits_of(ro::mul_rn(k.x(), k.y())) + r.below(3) - 1;
  if (r.below(32) == 0) (r.below(2) ? k.a : k.b) = special(r);
  return k;
}

// Every pair (for fma every triple of fewer) of these with both signs, or every special pattern alone; then random cases.
std::vector<Case> vectors(const Operation& operation) {
  const uint32_t magnitudes[] = {0x00000000, 0x3F800000, 0x7F7FFFFF, 0x00000001, 0x7F800000, 0x7FD5AA01, 0x3F7FFFFF,
                                 0x007FFFFF, 0x00800000, 0x33800000, 0x3F800001, 0x4B7FFFFF, 0x7F800001};
  std::vector<uint32_t> list;
  for (uint32_t m : magnitudes)
    for (uint32_t sign : {0u, 0x80000000u}) list.push_back(m | sign);
  std::vector<Case> cases;
  if (operation.operands == 3) {
    list.resize(10);
    for (uint32_t a : list)
      for (uint32_t b : list)
        for (uint32_t c : list) cases.push_back({a, b, c});
  } else if (operation.operands == 2 && std::strcmp(operation.name, "fromInt64") != 0) {
    for (uint32_t a : list)
      for (uint32_t b : list) cases.push_back({a, b, 0});
  } else if (operation.bits == 16) {
    for (uint32_t h : {0x0000u, 0x0001u, 0x03FFu, 0x0400u, 0x3C00u, 0x7BFFu, 0x7C00u, 0x7C01u, 0x7E00u, 0x7F80u, 0x7FC0u})
      for (uint32_t sign : {0u, 0x8000u}) cases.push_back({h | sign, 0, 0});
  } else if (operation.operands == 1) {
    for (uint32_t a : kSpecial)
      for (uint32_t sign : {0u, 0x80000000u}) cases.push_back({a | sign, 0, 0});
  } else {
    for (uint64_t u : {0ull, 1ull, 0xFFFFFFull, 0x1000001ull, 0x7FFFFFBFFFFFFFFFull, 0x7FFFFFC000000000ull, 0x7FFFFFFFFFFFFFFFull, 0x8000000000000000ull})
      for (uint64_t x : {u, 0 - u}) cases.push_back({(uint32_t)(x >> 32), (uint32_t)x, 0});
  }
  Random r{2026};
  const int random = operation.operands == 3 ? 1000 : 200;
  for (int i = 0; i < random; ++i) {
    Case k = random_case(operation, r);  // what an operation does not read is zero
    if (operation.operands < 3) k.c = 0;
    if (operation.operands < 2) k.b = 0;
    if (operation.bits == 16) k.a &= 0xFFFF;
    cases.push_back(k);
  }
  return cases;
}

// ---- output

void write(const Operation& operation, const Case& k) {
  const uint64_t words[] = {(uint64_t)k.a << 32 | k.b, k.c, operation.processor(k)};
  unsigned char bytes[20];
  for (int i = 0; i < 8; ++i) bytes[i] = (unsigned char)(words[0] >> (56 - 8 * i));
  for (int i = 0; i < 4; ++i) bytes[8 + i] = (unsigned char)(words[1] >> (24 - 8 * i));
  for (int i = 0; i < 8; ++i) bytes[12 + i] = (unsigned char)(words[2] >> (56 - 8 * i));
  std::fwrite(bytes, 1, sizeof bytes, stdout);
}

struct Tally {
  uint64_t cases = 0, wrong = 0;
  Case first;
  void check(const Operation& operation, const Case& k) {
    ++cases;
    if (operation.port(k) != operation.processor(k) && wrong++ == 0) first = k;
  }
};

}  // namespace

int main(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "", mode = argc > 2 ? argv[2] : "";
  const uint64_t first = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 0, count = argc > 4 ? std::strtoull(argv[4], nullptr, 10) : 0;
  for (const Operation& operation : kOperations) {
    if (name != operation.name) continue;
    Random r{first};
    Tally tally;
    if (mode == "vectors") {
      for (const Case& k : vectors(operation)) write(operation, k);
      return 0;
    }
    if (mode == "records") {
      for (uint64_t i = 0; i < count; ++i) write(operation, random_case(operation, r));
      return 0;
    }
    if (mode == "random") {
      for (uint64_t i = 0; i < count; ++i) tally.check(operation, random_case(operation, r));
    } else if (mode == "every" && operation.bits > 0 && count > 0) {
      for (uint64_t a = first; a < 1ull << operation.bits; a += count) tally.check(operation, {(uint32_t)a, 0, 0});
    } else {
      break;
    }
    const Case& k = tally.first;
    std::printf("{\"operation\": \"%s\", \"cases\": %" PRIu64 ", \"wrong\": %" PRIu64, operation.name, tally.cases, tally.wrong);
    if (tally.wrong > 0) {
      std::printf(", \"first\": \"%08x %08x %08x: %" PRIx64 ", not %" PRIx64 "\"", k.a, k.b, k.c, operation.port(k), operation.processor(k));
    }
    std::printf("}\n");
    return 0;
  }
  std::fprintf(stderr, "check_float32: see the head of csrc/tools/check_float32.cpp\n");
  return 2;
}
