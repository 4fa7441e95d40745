"""A task's execution, as one provider does it and answers for it: checkpoints, segments, traces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from node.data import Array, State
from node.structs import Level
from repops import Executor, Frozen, Program, Ref
from repops.commit import TensorTree, Tree, height, state_root, tensor_roots
from repops.execute import WalkStep
from repops.vm import NodeRun

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Job:
    """What a task asks for: a program, its initial state, its batches with their roots, the number of steps and the
    checkpoint interval."""

    program: Program
    initial: State
    batches: Sequence[State]
    batch_roots: Sequence[bytes]
    steps: int
    interval: int

    @property
    def checkpoints(self) -> int:
        """Real leaves of a claim: ceil(steps / interval)."""
        return -(-self.steps // self.interval)

    def segment_steps(self, segment: int) -> int:
        """Real leaves of a segment's tree: min(interval, steps - segment * interval)."""
        return min(self.interval, self.steps - segment * self.interval)


class Work:
    """Runs a job once, keeps only the states at checkpoints, and re-executes what a dispute asks for.

    What an adversary does differently is one of the hooks: `batch`, `advance`, `claimed_root`, `trace`, `tree`,
    `output`, `output_tree`, `element_trace`.
    """

    def __init__(self, job: Job, threads: int = 1) -> None:
        self.job = job
        self.executor = Executor(job.program, threads=threads)
        self._weights = [s.name for i, s in enumerate(job.program.slots) if s.update == Ref.state(i)]
        self._frozen: Frozen | None = None
        self._checkpoints: list[State] = []
        self._roots: list[bytes] = []

    # What the provider claims. Adversaries override these.

    def batch(self, step: int) -> State:
        """The batch of a step: batch `step mod batchCount` (docs/spec/commitments.md)."""
        return self.job.batches[step % len(self.job.batches)]

    def advance(self, step: int, state: State) -> State:
        """The state after a step, given the state before it. Leaves `state` as it is.

        What the program does not change stays the very arrays of `state`.
        """
        initial, batch = self.job.initial, self.batch(step)
        if not self._weights or any(state.get(name) is not initial[name] for name in self._weights):
            return self.executor.run(state, batch)
        if self._frozen is None:
            self._frozen = self.executor.freeze(initial)
        new = self._frozen.run({name: state[name] for name in self._frozen.slots}, batch)
        return {slot.name: new.get(slot.name, state[slot.name]) for slot in self.job.program.slots}

    def claimed_root(self, step: int, state: State) -> bytes:
        """The root that is claimed for the state after a step."""
        return state_root(tensor_roots(state.values()))

    def trace(self, step: int, state: State) -> list[bytes]:
        """The real leaves of a step's trace, given the state before the step; the last is the step's claimed root."""
        return [bytes(root) for root in self.executor.trace(state, self.batch(step))]

    def tree(self, level: Level, leaves: list[bytes]) -> Tree:
        """The tree of a level over its real leaves."""
        return Tree(leaves, height(len(leaves)))

    def output(self, step: int, node: int) -> Array:
        """The output of a compute node of a step; its root is the node's leaf in the step's trace."""
        return self._visit(step, node).output

    def output_tree(self, step: int, node: int) -> TensorTree:
        """The tree over the tiles of the output of a compute node."""
        return TensorTree(self.output(step, node), self.executor.threads)

    def element_trace(self, run: NodeRun, element: int, value: int) -> Tree:
        """The tree over the states of an element's run (docs/spec/repvm.md, "Trace"). value: what is claimed of it."""
        return run.trace(element, self.executor.threads).tree

    # The execution.

    def run(self, progress: Progress | None = None) -> None:
        """Executes all steps. progress is called with (steps done, steps in all)."""
        state = self.job.initial
        self._checkpoints, self._roots = [], []
        for step in range(self.job.steps):
            state = self.advance(step, state)
            if (step + 1) % self.job.interval == 0 or step + 1 == self.job.steps:
                self._checkpoints.append(state)
                self._roots.append(self.claimed_root(step, state))
            if progress is not None:
                progress(step + 1, self.job.steps)

    @property
    def final_state(self) -> State:
        """The state after the last step, once `run` is done."""
        return self._checkpoints[-1]

    def claim_tree(self) -> Tree:
        """The claim: the tree over the claimed roots of all checkpoints."""
        return self.tree(Level.CHECKPOINTS, list(self._roots))

    def segment_tree(self, first: int) -> Tree:
        """Re-executes the segment that begins with step `first`: the tree over the claimed roots of its states."""
        state = self.state_before(first)
        leaves = []
        for step in range(first, first + self.job.segment_steps(first // self.job.interval)):
            state = self.advance(step, state)
            leaves.append(self.claimed_root(step, state))
        return self.tree(Level.STEPS, leaves)

    def trace_tree(self, step: int) -> Tree:
        """Re-executes up to a step and traces it: the tree over the output roots of all its nodes."""
        return self.tree(Level.OPERATORS, self.trace(step, self.state_before(step)))

    def state_before(self, step: int) -> State:
        """The state before a step, re-executed from the checkpoint before it."""
        segment = step // self.job.interval
        state = self.job.initial if segment == 0 else self._checkpoints[segment - 1]
        for earlier in range(segment * self.job.interval, step):
            state = self.advance(earlier, state)
        return state

    def node_inputs(self, step: int, node: int) -> list[Array]:
        """The tensors that a compute node of a step reads, in the order of its inputs."""
        return list(self._visit(step, node).inputs)

    def node_run(self, step: int, node: int) -> NodeRun:
        """A compute node of a step as RepVM runs it, element by element."""
        inputs = [np.ascontiguousarray(array) for array in self.node_inputs(step, node)]
        return NodeRun(self.job.program.nodes[node], inputs)

    def _visit(self, step: int, node: int) -> WalkStep:
        for visited in self.executor.walk(self.state_before(step), self.batch(step)):
            if visited.index == node:
                return visited
        raise IndexError(f"there is no compute node {node}")
