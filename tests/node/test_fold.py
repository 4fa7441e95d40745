"""fold(logs) against the contract: random tasks played on the development chain, every view compared to the field."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
from chain_play import Actor, Book, Driver, Lie, Work, random_book, random_params, random_work
from conftest import Deployed

from node.chain.contracts import Call, Verde
from node.chain.sender import AlreadyDone, Sender, Sent
from node.errors import InconsistentEvents, TxReverted
from node.events import Cancelled, Event, Failed, MatchEnded, Settled, Voided
from node.fold import (
    ChainState,
    Stage,
    can_cancel,
    can_expire,
    can_pair,
    can_settle,
    due,
    fold,
    fold_all,
    holdback_owed,
    owed,
    stage,
)
from node.structs import BURN, NOBODY, Match, Outcome, Participant, Reason, Standing, Status, Task

SEEDS = range(4)


@dataclass(frozen=True)
class Theme:
    """A play with a direction: which lies are told, what the referee does, and how the play must go."""

    name: str
    expects: Callable[[list[Event]], bool]
    lies: tuple[Lie, ...] = (Lie.OPERATOR,)
    verdicts: str = "honest"
    silent: float = 0.0
    reveal: float = 1.0
    commitments: int = 16
    challengers: bool = True
    work: Callable[[Work], Work] = lambda work: work


def ended(*reasons: Reason, outcome: Outcome | None = None) -> Callable[[list[Event]], bool]:
    """Whether matches ended for all these reasons (one of them with this outcome)."""

    def check(events: list[Event]) -> bool:
        matches = [event for event in events if isinstance(event, MatchEnded)]
        told = {match.reason for match in matches}
        return set(reasons) <= told and (outcome is None or outcome in {match.outcome for match in matches})

    return check


def last(*kinds: type[Event]) -> Callable[[list[Event]], bool]:
    return lambda events: any(isinstance(event, kinds) for event in events)


THEMES = [
    Theme("an operator, judged", ended(Reason.VERDICT)),
    Theme("neither is right", ended(Reason.VERDICT, outcome=Outcome.BOTH_LOSE), verdicts="neither"),
    Theme("no inputs", ended(Reason.UNAVAILABLE, outcome=Outcome.BOTH_LOSE), verdicts="unavailable"),
    Theme("a silent referee", last(Voided), verdicts="silent"),
    Theme("padding", ended(Reason.PADDING), lies=(Lie.PADDING,), work=lambda w: replace(w, steps=5, interval=1)),
    Theme("a hash node", ended(Reason.HASH_NODE), lies=(Lie.HASH_NODE, Lie.LAST)),
    Theme("garbage", ended(Reason.HASH_NODE), lies=(Lie.RANDOM,)),
    Theme("silence", ended(Reason.TIMEOUT), lies=(Lie.OPERATOR, Lie.RANDOM), silent=0.3),
    Theme("one leaf everywhere", last(Settled), work=lambda w: replace(w, steps=1, interval=1, compute=1)),
    Theme("nobody reveals", last(Failed), reveal=0.0, challengers=False),
    Theme(
        "a challenger is paid",
        lambda events: any(isinstance(event, Settled) and event.payee > 0 for event in events),
        reveal=0.0,
    ),
    Theme("nobody commits", last(Cancelled), commitments=1),
]


def stored(kind: type[Any], state: Any) -> Any:
    """The part of a folded task or match that the contract stores."""
    return kind(**{field.name: getattr(state, field.name) for field in fields(kind)})


def compare_changes(verde: Verde, before: ChainState, state: ChainState) -> None:
    """The views of what the fold has changed, to the field. (What it forgot to change, `compare` finds.)"""
    for task_id, task in state.tasks.items():
        old = before.tasks.get(task_id)
        if task is old:
            continue
        assert verde.get_task(task_id) == stored(Task, task)
        for index, participant in enumerate(task.roster):
            if old is None or participant not in old.roster:
                assert verde.get_participant(task_id, index) == participant
        for claim_id, claim in enumerate(task.claim_list, 1):
            if old is None or claim not in old.claim_list:
                assert verde.get_claim(task_id, claim_id) == claim
    for match_id, match in state.matches.items():
        if match is not before.matches.get(match_id):
            assert verde.get_match(match_id) == stored(Match, match)
    for account in before.credits.keys() | state.credits.keys():
        if before.credit(account) != state.credit(account):
            assert verde.credit(account) == state.credit(account)


def compare(verde: Verde, state: ChainState, accounts: set[str]) -> None:
    """Every view of the contract against the folded state, to the field."""
    assert verde.task_count() == len(state.tasks)
    assert verde.match_count() == len(state.matches)
    for task_id, task in state.tasks.items():
        assert verde.get_task(task_id) == stored(Task, task)
        for index, participant in enumerate(task.roster):
            assert verde.get_participant(task_id, index) == participant
        beyond = Participant(NOBODY, Standing.NONE, False, False, 0, 0, bytes(32))
        assert verde.get_participant(task_id, len(task.roster)) == beyond
        for claim_id, claim in enumerate(task.claim_list, 1):
            assert verde.get_claim(task_id, claim_id) == claim
            assert verde.claim_id_of(task_id, claim.root) == claim_id
        for account in accounts:
            member = verde.get_member(task_id, account)
            ours = task.members.get(account)
            assert (member.named, member.participant) == ((ours.named, ours.participant) if ours else (False, 0))
    for match_id, match in state.matches.items():
        assert verde.get_match(match_id) == stored(Match, match)
        waits = due(state.tasks[match.task_id], match, 0)
        assert verde.time_limit(match_id) == ((waits.since, waits.limit) if waits else (0, 0))
    for account in accounts:
        assert verde.credit(account) == state.credit(account)


class Play:
    """One random task, played until nothing is left to do; after every transaction the fold is compared with what it
    changed, now and then and at the end with everything."""

    def __init__(self, deployed: Deployed, seed: int, theme: Theme | None = None) -> None:
        self.deployed, self.rng = deployed, random.Random(seed)
        rng = self.rng
        if theme is None:
            theme = Theme(
                "anything",
                expects=bool,
                lies=tuple(kind for kind in Lie if kind is not Lie.NONE),
                verdicts=rng.choice(["honest", "honest", "honest", "unavailable", "neither", "silent"]),
                silent=rng.choice([0.0, 0.0, 0.1]),
                reveal=0.9,
                commitments=rng.choice([0, 1, 16, 16, 16, 16, 16]),
            )
        self.theme = theme
        work = theme.work(random_work(rng))
        names = [f"provider {i}" for i in range(7)]
        members = sorted((deployed.sender(f"member {i}") for i in range(3)), key=lambda s: s.address.lower())
        seats = rng.randint(2, 4)
        params = random_params(rng, work, deployed.referee, [m.address for m in members], seats)
        if rng.random() < 0.3:
            params = replace(params, providers=tuple(deployed.sender(name).address for name in names[:seats]))
        lies = [
            (rng.choice(theme.lies), (rng.randrange(work.steps), rng.randrange(work.compute)), rng.randrange(1, 100))
            for _ in range(2)
        ]
        books = [
            random_book(rng, work, lies)
            for _ in range(rng.randint(seats + theme.challengers, 7) if theme.challengers else seats)
        ]
        books[:2] = [Book(work, Lie.NONE, (0, 0), 0), Book(work, *lies[0])]  # there is something to dispute
        actors = [
            Actor(name, deployed.sender(name), book, i >= seats, rng.random() < theme.reveal, theme.silent)
            for i, (name, book) in enumerate(zip(names, books, strict=False))
        ]
        self.driver = Driver(
            rng,
            deployed.devnet,
            deployed.verde,
            deployed.referee,
            deployed.sender("client"),
            actors,
            members,
            work,
            params,
            Book(work, Lie.NONE, (0, 0), 0),
            verdicts=theme.verdicts,
        )
        self.follower = deployed.follower()
        self.events: list[Event] = []
        self.seen: Counter[str] = Counter()
        self.accounts = {actor.sender.address for actor in actors} | {self.driver.client.address, BURN, NOBODY}
        created = self.do(self.driver.client, deployed.verde.create_task(params))
        assert created is not None
        self.driver.task_id = next(iter(self.state.tasks))

    @property
    def state(self) -> ChainState:
        return self.follower.state

    @property
    def now(self) -> int:
        """The timestamp that the next transaction will have."""
        return self.deployed.devnet.chain.next_timestamp

    def do(self, sender: Sender, call: Call) -> Sent:
        """A call that the fold says is possible: it must go through, and the fold must follow it."""
        outcome = sender.send(call)
        assert isinstance(outcome, Sent), outcome
        self.seen[call.verb] += 1
        before = self.state
        self.events += self.follower.tick().events
        compare_changes(self.deployed.verde, before, self.state)
        if self.rng.random() < 0.05:
            compare(self.deployed.verde, self.state, self.accounts)
        return outcome

    def refused(self, sender: Sender, call: Call) -> None:
        """A call that the fold says is impossible now."""
        try:
            outcome = sender.send(call)
        except TxReverted as error:
            assert error.error, error
        else:
            assert isinstance(outcome, AlreadyDone), outcome
        self.seen["refused"] += 1

    def run(self) -> None:
        for _ in range(400):
            task = self.state.tasks[self.driver.task_id]
            if not self.step():
                break
            if self.rng.random() < 0.5:
                self.check_predictions()
        else:
            raise AssertionError("the task does not come to an end")
        task = self.state.tasks[self.driver.task_id]
        assert task.status is not Status.LIVE
        self.finish()

    def step(self) -> bool:
        """One random call or one jump in time; False when the task has ended."""
        d, rng, verde = self.driver, self.rng, self.deployed.verde
        task = self.state.tasks[d.task_id]
        where = stage(task, self.now)
        anyone = rng.choice(d.actors).sender
        joined = {p.account for p in task.roster}
        if task.status is not Status.LIVE:
            return False
        if where is Stage.COMMITTING:
            waiting = [a for a in d.actors if not a.challenger and a.sender.address not in joined]
            if waiting and len(joined) < self.theme.commitments:
                actor = rng.choice(waiting)
                self.do(actor.sender, d.call_commit(actor))
            elif can_cancel(task, self.now) and rng.random() < 0.2:
                self.do(d.client, verde.cancel(d.task_id))
            else:
                self.jump(task.commit_deadline)
        elif can_expire(task, self.now):
            self.do(anyone, verde.expire(d.task_id))
        elif where is Stage.REVEALING:
            waiting = [a for a in d.actors if a.reveals and self.standing(a) is Standing.COMMITTED]
            if waiting:
                actor = rng.choice(waiting)
                self.do(actor.sender, d.call_reveal(actor))
            else:
                self.jump(task.reveal_deadline)
        else:
            waiting = [a for a in d.actors if a.challenger and a.sender.address not in joined]
            live = self.state.live_matches(d.task_id)
            options = ["wait"]
            options += ["challenge"] * (2 * bool(waiting) if where is Stage.CHALLENGING else 0)
            options += ["pair"] * (2 * can_pair(task, self.now))
            options += ["play"] * (6 * bool(live))
            options += ["settle"] * can_settle(task, self.now)
            match rng.choice(options):
                case "challenge":
                    actor = rng.choice(waiting)
                    self.do(actor.sender, d.call_challenge(actor))
                case "pair":
                    self.do(anyone, verde.pair(d.task_id))
                case "settle":
                    self.do(anyone, verde.settle(d.task_id))
                case "play":
                    self.play(rng.choice(live).match_id)
                case "wait" if where is Stage.CHALLENGING and not live and not can_pair(task, self.now):
                    self.jump(task.challenge_deadline)
                case "wait":
                    self.deployed.devnet.advance(rng.randint(1, 8))
        return True

    def play(self, match_id: int) -> None:
        """The due side's response, or silence until the time is over."""
        d = self.driver
        task, match = self.state.tasks[d.task_id], self.state.matches[match_id]
        waits = due(task, match, self.now)
        assert waits is not None
        anyone = self.rng.choice(d.actors).sender
        if waits.late:
            response = d.response(task, match)
            if response is not None:
                self.refused(response[0].sender if response[0] else anyone, response[1])
            self.do(anyone, d.end(match))
            return
        if self.rng.random() < 0.2:
            self.refused(anyone, d.end(match))
        silent = waits.side is None and d.verdicts == "silent"
        if waits.side is not None:
            account = task.roster[match.index(waits.side)].account
            silent = self.rng.random() < next(a.silent for a in d.actors if a.sender.address == account)
        response = None if silent else d.response(task, match)
        if response is None:
            edge = self.rng.choice([-1, 0, 1])  # just before, at, or just after the deadline
            target = waits.deadline + edge
            if target > self.deployed.devnet.now:
                self.deployed.devnet.set_next_timestamp(target)
                call = d.end(match)
                if edge < 0:
                    self.refused(anyone, call)
                else:
                    self.do(anyone, call)
            return
        poster, call = response
        if self.rng.random() < 0.15 and waits.deadline - 1 > self.deployed.devnet.now:
            self.deployed.devnet.set_next_timestamp(waits.deadline - 1)  # the last second that counts
        self.do(poster.sender if poster else anyone, call)

    def jump(self, deadline: int) -> None:
        """To the deadline, or a second before it."""
        devnet = self.deployed.devnet
        target = deadline + self.rng.choice([-2, -1, 0, 3])
        devnet.advance(max(target - devnet.now, 1))

    def standing(self, actor: Actor) -> Standing:
        task = self.state.tasks[self.driver.task_id]
        index = task.index_of(actor.sender.address)
        return Standing.NONE if index is None else task.roster[index].standing

    def check_predictions(self) -> None:
        """What the fold says is impossible is refused by the contract; what it says is possible is not."""
        d, verde, now = self.driver, self.deployed.verde, self.now
        task = self.state.tasks[d.task_id]
        anyone = d.actors[0].sender
        checks = [
            (can_pair(task, now), verde.pair(d.task_id)),
            (can_settle(task, now), verde.settle(d.task_id)),
            (can_expire(task, now), verde.expire(d.task_id)),
            *((owed(task, i) > 0, verde.collect(d.task_id, i)) for i in range(len(task.roster))),
            *((holdback_owed(task, i, now) > 0, verde.collect_holdback(d.task_id, i)) for i in range(len(task.roster))),
        ]
        possible, call = self.rng.choice(checks)
        try:
            anyone.simulate(call)
            assert possible, call.verb
        except TxReverted as error:
            assert not possible, error

    def finish(self) -> None:
        """Everything is collected and withdrawn; not a wei stays behind."""
        d, verde, rng = self.driver, self.deployed.verde, self.rng
        anyone = d.actors[0].sender
        task = self.state.tasks[d.task_id]
        if task.status is Status.SETTLED and rng.random() < 0.5:
            self.do(d.client, verde.confirm_delivery(d.task_id))
        for index in range(len(task.roster)):
            self.check_predictions()
            amount = owed(self.state.tasks[d.task_id], index)
            if amount:
                before = self.state.credit(task.roster[index].account)
                self.do(anyone, verde.collect(d.task_id, index))
                assert self.state.credit(task.roster[index].account) == before + amount
        self.deployed.devnet.advance(task.delivery_window)
        for index in range(len(task.roster)):
            if holdback_owed(self.state.tasks[d.task_id], index, self.now):
                self.do(anyone, verde.collect_holdback(d.task_id, index))
        compare(verde, self.state, self.accounts)
        w3 = self.deployed.rpc.w3
        assert w3.eth.get_balance(verde.address) == sum(self.state.credits.values())
        for account in sorted(self.state.credits):
            self.do(anyone, verde.withdraw(account))
        assert w3.eth.get_balance(verde.address) == 0
        assert not self.state.credits
        compare(verde, self.state, self.accounts)


@pytest.mark.parametrize("seed", SEEDS)
def test_fold_equals_storage_after_random_play(deployed: Deployed, seed: int) -> None:
    play = Play(deployed, seed)
    play.run()
    assert fold_all(ChainState(), play.events) == play.state


@pytest.mark.parametrize("theme", THEMES, ids=[theme.name for theme in THEMES])
def test_fold_equals_storage_in_every_ending(deployed: Deployed, theme: Theme) -> None:
    play = Play(deployed, 1, theme)
    play.run()
    assert theme.expects(play.events)


def test_an_event_that_cannot_follow_is_refused(deployed: Deployed) -> None:
    """Every event of a play, left out, makes the fold fail or changes what it leads to."""
    play = Play(deployed, 1, THEMES[0])
    play.run()
    refused = 0
    for i in range(len(play.events)):
        try:
            assert fold_all(ChainState(), play.events[:i] + play.events[i + 1 :]) != play.state
        except InconsistentEvents:
            refused += 1
    assert refused > len(play.events) // 2
    with pytest.raises(InconsistentEvents, match="last folded"):
        fold(play.state, play.events[0])


def test_bounds_to_the_second(deployed: Deployed) -> None:
    """At each deadline, a second before and a second after it, the fold says what the contract does."""
    play = Play(deployed, 1, THEMES[0])
    d, verde, devnet = play.driver, deployed.verde, deployed.devnet
    seated = [actor for actor in d.actors if not actor.challenger]
    outsider = next(actor for actor in d.actors if actor.challenger)

    def goes(actor: Actor, call: Call) -> bool:
        try:
            actor.sender.simulate(call)
        except TxReverted:
            return False
        return True

    def around(deadline: int, check: Callable[[int], None]) -> None:
        for now in (deadline - 1, deadline, deadline + 1):
            devnet.set_next_timestamp(now)  # the pending block, in which calls are simulated
            check(now)

    def check_task(now: int) -> None:
        task = play.state.tasks[d.task_id]
        where = stage(task, now)
        waiting = [a for a in seated if play.standing(a) is Standing.COMMITTED]
        assert can_cancel(task, now) == goes(replace(outsider, sender=d.client), verde.cancel(d.task_id))
        assert can_expire(task, now) == goes(outsider, verde.expire(d.task_id))
        assert can_pair(task, now) == goes(outsider, verde.pair(d.task_id))
        assert can_settle(task, now) == goes(outsider, verde.settle(d.task_id))
        if play.standing(seated[-1]) is Standing.NONE:
            assert (where is Stage.COMMITTING) == goes(seated[-1], d.call_commit(seated[-1]))
        if waiting and task.committed >= 2:
            assert (where is Stage.REVEALING) == goes(waiting[0], d.call_reveal(waiting[0]))
        if task.committed >= 2:
            assert (where is Stage.CHALLENGING) == goes(outsider, d.call_challenge(outsider))

    def check_match(now: int) -> None:
        task, match = play.state.tasks[d.task_id], play.state.matches[1]
        waits, response = due(task, match, now), d.response(task, match)
        assert waits is not None
        assert response is not None
        assert waits.late == goes(outsider, d.end(match))
        assert waits.late != goes(response[0] or outsider, response[1])

    task = play.state.tasks[d.task_id]
    around(task.commit_deadline, check_task)
    for actor in seated[:2]:
        devnet.set_next_timestamp(devnet.now + 1)
        play.do(actor.sender, d.call_commit(actor))
    around(task.commit_deadline, check_task)
    devnet.set_next_timestamp(task.commit_deadline)
    play.do(seated[0].sender, d.call_reveal(seated[0]))
    around(task.reveal_deadline, check_task)
    around(task.challenge_deadline, check_task)  # one claim so far: it could settle
    devnet.set_next_timestamp(task.reveal_deadline - 1)
    play.do(seated[1].sender, d.call_reveal(seated[1]))
    around(task.challenge_deadline, check_task)
    around(task.reveal_deadline + 1, check_task)
    devnet.set_next_timestamp(task.challenge_deadline - 1)
    play.do(outsider.sender, verde.pair(d.task_id))
    around(task.challenge_deadline + 1, check_task)
    while (waits := due(play.state.tasks[1], play.state.matches[1], devnet.now)) is not None:
        around(waits.deadline, check_match)
        devnet.set_next_timestamp(devnet.now + 1)
        response = d.response(play.state.tasks[1], play.state.matches[1])
        assert response is not None
        play.do((response[0] or outsider).sender, response[1])
    check_task(devnet.chain.next_timestamp)
    devnet.set_next_timestamp(max(task.challenge_deadline, devnet.now + 1))
    play.do(outsider.sender, verde.settle(1))
    settled = play.state.tasks[1]
    winner = next(i for i, who in enumerate(settled.roster) if who.standing is Standing.FREE)
    for now in (settled.ended_at + settled.delivery_window + i for i in (-1, 0, 1)):
        devnet.set_next_timestamp(now)
        assert (holdback_owed(settled, winner, now) > 0) == goes(outsider, verde.collect_holdback(1, winner))
