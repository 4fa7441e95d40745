"""Chains of pointwise nodes: they are found, nothing inside them is stored, and their bits are the nodes' own."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_calls import BF16
from programs import BOOL, F32, I64, captured, read

import repops
from repops import _kernels
from repops.chains import find_chains
from repops.dtypes import DType
from repops.execute import fused_kernels
from repops.graph.ir import BatchTensor, Input, Node, Program, Ref, Shape, Slot, element_count
from repops.ops.rules import broadcast, fold_ranges
from repops.plan import Compiler

VECTOR_ISAS = [isa for isa in _kernels.isas() if isa != "scalar"]
LITERAL = 0x3F800001
SPECIALS = np.array([0, -0.0, np.inf, -np.inf, np.nan, 1e-42, -3e38, 1], np.float32)

# Operators by the dtypes they read and the one they give.
SIGNATURES: list[tuple[str, tuple[DType, ...], DType, int]] = [
    *((op, (F32, F32), F32, 0) for op in ("add", "sub", "mul", "div", "maximum", "relu_grad", "gelu_tanh_grad")),
    *((op, (F32,), F32, 0) for op in ("neg", "exp", "sqrt", "tanh")),
    ("rstd", (F32,), F32, 2),
    ("layer_norm", (F32,) * 5, F32, 0),
    ("softmax", (F32,) * 3, F32, 0),
    ("where", (BOOL, F32, F32), F32, 0),
    ("lt", (F32, F32), BOOL, 0),
    ("add", (I64, I64), I64, 0),
    ("logical_xor", (BOOL, BOOL), BOOL, 0),
    ("cast", (I64,), F32, 0),
    ("cast", (F32,), BOOL, 0),
    ("cast", (BOOL,), I64, 0),
    ("mul", (BF16, F32), BF16, 0),
    ("silu", (BF16,), BF16, 0),
    ("cast", (F32,), BF16, 0),
    ("cast", (BF16,), F32, 0),
]


def views(shape: Shape) -> list[Shape]:
    """Shapes that broadcast to a shape."""
    thinner = [
        tuple(shape[i] if keep else 1 for i, keep in enumerate(keeps)) for keeps in product((0, 1), repeat=len(shape))
    ]
    return sorted({s[k:] for s in thinner for k in range(len(s) + 1) if all(d == 1 for d in s[:k])})


@st.composite
def pointwise_programs(draw: st.DrawFn) -> Program:
    """Random graphs of pointwise nodes and a few permutations, over shapes with the same number of elements."""
    base: Shape = draw(st.sampled_from([(6,), (2, 3), (3, 5, 2), (2, 70), (3, 600), (1100,), (2, 1, 4)]))
    folded = (element_count(base),) if len(base) > 1 else (*base, 1)
    slots = [(F32, base), (F32, base), (I64, base), (BOOL, base), (F32, (1,)), (BF16, base)]
    batch = [(F32, base[-1:]), (F32, (*base[:-1], 1)), (F32, ()), (BOOL, base[-1:]), (I64, ()), (BF16, base[-1:])]
    pool: list[tuple[Ref, DType, Shape]] = [(Ref.state(i), d, s) for i, (d, s) in enumerate(slots)]
    pool += [(Ref.batch(i), d, s) for i, (d, s) in enumerate(batch)]
    nodes: list[Node] = []
    for index in range(draw(st.integers(2, 14))):
        if draw(st.integers(0, 9)) == 0:
            ref, dtype, shape = draw(st.sampled_from([p for p in pool if len(p[2]) == len(base)]))
            node = Node("permute", tuple(range(len(shape))), (), (Input(ref, dtype, shape),), dtype, shape)
        else:
            op, dtypes, out, literals = draw(st.sampled_from(SIGNATURES))
            target = draw(st.sampled_from([base, base, folded]))
            inputs = []
            for dtype in dtypes:
                fitting = [
                    (ref, view)
                    for ref, d, shape in pool
                    for view in views(target)
                    if d is dtype and element_count(view) == element_count(shape)
                ]
                ref, view = draw(st.sampled_from(fitting[-8:] if draw(st.booleans()) else fitting))
                inputs.append(Input(ref, dtype, view))
            shape = broadcast([i.shape for i in inputs])
            node = Node(op, (), (LITERAL,) * literals, tuple(inputs), out, shape)
        nodes.append(node)
        pool.append((Ref.node(index), node.dtype, node.shape))
    updates = []
    for i, (dtype, shape) in enumerate(slots):
        alike = [r for r, d, s in pool if d is dtype and element_count(s) == element_count(shape)]
        updates.append(draw(st.sampled_from([r for r in alike if r.kind.name == "NODE"] or [Ref.state(i)])))
    return Program(
        tuple(Slot(f"s{i}", d, s, u) for i, ((d, s), u) in enumerate(zip(slots, updates, strict=True))),
        tuple(BatchTensor(f"b{i}", d, s) for i, (d, s) in enumerate(batch)),
        (),
        tuple(nodes),
    ).check()


def filled(dtype: DType, shape: Shape, rng: np.random.Generator) -> Any:
    if dtype is F32:
        values = rng.standard_normal(shape).astype(np.float32)
        return np.where(rng.random(shape) < 0.1, rng.choice(SPECIALS, shape), values).astype(np.float32)
    if dtype is BF16:
        return (np.asarray(filled(F32, shape, rng)).view(np.uint32) >> 16).astype(np.uint16).view(BF16.numpy)
    if dtype is I64:
        return np.asarray(rng.integers(-(2**63), 2**63 - 1, shape, np.int64))
    return np.asarray(rng.integers(0, 2, shape), np.bool_)


def bits(tensors: dict[str, Any]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in tensors.items()}


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(pointwise_programs(), st.integers(0, 2**32))
def test_random_pointwise_graphs_are_the_same_in_chains(program: Program, seed: int) -> None:
    rng = np.random.default_rng(seed)
    state = {s.name: filled(s.dtype, s.shape, rng) for s in program.slots}
    batch = {b.name: filled(b.dtype, b.shape, rng) for b in program.batch}
    walk = repops.Executor(program).walk(state, batch)
    for _ in walk:
        pass
    expected = bits(walk.state())
    for isa, threads in product(VECTOR_ISAS, (1, 3)):
        executor = repops.Executor(program, threads=threads, isa=isa)
        assert bits(executor.run(state, batch)) == expected
    own = {name: array.copy() for name, array in state.items()}
    assert bits(repops.Executor(program).run(own, batch, donate=True)) == expected


@pytest.mark.parametrize("isa", VECTOR_ISAS)
def test_an_optimizer_step_is_one_call_for_each_parameter(isa: str) -> None:
    program = captured("transformer-adamw")[0]
    parameters = sum(s.name.startswith("exp_avg/") for s in program.slots)
    calls = Compiler(program, fused_kernels(isa)).calls
    in_slots = [call for call in calls if [o[0] for o in call[4]] == [4, 4, 4]]
    assert len(in_slots) == parameters and {call[0] for call in in_slots} == {"adamw"}
    assert "sqrt" not in [call[0] for call in calls]


@pytest.mark.parametrize("isa", VECTOR_ISAS)
def test_special_values_in_an_optimizer_step(isa: str) -> None:
    program = captured("mlp-adamw")[0]
    assert "adamw" in [call[0] for call in Compiler(program, fused_kernels(isa)).calls]
    rng = np.random.default_rng(2)
    state = {s.name: filled(s.dtype, s.shape, rng) for s in program.slots}
    batch = {b.name: filled(b.dtype, b.shape, rng) for b in program.batch}
    batch |= {name: np.abs(array) for name, array in batch.items() if name.startswith("adam.")}
    expected = bits(repops.Executor(program, isa="scalar").run(state, batch))
    for fuse, threads in product((False, True), (1, 3)):
        assert bits(repops.Executor(program, threads, isa, fuse=fuse).run(state, batch)) == expected


@pytest.mark.parametrize("isa", VECTOR_ISAS)
def test_an_optimizer_that_shares_a_node_is_still_right(isa: str) -> None:
    """Its inside is read elsewhere: no group, and what is left is chains."""
    program = captured("mlp-adamw")[0]
    root = next(i for i, n in enumerate(program.nodes) if n.op == "sqrt")
    seen = replace(
        program, slots=(*program.slots, Slot("root", F32, program.nodes[root].shape, Ref.node(root)))
    ).check()
    calls = [call[0] for call in Compiler(seen, fused_kernels(isa)).calls]
    assert calls.count("adamw") == [c[0] for c in Compiler(program, fused_kernels(isa)).calls].count("adamw") - 1
    rng = np.random.default_rng(3)
    state = {s.name: np.asarray(np.abs(filled(s.dtype, s.shape, rng))) for s in seen.slots}
    batch = {b.name: np.asarray(np.abs(filled(b.dtype, b.shape, rng))) for b in seen.batch}
    expected = bits(repops.Executor(seen, isa="scalar").run(state, batch))
    assert bits(repops.Executor(seen, 2, isa).run(state, batch, donate=True)) == expected


def cross_entropy_program(rows: int, classes: int, value: int) -> Program:
    """The gradient of log_softmax and a one-hot gather, as it is captured."""
    full, one = (rows, classes), (rows, 1)
    x, index, scale = Ref.batch(0), Input(Ref.batch(1), I64, one), read(Ref.batch(2), *one)
    nodes = [
        Node("fill", (), (0,), (), F32, full),
        Node("scatter", (1,), (value,), (read(Ref.node(0), *full), index), F32, full),
        Node("mul", (), (), (read(Ref.node(1), *full), scale), F32, full),
    ]
    for start, stop in fold_ranges(classes):
        carry = (read(Ref.node(len(nodes) - 1), *one),) if start else ()
        nodes.append(Node("sum", (1, 1, start, stop), (), (read(Ref.node(2), *full), *carry), F32, one))
    total = read(Ref.node(len(nodes) - 1), *one)
    nodes.append(Node("exp", (), (), (read(x, *full),), F32, full))
    nodes.append(Node("mul", (), (), (read(Ref.node(len(nodes) - 1), *full), total), F32, full))
    nodes.append(Node("sub", (), (), (read(Ref.node(2), *full), read(Ref.node(len(nodes) - 1), *full)), F32, full))
    batch = (BatchTensor("x", F32, full), BatchTensor("index", I64, one), BatchTensor("scale", F32, one))
    return Program((Slot("dx", F32, full, Ref.node(len(nodes) - 1)),), batch, (), tuple(nodes)).check()


@pytest.mark.parametrize(("classes", "value"), product((1, 5, 16, 100, 40_000), (0xBF800000, 0, 0x7F800000)))
def test_the_gradient_of_a_cross_entropy_is_one_call(classes: int, value: int) -> None:
    scales = np.array([0.25, -2, 0, -0.0, 1e-42, 3e38, np.inf, -np.inf, np.nan], np.float32)
    targets = np.array([0, classes - 1, classes, -1, 2**40, -(2**63)])
    rows = len(scales) * len(targets)
    rng = np.random.default_rng(classes)
    batch = {
        "x": filled(F32, (rows, classes), rng),
        "index": np.tile(targets, len(scales))[:, None],
        "scale": np.repeat(scales, len(targets))[:, None],
    }
    program = cross_entropy_program(rows, classes, value)
    state = {"dx": np.zeros((rows, classes), np.float32)}
    expected = bits(repops.Executor(program, fuse=False).run(state, batch))
    for isa, threads in product(VECTOR_ISAS, (1, 3)):
        assert [call[0] for call in Compiler(program, fused_kernels(isa)).calls] == ["cross_entropy_backward"]
        assert bits(repops.Executor(program, threads, isa).run(state, batch)) == expected


def chain_of(nodes: list[Node], *updates: int) -> list[tuple[int, ...]]:
    slots = tuple(Slot(f"s{k}", F32, nodes[i].shape, Ref.node(i)) for k, i in enumerate(updates))
    batch = (BatchTensor("x", F32, (4, 6)), BatchTensor("row", F32, (6,)), BatchTensor("eight", F32, (8, 1)))
    program = Program(slots, batch, (), tuple(nodes)).check()
    return [chain.nodes for chain in find_chains(program, [], _kernels.pointwise())]


X, ROW, EIGHT = Ref.batch(0), Ref.batch(1), Ref.batch(2)


def test_a_chain_ends_where_somebody_else_reads() -> None:
    add = Node("add", (), (), (read(X, 4, 6), read(ROW, 6)), F32, (4, 6))
    neg = Node("neg", (), (), (read(Ref.node(0), 4, 6),), F32, (4, 6))
    turned = Node("permute", (1, 0), (), (read(Ref.node(1), 4, 6),), F32, (6, 4))
    late = Node("mul", (), (), (read(Ref.node(1), 4, 6), read(Ref.node(2), 4, 6)), F32, (4, 6))
    assert chain_of([add, neg, turned, late], 3) == [(0, 1)]
    assert chain_of([add, neg, replace_read(late, Ref.node(0))], 2) == [(0, 1, 2)]


def replace_read(node: Node, ref: Ref) -> Node:
    return Node(node.op, node.params, node.literals, (node.inputs[0], Input(ref, F32, (4, 6))), node.dtype, node.shape)


def test_shapes_join_where_they_cut_the_elements_alike() -> None:
    rows = Node("add", (), (), (read(X, 4, 6), read(ROW, 6)), F32, (4, 6))
    flat = Node("neg", (), (), (read(Ref.node(0), 24),), F32, (24,))
    by_three = Node("mul", (), (), (read(Ref.node(1), 8, 3), read(EIGHT, 8, 1)), F32, (8, 3))
    by_eight = Node("mul", (), (), (read(Ref.node(1), 3, 8), read(EIGHT, 1, 8)), F32, (3, 8))
    assert chain_of([rows, flat, by_three], 2) == [(0, 1, 2)]
    assert chain_of([rows, flat, by_eight], 2) == [(0, 1)], "rows of 6 and of 8"
