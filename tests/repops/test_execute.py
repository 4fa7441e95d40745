"""The executor: every way of running gives the same bits, and wrong tensors are named."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from programs import F32, MODELS, captured, read, sgd_program, sgd_tensors

import repops
from repops import _kernels, commit
from repops.chains import CHAIN
from repops.errors import ProgramError, TensorError
from repops.execute import as_array, checked_isa, fused_kernels
from repops.fuse import find_groups
from repops.graph.ir import BatchTensor, Node, Program, Ref, Slot
from repops.ops.table import OPERATORS
from repops.plan import Compiler

Arrays = dict[str, np.ndarray[Any, Any]]


def arrays(tensors: dict[str, torch.Tensor]) -> Arrays:
    return {name: tensor.numpy().copy() for name, tensor in tensors.items()}


def bits(tensors: Arrays) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in tensors.items()}


def walked(program: Program, state: Arrays, batch: Arrays, **options: Any) -> Arrays:
    walk = repops.Executor(program, **options).walk(state, batch)
    for _ in walk:
        pass
    return walk.state()


def lively(state: Arrays) -> Arrays:
    """Nothing is zero, so that a mistaken place in memory shows."""
    rng = np.random.default_rng(3)
    return {
        name: np.asarray(array + rng.uniform(0.01, 0.02, array.shape), array.dtype)
        if array.dtype == np.float32
        else array
        for name, array in state.items()
    }


@pytest.mark.parametrize("model", MODELS)
def test_plan_walk_donation_and_instruction_sets_agree(model: str) -> None:
    program, _, tensors, batch_tensors = captured(model)
    state, batch = lively(arrays(tensors)), arrays(batch_tensors)
    expected = walked(program, state, batch, isa="scalar")
    before = bits(state)
    for isa, threads in product(_kernels.isas(), (1, 3)):
        executor = repops.Executor(program, threads=threads, isa=isa)
        for _ in range(2):
            assert bits(executor.run(state, batch)) == bits(expected)
        unfused = repops.Executor(program, threads=threads, isa=isa, fuse=False)
        assert bits(unfused.run(state, batch)) == bits(expected), "fused == unfused"
        assert bits(walked(program, state, batch, isa=isa, threads=threads)) == bits(expected)
    assert bits(state) == before, "a run leaves its inputs alone"
    own = {name: array.copy() for name, array in state.items()}
    new = repops.Executor(program).run(own, batch, donate=True)
    assert bits(new) == bits(expected)
    assert all(new[name] is own[name] for name in own), "donated buffers are the result"


def test_many_donated_steps_equal_many_plain_ones() -> None:
    program, _, tensors, batch_tensors = captured("transformer-adamw")
    batch, executor = arrays(batch_tensors), repops.Executor(program)
    plain, donated = arrays(tensors), arrays(tensors)
    for _ in range(5):
        plain = executor.run(plain, batch)
        donated = executor.run(donated, batch, donate=True)
    assert bits(plain) == bits(donated)


def test_a_profile_names_every_call_of_a_run_and_its_time() -> None:
    program, _, tensors, batch_tensors = captured("transformer-adamw")
    state, batch = arrays(tensors), arrays(batch_tensors)
    executor = repops.Executor(program)
    expected, own = bits(executor.run(state, batch)), arrays(tensors)
    times = executor.profile(own, batch, donate=True)
    assert bits(own) == expected, "a profile runs the step"
    calls = Compiler(program, fused_kernels(None)).calls
    assert [t.op for t in times] == [call[0] for call in calls]
    assert [t.outputs for t in times] == [tuple(tuple(o[3]) for o in call[4]) for call in calls]
    start = time.perf_counter()
    total = sum(t.seconds for t in executor.profile(state, batch))
    assert 0 < total < time.perf_counter() - start and min(t.seconds for t in times) >= 0


@pytest.mark.parametrize("model", MODELS)
def test_the_arena_is_reused(model: str) -> None:
    program = captured(model)[0]
    layout = Compiler(program)
    outputs = sum(int(np.prod(n.shape)) * n.dtype.itemsize for n in program.nodes)
    assert layout.arena_bytes < outputs / 2
    assert layout.written == {i for i, s in enumerate(program.slots) if s.update != Ref.state(i)}


VECTOR_ISAS = [isa for isa in _kernels.isas() if isa != "scalar"]


@pytest.mark.parametrize("isa", VECTOR_ISAS)
def test_groups_are_fused_and_their_inside_is_never_stored(isa: str) -> None:
    program = captured("causal-sgd")[0]
    fused, plain = Compiler(program, fused_kernels(isa)), Compiler(program)
    names = [call[0] for call in fused.calls]
    for name, count in (("layer_norm_forward", 3), ("layer_norm_backward", 3), ("log_softmax_forward", 1)):
        assert names.count(name) == count
    assert names.count("attention_forward") == names.count("attention_backward") == 1
    assert not [n for n in names if n in OPERATORS and (n.startswith("attention_") or OPERATORS[n].fused)]
    assert len(fused.calls) < len(plain.calls)


@pytest.mark.parametrize("isa", VECTOR_ISAS)
def test_the_table_lists_the_fused_kernels(isa: str) -> None:
    assert {o.fused for o in OPERATORS.values() if o.fused} | {CHAIN, "matmul_pack", "matmul_packed"} == set(
        _kernels.fused(isa)
    )


def test_a_group_whose_inside_is_read_elsewhere_is_not_fused() -> None:
    program = captured("causal-sgd")[0]
    scores = next(i for i, n in enumerate(program.nodes) if n.op == "attention_scores")
    slot = Slot("scores", F32, program.nodes[scores].shape, Ref.node(scores))
    seen = replace(program, slots=(*program.slots, slot)).check()
    kernels = ["attention_forward", "attention_backward", "layer_norm_forward"]
    assert {g.name for g in find_groups(seen, kernels)} == {"attention_backward", "layer_norm_forward"}
    assert find_groups(program, ["attention_forward"]) == [], "the backward nodes read the scores"


def test_trace_is_the_roots_of_every_output_and_ends_in_the_state_root() -> None:
    program, _, tensors, batch_tensors = captured("mlp-adamw")
    state, batch = arrays(tensors), arrays(batch_tensors)
    executor = repops.Executor(program, threads=2)
    roots = executor.trace(state, batch)
    assert roots.shape == (program.trace_length, 32) and roots.dtype == np.uint8
    walk = executor.walk(state, batch)
    outputs = [(step.index, step.node, commit.tensor_root(step.output)) for step in walk]
    assert [(i, n) for i, n, _ in outputs] == list(enumerate(program.nodes))
    assert b"".join(r for _, _, r in outputs) == roots[: len(outputs)].tobytes()
    slots = [commit.tensor_root(a) for a in executor.run(state, batch).values()]
    assert roots[len(outputs) :].tobytes() == commit.hash_node_roots(slots).tobytes()
    assert roots[-1].tobytes() == commit.state_root(slots)


def test_trace_of_a_program_with_every_kind_of_update() -> None:
    state, batch = sgd_tensors()
    program = sgd_program()
    roots = repops.Executor(program).trace(state, batch)
    new = repops.Executor(program).run(state, batch)
    assert roots[-1].tobytes() == commit.state_root([commit.tensor_root(a) for a in new.values()])
    assert new["last"].tobytes() == batch["y"].tobytes() and new["count"] == 7
    x, lr = batch["x"].astype(np.float64), float(batch["lr"])
    target = program.constants[0].data
    np.testing.assert_allclose(new["weight"], state["weight"] - lr * x.T @ (x @ state["weight"] - target), rtol=1e-5)


def test_a_changed_output_is_what_later_nodes_read_and_what_the_trace_holds() -> None:
    state, batch = sgd_tensors()
    program = sgd_program()
    executor = repops.Executor(program)
    honest, walk = executor.trace(state, batch), executor.walk(state, batch, roots=True)
    for step in walk:
        if step.index == 1:
            step.output.view(np.uint32)[0, 0] ^= 1
    lied = walk.trace()
    differ = [i for i in range(len(honest)) if lied[i].tobytes() != honest[i].tobytes()]
    assert differ[0] == 1 and differ[-1] == program.trace_length - 1
    assert lied[-1].tobytes() == commit.state_root([commit.tensor_root(a) for a in walk.state().values()])


def test_a_walk_is_read_at_its_end() -> None:
    state, batch = sgd_tensors()
    walk = repops.Executor(sgd_program()).walk(state, batch)
    next(iter(walk))
    for early in (walk.state, walk.trace):
        with pytest.raises(TensorError, match="not reached its end"):
            early()
    for _ in walk:
        pass
    with pytest.raises(TensorError, match="no roots"):
        walk.trace()


def swap_program() -> Program:
    """Slots that become each other, a copy of a node, of a batch tensor, and a slot read after its update is known."""
    return Program(
        slots=(
            Slot("a", F32, (3,), Ref.state(1)),
            Slot("b", F32, (3,), Ref.state(0)),
            Slot("twice", F32, (3,), Ref.node(0)),
            Slot("again", F32, (3,), Ref.node(0)),
            Slot("late", F32, (3,), Ref.node(1)),
            Slot("given", F32, (3,), Ref.batch(0)),
            Slot("of_late", F32, (3,), Ref.node(2)),
            Slot("same", F32, (3,), Ref.state(7)),
            Slot("of_same", F32, (3,), Ref.state(7)),
            Slot("nothing", F32, (0,), Ref.node(3)),
        ),
        batch=(BatchTensor("x", F32, (3,)),),
        constants=(),
        nodes=(
            Node("add", (), (), (read(Ref.state(0), 3), read(Ref.batch(0), 3)), F32, (3,)),
            Node("mul", (), (), (read(Ref.node(0), 3), read(Ref.batch(0), 3)), F32, (3,)),
            Node("sub", (), (), (read(Ref.state(4), 3), read(Ref.node(1), 3)), F32, (3,)),
            Node("slice", (0, 0, 1), (), (read(Ref.node(1), 3),), F32, (0,)),
        ),
    ).check()


@pytest.mark.parametrize("donate", [False, True])
def test_slots_may_become_each_other(donate: bool) -> None:
    program = swap_program()
    rng = np.random.default_rng(0)
    state = {s.name: rng.standard_normal(s.shape).astype(np.float32) for s in program.slots}
    batch = {"x": rng.standard_normal(3).astype(np.float32)}
    old, x = {k: v.copy() for k, v in state.items()}, batch["x"]
    new = repops.Executor(program).run(state, batch, donate=donate)
    total = old["a"] + x
    expected = {"a": old["b"], "b": old["a"], "twice": total, "again": total, "late": total * x, "given": x}
    expected |= {
        "of_late": old["late"] - total * x,
        "same": old["same"],
        "of_same": old["same"],
        "nothing": old["nothing"],
    }
    assert bits(new) == bits(expected) == bits(walked(program, old, batch))
    if not donate:
        everything = [*new.values(), *state.values(), *batch.values()]
        pairs = [(a, b) for i, a in enumerate(everything) for b in everything[:i]]
        assert not any(np.shares_memory(a, b) for a, b in pairs), "every result has memory of its own"


def test_random_programs_plan_as_they_walk() -> None:
    """Random elementwise graphs over few slots: the arena, takeovers and donation against the plain walk."""
    rng = np.random.default_rng(11)
    for _ in range(150):
        slots, count = int(rng.integers(1, 5)), int(rng.integers(1, 25))
        nodes: list[Node] = []
        for i in range(count):
            pool = (
                [Ref.state(k) for k in range(slots)] + [Ref.batch(0)] + [Ref.node(k) for k in range(max(0, i - 6), i)]
            )
            op = str(rng.choice(["add", "mul", "neg", "permute", "sub"]))
            refs = [pool[k] for k in rng.integers(0, len(pool), 1 if op in ("neg", "permute") else 2)]
            params = (1, 0) if op == "permute" else ()
            nodes.append(Node(op, params, (), tuple(read(r, 2, 2) for r in refs), F32, (2, 2)))
        updates = [Ref.node(int(k)) for k in rng.integers(0, count, slots)]
        updates = [Ref.state(int(rng.integers(slots))) if rng.random() < 0.2 else u for u in updates]
        program = Program(
            tuple(Slot(f"s{k}", F32, (2, 2), u) for k, u in enumerate(updates)),
            (BatchTensor("x", F32, (2, 2)),),
            (),
            tuple(nodes),
        )
        state = {f"s{k}": rng.standard_normal((2, 2)).astype(np.float32) for k in range(slots)}
        batch = {"x": rng.standard_normal((2, 2)).astype(np.float32)}
        expected = bits(walked(program, state, batch))
        for fuse in (True, False):
            executor, own = repops.Executor(program, fuse=fuse), {name: array.copy() for name, array in state.items()}
            assert bits(executor.run(own, batch)) == expected
            assert bits(executor.run(own, batch, donate=True)) == expected


NEW_STATE = 4


def lying_in_slots(*nodes: Node) -> set[int]:
    """Of these nodes on x and a slot y, whose update is the last, those written into the slot; and all bits hold."""
    slot = Slot("y", F32, (2, 3), Ref.node(len(nodes) - 1))
    program = Program((slot,), (BatchTensor("x", F32, (2, 3)),), (), nodes).check()
    rng = np.random.default_rng(5)
    state, batch = ({name: rng.standard_normal((2, 3)).astype(np.float32)} for name in "yx")
    expected = bits(walked(program, state, batch))
    for donate in (False, True):
        assert bits(repops.Executor(program, fuse=False).run(state, batch, donate=donate)) == expected
    return {i for i, call in enumerate(Compiler(program).calls) if call[4][0][0] == NEW_STATE}


def test_what_an_update_takes_over_lies_in_its_slot_already() -> None:
    x, y = read(Ref.batch(0), 2, 3), read(Ref.state(0), 2, 3)

    def node(op: str, *inputs: Any, params: tuple[int, ...] = (), shape: tuple[int, ...] = (2, 3)) -> Node:
        return Node(op, params, (), inputs, F32, shape)

    def of(index: int, *shape: int) -> Any:
        return read(Ref.node(index), *(shape or (2, 3)))

    swapped = node("permute", x, params=(1, 0), shape=(3, 2))
    back = node("permute", of(0, 3, 2), params=(1, 0))
    assert lying_in_slots(swapped, back, node("neg", of(1)), node("exp", of(2))) == {1, 2, 3}
    # Of two, the one that lies longer.
    assert lying_in_slots(node("neg", x), node("exp", x), node("sub", of(1), of(0))) == {0, 2}
    # The old value is read: later, in the same call, before; then in the same call, but not element for element.
    assert lying_in_slots(node("neg", x), node("mul", y, x), node("add", of(0), of(1))) == {1, 2}
    assert lying_in_slots(node("neg", x), node("mul", of(0), y)) == {1}
    assert lying_in_slots(node("mul", y, x), node("neg", of(0))) == {0, 1}
    turned = node("permute", y, params=(1, 0), shape=(3, 2))
    assert lying_in_slots(turned, back, node("neg", of(1))) == {1, 2}
    assert lying_in_slots(turned, node("neg", of(0))) == {1}
    # Not element for element, or read again.
    assert lying_in_slots(swapped, node("permute", of(0, 3, 2), params=(1, 0))) == {1}
    assert lying_in_slots(node("neg", x), node("exp", of(0)), node("add", of(0), of(1))) == {0, 2}
    row = node("slice", x, params=(0, 0, 1), shape=(1, 3))
    assert lying_in_slots(row, node("add", of(0, 1, 3), x)) == {1}


def test_execute_node_is_the_walk_of_one_node() -> None:
    program, _, tensors, batch_tensors = captured("causal-sgd")
    for step in repops.Executor(program).walk(arrays(tensors), arrays(batch_tensors)):
        flat = [a.reshape(-1) for a in step.inputs]
        again = repops.execute_node(step.node, flat, threads=2, isa="scalar")
        assert again.tobytes() == step.output.tobytes() and again.shape == step.node.shape


def test_execute_node_checks_its_inputs() -> None:
    node = sgd_program().nodes[3]
    good = [np.zeros((4, 3), np.float32), np.zeros((), np.float32)]
    for bad, match in (
        (good[:1], "1 tensors for 2 inputs"),
        ([good[0], np.zeros((), np.int64)], "input 1: dtype is int64"),
        ([good[0][:3], good[1]], "input 0: shape is"),
        ([good[0], "text"], "input 1: not a tensor"),
    ):
        with pytest.raises(TensorError, match=match):
            repops.execute_node(node, bad)
    with pytest.raises(ProgramError, match="not an operator"):
        repops.execute_node(sgd_program().hash_nodes[0], [])


Change = Callable[[dict[str, Any], dict[str, Any]], Any]
WRONG: dict[str, tuple[Change, str]] = {
    "missing": (lambda s, b: s.pop("count"), "without count"),
    "unknown": (lambda s, b: b.update(z=b["x"]), "with unknown z"),
    "dtype": (lambda s, b: s.update(weight=s["weight"].astype(np.float64)), "state tensor weight: dtype is float64"),
    "integer": (lambda s, b: s.update(count=np.int32(7)), "state tensor count: dtype is int32"),
    "shape": (lambda s, b: b.update(x=b["x"].T), r"batch tensor x: shape is \[4, 2\]"),
    "count": (lambda s, b: b.update(x=b["x"][:1]), r"batch tensor x: shape is \[1, 4\]"),
    "list": (lambda s, b: b.update(lr=[0.5]), "batch tensor lr: not a tensor"),
    "unsigned": (lambda s, b: b.update(lr=np.zeros((), np.uint8)), "uint8"),
    "endian": (lambda s, b: b.update(lr=np.zeros((), ">f4")), "f4"),
    "gradient": (lambda s, b: b.update(lr=torch.zeros((), requires_grad=True)), "batch tensor lr: not a tensor"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_tensors_are_named(case: str) -> None:
    change, match = WRONG[case]
    state, batch = sgd_tensors()
    change(state, batch)
    executor = repops.Executor(sgd_program())
    for run in (executor.run, executor.walk, executor.trace):
        with pytest.raises(TensorError, match=match):
            run(state, batch)


def test_donation_needs_memory_that_can_be_written() -> None:
    executor = repops.Executor(sgd_program())
    state, batch = sgd_tensors()
    for name, array, match in (
        ("weight", np.zeros((3, 4), np.float32).T, "weight: cannot be updated in place"),
        ("weight", np.broadcast_to(np.float32(0), (4, 3)), "weight: cannot be updated in place"),
        ("count", np.int64(7), "count: cannot be updated in place"),
        ("last", state["weight"].reshape(-1)[:3], "shares memory"),
    ):
        with pytest.raises(TensorError, match=match):
            executor.run({**state, name: array}, batch, donate=True)


def test_torch_tensors_are_taken_and_updated_in_place() -> None:
    state, batch = sgd_tensors()
    executor = repops.Executor(sgd_program())
    expected = bits(executor.run(state, batch))
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in state.items()}
    assert bits(executor.run(tensors, {k: torch.from_numpy(np.array(v)) for k, v in batch.items()})) == expected
    strided = torch.zeros(4, 6)[:, ::2]
    strided.copy_(tensors["weight"])
    assert bits(executor.run({**tensors, "weight": strided}, batch)) == expected


def test_special_values_pass_through() -> None:
    state, batch = sgd_tensors()
    state["weight"][0, :3] = np.array([np.nan, np.inf, -0.0], np.float32)
    state["weight"][1] = np.float32(1e-42)
    program = sgd_program()
    expected = bits(walked(program, state, batch, isa="scalar"))
    torch.set_flush_denormal(True)
    try:
        assert bits(repops.Executor(program).run(state, batch)) == expected
    finally:
        torch.set_flush_denormal(False)


def test_a_program_larger_than_memory_is_refused() -> None:
    huge = Program(
        (Slot("s", F32, (1,), Ref.node(2)),),
        (),
        (),
        (
            Node("fill", (), (0,), (), F32, (2**39,)),
            Node("neg", (), (), (read(Ref.node(0), 2**39),), F32, (2**39,)),
            Node("slice", (0, 5, 1), (), (read(Ref.node(1), 2**39),), F32, (1,)),
        ),
    )
    with pytest.raises(ProgramError, match="bytes at once"):
        repops.Executor(huge)
    with pytest.raises(ProgramError, match="64 are allowed"):
        repops.Executor(captured("mlp-sgd")[0], memory_limit=64)


def test_instruction_sets_are_checked() -> None:
    assert checked_isa(None) is None and checked_isa("scalar") == "scalar"
    with pytest.raises(TensorError, match=r"no 'z80'.*scalar"):
        repops.Executor(sgd_program(), isa="z80")


def test_an_ill_formed_program_is_not_run() -> None:
    with pytest.raises(ProgramError):
        repops.Executor(replace(sgd_program(), nodes=()))


def test_as_array_shares_memory_if_it_can() -> None:
    array = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    assert as_array(array) is array and as_array(torch.from_numpy(array)).ctypes.data == array.ctypes.data
    assert as_array(array.T).flags.c_contiguous and as_array(np.int64(3)).shape == ()


def test_only_elementwise_operators_are_safe_in_place() -> None:
    movement = ("permute", "expand", "slice", "gather", "cat", "matmul", "sum", "attention_ds", "embedding")
    assert not any(OPERATORS[name].in_place for name in movement)
    assert all(OPERATORS[name].in_place for name in ("add", "where", "cast", "softmax", "layer_norm_grad"))
