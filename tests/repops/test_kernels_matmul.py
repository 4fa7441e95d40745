"""Matrix products: every instruction set, layout, thread count and alignment gives the bytes of DOT in 256-blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_calls import F32, NAN_BITS, VECTOR_ISAS, Array, Case, finite, fma, hostile

EDGES = [1, 2, 3, 4, 6, 7, 8, 14, 15, 16, 17, 29, 32, 33, 64, 65]


def matmul(
    a: Array, b: Array, ta: int = 0, tb: int = 0, cut: tuple[int, int] | None = None, carry: Array | None = None
) -> Case:
    depth = a.shape[-2] if ta else a.shape[-1]
    rows = a.shape[-1] if ta else a.shape[-2]
    columns = b.shape[-2] if tb else b.shape[-1]
    start, stop = cut or (0, depth)
    inputs = [a, b] if carry is None else [a, b, carry]
    return Case("matmul", inputs, F32, (*a.shape[:-2], rows, columns), (ta, tb, start, stop))


def operands(
    rng: np.random.Generator,
    m: int,
    k: int,
    n: int,
    ta: int = 0,
    tb: int = 0,
    batch: int | None = None,
    special: bool = False,
) -> tuple[Array, Array]:
    lead = () if batch is None else (batch,)
    make = (lambda s: hostile(rng, F32, s)) if special else (lambda s: finite(rng, s))
    return make(lead + ((k, m) if ta else (m, k))), make(lead + ((n, k) if tb else (k, n)))


def dot(a: Array, b: Array) -> np.float32:
    """DOT of docs/spec/operators.md in exact arithmetic, one rounding per FMA and per ADD."""
    total: np.float32 | None = None
    for block in range(0, len(a), 256):
        p = np.float32(0)
        for x, y in zip(a[block : block + 256], b[block : block + 256], strict=True):
            p = fma(x, y, p)
        total = p if total is None else fma(total, np.float32(1), p)
    return np.float32(0) if total is None else total


@given(
    st.sampled_from(EDGES), st.one_of(st.integers(0, 40), st.sampled_from([255, 256, 513])), st.sampled_from(EDGES),
    st.integers(0, 1), st.integers(0, 1), st.sampled_from([None, 0, 1, 3]), st.booleans(), st.integers(0, 2**32 - 1),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_all_instruction_sets_agree(
    m: int, k: int, n: int, ta: int, tb: int, batch: int | None, special: bool, seed: int
) -> None:
    a, b = operands(np.random.default_rng(seed), m, k, n, ta, tb, batch, special)
    matmul(a, b, ta, tb).check()


@pytest.mark.parametrize("isa", VECTOR_ISAS)
@pytest.mark.parametrize("k", [1, 17, 256, 257, 600])
def test_against_exact_arithmetic(isa: str, k: int) -> None:
    rng = np.random.default_rng(k)
    a, b = operands(rng, 5, k, 37)
    out = matmul(a, b).array(isa)
    for i, j in [(0, 0), (4, 36), (2, 17)]:
        assert out[i, j].tobytes() == dot(a[i], b[:, j]).tobytes()


@pytest.mark.parametrize(
    "shape",
    [
        (70, 300, 1100),
        (1, 700, 2100),
        (1, 700, 6100),
        (1, 1024, 77),
        (1, 20, 16500),
        (2, 513, 40),
        (3, 300, 1030),
        (1100, 290, 9),
        (64, 768, 96),
    ],
)
@pytest.mark.parametrize("layout", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_large_shapes_agree(shape: tuple[int, int, int], layout: tuple[int, int]) -> None:
    """Beyond one tile, one column block and one k block, for 1 to 4 threads; sampled against the reference."""
    m, k, n = shape
    a, b = operands(np.random.default_rng(m), m, k, n, *layout)
    case = matmul(a, b, *layout)
    first = case.run(VECTOR_ISAS[0])
    for isa in VECTOR_ISAS:
        for threads in (1, 2, 4):
            assert case.run(isa, threads) == first
    bits = np.frombuffer(first, np.uint32)
    for index in np.random.default_rng(0).integers(0, m * n, 40):
        assert case.element(int(index)) == bits[index]


@pytest.mark.parametrize("shape", [(1030, 16400, 17), (16640, 1030, 17)])
@pytest.mark.parametrize("ta", [0, 1])
def test_a_left_operand_that_is_packed_in_parts(shape: tuple[int, int, int], ta: int) -> None:
    """More than 2^24 elements: blocks of k at a time, of some rows."""
    m, k, n = shape
    a, b = operands(np.random.default_rng(m), m, k, n, ta, 0)
    case, rows = matmul(a, b, ta, 0), np.random.default_rng(0).choice(m, 6, replace=False)
    parts = matmul((a[:, rows] if ta else a[rows]).copy(), b, ta, 0)
    for isa in VECTOR_ISAS:
        assert (case.array(isa, 2)[rows] == parts.array(isa)).all()


def test_rows_do_not_depend_on_the_batch() -> None:
    a, b = operands(np.random.default_rng(3), 77, 300, 129)
    whole = matmul(a, b).array()
    for i in (0, 13, 76):
        assert matmul(a[i : i + 1].copy(), b).run(VECTOR_ISAS[-1]) == whole[i].tobytes()


@pytest.mark.parametrize("m,n", [(1, 40), (1, 300), (20, 33), (40, 1)])
@pytest.mark.parametrize("layout", [(0, 0), (1, 1)])
def test_a_cut_never_changes_the_bits(m: int, n: int, layout: tuple[int, int]) -> None:
    k = 16384 + 300
    a, b = operands(np.random.default_rng(5), m, k, n, *layout)
    for isa in VECTOR_ISAS:
        head = matmul(a, b, *layout, cut=(0, 16384)).array(isa)
        assert matmul(a, b, *layout, cut=(16384, k), carry=head).run(isa, 2) == matmul(a, b, *layout).run(isa)
    matmul(a, b, *layout, cut=(16384, k), carry=hostile(np.random.default_rng(1), F32, (m, n))).check()


def test_no_terms_are_added_at_the_end_of_k() -> None:
    """A negative product that underflows leaves -0; one more FMA(0, 0, P) would make it +0."""
    a, b = np.full((1, 3), -1e-30, np.float32), np.full((3, 20), 1e-30, np.float32)
    for isa in VECTOR_ISAS:
        assert np.all(matmul(a, b).array(isa).view(np.uint32) == 0x80000000)


def test_nan_is_canonical_and_nothing_is_flushed() -> None:
    nan = np.full((3, 4), 0xFFC12345, np.uint32).view(np.float32)
    tiny = np.full((4, 5), 1e-39, np.float32)
    for isa in VECTOR_ISAS:
        assert np.all(matmul(nan, tiny).array(isa).view(np.uint32) == NAN_BITS)
        assert matmul(np.ones((1, 4), np.float32), tiny).array(isa)[0, 0] == dot(np.ones(4, np.float32), tiny[:, 0]) > 0
