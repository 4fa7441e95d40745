"""Every liar below the operator: about tiles, runs, states and witnesses, and about the trial itself.

They claim one wrong element of one operator's output (`FlipOutput`) and differ in how they answer for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from node.actions import Action, Appeal, Chain, Execute, ShowTiles, TrialBegin
from node.adversaries import FlipOutput, noise, side_in
from node.data import Array, DataSource
from node.fold import ChainState, due
from node.forgery import fault
from node.localnet import LAST_SECONDS
from node.player import Link
from node.provider import Provider
from node.structs import Side, TrialStage
from node.witness import node_struct
from node.work import Job
from repops.commit import TILE_BYTES, Hashes, TensorTree, Tree, keccak256
from repops.graph.ir import Node
from repops.vm import NodeRun
from repops.vm.machine import State

# ----------------------------------------------------------------------------------------------------- Lies about tiles


class TailGarbage(FlipOutput):
    """Hides garbage behind the last element of the output, in its last tile; every element is right."""

    def output(self, step: int, node: int) -> Array:
        return self._visit(step, node).output

    def output_tree(self, step: int, node: int) -> TensorTree:
        if (step, node) != (self.step, self.node):
            return super().output_tree(step, node)
        data = self.output(step, node).tobytes()
        room = -len(data) % TILE_BYTES
        return TensorTree(np.frombuffer(data + b"\1" * room, np.uint8))


class MissingTileGarbage(FlipOutput):
    """Claims a hash where the output has no tile any more; every element is right."""

    def output(self, step: int, node: int) -> Array:
        return self._visit(step, node).output

    def output_tree(self, step: int, node: int) -> TensorTree:
        tree = super().output_tree(step, node)
        return PaddedTensorTree(tree) if (step, node) == (self.step, self.node) else tree


class PaddedTensorTree(TensorTree):
    """A tensor's tree with a hash of nothing in its first missing leaf."""

    __slots__ = ()

    def __init__(self, tree: TensorTree) -> None:
        padded = Tree([*(tree.leaf(i) for i in range(tree.count)), noise("missing tile")], tree.height)
        self._levels, self._bytes, self.nbytes = padded._levels, tree._bytes, tree.nbytes
        self.count, self.height = padded.count, padded.height


class WrongTile(Provider):
    """Shows a tile that is not the one whose hash it has committed to."""

    def choose(self, state: ChainState, actions: Sequence[Action]) -> Sequence[Action]:
        return [self._wrong(state, action) for action in actions]

    def _wrong(self, state: ChainState, action: Action) -> Action:
        if not isinstance(action, ShowTiles):
            return action
        own_is_b = side_in(self, state, action.match) is Side.B
        tile = bytearray(action.tile_b if own_is_b else action.tile_a)
        tile[-1] ^= 1
        return replace(action, tile_b=bytes(tile)) if own_is_b else replace(action, tile_a=bytes(tile))


class ServesWrongTiles(Provider):
    """Serves tiles and nodes of traces that are not what it was asked for."""

    def serves(self) -> DataSource:
        return _Twisted(self.store)


class _Twisted:
    """A data source whose tiles and nodes have one wrong bit."""

    def __init__(self, source: DataSource) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def tile(self, *asked: Any) -> bytes:
        return _twist(self._source.tile(*asked))

    def nodes(self, *asked: Any) -> bytes:
        return _twist(self._source.nodes(*asked))


# ------------------------------------------------------------------------------------------------------ Lies about runs


class Fault(FlipOutput):
    """One bit of one instruction's result was flipped, as by a particle, and it stands by what came out.

    The instruction is the first from the middle of the run on that changes the element.
    """

    def output(self, step: int, node: int) -> Array:
        output = self._visit(step, node).output
        if (step, node) == (self.step, self.node):
            _put(output, self.element, self._faulty(self.node_run(step, node), self.element)[0])
        return output

    def element_trace(self, run: NodeRun, element: int, value: int) -> Tree:
        return self._faulty(run, element)[1]

    def _faulty(self, run: NodeRun, element: int) -> tuple[int, Tree]:
        honest, count = run.run(element)
        found = (fault(run, element, at, self.bit) for at in range(count // 2, count))
        return next((value, tree) for value, tree in found if value != honest)


class NeverHalts(FlipOutput):
    """Its run goes on for ever. at_last: but for the last state, which is halted with its value, as a post needs."""

    def __init__(self, job: Job, threads: int = 1, *, at_last: bool = False, **how: Any) -> None:
        super().__init__(job, threads, **how)
        self.at_last = at_last

    def element_trace(self, run: NodeRun, element: int, value: int) -> Tree:
        leaves, count = _honest(run, element)
        leaves[count - 1 :] = leaves[count - 2] if count > 1 else _row(State.start(element))
        if self.at_last:
            leaves[-1] = _row(State.halt(value))
        return Tree(leaves, run.height)


class TraceOfAnotherElement(FlipOutput):
    """Posts the run of the element's neighbour, with its own value at the end."""

    def element_trace(self, run: NodeRun, element: int, value: int) -> Tree:
        leaves, count = _honest(run, element + 1 if element == 0 else element - 1)
        leaves[count - 1 :] = _row(State.halt(value))
        return Tree(leaves, run.height)


class JunkState(FlipOutput):
    """A state half-way has bits where a state has none."""

    def element_trace(self, run: NodeRun, element: int, value: int) -> Tree:
        leaves, count = _honest(run, element)
        junk = bytearray(run.state(element, count // 2 + 1))
        junk[5] = 1
        leaves[count // 2] = np.frombuffer(keccak256(bytes(junk)), np.uint8)
        leaves[count - 1 :] = _row(State.halt(value))
        return Tree(leaves, run.height)


class JunkHalt(FlipOutput):
    """Halts with its value and something in a register, which a halted state does not have, but for the last state."""

    def element_trace(self, run: NodeRun, element: int, value: int) -> Tree:
        leaves, count = _honest(run, element)
        state = State.halt(value)
        state.registers[7] = 1
        leaves[count - 1 :] = _row(state)
        leaves[-1] = _row(State.halt(value))
        return Tree(leaves, run.height)


class _OtherRun(FlipOutput):
    """Runs something else than the node on its inputs, and claims what comes out."""

    def node_run(self, step: int, node: int) -> NodeRun:
        run = super().node_run(step, node)
        return self.other(run) if (step, node) == (self.step, self.node) else run

    def other(self, run: NodeRun) -> NodeRun:
        """What it runs."""
        raise NotImplementedError

    def output(self, step: int, node: int) -> Array:
        output = super(FlipOutput, self).output(step, node)
        if (step, node) == (self.step, self.node):
            _put(output, self.element, self.node_run(step, node).output(self.element))
        return output

    def element_trace(self, run: NodeRun, element: int, value: int) -> Tree:
        height = super().node_run(self.step, self.node).height
        tree = run.trace(element).tree
        leaves = np.array(tree.leaves())[: 1 << height]
        rest = np.repeat(leaves[-1:], (1 << height) - len(leaves), axis=0)
        return Tree(np.concatenate([leaves, rest]), height)


class OtherCode(_OtherRun):
    """Runs the program of another operator."""

    def other(self, run: NodeRun) -> NodeRun:
        return NodeRun(replace(run.node, op="mul"), _arrays(run))


class OtherParams(_OtherRun):
    """Runs the node's program with other parameters."""

    def other(self, run: NodeRun) -> NodeRun:
        *first, last = run.node.params
        return NodeRun(replace(run.node, params=(*first, last - 1)), _arrays(run))


class OtherInput(_OtherRun):
    """Loads from another tensor than the node's first input."""

    def other(self, run: NodeRun) -> NodeRun:
        first, *others = _arrays(run)
        return NodeRun(run.node, [np.roll(first, 4), *others])


# ----------------------------------------------------------------------------------------------- Lies about the trial


class OtherNode(Provider):
    """Begins its trial, and has its instruction executed, with another node of the program."""

    def choose(self, state: ChainState, actions: Sequence[Action]) -> Sequence[Action]:
        return [self._wrong(state, action) for action in actions]

    def _wrong(self, state: ChainState, action: Action) -> Action:
        if not isinstance(action, TrialBegin | Execute):
            return action
        match = state.matches[action.match]
        nodes: tuple[Node, ...] = self._engagements[match.task_id].work.job.program.nodes
        return replace(action, node=node_struct(nodes[match.position - 1]))


class SilentInTrial(Provider):
    """Says nothing at one stage of its trials. NONE: it does not even begin."""

    def __init__(self, link: Link, directory: Mapping[str, DataSource], *, at: TrialStage, **how: Any) -> None:
        super().__init__(link, directory, **({"make_work": FlipOutput} | how))
        self.at = at

    def choose(self, state: ChainState, actions: Sequence[Action]) -> Sequence[Action]:
        return [action for action in actions if not self._silent(state, action)]

    def _silent(self, state: ChainState, action: Action) -> bool:
        match = state.matches.get(getattr(action, "match", 0))
        if match is None or not isinstance(action, Chain):
            return False
        asked = due(state.tasks[match.task_id], match, self.now)
        if asked is None or asked.asked is None or asked.late:
            return False
        return (TrialStage.NONE if match.trial is None else match.trial.stage) is self.at


class LateAppeal(Provider):
    """Appeals in the last seconds of the window, when the others think that the verdict stands."""

    def choose(self, state: ChainState, actions: Sequence[Action]) -> Sequence[Action]:
        return [action for action in actions if not isinstance(action, Appeal) or self._late(state, action.match)]

    def _late(self, state: ChainState, match_id: int) -> bool:
        match = state.matches[match_id]
        asked = due(state.tasks[match.task_id], match, self.now)
        return asked is not None and asked.deadline - self.now <= LAST_SECONDS


# -------------------------------------------------------------------------------------------------------- Small things


def _put(output: Array, element: int, value: int) -> None:
    """Writes the pattern of one element (row-major)."""
    flat = output.reshape(-1).view(np.uint8).reshape(output.size, -1)
    flat[element] = np.frombuffer(value.to_bytes(output.itemsize, "little"), np.uint8)


def _honest(run: NodeRun, element: int) -> tuple[Hashes, int]:
    """The leaves of an element's run, and the number of its instructions."""
    return np.array(run.trace(element).tree.leaves()), run.run(element)[1]


def _arrays(run: NodeRun) -> list[Array]:
    """The inputs of a run, as bytes."""
    return list(run.surroundings.inputs)


def _row(state: State) -> Hashes:
    return np.frombuffer(state.hash, np.uint8)


def _twist(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]
