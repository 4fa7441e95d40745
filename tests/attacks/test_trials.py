"""Liars below the operator, with the chain as the referee: on either side, both ways down, the honest side wins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from world import TERMS, World, match_line, training_job

from node import adversaries as adv
from node import trial_adversaries as liars
from node.chain.contracts import TrialReferee
from node.client import Terms
from node.errors import TxReverted
from node.fold import MatchState
from node.provider import Provider
from node.referee import Referee
from node.structs import Outcome, Reason, RefereeKind, Ruling, Side, Status, TrialStage
from node.work import Job
from repops.vm.isa import Instruction, Op

SIDES = pytest.mark.parametrize("liar_first", [False, True], ids=["liar is B", "liar is A"])
WIDE = 0  # a node of `mlp` whose output has three tiles of four when there are 80 rows


def job(rows: int = 80) -> Job:
    return training_job(steps=1, interval=1, rows=rows)


def duel(
    make_work: Callable[..., Any],
    liar_first: bool,
    *,
    make: Callable[..., Provider] = Provider,
    one_transaction: bool = False,
    kind: RefereeKind = RefereeKind.EVM,
    members: Any = (Referee,) * 3,
    terms: Terms = TERMS,
    **how: Any,
) -> MatchState:
    """An honest provider against one of this kind. The honest one wins, and is paid."""
    world, work = World(), job()
    client = world.client()
    settings = {"one_transaction": one_transaction}
    for name in ("liar", "honest") if liar_first else ("honest", "liar"):
        if name == "liar":
            world.provider(name, make, make_work=make_work, **settings, **how)
        else:
            honest = world.provider(name, **settings)
    task_id = client.post(work, world.bench(members, kind=kind), replace(terms, seats=2))
    world.run(task_id)
    client.sync()
    (match,) = client.state.matches.values()
    assert match.outcome is (Outcome.B_WINS if liar_first else Outcome.A_WINS), match_line(match)
    assert match.reason is Reason.VERDICT and match.trial is not None
    world.check_honest(client, task_id, work, honest)
    return match


def executed(match: MatchState) -> bool:
    return match.trial is not None and match.trial.word is not None


@SIDES
@pytest.mark.parametrize("one_transaction", [False, True], ids=["move by move", "one transaction"])
@pytest.mark.parametrize(
    "make_work",
    [
        pytest.param(partial(liars.Fault, bit=(0, 20)), id="a fault in one instruction"),
        pytest.param(partial(liars.NeverHalts, at_last=True), id="never halts but at last"),
        pytest.param(liars.TraceOfAnotherElement, id="another element's run"),
        pytest.param(liars.JunkState, id="junk in a state"),
        pytest.param(liars.JunkHalt, id="junk in a halted state"),
        pytest.param(liars.OtherCode, id="another operator's code"),
        pytest.param(liars.OtherParams, id="other parameters"),
        pytest.param(liars.OtherInput, id="another tensor"),
    ],
)
def test_a_wrong_run_is_found_at_its_first_wrong_instruction(
    make_work: Callable[..., Any], one_transaction: bool, liar_first: bool
) -> None:
    match = duel(partial(make_work, node=WIDE), liar_first, one_transaction=one_transaction)
    assert match.trial is not None and match.trial.element == 0
    # A liar that is due to have its own lie executed cannot: nothing opens another tensor's root, or other code.
    assert executed(match) or (liar_first and match.trial.stage is TrialStage.DONE)
    if make_work is liars.OtherInput and executed(match):
        assert Instruction.decode(match.trial.word or 0).op in (Op.LOAD, Op.RAW)
    if make_work is liars.TraceOfAnotherElement:
        assert match.trial.position == 0


@SIDES
def test_a_trace_that_does_not_end_in_its_value_cannot_be_posted(liar_first: bool) -> None:
    match = duel(partial(liars.NeverHalts, node=WIDE), liar_first)
    assert match.trial is not None and not executed(match)
    assert (match.trial.trace_a is None) == liar_first and match.trial.trace_b is None


@SIDES
@pytest.mark.parametrize("one_transaction", [False, True], ids=["move by move", "one transaction"])
def test_garbage_behind_the_last_tile_is_judged_at_once(one_transaction: bool, liar_first: bool) -> None:
    match = duel(partial(liars.MissingTileGarbage, node=WIDE), liar_first, one_transaction=one_transaction)
    assert match.trial is not None
    assert (match.trial.position, match.trial.tile, match.trial.trace_a) == (3, None, None)


@SIDES
def test_garbage_behind_the_last_element_is_judged_with_the_tiles(liar_first: bool) -> None:
    match = duel(partial(liars.TailGarbage, node=WIDE), liar_first)
    assert match.trial is not None
    assert match.trial.trace_a is None and match.trial.ruling is (Ruling.B_WINS if liar_first else Ruling.A_WINS)


@SIDES
@pytest.mark.parametrize("make", [liars.WrongTile, liars.OtherNode])
def test_what_does_not_hash_to_what_was_agreed_is_refused(make: Callable[..., Provider], liar_first: bool) -> None:
    match = duel(partial(adv.FlipOutput, node=WIDE + 1), liar_first, make=make)
    # Only side A begins and has the instruction executed; both sides show a tile.
    assert executed(match) == (make is liars.OtherNode and not liar_first)


@SIDES
def test_who_serves_wrong_tiles_and_nodes_is_played_move_by_move(liar_first: bool) -> None:
    make_work = partial(adv.FlipOutput, node=WIDE)
    match = duel(make_work, liar_first, make=liars.ServesWrongTiles, one_transaction=True)
    assert executed(match) and match.trial is not None
    honest = Side.B if liar_first else Side.A
    # As B, the liar has the honest side's trace, and makes A's only move right after its post.
    moves = match.trial.state_moves if liar_first else match.trial.state_moves[1:]
    assert all(move.m <= TERMS.arity_bits for move in moves if move.side is honest)
    assert all(move.m <= TERMS.arity_bits for move in match.trial.tile_moves if move.side is honest)


# Nobody waits at the end, nor for an opening that B's children spare.
NO_WAIT = (TrialStage.OPEN_TRACE, TrialStage.DONE)


@SIDES
@pytest.mark.parametrize("stage", [stage for stage in TrialStage if stage not in NO_WAIT])
def test_who_is_silent_at_a_stage_loses_there(stage: TrialStage, liar_first: bool) -> None:
    make = partial(liars.SilentInTrial, at=stage)
    # With two children a move, each side has one at each level.
    match = duel(partial(adv.FlipOutput, node=WIDE), liar_first, make=make, terms=replace(TERMS, arity_bits=1))
    due_to_a = stage in (
        TrialStage.NONE, TrialStage.OPEN, TrialStage.TILE_A, TrialStage.TRACE_A, TrialStage.EXECUTE,
    )  # fmt: skip
    both = stage in (TrialStage.ELEMENTS, TrialStage.INSTRUCTIONS)
    assert executed(match) == (not both and due_to_a != liar_first), match_line(match)


@SIDES
def test_without_the_children_of_bs_trace_a_opens(liar_first: bool) -> None:
    match = duel(partial(adv.FlipOutput, node=WIDE), liar_first, make=adv.WithholdsChildren)
    assert executed(match) and match.trial is not None
    assert bool(match.trial.top) == liar_first
    assert liar_first or (match.trial.state_moves[0].side, match.trial.state_moves[0].m) == (Side.A, 0)


def test_wrong_children_of_a_trace_are_no_post() -> None:
    class Below(adv.WrongChildren):
        def _without(self, state: Any, action: Any) -> Any:
            return super()._without(state, action) if type(action).__name__ == "PostElement" else action

    match = duel(partial(adv.FlipOutput, node=WIDE), False, make=Below)
    assert match.trial is not None and not executed(match)
    assert (match.trial.trace_a is None, match.trial.trace_b) == (False, None)


def test_two_that_are_wrong_in_different_ways_both_lose() -> None:
    world, work = World(), job()
    client = world.client()
    for i in range(2):
        world.provider(f"p{i}", make_work=partial(adv.FlipOutput, node=WIDE, bit=(0, 20 + i)))
    task_id = client.post(work, world.bench(kind=RefereeKind.EVM), replace(TERMS, seats=2))
    task = world.run(task_id)
    (match,) = client.state.matches.values()
    assert match.trial is not None and executed(match)
    assert (match.outcome, match.trial.ruling) == (Outcome.BOTH_LOSE, Ruling.BOTH_LOSE)
    assert task.status is Status.FAILED
    assert [world.gained(actor) for actor in world.actors if isinstance(actor, Provider)] == [-task.bond] * 2
    world.check_conservation()


# -------------------------------------------------------------------------------------------------------------- Appeals


@SIDES
def test_an_appeal_in_the_last_seconds_counts(liar_first: bool) -> None:
    members = (adv.LyingReferee, adv.LyingReferee, Referee)
    work = partial(adv.FlipOutput, node=WIDE)
    world, task_job = World(), job()
    client = world.client()
    for name in ("liar", "honest") if liar_first else ("honest", "liar"):
        if name == "liar":
            world.provider(name, make_work=work)
        else:
            honest = world.provider(name, liars.LateAppeal)
    task_id = client.post(task_job, world.bench(members, kind=RefereeKind.APPEAL), replace(TERMS, seats=2))
    world.run(task_id)
    client.sync()
    (match,) = client.state.matches.values()
    assert match.verdict is not None and executed(match)
    assert 0 < match.verdict.time + match.verdict.appeal_window - match.verdict.appealed_at <= 3
    assert match.wrong_members.bit_count() == 2
    world.check_honest(client, task_id, task_job, honest)


def test_at_the_end_of_the_window_there_is_an_appeal_or_a_ruling_never_both() -> None:
    """The verdict and the appeal race for the last block: to the second, exactly one of them is possible."""

    class Meek(Provider):
        def choose(self, state: Any, actions: Any) -> Any:
            return [action for action in actions if type(action).__name__ not in ("Appeal", "Judge")]

    world, work = World(), job()
    client = world.client()
    client.choose = lambda _, actions: [a for a in actions if type(a).__name__ != "Judge"]  # type: ignore[method-assign]
    honest = world.provider("honest", Meek)
    world.provider("liar", Meek, make_work=partial(adv.FlipOutput, node=WIDE))
    members = (adv.LyingReferee, adv.LyingReferee, Referee)
    task_id = client.post(work, world.bench(members, kind=RefereeKind.APPEAL), replace(TERMS, seats=2))
    world.run(task_id, until=lambda _: any(m.verdict is not None for m in client.state.matches.values()))
    (match,) = client.state.matches.values()
    assert match.verdict is not None
    end = match.verdict.time + match.verdict.appeal_window
    referee = TrialReferee(honest.link.verde, world.contracts.appeal)
    appeal, judge = referee.appeal(match.match_id), honest.link.verde.judge(match.match_id, b"")
    stranger = client.link.sender

    def goes(sender: Any, call: Any, at: int) -> str:
        world.devnet.set_next_timestamp(at)
        try:
            sender.simulate(call)
        except TxReverted as error:
            return error.error
        return ""

    assert goes(stranger, appeal, end - 1) == "WrongSender"
    assert goes(honest.link.sender, appeal, end - 1) == ""
    assert goes(honest.link.sender, judge, end - 1) == "Undecided"
    assert goes(honest.link.sender, appeal, end) == "NoAppeal"
    assert goes(honest.link.sender, judge, end) == ""
    world.devnet.set_next_timestamp(end - 1)
    honest.link.sender.send(appeal)
    assert goes(honest.link.sender, appeal, end) == "NoAppeal", "once"
    assert goes(honest.link.sender, judge, end) == "Undecided", "the appeal has the verdict set aside"
