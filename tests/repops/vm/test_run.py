"""A node's run and its trace, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from repops.commit import Tree, keccak256
from repops.dtypes import DType
from repops.errors import TensorError
from repops.graph.ir import Input, Node, Ref
from repops.vm import NodeRun
from repops.vm.machine import State, states
from repops.vm.programs import image

F32 = DType.F32


def dot(terms: int) -> NodeRun:
    """A row times a column."""
    rng = np.random.default_rng(terms)
    a, b = rng.standard_normal((1, terms), np.float32), rng.standard_normal((terms, 1), np.float32)
    inputs = (Input(Ref.batch(0), F32, a.shape), Input(Ref.batch(1), F32, b.shape))
    return NodeRun(Node("matmul", (0, 0, 0, terms), (), inputs, F32, (1, 1)), [a, b])


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("terms", [1, 40, 700])
def test_leaves_are_the_hashes_of_the_states(terms: int, threads: int) -> None:
    """700 terms: more states than are hashed at once."""
    run = dot(terms)
    trace = run.trace(0, threads)
    expected = [state.hash for state in states(0, run.surroundings, run.height)]
    value, instructions = run.run(0)
    assert instructions == len(expected) and expected[-1] == State.halt(value).hash
    tail = [expected[-1]] * (2**run.height - instructions)
    assert trace.tree.count == 2**run.height  # no leaf is missing
    assert trace.tree.leaves().tobytes() == b"".join(expected + tail)
    assert trace.tree.root == Tree(expected + tail).root
    for n in (1, 2, instructions - 1, instructions, 2**run.height):
        assert keccak256(trace.state(n)) == trace.tree.leaf(n - 1)
    assert trace.state(0) == State.start(0).encode()


def test_output_is_the_pattern() -> None:
    run = dot(3)
    a, b = (x.view(np.float32).astype(np.float64) for x in run.surroundings.inputs)
    pattern = np.array([run.output(0)], np.uint32).view(np.float32)
    assert np.allclose(pattern, a @ b, rtol=1e-6)
    assert run.image is image("matmul") and 2**run.height >= run.image.bound(run.node) > 2 ** (run.height - 1)


def test_no_state_beyond_the_end() -> None:
    run = dot(1)
    with pytest.raises(IndexError):
        run.state(0, 2**run.height + 1)
    with pytest.raises(IndexError):
        run.state(0, -1)


def test_arrays_that_are_not_the_inputs_are_refused() -> None:
    node = dot(4).node
    a, b = np.zeros((1, 4), np.float32), np.zeros((4, 1), np.float32)
    with pytest.raises(TensorError, match="1 arrays"):
        NodeRun(node, [a])
    with pytest.raises(TensorError, match="input 1"):
        NodeRun(node, [a, b[:3]])
    with pytest.raises(TensorError, match="input 1"):
        NodeRun(node, [a, np.zeros((4, 2), np.float32)[:, :1]])
