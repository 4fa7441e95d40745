"""Frozen weights: packed once, same bits as an ordinary run; what is written to the originals later has no effect."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_calls import BF16, F16, F32, I64, VECTOR_ISAS, Array, Case, DType, hostile
from programs import read, sgd_program, sgd_tensors

import repops
from repops import _kernels
from repops.errors import TensorError
from repops.graph.ir import BatchTensor, Constant, Node, Program, Ref, Slot

Arrays = dict[str, Array]
FLOATS = [F32, BF16, F16]
EDGES = [1, 3, 4, 6, 7, 15, 16, 17, 31, 32, 33, 64, 65, 530]


def bits(tensors: dict[str, Any]) -> dict[str, bytes]:
    return {name: np.asarray(x).tobytes() for name, x in tensors.items()}


def packed_run(case: Case, isa: str, threads: int) -> bytes:
    """A matmul by way of the packed right operand, in buffers of exactly the size that a plan gives them."""
    _, tb, start, stop = case.params
    right = case.inputs[1]
    columns = right.shape[-2] if tb else right.shape[-1]
    shape = (*right.shape[:-2], stop - start, -(-columns // 16) * 16)
    memory = np.full(np.prod(shape) + 64, 1, right.dtype)
    packed = memory[:-64].reshape(shape)
    operands = [(a, int(DType.of(a.dtype)), list(a.shape)) for a in (*case.inputs, packed)]
    out = np.empty(case.shape, case.dtype.numpy)
    _kernels.run_fused("matmul_pack", isa, threads, list(case.params), [], [operands[1]], [operands[-1]])
    assert np.all(memory[-64:] == 1), "wrote outside the output"
    inputs = [operands[0], operands[-1], *operands[2:-1]]
    _kernels.run_fused(
        "matmul_packed", isa, threads, list(case.params), [], inputs, [(out, int(case.dtype), list(case.shape))]
    )
    return out.tobytes()


@given(
    st.sampled_from(EDGES), st.sampled_from([1, 5, 40, 255, 256, 513]), st.sampled_from(EDGES),
    st.integers(0, 1), st.integers(0, 1), st.sampled_from([None, 1, 3]), st.sampled_from(FLOATS),
    st.sampled_from(FLOATS), st.sampled_from(FLOATS), st.booleans(), st.integers(0, 2**32 - 1),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_packed_operand_gives_the_products_bits(
    m: int,
    k: int,
    n: int,
    ta: int,
    tb: int,
    batch: int | None,
    left: DType,
    right: DType,
    to: DType,
    link: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    lead = () if batch is None else (batch,)
    a = hostile(rng, left, lead + ((k, m) if ta else (m, k)))
    b = hostile(rng, right, lead + ((n, k) if tb else (k, n)))
    start = 256 if link and k > 256 else 0
    carry = [hostile(rng, F32, (*lead, m, n))] if start else []
    case = Case("matmul", [a, b, *carry], to, (*lead, m, n), (ta, tb, start, k))
    for isa in VECTOR_ISAS:
        expected = case.run(isa)
        for threads in (1, 3):
            assert packed_run(case, isa, threads) == expected, (isa, threads)


ROWS = 24


def shared_weights() -> Program:
    """Products with an embedding that is read in three ways, a batch of matrices, bf16 and f16, links, a constant;
    with few and with many rows; and slots that become others' old values."""
    embedding, batched, half, brain, long, vector = map(Ref.state, range(6))
    x, index, many, wide, heads = map(Ref.batch, range(5))
    rng = np.random.default_rng(1)
    nodes = (
        Node("embedding", (), (), (read(embedding, 40, 32), read(index, ROWS, dtype=I64)), F32, (ROWS, 32)),
        Node("matmul", (0, 1, 0, 32), (), (read(Ref.node(0), ROWS, 32), read(embedding, 40, 32)), F32, (ROWS, 40)),
        Node("matmul", (0, 0, 0, 40), (), (read(Ref.node(1), ROWS, 40), read(embedding, 40, 32)), F32, (ROWS, 32)),
        Node("matmul", (0, 0, 0, 32), (), (read(heads, 3, 5, 32), read(batched, 3, 32, 17)), F32, (3, 5, 17)),
        Node("matmul", (0, 1, 0, 32), (), (read(x, ROWS, 32), read(half, 20, 32, dtype=F16)), F32, (ROWS, 20)),
        Node("matmul", (0, 0, 0, 32), (), (read(x, ROWS, 32), read(brain, 32, 48, dtype=BF16)), BF16, (ROWS, 48)),
        Node("matmul", (0, 0, 0, 16384), (), (read(wide, 4, 17000), read(long, 17000, 16)), F32, (4, 16)),
        Node(
            "matmul",
            (0, 0, 16384, 17000),
            (),
            (read(wide, 4, 17000), read(long, 17000, 16), read(Ref.node(6), 4, 16)),
            F32,
            (4, 16),
        ),
        Node("matmul", (0, 0, 0, 32), (), (read(x, ROWS, 32), read(Ref.constant(0), 32, 33)), F32, (ROWS, 33)),
        Node("matmul", (0, 1, 0, 32), (), (read(many, 300, 32), read(embedding, 40, 32)), F32, (300, 40)),
        Node("add", (), (), (read(Ref.node(0), ROWS, 32), read(vector, 32)), F32, (ROWS, 32)),
    )
    results = {"two": 2, "three": 3, "four": 4, "five": 5, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
    return Program(
        slots=(
            Slot("embedding", F32, (40, 32), embedding),
            Slot("batched", F32, (3, 32, 17), batched),
            Slot("half", F16, (20, 32), half),
            Slot("brain", BF16, (32, 48), brain),
            Slot("long", F32, (17000, 16), long),
            Slot("vector", F32, (32,), vector),
            Slot("unread", F32, (9,), Ref.state(6)),
            Slot("copy", F32, (40, 32), embedding),
            Slot("old", F32, (40, 32), Ref.state(7)),
            *(Slot(name, nodes[i].dtype, nodes[i].shape, Ref.node(i)) for name, i in results.items()),
        ),
        batch=(
            BatchTensor("x", F32, (ROWS, 32)),
            BatchTensor("index", I64, (ROWS,)),
            BatchTensor("many", F32, (300, 32)),
            BatchTensor("wide", F32, (4, 17000)),
            BatchTensor("heads", F32, (3, 5, 32)),
        ),
        constants=(Constant.of(rng.standard_normal((32, 33), np.float32)),),
        nodes=nodes,
    ).check()


def shared_tensors(special: bool) -> tuple[Arrays, Arrays]:
    rng = np.random.default_rng(7)
    program = shared_weights()

    def make(dtype: DType, shape: tuple[int, ...]) -> Array:
        if dtype is I64:
            return rng.integers(-1, 41, shape)
        if special or dtype is not F32:
            return hostile(rng, dtype, shape)
        return rng.standard_normal(shape).astype(np.float32)

    state = {s.name: make(s.dtype, s.shape) for s in program.slots}
    return state, {b.name: make(b.dtype, b.shape) for b in program.batch}


def split(state: Arrays, names: tuple[str, ...]) -> Arrays:
    return {name: state[name].copy() for name in names}


@pytest.mark.parametrize("special", [False, True])
def test_a_frozen_program_gives_the_bits_of_a_run_and_of_a_walk(special: bool) -> None:
    program = shared_weights()
    state, batch = shared_tensors(special)
    walk = repops.Executor(program, isa="scalar").walk(state, batch)
    for _ in walk:
        pass
    expected = bits(walk.state())
    for isa, threads, fuse in product([*VECTOR_ISAS, "scalar"], (1, 2, 3), (True, False)):
        executor = repops.Executor(program, threads, isa, fuse=fuse)
        frozen = executor.freeze(state)
        assert frozen.slots == tuple(s.name for s in program.slots[7:])
        new = frozen.run(split(state, frozen.slots), batch)
        assert bits(executor.run(state, batch)) == expected
        assert bits(new) == {name: expected[name] for name in frozen.slots}, (isa, threads)


@pytest.mark.parametrize("isa", VECTOR_ISAS)
def test_what_is_packed_and_what_is_held(isa: str) -> None:
    program = shared_weights()
    state, batch = shared_tensors(special=False)
    executor = repops.Executor(program, isa=isa)
    frozen = executor.freeze(state)
    names = [t.op for t in frozen.profile(split(state, frozen.slots), batch)]
    assert names.count("matmul_packed") == 8 and names.count("matmul") == 1, "the one of 300 rows is not packed for"
    assert [t.op for t in executor.profile(state, batch)].count("matmul_packed") == 1, "the constant"
    plain = sum(state[name].nbytes for name in ("embedding", "vector"))
    packed = 4 * (32 * 48 + 40 * 32 + 3 * 32 * 32 + 17000 * 16 + 32 * 48) + 2 * (32 * 32 + 32 * 48)
    assert frozen.bytes == plain + packed


def test_the_originals_are_not_read_again() -> None:
    program = shared_weights()
    state, batch = shared_tensors(special=False)
    frozen = repops.Executor(program).freeze(state)
    start = split(state, frozen.slots)
    expected = bits(frozen.run(start, batch))
    for name in state.keys() - set(frozen.slots):
        state[name][...] = 0
    assert bits(frozen.run(start, batch)) == expected
    again = frozen.run(start, batch, donate=True)
    assert bits(again) == expected and all(again[name] is start[name] for name in start)
    assert bits(repops.Executor(program).run({**state, **start}, batch))["two"] != expected["two"]


def test_a_training_program_with_frozen_layers() -> None:
    """Forward, and the gradient of what is below, read the frozen matrix in two ways; the others are updated."""
    torch.manual_seed(3)
    model = torch.nn.Sequential(
        torch.nn.Linear(24, 40), torch.nn.Tanh(), torch.nn.Linear(40, 32), torch.nn.Tanh(), torch.nn.Linear(32, 5)
    )
    model[2].weight.requires_grad_(False)
    step, state, make_batch = repops.lift(
        model, torch.nn.functional.cross_entropy, optimizer=repops.SGD(), schedule=repops.constant(0.1)
    )
    batches = [make_batch(torch.randn(16, 24), torch.randint(5, (16,)), i) for i in range(4)]
    program = repops.capture(step, state, batches[0], check=False)
    executor = repops.Executor(program)
    frozen = executor.freeze(state)
    assert set(state) - set(frozen.slots) == {"2.weight"}
    plain: dict[str, Any] = dict(state)
    new: dict[str, Any] = {name: state[name] for name in frozen.slots}
    for batch in batches:
        plain, new = executor.run(plain, batch), frozen.run(new, batch)
    assert bits(new) == {name: bits(plain)[name] for name in frozen.slots}
    packed = [t for t in frozen.profile(new, batches[0]) if t.op == "matmul_packed"]
    assert len(packed) == (2 if VECTOR_ISAS else 0)


def test_a_program_that_changes_all_its_slots_is_frozen_too() -> None:
    state, batch = sgd_tensors()
    frozen = repops.Executor(sgd_program()).freeze(state)
    assert frozen.slots == ("weight", "last") and frozen.bytes == 0
    expected = bits(repops.Executor(sgd_program()).run(state, batch))
    assert bits(frozen.run(split(state, frozen.slots), batch)) == {name: expected[name] for name in frozen.slots}


def test_wrong_tensors_are_named() -> None:
    program = shared_weights()
    state, batch = shared_tensors(special=False)
    executor = repops.Executor(program)
    with pytest.raises(TensorError, match="without half"):
        executor.freeze({name: x for name, x in state.items() if name != "half"})
    with pytest.raises(TensorError, match="state tensor half"):
        executor.freeze(state | {"half": state["half"].astype(np.float32)})
    frozen = executor.freeze(state)
    with pytest.raises(TensorError, match="with unknown embedding"):
        frozen.run(state, batch)
    with pytest.raises(TensorError, match="without copy"):
        frozen.run({name: state[name] for name in frozen.slots if name != "copy"}, batch)
    start = split(state, frozen.slots)
    start["old"] = start["copy"]
    with pytest.raises(TensorError, match="shares memory"):
        frozen.run(start, batch, donate=True)


@pytest.mark.parametrize("donate", [False, True])
def test_a_compiled_program_is_frozen(donate: bool) -> None:
    torch.manual_seed(4)
    model = torch.nn.Sequential(torch.nn.Linear(24, 40), torch.nn.Tanh(), torch.nn.Linear(40, 20)).bfloat16()
    x = torch.randn(8, 24, dtype=torch.bfloat16)
    step, state = repops.lift_forward(model, {"input": x})
    program = repops.capture(step, state, {"input": x}, check=False)
    plain = repops.compile(program)
    expected = plain(state, {"input": x})["output"]
    frozen = repops.compile(program, threads=2, donate=donate).freeze(state)
    assert frozen.slots == ("output",) and plain.slots == tuple(slot.name for slot in program.slots)
    output = {"output": torch.zeros_like(expected)}
    new = frozen(output, {"input": x})["output"]
    assert isinstance(new, torch.Tensor) and new.dtype is torch.bfloat16
    assert torch.equal(new.view(torch.int16), expected.view(torch.int16))
    assert (new is output["output"]) == donate
    with pytest.raises(TensorError, match="frozen already"):
        frozen.freeze(state)
