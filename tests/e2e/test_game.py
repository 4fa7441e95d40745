"""Whole tasks on the chain: agreement, challengers, restarts, reorgs, bad endpoints, silence, missing data."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from web3.providers.base import BaseProvider
from web3.types import RPCEndpoint, RPCResponse
from world import TERMS, World, match_line, training_job

from node.adversaries import FlipBit, NeverReveal, Nothing, RefuseData
from node.chain.devnet import Devnet
from node.fold import due
from node.localnet import LAST_SECONDS
from node.player import Link
from node.provider import Provider
from node.referee import Referee
from node.structs import Level, Outcome, Reason, RefereeKind, Status, TrialStage

TWO = replace(TERMS, seats=2)
KINDS = pytest.mark.parametrize("kind", [RefereeKind.COMMITTEE, RefereeKind.EVM], ids=lambda kind: kind.value)


@pytest.mark.parametrize("named", [False, True])
def test_all_agree(named: bool) -> None:
    world, job = World(), training_job()
    client = world.client()
    honest = [world.provider(f"p{i}") for i in range(3)]
    outsider = world.provider("liar") if named else None
    names = tuple(provider.address for provider in honest) if named else ()
    task_id = client.post(job, world.bench(), replace(TERMS, providers=names))
    task = world.run(task_id)
    assert not task.match_ids
    world.check_honest(client, task_id, job, *honest)
    assert world.balance(world.verde) == 0
    assert outsider is None or task.index_of(outsider.address) is None


@pytest.mark.parametrize(
    ("steps", "interval", "levels"),
    [
        pytest.param(6, 1, [Level.CHECKPOINTS, Level.OPERATORS], id="every step is a checkpoint"),
        pytest.param(6, 6, [Level.CHECKPOINTS, Level.STEPS, Level.OPERATORS], id="one checkpoint"),
        pytest.param(1, 1, [Level.CHECKPOINTS, Level.OPERATORS], id="one step"),
        pytest.param(9, 4, [Level.CHECKPOINTS, Level.OPERATORS], id="a last segment of one step"),
        pytest.param(7, 2, [Level.CHECKPOINTS, Level.STEPS, Level.OPERATORS], id="segments of two steps"),
    ],
)
def test_levels_that_a_task_has_are_played(steps: int, interval: int, levels: list[Level]) -> None:
    world, job = World(), training_job(steps, interval)
    step = {9: 8, 7: 4}.get(steps, steps // 2)
    client = world.client()
    honest = world.provider("honest")
    world.provider("liar", make_work=partial(FlipBit, step=step))
    task_id = client.post(job, world.bench(), TWO)
    task = world.run(task_id)
    world.check_honest(client, task_id, job, honest)
    (match,) = [client.state.matches[i] for i in task.match_ids]
    assert [level.level for level in match.levels] == levels, match_line(match)
    assert (match.step, match.reason) == (step, Reason.VERDICT)


def test_one_reveal_alone_stands_and_a_challenger_has_nothing_to_do() -> None:
    world, job = World(), training_job()
    client = world.client()
    honest = world.provider("honest")
    world.provider("liar", NeverReveal)
    idle = world.provider("p0", takes_seats=False, challenges=True)
    task_id = client.post(job, world.bench(), TWO)
    task = world.run(task_id)
    world.check_honest(client, task_id, job, honest)
    assert task.index_of(idle.address) is None


def test_a_challenger_is_paid_the_reward_if_nobody_reveals() -> None:
    world, job = World(), training_job()
    client = world.client()
    world.provider("p0", NeverReveal)
    world.provider("p1", NeverReveal)
    challenger = world.provider("honest", takes_seats=False, challenges=True)
    task_id = client.post(job, world.bench(), TWO)
    world.run(task_id)
    world.check_honest(client, task_id, job, challenger)
    assert world.gained(challenger) == TERMS.reward


def test_too_few_commitments_cancel_the_task() -> None:
    world, job = World(), training_job()
    client = world.client()
    lone = world.provider("honest")
    task_id = client.post(job, world.bench(), TWO)
    task = world.run(task_id)
    assert task.status is Status.CANCELLED
    assert world.gained(client) == world.gained(lone) == world.balance(world.verde) == 0


# ------------------------------------------------------------------------------------------------------------ Restarts


class Restarted(Provider):
    """Loses its memory before every tick: a new player with the same key, which has read nothing and built nothing."""

    def tick(self) -> list[Any]:
        referees = self.link.follower.reader.referees
        link = Link.connect(self.link.verde.rpc, self.link.verde.address, self.link.sender.account, referees=referees)
        fresh = Provider(link, self.directory)
        fresh.store = self.store  # what it serves lies on its disk
        fresh.store._clock = lambda: (fresh.final, fresh.now)
        return fresh.tick()


@KINDS
@pytest.mark.parametrize("liar_first", [False, True], ids=["liar is B", "liar is A"])
def test_a_player_without_memory_wins_its_match(liar_first: bool, kind: RefereeKind) -> None:
    world, job = World(), training_job()
    client = world.client()
    names = [("honest", Restarted), ("liar", partial(RefuseData, make_work=FlipBit))]
    actors = {name: world.provider(name, make) for name, make in (reversed(names) if liar_first else names)}
    task_id = client.post(job, world.bench(kind=kind), TWO)
    task = world.run(task_id)
    world.check_honest(client, task_id, job, actors["honest"])
    assert [client.state.matches[i].reason for i in task.match_ids] == [Reason.VERDICT]


@KINDS
def test_a_reorg_in_the_middle_of_a_match_is_played_again(kind: RefereeKind) -> None:
    world, job = World(), training_job()
    client = world.client()
    honest = world.provider("honest")
    world.provider("liar", RefuseData)
    task_id = client.post(job, world.bench(kind=kind), TWO)
    world.run(task_id, until=lambda task: task.revealed == 2)
    forked = world.devnet.snapshot()
    world.run(task_id, until=lambda task: bool(task.match_ids) and _deep(world, task_id, kind))
    before = world.devnet.chain.head.number
    world.devnet.revert(forked)
    world.devnet.advance(7)  # the new branch is another one
    assert world.devnet.chain.head.number < before
    world.run(task_id)
    world.check_honest(client, task_id, job, honest)


def _deep(world: World, task_id: int, kind: RefereeKind) -> bool:
    """Whether the match is among the operators, or, with trials, among the instructions."""
    actor = world.actors[0]
    actor.sync()
    match = actor.state.matches[actor.state.tasks[task_id].match_ids[0]]
    if not kind.has_trials:
        return match.level is Level.OPERATORS
    return match.trial is not None and match.trial.stage is TrialStage.INSTRUCTIONS


# ------------------------------------------------------------------------------------------------------ Bad endpoints


class Flaky(BaseProvider):
    """An endpoint that loses requests, loses answers after the work was done, and sometimes answers with an error."""

    endpoint_uri = "flaky"

    def __init__(self, devnet: Devnet, rate: float, seed: int) -> None:
        super().__init__()
        self.inner, self.rate, self.random = devnet.provider, rate, random.Random(seed)
        self.faults = 0

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        fate = self.random.random() / self.rate if self.rate else 1.0
        if fate >= 1:
            return self.inner.make_request(method, params)
        self.faults += 1
        if fate < 1 / 3:
            raise ConnectionError("connection refused")
        if fate < 2 / 3:
            self.inner.make_request(method, params)
            raise ConnectionError("connection reset")
        return {"jsonrpc": "2.0", "id": 0, "error": {"code": -32005, "message": "limit exceeded"}}  # type: ignore[typeddict-item]


@KINDS
@pytest.mark.parametrize("seed", range(3))
def test_a_bad_endpoint_does_not_lose_the_honest_match(seed: int, kind: RefereeKind) -> None:
    world, job = World(), training_job()
    client = world.client()
    flaky = Flaky(world.devnet, 0.0, seed)
    link = world.link("honest", flaky)
    link.sender.poll = 0.0
    honest = world.add(Provider(link, world.directory))
    world.provider("liar", RefuseData)
    task_id = client.post(job, world.bench(kind=kind), TWO)
    flaky.rate = 0.3
    world.run(task_id)
    flaky.rate = 0.0
    assert flaky.faults > 10
    world.check_honest(client, task_id, job, honest)


# ---------------------------------------------------------------------------------------------------- Nobody to judge


class Silent(Referee):
    """A member of the committee that never says anything."""

    def prepare(self) -> None:
        return


def test_a_silent_committee_voids_the_task() -> None:
    world, job = World(), training_job()
    client = world.client()
    honest, liar = world.provider("honest"), world.provider("liar", make_work=FlipBit)
    task_id = client.post(job, world.bench([Silent, Silent, Referee]), TWO)
    task = world.run(task_id)
    assert task.status is Status.VOIDED
    assert world.gained(honest) == world.gained(liar) == 0, "bonds go back"
    assert world.gained(client) == -2 * TERMS.reward, "the escrow is burned: nobody takes the work for free"
    world.check_conservation()


def test_two_liars_whose_inputs_nobody_serves_both_lose() -> None:
    world, job = World(), training_job()
    client = world.client()
    liars = [
        world.provider(f"p{i}", RefuseData, make_work=partial(FlipBit, step=5, node=9, bit=(i, 22))) for i in range(2)
    ]
    task_id = client.post(job, world.bench(), TWO)
    task = world.run(task_id)
    (match,) = [client.state.matches[i] for i in task.match_ids]
    assert (match.outcome, match.reason) == (Outcome.BOTH_LOSE, Reason.UNAVAILABLE)
    assert task.status is Status.FAILED
    assert [world.gained(liar) for liar in liars] == [-task.bond] * 2
    assert world.gained(client) == 0, "nobody is paid"
    world.check_conservation()


def test_the_liar_alone_cannot_make_the_inputs_unavailable() -> None:
    """The honest side serves what the referee needs, and nobody else does: the client is gone after the commitments."""
    world, job = World(), training_job()
    client = world.client()
    honest = world.provider("honest")
    world.provider("liar", RefuseData)
    task_id = client.post(job, world.bench(), TWO)
    world.run(task_id, until=lambda task: task.committed == 2)
    world.directory[client.address] = Nothing()
    world.run(task_id)
    world.check_honest(client, task_id, job, honest)


class LastSecond(Provider):
    """A liar that answers, always as late as it can."""

    def choose(self, state: Any, actions: Any) -> Any:
        return [action for action in actions if not self._can_wait(state, getattr(action, "match", 0))]

    def _can_wait(self, state: Any, match_id: int) -> bool:
        match = state.matches.get(match_id)
        waits = due(state.tasks[match.task_id], match, self.now) if match is not None else None
        return waits is not None and waits.deadline - self.now > LAST_SECONDS


@pytest.mark.parametrize("liar_first", [False, True], ids=["liar is B", "liar is A"])
def test_a_liar_that_always_answers_in_the_last_second_gains_nothing_but_time(liar_first: bool) -> None:
    world, job = World(), training_job()
    client = world.client()
    honest = world.provider("honest") if not liar_first else None
    # It gives no data and takes none: the long way down.
    alone = {client.address: client.store}
    liar = world.add(LastSecond(world.link("liar"), alone, make_work=FlipBit))
    world.directory[liar.address] = Nothing()
    honest = honest or world.provider("honest")
    task_id = client.post(job, world.bench(), replace(TWO, arity_bits=1))
    world.run(task_id)
    task = world.check_honest(client, task_id, job, honest)
    (match,) = [client.state.matches[i] for i in task.match_ids]
    assert match.reason is Reason.VERDICT, match_line(match)
    assert match.clock(match.side_of(task.index_of(honest.address))) == TERMS.allowance, "the grace covers it"
    assert match.clock(match.side_of(task.index_of(liar.address))) <= TERMS.grace + LAST_SECONDS
