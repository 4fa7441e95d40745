"""Several verbs in one transaction: what is foreseen is what the chain says; how many transactions a match takes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import pytest
from world import TERMS, World, training_job

from node import adversaries as adv
from node.actions import Action, Advance, Batch, BuildSteps, Chain, FetchTree, Local, Open, Pair, Post
from node.ahead import look_ahead
from node.errors import TxUnresolved
from node.events import Event
from node.fold import ChainState, fold_all, next_pair, pairing_since
from node.foresee import expected
from node.plan import plan
from node.provider import Provider
from node.referee import Referee
from node.structs import Level, Outcome, Phase, RefereeKind, Status

TWO = replace(TERMS, seats=2)


class Prophet(Provider):
    """Compares what it foresees of each transaction with what the chain says. Plays both ways down, as it likes."""

    def __init__(self, *arguments: Any, seed: int, seen: set[str], **how: Any) -> None:
        super().__init__(*arguments, **how)
        self.random, self.seen = random.Random(seed), seen

    def choose(self, state: ChainState, actions: Sequence[Action]) -> Sequence[Action]:
        self.one_transaction = self.random.random() < 0.5
        return actions

    def _do(self, action: Action) -> bool:
        state, mined = self.state, len(self.link.sender.sent)
        done = super()._do(action)
        for sent in self.link.sender.sent[mined:]:
            if isinstance(action, Chain) and isinstance(action, Batch) == bool(sent.parts):
                self._compare(state, action, sent.events)
        return done

    def _compare(self, state: ChainState, action: Chain, events: Sequence[Event]) -> None:
        foreseen: list[Event] = []
        for verb in action.verbs if isinstance(action, Batch) else (action,):
            found = expected(state, self.now, verb)
            if not found:
                assert not isinstance(action, Batch) or verb is action.verbs[-1], "nothing follows what ends a match"
                break
            state = fold_all(state, found)
            foreseen += found
            self.seen.add(type(verb).__name__)
        else:
            assert len(foreseen) == len(events)
        assert [_said(event) for event in foreseen] == [_said(event) for event in events[: len(foreseen)]]


def _said(event: Event) -> dict[str, Any]:
    """An event without what cannot be known beforehand: when and by whom."""
    unknown = ("meta", "time", "since", "verde", "account")
    return {"": type(event).__name__} | {k: v for k, v in asdict(event).items() if k not in unknown}


LIES = [
    adv.FlipBit,
    partial(adv.FlipOutput, node=0),  # with 80 rows this node's output has three tiles
    adv.LyingHashNode,
    partial(adv.FlipOutput, node=0, bit=(600, 3)),
]


def test_what_is_foreseen_is_what_the_chain_says() -> None:
    seen: set[str] = set()
    for seed in range(8):
        rng = random.Random(seed)
        steps = rng.randint(1, 5)
        world, job = World(), training_job(steps=steps, interval=rng.randint(1, steps), rows=80)
        client = world.client()
        for name in rng.sample(["honest", "liar"], 2):
            how = {"make_work": LIES[seed % len(LIES)]} if name == "liar" else {}
            world.provider(name, Prophet, seed=rng.getrandbits(30), seen=seen, **how)
        kind = RefereeKind.APPEAL if seed % 3 == 1 else RefereeKind.EVM
        bench = world.bench([adv.LyingReferee, adv.LyingReferee, Referee], kind=kind)
        world.run(client.post(job, bench, replace(TWO, arity_bits=rng.randint(1, 3))))
    above = {"Pair", "Open", "Advance", "Post"}
    below = {"TrialBegin", "TrialOpen", "TrialAdvance", "ShowTiles", "PostElement", "Appeal"}
    assert seen == above | below


# ------------------------------------------------------------------------------------------------------- Transactions


def transactions(
    kind: RefereeKind, *, one_transaction: bool, make_work: Any = adv.FlipBit, rows: int = 48, **how: Any
) -> list[tuple[str, ...]]:
    """Every transaction of a match of an honest A against a liar: who sent it, and its verbs."""
    world, job = World(), training_job(rows=rows)
    client = world.client()
    world.provider("honest", one_transaction=one_transaction)
    world.provider("liar", one_transaction=one_transaction, make_work=make_work, **how)
    world.run(client.post(job, world.bench(kind=kind), TWO))
    (match,) = client.state.matches.values()
    assert match.outcome is Outcome.A_WINS
    sides = {"honest": "A", "liar": "B"}
    about = [(name, sent) for name, sent in world.sent if any(hasattr(event, "match_id") for event in sent.events)]
    assert sum(len(sent.verbs) for _, sent in about) == match.verbs + 1, "each verb is counted, but `pair`"
    return [(sides.get(name, name), *sent.verbs) for name, sent in about]


TREES = LIES[1]
DOWN = [
    ("A", "pair", "advance", "post"),
    ("B", "post", "advance"),
    ("A", "post"),
    ("B", "post", "advance"),
]


def test_a_match_takes_four_transactions_if_each_side_serves_its_trees() -> None:
    *down, judged = transactions(RefereeKind.COMMITTEE, one_transaction=True)
    assert (down, judged[1:]) == (DOWN, ("judge",))


def test_a_trial_takes_two_more() -> None:
    assert transactions(RefereeKind.EVM, one_transaction=True, make_work=TREES, rows=80) == [
        *DOWN,
        ("A", "trial_begin", "trial_advance", "trial_show_tiles", "trial_post"),
        ("B", "trial_post", "trial_advance", "trial_execute"),
    ]


def test_a_hash_node_is_judged_with_one_more() -> None:
    found = transactions(RefereeKind.EVM, one_transaction=True, make_work=adv.LyingHashNode)
    assert found == [*DOWN, ("A", "hash_node")]


@pytest.mark.parametrize("hides", [False, True], ids=["neither asks", "B serves nothing"])
def test_move_by_move_pairing_and_opening_are_one_and_posts_spare_openings(hides: bool) -> None:
    how = {"make": adv.RefuseData} if hides else {}
    sent = transactions(RefereeKind.EVM, one_transaction=hides, make_work=TREES, rows=80, **how)
    assert sent[0] == ("A", "pair", "open")
    verbs = [verb for _, *parts in sent for verb in parts]
    assert verbs.count("open") == 1, "B's posts carry its children"
    assert ("A", "trial_begin", "trial_open") in sent
    assert sent[-1][-1] == "trial_execute"
    assert 6 < len(sent) < len(verbs)


# ---------------------------------------------------------------------------------------------------------- Adversity


class Chance:
    """A task that is about to be disputed: the honest A has planned its first transaction."""

    def __init__(self, tasks: int = 1) -> None:
        self.world, self.job = World(), training_job()
        self.client = self.world.client()
        self.honest = self.world.provider("honest")
        self.liar = self.world.provider("liar", make_work=adv.FlipBit)
        bench = self.world.bench(kind=RefereeKind.EVM)
        jobs = [self.job, training_job(seed=2)]
        self.tasks = [self.client.post(job, bench, TWO) for job in jobs[:tasks]]
        self.world.run(self.tasks[-1], until=lambda task: task.revealed == 2)
        deadlines = [self.client.link.verde.get_task(task).reveal_deadline for task in self.tasks]
        self.world.devnet.advance(max(deadlines) - self.world.devnet.now)
        self.honest.sync()
        self.batch = self.plan()

    def plan(self) -> Batch:
        """What A would send for its first task, with its local work done."""
        while isinstance(action := self.honest._next(set()), Local):
            assert self.honest._do(action)
        assert isinstance(action, Batch)
        return action

    def finish(self) -> None:
        for task in self.tasks:
            self.world.run(task)
        self.client.sync()
        assert all(self.client.state.tasks[task].status is Status.SETTLED for task in self.tasks)
        assert {match.outcome for match in self.client.state.matches.values()} == {Outcome.A_WINS}


def test_a_batch_that_is_refused_is_begun_with_its_first_verb() -> None:
    chance = Chance()
    pair, advance, post = chance.batch.verbs
    assert [type(verb) for verb in chance.batch.verbs] == [Pair, Advance, Post]
    heard: list[Action] = []
    chance.honest.on_action = lambda _, action, __: heard.append(action)
    assert chance.honest._do(replace(chance.batch, verbs=(pair, advance, replace(post, root=adv.noise("root")))))
    assert heard == [pair]
    assert chance.honest.state.matches[1].phase is Phase.OPEN
    chance.finish()


def test_what_follows_a_post_that_cannot_be_accepted_is_not_looked_for() -> None:
    """B has claimed noise for a step that it then traces as it is: its trace is A's."""
    world, job = World(), training_job(steps=6, interval=2)
    client = world.client()
    honest = world.provider("honest", one_transaction=False)
    world.provider("liar", one_transaction=False, make_work=adv.GarbageSubtree)
    task_id = client.post(job, world.bench(), TWO)
    world.run(task_id)
    (match,) = client.state.matches.values()
    assert match.level is Level.OPERATORS and match.at.root_a is not None and match.at.root_b is None
    world.check_honest(client, task_id, job, honest)


def test_who_is_not_the_first_to_pair_plans_anew() -> None:
    chance = Chance()
    chance.liar.link.sender.send(chance.liar.link.verde.pair(chance.tasks[0]))
    assert not chance.honest._do(chance.batch)
    again = chance.plan()
    assert again.verbs == chance.batch.verbs[1:]
    chance.finish()


def test_a_match_of_another_task_may_take_the_foreseen_id() -> None:
    chance = Chance(tasks=2)
    assert (chance.batch.verbs[0], chance.batch.match) == (Pair(1), 1)
    chance.liar.link.sender.send(chance.liar.link.verde.pair(2))
    assert not chance.honest._do(chance.batch)
    assert chance.honest.link.verde.match_count() == 1, "the batch is whole or nothing"
    again = chance.plan()
    assert (again.verbs[0], again.match) == (Pair(1), 2)
    chance.finish()


def test_a_restart_between_a_batch_and_its_receipt_does_no_harm() -> None:
    chance = Chance()
    sender = chance.honest.link.sender

    def lost(call: Any, tx_hash: bytes) -> Any:
        raise TxUnresolved(call.verb, tx_hash, 0.0, where=call.where)

    sender._wait = lost
    chance.honest.tick()
    assert isinstance(chance.honest.trouble, TxUnresolved)
    del sender._wait
    world = chance.world
    world.actors.remove(chance.honest)
    chance.honest = world.add(Provider(world.link("honest"), world.directory))
    chance.finish()


def test_pairing_is_left_to_side_a_for_as_long_as_its_grace() -> None:
    chance = Chance()
    state, task = chance.honest.state, chance.honest.state.tasks[1]
    assert task.index_of(chance.honest.address) == next_pair(task)[0]
    since = pairing_since(state, task)
    assert since == task.reveal_deadline
    for player, is_a in ((chance.honest, True), (chance.liar, False), (chance.client, False)):
        player.sync()
        for now, late in ((since, False), (since + task.grace - 1, False), (since + task.grace, True)):
            assert (Pair(1) in plan(state, now, player.view())) == (is_a or late)


def test_what_takes_long_is_built_ahead_only_while_time_costs_nothing() -> None:
    """A has to close a level, and its post needs a segment that it has not executed again yet."""
    chance = Chance()
    pair, advance, _ = chance.batch.verbs
    chance.honest._do(pair)
    state, task = chance.honest.state, chance.honest.state.tasks[1]
    view = replace(chance.honest.view(), segments={})
    since = state.matches[1].since
    for now, waits in ((since, True), (since + task.grace // 2, False), (since + task.grace, False)):
        found = look_ahead(state, now, view, advance)
        assert isinstance(found, BuildSteps) if waits else found == advance


def test_who_has_not_served_yet_is_waited_for_once_more_before_a_pairing() -> None:
    chance = Chance()
    state, now = chance.honest.state, chance.honest.now
    view = replace(chance.honest.view(), trees={})
    fetch = look_ahead(state, now, view, Pair(1))
    assert isinstance(fetch, FetchTree)
    assert look_ahead(state, now, view, Pair(1), tried={fetch}) is None
    given_up = replace(view, unreachable=frozenset({fetch.root}))
    found = look_ahead(state, now, given_up, Pair(1))
    assert isinstance(found, Batch) and [type(verb) for verb in found.verbs] == [Pair, Open]
