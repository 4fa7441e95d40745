"""IEEE 754 binary32 on bit patterns, in integers: the floats of RepVM's readable interpreter (docs/spec/repvm.md).

A float is its pattern, an int in [0, 2^32). Round to nearest even, gradual underflow; an arithmetic result that is NaN
is NAN. Nothing here uses the processor's floating point, so it is an oracle for what does.
"""

from __future__ import annotations

from math import isqrt

NAN = 0x7FC00000
INF = 0x7F800000
SIGN = 0x80000000
_ONE_ULP = -149  # exponent of the unit of subnormal numbers
_I64_MAX = 2**63 - 1


def is_nan(a: int) -> bool:
    """Exponent all ones, fraction not zero."""
    return a & ~SIGN > INF


def add(a: int, b: int) -> int:
    """a + b."""
    return fma(a, 0x3F800000, b)  # 1 a is exact, and keeps the sign of zero


def sub(a: int, b: int) -> int:
    """a - b."""
    return NAN if is_nan(b) else add(a, b ^ SIGN)


def mul(a: int, b: int) -> int:
    """a b."""
    if _undefined_product(a, b):
        return NAN
    sign = (a ^ b) & SIGN
    if _is_inf(a) or _is_inf(b):
        return sign | INF
    (m, e), (n, f) = _parts(a), _parts(b)
    return _round(sign, m * n, e + f)


def fma(a: int, b: int, c: int) -> int:
    """a b + c with one rounding."""
    if is_nan(c) or _undefined_product(a, b):
        return NAN
    sign = (a ^ b) & SIGN
    if _is_inf(a) or _is_inf(b):
        return NAN if _is_inf(c) and c & SIGN != sign else sign | INF
    if _is_inf(c):
        return c
    (m, e), (n, f), (k, g) = _parts(a), _parts(b), _parts(c)
    unit = min(e + f, g)
    product, addend = m * n << (e + f - unit), k << (g - unit)
    total = (-product if sign else product) + (-addend if c & SIGN else addend)
    if total == 0:  # both zero, or an exact cancellation
        return sign & c if product == 0 else 0
    return _round(SIGN if total < 0 else 0, abs(total), unit)


def div(a: int, b: int) -> int:
    """a / b."""
    if is_nan(a) or is_nan(b):
        return NAN
    sign = (a ^ b) & SIGN
    if _is_inf(a):
        return NAN if _is_inf(b) else sign | INF
    (m, e), (n, f) = _parts(a), _parts(b)
    if _is_inf(b):
        return sign
    if n == 0:
        return NAN if m == 0 else sign | INF
    quotient, rest = divmod(m << 64, n)
    return _round(sign, quotient << 1 | (rest != 0), e - f - 65)


def sqrt(a: int) -> int:
    """The square root of a; -0 of -0, NaN below."""
    m, e = _parts(a) if not (is_nan(a) or _is_inf(a)) else (1, 0)
    if m == 0:
        return a
    if is_nan(a) or a & SIGN:
        return NAN
    if _is_inf(a):
        return a
    m, e = m << 64 + (e & 1), e - 64 - (e & 1)
    root = isqrt(m)
    return _round(0, root << 1 | (root * root != m), e // 2 - 1)


def maximum(a: int, b: int) -> int:
    """IEEE 754-2019 maximum: NaN if either is; -0 < +0."""
    if is_nan(a) or is_nan(b):
        return NAN
    return a if _key(a) > _key(b) else b


def minimum(a: int, b: int) -> int:
    """IEEE 754-2019 minimum: NaN if either is; -0 < +0."""
    if is_nan(a) or is_nan(b):
        return NAN
    return a if _key(a) < _key(b) else b


def eq(a: int, b: int) -> bool:
    """a == b; false with a NaN; -0 == +0."""
    return not is_nan(a) and not is_nan(b) and (a == b or (a | b) & ~SIGN == 0)


def lt(a: int, b: int) -> bool:
    """a < b; false with a NaN."""
    return not is_nan(a) and not is_nan(b) and not eq(a, b) and _key(a) < _key(b)


def le(a: int, b: int) -> bool:
    """a <= b; false with a NaN."""
    return lt(a, b) or eq(a, b)


def from_integer(i: int) -> int:
    """The integer i, rounded."""
    return _round(SIGN if i < 0 else 0, abs(i), 0)


def to_integer(a: int) -> int:
    """a toward zero, saturated to a signed 64-bit integer; NaN gives 0."""
    if is_nan(a):
        return 0
    negative = bool(a & SIGN)
    limit = 2**63 if negative else _I64_MAX
    m, e = (limit, 0) if _is_inf(a) else _parts(a)
    magnitude = min(m << e if e >= 0 else m >> -e, limit)
    return -magnitude if negative else magnitude


def widen_bf16(h: int) -> int:
    """The f32 pattern of a bf16 pattern, exactly."""
    return h << 16


def widen_f16(h: int) -> int:
    """The f32 pattern of an f16 pattern, exactly; the payload of a NaN moves up."""
    sign, exponent, fraction = (h & 0x8000) << 16, h >> 10 & 31, h & 0x3FF
    if exponent == 31:
        return sign | INF | fraction << 13
    return _round(sign, fraction, -24) if exponent == 0 else sign | exponent + 112 << 23 | fraction << 13


def narrow_bf16(a: int) -> int:
    """The bf16 pattern of a, rounded once; a NaN is 0x7FC0."""
    a = NAN if is_nan(a) else a
    return a + 0x7FFF + (a >> 16 & 1) >> 16


def narrow_f16(a: int) -> int:
    """The f16 pattern of a, rounded once; a NaN is 0x7E00."""
    if is_nan(a):
        return 0x7E00
    sign = a >> 16 & 0x8000
    if _is_inf(a):
        return sign | 0x7C00
    m, e = _parts(a)
    return sign | _rounded_magnitude(m, e, 11, -24, 0x7C00)


def canonical(a: int) -> int:
    """a, or NAN for any NaN."""
    return NAN if is_nan(a) else a


def _is_inf(a: int) -> bool:
    return a & ~SIGN == INF


def _undefined_product(a: int, b: int) -> bool:
    zero_times_inf = (_is_inf(a) and b & ~SIGN == 0) or (_is_inf(b) and a & ~SIGN == 0)
    return is_nan(a) or is_nan(b) or zero_times_inf


def _parts(a: int) -> tuple[int, int]:
    """m, e with |a| = m 2^e, for a finite a."""
    exponent, fraction = a >> 23 & 0xFF, a & 0x7FFFFF
    return (fraction, _ONE_ULP) if exponent == 0 else (fraction | 1 << 23, exponent - 150)


def _key(a: int) -> int:
    """Orders patterns as numbers, -0 below +0."""
    return -(a & ~SIGN) - 1 if a & SIGN else a


def _round(sign: int, m: int, e: int) -> int:
    """m 2^e, rounded to binary32. m is exact, or has more than 25 bits and is odd where something was cut off."""
    return sign | _rounded_magnitude(m, e, 24, _ONE_ULP, INF)


def _rounded_magnitude(m: int, e: int, precision: int, least: int, inf: int) -> int:
    """The pattern without sign of m 2^e in a format with `precision` bits and the smallest unit 2^least."""
    if m == 0:
        return 0
    unit = max(e + m.bit_length() - precision, least)
    shift = unit - e
    if shift <= 0:
        q = m << -shift
    else:
        q, rest = m >> shift, m & (1 << shift) - 1
        q += 2 * rest + (q & 1) > 1 << shift  # above the half, or at it and q odd
    # The leading bit of a normal q adds one to the exponent field; so does a carry out of rounding.
    return min((unit - least << precision - 1) + q, inf)
