"""2^31 elements and more: indices of kernels and plans, the limits of programs, and what the front end refuses.

Tensors that need gigabytes are avoided where broadcasting gives as large an index space; one test needs 5 GB.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from kernel_calls import BOOL, F32, I64, VECTOR_ISAS, Case
from test_kernels_reduce import INPUTS, reduction

import repops
import repops.dynamo
from repops import _kernels
from repops.graph.check import check_tensor_type
from repops.graph.ir import Input, Node, Ref
from repops.ops.rules import RuleViolation
from repops.ops.table import OPERATORS
from repops.tensors import machine_memory

ISAS = [*VECTOR_ISAS, "scalar"]
A = np.linspace(-1, 1, 2**16, dtype=np.float32)
B = np.linspace(-2, 3, 2**16, dtype=np.float32)
TERMS, LINK = 2**32, 2**14


@pytest.mark.parametrize("op", [op for op, inputs in INPUTS.items() if inputs > 1])
@pytest.mark.parametrize("columns", [1, 3])
def test_the_last_link_of_a_fold_over_2_to_32_terms(op: str, columns: int) -> None:
    b = np.stack([B + np.float32(i) for i in range(columns)], 1)
    rest = (np.float32(0.25), np.float32(2))[: INPUTS[op] - 2]
    carry = np.full((1, 1, columns), 0.5, np.float32)
    inputs = [A.reshape(-1, 1, 1), b[None], *[np.full((1, 1, 1), x) for x in rest]]
    huge = reduction(op, inputs, (0, 1), (TERMS - LINK, TERMS), carry)
    # The same terms, and as many before them as fill the range in which they stand.
    few = [A[-1:].reshape(1, 1, 1), b[None, -2 * LINK :], *inputs[2:]]
    small = reduction(op, few, (0, 1), (LINK, 2 * LINK), carry)
    for isa in ISAS:
        assert huge.run(isa, threads=2) == small.run(isa)
    assert huge.array(None).view(np.uint32).ravel().tolist() == [huge.element(i) for i in range(columns)]


@pytest.mark.parametrize("index", [0, 2**31 - 1, 2**31, 2**32 + 7, 2**33 - 1])
def test_references_at_high_indices(index: int) -> None:
    row, column = divmod(index, 2**17)
    y = np.arange(2**17, dtype=np.float32)
    add = Case("add", [A.reshape(-1, 1), y], F32, (2**16, 2**17))
    assert add.element(index) == int((A[row] + y[column]).view(np.uint32))
    expand = Case("expand", [np.arange(2**17)], I64, (2**16, 2**17))
    assert expand.element(index) == column
    less = Case("lt", [A.reshape(-1, 1), y], BOOL, (2**16, 2**17))
    assert less.element(index) == int(A[row] < y[column])


def test_a_plan_reaches_any_offset_of_its_arena() -> None:
    x, out = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    offset = 2**32 + 2**31 + 64  # the memory between is never touched
    steps = [
        ("neg", [], [], [(1, 0, int(F32), [64])], [(3, offset, int(F32), [64])], False),
        ("abs", [], [], [(1, 0, int(F32), [64])], [(3, 64, int(F32), [64])], False),
        ("sub", [], [], [(3, offset, int(F32), [64]), (3, 64, int(F32), [64])], [(4, 0, int(F32), [64])], False),
    ]
    _kernels.Plan(steps, offset + 256, None).run([], [x], [], [out], 1)
    assert out.tolist() == (-2 * x).tolist()


def test_a_tensor_of_2_to_31_elements() -> None:
    """Compared, summed, transposed and indexed: bools, 2 GiB each."""
    if machine_memory() < 12 * 2**30 and not os.environ.get("CI"):  # in CI nothing is skipped
        pytest.skip("needs 12 GiB of memory")
    rows, columns = 2**16, 2**15 + 1
    y = np.linspace(-1, 1, columns, dtype=np.float32)
    less = repops.lt(A.reshape(-1, 1), y)
    assert less.shape == (rows, columns) and less.size > 2**31
    for i in (0, 1, rows // 2, rows - 2, rows - 1):
        assert less[i].tobytes() == (A[i] < y).tobytes()
    counts = repops.sum(less, 1)
    assert counts.dtype == np.int64 and counts.tolist() == (columns - np.searchsorted(y, A, side="right")).tolist()
    picked = np.array([rows - 1, 3, rows - 2])
    assert repops.index_select(less, 0, picked).tobytes() == less[picked].tobytes()
    turned = repops.transpose(less, 0, 1)
    for i in (0, columns // 2, columns - 1):
        assert turned[i].tobytes() == less[:, i].tobytes()


def refused(call: Callable[[], Any], text: str) -> None:
    start = time.monotonic()
    with pytest.raises(repops.TensorError, match=text) as caught:
        call()
    assert caught.value.what and caught.value.where and caught.value.cure
    assert time.monotonic() - start < 20


def test_results_that_no_machine_holds_are_refused() -> None:
    big = torch.ones(1).expand(2**39)
    flags = torch.ones(1, dtype=torch.bool).expand(2**20, 2**20)
    for call in (
        lambda: repops.add(big, 1),
        lambda: repops.exp(big.view(2**19, 2**20)),
        lambda: repops.exp(big.numpy()),
        lambda: repops.exp(torch.ones(1).expand(2**39).requires_grad_()),
        lambda: repops.clone(big),
        lambda: repops.cat([big[: 2**38], big[: 2**38]]),
        lambda: repops.transpose(big.view(2**19, 2**20), 0, 1),
        lambda: repops.logical_not(flags),
        lambda: repops.mul(torch.ones(2**20, 1), torch.ones(1, 2**20)),
        lambda: repops.matmul(torch.ones(1).expand(2**20, 1), torch.ones(1).expand(1, 2**20)),
        lambda: repops.pad(torch.ones(1), (0, 2**39)),
        lambda: repops.sum(big),
        lambda: repops.softmax(big, 0),
        lambda: repops.sum(torch.ones(1).expand(2**39).requires_grad_()),
    ):
        refused(call, r"need \d+ bytes, this machine has")
    refused(lambda: repops.pad(torch.ones(1), (0, 2**41)), "2.40|too many|out of range")
    compiled = torch.compile(lambda x: x + 1, backend="repops", dynamic=False)
    refused(lambda: compiled(big), r"need \d+ bytes")
    torch._dynamo.reset()


def test_no_elements_but_huge_dimensions() -> None:
    rows = torch.empty(2**39, 0)
    assert repops.exp(rows).shape == (2**39, 0)
    assert repops.transpose(rows, 0, 1).shape == (0, 2**39)
    assert repops.cat([rows, rows], 1).shape == (2**39, 0)
    assert repops.gather(rows, 1, rows.long()).shape == (2**39, 0)
    assert repops.index_select(rows, 0, torch.tensor([2**38])).shape == (1, 0)
    assert repops.embedding(torch.tensor([3]), rows).shape == (1, 0)
    assert repops.sum(rows, 0).shape == (0,)
    assert repops.sum(torch.empty(2**20, 0), 1).eq(0).all()
    assert repops.matmul(torch.empty(2**33, 0), torch.empty(0, 0)).shape == (2**33, 0)
    assert repops.layer_norm(torch.empty(2**30, 0), (0,)).shape == (2**30, 0)
    refused(lambda: repops.sum(rows, 1), "need")
    refused(lambda: repops.softmax(torch.empty(0, 2**39), 1), "too many links")
    refused(lambda: repops.exp(torch.empty(0, 2**39, 4)), "too many elements")


def test_shapes_whose_product_overflows_are_refused_by_the_kernels_too() -> None:
    for shape in ([2**32, 2**32], [2**39, 2**39, 0], [0, 2**39, 2**39], [2**40], [2**21, 2**20], [-1]):
        empty = (np.zeros(0, np.float32), int(F32), shape)
        with pytest.raises(ValueError, match="outside the limits"):
            _kernels.run("neg", None, 1, [], [], [empty], empty)


def test_programs_whose_index_spaces_overflow_are_refused() -> None:
    for shape in ((2**39, 2**39, 0), (0, 2**21, 2**20)):
        with pytest.raises(repops.ProgramError, match="too many elements"):
            check_tensor_type(F32, shape, "node 0")
    shapes = [tuple(2**20 if j == i else 1 for j in range(4)) for i in range(4)]
    inputs = tuple(Input(Ref.batch(i), F32, shape) for i, shape in enumerate(shapes))
    node = Node("sum_mul_normalized", (4, 0, 1, 2, 3, 0, 2**14), (), inputs, F32, (1, 1, 1, 1))
    with pytest.raises(RuleViolation, match="broadcast to too much"):
        OPERATORS[node.op].rule(node)
