"""Every entry of `CHEATS` in a task with three seats, as `verde demo --cheat` plays it, and what groups of liars do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from world import TERMS, World, match_line, training_job

from node.adversaries import CHEATS, Cheat, LateClaim, LyingReferee, Turncoat
from node.referee import Referee
from node.structs import Reason, RefereeKind, Standing

SEATS = 3


def perform(cheat: Cheat, kind: RefereeKind = RefereeKind.COMMITTEE):
    """Plays a cast: honest providers in the seats that are left, a challenger if there are none."""
    world, job = World(), training_job()
    client = world.client()
    makers = cheat.liars
    if cheat.fills_seats:
        makers = tuple(cheat.liars[i % len(cheat.liars)] for i in range(SEATS))
    honest = [world.provider(f"p{i}") for i in range(SEATS - len(makers))]
    liars = [world.provider(f"p{SEATS - i - 1}", make) for i, make in enumerate(makers)]
    if cheat.fills_seats:
        honest = [world.provider("honest", takes_seats=False, challenges=True)]
    members = [LyingReferee if i < cheat.lying_members else Referee for i in range(3)]
    task_id = client.post(job, world.bench(members, kind=cheat.referee or kind), replace(TERMS, seats=SEATS))
    world.run(task_id)
    task = world.check_honest(client, task_id, job, *honest)
    return world, client, task, honest, liars


@pytest.mark.parametrize("kind", [RefereeKind.COMMITTEE, RefereeKind.EVM], ids=lambda kind: kind.value)
@pytest.mark.parametrize("name", list(CHEATS))
def test_no_cast_gets_away_with_it(name: str, kind: RefereeKind) -> None:
    _, client, task, _, liars = perform(CHEATS[name], kind)
    # Two liars with different roots may meet each other first: then one of them has lost to the other.
    fewest = {"copy-commitment": 0, "never-reveal": 0}.get(name, len(liars))
    assert len(task.match_ids) == fewest, [match_line(client.state.matches[i]) for i in task.match_ids]
    for liar in liars:
        assert task.roster[task.index_of(liar.address)].standing is not Standing.FREE


def test_sybils_in_every_seat_lose_to_one_challenger() -> None:
    world, client, task, (challenger,), liars = perform(CHEATS["sybils"])
    assert task.surviving_seats == 0
    assert task.payee == task.index_of(challenger.address) + 1, "the challenger is paid one reward"
    assert world.gained(client) == -TERMS.reward, "the other rewards went back to the client"
    assert len({task.roster[task.index_of(liar.address)].claim_id for liar in liars}) == 1, "one lie"
    matches = [client.state.matches[i] for i in task.match_ids]
    assert [match.reason for match in matches] == [Reason.VERDICT] * SEATS
    assert world.gained(challenger) == TERMS.reward + sum(match.paid for match in matches)


def test_a_turncoat_with_the_honest_claim_does_not_keep_the_challenger_out() -> None:
    world, client, task, (challenger,), liars = perform(CHEATS["turncoat"])
    turncoats = [liar for liar in liars if isinstance(liar, Turncoat)]
    assert turncoats
    mine = task.roster[task.index_of(challenger.address)].claim_id
    assert all(task.roster[task.index_of(liar.address)].claim_id == mine for liar in turncoats)
    reasons = [client.state.matches[i].reason for i in task.match_ids]
    assert Reason.TIMEOUT in reasons and Reason.VERDICT in reasons
    assert world.gained(challenger) > TERMS.reward


def test_a_claim_in_the_last_second_can_still_be_answered() -> None:
    """Every seat holds the honest claim and is a sybil's, so that no auditor sees a reason to join; the lie comes when
    the window is nearly over, and the sybils let themselves be beaten by it."""
    world, job = World(), training_job()
    client = world.client()
    for i in range(SEATS):
        world.provider(f"p{i}", Turncoat)
    auditor = world.provider("honest", takes_seats=False, challenges=True)
    world.provider("liar", LateClaim)
    task_id = client.post(job, world.bench(), replace(TERMS, seats=SEATS))
    created = world.run(task_id, until=lambda task: task.participants == SEATS)
    world.run(task_id)
    task = world.check_honest(client, task_id, job, auditor)
    assert task.challenge_deadline > created.challenge_deadline, "the new claim opened a whole window"
    assert task.payee == task.index_of(auditor.address) + 1


def test_two_liars_with_one_root_never_play_each_other() -> None:
    _, client, task, (honest,), _ = perform(CHEATS["two-liars"])
    index = task.index_of(honest.address)
    assert all(index in (client.state.matches[i].index_a, client.state.matches[i].index_b) for i in task.match_ids)


def test_a_lying_minority_of_the_committee_is_outvoted() -> None:
    world, client, task, _, _ = perform(CHEATS["lying-referee"])
    (match,) = [client.state.matches[i] for i in task.match_ids]
    said = [actor.store.verdicts(match.match_id)[0].output_root for actor in world.actors if isinstance(actor, Referee)]
    assert said.count(match.output_root) == 2
    assert said[0] in (match.node_a, match.node_b) and said[0] != match.output_root
