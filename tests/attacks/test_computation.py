"""One liar about the computation against one honest provider, on either side: where the match ends, and who pays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from world import TERMS, World, match_line, mlp, training_job

from node import adversaries as adv
from node.data import State
from node.structs import Level, Outcome, Reason
from node.work import Job, Work

LAST_MATMUL = max(i for i, node in enumerate(mlp().nodes) if node.op == "matmul")
LOSS = next(i for i, node in enumerate(mlp().nodes) if node.op == "sum_sq")
RATE = next(i for i, node in enumerate(mlp().nodes) if node.op == "mul")
LAST = len(mlp().nodes) - 1
TOP = mlp().trace_length - 1


def torch_step(state: State, batch: State) -> State:
    """The step of `world.mlp` in plain torch, by autograd."""
    w1, w2 = (torch.from_numpy(np.array(state[name])).requires_grad_() for name in ("w1", "w2"))
    x, y, rate = (torch.from_numpy(np.array(batch[name])) for name in ("x", "y", "lr"))
    error = torch.tanh(x @ w1 + 0.125) @ w2 - y
    loss = (error * error).sum()
    (loss / 2).backward()
    with torch.no_grad():
        new = {"w1": w1 - w1.grad * rate, "w2": w2 - w2.grad * rate, "loss": loss.reshape(1, 1)}
    arrays = {name: tensor.detach().numpy() for name, tensor in new.items()}
    return {**arrays, "frozen": state["frozen"], "seen": batch["y"]}


def duel(make_work: Callable[[Job, int], Work], job: Job, liar_first: bool, **terms: int):
    """An honest provider against one with this work; the one that commits first is side A."""
    world = World()
    client = world.client()
    if liar_first:
        liar = world.provider("liar", make_work=make_work)
        honest = world.provider("honest")
    else:
        honest = world.provider("honest")
        liar = world.provider("liar", make_work=make_work)
    task_id = client.post(job, world.bench(), replace(TERMS, seats=2, **terms))
    task = world.run(task_id)
    assert len(task.match_ids) == 1, liar.refusals
    world.check_honest(client, task_id, job, honest)
    match = client.state.matches[task.match_ids[0]]
    assert match.outcome is (Outcome.B_WINS if liar_first else Outcome.A_WINS), match_line(match)
    return match


@pytest.mark.parametrize("liar_first", [False, True], ids=["liar is B", "liar is A"])
@pytest.mark.parametrize(
    ("make_work", "step", "node"),
    [
        pytest.param(adv.FlipBit, 5, LAST_MATMUL, id="default"),
        pytest.param(partial(adv.FlipBit, step=0, node=0), 0, 0, id="first step, first node"),
        pytest.param(partial(adv.FlipBit, step=3, node=LAST), 3, LAST, id="last step of a segment, last node"),
        pytest.param(partial(adv.FlipBit, step=9, node=LOSS, bit=(0, 31)), 9, LOSS, id="a sign, in the last step"),
        pytest.param(partial(adv.FlipBit, step=8, node=1, bit=(7, 16)), 8, 1, id="in the last segment"),
        pytest.param(adv.SkipStep, 5, LOSS, id="skips a step"),
        pytest.param(adv.WrongBatch, 5, 0, id="another batch"),
        pytest.param(adv.WrongLearningRate, 0, RATE, id="another learning rate"),
        pytest.param(partial(adv.PlainTorchOrder, plain=torch_step), 0, None, id="plain torch"),
        pytest.param(adv.PlainTorchOrder, 0, None, id="another order"),
        pytest.param(adv.RandomRoot, 0, 0, id="random root"),
    ],
)
def test_a_wrong_computation_is_found_at_its_first_wrong_operator(
    make_work: Callable[[Job, int], Work], step: int, node: int | None, liar_first: bool
) -> None:
    match = duel(make_work, training_job(), liar_first)
    assert (match.level, match.reason, match.step) == (Level.OPERATORS, Reason.VERDICT, step), match_line(match)
    # A liar that only rounds differently is found at the first slot whose bits differ: the loss, or a weight.
    assert match.position in ({node} if node is not None else {LOSS, LAST - 2, LAST})


@pytest.mark.parametrize("liar_first", [False, True], ids=["liar is B", "liar is A"])
def test_a_lie_about_a_hash_node_is_judged_on_the_chain(liar_first: bool) -> None:
    match = duel(adv.LyingHashNode, training_job(), liar_first)
    assert (match.reason, match.step, match.position) == (Reason.HASH_NODE, 7, TOP), match_line(match)


@pytest.mark.parametrize("liar_first", [False, True], ids=["liar is B", "liar is A"])
@pytest.mark.parametrize("level", list(Level))
def test_who_posts_a_garbage_subtree_cannot_answer(level: Level, liar_first: bool) -> None:
    match = duel(partial(adv.GarbageSubtree, level=level), training_job(), liar_first)
    assert (match.level, match.reason) == (level, Reason.TIMEOUT), match_line(match)


@pytest.mark.parametrize("liar_first", [False, True], ids=["liar is B", "liar is A"])
@pytest.mark.parametrize(
    ("make_work", "steps", "reason"),
    [
        pytest.param(adv.CopyAllButPadding, 10, Reason.PADDING, id="copied, 3 of 4 leaves"),
        pytest.param(adv.CopyAllButPadding, 20, Reason.PADDING, id="copied, 5 of 8 leaves"),
        pytest.param(adv.GarbagePadding, 10, Reason.PADDING, id="one missing leaf"),
        pytest.param(adv.GarbagePadding, 20, Reason.TIMEOUT, id="the hash of nothing"),
    ],
)
def test_garbage_in_the_padding_of_a_claim_loses(
    make_work: Callable[[Job, int], Work], steps: int, reason: Reason, liar_first: bool
) -> None:
    match = duel(make_work, training_job(steps=steps), liar_first)
    assert (match.level, match.reason) == (Level.CHECKPOINTS, reason), match_line(match)


@pytest.mark.parametrize("liar_first", [False, True], ids=["liar is B", "liar is A"])
@pytest.mark.parametrize("level", [Level.STEPS, Level.OPERATORS])
def test_garbage_in_the_padding_of_a_posted_tree_hides_nothing(level: Level, liar_first: bool) -> None:
    match = duel(partial(adv.GarbagePadding, level=level), training_job(steps=9, interval=3), liar_first)
    assert (match.reason, match.step, match.position) == (Reason.VERDICT, 4, LAST_MATMUL), match_line(match)
