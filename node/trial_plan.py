"""What an actor does while a match waits for its referee: a committee is asked, its verdict appealed against, a trial
played down to one instruction (docs/spec/game.md, "The EVM referee"). A part of `node/plan.py`, pure like it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from node.actions import (
    Action,
    Appeal,
    AskReferee,
    BuildElement,
    BuildOutput,
    BuildTrace,
    BuildWitness,
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
    TrialVerb,
)
from node.chain.committee import committee_config, encode_evidence
from node.errors import DataError
from node.fold import Asked, Due, MatchState, TaskState
from node.moves import Place
from node.structs import NO_OPENING, Node, ProgramHeader, RefereeKind, Side, TrialStage
from node.trial import TrialState
from node.witness import node_struct
from repops.commit import TensorTree, Tree


def referee_actions(
    local: LocalView, task: TaskState, match: MatchState, side: Side | None, waits: Due, *, ahead: bool = False
) -> Iterator[Action]:
    """What to do for a match in phase Referee. side: one's own, None if one does not play it. ahead: right after a verb
    of one's own; then the other side's verbs, too, as far as their content is at hand (see `plan.plan_match`)."""
    if waits.late:
        yield Conclude(match.match_id) if waits.asked is Asked.TRIAL else Judge(match.match_id, b"")
    elif waits.asked is Asked.VERDICT:
        yield from _ask_committee(local, task, match, side)
    elif waits.asked is Asked.APPEAL:
        if side is not None and match.verdict is not None and match.verdict.output_root != match.node(side):
            yield Appeal(match.match_id)
    elif side is not None and match.task_id in local.claims:
        yield from _Trial(local, task, match, side, ahead).actions()


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
    ahead: bool

    def actions(self) -> Iterator[Action]:
        try:
            verb = self._verb()
        except _Missing as missing:
            yield missing.action
            return
        if verb is not None:
            yield verb

    def _verb(self) -> TrialVerb | None:
        """What one sends now; None if there is nothing, or if one cannot stand by one's claim."""
        trial = self.match.trial
        due = self.side is (Side.A if trial is None else trial.turn)
        own = self.local.outputs.get(self._key)
        if own is None:
            raise _Missing(BuildOutput(*self._key))
        if own.root != self.match.node(self.side):
            return None
        if trial is None:
            return TrialBegin(self.match.match_id, *self._node()) if due or self.ahead else None
        if trial.stage in (TrialStage.TRACE_A, TrialStage.TRACE_B):
            if self.ahead and not due:
                return None
            # Both sides build while A is due: B's build window is spent in parallel.
            tree = self._trace(trial)
            return self._post(trial, tree) if due else None
        if not due and not self.ahead:
            return None
        match trial.stage:
            case TrialStage.OPEN | TrialStage.ELEMENTS:
                return self._over_tiles(trial, own)
            case TrialStage.TILE_A | TrialStage.TILE_B if due or trial.stage is TrialStage.TILE_A:
                return self._tiles(trial, own)
            case TrialStage.OPEN_TRACE | TrialStage.INSTRUCTIONS:
                return self._over_states(trial, self._trace(trial))
            case TrialStage.EXECUTE:
                return self._execute(trial)
        return None

    @property
    def _key(self) -> tuple[int, int, int]:
        return self.match.task_id, self.match.step, self.match.position

    @property
    def _other(self) -> str:
        """The account of the other side."""
        return self.task.roster[self.match.index(self.side.other)].account

    def _fetch(self, root: bytes, action: Action) -> None:
        """Raises _Missing if the other side may still be asked for what hashes to this."""
        if self.local.one_transaction and root not in self.local.unreachable:
            raise _Missing(action)

    # -- elements ------------------------------------------------------------------------------------------------------

    def _over_tiles(self, trial: TrialState, own: TensorTree) -> TrialVerb | None:
        root = self.match.node(self.side.other)
        theirs = self.local.trees.get(root)
        if theirs is None:
            self._fetch(root, FetchTree(root, own.height, self._other))
        return self._over(trial, own, theirs)

    def _over(self, trial: TrialState, own: Tree, theirs: Tree | None) -> TrialVerb | None:
        """A move: down the whole rest if the other side's tree is at hand, else, if one is due, move by move."""
        if theirs is None and trial.turn is not self.side:
            return None
        place = Place(trial.rest, trial.position, trial.arity_bits, trial.moves)
        if theirs is None and trial.stage in (TrialStage.OPEN, TrialStage.OPEN_TRACE):
            return TrialOpen(self.match.match_id, place.opening(own))
        step = place.step(own, theirs, self.side, trial.children)
        pre, found = NO_OPENING, step.found
        if trial.over_states and step.rest == 0 and step.position:
            pre = place.before(own, own if self.side is Side.A else theirs, step)
        return TrialAdvance(
            self.match.match_id, found.m, found.index, found.a, found.b, found.siblings, step.children, pre
        )

    def _tiles(self, trial: TrialState, own: TensorTree) -> TrialVerb | None:
        """Shows both tiles, or A's alone if B does not serve its own."""
        mine, leaf = own.tile(trial.position), trial.node(self.side.other)
        theirs = self.local.tiles.get(leaf) if trial.stage is TrialStage.TILE_A else trial.tile_a
        if theirs is None:
            root = self.match.node(self.side.other)
            self._fetch(leaf, FetchTile(leaf, root, own.nbytes, trial.position, self._other))
            return ShowTiles(self.match.match_id, mine, b"") if self.side is Side.A else None
        return ShowTiles(self.match.match_id, *((mine, theirs) if self.side is Side.A else (theirs, mine)))

    # -- instructions --------------------------------------------------------------------------------------------------

    def _trace(self, trial: TrialState) -> Tree:
        """One's own trace of the disputed element."""
        tree = self.local.elements.get((*self._key, trial.element))
        if tree is None:
            raise _Missing(BuildElement(*self._key, trial.element, trial.value(self.side)))
        return tree

    def _path(self, trial: TrialState, own: Tree) -> Tree | None:
        """The other side's trace along the first difference from one's own."""
        root = trial.trace(self.side.other)
        if root is None:
            return None
        theirs = self.local.paths.get((own.root, root))
        if theirs is None:
            self._fetch(root, FetchPath(own.root, root, self._other))
        return theirs

    def _post(self, trial: TrialState, tree: Tree) -> TrialVerb:
        """B gives its children along, unless it can make A's move in the same transaction."""
        children: tuple[bytes, ...] = ()
        if self.side is Side.B and tree.height and self._path(trial, tree) is None:
            children = Place(tree.height, 0, trial.arity_bits, ()).opening(tree)
        proof = tuple(tree.prove((1 << tree.height) - 1))
        return PostElement(self.match.match_id, tree.root, proof, children)

    def _over_states(self, trial: TrialState, own: Tree) -> TrialVerb | None:
        if own.root != trial.trace(self.side):
            return None
        return self._over(trial, own, self._path(trial, own))

    def _execute(self, trial: TrialState) -> TrialVerb | None:
        at = (self.match.match_id, trial.position)
        if at not in self.local.witnesses:
            raise _Missing(BuildWitness(self.match.match_id, trial.element, trial.position))
        witness = self.local.witnesses[at]
        return None if witness is None else Execute(self.match.match_id, *self._node(), witness)

    def _node(self) -> tuple[ProgramHeader, Node, tuple[bytes, ...]]:
        header = self.task.params.program
        program, nodes = self.local.programs.get(self.match.task_id), self.local.trees.get(header.nodes_root)
        if program is None or nodes is None:
            raise _Missing(BuildTrace(self.match.task_id, self.match.step))
        struct = node_struct(program.nodes[self.match.position])
        return header, struct, tuple(nodes.prove(self.match.position))
