"""The plan runner: same bytes as node by node, and every misuse of memory is refused by name."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from kernel_calls import F32, VECTOR_ISAS, Array, Case, finite

from repops import _kernels

STATE, BATCH, CONSTANT, ARENA, NEW = range(5)


def f32(place: int, index: int, *shape: int) -> tuple[int, int, int, list[int]]:
    return (place, index, int(F32), list(shape))


def step(
    op: str, inputs: list[Any], output: Any, params: list[int] | None = None, in_place: bool = False
) -> tuple[Any, ...]:
    return (op, params or [], [], inputs, [output], in_place)


def layer() -> list[tuple[Any, ...]]:
    """w' = w - lr * (x^T relu(x w)), with the product and its relu in the arena."""
    return [
        step("matmul", [f32(BATCH, 0, 9, 5), f32(STATE, 0, 5, 7)], f32(ARENA, 0, 9, 7), [0, 0, 0, 5]),
        step("relu", [f32(ARENA, 0, 9, 7)], f32(ARENA, 0, 9, 7), in_place=True),
        step("matmul", [f32(BATCH, 0, 9, 5), f32(ARENA, 0, 9, 7)], f32(ARENA, 256, 5, 7), [1, 0, 0, 9]),
        step("mul", [f32(ARENA, 256, 5, 7), f32(CONSTANT, 0)], f32(ARENA, 256, 5, 7), in_place=True),
        step("sub", [f32(STATE, 0, 5, 7), f32(ARENA, 256, 5, 7)], f32(NEW, 0, 5, 7), in_place=True),
        step("sum", [f32(NEW, 0, 35)], f32(NEW, 2, 1), [1, 0, 0, 35]),
    ]


def by_hand(w: Array, x: Array, lr: Array, isa: str) -> tuple[Array, Array]:
    h = Case("matmul", [x, w], F32, (9, 7), (0, 0, 0, 5)).array(isa)
    g = Case("matmul", [x, Case("relu", [h], F32, (9, 7)).array(isa)], F32, (5, 7), (1, 0, 0, 9)).array(isa)
    new = Case("sub", [w, Case("mul", [g, lr], F32, (5, 7)).array(isa)], F32, (5, 7)).array(isa)
    return new, Case("sum", [new.reshape(35)], F32, (1,), (1, 0, 0, 35)).array(isa)


@pytest.fixture
def tensors() -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(4)
    return finite(rng, (5, 7)), finite(rng, (9, 5)), np.array(0.01, np.float32)


@pytest.mark.parametrize("isa", [*VECTOR_ISAS, "scalar"])
@pytest.mark.parametrize("donate", [False, True])
def test_same_bytes_as_node_by_node(tensors: tuple[Array, Array, Array], isa: str, donate: bool) -> None:
    w, x, lr = tensors
    plan = _kernels.Plan(layer(), 512, isa)
    assert (len(plan), plan.arena_bytes) == (6, 512)
    for threads in (1, 2, 3):
        expected, total = by_hand(w, x, lr, isa)
        state = w.copy()
        new = state if donate else np.empty_like(w)
        untouched, out = np.full(1, 3.0, np.float32), np.empty(1, np.float32)
        plan.run([state], [x], [lr], [new, untouched, out], threads)
        assert new.tobytes() == expected.tobytes() and out.tobytes() == total.tobytes() and untouched[0] == 3.0
        assert donate or state.tobytes() == w.tobytes()


def test_a_donated_tensor_that_is_still_read_is_refused(tensors: tuple[Array, Array, Array]) -> None:
    w, x, lr = tensors
    late = [*layer(), step("sum", [f32(STATE, 0, 35)], f32(NEW, 3, 1), [1, 0, 0, 35])]
    out, last = np.empty(1, np.float32), np.empty(1, np.float32)
    with pytest.raises(ValueError, match=r"donated to new state tensor 0.*step 4 \(sub\).*step 6 \(sum\)"):
        _kernels.Plan(late, 512).run([w], [x], [lr], [w, out, out, last], 1)
    apart = layer()
    apart[4] = (*apart[4][:5], False)
    with pytest.raises(ValueError, match="donated"):
        _kernels.Plan(apart, 512).run([w], [x], [lr], [w, out, out], 1)
    memory = np.zeros(36, np.float32)
    with pytest.raises(ValueError, match="donated"):
        _kernels.Plan(layer(), 512).run([memory[:35]], [x], [lr], [memory[1:], out, out], 1)


@pytest.mark.parametrize(
    "steps,message",
    [
        ([step("no_such", [], f32(ARENA, 0, 1))], r"step 0 \(no_such\): no operator"),
        ([step("relu", [f32(BATCH, 0, 9)], f32(ARENA, 480, 9))], "does not fit the arena of 512 bytes"),
        ([step("relu", [f32(ARENA, -4, 1)], f32(ARENA, 0, 1))], "does not fit the arena"),
        ([step("relu", [f32(ARENA, 0, 9)], f32(ARENA, 0, 9))], "overlaps an input"),
        ([step("relu", [f32(ARENA, 0, 9)], f32(ARENA, 4, 9), in_place=True)], "overlaps an input"),
        ([step("relu", [f32(NEW, 0, 9)], f32(ARENA, 0, 9))], "before it is written"),
        ([step("relu", [f32(BATCH, 0, 9)], f32(BATCH, 1, 9))], "an output lies in the arena or the new state"),
        ([step("add", [f32(BATCH, 0, 9), f32(BATCH, 0, 8)], f32(NEW, 0, 9))], "two sizes"),
    ],
)
def test_a_bad_plan_is_refused(steps: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _kernels.Plan(steps, 512)


def test_bad_buffers_are_refused(tensors: tuple[Array, Array, Array]) -> None:
    w, x, lr = tensors
    plan, out = _kernels.Plan(layer(), 512), np.empty(1, np.float32)
    with pytest.raises(ValueError, match="state tensor 0 has 136 bytes; the plan needs 140"):
        plan.run([w.ravel()[:34]], [x], [lr], [np.empty_like(w), out, out], 1)
    with pytest.raises(ValueError, match="needs batch tensor 0"):
        plan.run([w], [], [lr], [np.empty_like(w), out, out], 1)
    with pytest.raises(TypeError, match="writable"):
        plan.run([w], [x], [lr], [bytes(140), out, out], 1)
    with pytest.raises(TypeError, match="C-contiguous"):
        plan.run([np.empty((7, 5), np.float32).T], [x], [lr], [np.empty_like(w), out, out], 1)


def test_a_fused_group_is_a_step() -> None:
    x = finite(np.random.default_rng(0), (6, 50))
    shapes = [(6, 50), (6, 1), (6, 1)]
    outs = [np.empty(s, np.float32) for s in shapes]
    fused = ("softmax_forward", [], [], [f32(BATCH, 0, 6, 50)], [f32(NEW, i, *s) for i, s in enumerate(shapes)], False)
    _kernels.Plan([fused], 0).run([], [x], [], outs, 2)
    m = Case("amax", [x], F32, (6, 1), (1, 1, 0, 50)).array()
    s = Case("sum_exp", [x, m], F32, (6, 1), (1, 1, 0, 50)).array()
    out = Case("softmax", [x, m, s], F32, (6, 50)).array()
    assert [a.tobytes() for a in outs] == [out.tobytes(), m.tobytes(), s.tobytes()]


def test_runs_of_one_plan_from_several_threads(tensors: tuple[Array, Array, Array]) -> None:
    w, x, lr = tensors
    plan, expected = _kernels.Plan(layer(), 512), by_hand(w, x, lr, VECTOR_ISAS[0])[0].tobytes()
    results: list[bytes] = []

    def run() -> None:
        new, a, b = np.empty_like(w), np.empty(1, np.float32), np.empty(1, np.float32)
        for _ in range(50):
            plan.run([w], [x], [lr], [new, a, b], 1)
            results.append(new.tobytes())

    threads = [threading.Thread(target=run) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == [expected] * 200


def test_an_unknown_instruction_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"no instruction set 'sse2'.*scalar"):
        _kernels.Plan([], 0, "sse2")
    monkeypatch.setenv("REPOPS_ISA", "mmx")
    with pytest.raises(ValueError, match="mmx"):
        _kernels.Plan([], 0)
