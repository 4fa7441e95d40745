"""Fused row groups against their nodes, byte for byte."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_calls import F32, VECTOR_ISAS, Array, Case, f32_bits, finite, hostile

from repops import _kernels

ROWS = st.sampled_from([0, 1, 2, 5, 40])
LENGTHS = st.one_of(st.integers(1, 70), st.sampled_from([255, 256, 1023, 1024, 1025, 2100]))


def node(
    op: str, isa: str, inputs: Sequence[Array], shape: Sequence[int], params: Sequence[int] = (), *literals: float
) -> Array:
    return Case(op, inputs, F32, tuple(shape), params, [f32_bits(x) for x in literals]).array(isa)


def fused(
    group: str, isa: str, threads: int, inputs: Sequence[Array], shapes: Sequence[Sequence[int]], *literals: float
) -> list[Array]:
    outs = [np.empty(s, np.float32) for s in shapes]
    _kernels.run_fused(
        group, isa, threads, [], [f32_bits(x) for x in literals],
        [(a, int(F32), list(a.shape)) for a in inputs], [(a, int(F32), list(a.shape)) for a in outs],
    )  # fmt: skip
    return outs


def same(nodes: Sequence[Array], group: Sequence[Array]) -> bool:
    return [a.tobytes() for a in nodes] == [a.tobytes() for a in group]


@given(ROWS, LENGTHS, st.booleans(), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_layer_norm(rows: int, n: int, special: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    make = (lambda *s: hostile(rng, F32, s)) if special else (lambda *s: finite(rng, s))
    x, dy, w, b = make(rows, n), make(rows, n), make(n), make(n)
    count, last = np.full((1,), n, np.float32), [1, 1, 0, n]
    for isa in VECTOR_ISAS:
        mean = node("div", isa, [node("sum", isa, [x], (rows, 1), last), count], (rows, 1))
        ssq = node("sum_sq_centered", isa, [x, mean], (rows, 1), last)
        rstd = node("rstd", isa, [ssq], (rows, 1), (), n, 1e-5)
        out = node("layer_norm", isa, [x, mean, rstd, w, b], (rows, n))
        c1 = node("div", isa, [node("sum_mul", isa, [dy, w], (rows, 1), last), count], (rows, 1))
        dyw = node("mul", isa, [dy, w], (rows, n))
        c2 = node(
            "div", isa, [node("sum_mul_normalized", isa, [dyw, x, mean, rstd], (rows, 1), last), count], (rows, 1)
        )
        dx = node("layer_norm_grad", isa, [dy, x, mean, rstd, w, c1, c2], (rows, n))
        for threads in (1, 3):
            shapes = [(rows, n), (rows, 1), (rows, 1)]
            assert same([out, mean, rstd], fused("layer_norm_forward", isa, threads, [x, w, b], shapes, n, 1e-5))
            assert same([dx], fused("layer_norm_backward", isa, threads, [dy, x, mean, rstd, w], [(rows, n)], n))


@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
@given(ROWS, LENGTHS, st.booleans(), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_softmax(op: str, rows: int, n: int, special: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = hostile(rng, F32, (rows, n)) if special else finite(rng, (rows, n))
    for isa in VECTOR_ISAS:
        m = node("amax", isa, [x], (rows, 1), [1, 1, 0, n])
        s = node("sum_exp", isa, [x, m], (rows, 1), [1, 1, 0, n])
        out = node(op, isa, [x, m, s], (rows, n))
        for threads in (1, 3):
            shapes = [(rows, n), (rows, 1), (rows, 1)]
            assert same([out, m, s], fused(f"{op}_forward", isa, threads, [x], shapes))
