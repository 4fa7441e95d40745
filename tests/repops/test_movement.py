"""Data movement: the bytes of the reference on every instruction set, and what numpy says the operators mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_calls import BOOL, F32, I64, NAN_BITS, VECTOR_ISAS, Array, Case, DType, f32_bits, finite, hostile

from repops import _kernels

LENGTH = st.one_of(st.integers(0, 6), st.sampled_from([1, 2, 16, 17, 33, 40]))
DTYPES = st.sampled_from([F32, I64, BOOL])
SEEDS = st.integers(0, 2**32)
many = settings(max_examples=120, deadline=None)


def shapes(rank: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[int, ...]]:
    def bounded(shape: list[int]) -> bool:
        return int(np.prod(shape, dtype=np.int64)) <= 6000

    return rank.flatmap(lambda r: st.lists(LENGTH, min_size=r, max_size=r).filter(bounded).map(tuple))


def raw(x: Array) -> bytes:
    return np.ascontiguousarray(x).tobytes()


def words(x: Array) -> Array:
    """The bit patterns, for element-wise copies: numpy would make a stored bool 0 or 1."""
    return x.view(f"u{x.itemsize}")


def indices(rng: np.random.Generator, length: int, shape: tuple[int, ...]) -> Array:
    """Mostly inside [0, length), some outside: negative, just past the end, extreme."""
    index = rng.integers(0, max(length, 1), shape, dtype=np.int64)
    wild = rng.choice(np.array([-1, length, -(2**63), 2**63 - 1, length + 7], dtype=np.int64), shape)
    return np.ascontiguousarray(np.where(rng.random(shape) < 0.2, wild, index))


def test_every_movement_operator_has_vector_kernels() -> None:
    names = "permute expand slice slice_grad cat gather scatter embedding embedding_grad iota fill"
    for isa in VECTOR_ISAS:
        assert set(names.split()) <= set(_kernels.kernels(isa))


@many
@given(shapes(st.integers(0, 5)), DTYPES, SEEDS, st.data())
def test_permute(shape: tuple[int, ...], dtype: DType, seed: int, data: st.DataObject) -> None:
    x = hostile(np.random.default_rng(seed), dtype, shape)
    dims = data.draw(st.permutations(range(len(shape))))
    expected = np.transpose(x, dims)
    assert Case("permute", [x], dtype, expected.shape, dims).check().tobytes() == raw(expected)


@pytest.mark.parametrize("dtype", [F32, I64, BOOL])
@pytest.mark.parametrize("dims", [(1, 0, 2), (0, 2, 1), (2, 1, 0), (2, 0, 1), (1, 2, 0)])
def test_permute_of_a_large_tensor_on_several_threads(dtype: DType, dims: tuple[int, ...]) -> None:
    x = hostile(np.random.default_rng(1), dtype, (37, 65, 70))
    expected = np.transpose(x, dims)
    for isa in VECTOR_ISAS:
        for threads in (1, 2, 5):
            assert Case("permute", [x], dtype, expected.shape, dims).run(isa, threads) == raw(expected)


@many
@given(shapes(st.integers(0, 4)), DTYPES, SEEDS, st.data())
def test_expand(shape: tuple[int, ...], dtype: DType, seed: int, data: st.DataObject) -> None:
    kept = tuple(d if data.draw(st.booleans()) else 1 for d in shape)
    lead = data.draw(shapes(st.integers(0, 2)))
    x = hostile(np.random.default_rng(seed), dtype, kept)
    out = (*lead, *shape) if np.prod((*lead, *shape), dtype=np.int64) <= 20_000 else shape
    expected = np.broadcast_to(x, out)
    assert Case("expand", [x], dtype, out).check().tobytes() == raw(expected)


@many
@given(shapes(st.integers(1, 4)), DTYPES, SEEDS, st.data())
def test_slice_and_slice_grad(shape: tuple[int, ...], dtype: DType, seed: int, data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    start = data.draw(st.integers(0, shape[axis]))
    step = data.draw(st.sampled_from([1, 1, 2, 3, 2**62]))
    x = hostile(np.random.default_rng(seed), dtype, shape)
    where = (slice(None),) * axis + (slice(start, None, step),)
    expected = x[where]
    params = [axis, start, step]
    assert Case("slice", [x], dtype, expected.shape, params).check().tobytes() == raw(expected)
    dy = np.ascontiguousarray(expected)
    back = np.zeros_like(x)
    back[where] = dy
    assert Case("slice_grad", [dy], dtype, shape, params).check().tobytes() == raw(back)


@many
@given(shapes(st.integers(1, 4)), DTYPES, SEEDS, st.data())
def test_cat(shape: tuple[int, ...], dtype: DType, seed: int, data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    lengths = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=5))
    rng = np.random.default_rng(seed)
    parts = [hostile(rng, dtype, (*shape[:axis], n, *shape[axis + 1 :])) for n in lengths]
    expected = np.concatenate(parts, axis)
    assert Case("cat", parts, dtype, expected.shape, [axis]).check().tobytes() == raw(expected)


@st.composite
def indexed(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    shape = draw(shapes(st.integers(1, 4)))
    axis = draw(st.integers(0, len(shape) - 1))
    index = tuple(draw(st.integers(0, 9)) if d == axis else draw(st.integers(0, n)) for d, n in enumerate(shape))
    return shape, index, axis


@many
@given(indexed(), DTYPES, SEEDS)
def test_gather_reads_zero_outside(case: tuple[tuple[int, ...], tuple[int, ...], int], dtype: DType, seed: int) -> None:
    shape, index_shape, axis = case
    rng = np.random.default_rng(seed)
    x, index = hostile(rng, dtype, shape), indices(rng, shape[axis], index_shape)
    expected = words(np.zeros(index_shape, dtype=dtype.numpy))
    for c in np.ndindex(*index_shape):
        if 0 <= index[c] < shape[axis]:
            expected[c] = words(x)[(*c[:axis], index[c], *c[axis + 1 :])]
    assert Case("gather", [x, index], dtype, index_shape, [axis]).check().tobytes() == raw(expected)


@many
@given(indexed(), DTYPES, SEEDS)
def test_scatter_drops_outside(case: tuple[tuple[int, ...], tuple[int, ...], int], dtype: DType, seed: int) -> None:
    shape, index_shape, axis = case
    rng = np.random.default_rng(seed)
    x, index = hostile(rng, dtype, shape), indices(rng, shape[axis], index_shape)
    literal = {F32: 0x7F800001, I64: 2**64 - 3, BOOL: 1}[dtype]
    expected = x.copy()
    for c in np.ndindex(*index_shape):
        if 0 <= index[c] < shape[axis]:
            words(expected)[(*c[:axis], index[c], *c[axis + 1 :])] = literal
    case_ = Case("scatter", [x, index], dtype, shape, [axis], [literal])
    assert case_.check().tobytes() == raw(expected)


@many
@given(st.integers(0, 9), st.sampled_from([0, 1, 3, 16, 40]), shapes(st.integers(0, 2)), DTYPES, SEEDS)
def test_embedding_reads_zero_outside(rows: int, width: int, shape: tuple[int, ...], dtype: DType, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = shape if np.prod(shape, dtype=np.int64) <= 300 else (4,)
    weight, index = hostile(rng, dtype, (rows, width)), indices(rng, rows, shape)
    expected = words(np.zeros((*shape, width), dtype=dtype.numpy))
    for c in np.ndindex(*shape):
        if 0 <= index[c] < rows:
            expected[c] = words(weight)[index[c]]
    assert Case("embedding", [weight, index], dtype, (*shape, width)).check().tobytes() == raw(expected)


@many
@given(st.integers(1, 9), st.sampled_from([1, 3, 16, 40, 200]), st.integers(0, 60), SEEDS, st.booleans())
def test_embedding_grad_adds_in_ascending_order(rows: int, width: int, n: int, seed: int, carried: bool) -> None:
    rng = np.random.default_rng(seed)
    dy, index = hostile(rng, F32, (n, width)), indices(rng, rows, (n,))
    carry = hostile(rng, F32, (rows, width))
    start = n // 2 if carried else 0  # the kernel takes any range; the rule asks for multiples of 16,384
    inputs = [dy, index, carry] if carried else [dy, index]
    out = Case("embedding_grad", inputs, F32, (rows, width), [start, n]).check()
    expected = carry.copy() if carried else np.zeros((rows, width), dtype=np.float32)
    with np.errstate(all="ignore"):
        for t in range(start, n):
            if 0 <= index[t] < rows:
                expected[index[t]] += dy[t]
    bits = expected.view(np.uint32)
    bits[np.isnan(expected)] = NAN_BITS
    assert out.tobytes() == expected.tobytes()


def test_embedding_grad_in_two_links_has_the_bits_of_one() -> None:
    rng = np.random.default_rng(5)
    n, rows, width = 20_000, 11, 48
    dy, index = finite(rng, (n, width)), indices(rng, rows, (n,))
    whole = Case("embedding_grad", [dy, index], F32, (rows, width), [0, n])
    first = Case("embedding_grad", [dy, index], F32, (rows, width), [0, 16384]).array()
    second = Case("embedding_grad", [dy, index, first], F32, (rows, width), [16384, n])
    for isa in VECTOR_ISAS:
        for threads in (1, 2, 4):
            assert second.run(isa, threads) == whole.run(isa, threads) == whole.run(None)
    assert whole.element(5) == int(whole.array().view(np.uint32).flat[5])


@many
@given(shapes(st.integers(0, 3)), st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
def test_iota_wraps(shape: tuple[int, ...], start: int, step: int) -> None:
    n = int(np.prod(shape, dtype=np.int64))
    expected = [(start + step * i + 2**63) % 2**64 - 2**63 for i in range(n)]
    assert Case("iota", [], I64, shape, [start, step]).check().ravel().tolist() == expected


@pytest.mark.parametrize(
    ("dtype", "literal"), [(F32, 0x7F800001), (F32, f32_bits(-0.0)), (I64, 2**64 - 1), (BOOL, 1), (BOOL, 0)]
)
@pytest.mark.parametrize("shape", [(), (0, 3), (17,), (130, 301)])
def test_fill(dtype: DType, literal: int, shape: tuple[int, ...]) -> None:
    out = Case("fill", [], dtype, shape, [], [literal]).check()
    assert out.tobytes() == literal.to_bytes(dtype.itemsize, "little") * out.size


def test_large_copies_on_several_threads() -> None:
    rng = np.random.default_rng(9)
    x = finite(rng, (3, 501, 129))
    index = indices(rng, 129, (3, 501, 64))
    parts = [x, np.ascontiguousarray(x[:, :77])]
    cases = [
        Case("slice", [x], F32, (3, 200, 129), [1, 3, 2]),
        Case("slice", [x], F32, (3, 501, 40), [2, 3, 3]),
        Case("slice", [x], F32, (3, 501, 60), [2, 3, 1]),
        Case("slice_grad", [np.ascontiguousarray(x[:, 3:403:2])], F32, (3, 501, 129), [1, 3, 2]),
        Case("cat", parts, F32, (3, 578, 129), [1]),
        Case("gather", [x, index], F32, index.shape, [2]),
        Case("scatter", [x, index], F32, x.shape, [2], [f32_bits(7.0)]),
        Case("expand", [np.ascontiguousarray(x[:1, :, :1])], F32, x.shape),
        Case("embedding", [x.reshape(1503, 129), np.ascontiguousarray(index[0, :, 0])], F32, (501, 129)),
        Case("iota", [], I64, (70_000,), [5, -3]),
    ]
    for case in cases:
        expected = case.run("scalar")
        for isa in VECTOR_ISAS:
            for threads in (1, 2, 5):
                assert case.run(isa, threads) == expected, (case.op, isa, threads)
