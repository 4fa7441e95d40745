"""Reductions: any adjacent axes, broadcast inputs, cuts; the bytes of RSUM on every instruction set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_calls import BF16, BOOL, F32, I64, NAN_BITS, VECTOR_ISAS, Array, Case, DType, finite, hostile
from torch import Tensor

import repops
from repops import _kernels
from repops.execute import fused_kernels
from repops.graph.ir import Ref, Slot
from repops.plan import Compiler

INPUTS = {"sum": 1, "amax": 1, "sum_sq": 1, "sum_mul": 2, "sum_sq_centered": 2, "sum_exp": 2, "sum_mul_normalized": 4}


def reduction(
    op: str,
    inputs: Sequence[Array],
    axes: Sequence[int],
    cut: tuple[int, int] | None = None,
    carry: Array | None = None,
) -> Case:
    shape = np.broadcast_shapes(*[a.shape for a in inputs])
    start, stop = cut or (0, int(np.prod([shape[a] for a in axes], dtype=np.int64)))
    out = tuple(1 if d in axes else n for d, n in enumerate(shape))
    dtype = F32 if inputs[0].dtype == np.float32 else I64
    return Case(op, [*inputs, *([] if carry is None else [carry])], dtype, out, (len(axes), *axes, start, stop))


def rsum(terms: Array) -> np.float32:
    """RSUM of docs/spec/operators.md for plain terms, lane by lane."""
    total: np.float32 | None = None
    for block in range(0, len(terms), 1024):
        lanes = [np.float32(0)] * 32
        for i, x in enumerate(terms[block : block + 1024]):
            lanes[i % 32] = lanes[i % 32] + x
        h = 16
        while h:
            for j in range(h):
                lanes[j] = lanes[j] + lanes[j + h]
            h //= 2
        total = lanes[0] if total is None else total + lanes[0]
    return np.float32(0) if total is None else total


@st.composite
def calls(draw: st.DrawFn) -> Case:
    op = draw(st.sampled_from(sorted(INPUTS)))
    rank = draw(st.integers(1, 4))
    shape: list[int] = []
    for _ in range(rank):
        d = draw(st.sampled_from([0, 1, 2, 3, 5, 15, 16, 17, 31, 33, 129, 140, 1023, 1025, 2100]))
        shape.append(d if int(np.prod(shape, dtype=np.int64)) * d <= 6000 else 2)
    first = draw(st.integers(0, rank - 1))
    axes = list(range(first, draw(st.integers(first, rank - 1)) + 1))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    special = draw(st.booleans())
    dtype = draw(st.sampled_from([F32, I64, BOOL])) if op == "sum" else F32
    inputs = []
    for i in range(INPUTS[op]):
        own = [d if i == 0 or draw(st.booleans()) else 1 for d in shape]
        if i:
            drop = draw(st.integers(0, rank))
            own = own[drop:] if all(d == 1 for d in own[:drop]) else own
        inputs.append(finite(rng, own) if dtype is F32 and not special else hostile(rng, dtype, own))
    return reduction(op, inputs, axes)


@given(calls())
@settings(max_examples=150, deadline=None)
def test_all_instruction_sets_agree(case: Case) -> None:
    case.check()


@pytest.mark.parametrize("isa", VECTOR_ISAS)
@pytest.mark.parametrize("n", [1, 31, 32, 33, 1000, 1024, 1025, 3000])
def test_sum_against_the_definition(isa: str, n: int) -> None:
    x = finite(np.random.default_rng(n), (3, n, 2))
    out = reduction("sum", [x], [1]).array(isa)
    rows = reduction("sum", [np.ascontiguousarray(x.transpose(0, 2, 1))], [2]).array(isa)
    for i in range(3):
        for j in range(2):
            assert out[i, 0, j].tobytes() == rsum(x[i, :, j]).tobytes() == rows[i, j, 0].tobytes()


@pytest.mark.parametrize("op", sorted(INPUTS))
@pytest.mark.parametrize("axis", [0, 1])
def test_a_cut_never_changes_the_bits(op: str, axis: int) -> None:
    n = 16384 + 1030
    rng = np.random.default_rng(7)
    inputs = [finite(rng, (n, 3) if axis == 0 else (3, n)) for _ in range(INPUTS[op])]
    for isa in VECTOR_ISAS:
        head = reduction(op, inputs, [axis], cut=(0, 16384)).array(isa)
        tail = reduction(op, inputs, [axis], cut=(16384, n), carry=head)
        assert tail.run(isa, 2) == reduction(op, inputs, [axis]).run(isa)
    shape = (1, 3) if axis == 0 else (3, 1)
    reduction(op, inputs, [axis], cut=(16384, n), carry=hostile(rng, F32, shape)).check()


@pytest.mark.parametrize("dtype", [I64, BOOL])
def test_integer_sums_wrap(dtype: DType) -> None:
    x = hostile(np.random.default_rng(2), dtype, (5, 700, 3))
    out = reduction("sum", [x], [1]).check()
    with np.errstate(over="ignore"):
        assert np.array_equal(
            out, (x.view(np.uint8) != 0 if dtype is BOOL else x).sum(1, keepdims=True, dtype=np.int64)
        )


def test_amax_is_ieee_maximum() -> None:
    zeros = np.array([[-0.0, -0.0, 0.0, -0.0], [-0.0, -0.0, -0.0, -0.0]], np.float32)
    nan = np.array([[1.0, np.nan, np.inf]], np.float32)
    for isa in VECTOR_ISAS:
        assert reduction("amax", [zeros], [1]).array(isa).view(np.uint32).tolist() == [[0], [0x80000000]]
        assert reduction("amax", [np.ascontiguousarray(zeros.T)], [0]).array(isa).view(np.uint32).tolist() == [
            [0, 0x80000000]
        ]
        assert reduction("amax", [nan], [1]).array(isa).view(np.uint32)[0, 0] == NAN_BITS
        assert reduction("amax", [np.empty((2, 0), np.float32)], [1]).array(isa).tolist() == [[-np.inf], [-np.inf]]


def test_wide_columns_and_many_threads() -> None:
    rng = np.random.default_rng(11)
    g, x = finite(rng, (2, 65, 300)), finite(rng, (2, 65, 300))
    mean, rstd = finite(rng, (2, 65, 1)), finite(rng, (2, 65, 1))
    reduction("sum_mul_normalized", [g, x, mean, rstd], [0, 1]).check(threads=(1, 2, 5))
    reduction("sum_mul_normalized", [g, x, mean, rstd], [2]).check(threads=(1, 2, 5))
    reduction("sum", [finite(rng, (3000, 270))], [0]).check(threads=(1, 2, 5), offsets=(3,))


@pytest.mark.parametrize("inner", [2, 3, 16, 37, 513])
@pytest.mark.parametrize("terms", [1, 31, 33, 129, 1025, 2100])
def test_columns_side_by_side_in_memory(inner: int, terms: int) -> None:
    rng = np.random.default_rng(inner * terms)
    for x in (finite(rng, (2, terms, inner)), hostile(rng, F32, (2, terms, inner))):
        reduction("sum", [x], [1]).check(threads=(1, 3, 9))
    reduction("sum_mul", [finite(rng, (terms, inner)), finite(rng, (terms, inner))], [0]).check(threads=(1, 9))


@pytest.mark.parametrize("terms", [1, 5, 16, 31, 40, 256, 257])
def test_short_rows(terms: int) -> None:
    rng = np.random.default_rng(terms)
    for x in (finite(rng, (37, terms)), hostile(rng, F32, (37, terms)), np.full((37, terms), -0.0, np.float32)):
        reduction("sum", [x], [1]).check(threads=(1, 3))
    reduction("sum_sq_centered", [finite(rng, (37, terms)), finite(rng, (37, 1))], [1]).check()


@pytest.mark.parametrize("shape", [(100_000,), (2, 40_000), (40_000, 3)])
@pytest.mark.parametrize("dtype", [F32, BF16])
def test_few_outputs_for_many_threads(shape: tuple[int, ...], dtype: DType) -> None:
    """The threads share out the blocks; a carry comes before them, and the sum is rounded once."""
    rng = np.random.default_rng(3)
    axis = int(np.argmax(shape))
    out = tuple(1 if d == axis else n for d, n in enumerate(shape))
    for x in (finite(rng, shape), hostile(rng, dtype, shape)):
        for carry in ([], [hostile(rng, F32, out)]):
            case = Case("sum", [x, *carry], dtype, out, (1, axis, 1024 if carry else 0, shape[axis]))
            case.check(threads=(1, 2, 7), offsets=(1,))


def test_the_links_of_a_fold_are_one_call() -> None:
    n = 40_000
    rows = {"x": torch.randn(3, n), "y": torch.randn(n, 2)}

    def step(_: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sum": b["x"].sum(1), "most": b["x"].amax(1), "columns": b["y"].sum(0)}

    state = {name: torch.zeros_like(value) for name, value in step({}, rows).items()}
    program = repops.capture(step, state, rows, check=False)
    assert len(program.nodes) == 9
    assert sorted(call[0] for call in Compiler(program, fused_kernels(None)).calls) == ["amax", "sum", "sum"]
    first = Compiler(program).calls
    assert len(first) == 9, "without fused kernels the program runs node by node"
    expected = repops.Executor(program, isa="scalar", fuse=False).run(state, rows)
    for isa in _kernels.isas():
        out = repops.Executor(program, 3, isa).run(state, rows)
        assert all(out[name].tobytes() == expected[name].tobytes() for name in state)
    # A link that somebody else reads stays a node, and so do the others.
    seen = replace(program, slots=(*program.slots, Slot("part", F32, program.nodes[0].shape, Ref.node(0)))).check()
    assert len(Compiler(seen, fused_kernels(None)).calls) == 5
