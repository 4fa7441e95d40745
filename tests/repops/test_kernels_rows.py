"""Fused row groups against their nodes, byte for byte."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_calls import F32, VECTOR_ISAS, Array, Case, f32_bits, finite, hostile
from torch import Tensor

import repops
from repops import _kernels
from repops.execute import fused_kernels
from repops.plan import Compiler

ROWS = st.sampled_from([0, 1, 2, 5, 40, 70])
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
        dw = node("sum_mul_normalized", isa, [dy, x, mean, rstd], (1, n), [1, 0, 0, rows])
        db = node("sum", isa, [dy], (1, n), [1, 0, 0, rows])
        for threads in (1, 3):
            shapes = [(rows, n), (rows, 1), (rows, 1)]
            assert same([out, mean, rstd], fused("layer_norm_forward", isa, threads, [x, w, b], shapes, n, 1e-5))
            inputs = [dy, x, mean, rstd, w]
            assert same([dx], fused("layer_norm_backward", isa, threads, inputs, [(rows, n)], n))
            assert same(
                [dx, dw, db], fused("layer_norm_backward", isa, threads, inputs, [(rows, n), (1, n), (1, n)], n)
            )


@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
@given(ROWS, LENGTHS, st.booleans(), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_softmax(op: str, rows: int, n: int, special: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    make = (lambda: hostile(rng, F32, (rows, n))) if special else (lambda: finite(rng, (rows, n)))
    x, dy = make(), make()
    for isa in VECTOR_ISAS:
        m = node("amax", isa, [x], (rows, 1), [1, 1, 0, n])
        s = node("sum_exp", isa, [x, m], (rows, 1), [1, 1, 0, n])
        out = node(op, isa, [x, m, s], (rows, n))
        if op == "softmax":
            t = node("sum_mul", isa, [dy, out], (rows, 1), [1, 1, 0, n])
            dx = node("mul", isa, [node("sub", isa, [dy, t], (rows, n)), out], (rows, n))
        else:
            t = node("sum", isa, [dy], (rows, 1), [1, 1, 0, n])
            p = node("mul", isa, [node("exp", isa, [out], (rows, n)), t], (rows, n))
            dx = node("sub", isa, [dy, p], (rows, n))
        for threads in (1, 3):
            shapes = [(rows, n), (rows, 1), (rows, 1)]
            assert same([out, m, s], fused(f"{op}_forward", isa, threads, [x], shapes))
            assert same([dx], fused(f"{op}_backward", isa, threads, [dy, out], [(rows, n)]))


@pytest.mark.parametrize(("rows", "n"), [(1100, 30), (2050, 129), (1023, 200)])
def test_column_sums_of_many_rows(rows: int, n: int) -> None:
    rng = np.random.default_rng(rows)
    dy, x, mean, rstd, w = (finite(rng, s) for s in ((rows, n), (rows, n), (rows, 1), (rows, 1), (n,)))
    dy[:, 0], x[:, 1] = -0.0, np.inf
    for isa in VECTOR_ISAS:
        dw = node("sum_mul_normalized", isa, [dy, x, mean, rstd], (1, n), [1, 0, 0, rows])
        db = node("sum", isa, [dy], (1, n), [1, 0, 0, rows])
        for threads in (1, 3, 40):
            shapes = [(rows, n), (1, n), (1, n)]
            _, *sums = fused("layer_norm_backward", isa, threads, [dy, x, mean, rstd, w], shapes, n)
            assert same([dw, db], sums)


def softmax_gradient(x: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(x.softmax(-1), x, dy)


def log_softmax_gradient(x: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(x.log_softmax(-1), x, dy)


def layer_norm_gradients(x: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
    x, w, b = (t.detach().requires_grad_() for t in (x, x[0] + 1, x[1]))
    out = F.layer_norm(x, w.shape, w, b)
    return out.detach(), *torch.autograd.grad(out, (x, w, b), dy)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 50), (2, 33000), (33000, 2)])
@pytest.mark.parametrize(
    ("function", "groups"),
    [
        (softmax_gradient, {"softmax_forward", "softmax_backward"}),
        (log_softmax_gradient, {"log_softmax_forward", "log_softmax_backward"}),
        (layer_norm_gradients, {"layer_norm_forward", "layer_norm_backward"}),
    ],
)
def test_groups_of_several_links(
    function: Callable[..., tuple[Tensor, ...]], groups: set[str], shape: tuple[int, int], dtype: torch.dtype
) -> None:
    """A fold of more than 16,384 terms is several nodes, its last one in bf16 perhaps; a group takes them all."""
    torch.manual_seed(1)
    batch = {"x": torch.randn(shape).to(dtype), "dy": torch.randn(shape).to(dtype)}
    state = {f"out{i}": torch.zeros_like(o) for i, o in enumerate(function(**batch))}
    program = repops.capture(lambda _, b: dict(zip(state, function(**b), strict=True)), state, batch, check=False)
    calls = Compiler(program, fused_kernels(None)).calls
    if dtype is torch.float32:
        assert {call[0] for call in calls} - {"fill", "add", "slice", "chain"} == groups
    expected = repops.Executor(program, isa="scalar").run(state, batch)
    for isa, threads, fuse in product(VECTOR_ISAS, (1, 3), (True, False)):
        out = repops.Executor(program, threads, isa, fuse=fuse).run(state, batch)
        assert all(out[name].tobytes() == expected[name].tobytes() for name in state), (isa, threads, fuse)
