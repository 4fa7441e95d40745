"""The plan over whole games: it is pure, and at every instant just the side that is due has a move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
from world import TERMS, World, training_job

from node import adversaries as adv
from node.actions import (
    Action,
    Advance,
    AskReferee,
    BuildSteps,
    BuildTrace,
    Chain,
    FetchTree,
    HashNode,
    Judge,
    LocalView,
    Open,
    Post,
    ServeInputs,
    Timeout,
)
from node.fold import ChainState, Due, MatchState, due
from node.plan import plan, plan_match
from node.provider import Provider
from node.structs import Level, Phase, Status

MOVES = {
    Phase.OPEN: (Open, Advance),
    Phase.MOVE: (Advance,),
    Phase.POST_A: (Post,),
    Phase.POST_B: (Post,),
    Phase.HASH_NODE: (HashNode,),
    Phase.REFEREE: (Judge,),
}


@dataclass(frozen=True)
class Seen:
    """One planning of a player in a game: what went in, what came out. ahead: after a verb that is not yet sent."""

    state: ChainState
    now: int
    view: LocalView
    actions: tuple[Action, ...]
    ahead: bool


class Recorder(Provider):
    """A provider that writes down every planning. log: shared by all recorders of a test."""

    def __init__(self, *arguments: Any, log: list[Seen], **how: Any) -> None:
        super().__init__(*arguments, **how)
        self.log = log

    def choose(self, state: ChainState, actions: Sequence[Action]) -> Sequence[Action]:
        view = self.view()
        frozen = replace(
            view, trees=dict(view.trees), segments=dict(view.segments), traces=dict(view.traces),
            claims=dict(view.claims), evidence=dict(view.evidence),
        )  # fmt: skip
        self.log.append(Seen(state, self.now, frozen, tuple(actions), state is not self.state))
        return actions


GAMES = {
    "flip": {"make_work": adv.FlipBit},
    "hash node": {"make_work": adv.LyingHashNode},
    "padding": {"make_work": adv.CopyAllButPadding},
    "no preimage": {"make_work": partial(adv.GarbageSubtree, level=Level.OPERATORS)},
}


@pytest.fixture(scope="module", params=[(name, one) for name in GAMES for one in (True, False)], ids=str)
def game(request: pytest.FixtureRequest) -> list[Seen]:
    """All plannings of both sides of one dispute."""
    name, one_transaction = request.param
    log: list[Seen] = []
    world = World()
    client = world.client()
    world.provider("honest", Recorder, log=log, one_transaction=one_transaction)
    world.provider("liar", Recorder, log=log, one_transaction=one_transaction, **GAMES[name])
    task_id = client.post(training_job(), world.bench(), replace(TERMS, seats=2))
    assert world.run(task_id).status is Status.SETTLED
    return log


def test_the_plan_is_a_function_of_what_it_is_given(game: list[Seen]) -> None:
    for seen in game:
        if not seen.ahead:
            assert tuple(plan(seen.state, seen.now, seen.view)) == seen.actions
        elif seen.actions:
            match_id = max(seen.state.matches)
            assert tuple(plan_match(seen.state, seen.now, seen.view, match_id)) == seen.actions


def test_only_the_due_side_moves_and_only_in_its_phase(game: list[Seen]) -> None:
    plannings = 0
    for seen in game:
        for task in seen.state.tasks.values():
            own = task.index_of(seen.view.address)
            for match in seen.state.live_matches(task.task_id):
                waits = due(task, match, seen.now)
                assert waits is not None and own is not None
                moves = [a for a in seen.actions if isinstance(a, Chain) and getattr(a, "match", 0) == match.match_id]
                assert len(moves) <= 1
                if waits.late:
                    assert moves == [_end(match, waits)]
                elif moves:
                    assert isinstance(moves[0], MOVES[waits.phase])
                    assert waits.side in (None, match.side_of(own)) or seen.ahead
                plannings += 1
    assert plannings >= 2


def test_after_its_time_nothing_is_left_but_the_timeout(game: list[Seen]) -> None:
    for seen in game:
        for task in seen.state.tasks.values():
            for match in seen.state.live_matches(task.task_id):
                waits = due(task, match, seen.now)
                assert waits is not None
                for now, late in ((waits.deadline - 1, False), (waits.deadline, True), (waits.deadline + 1, True)):
                    actions = [a for a in plan(seen.state, now, seen.view) if getattr(a, "match", 0) == match.match_id]
                    assert (actions == [_end(match, waits)]) == late
                    assert late or _end(match, waits) not in actions


def _end(match: MatchState, waits: Due) -> Action:
    """What ends a match whose time is over: a silent committee is judged without evidence."""
    return Judge(match.match_id, b"") if waits.phase is Phase.REFEREE else Timeout(match.match_id)


def test_without_its_trees_a_side_builds_before_it_moves(game: list[Seen]) -> None:
    """What a restart forgets is built again: with the claim alone the plan asks for what the match's phase needs."""
    asked: set[type] = set()
    for seen in game:
        bare = replace(seen.view, segments={}, traces={}, trees={}, served=frozenset(), evidence={})
        for action in plan(seen.state, seen.now, bare):
            asked.add(type(action))
            if isinstance(action, Post):
                pytest.fail("posted a tree that is not at hand")
    assert BuildSteps in asked or all(m.level is Level.CHECKPOINTS for s in game for m in s.state.matches.values())


def test_who_takes_no_part_does_nothing(game: list[Seen]) -> None:
    for seen in game:
        assert plan(seen.state, seen.now, LocalView(address="0x" + "11" * 20)) == []


def test_local_work_is_planned_before_what_builds_on_it(game: list[Seen]) -> None:
    kinds = {type(action) for seen in game for action in seen.actions}
    reached = max(match.level for seen in game for match in seen.state.matches.values())
    if reached is Level.OPERATORS:
        assert {BuildSteps, BuildTrace, Post} <= kinds
    if any(match.phase is Phase.REFEREE for seen in game for match in seen.state.matches.values()):
        assert {ServeInputs, AskReferee} <= kinds  # the client may be the one that brings the verdict
    one_transaction = game[0].view.one_transaction
    assert (FetchTree in kinds) == one_transaction
    assert one_transaction or Open in kinds


def test_one_move_closes_a_level_when_the_other_tree_is_at_hand(game: list[Seen]) -> None:
    for seen in game:
        for action in seen.actions:
            if not isinstance(action, Advance):
                continue
            match = seen.state.matches[action.match]
            side = match.side_of(seen.state.tasks[match.task_id].index_of(seen.view.address))
            # Right after its post, B makes A's move; there is only this one.
            assert side is match.turn or (seen.ahead and match.phase is Phase.OPEN)
            theirs = match.at.root(side.other)
            arity = seen.state.tasks[match.task_id].arity_bits
            assert action.m == (match.rest if theirs in seen.view.trees else min(arity, match.rest))
