"""The state of a trial, the game below the operator, rebuilt from its referee's events (docs/spec/game.md, "The EVM
referee"). Pure; `node/fold.py` calls it for a match in phase Referee.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from node import events as ev
from node.events import Meta
from node.structs import ZERO, Match, Ruling, Side, Task, Trial, TrialStage

TILE_BYTES = 1024
_MOVES = (TrialStage.OPEN, TrialStage.ELEMENTS, TrialStage.OPEN_TRACE, TrialStage.INSTRUCTIONS)


@dataclass(frozen=True)
class Move:
    """One accepted `open` or `advance` at a level: who made it, how deep, where it led, what it proved and published.

    `siblings` are those of the divergence proof (none for `open`).
    """

    side: Side
    m: int
    position: int
    rest: int
    node_a: bytes
    node_b: bytes
    siblings: tuple[bytes, ...]
    children: tuple[bytes, ...]
    time: int
    meta: Meta


@dataclass(frozen=True)
class TrialState(Trial):
    """A trial: its storage, and how it came there.

    `tile_moves`, `state_moves`: the moves over tiles and over states. `tile`: index of the disputed tile, None until
    found; `tile_a`: A's tile, if it was shown alone. `trace_a`, `trace_b`: the posted roots, `top` the children of B's.
    `before`: hash of the agreed state before the instruction, None until found; `after_a`, `after_b`: of the two states
    after it. `word`, `state_after`: of the executed instruction.
    """

    tile_height: int
    tile_moves: tuple[Move, ...] = ()
    tile: int | None = None
    tile_a: bytes | None = None
    trace_a: bytes | None = None
    trace_b: bytes | None = None
    top: tuple[bytes, ...] = ()
    state_moves: tuple[Move, ...] = ()
    before: bytes | None = None
    after_a: bytes = ZERO
    after_b: bytes = ZERO
    word: int | None = None
    state_after: bytes | None = None

    def node(self, side: Side) -> bytes:
        """This side's current node."""
        return self.node_a if side is Side.A else self.node_b

    def value(self, side: Side) -> int:
        """What this side claims of the disputed element."""
        return self.value_a if side is Side.A else self.value_b

    def trace(self, side: Side) -> bytes | None:
        """The root of this side's trace of the element, None until posted."""
        return self.trace_a if side is Side.A else self.trace_b

    @property
    def over_states(self) -> bool:
        """Whether the moves that come next are over states."""
        return self.stage >= TrialStage.TRACE_A

    @property
    def moves(self) -> tuple[Move, ...]:
        """The moves of the current level."""
        return self.state_moves if self.over_states else self.tile_moves

    @property
    def children(self) -> tuple[bytes, ...]:
        """The children that were published last at the current level."""
        return self.moves[-1].children if self.moves else self.top

    @property
    def size(self) -> int:
        """Bytes of the disputed output tensor."""
        return self.elements * self.item_size


def begun(task: Task, match: Match, event: ev.Begun) -> TrialState:
    """The trial of a match that has just begun."""
    trial = TrialState(
        node_a=match.node_a,
        node_b=match.node_b,
        root_a=ZERO,
        position=0,
        since=event.since,
        clock_a=match.clock_a,
        clock_b=match.clock_b,
        verbs=0,
        rest=event.tile_height,
        stage=TrialStage.OPEN if event.tile_height else TrialStage.NONE,
        turn=Side.A,
        ruling=Ruling.NONE,
        arity_bits=task.arity_bits,
        vm_height=event.vm_height,
        item_size=event.item_size,
        match_id=match.match_id,
        elements=event.elements,
        element=0,
        value_a=0,
        value_b=0,
        grace=task.grace,
        tile_height=event.tile_height,
    )
    return trial if event.tile_height else _tiles_closed(trial)


def never_begun(ruling: Ruling) -> TrialState:
    """What is kept of a trial that side A has not begun in time: the ruling."""
    return TrialState(
        node_a=ZERO,
        node_b=ZERO,
        root_a=ZERO,
        position=0,
        since=0,
        clock_a=0,
        clock_b=0,
        verbs=0,
        rest=0,
        stage=TrialStage.DONE,
        turn=Side.A,
        ruling=ruling,
        arity_bits=0,
        vm_height=0,
        item_size=0,
        match_id=0,
        elements=0,
        element=0,
        value_a=0,
        value_b=0,
        grace=0,
        tile_height=0,
    )


def follow(trial: TrialState, event: ev.TrialMove, build_window: int) -> TrialState | None:
    """The trial after an event; None if it cannot happen at this stage."""
    stage = trial.stage
    match event:
        case ev.TrialOpened() if stage in (TrialStage.OPEN, TrialStage.OPEN_TRACE):
            nodes = (trial.position, trial.rest, trial.node_a, trial.node_b)
            move = Move(Side.A, 0, *nodes, (), event.children, event.time, event.meta)
            trial = _with_move(replace(_charge(trial, event.time), turn=Side.B), move)
            if trial.over_states:
                return replace(trial, stage=TrialStage.INSTRUCTIONS, root_a=trial.node_a)
            return replace(trial, stage=TrialStage.ELEMENTS)
        case ev.TrialAdvanced() if stage in _MOVES:
            return _advanced(trial, event)
        case ev.TileShown() if stage is TrialStage.TILE_A:
            trial = _charge(trial, event.time)
            return replace(trial, stage=TrialStage.TILE_B, turn=Side.B, tile_a=event.tile)
        case ev.ElementFound() if stage in (TrialStage.TILE_A, TrialStage.TILE_B):
            # The contract clears what was likely written in the same transaction.
            at_once = stage is TrialStage.TILE_A and event.time == trial.since
            return replace(
                _charge(trial, event.time),
                node_b=ZERO if at_once else trial.node_b,
                element=event.element,
                value_a=event.value_a,
                value_b=event.value_b,
                position=0,
                rest=trial.vm_height,
                stage=TrialStage.TRACE_A,
                turn=Side.A,
            )
        case ev.TracePosted(side=Side.A) if stage is TrialStage.TRACE_A:
            trial = replace(trial, verbs=trial.verbs + 1, since=event.time, node_a=event.root, trace_a=event.root)
            return replace(trial, stage=TrialStage.TRACE_B, turn=Side.B)
        case ev.TracePosted(side=Side.B) if stage is TrialStage.TRACE_B:
            trial = replace(trial, verbs=trial.verbs + 1, since=event.time, trace_b=event.root, top=event.children)
            trial = replace(trial, node_b=event.root, turn=Side.A)
            if event.children:
                return replace(trial, stage=TrialStage.INSTRUCTIONS, root_a=trial.node_a)
            return replace(trial, stage=TrialStage.OPEN_TRACE) if trial.vm_height else trial
        case ev.InstructionFound() if TrialStage.TRACE_B <= stage < TrialStage.EXECUTE and trial.rest == 0:
            trial = replace(trial, before=event.before, after_a=event.after_a, after_b=event.after_b)
            return replace(trial, root_a=event.before, stage=TrialStage.EXECUTE, turn=Side.A)
        case ev.Executed() if stage is TrialStage.EXECUTE:
            return replace(trial, word=event.word, state_after=event.state_after)
        case ev.Ruled() if stage is not TrialStage.DONE:
            return replace(_ruled(trial, event, build_window), stage=TrialStage.DONE, ruling=event.ruling)
    return None


def limit(trial: TrialState, build_window: int) -> int:
    """Seconds that the due side has from `since` on."""
    if trial.stage in (TrialStage.TRACE_A, TrialStage.TRACE_B):
        return build_window
    return trial.clock_a if trial.turn is Side.A else trial.clock_b


def _advanced(trial: TrialState, event: ev.TrialAdvanced) -> TrialState:
    move = Move(
        event.mover, event.m, event.position, event.rest, event.a, event.b, event.siblings, event.children, event.time,
        event.meta,
    )  # fmt: skip
    trial = replace(
        _charge(trial, event.time), node_a=event.a, node_b=event.b, position=event.position, rest=event.rest
    )
    trial = _with_move(trial, move)
    if event.rest:
        return replace(trial, turn=event.mover.other)
    return trial if trial.over_states else _tiles_closed(trial)


def _with_move(trial: TrialState, move: Move) -> TrialState:
    if trial.over_states:
        return replace(trial, state_moves=(*trial.state_moves, move))
    return replace(trial, tile_moves=(*trial.tile_moves, move))


def _tiles_closed(trial: TrialState) -> TrialState:
    """The first differing tile is found. One past the tensor's end is judged at once: Ruled follows."""
    if trial.position * TILE_BYTES >= trial.size:
        return trial
    return replace(trial, stage=TrialStage.TILE_A, turn=Side.A, tile=trial.position)


def _ruled(trial: TrialState, event: ev.Ruled, build_window: int) -> TrialState:
    """What the call that ended the trial cost. An execution is a response; so are tiles that differ past the tensor's
    end, in time; who concludes responds to nothing, and a move has been charged before."""
    executed = trial.stage is TrialStage.EXECUTE and trial.word is not None
    tiles = trial.stage in (TrialStage.TILE_A, TrialStage.TILE_B)
    if executed:
        return replace(_charge(trial, event.time), node_a=ZERO, node_b=ZERO, root_a=ZERO)
    if tiles and event.time - trial.since < limit(trial, build_window):
        return _charge(trial, event.time)
    return trial


def _charge(trial: TrialState, time: int) -> TrialState:
    """The due side's response costs what exceeds the grace, and is a verb."""
    cost = max(time - trial.since - trial.grace, 0)
    trial = replace(trial, since=time, verbs=trial.verbs + 1)
    if trial.turn is Side.A:
        return replace(trial, clock_a=trial.clock_a - cost)
    return replace(trial, clock_b=trial.clock_b - cost)
