// The EVM's word: integers modulo 2^256 with its rules for shifts and signs. Enough for what scripts/solidity_to_cpp.py writes.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace evm {

typedef unsigned __int128 Half;

struct Word {
  Half lo = 0, hi = 0;

  constexpr Word() = default;
  constexpr Word(uint64_t x) : lo(x) {}
  constexpr Word(uint64_t w3, uint64_t w2, uint64_t w1, uint64_t w0) : lo((Half)w1 << 64 | w0), hi((Half)w3 << 64 | w2) {}
  constexpr Word(Half high, Half low, int) : lo(low), hi(high) {}
  explicit operator bool() const = delete;
  constexpr bool negative() const { return (hi >> 127) != 0; }
  constexpr bool small() const { return hi == 0 && lo >> 64 == 0; }
  constexpr uint64_t low() const { return (uint64_t)lo; }
};

inline Word words(Half hi, Half lo) { return Word(hi, lo, 0); }
inline bool operator==(Word a, Word b) { return a.lo == b.lo && a.hi == b.hi; }
inline bool operator!=(Word a, Word b) { return !(a == b); }
inline bool operator<(Word a, Word b) { return a.hi != b.hi ? a.hi < b.hi : a.lo < b.lo; }
inline bool operator>(Word a, Word b) { return b < a; }
inline bool operator<=(Word a, Word b) { return !(b < a); }
inline bool operator>=(Word a, Word b) { return !(a < b); }
inline bool signed_less(Word a, Word b) { return a.negative() != b.negative() ? a.negative() : a < b; }

inline Word operator&(Word a, Word b) { return words(a.hi & b.hi, a.lo & b.lo); }
inline Word operator|(Word a, Word b) { return words(a.hi | b.hi, a.lo | b.lo); }
inline Word operator^(Word a, Word b) { return words(a.hi ^ b.hi, a.lo ^ b.lo); }
inline Word operator~(Word a) { return words(~a.hi, ~a.lo); }
inline Word operator+(Word a, Word b) {
  const Half lo = a.lo + b.lo;
  return words(a.hi + b.hi + (lo < a.lo), lo);
}
inline Word operator-(Word a) { return ~a + Word(1); }
inline Word operator-(Word a, Word b) { return words(a.hi - b.hi - (a.lo < b.lo), a.lo - b.lo); }
inline Word operator*(Word a, Word b) {
  if (a.small() && b.small()) return words(0, (Half)a.low() * b.low());
  const Half a0 = (uint64_t)a.lo, a1 = a.lo >> 64, b0 = (uint64_t)b.lo, b1 = b.lo >> 64;
  const Half low = a0 * b0, left = a1 * b0, right = a0 * b1;
  const Half middle = (low >> 64) + (uint64_t)left + (uint64_t)right;
  return words(a.hi * b.lo + a.lo * b.hi + a1 * b1 + (left >> 64) + (right >> 64) + (middle >> 64), middle << 64 | (uint64_t)low);
}
// A shift by 256 or more leaves nothing.
inline Word operator<<(Word a, Word by) {
  if (by >= Word(256)) return Word();
  const unsigned n = (unsigned)by.lo;
  if (n >= 128) return words(a.lo << (n - 128), 0);
  return n == 0 ? a : words(a.hi << n | a.lo >> (128 - n), a.lo << n);
}
inline Word operator>>(Word a, Word by) {
  if (by >= Word(256)) return Word();
  const unsigned n = (unsigned)by.lo;
  if (n >= 128) return words(0, a.hi >> (n - 128));
  return n == 0 ? a : words(a.hi >> n, a.lo >> n | a.hi << (128 - n));
}

struct Quotient {
  Word quotient, remainder;
};
// Solidity reverts where the divisor is zero; the programs that are translated must not get there.
inline Quotient divide(Word a, Word b) {
  if (b == Word()) {
    std::fputs("division by zero\n", stderr);
    std::abort();
  }
  if (a.small() && b.small()) return {a.low() / b.low(), a.low() % b.low()};
  if (a.hi == 0 && b.hi == 0) return {words(0, a.lo / b.lo), words(0, a.lo % b.lo)};
  Quotient q;
  for (unsigned k = 256; k-- > 0;) {
    const bool carry = q.remainder.negative();
    q.remainder = q.remainder << Word(1) | (a >> Word(k) & Word(1));
    q.quotient = q.quotient << Word(1);
    if (carry || q.remainder >= b) {
      q.remainder = q.remainder - b;
      q.quotient = q.quotient | Word(1);
    }
  }
  return q;
}
inline Word operator/(Word a, Word b) { return divide(a, b).quotient; }
inline Word operator%(Word a, Word b) { return divide(a, b).remainder; }

// The low bits, as a two's complement integer of that width.
inline Word sign_extend(Word a, unsigned bits) {
  const Word mask = (Word(1) << Word(bits)) - Word(1), low = a & mask;
  return (a >> Word(bits - 1) & Word(1)) == Word() ? low : low | ~mask;
}

inline Word number(bool x) { return Word(x ? 1 : 0); }

// Instructions of inline assembly.
namespace op {
inline Word word(Word x) { return x; }
inline Word word(bool x) { return number(x); }
inline Word add_(Word a, Word b) { return a + b; }
inline Word sub_(Word a, Word b) { return a - b; }
inline Word mul_(Word a, Word b) { return a * b; }
inline Word and_(Word a, Word b) { return a & b; }
inline Word or_(Word a, Word b) { return a | b; }
inline Word xor_(Word a, Word b) { return a ^ b; }
inline Word not_(Word a) { return ~a; }
inline Word shl_(Word by, Word a) { return a << by; }
inline Word shr_(Word by, Word a) { return a >> by; }
inline Word lt_(Word a, Word b) { return number(a < b); }
inline Word gt_(Word a, Word b) { return number(b < a); }
inline Word slt_(Word a, Word b) { return number(signed_less(a, b)); }
inline Word sgt_(Word a, Word b) { return number(signed_less(b, a)); }
inline Word eq_(Word a, Word b) { return number(a == b); }
inline Word iszero_(Word a) { return number(a == Word()); }
// Byte i, from the highest.
inline Word byte_(Word i, Word a) { return i >= Word(32) ? Word() : a >> (Word(248) - Word(8) * i) & Word(255); }
}  // namespace op

}  // namespace evm
