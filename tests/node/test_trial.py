"""Trials: the fold against the referee's storage in random play, the moves of both ways down, appeals."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

import pytest
from world import TERMS, World, match_line, mlp, root_of, training_job, true_states

from node import adversaries as adv
from node import events as ev
from node.actions import Action, Appeal, Batch, Chain
from node.chain.committee import question
from node.chain.contracts import TrialReferee
from node.fold import ChainState, fold_all
from node.player import Player
from node.provider import Provider
from node.referee import Referee
from node.structs import (
    ZERO,
    Outcome,
    Phase,
    Reason,
    RefereeKind,
    Ruling,
    Standing,
    Status,
    Trial,
    TrialStage,
    Verdict,
)
from node.trial import TrialState, never_begun
from repops.vm.isa import Instruction, Op

MATMUL = max(i for i, node in enumerate(mlp().nodes) if node.op == "matmul")
NOTHING = Verdict(ZERO, 0, 0, 0, False, 0)
SIDES = pytest.mark.parametrize("liar_first", [False, True], ids=["liar is B", "liar is A"])


def stored(trial: TrialState) -> Trial:
    """The part of a folded trial that the referee stores."""
    return Trial(**{field.name: getattr(trial, field.name) for field in fields(Trial)})


def compare(player: Player) -> None:
    """Every view of the referees against a player's folded state, to the field."""
    verde = player.link.verde
    for match in player.state.matches.values():
        task = player.state.tasks[match.task_id]
        if not task.referee_kind.has_trials:
            continue
        referee = TrialReferee(verde, task.referee)
        empty = replace(never_begun(Ruling.NONE), stage=TrialStage.NONE)
        assert referee.get_trial(match.match_id) == stored(match.trial or empty)
        if task.referee_kind is RefereeKind.APPEAL:
            assert referee.get_verdict(match.match_id) == (match.verdict or NOTHING)
        if match.phase is Phase.REFEREE:
            asked = verde.question(match.match_id)
            assert asked == (task.referee, question(verde.address, task, match))
        assert verde.get_match(match.match_id).verbs == match.verbs


def watched(world: World) -> dict[str, int]:
    """Has everything compared after every transaction. Counts the kinds of actions."""
    seen: dict[str, int] = {}

    def look(player: Player, action: Action, _: Any) -> None:
        for part in action.verbs if isinstance(action, Batch) else (action,):
            seen[type(part).__name__] = seen.get(type(part).__name__, 0) + 1
        if isinstance(action, Chain):
            compare(player)

    for actor in world.actors:
        actor.on_action = look
    return seen


class Moody(Provider):
    """Sometimes takes the short way down and sometimes the long one, and sometimes says nothing for a while."""

    def __init__(self, *arguments: Any, seed: int, silent: float = 0.0, **how: Any) -> None:
        super().__init__(*arguments, **how)
        self.random, self.silent = random.Random(seed), silent

    def choose(self, state: ChainState, actions: Sequence[Action]) -> Sequence[Action]:
        self.one_transaction = self.random.random() < 0.5
        if self.random.random() < self.silent:
            return [action for action in actions if not hasattr(action, "match")]
        return actions


@pytest.mark.parametrize("seed", range(8))
def test_fold_equals_storage_after_random_play(seed: int) -> None:
    rng = random.Random(seed)
    steps = rng.randint(1, 5)
    world, job = World(), training_job(steps=steps, interval=rng.randint(1, steps))
    client = world.client()
    nodes = job.program.nodes
    names = ["honest", "liar", "p0"]
    rng.shuffle(names)
    for name in names:
        node = rng.randrange(len(nodes))
        flip = partial(adv.FlipBit, step=rng.randrange(job.steps), node=node, bit=(0, rng.randrange(32)))
        how = {} if name == "honest" else {"make_work": flip}
        silent = 0.0 if name == "honest" else rng.choice([0.0, 0.0, 0.3])
        world.provider(name, Moody, seed=rng.getrandbits(30), silent=silent, **how)
    kind = rng.choice([RefereeKind.EVM, RefereeKind.APPEAL])
    members = [rng.choice([Referee, adv.LyingReferee, Silent]) for _ in range(3)]
    task_id = client.post(job, world.bench(members, kind=kind), replace(TERMS, arity_bits=rng.randint(1, 3)))
    watched(world)
    task = world.run(task_id)
    compare(client)
    assert task.status is Status.SETTLED
    # A flipped bit that nothing depends on leaves its liar with the honest claim.
    assert task.claim(task.settled_claim).final_state_root == root_of(true_states(job)[-1])
    honest = next(actor for actor in world.actors if world.names[actor.address] == "honest")
    assert task.roster[task.index_of(honest.address)].standing is Standing.FREE
    again = fold_all(ChainState(referees=world.contracts.referees), events(world))
    assert again.matches == client.state.matches


def events(world: World) -> list[ev.Event]:
    """Everything that stands on the chain, read at once."""
    reader = world.actors[0].link.follower.reader
    return reader.events(0, world.devnet.chain.head.number)


class Silent(Referee):
    """A member of the committee that never says anything."""

    def prepare(self) -> None:
        return


def duel(
    kind: RefereeKind,
    liar_first: bool,
    *,
    members: Sequence[Any] = (Referee,) * 3,
    one_transaction: bool = True,
    **how: Any,
):
    """An honest provider against a liar; returns (world, match, kinds of actions)."""
    world, job = World(), training_job()
    client = world.client()
    how = {"make_work": adv.FlipBit} | how
    for name in ("liar", "honest") if liar_first else ("honest", "liar"):
        world.provider(name, **{"one_transaction": one_transaction} | (how if name == "liar" else {}))
    task_id = client.post(job, world.bench(members, kind=kind), replace(TERMS, seats=2))
    seen = watched(world)
    world.run(task_id)
    honest = next(actor for actor in world.actors if world.names[actor.address] == "honest")
    world.check_honest(client, task_id, job, honest)
    (match,) = client.state.matches.values()
    return world, match, seen


@SIDES
@pytest.mark.parametrize("one_transaction", [True, False])
def test_the_chain_finds_the_wrong_instruction(one_transaction: bool, liar_first: bool) -> None:
    world, match, seen = duel(RefereeKind.EVM, liar_first, one_transaction=one_transaction)
    trial = match.trial
    assert trial is not None and trial.word is not None
    assert (match.reason, match.position, trial.element) == (Reason.VERDICT, MATMUL, 0), match_line(match)
    assert Instruction.decode(trial.word).op == Op.FFMA
    assert trial.ruling is (Ruling.B_WINS if liar_first else Ruling.A_WINS)
    assert trial.state_after == (trial.after_b if liar_first else trial.after_a)
    assert seen["Execute"] == 1 and seen["PostElement"] == 2
    below = [sent.verbs for _, sent in world.sent if sent.verb.startswith("trial_")]
    if one_transaction:
        # The output is one tile, so there is no tree to go down.
        assert below == [
            ("trial_begin", "trial_show_tiles", "trial_post"),
            ("trial_post", "trial_advance", "trial_execute"),
        ]
    else:
        assert len(below) > 5 and seen["TrialAdvance"] > 2


def test_the_committee_decides_if_nobody_appeals() -> None:
    class Meek(Provider):
        def choose(self, state: ChainState, actions: Sequence[Action]) -> Sequence[Action]:
            return [action for action in actions if not isinstance(action, Appeal)]

    _, match, seen = duel(RefereeKind.APPEAL, False, make=Meek)
    assert (match.ruling, match.trial, match.output_root) == (Ruling.ROOT, None, match.node_a)
    assert "Appeal" not in seen and match.wrong_members == 0
    assert seen["SubmitVerdict"] >= 1


@SIDES
def test_a_wrong_verdict_is_appealed_and_the_committee_named(liar_first: bool) -> None:
    members = (adv.LyingReferee, adv.LyingReferee, Referee)
    _, match, seen = duel(RefereeKind.APPEAL, liar_first, members=members)
    assert match.trial is not None and match.verdict is not None and match.verdict.appealed_at
    assert seen["Appeal"] == 1, "only the side that the verdict wrongs appeals"
    assert match.wrong_members == match.verdict.signers and match.wrong_members.bit_count() == 2


@SIDES
def test_a_right_verdict_survives_the_liars_appeal(liar_first: bool) -> None:
    _, match, seen = duel(RefereeKind.APPEAL, liar_first)
    assert match.trial is not None and seen["Appeal"] == 1
    assert match.wrong_members == 0


@SIDES
def test_a_silent_committee_leaves_it_to_the_chain(liar_first: bool) -> None:
    _, match, seen = duel(RefereeKind.APPEAL, liar_first, members=(Silent, Silent, Referee))
    assert match.verdict is None and match.trial is not None and match.trial.word is not None
    assert "SubmitVerdict" not in seen


def test_missing_inputs_leave_it_to_the_chain() -> None:
    class Blind(Referee):
        def judge(self, *_: Any) -> bytes:
            raise adv._refused()

    _, match, _ = duel(RefereeKind.APPEAL, False, members=(Blind,) * 3)
    assert match.verdict is not None and not match.verdict.available
    assert match.trial is not None and match.outcome is Outcome.A_WINS


def test_a_referee_that_nobody_knows_is_refused() -> None:
    world, job = World(), training_job()
    client = world.client()
    provider = world.provider("honest")
    provider.link.follower.reader.referees = {}
    provider.state = provider.link.follower.state
    task_id = client.post(job, world.bench(kind=RefereeKind.EVM), replace(TERMS, seats=2))
    provider.tick()
    assert provider.refusals[task_id].reason.value == "referee"
