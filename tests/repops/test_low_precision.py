"""bf16, f16 and i32: every operator is its f32 (or i64) definition on exactly widened inputs, rounded once."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_calls import (
    BF16,
    BOOL,
    F16,
    F32,
    I32,
    I64,
    VECTOR_ISAS,
    Array,
    Case,
    DType,
    f32_bits,
    finite,
    hostile,
    rounded,
    widened,
)  # fmt: skip

FLOATS = [F32, BF16, F16]
ALL = [F32, BF16, F16, I64, I32, BOOL]
LOW = [BF16, F16]
PATTERNS = np.arange(2**16, dtype=np.uint16)

UNARY = ["neg", "abs", "sqrt", "rsqrt", "exp", "log", "tanh", "sigmoid", "erf", "gelu_erf", "gelu_tanh", "silu", "relu"]
POINTWISE = {
    **dict.fromkeys(("add", "sub", "mul", "div", "maximum", "minimum"), 2),
    **dict.fromkeys(("relu_grad", "tanh_grad", "sigmoid_grad", "silu_grad", "gelu_erf_grad", "gelu_tanh_grad"), 2),
    **dict.fromkeys(UNARY, 1),
    **{"rstd": 1, "softmax": 3, "log_softmax": 3, "normalize": 3, "layer_norm": 5, "layer_norm_grad": 7},
}
COMPARES = ["eq", "ne", "lt", "le", "gt", "ge"]


def low(
    op: str,
    inputs: Sequence[Array],
    dtype: DType,
    shape: tuple[int, ...],
    params: Sequence[int] = (),
    literals: Sequence[int] = (),
    threads: Sequence[int] = (1, 3),
) -> Array:
    """Checks one call of low dtypes on every instruction set against the f32 call on widened inputs."""
    plain = [widened(a) if DType.of(a.dtype).is_float else a for a in inputs]
    wide = Case(op, plain, F32 if dtype.is_float else dtype, shape, params, literals).array()
    out = Case(op, inputs, dtype, shape, params, literals).check(threads=threads)
    expected = rounded(wide, dtype) if dtype.is_float else wide
    assert out.tobytes() == np.ascontiguousarray(expected).tobytes(), (op, [a.dtype for a in inputs], dtype)
    return out


def floats(count: int) -> st.SearchStrategy[list[DType]]:
    return st.lists(st.sampled_from(FLOATS), min_size=count, max_size=count)


@pytest.mark.parametrize("dtype", LOW)
def test_all_patterns_widen_exactly_and_come_back(dtype: DType) -> None:
    x = PATTERNS.view(dtype.numpy)
    wide = Case("cast", [x], F32, x.shape).check()
    torch_dtype = torch.bfloat16 if dtype is BF16 else torch.float16
    expected = torch.from_numpy(PATTERNS.view(np.int16)).view(torch_dtype).float().numpy()
    nan = np.isnan(expected)
    assert np.array_equal(wide.view(np.uint32)[~nan], expected.view(np.uint32)[~nan])
    assert np.all(wide.view(np.uint32)[nan] == 0x7FC00000)
    back = Case("cast", [wide], dtype, x.shape).check().view(np.uint16)
    assert np.array_equal(back[~nan], PATTERNS[~nan])
    assert np.all(back[nan] == (0x7FC0 if dtype is BF16 else 0x7E00))


@pytest.mark.parametrize("dtype", LOW)
def test_f32_rounds_to_nearest_even(dtype: DType) -> None:
    """Every neighbourhood of a tie, the largest and the smallest numbers, and random patterns, against torch."""
    shift = 16 if dtype is BF16 else 13
    ties = (np.arange(2**17, dtype=np.uint32) << (shift - 1)) + np.uint32(0 if dtype is BF16 else 0x38000000)
    near = np.concatenate(
        [ties - 1, ties, ties + 1, np.random.default_rng(0).integers(0, 2**32, 2**17, dtype=np.uint32)]
    )
    edges = np.array([0x477FEFFF, 0x477FF000, 0x33000000, 0x33000001, 0x337FFFFF, 0x387FFFFF, 0x7F7F8000], np.uint32)
    x = np.concatenate([near, near | 0x80000000, edges, edges | 0x80000000]).view(np.float32)
    out = Case("cast", [x], dtype, x.shape).check(threads=(1,)).view(np.uint16)
    expected = (
        torch.from_numpy(x)
        .to(torch.bfloat16 if dtype is BF16 else torch.float16)
        .view(torch.int16)
        .numpy()
        .view(np.uint16)
    )
    nan = np.isnan(x)
    assert np.array_equal(out[~nan], expected[~nan])
    assert np.all(out[nan] == (0x7FC0 if dtype is BF16 else 0x7E00))


def oracle(x: Fraction | float | bool, to: DType) -> int:
    """The pattern of a cast of an exact number."""
    if to is BOOL:
        return int(x != 0)
    if to.is_float:
        return round_to(x, to)
    if isinstance(x, float) and np.isnan(x):
        return 0
    limits = np.iinfo(to.numpy)
    if isinstance(x, float):
        whole = limits.max if x == np.inf else limits.min if x == -np.inf else int(x)
        return min(max(whole, limits.min), limits.max) % 2**to.bits
    return int(x) % 2**to.bits


def round_to(x: Fraction | float | bool, to: DType) -> int:
    """To nearest even, by exact arithmetic."""
    exponent_bits, mantissa = {F32: (8, 23), BF16: (8, 7), F16: (5, 10)}[to]
    infinity = ((1 << exponent_bits) - 1) << mantissa
    if isinstance(x, float) and np.isnan(x):
        return infinity | 1 << (mantissa - 1)
    sign = 1 << (to.bits - 1) if np.signbit(float(x)) else 0
    if isinstance(x, float) and np.isinf(x):
        return sign | infinity
    magnitude = abs(Fraction(x))
    if magnitude == 0:
        return sign
    lowest = 2 - (1 << (exponent_bits - 1))
    exponent = max(magnitude.numerator.bit_length() - magnitude.denominator.bit_length(), lowest)
    if Fraction(2) ** exponent > magnitude:
        exponent = max(exponent - 1, lowest)
    units = round(magnitude / Fraction(2) ** (exponent - mantissa))  # Fraction rounds half to even
    return sign | min(((exponent - lowest) << mantissa) + units, infinity)


@pytest.mark.parametrize("to", ALL)
@pytest.mark.parametrize("source", ALL)
def test_casts(source: DType, to: DType) -> None:
    rng = np.random.default_rng(5)
    x = hostile(rng, source, (1500,))
    if source is I64:  # numbers that f32 would round first: just above and below the ties of bf16
        ties = (np.int64(2 * 128 + 1) << rng.integers(20, 50, 200)) + rng.integers(-1, 2, 200)
        x = np.concatenate([x, ties, -ties, np.arange(65500, 65540), np.array([2**63 - 1, -(2**63)])])
    out = Case("cast", [x], to, x.shape).check()
    if source is to:
        assert out.tobytes() == x.tobytes()
        return
    if source.is_float:
        with np.errstate(invalid="ignore"):  # signalling NaNs
            values = widened(x).astype(np.float64).tolist()
    else:
        values = (x.view(np.uint8) != 0 if source is BOOL else x).tolist()
    expected = [oracle(v, to) for v in values]
    assert out.view(f"u{to.itemsize}").tolist() == expected


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("op", UNARY)
def test_unary_operators_on_all_patterns(op: str, dtype: DType) -> None:
    x = PATTERNS.view(dtype.numpy)
    for to in (F32, dtype):
        low(op, [x], to, x.shape, threads=(2,))


@pytest.mark.parametrize("op", sorted(POINTWISE))
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_pointwise(op: str, data: st.DataObject) -> None:
    types, to = data.draw(floats(POINTWISE[op])), data.draw(st.sampled_from(FLOATS))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    shape = data.draw(st.sampled_from([(3, 700), (90, 17), (5, 1, 70), (), (0, 4)]))
    options = [shape, shape[-1:], (*shape[:-1], 1)] if shape else [()]
    shapes = [shape, *[data.draw(st.sampled_from(options)) for _ in types[1:]]]
    inputs = [hostile(rng, t, s) for t, s in zip(types, shapes, strict=True)]
    literals = [f32_bits(768.0), f32_bits(1e-5)] if op == "rstd" else []
    if op == "relu_grad":
        dy, y = (np.broadcast_to(a, shape) for a in inputs)
        negative = widened(np.ascontiguousarray(y)) <= 0
        copied = dy if types[0] is to else rounded(widened(np.ascontiguousarray(dy)), to)
        expected = np.where(
            negative,
            np.zeros((), to.numpy).view(f"u{to.itemsize}"),
            np.ascontiguousarray(copied).view(f"u{to.itemsize}"),
        )
        assert Case(op, inputs, to, shape).check().tobytes() == np.ascontiguousarray(expected).tobytes()
    else:
        low(op, inputs, to, shape, (), literals)


@pytest.mark.parametrize("op", COMPARES)
@pytest.mark.parametrize("types", [(BF16, BF16), (F16, F32), (F32, BF16), (F16, BF16)])
def test_compares(op: str, types: tuple[DType, DType]) -> None:
    rng = np.random.default_rng(4)
    low(op, [hostile(rng, types[0], (20, 300)), hostile(rng, types[1], (300,))], BOOL, (20, 300))


@pytest.mark.parametrize("dtype", [BF16, F16, I32])
def test_where_copies_bits(dtype: DType) -> None:
    rng = np.random.default_rng(1)
    c, a, b = hostile(rng, BOOL, (7, 200)), hostile(rng, dtype, (7, 200)), hostile(rng, dtype, (200,))
    size = f"u{dtype.itemsize}"
    out = Case("where", [c, a, b], dtype, (7, 200)).check()
    assert np.array_equal(out.view(size), np.where(c.view(np.uint8) != 0, a.view(size), b.view(size)))


@pytest.mark.parametrize("op", ["add", "sub", "mul", "neg", "abs", "maximum", "minimum", *COMPARES])
def test_i32_wraps(op: str) -> None:
    rng = np.random.default_rng(2)
    inputs = [hostile(rng, I32, (9, 300)), hostile(rng, I32, (9, 1))][: 1 if op in ("neg", "abs") else 2]
    wide = [x.astype(np.int64) for x in inputs]
    function = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "neg": np.negative, "abs": np.abs,
                "maximum": np.maximum, "minimum": np.minimum, "eq": np.equal, "ne": np.not_equal, "lt": np.less,
                "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}[op]  # fmt: skip
    expected = np.broadcast_to(function(*wide), (9, 300))
    out = Case(op, inputs, BOOL if op in COMPARES else I32, (9, 300)).check()
    assert np.array_equal(out, expected if op in COMPARES else expected.astype(np.int32))


def test_sums_of_i32_are_i64() -> None:
    x = hostile(np.random.default_rng(3), I32, (5, 70, 3))
    out = Case("sum", [x], I64, (5, 1, 3), (1, 1, 0, 70)).check()
    assert np.array_equal(out, x.sum(1, keepdims=True, dtype=np.int64))


REDUCTIONS = {
    "sum": 1,
    "amax": 1,
    "sum_sq": 1,
    "sum_mul": 2,
    "sum_sq_centered": 2,
    "sum_exp": 2,
    "sum_mul_normalized": 4,
}


@pytest.mark.parametrize("op", sorted(REDUCTIONS))
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_reductions(op: str, data: st.DataObject) -> None:
    types, to = data.draw(floats(REDUCTIONS[op])), data.draw(st.sampled_from(FLOATS))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    shape = data.draw(st.sampled_from([(3, 1500), (40, 33), (1100, 9), (5, 70, 40), (2, 33, 2), (0, 3), (3, 0)]))
    axis = data.draw(st.integers(0, len(shape) - 1))
    row = tuple(1 if d == axis else n for d, n in enumerate(shape))
    make = hostile if data.draw(st.booleans()) else (lambda r, t, s: rounded(finite(r, s), t))
    inputs = [make(rng, t, shape if k == 0 or data.draw(st.booleans()) else row) for k, t in enumerate(types)]
    low(op, inputs, to, row, (1, axis, 0, shape[axis]))


@pytest.mark.parametrize("op", sorted(REDUCTIONS))
@pytest.mark.parametrize("axis", [0, 1])
def test_a_cut_of_a_reduction_never_changes_the_bits(op: str, axis: int) -> None:
    n = 16384 + 1030
    rng = np.random.default_rng(7)
    inputs = [rounded(finite(rng, (n, 3) if axis == 0 else (3, n)), BF16) for _ in range(REDUCTIONS[op])]
    shape = (1, 3) if axis == 0 else (3, 1)
    head = Case(op, inputs, F32, shape, (1, axis, 0, 16384)).check(threads=(2,), offsets=(0,))
    tail = Case(op, [*inputs, head], BF16, shape, (1, axis, 16384, n)).check(threads=(2,), offsets=(0,))
    assert tail.tobytes() == Case(op, inputs, BF16, shape, (1, axis, 0, n)).run(None)


@settings(max_examples=40, deadline=None)
@given(
    floats(3), st.sampled_from([1, 2, 7, 17, 33, 70]), st.sampled_from([0, 1, 17, 256, 300, 530]),
    st.sampled_from([1, 5, 8, 33, 64, 70]), st.integers(0, 1), st.integers(0, 1), st.sampled_from([None, 2]),
    st.booleans(),
)  # fmt: skip
def test_matmul(types: list[DType], m: int, k: int, n: int, ta: int, tb: int, batch: int | None, special: bool) -> None:
    rng = np.random.default_rng(m * k + n)
    lead = () if batch is None else (batch,)
    make = hostile if special else (lambda r, t, s: rounded(finite(r, s), t))
    a = make(rng, types[0], lead + ((k, m) if ta else (m, k)))
    b = make(rng, types[1], lead + ((n, k) if tb else (k, n)))
    low("matmul", [a, b], types[2], (*lead, m, n), (ta, tb, 0, k))


@pytest.mark.parametrize("shape", [(70, 300, 1100), (1, 700, 2100), (3, 300, 1030), (1100, 290, 9), (2100, 60, 40)])
@pytest.mark.parametrize("layout", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_large_products(shape: tuple[int, int, int], layout: tuple[int, int]) -> None:
    m, k, n = shape
    rng = np.random.default_rng(m)
    a = rounded(finite(rng, (k, m) if layout[0] else (m, k)), BF16)
    b = rounded(finite(rng, (n, k) if layout[1] else (k, n)), BF16)
    wide = Case("matmul", [widened(a), widened(b)], F32, (m, n), (*layout, 0, k)).array()
    case = Case("matmul", [a, b], BF16, (m, n), (*layout, 0, k))
    for isa in VECTOR_ISAS:
        for threads in (1, 3):
            assert case.run(isa, threads) == rounded(wide, BF16).tobytes()


@pytest.mark.parametrize("m,n", [(1, 40), (20, 33), (40, 1)])
def test_a_cut_of_a_product_never_changes_the_bits(m: int, n: int) -> None:
    k = 16384 + 300
    rng = np.random.default_rng(5)
    a, b = rounded(finite(rng, (m, k)), F16), rounded(finite(rng, (k, n)), BF16)
    for isa in VECTOR_ISAS:
        head = Case("matmul", [a, b], F32, (m, n), (0, 0, 0, 16384)).array(isa)
        tail = Case("matmul", [a, b, head], BF16, (m, n), (0, 0, 16384, k))
        assert tail.run(isa, 2) == Case("matmul", [a, b], BF16, (m, n), (0, 0, 0, k)).run(isa)


ATTENTION = {
    "scores": (("q", "k"), "BTS", 1), "max": (("s",), "BT1", 0), "sum": (("s", "m"), "BT1", 0),
    "out": (("s", "m", "l", "v"), "BTE", 0), "dv": (("s", "m", "l", "o"), "BSE", 0), "dp": (("o", "v"), "BTS", 0),
    "ds": (("s", "m", "l", "s", "m"), "BTS", 0), "dq": (("s", "k"), "BTD", 1), "dk": (("s", "q"), "BSD", 1),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(ATTENTION))
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_attention(name: str, data: st.DataObject) -> None:
    inputs, out, scaled = ATTENTION[name]
    sizes = {"B": 2, "T": data.draw(st.sampled_from([1, 40, 70])), "S": data.draw(st.sampled_from([1, 33, 300]))}
    sizes |= {"D": 20, "E": 9, "1": 1}
    shapes = {"q": "BTD", "k": "BSD", "s": "BTS", "m": "BT1", "l": "BT1", "v": "BSE", "o": "BTE"}
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    make = hostile if data.draw(st.booleans()) else (lambda r, t, s: rounded(finite(r, s), t))
    tensors = [
        make(rng, t, [sizes[d] for d in shapes[i]]) for i, t in zip(inputs, data.draw(floats(len(inputs))), strict=True)
    ]
    causal, to = data.draw(st.integers(0, 1)), data.draw(st.sampled_from(FLOATS))
    shape = tuple(sizes[d] for d in out)
    low(f"attention_{name}", tensors, to, shape, (causal,), [f32_bits(0.125)] * scaled)


@pytest.mark.parametrize("dtype", [BF16, F16, I32])
@pytest.mark.parametrize("index", [I64, I32])
def test_movement_of_any_bits_by_either_index(dtype: DType, index: DType) -> None:
    rng = np.random.default_rng(6)
    x = hostile(rng, dtype, (37, 50))
    size = f"u{dtype.itemsize}"
    at = rng.integers(-3, 60, (37, 20)).astype(index.numpy)
    inside = (at >= 0) & (at < 50)
    wide = np.take_along_axis(x.view(size), np.clip(at, 0, 49).astype(np.int64), 1)
    out = Case("gather", [x, at], dtype, at.shape, [1]).check()
    assert np.array_equal(out.view(size), np.where(inside, wide, 0))
    literal = 0x8001
    out = Case("scatter", [x, at], dtype, x.shape, [1], [literal]).check()
    expected = x.view(size).copy()
    for i, j in zip(*np.nonzero(inside), strict=True):
        expected[i, at[i, j]] = literal
    assert np.array_equal(out.view(size), expected)
    rows = rng.integers(-2, 40, (60,)).astype(index.numpy)
    picked = np.where(((rows >= 0) & (rows < 37))[:, None], x.view(size)[np.clip(rows, 0, 36)], 0)
    assert np.array_equal(Case("embedding", [x, rows], dtype, (60, 50)).check().view(size), picked)
    assert np.array_equal(Case("permute", [x], dtype, (50, 37), [1, 0]).check().view(size), x.view(size).T)
    assert np.array_equal(Case("slice", [x], dtype, (37, 9), [1, 4, 5]).check().view(size), x.view(size)[:, 4:49:5])
    assert np.all(Case("fill", [], dtype, (70, 3), [], [literal]).check().view(size) == literal)
    expanded = Case("expand", [np.ascontiguousarray(x[:, :1])], dtype, (37, 90)).check().view(size)
    assert np.array_equal(expanded, np.broadcast_to(x.view(size)[:, :1], (37, 90)))


@settings(max_examples=30, deadline=None)
@given(floats(2), st.sampled_from([1, 9, 600]), st.sampled_from([1, 3, 40, 200]), st.booleans(), st.booleans())
def test_embedding_grad(types: list[DType], rows: int, width: int, special: bool, carried: bool) -> None:
    rng = np.random.default_rng(rows + width)
    dy = hostile(rng, types[0], (60, width)) if special else rounded(finite(rng, (60, width)), types[0])
    index = rng.integers(-1, rows + 1, 60).astype(np.int32 if carried else np.int64)
    inputs = [dy, index, hostile(rng, F32, (rows, width))] if carried else [dy, index]
    low("embedding_grad", inputs, types[1], (rows, width), [20 if carried else 0, 60])
