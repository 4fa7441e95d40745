"""What a trial found, for people: operands as numbers, for every kind of instruction that a program executes."""

from __future__ import annotations

import numpy as np
import pytest
from world import mlp, training_job

from node.exhibit import _instruction, pattern
from node.forgery import fault, forge
from node.work import Work
from repops.commit import Tree
from repops.dtypes import DType
from repops.vm import NodeRun
from repops.vm.machine import State


@pytest.fixture(scope="module")
def work() -> Work:
    work = Work(training_job(steps=1, interval=1))
    work.run()
    return work


NODES = range(len(mlp().nodes))


@pytest.mark.parametrize("node", NODES)
def test_every_instruction_of_a_run_can_be_shown(work: Work, node: int) -> None:
    run = work.node_run(0, node)
    _, count = run.run(0)
    for at in range(count + 1):
        text, operands, result = _instruction(run, 0, at)
        assert text
        for value in (*operands, *([result] if result else [])):
            assert value.hex.startswith("0x") and value.decimal
        if text.startswith("FFMA"):
            x, y, z = (np.float32(value.decimal) for value in operands)
            assert result is not None
            assert np.float32(float(x) * float(y) + float(z)) == pytest.approx(np.float32(result.decimal), rel=1e-5)


@pytest.mark.parametrize(
    ("bits", "dtype", "hex_", "decimal"),
    [
        (0x3FC00000, DType.F32, "0x3fc00000", "1.5"),
        (0x3FC0, DType.BF16, "0x3fc0", "1.5"),
        (0x3E00, DType.F16, "0x3e00", "1.5"),
        (0xFFFFFFFFFFFFFFFE, DType.I64, "0xfffffffffffffffe", "-2"),
        (0xFFFFFFFE, DType.I32, "0xfffffffe", "-2"),
        (1, DType.BOOL, "0x01", "true"),
        (0x7FC00000, DType.F32, "0x7fc00000", "nan"),
    ],
)
def test_a_pattern_as_a_number(bits: int, dtype: DType, hex_: str, decimal: str) -> None:
    value = pattern("value", bits, dtype)
    assert (value.hex, value.decimal) == (hex_, decimal)


def first_difference(a: Tree, b: Tree) -> int:
    return next(i for i in range(1 << a.height) if a.leaf(i) != b.leaf(i))


@pytest.mark.parametrize("node", NODES)
def test_a_forged_run_is_right_but_for_one_instruction(work: Work, node: int) -> None:
    run = work.node_run(0, node)
    output, count = run.run(0)
    honest, value = run.trace(0).tree, output ^ 1 << 22
    tree = forge(run, 0, value)
    assert tree.leaf((1 << tree.height) - 1) == State.halt(value).hash
    assert 0 <= first_difference(honest, tree) < count
    assert forge(run, 0, output).root == honest.root


def test_a_fault_in_a_run_runs_on_to_another_value(work: Work) -> None:
    run: NodeRun = work.node_run(0, 0)
    output, count = run.run(3)
    moved = 0
    for at in range(count):
        value, tree = fault(run, 3, at, 20)
        assert tree.leaf((1 << tree.height) - 1) == State.halt(value).hash
        if tree.root != run.trace(3).tree.root:
            assert first_difference(run.trace(3).tree, tree) == at
        moved += value != output
    assert moved > 5
