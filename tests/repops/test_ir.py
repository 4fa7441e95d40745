"""Program.check: every rule has a program that breaks it, and the error names the place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from programs import BOOL, F32, I64, read, sgd_program

from repops.commit import height
from repops.dtypes import DType
from repops.errors import ProgramError
from repops.graph.ir import BatchTensor, Constant, Input, Node, Program, Ref, RefKind, Slot, tile_height


def test_a_good_program_passes_and_returns_itself() -> None:
    program = sgd_program()
    assert program.check() is program
    assert program.trace_length == 5 + 3 and program.trace_node(7) is program.hash_nodes[-1]
    with pytest.raises(ProgramError, match="no trace node 8"):
        program.trace_node(8)


def with_node(index: int, **changes: object) -> Program:
    program = sgd_program()
    nodes = list(program.nodes)
    nodes[index] = replace(nodes[index], **changes)  # type: ignore[arg-type]
    return replace(program, nodes=tuple(nodes))


def with_slot(**changes: object) -> Program:
    program = sgd_program()
    return replace(program, slots=(replace(program.slots[0], **changes), *program.slots[1:]))  # type: ignore[arg-type]


HUGE = 2**40
BROKEN: dict[str, tuple[Program, str]] = {
    "self reference": (with_node(1, inputs=(read(Ref.node(1), 2, 3), read(Ref.constant(0), 2, 3))), "node 1"),
    "forward reference": (with_node(1, inputs=(read(Ref.node(3), 2, 3), read(Ref.constant(0), 2, 3))), "node 1"),
    "missing batch tensor": (with_node(3, inputs=(read(Ref.node(2), 4, 3), read(Ref.batch(3)))), "node 3.*input 1"),
    "negative ref": (with_node(3, inputs=(read(Ref.node(2), 4, 3), read(Ref.batch(-1)))), "node 3.*input 1"),
    "zero ref": (with_node(3, inputs=(read(Ref.node(2), 4, 3), read(Ref.zero()))), "node 3.*input 1"),
    "wrong dtype": (with_node(3, inputs=(read(Ref.node(2), 4, 3, dtype=I64), read(Ref.batch(2)))), "node 3.*input 0"),
    "wrong count": (with_node(3, inputs=(read(Ref.node(2), 4, 4), read(Ref.batch(2)))), "node 3.*input 0"),
    "unknown operator": (with_node(1, op="launch"), "unknown operator 'launch'"),
    "hash as operator": (with_node(1, op="hash"), "unknown operator 'hash'"),
    "arity": (with_node(3, inputs=(read(Ref.node(2), 4, 3),)), "node 3.*1 inputs"),
    "params": (with_node(3, params=(1,)), "node 3.*1 params"),
    "literals": (with_node(3, literals=(1,)), "node 3.*1 literals"),
    "output shape": (with_node(3, shape=(3, 4)), r"node 3.*\[3, 4\]"),
    "output dtype": (with_node(3, dtype=I64), "node 3.*i64"),
    "root dtype": (with_node(3, dtype=DType.ROOT), "node 3"),
    "matmul range": (with_node(0, params=(0, 0, 0, 3)), r"node 0.*\[0, 3\)"),
    "matmul start": (with_node(0, params=(0, 0, 16_384, 16_388)), "node 0"),
    "matmul flag": (with_node(0, params=(2, 0, 0, 4)), "node 0.*ta"),
    "param width": (with_node(0, params=(0, 0, 0, 2**63)), "node 0.*int64"),
    "literal width": (with_node(3, literals=(2**64,)), "node 3.*uint64"),
    "inputs limit": (with_node(3, inputs=(read(Ref.batch(2)),) * 65), "65 inputs"),
    "params limit": (with_node(3, params=(0,) * 65), "65 params"),
    "literals limit": (with_node(3, literals=(0,) * 17), "17 literals"),
    "rank": (with_node(3, shape=(1,) * 9), "9 dimensions"),
    "dimension": (with_node(3, shape=(HUGE, 0)), str(HUGE)),
    "negative dimension": (with_node(3, shape=(-1, -12)), "-1"),
    "elements": (with_node(3, shape=(2**21, 2**20)), "too many elements"),
    "update count": (with_slot(update=Ref.node(0)), r"slot 0 \(weight\), update"),
    "update dtype": (with_slot(update=Ref.state(1)), r"slot 0 \(weight\), update"),
    "update missing": (with_slot(update=Ref.node(5)), r"slot 0 \(weight\), update"),
    "update zero": (with_slot(update=Ref.zero()), r"slot 0 \(weight\), update"),
    "empty name": (with_slot(name=""), "slot 0.*name"),
    "long name": (with_slot(name="\u00e9" * 129), "slot 0.*name"),
    "control name": (with_slot(name="a\nb"), "slot 0.*name"),
    "no-break space in a name": (with_slot(name="a\u00a0b"), "slot 0.*name"),
    "invisible name": (with_slot(name="a\u200b"), "slot 0.*name"),
    "surrogate name": (with_slot(name="\ud800"), "slot 0.*name"),
    "slot twice": (with_slot(name="count"), "slot 1.*count"),
    "batch twice": (
        replace(
            sgd_program(), batch=(BatchTensor("x", F32, (2, 4)), BatchTensor("x", F32, (3,)), BatchTensor("l", F32, ()))
        ),
        "batch tensor 1",
    ),
    "constant data": (
        replace(sgd_program(), constants=(Constant(F32, (2, 3), np.zeros((2, 3))), *sgd_program().constants[1:])),
        "constant 0",
    ),
    "constant shape": (
        replace(sgd_program(), constants=(Constant(F32, (2, 3), np.zeros(6, "f4")), *sgd_program().constants[1:])),
        "constant 0",
    ),
    "too many slots": (
        Program(tuple(Slot(f"s{i}", F32, (), Ref.state(i)) for i in range(2**16 + 1)), (), (), ()),
        "65537 slots",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_rule_is_named(case: str) -> None:
    program, match = BROKEN[case]
    with pytest.raises(ProgramError, match=match) as caught:
        program.check()
    assert caught.value.cure


def test_a_node_whose_elements_take_too_long_is_refused() -> None:
    """A scatter looks through the axis of its index; RepVM has 2^20 instructions."""
    for length, legal in ((149_000, True), (150_000, False)):
        program = one("scatter", [(F32, (3,)), (I64, (length,))], (0,), F32, (3,), 0)
        if legal:
            program.check()
            continue
        with pytest.raises(ProgramError, match=r"node 0 \(scatter\).*RepVM instructions") as caught:
            program.check()
        assert "1048576" in caught.value.cure


def test_a_trace_is_at_most_two_to_the_20_nodes() -> None:
    """Hash nodes count: with 2^16 slots there are 2^16 - 1 of them. The limit is checked before any node is."""
    slots = tuple(Slot(f"s{i}", F32, (), Ref.state(i)) for i in range(2**16))
    fill = Node("fill", (), (), (), F32, ())  # without its literal: refused where nodes are checked
    for count, match in ((2**20 - 2**16 + 1, "node 0"), (2**20 - 2**16 + 2, "a trace of 1048577 nodes")):
        with pytest.raises(ProgramError, match=match):
            Program(slots, (), (), (fill,) * count).check()


def one(
    op: str,
    inputs: list[tuple[DType, tuple[int, ...]]],
    params: tuple[int, ...],
    dtype: DType,
    shape: tuple[int, ...],
    *literals: int,
) -> Program:
    """A program of one node over batch tensors."""
    batch = tuple(BatchTensor(f"b{i}", d, s) for i, (d, s) in enumerate(inputs))
    reads = tuple(Input(Ref.batch(i), d, s) for i, (d, s) in enumerate(inputs))
    return Program(
        (Slot("out", dtype, shape, Ref.node(0)),), batch, (), (Node(op, params, literals, reads, dtype, shape),)
    )


X, ROW, ID = (F32, (2, 3)), (F32, (2, 1)), (I64, (2, 3))
GOOD = [
    one("add", [(I64, (2, 1)), (I64, (3,))], (), I64, (2, 3)),
    one("where", [(BOOL, (3,)), ID, (I64, ())], (), I64, (2, 3)),
    one("cast", [X], (), BOOL, (2, 3)),
    one("sum", [(BOOL, (2, 3))], (2, 0, 1, 0, 6), I64, (1, 1)),
    one("sum", [(F32, (2, 0))], (1, 1, 0, 0), F32, (2, 1)),
    one("sum", [(F32, (16_385,)), (F32, (1,))], (1, 0, 16_384, 16_385), F32, (1,)),
    one("sum_exp", [X, ROW], (1, 1, 0, 3), F32, (2, 1)),
    one("matmul", [(F32, (5, 3, 2)), (F32, (5, 4, 3))], (1, 1, 0, 3), F32, (5, 2, 4)),
    one(
        "attention_out", [(F32, (1, 2, 3)), (F32, (1, 2, 1)), (F32, (1, 2, 1)), (F32, (1, 3, 4))], (1,), F32, (1, 2, 4)
    ),
    one("slice", [X], (1, 0, 2), F32, (2, 2)),
    one("slice", [X], (1, 3, 1), F32, (2, 0)),
    one("slice_grad", [X], (0, 1, 3), F32, (5, 3)),
    one("cat", [X, (F32, (4, 3))], (0,), F32, (6, 3)),
    one("gather", [X, (I64, (1, 9))], (1,), F32, (1, 9)),
    one("scatter", [X, (I64, (2, 1))], (1,), F32, (2, 3), 0xFFFFFFFF),
    one("embedding", [X, (I64, (4, 5))], (), F32, (4, 5, 3)),
    one("embedding_grad", [X, (I64, (2,))], (0, 2), F32, (9, 3)),
    one("iota", [], (5, -1), I64, (2, 2)),
    one("cast", [(DType.F16, (2,))], (), DType.I32, (2,)),
    one("add", [(DType.BF16, (2,)), (F32, (2,))], (), DType.F16, (2,)),
    one("sum", [(DType.BF16, (16_385,)), (F32, (1,))], (1, 0, 16_384, 16_385), DType.BF16, (1,)),
    one("matmul", [(DType.F16, (2, 3)), (DType.BF16, (3, 4))], (0, 0, 0, 3), DType.BF16, (2, 4)),
    one("gather", [X, (DType.I32, (2, 3))], (1,), F32, (2, 3)),
    one("fill", [], (), BOOL, (2,), 1),
    one("permute", [(BOOL, (2, 3, 4))], (2, 0, 1), BOOL, (4, 2, 3)),
    one("expand", [(F32, (3, 1))], (), F32, (2, 3, 5)),
]
BAD = [
    one("add", [X, (I64, (2, 3))], (), F32, (2, 3)),
    one("add", [(BOOL, (2,)), (BOOL, (2,))], (), BOOL, (2,)),
    one("add", [X, (F32, (2, 4))], (), F32, (2, 4)),
    one("add", [X, X], (), F32, (1, 2, 3)),
    one("where", [X, X, X], (), F32, (2, 3)),
    one("cast", [(DType.F16, (2,))], (), F32, (3,)),
    one("add", [(DType.I32, (2,)), (I64, (2,))], (), I64, (2,)),
    one("exp", [(I64, (2,))], (), DType.BF16, (2,)),
    one("where", [(BOOL, (2,)), (F32, (2,)), (DType.BF16, (2,))], (), F32, (2,)),
    one("permute", [(F32, (2, 3))], (1, 0), DType.BF16, (3, 2)),
    one("gather", [X, (BOOL, (2, 3))], (1,), F32, (2, 3)),
    one("sum", [(DType.BF16, (16_385,))], (1, 0, 0, 16_384), DType.BF16, (1,)),
    one("sum", [(DType.BF16, (16_385,)), (DType.BF16, (1,))], (1, 0, 16_384, 16_385), DType.BF16, (1,)),
    one("sum", [X], (0, 0, 6), F32, (2, 3)),
    one("sum", [X], (1, 2, 0, 3), F32, (2, 3)),
    one("sum", [(F32, (2, 3, 4))], (2, 0, 2, 0, 8), F32, (1, 3, 1)),
    one("sum", [X], (2, 1, 0, 0, 6), F32, (1, 1)),
    one("sum", [X], (1, 1, 0, 2), F32, (2, 1)),
    one("sum", [X, ROW], (1, 1, 0, 3), F32, (2, 1)),
    one("sum", [(F32, (16_385,))], (1, 0, 16_384, 16_385), F32, (1,)),
    one("sum", [(F32, (16_385,)), (F32, ())], (1, 0, 16_384, 16_385), F32, (1,)),
    one("amax", [ID], (1, 1, 0, 3), I64, (2, 1)),
    one("matmul", [(F32, (2, 3)), (F32, (4, 3))], (0, 0, 0, 3), F32, (2, 3)),
    one("matmul", [(F32, (2, 2, 3)), (F32, (1, 3, 4))], (0, 0, 0, 3), F32, (2, 2, 4)),
    one("attention_max", [(F32, (1, 2, 3))], (2,), F32, (1, 2, 1)),
    one("attention_max", [(F32, (2, 3))], (0,), F32, (2, 1)),
    one("attention_scores", [(F32, (1, 2, 3)), (F32, (1, 4, 3))], (0,), F32, (1, 2, 4)),
    one("attention_dp", [(F32, (1, 16_385, 1)), (F32, (1, 1, 1))], (0,), F32, (1, 16_385, 1)),
    one("slice", [X], (1, 0, 2), F32, (2, 3)),
    one("slice", [X], (1, -1, 1), F32, (2, 1)),
    one("slice", [X], (2, 0, 1), F32, (2, 3)),
    one("slice", [X], (0, 0, 0), F32, (2, 3)),
    one("slice_grad", [X], (0, 4, 1), F32, (5, 3)),
    one("cat", [], (0,), F32, (0,)),
    one("cat", [X, (F32, (2, 4))], (0,), F32, (4, 3)),
    one("gather", [X, (I64, (3, 3))], (1,), F32, (3, 3)),
    one("gather", [X, (F32, (2, 3))], (1,), F32, (2, 3)),
    one("scatter", [X, (I64, (2, 1))], (1,), F32, (2, 3), 2**32),
    one("embedding", [X, (I64, (1,) * 8)], (), F32, (*(1,) * 8,)),
    one("embedding", [X, (F32, (4,))], (), F32, (4, 3)),
    one("embedding", [(DType.BF16, (2, 3)), (I64, (4,))], (), F32, (4, 3)),
    one("rstd", [X], (), F32, (2, 3), 0x3F800000, 2**32),
    one("rstd", [X], (), F32, (2, 3), 0x3F800000),
    one("slice", [X], (1, 4, 1), F32, (2, 0)),
    one("cat", [X, ID], (0,), F32, (4, 3)),
    one("cat", [X], (2,), F32, (2, 3)),
    one("gather", [X, (I64, (3,))], (1,), F32, (3,)),
    one("scatter", [X, (I64, (3, 1))], (1,), F32, (2, 3), 0),
    one("scatter", [(BOOL, (2, 3)), ID], (1,), BOOL, (2, 3), 2),
    one("cumsum", [X], (0,), I64, (2, 3)),
    one(
        "attention_out", [(F32, (1, 2, 3)), (F32, (1, 2, 3)), (F32, (1, 2, 1)), (F32, (1, 3, 4))], (1,), F32, (1, 2, 4)
    ),
    one("max_pool_index", [(F32, (1, 4, 4))], (2, 2, 2, 2, 0, 0, 1, 1), DType.I32, (1, 2, 2)),
    one("avg_pool", [(F32, (1, 4, 4))], (2, 2, 2, 2, 0, 0, 2, 0), F32, (1, 2, 2)),
    one("avg_pool", [(F32, (1, 4, 4))], (2, 2, 2, 2, 0, 0, 0), F32, (1, 2, 2)),
    one("max_pool", [(F32, (1, 4, 4))], (2, 2, 2**31, 2, 0, 0, 1, 1), F32, (1, 1, 2)),
    one("embedding_grad", [X, (I64, (3,))], (0, 2), F32, (9, 3)),
    one("iota", [], (0, 1), F32, (2,)),
    one("fill", [], (), BOOL, (2,), 2),
    one("permute", [X], (0, 0), F32, (2, 2)),
    one("expand", [X], (), F32, (2, 4)),
    one("expand", [(F32, (2, 1, 3))], (), F32, (2, 3)),
]


@pytest.mark.parametrize("program", GOOD, ids=lambda p: p.nodes[0].op)
def test_rules_accept(program: Program) -> None:
    program.check()


@pytest.mark.parametrize("program", BAD, ids=lambda p: p.nodes[0].op)
def test_rules_refuse(program: Program) -> None:
    with pytest.raises(ProgramError, match=f"node 0 \\({program.nodes[0].op}\\)"):
        program.check()


def test_refs_as_text() -> None:
    for ref in (Ref.state(3), Ref.batch(0), Ref.constant(2), Ref.node(17)):
        assert Ref.parse(ref.text) == ref
    for text in (
        "",
        "node",
        "node:",
        "node:-1",
        "node:01",
        "node:+1",
        "node: 1",
        "node:\u0661",
        "zero:0",
        "Node:1",
        "node:1:2",
    ):
        with pytest.raises(ProgramError, match="not a ref"):
            Ref.parse(text)
    assert [kind.value for kind in RefKind] == [0, 1, 2, 3, 4]


def test_dtype_codes() -> None:
    codes = {"f32": 1, "bf16": 2, "f16": 3, "i64": 4, "i32": 5, "bool": 6, "root": 255}
    assert {dtype.text: int(dtype) for dtype in DType} == codes


def test_heights() -> None:
    assert [height(n) for n in (0, 1, 2, 3, 4, 5, 8, 9, 1024, 1025)] == [0, 0, 1, 2, 2, 3, 3, 4, 10, 11]
    assert tile_height(F32, (256,)) == 0 and tile_height(F32, (257,)) == 1 and tile_height(I64, (0, 5)) == 0
    assert tile_height(BOOL, (1025,)) == 1 and tile_height(F32, ()) == 0
