"""What an actor does while a match waits for its referee: a committee is asked, its verdict appealed against, a trial
played down to one instruction (docs/spec/game.md, "The EVM referee"). A part of `node/plan.py`, pure like it.

Where the other side serves its tiles and its trace, whatever follows without it goes into one transaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from node.actions import (
    Action,
    Appeal,
    AskReferee,
    Batch,
    BuildElement,
    BuildOutput,
    BuildTrace,
    BuildWitness,
    Chain,
    Conclude,
    Execute,
    FetchPath,
    FetchTile,
    FetchTree,
    Judge,
    LocalView,
    PostElement,
    ServeInputs,
    ShowTiles,
    SubmitVerdict,
    TrialAdvance,
    TrialBegin,
    TrialOpen,
)
from node.chain.committee import committee_config, encode_evidence
from node.errors import DataError
from node.fold import Asked, Due, MatchState, TaskState
from node.moves import Place, Step
from node.structs import NO_OPENING, Node, Opening, ProgramHeader, RefereeKind, Side, TrialStage
from node.trial import TILE_BYTES, TrialState
from node.witness import node_struct
from repops.commit import TensorTree, Tree


def referee_actions(
    local: LocalView, task: TaskState, match: MatchState, side: Side | None, waits: Due
) -> Iterator[Action]:
    """What to do for a match in phase Referee. side: one's own, None if one does not play it."""
    if waits.late:
        yield Conclude(match.match_id) if waits.asked is Asked.TRIAL else Judge(match.match_id, b"")
    elif waits.asked is Asked.VERDICT:
        yield from _ask_committee(local, task, match, side)
    elif waits.asked is Asked.APPEAL:
        if side is not None and match.verdict is not None and match.verdict.output_root != match.node(side):
            yield Appeal(match.match_id)
    elif side is not None and match.task_id in local.claims:
        yield from _Trial(local, task, match, side).actions()


def _ask_committee(local: LocalView, task: TaskState, match: MatchState, side: Side | None) -> Iterator[Action]:
    key = (match.task_id, match.step, match.position)
    if side is not None and match.task_id in local.claims and key not in local.served:
        yield ServeInputs(*key)
    verdict = local.evidence.get(match.match_id)
    if verdict is None:
        if match.match_id not in local.asked:
            yield AskReferee(match.match_id)
        return
    if task.referee_kind is RefereeKind.APPEAL:
        yield SubmitVerdict(match.match_id, task.params.referee_config, verdict)
        return
    try:
        config = committee_config(task)
    except DataError:
        return
    if config is not None:
        yield Judge(match.match_id, encode_evidence(config, verdict))


class _Missing(Exception):
    """Local work has to be done first."""

    def __init__(self, action: Action) -> None:
        self.action = action


@dataclass
class _Trial:
    """One side's part in the trial of a match."""

    local: LocalView
    task: TaskState
    match: MatchState
    side: Side

    def actions(self) -> Iterator[Action]:
        try:
            verbs = self._verbs()
        except _Missing as missing:
            yield missing.action
            return
        if len(verbs) == 1:
            yield verbs[0]
        elif verbs:
            yield Batch(self.match.match_id, tuple(verbs))

    def _verbs(self) -> list[Chain]:
        """What one sends now, in one transaction; nothing if one is not due, or cannot stand by one's claim."""
        trial = self.match.trial
        own = self.local.outputs.get(self._key)
        if own is None:
            raise _Missing(BuildOutput(*self._key))
        if own.root != self.match.node(self.side):
            return []
        if trial is None:
            return self._begin(own) if self.side is Side.A else []
        match trial.stage:
            case TrialStage.OPEN | TrialStage.ELEMENTS if trial.turn is self.side:
                opening = trial.stage is TrialStage.OPEN
                return self._over_tiles(own, self._place(trial), trial.children, opening)
            case TrialStage.TILE_A if self.side is Side.A:
                return self._tiles(own, trial.position)
            case TrialStage.TILE_B if self.side is Side.B and trial.tile_a is not None:
                return [ShowTiles(self.match.match_id, trial.tile_a, own.tile(trial.position))]
            case TrialStage.TRACE_A | TrialStage.TRACE_B:
                # Both sides build while A is due: B's build window is spent in parallel.
                tree = self._trace(trial.element, trial.value(self.side))
                return self._post(tree) if trial.turn is self.side else []
            case TrialStage.OPEN_TRACE | TrialStage.INSTRUCTIONS if trial.turn is self.side:
                return self._over_states(trial)
            case TrialStage.EXECUTE if self.side is Side.A:
                return self._execute(trial.element, trial.position)
        return []

    @property
    def _key(self) -> tuple[int, int, int]:
        return self.match.task_id, self.match.step, self.match.position

    @property
    def _other(self) -> str:
        """The account of the other side."""
        return self.task.roster[self.match.index(self.side.other)].account

    def _place(self, trial: TrialState) -> Place:
        return Place(trial.rest, trial.position, trial.arity_bits, trial.moves)

    def _theirs(self, root: bytes) -> bool:
        """Whether the other side may still be asked for what hashes to this."""
        return self.local.one_transaction and root not in self.local.unreachable

    # -- elements ------------------------------------------------------------------------------------------------------

    def _begin(self, own: TensorTree) -> list[Chain]:
        header, node, proof = self._node()
        verbs: list[Chain] = [TrialBegin(self.match.match_id, header, node, proof)]
        if node.tile_height:
            place = Place(node.tile_height, 0, self.task.arity_bits, ())
            return verbs + self._over_tiles(own, place, (), opening=True)
        return verbs + (self._tiles(own, 0) if own.nbytes else [])

    def _over_tiles(self, own: TensorTree, place: Place, children: tuple[bytes, ...], opening: bool) -> list[Chain]:
        match, root = self.match, self.match.node(self.side.other)
        theirs = self.local.trees.get(root)
        if theirs is None and self._theirs(root):
            raise _Missing(FetchTree(root, own.height, self._other))
        if theirs is None and opening:
            return [TrialOpen(match.match_id, place.opening(own))]
        step = place.step(own, theirs, self.side, children)
        verbs: list[Chain] = [_advance(match.match_id, step)]
        if step.rest == 0 and self.side is Side.A and step.position * TILE_BYTES < own.nbytes:
            leaf = step.found.b
            return verbs + self._tiles(own, step.position, leaf)
        return verbs

    def _tiles(self, own: TensorTree, index: int, leaf: bytes | None = None) -> list[Chain]:
        """A shows its tile, with B's if B serves it, and then its trace. leaf: B's, if it is not yet on the chain."""
        trial = self.match.trial
        leaf = leaf or (trial.node_b if trial is not None else self.match.node_b)
        mine, theirs = own.tile(index), self.local.tiles.get(leaf)
        if theirs is None:
            if self._theirs(leaf):
                root = self.match.node(Side.B)
                raise _Missing(FetchTile(leaf, root, own.nbytes, index, self._other))
            return [ShowTiles(self.match.match_id, mine, b"")]
        shown = ShowTiles(self.match.match_id, mine, theirs)
        at = next(i for i in range(TILE_BYTES) if mine[i] != theirs[i])
        if index * TILE_BYTES + at >= own.nbytes:
            return [shown]
        item = self.local.programs[self.match.task_id].nodes[self.match.position].dtype.itemsize
        start = at - at % item
        element = (index * TILE_BYTES + at) // item
        value = int.from_bytes(mine[start : start + item], "little")
        return [shown, *self._post(self._trace(element, value))]

    # -- instructions --------------------------------------------------------------------------------------------------

    def _trace(self, element: int, value: int) -> Tree:
        tree = self.local.elements.get((*self._key, element))
        if tree is None:
            raise _Missing(BuildElement(*self._key, element, value))
        return tree

    def _post(self, tree: Tree) -> list[Chain]:
        top = Place(tree.height, 0, self.task.arity_bits, ())
        children = top.opening(tree) if self.side is Side.B and tree.height else ()
        proof = tuple(tree.prove((1 << tree.height) - 1))
        return [PostElement(self.match.match_id, tree.root, proof, children)]

    def _over_states(self, trial: TrialState) -> list[Chain]:
        own = self._trace(trial.element, trial.value(self.side))
        root = trial.trace(self.side.other)
        if own.root != trial.trace(self.side) or root is None:
            return []
        theirs = self.local.paths.get((own.root, root))
        if theirs is None and self._theirs(root):
            raise _Missing(FetchPath(own.root, root, self._other))
        place = self._place(trial)
        if theirs is None and trial.stage is TrialStage.OPEN_TRACE:
            return [TrialOpen(self.match.match_id, place.opening(own))]
        step = place.step(own, theirs, self.side, trial.children)
        verbs: list[Chain] = [_advance(self.match.match_id, step)]
        if step.rest == 0:
            if step.position:
                pre = place.before(own, own if self.side is Side.A else theirs, step)
                verbs = [_advance(self.match.match_id, step, pre)]
            if self.side is Side.A:
                verbs += self._execute(trial.element, step.position)
        return verbs

    def _execute(self, element: int, position: int) -> list[Chain]:
        at = (self.match.match_id, position)
        if at not in self.local.witnesses:
            raise _Missing(BuildWitness(self.match.match_id, element, position))
        witness = self.local.witnesses[at]
        return [] if witness is None else [Execute(self.match.match_id, *self._node(), witness)]

    def _node(self) -> tuple[ProgramHeader, Node, tuple[bytes, ...]]:
        header = self.task.params.program
        program, nodes = self.local.programs.get(self.match.task_id), self.local.trees.get(header.nodes_root)
        if program is None or nodes is None:
            raise _Missing(BuildTrace(self.match.task_id, self.match.step))
        struct = node_struct(program.nodes[self.match.position])
        return header, struct, tuple(nodes.prove(self.match.position))


def _advance(match: int, step: Step, pre: Opening = NO_OPENING) -> TrialAdvance:
    found = step.found
    return TrialAdvance(match, found.m, found.index, found.a, found.b, found.siblings, step.children, pre)
