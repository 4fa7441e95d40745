"""Pointwise kernels: every instruction set, broadcast, alignment and thread count gives the bytes of the reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_calls import BOOL, F32, I64, NAN_BITS, VECTOR_ISAS, Array, Case, DType, f32_bits, finite, hostile

from repops import _kernels
from repops.ops.table import OPERATORS

Signature = tuple[tuple[DType, ...], DType]

UNARY = ["sqrt", "rsqrt", "exp", "log", "tanh", "sigmoid", "erf", "gelu_erf", "gelu_tanh", "silu", "relu"]
GRADIENTS = ["relu_grad", "tanh_grad", "sigmoid_grad", "silu_grad", "gelu_erf_grad", "gelu_tanh_grad"]
COMPARES = ["eq", "ne", "lt", "le", "gt", "ge"]

SIGNATURES: list[tuple[str, Signature]] = [
    *[(op, ((t, t), t)) for op in ("add", "sub", "mul", "maximum", "minimum") for t in (F32, I64)],
    *[(op, ((t,), t)) for op in ("neg", "abs") for t in (F32, I64)],
    ("div", ((F32, F32), F32)),
    *[(op, ((F32,), F32)) for op in UNARY],
    *[(op, ((F32, F32), F32)) for op in GRADIENTS],
    *[(op, ((t, t), BOOL)) for op in COMPARES for t in (F32, I64)],
    *[(op, ((BOOL, BOOL), BOOL)) for op in ("logical_and", "logical_or", "logical_xor")],
    ("logical_not", ((BOOL,), BOOL)),
    *[("where", ((BOOL, t, t), t)) for t in (F32, I64, BOOL)],
    *[("cast", ((a,), b)) for a in (F32, I64, BOOL) for b in (F32, I64, BOOL)],
    ("rstd", ((F32,), F32)),
    *[(op, ((F32,) * n, F32)) for op, n in (("softmax", 3), ("log_softmax", 3), ("normalize", 3), ("layer_norm", 5))],
    ("layer_norm_grad", ((F32,) * 7, F32)),
]
IDS = [f"{op}-{'_'.join(t.text for t in types)}-{out.text}" for op, (types, out) in SIGNATURES]


def literals(op: str) -> list[int]:
    return [f32_bits(768.0), f32_bits(1e-5)] if op == "rstd" else []


@st.composite
def broadcasts(draw: st.DrawFn, inputs: int) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """An output shape and shapes that broadcast to it."""
    rank = draw(st.integers(0, 4))
    length = st.one_of(st.integers(1, 5), st.sampled_from([1, 15, 17, 33, 64, 70, 129]))
    out: list[int] = []
    for _ in range(rank):
        d = draw(length)
        out.append(d if int(np.prod(out, dtype=np.int64)) * d <= 5000 else 1)
    if out and draw(st.integers(0, 30)) == 0:
        out[draw(st.integers(0, rank - 1))] = 0
    shapes = [tuple(out)]
    for _ in range(inputs - 1):
        kept = [d if draw(st.booleans()) else 1 for d in out]
        drop = draw(st.integers(0, rank))
        while drop and any(d != 1 for d in kept[:drop]):
            drop -= 1
        shapes.append(tuple(kept[drop:]))
    order = draw(st.permutations(range(inputs)))
    return tuple(out), [shapes[i] for i in order]


@pytest.mark.parametrize(("op", "signature"), SIGNATURES, ids=IDS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_bytes_of_the_reference(op: str, signature: Signature, data: st.DataObject) -> None:
    types, out_type = signature
    shape, shapes = data.draw(broadcasts(len(types)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    inputs = [hostile(rng, t, s) for t, s in zip(types, shapes, strict=True)]
    case = Case(op, inputs, out_type, shape, literals=literals(op))
    out = case.check(threads=(1, 2), offsets=(0, 1))
    if out_type is F32 and op not in ("where", "cast", "relu_grad"):
        bits = out.view(np.uint32)
        assert np.all(bits[np.isnan(out)] == NAN_BITS)
    if out_type is BOOL and op not in ("where", "cast"):
        assert np.all(out.view(np.uint8) <= 1)


@pytest.mark.parametrize(("op", "signature"), SIGNATURES, ids=IDS)
def test_large_tensors_on_several_threads(op: str, signature: Signature) -> None:
    types, out_type = signature
    rng = np.random.default_rng(7)
    shapes: Sequence[tuple[int, ...]] = [(70, 517), (517,), (70, 1), (1,), (70, 517), (1, 1), (70, 517)]
    inputs = [hostile(rng, t, s) for t, s in zip(types, shapes, strict=False)]
    case = Case(op, inputs, out_type, (70, 517), literals=literals(op))
    expected = case.run("avx2" if "avx2" in VECTOR_ISAS else None)
    for isa in VECTOR_ISAS:
        for threads in (2, 3, 5):
            assert case.run(isa, threads) == expected
    for index in rng.integers(0, 70 * 517, 40):
        size = out_type.itemsize
        assert int.from_bytes(expected[index * size : (index + 1) * size], "little") == case.element(int(index))


@pytest.mark.parametrize("isa", VECTOR_ISAS)
def test_in_place_gives_the_same_bytes(isa: str) -> None:
    rng = np.random.default_rng(3)
    for op, (types, out_type) in SIGNATURES:
        assert OPERATORS[op].in_place
        for aliased in range(len(types)):
            if types[aliased] is not out_type:
                continue
            for shape, other in (((9, 200), (200,)), ((40, 7), (40, 1)), ((1030,), (1,))):
                inputs = [hostile(rng, t, shape if i == aliased else other) for i, t in enumerate(types)]
                expected = Case(op, inputs, out_type, shape, literals=literals(op)).run("scalar")
                args = [(a.view(np.uint8), int(DType.of(a.dtype)), list(a.shape)) for a in inputs]
                memory = inputs[aliased].view(np.uint8)
                _kernels.run(op, isa, 2, [], literals(op), args, (memory, int(out_type), list(shape)))
                assert memory.tobytes() == expected, (op, aliased, shape)


@pytest.mark.parametrize("isa", _kernels.isas())
def test_a_caller_that_flushes_subnormals_changes_nothing(isa: str) -> None:
    x = np.full(70_000, 3e-39, dtype=np.float32)
    half = np.full(70_000, 0.5, dtype=np.float32)
    expected = np.full(70_000, 1.5e-39, dtype=np.float32).tobytes()
    assert torch.set_flush_denormal(True)
    try:
        got = [Case("mul", [x, half], F32, x.shape).run(isa, threads) for threads in (1, 4)]
        flushed = float((torch.full((1,), 3e-39) * 0.5).item())
    finally:
        torch.set_flush_denormal(False)
    assert got == [expected, expected]
    assert flushed == 0.0, "the negative control: torch itself flushes"


def test_the_table_and_this_test_name_the_same_pointwise_operators() -> None:
    tested = {op for op, _ in SIGNATURES}
    assert tested <= set(OPERATORS)
    for isa in VECTOR_ISAS:
        assert tested <= set(_kernels.kernels(isa))


# What the definitions mean, by numpy.
def test_arithmetic_is_ieee() -> None:
    rng = np.random.default_rng(11)
    a, b = finite(rng, (300,)), finite(rng, (300,))

    def run(op: str, *inputs: Array, dtype: DType = F32) -> Array:
        return Case(op, list(inputs), dtype, inputs[0].shape).array()

    assert np.array_equal(run("add", a, b), a + b)
    assert np.array_equal(run("sub", a, b), a - b)
    assert np.array_equal(run("mul", a, b), a * b)
    assert np.array_equal(run("div", a, b), a / b)
    assert np.array_equal(run("sqrt", np.abs(a)), np.sqrt(np.abs(a)))
    assert np.array_equal(run("rsqrt", np.abs(a)), np.float32(1) / np.sqrt(np.abs(a)))
    assert np.array_equal(run("relu", a), np.maximum(a, 0))
    assert np.array_equal(run("tanh_grad", a, b), a * (1 - b.astype(np.float64) * b).astype(np.float32))
    assert np.array_equal(run("sigmoid_grad", a, b), a * (b * (1 - b)))
    for op, compare in (("eq", np.equal), ("lt", np.less), ("ge", np.greater_equal)):
        assert np.array_equal(run(op, a, b, dtype=BOOL), compare(a, b))


def words(*values: float) -> Array:
    return np.array(values, dtype=np.float32)


def test_the_fine_print() -> None:
    """NaN, signed zeros, saturation, wrap and division by zero as the table of primitives says."""
    nan, inf = float("nan"), float("inf")

    def bits(op: str, *inputs: Array, dtype: DType = F32) -> list[int]:
        out = Case(op, list(inputs), dtype, inputs[0].shape).array()
        return [int(v) for v in (out.view(np.uint32) if dtype is F32 else out)]

    assert bits("maximum", words(0.0, -0.0, nan, 1.0), words(-0.0, -0.0, 1.0, nan)) == [0, 2**31, NAN_BITS, NAN_BITS]
    assert bits("minimum", words(0.0, 0.0, nan, 1.0), words(-0.0, 0.0, 1.0, nan)) == [2**31, 0, NAN_BITS, NAN_BITS]
    assert bits("relu", words(-0.0, -1.0, nan)) == [0, 0, NAN_BITS]
    assert bits("ne", words(nan, 0.0), words(nan, -0.0), dtype=BOOL) == [1, 0]
    assert bits("eq", words(nan, 0.0), words(nan, -0.0), dtype=BOOL) == [0, 1]
    assert bits("neg", words(nan)) == [NAN_BITS]
    big = words(9.3e18, -9.3e18, nan, -1.9, 1.9, inf, -inf)
    assert bits("cast", big, dtype=I64) == [2**63 - 1, -(2**63), 0, -1, 1, 2**63 - 1, -(2**63)]
    assert bits("cast", words(nan, 0.0, -0.0, 1e-45), dtype=BOOL) == [1, 0, 0, 1]
    lowest = np.array([-(2**63)], dtype=np.int64)
    assert bits("neg", lowest, dtype=I64) == bits("abs", lowest, dtype=I64) == [-(2**63)]
    assert bits("add", lowest, lowest, dtype=I64) == [0]
    payload = np.array([0x7F800001, 0xFFFFFFFF], dtype=np.uint32).view(np.float32)
    assert bits("relu_grad", payload, words(1.0, nan)) == [0x7F800001, 0xFFFFFFFF]
    assert bits("where", np.array([True, False]), payload, payload) == [0x7F800001, 0xFFFFFFFF]


def test_bools_are_read_as_not_zero_and_written_as_one() -> None:
    """What computes a bool writes 0 or 1; what copies one copies its byte."""
    a, b = (hostile(np.random.default_rng(seed), BOOL, (500,)) for seed in (1, 2))
    x, y = (v.view(np.uint8) != 0 for v in (a, b))
    for op, inputs, expected in (
        ("logical_and", [a, b], x & y),
        ("logical_or", [a, b], x | y),
        ("logical_xor", [a, b], x ^ y),
        ("logical_not", [a], ~x),
    ):
        out = Case(op, inputs, BOOL, (500,)).check()
        assert out.view(np.uint8).tolist() == expected.astype(np.uint8).tolist()
    as_numbers = Case("cast", [a], I64, (500,)).check()
    assert as_numbers.tolist() == x.astype(int).tolist()
    assert int(a.view(np.uint8).max()) > 1
    assert Case("cast", [a], BOOL, (500,)).check().tobytes() == a.tobytes()
    chosen = Case("where", [b, a, b], BOOL, (500,)).check()
    assert chosen.tobytes() == np.where(y, a.view(np.uint8), b.view(np.uint8)).tobytes()
