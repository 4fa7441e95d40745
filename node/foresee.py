"""What the contracts will say to a verb, before it is sent: its events, folded into a state that does not exist yet.

A player plans the second verb of a transaction from what the first one leads to (`node/ahead.py`). Pure. What ends a
match is not foreseen: nothing can follow it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from node import events as ev
from node.actions import (
    Advance,
    Appeal,
    Chain,
    Open,
    Pair,
    Post,
    PostElement,
    ShowTiles,
    TrialAdvance,
    TrialBegin,
    TrialOpen,
)
from node.events import Event, Meta
from node.fold import ChainState, MatchState, TaskState, due, fold, fold_all, next_pair
from node.structs import NOBODY, ZERO, Level, Phase, Side, TrialStage
from node.trial import TILE_BYTES, TrialState
from repops.dtypes import DType
from repops.vm.machine import State

NOWHERE = Meta(0, 0, ZERO, ZERO)


def foresee(state: ChainState, now: int, action: Chain) -> ChainState | None:
    """The state after `action`. None if a match ends with it, or if it is none that others can follow in one
    transaction."""
    events = expected(state, now, action)
    return fold_all(state, events) if events else None


def expected(state: ChainState, now: int, action: Chain) -> Sequence[Event]:
    """The events of `action`, if it is mined at `now` and right; none where `foresee` gives None. Who sends it, and the
    address of Verde, are not known here."""
    match action:
        case Pair(task_id):
            events = _pair(state, now, state.tasks[task_id])
        case Open() | Advance() | Post():
            match_ = state.matches[action.match]
            events = _verb(state.tasks[match_.task_id], match_, now, action)
        case Appeal(match_id):
            events = [ev.Appealed(NOBODY, match_id, NOBODY, now, meta=NOWHERE)]
        case TrialBegin() | TrialOpen() | TrialAdvance() | ShowTiles() | PostElement():
            match_ = state.matches[action.match]
            events = _trial_verb(state.tasks[match_.task_id], match_, now, action)
        case _:
            events = []
    block = state.last.block + 1 if state.last is not None else 0
    return [replace(event, meta=Meta(block, i, ZERO, ZERO)) for i, event in enumerate(events)]


def _pair(state: ChainState, now: int, task: TaskState) -> list[Event]:
    match_id = len(state.matches) + 1
    paired = ev.Paired(task.task_id, match_id, *next_pair(task), now, meta=NOWHERE)
    match = fold(replace(state, last=None), paired).matches[match_id]
    return [paired, *([] if match.rest else [_closed(task, match, 0, match.at.pre_state)])]


def _verb(task: TaskState, match: MatchState, now: int, action: Open | Advance | Post) -> list[Event]:
    match_id = match.match_id
    match action:
        case Open(_, children):
            return [ev.Opened(match_id, children, now, meta=NOWHERE)]
        case Post(_, root, _, children):
            posted = ev.Posted(match_id, match.turn, root, children, now, meta=NOWHERE)
            ends = match.turn is Side.B and match.rest == 0
            return [posted, *([_closed(task, match, 0, match.at.pre_state)] if ends else [])]
        case Advance(_, m, index, a, b, siblings, children, pre):
            rest, position = match.rest - m, match.position << m | index
            moved = ev.Advanced(
                match_id, match.turn, m, position, rest, a, b, siblings if rest else (), children, now, meta=NOWHERE
            )  # fmt: skip
            if rest:
                return [moved]
            if position >= match.at.leaves:
                return []  # judged at once
            opened = match.level is not Level.OPERATORS and position > 0
            return [moved, _closed(task, match, position, pre.value if opened else match.at.pre_state)]


def _closed(task: TaskState, match: MatchState, position: int, pre_state: bytes) -> ev.LevelClosed:
    """Where a match goes on from the first divergence of its level."""
    level, phase, step = Level.OPERATORS, Phase.POST_A, match.step
    match match.level:
        case Level.CHECKPOINTS:
            step = position * task.interval
            level = Level.STEPS if task.leaves(Level.STEPS, step) > 1 else Level.OPERATORS
        case Level.STEPS:
            step += position
        case Level.OPERATORS:
            phase = Phase.REFEREE if position < task.compute_nodes else Phase.HASH_NODE
    return ev.LevelClosed(match.match_id, match.level, position, pre_state, step, level, phase, meta=NOWHERE)


def _trial_verb(
    task: TaskState,
    match: MatchState,
    now: int,
    action: TrialBegin | TrialOpen | TrialAdvance | ShowTiles | PostElement,
) -> list[Event]:
    at = (NOBODY, match.match_id)
    trial = match.trial
    if isinstance(action, TrialBegin):
        node, waits = action.node, due(task, match, now)
        elements, size = prod(node.shape), DType(node.dtype).itemsize
        if waits is None or not (node.tile_height or elements):
            return []  # without tiles it is judged at once
        heights = node.tile_height, node.vm_height
        return [ev.Begun(*at, *heights, elements, size, waits.since, meta=NOWHERE)]
    if trial is None:
        return []
    match action:
        case TrialOpen(_, children):
            return [ev.TrialOpened(*at, children, now, meta=NOWHERE)]
        case TrialAdvance(_, m, index, a, b, siblings, children, pre):
            rest, position = trial.rest - m, trial.position << m | index
            moved = ev.TrialAdvanced(
                *at, trial.turn, m, position, rest, a, b, siblings if rest else (), children, now, meta=NOWHERE
            )  # fmt: skip
            if trial.over_states and rest == 0:
                before = pre.value if position else State.start(trial.element).hash
                return [moved, ev.InstructionFound(*at, position, before, a, b, meta=NOWHERE)]
            past_end = not trial.over_states and rest == 0 and position * TILE_BYTES >= trial.size
            return [] if past_end else [moved]
        case ShowTiles(_, tile_a, tile_b):
            if trial.stage is TrialStage.TILE_A and not tile_b:
                return [ev.TileShown(*at, tile_a, now, meta=NOWHERE)]
            return _element(trial, at, now, tile_a, tile_b)
        case PostElement(_, root, _, children):
            events: list[Event] = [ev.TracePosted(*at, trial.turn, root, children, now, meta=NOWHERE)]
            if trial.turn is Side.B and trial.vm_height == 0:
                before = State.start(trial.element).hash
                events.append(ev.InstructionFound(*at, 0, before, trial.node_a, root, meta=NOWHERE))
            return events


def _element(trial: TrialState, at: tuple[str, int], now: int, tile_a: bytes, tile_b: bytes) -> list[Event]:
    """The first element in which two tiles differ; past the tensor's end it is judged at once."""
    offset = next((i for i, (a, b) in enumerate(zip(tile_a, tile_b, strict=False)) if a != b), None)
    if offset is None or (start := trial.position * TILE_BYTES + offset) >= trial.size:
        return []
    offset -= offset % trial.item_size
    a, b = (int.from_bytes(tile[offset : offset + trial.item_size], "little") for tile in (tile_a, tile_b))
    return [ev.ElementFound(*at, start // trial.item_size, a, b, now, meta=NOWHERE)]
