"""Pooling: the bytes of the reference on every instruction set, what torch computes, captured steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_calls import BF16, F16, F32, I32, I64, VECTOR_ISAS, Array, Case, DType, finite, hostile
from torch import Tensor, nn

import repops
from repops import _kernels
from repops.errors import UnsupportedOperators
from repops.graph.ir import Input, Node, Ref
from repops.ops.rules import RuleViolation
from repops.ops.table import OPERATORS

FLOATS = st.sampled_from([F32, F32, BF16, F16])
MOST = settings(max_examples=80, deadline=None)
NAMES = ("max_pool", "max_pool_index", "max_pool_grad", "avg_pool", "avg_pool_grad")


@st.composite
def axes(draw: st.DrawFn, averages: bool = False) -> tuple[int, ...]:
    """size, output, taps, stride, pad, dilation of one axis that the rule admits."""
    size = draw(st.one_of(st.integers(1, 12), st.sampled_from([16, 33, 40])))
    if draw(st.integers(0, 4)) == 0:
        return size, draw(st.integers(1, 2 * size)), 0, 1, 0, 1
    taps, stride = draw(st.integers(1, 5)), draw(st.sampled_from([1, 1, 2, 2, 3, 4, 7]))
    pad, dilation = draw(st.integers(0, taps // 2)), 1 if averages else draw(st.sampled_from([1, 1, 2, 3]))
    return size, draw(st.integers(1, (size + pad - 1) // stride + 1)), taps, stride, pad, dilation


def _params(h: tuple[int, ...], w: tuple[int, ...], *last: int) -> list[int]:
    geometry = [x for i in (2, 3, 4) for x in (h[i], w[i])]
    return [*geometry, *(last or (h[5], w[5]))]


@MOST
@given(axes(), axes(), st.integers(0, 3), FLOATS, FLOATS, st.sampled_from([I64, I32]), st.integers(0, 2**32))
def test_max_pool(
    h: tuple[int, ...], w: tuple[int, ...], planes: int, dtype: DType, out: DType, places: DType, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    params = _params(h, w)
    x, y = (planes, h[0], w[0]), (planes, h[1], w[1])
    data = hostile(rng, dtype, x)
    Case("max_pool", [data], out, y, params).check()
    index = Case("max_pool_index", [data], I64, y, params).check()
    wild = np.where(rng.random(y) < 0.2, rng.choice(np.array([-1, h[0] * w[0], 2**31, 2**63 - 1, 0, 3]), y), index)
    Case("max_pool_grad", [hostile(rng, dtype, y), wild.astype(places.numpy)], out, x, params).check()


@MOST
@given(
    axes(True),
    axes(True),
    st.integers(0, 3),
    FLOATS,
    FLOATS,
    st.integers(0, 1),
    st.sampled_from([0, 0, 0, 3, -7]),
    st.integers(0, 2**32),
)
def test_avg_pool(
    h: tuple[int, ...], w: tuple[int, ...], planes: int, dtype: DType, out: DType, padding: int, divisor: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    params = _params(h, w, padding, divisor)
    x, y = (planes, h[0], w[0]), (planes, h[1], w[1])
    Case("avg_pool", [hostile(rng, dtype, x)], out, y, params).check()
    Case("avg_pool_grad", [hostile(rng, dtype, y)], out, x, params).check()


def test_large_planes_on_several_threads() -> None:
    rng = np.random.default_rng(1)
    x = hostile(rng, F32, (3, 70, 131))
    for op, last, dtype in (("max_pool", (1, 1), F32), ("max_pool_index", (1, 1), I64), ("avg_pool", (0, 0), F32)):
        case = Case(op, [x], dtype, (3, 35, 66), [3, 3, 2, 2, 1, 1, *last])
        assert len({case.run(isa, threads) for isa in [*VECTOR_ISAS, "scalar"] for threads in (1, 2, 5)}) == 1


def test_every_operator_has_vector_kernels_and_empty_tensors() -> None:
    for isa in VECTOR_ISAS:
        assert set(NAMES) <= set(_kernels.kernels(isa))
    for shape, out in (((0, 4, 4), (0, 2, 2)), ((2, 4, 4), (2, 0, 2))):
        x, y = np.zeros(shape, np.float32), np.zeros(out, np.float32)
        params = [2, 2, 2, 2, 0, 0, 1, 1]
        assert Case("max_pool", [x], F32, out, params).check().size == 0
        gradient = Case("max_pool_grad", [y, y.astype(np.int64)], F32, shape, params).check()
        assert not gradient.any() and not Case("avg_pool_grad", [y], F32, shape, [*params[:-1], 0]).check().any()


def test_a_window_without_a_position_and_the_order_of_maxima() -> None:
    x = np.array([[[5.0]]], np.float32)
    params = [1, 2, 1, 1, 0, 1, 1, 2]  # the taps are at -1 and 1
    assert Case("max_pool", [x], F32, (1, 1, 1), params).check() == -np.inf
    assert Case("max_pool_index", [x], I64, (1, 1, 1), params).check() == -1
    nan, inf = np.nan, np.inf
    rows = np.array([[1, nan, 2, nan, 7], [-0.0, 0.0, -0.0, -1, -1], [-inf] * 5, [3, 4, 4, 4, 1]], np.float32)
    params = [1, 5, 1, 5, 0, 0, 1, 1]
    found = Case("max_pool_index", [rows[None]], I64, (1, 4, 1), params).check().ravel()
    assert [int(i) % 5 for i in found] == [3, 0, 0, 1]
    values = Case("max_pool", [rows[None]], F32, (1, 4, 1), params).check().ravel()
    assert values.tobytes() == np.array([nan, 0.0, -inf, 4], np.float32).tobytes()


# What torch computes


@st.composite
def torch_pools(draw: st.DrawFn) -> tuple[tuple[int, ...], dict[str, Any]]:
    """A shape and kernel, stride, padding, ceil_mode that torch accepts."""
    size = (draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(4, 14)), draw(st.integers(4, 19)))
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    return size, {
        "kernel_size": kernel,
        "stride": (draw(st.integers(1, 3)), draw(st.integers(1, 5))),
        "padding": tuple(draw(st.integers(0, k // 2)) for k in kernel),
        "ceil_mode": draw(st.booleans()),
    }


def _as_torch(function: Callable[[Tensor], Tensor], shape: tuple[int, ...], seed: int) -> None:
    """Captures value and gradient of a function and compares with eager torch."""
    torch.manual_seed(seed)
    x = torch.randint(-4, 5, shape).float() + torch.randn(1)
    y = function(x)
    batch = {"x": x, "g": torch.randn_like(y)}

    def step(_: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, Tensor]:
        z = b["x"].clone().requires_grad_()
        out = function(z)
        return {"y": out.detach(), "dx": torch.autograd.grad(out, z, b["g"])[0]}

    program = repops.capture(step, {"y": torch.zeros_like(y), "dx": torch.zeros_like(x)}, batch)
    results = repops.Executor(program).run({"y": torch.zeros_like(y), "dx": torch.zeros_like(x)}, batch)
    for name, wanted in step({}, batch).items():
        np.testing.assert_allclose(results[name], wanted.numpy(), rtol=1e-5, atol=1e-6, err_msg=name)


def _planes(x: Tensor) -> Array:
    return np.ascontiguousarray(x.reshape(-1, *x.shape[2:]).numpy())


def _close(actual: Array, wanted: Tensor) -> None:
    np.testing.assert_allclose(actual, _planes(wanted), rtol=1e-5, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(torch_pools(), st.integers(1, 2), st.integers(0, 2**20))
def test_max_pool2d_is_torchs(pool: tuple[tuple[int, ...], dict[str, Any]], dilation: int, seed: int) -> None:
    shape, options = pool
    if any((k - 1) * dilation >= d for k, d in zip(options["kernel_size"], shape[2:], strict=True)):
        dilation = 1
    torch.manual_seed(seed)
    x = torch.randint(-4, 5, shape).float().requires_grad_()
    y, places = F.max_pool2d(x, dilation=dilation, return_indices=True, **options)
    dy = torch.randn_like(y)
    (dx,) = torch.autograd.grad(y, x, dy)
    params = [*options["kernel_size"], *options["stride"], *options["padding"], dilation, dilation]
    out, data = (shape[0] * shape[1], *y.shape[2:]), _planes(x.detach())
    assert np.array_equal(Case("max_pool", [data], F32, out, params).array(), _planes(y.detach()))
    index = Case("max_pool_index", [data], I64, out, params).array()
    assert np.array_equal(index, _planes(places))
    _close(Case("max_pool_grad", [_planes(dy), index], F32, data.shape, params).array(), dx)


@settings(max_examples=60, deadline=None)
@given(torch_pools(), st.booleans(), st.sampled_from([None, None, 5, -3]), st.integers(0, 2**20))
def test_avg_pool2d_is_torchs(
    pool: tuple[tuple[int, ...], dict[str, Any]], padding: bool, divisor: int | None, seed: int
) -> None:
    shape, options = pool
    torch.manual_seed(seed)
    x = torch.randn(shape).requires_grad_()
    y = F.avg_pool2d(x, count_include_pad=padding, divisor_override=divisor, **options)
    dy = torch.randn_like(y)
    params = [*options["kernel_size"], *options["stride"], *options["padding"], int(padding), divisor or 0]
    out, data = (shape[0] * shape[1], *y.shape[2:]), _planes(x.detach())
    _close(Case("avg_pool", [data], F32, out, params).array(), y.detach())
    _close(Case("avg_pool_grad", [_planes(dy)], F32, data.shape, params).array(), torch.autograd.grad(y, x, dy)[0])


POOLS: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "max 1d": (lambda x: F.max_pool1d(x, 3, 2, 1, ceil_mode=True), (2, 3, 14)),
    "avg 1d": (lambda x: F.avg_pool1d(x, 3, 2, 1, count_include_pad=False), (2, 3, 13)),
    "adaptive avg": (lambda x: F.adaptive_avg_pool2d(x, (3, 5)), (2, 3, 7, 4)),
    "adaptive avg of equal windows": (lambda x: F.adaptive_avg_pool2d(x, (3, 2)), (2, 3, 6, 8)),
    "adaptive avg to one": (lambda x: F.adaptive_avg_pool2d(x, 1), (2, 3, 6, 8)),
    "adaptive avg of a long plane": (lambda x: F.adaptive_avg_pool2d(x, 1), (1, 2, 150, 130)),
    "adaptive avg 1d": (lambda x: F.adaptive_avg_pool1d(x, 4), (2, 3, 9)),
    "adaptive avg along one axis": (lambda x: F.adaptive_avg_pool2d(x, (None, 3)), (2, 3, 5, 7)),
    "adaptive max": (lambda x: F.adaptive_max_pool2d(x, (3, 4)), (2, 3, 7, 10)),
    "adaptive max 1d": (lambda x: F.adaptive_max_pool1d(x, 4), (2, 3, 9)),
    "max with every option": (lambda x: F.max_pool2d(x, (3, 2), (2, 3), (1, 1), (2, 1), ceil_mode=True), (2, 3, 9, 8)),
    "avg with every option": (lambda x: F.avg_pool2d(x, (3, 2), 2, (1, 0), True, False), (2, 3, 8, 7)),
    "avg with a divisor": (lambda x: F.avg_pool2d(x, 3, 2, 1, divisor_override=4), (2, 3, 8, 7)),
    "of one image": (lambda x: F.max_pool2d(x, 2), (3, 6, 8)),
    "transposed": (lambda x: F.avg_pool2d(x.transpose(2, 3), 2), (2, 3, 6, 8)),
}


@pytest.mark.parametrize("name", POOLS)
def test_other_pools_are_torchs(name: str) -> None:
    _as_torch(*POOLS[name], 5)


def test_places_are_torchs_with_nan_and_ties() -> None:
    x = torch.from_numpy(hostile(np.random.default_rng(3), F32, (2, 4, 9, 11)))
    for options in ({"kernel_size": 3, "stride": 2, "padding": 1}, {"kernel_size": 2, "dilation": 3}):
        wanted, places = F.max_pool2d(x, return_indices=True, **options)  # type: ignore[arg-type]

        def step(_: dict[str, Tensor], b: dict[str, Tensor], options: dict[str, int] = options) -> dict[str, Tensor]:
            return dict(zip(("y", "i"), F.max_pool2d(b["x"], return_indices=True, **options), strict=True))  # type: ignore[arg-type]

        state = {"y": torch.zeros_like(wanted), "i": torch.zeros_like(places)}
        program = repops.capture(step, state, {"x": torch.randn(x.shape)})
        results = repops.Executor(program).run(state, {"x": x})
        np.testing.assert_array_equal(results["i"], places.numpy())
        np.testing.assert_array_equal(results["y"], wanted.numpy())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision(dtype: torch.dtype) -> None:
    def step(s: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, Tensor]:
        x = s["x"].clone().requires_grad_()
        y = F.avg_pool2d(F.max_pool2d(x, 2), 2) + F.adaptive_avg_pool2d(x, (2, 2))
        return {"x": x.detach() - torch.autograd.grad(y.float().square().sum(), x)[0] * 0.1}

    x = torch.randn(2, 3, 8, 8).to(dtype)
    program = repops.capture(step, {"x": x}, {})
    assert {n.dtype for n in program.nodes if n.op == "max_pool"} == {DType.of(dtype)}
    for isa in _kernels.isas():
        assert (
            repops.Executor(program, isa=isa).run({"x": x}, {})["x"].tobytes()
            == repops.Executor(program).run({"x": x}, {})["x"].tobytes()
        )


def test_a_step_through_pools() -> None:
    torch.manual_seed(2)
    module = nn.Sequential(
        nn.Linear(12, 12), nn.MaxPool2d(3, 2, 1), nn.Tanh(), nn.AvgPool2d(2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    step, state, make_batch = repops.lift(module, F.mse_loss, optimizer=repops.SGD(), schedule=repops.constant(0.1))
    batches = [make_batch(torch.randn(2, 3, 10, 12), torch.randn(2, 3), i) for i in range(3)]
    executor, values, eager = repops.Executor(repops.capture(step, state, batches[0])), state, state
    for batch in batches:
        values, eager = executor.run(values, batch), step(eager, batch)
    for slot in eager:
        np.testing.assert_allclose(values[slot], eager[slot].numpy(), rtol=1e-4, atol=1e-6, err_msg=slot)


# Rules

GOOD = ([3, 3, 2, 2, 1, 1, 1, 1], (2, 9, 9), (2, 5, 5))
BAD: dict[str, tuple[list[int], tuple[int, ...], tuple[int, ...], str]] = {
    "a pad of more than half the taps": ([3, 3, 2, 2, 2, 1, 1, 1], (2, 9, 9), (2, 5, 5), "half the taps"),
    "a window behind the end": ([3, 3, 2, 2, 1, 1, 1, 1], (2, 9, 9), (2, 6, 5), "begins before the end"),
    "no stride": ([3, 3, 0, 2, 1, 1, 1, 1], (2, 9, 9), (2, 5, 5), "At least 1"),
    "other planes": ([3, 3, 2, 2, 1, 1, 1, 1], (2, 9, 9), (3, 5, 5), "planes"),
    "too many terms": ([200, 200, 1, 1, 0, 0, 1, 1], (1, 300, 300), (1, 101, 101), "At most 16384"),
    "too many windows of a position": ([100, 100, 1, 1, 0, 0, 3, 3], (1, 900, 900), (1, 600, 600), "At most 16384"),
    "strides of adaptive windows": ([0, 0, 2, 1, 0, 0, 1, 1], (2, 9, 9), (2, 5, 5), "Both are 1"),
    "adaptive windows over nothing": ([0, 0, 1, 1, 0, 0, 1, 1], (2, 0, 9), (2, 5, 5), "cover"),
}


def _violation(params: list[int], x: tuple[int, ...], y: tuple[int, ...]) -> RuleViolation | None:
    node = Node("max_pool", tuple(params), (), (Input(Ref.batch(0), F32, x),), F32, y)
    try:
        OPERATORS["max_pool"].rule(node)
    except RuleViolation as violation:
        return violation
    return None


@pytest.mark.parametrize("name", BAD)
def test_what_the_rule_refuses(name: str) -> None:
    assert _violation(*GOOD) is None
    params, x, y, words = BAD[name]
    violation = _violation(params, x, y)
    assert violation is not None and words in violation.cure


def test_large_adaptive_windows_are_refused_with_a_reason() -> None:
    x = torch.randn(1, 1, 300, 300)
    with pytest.raises(UnsupportedOperators, match="a fold over"):
        repops.capture(
            lambda s, b: {"y": F.adaptive_avg_pool2d(b["x"], (1, 2))}, {"y": torch.zeros(1, 1, 1, 2)}, {"x": x}
        )


def _oracle(x: Array, params: list[int], out: tuple[int, ...]) -> Array:
    """avg_pool of one plane in plain Python, padding not counted."""
    kh, kw, sh, sw, ph, pw = params[:6]
    result = np.zeros(out, np.float32)
    for i, j in np.ndindex(*out):
        total, count = np.float32(0), 0
        for a, b in np.ndindex(kh, kw):
            r, c = i * sh - ph + a, j * sw - pw + b
            if 0 <= r < x.shape[0] and 0 <= c < x.shape[1]:
                total, count = total + x[r, c], count + 1
        result[i, j] = total / np.float32(count)
    return result


def test_averages_are_ascending_sums_over_the_count() -> None:
    x = finite(np.random.default_rng(8), (7, 9))
    params = [3, 4, 2, 2, 1, 2, 0, 0]
    assert Case("avg_pool", [x[None]], F32, (1, 4, 5), params).check().tobytes() == _oracle(x, params, (4, 5)).tobytes()


def windows(size: int, out: int, taps: int, stride: int, pad: int, dilation: int) -> list[list[int]]:
    """The positions of each window along one axis."""
    if taps == 0:
        return [list(range(o * size // out, -(-(o + 1) * size // out))) for o in range(out)]
    return [[p for t in range(taps) if 0 <= (p := o * stride - pad + t * dilation) < size] for o in range(out)]


def counted(size: int, out: int, taps: int, stride: int, pad: int, padding: int) -> list[int]:
    """How much of each window an average counts along one axis."""
    if taps == 0:
        return [len(w) for w in windows(size, out, taps, stride, pad, 1)]
    low, high = (-pad, size + pad) if padding else (0, size)
    return [sum(low <= o * stride - pad + t < high for t in range(taps)) for o in range(out)]


@pytest.mark.parametrize("seed", range(30))
def test_gradients_go_to_the_windows_in_order(seed: int) -> None:
    """Both gradients of one plane, in plain Python from the spec's text: windows ascending, row-major."""
    rng = np.random.default_rng(seed)

    def axis() -> tuple[int, int, int, int, int]:
        size, taps, stride = int(rng.integers(1, 9)), int(rng.integers(0, 5)), int(rng.integers(1, 4))
        if taps == 0:
            return size, int(rng.integers(1, 2 * size)), 0, 1, 0
        pad = int(rng.integers(0, taps // 2 + 1))
        return size, int(rng.integers(1, (size + pad - 1) // stride + 2)), taps, stride, pad

    (h, oh, kh, sh, ph), (w, ow, kw, sw, pw) = axis(), axis()
    dh, dw = (1 if k == 0 else int(rng.integers(1, 3)) for k in (kh, kw))
    dy = finite(rng, (1, oh, ow))
    params = [kh, kw, sh, sw, ph, pw]

    rows, columns = windows(h, oh, kh, sh, ph, dh), windows(w, ow, kw, sw, pw, dw)
    index = rng.integers(-1, h * w + 1, (1, oh, ow))
    expected = np.zeros((1, h, w), np.float32)
    for i, j in np.ndindex(oh, ow):  # for each position, its windows come in this order
        at = int(index[0, i, j])
        if 0 <= at < h * w and at // w in rows[i] and at % w in columns[j]:
            expected[0, at // w, at % w] += dy[0, i, j]
    got = Case("max_pool_grad", [dy, index], F32, (1, h, w), [*params, dh, dw]).check()
    assert got.tobytes() == expected.tobytes()

    padding, divisor = int(rng.integers(2)), int(rng.choice([0, 0, 3]))
    rows, columns = windows(h, oh, kh, sh, ph, 1), windows(w, ow, kw, sw, pw, 1)
    tall, wide = counted(h, oh, kh, sh, ph, padding), counted(w, ow, kw, sw, pw, padding)
    expected = np.zeros((1, h, w), np.float32)
    for i, j in np.ndindex(oh, ow):
        share = dy[0, i, j] / np.float32(divisor or tall[i] * wide[j])
        for r in rows[i]:
            for c in columns[j]:
                expected[0, r, c] += share
    got = Case("avg_pool_grad", [dy], F32, (1, h, w), [*params, padding, divisor]).check()
    assert got.tobytes() == expected.tobytes()
