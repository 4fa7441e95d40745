"""A committee member: recomputes the disputed node of a match and signs what comes out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from node.chain import committee
from node.data import Array, DataSource, Fetcher
from node.errors import DataError
from node.fold import Asked, MatchState, TaskState, due
from node.player import Link, Player
from node.structs import Question
from node.verdict import Committee
from repops import Program, execute_node
from repops.commit import height, tensor_root
from repops.graph.ir import Input, RefKind

log = logging.getLogger(__name__)


class Referee(Player):
    """A member of committees. It sends nothing: it serves its verdicts, and whoever is interested brings them.

    It asks for nothing but what both sides have agreed on: the program, the trace's leaves left of the node, the state
    before the step, the step's batch; each from either side, or from anybody else who serves it. The node is recomputed
    with the C++ kernels from tensors that hash to the agreed roots. If they cannot be had for `patience` (a share of
    the referee's window) it signs that they are unavailable.
    """

    def __init__(
        self, link: Link, directory: Mapping[str, DataSource], *, patience: float = 0.5, threads: int = 1
    ) -> None:
        super().__init__(link, directory)
        self.patience, self.threads = patience, threads
        self._programs: dict[bytes, Program] = {}
        self._given: set[Question] = set()

    def prepare(self) -> None:
        """Gives a verdict on every match that waits for one of a committee of which this is a member."""
        for task in self.state.tasks.values():
            for match in self.state.live_matches(task.task_id):
                waits = due(task, match, self.now)
                if waits is None or waits.asked is not Asked.VERDICT or waits.late:
                    continue
                body = self.committee_of(task)
                asked = committee.question(self.link.verde.address, task, match)
                if body is not None and asked not in self._given:
                    self._consider(task, match, body, asked)

    def committee_of(self, task: TaskState) -> Committee | None:
        """The task's committee, if this is a member of it."""
        try:
            body = Committee.of(self.link.chain_id, task)
        except DataError:  # another kind of referee
            return None
        return body if self.address in body.members else None

    def _consider(self, task: TaskState, match: MatchState, body: Committee, asked: Question) -> None:
        try:
            answer: bytes | None = self.judge(task, match)
        except DataError as error:
            if self.now - match.since < self.patience * task.referee_window:
                log.info("%s waits for the inputs of match %d: %s", self.address, match.match_id, error)
                return
            log.warning("%s: match %d: the inputs are unavailable: %s", self.address, match.match_id, error)
            answer = None
        self._given.add(asked)
        self.store.put_verdict(match.match_id, body.sign(self.link.sender.account, asked, answer))

    def judge(self, task: TaskState, match: MatchState) -> bytes:
        """The disputed node's true output root. Raises DataError if its inputs are not to be had."""
        program = self._program(task, self._sources(task, match))
        node = program.nodes[match.position]
        agreed = self._agreed_leaves(task, match)
        inputs = [self._operand(task, match, program, agreed, operand) for operand in node.inputs]
        return tensor_root(execute_node(node, inputs, threads=self.threads))

    def _operand(
        self, task: TaskState, match: MatchState, program: Program, agreed: Sequence[bytes], operand: Input
    ) -> Array:
        """The tensor that an input of the node reads, from whoever serves it under its agreed root."""
        fetcher, index = self._sources(task, match), operand.ref.index
        match operand.ref.kind:
            case RefKind.CONSTANT:
                return program.constants[index].data.reshape(operand.shape)
            case RefKind.NODE:
                root = agreed[index]
            case RefKind.STATE:
                root = _leaf(fetcher, match.pre_state, len(program.slots), index)
            case RefKind.BATCH:
                at = match.step % task.batch_count
                batch = fetcher.leaves(task.data_root, task.batch_count, height(task.batch_count))[at]
                root = _leaf(fetcher, batch, len(program.batch), index)
            case RefKind.ZERO:
                raise DataError("a compute node reads no missing leaf", where=f"match {match.match_id}")
        return fetcher.tensor(root, operand.dtype, operand.shape)

    def _sources(self, task: TaskState, match: MatchState) -> Fetcher:
        """Both sides first, then the client, then everybody else."""
        return self.fetcher(*(task.roster[index].account for index in (match.index_a, match.index_b)), task.client)

    def _program(self, task: TaskState, fetcher: Fetcher) -> Program:
        known = self._programs.get(task.program_root)
        if known is None:
            known = self._programs[task.program_root] = fetcher.program(task.program_root)
        return known

    def _agreed_leaves(self, task: TaskState, match: MatchState) -> Sequence[bytes]:
        """The trace's leaves left of the disputed node. Both roots have them: the divergence proof showed it."""
        level = match.at
        found: DataError | None = None
        for side_root in (level.root_a, level.root_b):
            if side_root is None:
                continue
            try:
                return self._sources(task, match).leaves(side_root, match.position, level.height)
            except DataError as error:
                found = error
        raise found or DataError("nobody has posted a trace", where=f"match {match.match_id}")


def _leaf(fetcher: Fetcher, root: bytes, count: int, index: int) -> bytes:
    """Leaf `index` of a state or a batch with `count` tensors."""
    return fetcher.leaves(root, count, max(1, height(count)))[index]
