"""The page docs/spec/functions.md, evaluated line by line with numpy, gives the kernels' bits: it can stand alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from repops.dtypes import DType
from repops.execute import execute_node
from repops.graph.ir import Input, Node, Ref

PAGE = Path(__file__).resolve().parents[2] / "docs" / "spec" / "functions.md"
Array = np.ndarray

# Functions of the page that are parts of an operator (d(op)/dx, times dy = 1).
SLOPES = {"gelu_erf_slope": "gelu_erf_grad", "gelu_tanh_slope": "gelu_tanh_grad"}


def fma(a: Array, b: Array, c: Array) -> Array:
    """Binary32 FMA by binary64: the product is exact, the sum is rounded to odd, then once to binary32."""
    p, c = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    s = p + c
    t = s - p
    rest = (p - (s - t)) + (c - t)  # what s lacks
    bits = s.view(np.int64)
    towards = np.where((rest > 0) == (s > 0), 1, -1)
    odd = np.where((rest != 0) & np.isfinite(s) & (bits & 1 == 0), bits + towards, bits)
    return odd.view(np.float64).astype(np.float32)


def bitwise(operation: Callable[..., Array]) -> Callable[..., Array]:
    return lambda *a: operation(*[x.view(np.uint32) for x in a]).astype(np.uint32).view(np.float32)


def integers(operation: Callable[..., Array]) -> Callable[..., Array]:
    return lambda *a: operation(*[x.view(np.int32) for x in a])


PRIMITIVES: dict[str, Callable[..., Array]] = {
    "ADD": np.add, "SUB": np.subtract, "MUL": np.multiply, "DIV": np.divide, "SQRT": np.sqrt, "FMA": fma,
    "NEG": bitwise(lambda a: a ^ np.uint32(0x80000000)), "ABS": bitwise(lambda a: a & np.uint32(0x7FFFFFFF)),
    "AND": bitwise(np.bitwise_and), "OR": bitwise(np.bitwise_or), "XOR": bitwise(np.bitwise_xor),
    "LT": np.less, "LE": np.less_equal, "GT": np.greater, "GE": np.greater_equal, "EQ": np.equal, "NE": np.not_equal,
    "ISNAN": np.isnan, "SEL": lambda m, a, b: np.where(m, a.view(np.uint32), b.view(np.uint32)).view(np.float32),
    "ISEL": lambda m, a, b: np.where(m, a.view(np.int32), b.view(np.int32)),
    "GREATER": lambda a, b: np.where(a > b, a, b), "LESS": lambda a, b: np.where(a < b, a, b),
    "MAND": np.logical_and, "MOR": np.logical_or, "MNOT": np.logical_not,
    "IADD": integers(np.add), "ISUB": integers(np.subtract), "IMUL": integers(np.multiply),
    "IAND": integers(np.bitwise_and), "IOR": integers(np.bitwise_or), "IXOR": integers(np.bitwise_xor),
    "IANDNOT": integers(lambda a, b: ~a & b), "IMIN": integers(np.minimum), "IMAX": integers(np.maximum),
    "ILT": integers(np.less), "IGT": integers(np.greater), "IEQ": integers(np.equal),
    "SHL": lambda a, n: (a.view(np.uint32) << n).view(np.int32), "SAR": lambda a, n: a.view(np.int32) >> n,
    "SHR": lambda a, n: (a.view(np.uint32) >> n).view(np.int32),
    "BITS": lambda a: a.view(np.int32), "FLOAT": lambda a: a.view(np.float32),
    "ITOF": lambda a: a.view(np.int32).astype(np.float32), "FTOI": lambda a: a.astype(np.int32),
}  # fmt: skip


TWO_OVER_PI = 0xA2F9836E4E441529FC2757D1F534DDC0DB6295993C439041FE5163AB  # 224 bits after the point


def turns(a: Array) -> tuple[Array, Array, Array]:
    """QUADRANT, TURNHIGH and TURNLOW in whole numbers of any size."""
    quadrants, highs, lows = np.zeros(a.shape, np.int32), np.zeros(a.shape, np.float32), np.zeros(a.shape, np.float32)
    for i in np.flatnonzero((a >= 2.0**18) & np.isfinite(a)):
        bits = int(a.view(np.uint32)[i])
        m, k = bits & 0x7FFFFF | 0x800000, (bits >> 23) - 150
        w = (TWO_OVER_PI << 94 + k >> 224) % 2**96
        v = (m * w >> 32) % 2**64
        q = (v + 2**61) >> 62
        rest = np.int64(v - (q << 62))
        quadrants[i] = q % 4
        highs[i] = np.float32(rest)
        lows[i] = np.float32(rest - np.int64(highs[i]))
    return quadrants, highs, lows


PRIMITIVES |= {name: lambda a, i=i: turns(a)[i] for i, name in enumerate(("QUADRANT", "TURNHIGH", "TURNLOW"))}


def listings() -> dict[str, tuple[list[str], list[tuple[str, str, list[str]]], str]]:
    """By name: arguments, lines (name, primitive, operands), result."""
    text = PAGE.read_text(encoding="utf-8").split("```")[1]
    found = {}
    for block in text.strip().split("\n\n"):
        head, *lines, last = block.splitlines()
        name, arguments = re.fullmatch(r"(\w+)\((.*)\)", head).groups()  # type: ignore[union-attr]
        parsed = []
        for line in lines:
            target, op, operands = re.fullmatch(r"    (\w+) = (\w+)\((.*)\)", line).groups()  # type: ignore[union-attr]
            parsed.append((target, op, operands.split(", ")))
        found[name] = (arguments.split(", "), parsed, last.removeprefix("    return "))
    return found


LISTINGS = listings()


def evaluate(name: str, *values: Array) -> Array:
    arguments, lines, result = LISTINGS[name]
    known: dict[str, Array] = dict(zip(arguments, values, strict=True))

    def operand(text: str) -> Array | int:
        if text in known:
            return known[text]
        if text.startswith("0x"):
            return np.full(values[0].shape, int(text, 16), np.uint32).view(np.float32)
        return np.uint32(text) if op in ("SHL", "SHR") else np.int32(text)

    with np.errstate(all="ignore"):
        for target, op, operands in lines:
            known[target] = PRIMITIVES[op](*[operand(text) for text in operands])
    return known[result]


def samples(seed: int) -> Array:
    """Patterns of all kinds: every exponent, specials, and the range where functions are not trivial."""
    rng = np.random.default_rng(seed)
    anywhere = rng.integers(0, 2**32, 60_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    near = (rng.standard_normal(60_000) * 8).astype(np.float32)
    special = np.array(
        [0, 0x80000000, 1, 0x80000001, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC12345, 0x3F800000, 0xBF800000,
         0x7F7FFFFF, 0xFF7FFFFF, 0x00800000, 0x007FFFFF], np.uint32,
    ).view(np.float32)  # fmt: skip
    return np.concatenate([special, anywhere, near])


@pytest.mark.parametrize("name", LISTINGS)
def test_the_page_gives_the_kernels_bits(name: str) -> None:
    arguments = LISTINGS[name][0]
    values = [samples(seed) for seed in range(len(arguments))]
    if len(values) > 1:
        values = [v[np.random.default_rng(9).permutation(len(v))] if i else v for i, v in enumerate(values)]
    operands = [np.ones_like(values[0]), *values] if name in SLOPES else values
    shape = (len(values[0]),)
    inputs = tuple(Input(Ref.batch(i), DType.F32, shape) for i in range(len(operands)))
    node = Node(SLOPES.get(name, name), (), (), inputs, DType.F32, shape)
    kernel = execute_node(node, operands).view(np.uint32)
    page = evaluate(name, *values).view(np.uint32)
    wrong = np.flatnonzero(kernel != page)
    assert not len(wrong), (
        f"{len(wrong)} differ, first at {values[0][wrong[0]]!r}: {kernel[wrong[0]]:#x}, {page[wrong[0]]:#x}"
    )
