"""Floats in integers against the processor's (numpy), against exact fractions and against csrc/vm, in every bit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import cache
from itertools import product

import numpy as np
import pytest
from kernel_calls import BF16, F16, SPECIAL_F32, round_f32, rounded, widened
from machines import Both, node_of

from repops.dtypes import DType
from repops.vm import softfloat as sf
from repops.vm.isa import Instruction, Op

EXPONENTS = (0, 1, 2, 24, 103, 126, 127, 128, 150, 151, 190, 253, 254, 255)
FRACTIONS = (0, 1, 2, 0x3FFFFF, 0x400000, 0x400001, 0x7FFFFE, 0x7FFFFF)
MAKE = np.array([s << 31 | e << 23 | f for s, e, f in product((0, 1), EXPONENTS, FRACTIONS)], np.uint32)
Patterns = np.ndarray


@cache
def pairs() -> tuple[Patterns, Patterns]:
    """Structured, random, and random with exponents close to each other (cancellation, halfway cases)."""
    rng = np.random.default_rng(1)
    structured = np.array(list(product(MAKE[::3], MAKE[1::2])), np.uint32)
    special = np.array(list(product(SPECIAL_F32, SPECIAL_F32)), np.uint32)
    wild = rng.integers(2**32, size=(6_000, 2), dtype=np.uint32)
    near = rng.integers(2**32, size=(6_000, 2), dtype=np.uint32)
    exponent = rng.integers(1, 230, 6_000, dtype=np.uint32)
    for column in (0, 1):
        shifted = exponent + rng.integers(0, 25, 6_000, dtype=np.uint32)
        near[:, column] = near[:, column] & 0x807FFFFF | shifted << 23
    near[::2] &= np.uint32(0xFFFFF000)  # short fractions: sums that end halfway, products that are exact
    both = np.concatenate([structured, special, wild, near])
    return np.ascontiguousarray(both[:, 0]), np.ascontiguousarray(both[:, 1])


def canonical(x: Patterns) -> list[int]:
    """The patterns of an f32 array, NaN as RepVM writes it."""
    return np.where(np.isnan(x), np.uint32(sf.NAN), x.view(np.uint32)).tolist()


def floats(x: Patterns) -> Patterns:
    return x.view(np.float32)


def differing(operands: Iterable[tuple[int, ...]], got: list[int], want: list[int]) -> list[str]:
    return [
        f"{' '.join(f'{x:08x}' for x in o)}: {g:x}, not {w:x}"
        for o, g, w in zip(operands, got, want, strict=True)
        if g != w
    ][:5]


@pytest.mark.parametrize(
    ("ours", "numpys"),
    [(sf.add, np.add), (sf.sub, np.subtract), (sf.mul, np.multiply), (sf.div, np.divide)],
    ids=["add", "sub", "mul", "div"],
)
def test_arithmetic_is_the_processors(ours: Callable[[int, int], int], numpys: np.ufunc) -> None:
    a, b = pairs()
    with np.errstate(all="ignore"):
        want = canonical(numpys(floats(a), floats(b)))
    operands = list(zip(a.tolist(), b.tolist(), strict=True))
    assert not differing(operands, [ours(x, y) for x, y in operands], want)


def test_sqrt_is_the_processors() -> None:
    rng = np.random.default_rng(2)
    x = np.concatenate([MAKE, SPECIAL_F32, rng.integers(2**32, size=20_000, dtype=np.uint32)])
    with np.errstate(all="ignore"):
        want = canonical(np.sqrt(floats(x)))
    assert not differing([(v,) for v in x.tolist()], [sf.sqrt(v) for v in x.tolist()], want)


@pytest.mark.parametrize(
    ("ours", "numpys"), [(sf.eq, np.equal), (sf.lt, np.less), (sf.le, np.less_equal)], ids=["eq", "lt", "le"]
)
def test_compares_are_the_processors(ours: Callable[[int, int], bool], numpys: np.ufunc) -> None:
    a, b = pairs()
    with np.errstate(all="ignore"):
        want = numpys(floats(a), floats(b)).astype(int).tolist()
    operands = list(zip(a.tolist(), b.tolist(), strict=True))
    assert not differing(operands, [int(ours(x, y)) for x, y in operands], want)


@pytest.mark.parametrize(
    ("ours", "numpys", "zero"), [(sf.maximum, np.maximum, 0), (sf.minimum, np.minimum, sf.SIGN)], ids=["max", "min"]
)
def test_maximum_and_minimum(ours: Callable[[int, int], int], numpys: np.ufunc, zero: int) -> None:
    """numpy's, which leaves the sign of max(-0, +0) open."""
    a, b = pairs()
    with np.errstate(all="ignore"):
        want = canonical(numpys(floats(a), floats(b)))
    zeros = ((a | b) & 0x7FFFFFFF) == 0
    want = [
        w if not z else x if x == y else zero for w, z, x, y in zip(want, zeros, a.tolist(), b.tolist(), strict=True)
    ]
    operands = list(zip(a.tolist(), b.tolist(), strict=True))
    assert not differing(operands, [ours(x, y) for x, y in operands], want)


# ---- FMA -------------------------------------------------------------------------------------------------------


@cache
def triples() -> Patterns:
    """Pairs with a third: any, or about minus the product, so that most digits cancel."""
    rng = np.random.default_rng(3)
    a, b = (x[rng.permutation(len(x))[:9_000]] for x in pairs())
    with np.errstate(all="ignore"):
        c = (-(floats(a) * floats(b))).view(np.uint32) + rng.integers(-3, 4, 9_000).astype(np.uint32)
    c[::3] = rng.choice(MAKE, 3_000)
    c[1::9] ^= rng.integers(1, 2**32, 1_000, dtype=np.uint32)
    special = np.array(list(product(SPECIAL_F32[::2], SPECIAL_F32[1::2], SPECIAL_F32[::3])), np.uint32)
    return np.concatenate([np.stack([a, b, c], 1), special])


def test_fma_is_the_exact_value_rounded_once() -> None:
    """Finite numbers, by fractions. A zero of an exact cancellation is +0; zeros of zero products: the next test."""
    operands, want = [], []
    for bits in triples().tolist():
        a, b, c = (Fraction(float(x)) if np.isfinite(x) else None for x in floats(np.array(bits, np.uint32)))
        if a is not None and b is not None and c is not None and a * b != 0:
            operands.append(tuple(bits))
            want.append(int(_round(a * b + c)))
    assert len(operands) > 6_000
    assert not differing(operands, [sf.fma(*o) for o in operands], want)


def _round(x: Fraction) -> int:
    """`round_f32`, with the sign of a negative number that rounds to zero."""
    pattern = int(round_f32(x).view(np.uint32))
    return pattern | sf.SIGN if x < 0 else pattern


def test_fma_is_the_c_librarys() -> None:
    """Through csrc/vm: an image that loads three numbers and multiplies and adds."""
    bits = triples()
    words = [Instruction(Op.LOAD, 2 + k, 1, 0, k).encode() for k in range(3)]
    words += [Instruction(Op.FFMA, 5, 2, 3, 4).encode(), Instruction(Op.HALT, 5).encode()]
    node = node_of(DType.F32, (len(bits),), ((DType.F32, (len(bits),)),) * 3)
    fast = Both(words, node, [np.ascontiguousarray(bits[:, k]) for k in range(3)], 3).fast
    got = [sf.fma(*o) for o in bits.tolist()]
    assert not differing(map(tuple, bits.tolist()), got, [fast.run(i)[0] for i in range(len(bits))])


# ---- conversions -------------------------------------------------------------------------------------------------


def test_every_half_and_bfloat_widens_exactly() -> None:
    patterns = np.arange(2**16, dtype=np.uint32).astype(np.uint16)
    for ours, x in ((sf.widen_f16, patterns.view(np.float16)), (sf.widen_bf16, patterns)):
        wide = widened(x)
        want = np.where(np.isnan(wide), 0, wide.view(np.uint32)).tolist()
        got = [ours(h) for h in patterns.tolist()]
        assert not differing([(h,) for h in patterns.tolist()], [0 if sf.is_nan(g) else g for g in got], want)
    assert sf.widen_f16(0xFC01) == 0xFF802000 and sf.widen_bf16(0xFF81) == 0xFF810000  # a NaN keeps sign and payload


@pytest.mark.parametrize(("dtype", "ours"), [(BF16, sf.narrow_bf16), (F16, sf.narrow_f16)], ids=["bf16", "f16"])
def test_narrowing_rounds_once(dtype: DType, ours: Callable[[int], int]) -> None:
    """Every value of the narrow type, the middle to the next one, a little to either side, and anything."""
    rng = np.random.default_rng(4)
    narrow = rng.choice(2**16, 6_000).astype(np.uint16)
    wide = widened(narrow.view(dtype.numpy)).view(np.uint32)
    half = np.uint32(0x8000 if dtype is BF16 else 0x1000)
    x = np.concatenate([wide, wide + half, wide + half - 1, wide + half + 1, MAKE, SPECIAL_F32,
                        rng.integers(2**32, size=6_000, dtype=np.uint32),
                        rng.integers(2**32, size=6_000, dtype=np.uint32) & 0x8FFFFFFF | 0x30000000])  # fmt: skip
    want = rounded(floats(x), dtype).view(np.uint16).tolist()
    assert not differing([(v,) for v in x.tolist()], [ours(v) for v in x.tolist()], want)


def test_integers_to_floats_are_the_processors() -> None:
    rng = np.random.default_rng(5)
    powers = [s * (2**k + d) for s in (1, -1) for k in range(63) for d in (-1, 0, 1, 2 ** max(k - 24, 0))]
    x = np.array([*powers, 2**63 - 1, -(2**63)], np.int64)
    x = np.concatenate([x, rng.integers(-(2**63), 2**63 - 1, 8_000) >> rng.integers(0, 63, 8_000)])
    got = [sf.from_integer(i) for i in x.tolist()]
    assert not differing([(i % 2**64,) for i in x.tolist()], got, x.astype(np.float32).view(np.uint32).tolist())


def test_floats_to_integers_cut_and_saturate() -> None:
    rng = np.random.default_rng(6)
    x = np.concatenate([MAKE, SPECIAL_F32, rng.integers(2**32, size=20_000, dtype=np.uint32)])

    def expected(value: float) -> int:
        if np.isnan(value):
            return 0
        return max(-(2**63), min(2**63 - 1, int(np.clip(value, -1e30, 1e30))))

    want = [expected(v) for v in floats(x).tolist()]
    assert [sf.to_integer(v) for v in x.tolist()] == want
