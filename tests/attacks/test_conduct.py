"""Liars about the game: who does not reveal, goes silent, copies, serves nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from world import TERMS, World, match_line, mlp, training_job

from node import adversaries as adv
from node.structs import Level, Outcome, Phase, Reason, Side, Standing
from node.work import Job

LAST_MATMUL = max(i for i, node in enumerate(mlp().nodes) if node.op == "matmul")
SIDES = pytest.mark.parametrize("liar_first", [False, True], ids=["liar is B", "liar is A"])


def play(world: World, make: Any, job: Job, liar_first: bool, **terms: int):
    """An honest provider against one of this kind; returns (client, liar, task, its matches)."""
    client = world.client()
    if liar_first:
        liar, honest = world.provider("liar", make), world.provider("honest")
    else:
        honest, liar = world.provider("honest"), world.provider("liar", make)
    task_id = client.post(job, world.bench(), replace(TERMS, seats=2, **terms))
    world.run(task_id)
    task = world.check_honest(client, task_id, job, honest)
    return client, liar, task, [client.state.matches[i] for i in task.match_ids]


@SIDES
def test_who_never_reveals_loses_its_bond(liar_first: bool) -> None:
    _, liar, task, matches = play(World(), adv.NeverReveal, training_job(), liar_first)
    assert not matches
    assert task.roster[task.index_of(liar.address)].standing is Standing.COMMITTED


@SIDES
@pytest.mark.parametrize("level", list(Level))
def test_who_goes_silent_at_a_level_is_timed_out_there(level: Level, liar_first: bool) -> None:
    _, _, _, matches = play(World(), partial(adv.SilentAt, level=level), training_job(), liar_first)
    (match,) = matches
    # The honest side may find the way down alone: at a level whose posts are made, B's one move can close it.
    if match.reason is Reason.TIMEOUT:
        assert match.level is level, match_line(match)
    else:
        assert (level, liar_first, match.reason) == (Level.CHECKPOINTS, False, Reason.VERDICT), match_line(match)


@SIDES
@pytest.mark.parametrize("phase", [Phase.POST_A, Phase.POST_B])
@pytest.mark.parametrize("level", [Level.STEPS, Level.OPERATORS])
def test_who_does_not_post_is_timed_out(level: Level, phase: Phase, liar_first: bool) -> None:
    make = partial(adv.SilentAt, level=level, phase=phase)
    _, _, _, matches = play(World(), make, training_job(), liar_first)
    (match,) = matches
    posts_here = (phase is Phase.POST_A) == liar_first
    assert match.reason is (Reason.TIMEOUT if posts_here else Reason.VERDICT), match_line(match)
    assert match.level is (level if posts_here else Level.OPERATORS)


def test_a_liar_that_is_due_to_judge_its_own_hash_node_gains_nothing_by_silence() -> None:
    make = partial(adv.SilentAt, level=Level.OPERATORS, phase=Phase.HASH_NODE, make_work=adv.LyingHashNode)
    _, _, _, matches = play(World(), make, training_job(), liar_first=True)
    (match,) = matches
    assert (match.level, match.phase, match.reason) == (Level.OPERATORS, Phase.DONE, Reason.TIMEOUT)
    assert match.at.closed_at is not None, "it got as far as the hash node"


def test_a_copied_commitment_cannot_be_revealed() -> None:
    _, liar, task, matches = play(World(), adv.CopyCommitment, training_job(), liar_first=False)
    assert not matches
    index = task.index_of(liar.address)
    assert task.roster[index].commitment == task.roster[1 - index].commitment, "it did commit to a copy"
    assert [error.error for error in liar.refused] == ["WrongCommitment"]


@SIDES
@pytest.mark.parametrize("arity_bits", [1, 2, 3])
def test_who_serves_no_data_is_played_move_by_move(arity_bits: int, liar_first: bool) -> None:
    _, _, _, matches = play(World(), adv.RefuseData, training_job(), liar_first, arity_bits=arity_bits)
    (match,) = matches
    assert (match.reason, match.step, match.position) == (Reason.VERDICT, 5, LAST_MATMUL), match_line(match)
    for level in match.levels:
        if level.level is not Level.CHECKPOINTS and not level.top:
            # The liar has the honest side's data, and as B makes A's only move with its post.
            assert not liar_first and [move.m for move in level.moves] == [level.height]
            continue
        # The honest side has to say its part where it is due; the liar has the honest side's data and does not.
        honest_moves = [move for move in level.moves if (move.side is Side.A) != liar_first]
        assert all(move.m == min(arity_bits, level.height) or move.m == 0 for move in honest_moves)


@SIDES
def test_without_the_children_of_b_side_a_opens(liar_first: bool) -> None:
    class Hides(adv.WithholdsChildren, adv.RefuseData):
        pass

    _, _, _, matches = play(World(), Hides, training_job(), liar_first)
    (match,) = matches
    assert (match.reason, match.step, match.position) == (Reason.VERDICT, 5, LAST_MATMUL), match_line(match)
    posted = match.levels[1:]
    assert all(bool(level.top) == liar_first for level in posted), "an honest B gives its children: A serves nothing"
    assert liar_first or all((level.moves[0].side, level.moves[0].m) == (Side.A, 0) for level in posted)


@SIDES
def test_wrong_children_are_no_post(liar_first: bool) -> None:
    _, _, _, matches = play(World(), adv.WrongChildren, training_job(), liar_first)
    (match,) = matches
    assert match.reason is (Reason.VERDICT if liar_first else Reason.TIMEOUT), match_line(match)
    assert liar_first or (match.level, match.at.root_b) == (Level.STEPS, None)


@pytest.mark.parametrize("step", [4, 9, 13, 17, 18])
@pytest.mark.parametrize("arity_bits", [1, 3])
def test_side_b_opens_the_leaf_before_from_what_is_on_the_chain(step: int, arity_bits: int) -> None:
    """A serves nothing and asks for nothing, so B closes levels with A's siblings from earlier moves alone."""
    world, job = World(), training_job(steps=20, interval=4)
    client = world.client()
    alone = {client.address: client.store}
    make_work = partial(adv.FlipBit, step=step)
    world.add(adv.RefuseData(world.link("liar"), alone, make_work=make_work))
    honest = world.provider("honest")
    task_id = client.post(job, world.bench(), replace(TERMS, seats=2, arity_bits=arity_bits))
    world.run(task_id)
    task = world.check_honest(client, task_id, job, honest)
    (match,) = [client.state.matches[i] for i in task.match_ids]
    assert (match.outcome, match.reason, match.step) == (Outcome.B_WINS, Reason.VERDICT, step), match_line(match)
    assert match.levels[0].moves[-1].side is Side.B, "B closed the claim"
    assert "".join(move.side.name for move in match.levels[0].moves) == ("ABAB" if arity_bits == 1 else "AB")
