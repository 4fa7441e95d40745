"""Every operator's program gives the kernels' bits, within its bound."""

from __future__ import annotations

import numpy as np
import pytest
from golden_cases import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import Both
from nodes import random_node

from repops.dtypes import DType
from repops.execute import execute_node
from repops.graph.ir import Input, Node, Ref, Shape
from repops.ops.table import OPERATORS
from repops.vm import NodeRun
from repops.vm.programs import NAMES, image

F32, I64 = DType.F32, DType.I64
LONG = 16_384  # terms of the longest fold
LIMIT = 2**20  # instructions


@pytest.mark.parametrize("op", OPERATORS)
def test_every_operator_has_a_program(op: str) -> None:
    assert op in NAMES, f"operator {op!r} has no RepVM program: write one in repops/vm/programs"


def test_every_program_has_an_operator() -> None:
    assert set(NAMES) <= set(OPERATORS)


def compare(node: Node, inputs: list[np.ndarray], elements: int, rng: np.random.Generator) -> int:
    """Compares some elements, the first and the last among them; how many."""
    run = NodeRun(node, inputs)
    out = np.ascontiguousarray(execute_node(node, inputs))
    patterns = out.reshape(-1).view(f"u{out.itemsize}")
    chosen = {0, out.size - 1, *rng.integers(0, out.size, elements).tolist()} if out.size else set()
    for element in chosen:
        value, instructions = run.run(element)
        where = f"{node}, element {element}"
        assert value == int(patterns[element]), f"{value:#x}, not {int(patterns[element]):#x}: {where}"
        assert instructions <= run.image.bound(node) <= 2**run.height, f"{instructions} instructions: {where}"
    return len(chosen)


@pytest.mark.parametrize("op", NAMES)
def test_golden_cases(op: str) -> None:
    """Short folds in every case; of long ones, which take a millisecond or more a run, one in four."""
    rng = np.random.default_rng(1)
    compared = 0
    for number, case in enumerate(cases(op)):
        long = image(op).bound(case.node) > 20_000
        if not long or number % 4 == 0:
            compared += compare(case.node, [d.array() for d in case.inputs], 0 if long else 3, rng)
    assert compared > 0


@pytest.mark.parametrize("op", NAMES)
@settings(max_examples=25, deadline=None, database=None)
@given(seed=st.integers(0, 2**32))
def test_random_shapes_and_hostile_data(op: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    node, inputs = random_node(op, rng)
    compare(node, inputs, 3, rng)


@pytest.mark.parametrize("op", NAMES)
def test_both_interpreters_on_every_program(op: str) -> None:
    """Whole states after every instruction, the first 400 of them; the trace's leaves are their hashes."""
    compared = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        node, inputs = random_node(op, rng)
        size = int(np.prod(node.shape, dtype=np.int64))
        if size == 0 or image(op).bound(node) > 50_000:
            continue
        run = NodeRun(node, inputs)
        both = Both(list(run.image.words), node, inputs, run.height)
        both.check(int(rng.integers(size)), limit=400)
        compared += 1
        if compared == 2:
            return
    pytest.fail("no node with a short run")


# ---- the longest runs ------------------------------------------------------------------------------------------------


def long_node(
    op: str, shapes: list[Shape], out: Shape, params: tuple[int, ...], literals: int = 0, dtype: DType = F32
) -> Node:
    """f32, but for an index. Checked by the operator's rule."""
    indexed = op in ("embedding_grad", "max_pool_grad")
    dtypes = [I64 if op == "cumsum" or (indexed and k == 1) else F32 for k in range(len(shapes))]
    inputs = tuple(Input(Ref.batch(k), d, s) for k, (d, s) in enumerate(zip(dtypes, shapes, strict=True)))
    node = Node(op, params, (0x3F800000,) * literals, inputs, dtype, out)
    OPERATORS[op].rule(node)
    return node


def second_link(op: str, shapes: list[Shape], out: Shape, params: tuple[int, ...]) -> Node:
    """The link of terms 16,384 to 32,767, with a carry."""
    return long_node(op, [*shapes, out], out, (*params, LONG, 2 * LONG))


def deep(shape: Shape) -> Shape:
    """Eight axes, the greatest rank: the most work to find an element."""
    return (*shape, *(1,) * (8 - len(shape)))


def longest() -> dict[str, Node]:
    """The node of each fold and attention operator whose elements take the most instructions."""
    rows, row = deep((2, 2, 2 * LONG)), deep((2, 2, 1))
    arity = {
        "sum": 1,
        "amax": 1,
        "sum_sq": 1,
        "sum_mul": 2,
        "sum_sq_centered": 2,
        "sum_exp": 2,
        "sum_mul_normalized": 4,
    }
    nodes = {op: second_link(op, [rows] * n, row, (1, 2)) for op, n in arity.items()}
    nodes["matmul"] = second_link("matmul", [(2, 3, 2 * LONG), (2, 2 * LONG, 3)], (2, 3, 3), (0, 0))
    nodes["embedding_grad"] = second_link("embedding_grad", [(2 * LONG, 3), (2 * LONG,)], (2, 3), ())
    unit = (1, 1, 1, 0, 0, 1, 1)
    wide = (1, 4, 32, 256)  # 2 * LONG positions
    nodes["conv2d"] = second_link("conv2d", [wide, (1, *wide[1:])], (1, 1, 1, 1), unit)
    nodes["conv2d_dx"] = second_link("conv2d_dx", [(1, 4, 1, 1), (4, 1, *wide[2:])], (1, 1, *wide[2:]), unit)
    nodes["conv2d_dw"] = second_link("conv2d_dw", [(1, 1, 128, 256), (1, 1, 128, 256)], (1, 1, 1, 1), unit)
    tall, point = (1, LONG, 1), (1, 1, 1)  # the work for a row comes with every tap
    for op, last in (("max_pool", (1, 1)), ("max_pool_index", (1, 1)), ("avg_pool", (1, 0))):
        dtype = I64 if op == "max_pool_index" else F32
        nodes[op] = long_node(op, [tall], point, (LONG, 1, 1, 1, 0, 0, *last), dtype=dtype)
    every = (LONG, 1, 1, 1, LONG // 2, 0)  # every window has every position, about
    nodes["max_pool_grad"] = long_node("max_pool_grad", [tall, tall], tall, (*every, 1, 1))
    nodes["avg_pool_grad"] = long_node("avg_pool_grad", [tall], tall, (*every, 1, 0))
    nodes["cumsum"] = long_node("cumsum", [deep((2, LONG))], deep((2, LONG)), (1,), dtype=I64)
    square, head, column = (1, LONG, LONG), (1, LONG, 2), (1, LONG, 1)
    deep_head = (1, 2, LONG)
    nodes["attention_scores"] = long_node("attention_scores", [deep_head, deep_head], (1, 2, 2), (0,), 1)
    nodes["attention_dp"] = long_node("attention_dp", [deep_head, deep_head], (1, 2, 2), (0,))
    nodes["attention_max"] = long_node("attention_max", [square], column, (1,))
    nodes["attention_sum"] = long_node("attention_sum", [square, column], column, (1,))
    nodes["attention_out"] = long_node("attention_out", [square, column, column, head], head, (1,))
    nodes["attention_dv"] = long_node("attention_dv", [square, column, column, head], head, (1,))
    nodes["attention_ds"] = long_node("attention_ds", [square, column, column, square, column], square, (1,))
    nodes["attention_dq"] = long_node("attention_dq", [square, head], head, (1,), 1)
    nodes["attention_dk"] = long_node("attention_dk", [square, head], head, (1,), 1)
    return nodes


def test_the_longest_nodes_stay_within_the_limit() -> None:
    nodes = longest()
    assert set(nodes) >= {op for op in OPERATORS if "_pool" in op or op.startswith(("attention", "conv"))}
    bounds = {op: image(op).bound(node) for op, node in nodes.items()}
    assert all(bound <= LIMIT for bound in bounds.values()), bounds
    assert {op: image(op).height(node) <= 20 for op, node in nodes.items()} == dict.fromkeys(nodes, True)


def test_a_full_sum_of_exponentials_halts_in_time() -> None:
    rng = np.random.default_rng(2)
    rows, row = deep((2 * LONG,)), deep((1,))
    node = second_link("sum_exp", [rows, rows], row, (1, 0))
    inputs = [rng.standard_normal(i.shape).astype(np.float32) for i in node.inputs]
    assert compare(node, inputs, 0, rng) == 1
    assert NodeRun(node, inputs).run(0)[1] > 2**19


def test_a_full_attention_gradient_halts_in_time() -> None:
    rng = np.random.default_rng(3)
    s, column, head = (1, LONG, 2), (1, LONG, 1), (1, LONG, 1)
    node = long_node("attention_dv", [s, column, column, head], (1, 2, 1), (0,))
    inputs = [rng.standard_normal(i.shape).astype(np.float32) for i in node.inputs]
    assert compare(node, inputs, 0, rng) == 2
    assert NodeRun(node, inputs).run(0)[1] > 2**19
