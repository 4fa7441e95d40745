"""The player around the plan: refused calls, bad endpoints, what it is asked to do and cannot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from world import TERMS, World, training_job

from node import adversaries as adv
from node.actions import (
    Advance,
    AskReferee,
    Batch,
    BuildSteps,
    Chain,
    Collect,
    Commit,
    FetchTree,
    Judge,
    Open,
    Pair,
    Post,
    Reveal,
    Settle,
    Withdraw,
)
from node.client import Client
from node.errors import RpcUnavailable, TxReverted, UsageError
from node.plan import plan
from node.player import Player
from node.structs import NO_OPENING
from repops.commit import Tree


def test_an_idle_player_does_nothing() -> None:
    world = World()
    player = Player(world.link("p0"), {})
    assert player.tick() == []
    assert player.trouble is None


def test_a_call_that_somebody_else_was_faster_with_is_no_failure() -> None:
    """Two watchers plan the same settlement; one transaction is mined and both go on."""
    world, job = World(), training_job()
    client = world.client()
    for name in ("p0", "p1"):
        world.provider(name)
    task_id = client.post(job, world.bench(), replace(TERMS, seats=2))
    task = world.run(task_id, until=lambda task: task.revealed == 2)
    world.devnet.advance(task.challenge_deadline - world.devnet.now)
    client.sync()
    action = Settle(task_id)
    assert client._do(action)
    assert client._do(action), "it is settled: that is what was wanted"
    client.sync()
    assert client.state.tasks[task_id].settled_claim


def test_a_call_that_the_contract_refuses_is_not_done_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    client = world.client()
    task_id = client.post(training_job(), world.bench(), TERMS)
    with caplog.at_level("INFO"):
        assert not client._do(Collect(task_id, 0))
        assert not client._do(Pair(task_id))
    assert "collect reverted" in caplog.text and "TooEarly" in caplog.text


def test_an_endpoint_that_does_not_answer_ends_the_tick_and_no_more() -> None:
    world = World()
    client = world.client()
    task_id = client.post(training_job(), world.bench(), TERMS)
    provider = world.provider("p0")
    original = provider.link.follower.tick

    def down() -> Any:
        raise RpcUnavailable("no answer", where="test")

    object.__setattr__(provider.link.follower, "tick", down)
    assert provider.tick() == []
    assert isinstance(provider.trouble, RpcUnavailable)
    object.__setattr__(provider.link.follower, "tick", original)
    assert [type(a) for a in provider.tick()] == [Commit]
    assert provider.trouble is None
    client.sync()
    assert client.state.tasks[task_id].committed == 1


def test_actions_are_told_with_their_receipts() -> None:
    world, job = World(), training_job()
    client = world.client()
    heard: list[tuple[str, type, Any]] = []
    honest, liar = world.provider("honest"), world.provider("liar", make_work=adv.FlipBit)
    for player in (honest, liar):
        player.on_action = lambda who, action, receipt: heard.append((who.address, type(action), receipt))
    task_id = client.post(job, world.bench(), replace(TERMS, seats=2))
    world.run(task_id)
    kinds = {kind for _, kind, _ in heard}
    assert {Commit, Reveal, BuildSteps, FetchTree, Batch, Post, Collect, Withdraw} <= kinds
    for _, kind, receipt in heard:
        assert (receipt is not None) == issubclass(kind, Chain)


def test_work_for_a_provider_is_not_done_by_a_client() -> None:
    world = World()
    with pytest.raises(TypeError, match="BuildSteps is not for Client"):
        world.client().perform(BuildSteps(1, 0))


def test_a_tree_that_nobody_serves_is_asked_for_twice() -> None:
    """The other side may be building it when it is asked for the first time."""
    world = World()
    player = world.client()
    tree = Tree([adv.noise("a"), adv.noise("b")], 1)
    for unreachable in (False, True):
        player.perform(FetchTree(tree.root, 1, "0x" + "77" * 20))
        assert (tree.root in player.view().unreachable) == unreachable
    world.directory["0x" + "77" * 20] = player.store
    other = Tree([adv.noise("c"), adv.noise("d")], 1)
    player.store.put_tree(other)
    player.perform(FetchTree(other.root, 1, "0x" + "77" * 20))
    assert player.view().trees[other.root].root == other.root


def test_a_liar_cannot_pass_off_a_move_that_is_none() -> None:
    """The contract refuses moves with wrong nodes, siblings or children, and the match goes on as if nothing was."""
    world, job = World(), training_job()
    client = world.client()
    honest = world.provider("honest")
    liar = world.provider("liar", adv.RefuseData, one_transaction=False)
    task_id = client.post(job, world.bench(), replace(TERMS, seats=2))
    world.run(task_id, until=lambda task: task.revealed == 2)
    world.actors.remove(liar)
    world.run(task_id, until=lambda task: bool(task.match_ids) and _due_liar(client, task))
    world.actors.append(liar)
    (match_id,) = client.state.tasks[task_id].match_ids
    good = next(a for a in _planned(liar) if isinstance(a, Advance))
    forged = [
        replace(good, index=good.index ^ 1),
        replace(good, a=adv.noise("a")),
        replace(good, b=good.a),
        replace(good, siblings=good.siblings[:-1]),
        replace(good, siblings=(adv.noise("s"), *good.siblings[1:])),
        replace(good, m=good.m + 1),
        replace(good, pre=replace(NO_OPENING, value=adv.noise("pre"))),
        replace(good, children=(adv.noise("child"),)),
        Open(match_id, tuple(adv.noise(str(i)) for i in range(4))),
        Post(match_id, adv.noise("root"), (), ()),
        Judge(match_id, b""),
    ]
    before = client.state.matches[match_id]
    for lie in forged:
        with pytest.raises(TxReverted):
            liar.link.sender._estimate(liar._call(lie))
    client.sync()
    assert client.state.matches[match_id] == before
    world.run(task_id)
    world.check_honest(client, task_id, job, honest)


def _due_liar(client: Client, task: Any) -> bool:
    client.sync()
    match = client.state.matches[task.match_ids[0]]
    return match.phase.name == "MOVE" and match.turn.name == "B"


def _planned(player: Any) -> Any:
    player.sync()
    return [a for a in plan(player.state, player.now, player.view()) if not isinstance(a, AskReferee)]


def test_a_bond_that_the_contract_would_refuse_is_refused_before() -> None:
    world = World()
    client = world.client()
    bench = world.bench()
    with pytest.raises(UsageError, match="does not cover twice what a match of"):
        client.post(training_job(), bench, replace(TERMS, bond=10**15))
    assert world.gained(client) == 0


def test_there_is_no_result_before_the_task_has_settled() -> None:
    world = World()
    client = world.client()
    task_id = client.post(training_job(), world.bench(), TERMS)
    with pytest.raises(UsageError, match="live, not settled"):
        client.result(task_id)
