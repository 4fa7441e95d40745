"""A committee's member recomputes, is not fooled, waits, and speaks once; evidence counts members, not signatures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from world import TERMS, World, training_job

from node import adversaries as adv
from node.actions import AskReferee
from node.chain import committee as formats
from node.chain.devnet import dev_account
from node.client import Bench
from node.data import MemoryStore
from node.errors import DataError, MissingData
from node.fold import MatchState, TaskState
from node.referee import Referee
from node.structs import ZERO, Phase, Question
from node.verdict import Committee
from node.work import Work
from repops.commit import state_tree, tensor_root


def waiting() -> tuple[World, Any, int]:
    """A match that waits for a verdict, with members that have not looked yet."""
    world, job = World(), training_job()
    client = world.client()
    world.provider("honest")
    world.provider("liar", make_work=adv.FlipBit)
    members = [Referee(world.link(f"m{i}"), world.directory) for i in range(3)]
    bench = Bench(world.contracts.committee, tuple(member.address for member in members), 2)
    task_id = client.post(job, bench, replace(TERMS, seats=2))
    world.run(task_id, until=lambda task: _referee(client, task) is not None)
    for actor in world.actors:  # whoever has to serve the inputs does it now
        actor.tick()
    return world, members, task_id


def _referee(client: Any, task: TaskState) -> MatchState | None:
    client.sync()
    found = [client.state.matches[i] for i in task.match_ids if client.state.matches[i].phase is Phase.REFEREE]
    return found[0] if found else None


def open_match(member: Any, task_id: int) -> tuple[TaskState, MatchState]:
    member.sync()
    task = member.state.tasks[task_id]
    return task, member.state.matches[task.match_ids[0]]


def test_every_compute_node_is_recomputed_to_its_leaf_of_the_honest_trace() -> None:
    world, (member, *_), task_id = waiting()
    task, match = open_match(member, task_id)
    job = training_job()
    work = Work(job)
    work.run()
    trace, before = work.trace_tree(match.step), work.state_before(match.step)
    # Everything that a node of this step can read, from one more source.
    store = MemoryStore(lambda: (0, 0))
    store.put_tree(trace)
    store.put_tensors(before)
    for visited in work.executor.walk(before, work.batch(match.step)):
        for array in visited.inputs:
            store.put_tensor(array)
    world.directory["0x" + "33" * 20] = store
    assert match.pre_state == state_tree([tensor_root(array) for array in before.values()]).root
    for index in range(len(job.program.nodes)):
        level = replace(match.at, root_a=trace.root)
        asked = replace(match, position=index, levels=(*match.levels[:-1], level))
        assert member.judge(task, asked) == trace.leaf(index), job.program.nodes[index].op


class Twisted:
    """Serves what another source serves, with one bit of every tensor flipped."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def tensor(self, root: bytes, size: int) -> bytes:
        content = bytearray(self.inner.tensor(root, size))
        content[-1] ^= 1
        return bytes(content)


def test_wrong_tensors_are_not_believed_and_the_right_ones_are_found() -> None:
    world, (member, *_), task_id = waiting()
    task, match = open_match(member, task_id)
    truth = member.judge(task, match)
    assert truth in (match.node_a, match.node_b)
    liar = task.roster[match.index_b].account
    honest = task.roster[match.index_a].account
    for account in (liar, world.actors[0].address):
        world.directory[account] = Twisted(world.directory[account])
    assert member.judge(task, match) == truth
    world.directory[honest] = Twisted(world.directory[honest])
    with pytest.raises(DataError):
        member.judge(task, match)


def test_the_agreed_leaves_may_come_from_either_side() -> None:
    world, (member, *_), task_id = waiting()
    task, match = open_match(member, task_id)
    truth = member.judge(task, match)
    for index in (match.index_a, match.index_b):
        account = task.roster[index].account
        kept = world.directory[account]

        class NoTrees(adv.Nothing):
            def tensor(self, root: bytes, size: int, kept: Any = kept) -> bytes:
                return bytes(kept.tensor(root, size))

        world.directory[account] = NoTrees()
        assert member.judge(task, match) == truth
        world.directory[account] = kept


def test_unavailable_is_said_after_the_patience_and_not_before() -> None:
    world, (member, *_), task_id = waiting()
    task, match = open_match(member, task_id)
    for account in list(world.directory):
        world.directory[account] = adv.Nothing()
    patience = match.since + task.referee_window // 2
    world.devnet.advance(patience - 1 - world.devnet.now)
    member.tick()
    assert not member.store.verdicts(match.match_id)
    world.devnet.advance(1)
    member.tick()
    (verdict,) = member.store.verdicts(match.match_id)
    assert verdict.output_root is None
    member.tick()
    assert len(member.store.verdicts(match.match_id)) == 1, "it speaks once"


def test_a_member_speaks_once_and_an_outsider_not_at_all() -> None:
    world, (member, *_), task_id = waiting()
    outsider = Referee(world.link("p3"), world.directory)
    for _ in range(2):
        member.tick()
        outsider.tick()
    match = open_match(member, task_id)[1]
    assert len(member.store.verdicts(match.match_id)) == 1
    assert not outsider.store.verdicts(match.match_id)


def test_what_a_referee_needs_is_missing_while_nobody_serves_it() -> None:
    world, (member, *_), task_id = waiting()
    task, match = open_match(member, task_id)
    for account in list(world.directory):
        world.directory[account] = adv.Nothing()
    with pytest.raises(MissingData):
        member.judge(task, match)


# ------------------------------------------------------------------------------------------------------------ Evidence

MEMBERS = [dev_account(f"member {i}") for i in range(3)]
ASKED = Question(
    verde="0x" + "44" * 20, task_id=1, match_id=2, program_root=adv.noise("p"), data_root=adv.noise("d"), batch_count=3,
    pre_state=adv.noise("s"), step=5, node=9, trace_root=adv.noise("t"), root_a=adv.noise("a"), root_b=adv.noise("b"),
    config_hash=adv.noise("c"), since=100, window=50, clock_a=30, clock_b=40, grace=3, build_window=60, arity_bits=2,
    account_a="0x" + "66" * 20, account_b="0x" + "77" * 20,
)  # fmt: skip


@pytest.fixture
def body() -> Committee:
    config = formats.encode_config(2, [member.address for member in MEMBERS])
    return Committee.read(31337, "0x" + "55" * 20, config)


def test_two_of_three_are_evidence_and_one_is_not(body: Committee) -> None:
    one, two = (body.sign(member, ASKED, ASKED.root_a) for member in MEMBERS[:2])
    assert body.verdict([one], ASKED) is None
    assert body.verdict([one, one], ASKED) is None, "a member counts once"
    assert body.verdict([one, two], ASKED) is not None
    assert body.verdict([two, one], ASKED) == body.verdict([one, two], ASKED), "the order does not matter"


def test_different_answers_do_not_add_up(body: Committee) -> None:
    said = [body.sign(m, ASKED, root) for m, root in zip(MEMBERS, (ASKED.root_a, ASKED.root_b, None), strict=True)]
    assert body.verdict(said, ASKED) is None


def test_who_signs_everything_helps_whoever_has_another_voice(body: Committee) -> None:
    fickle = [body.sign(MEMBERS[0], ASKED, root) for root in (ASKED.root_b, None, ASKED.root_a)]
    honest = body.sign(MEMBERS[1], ASKED, ASKED.root_a)
    assert body.verdict([*fickle, honest], ASKED) == body.verdict([fickle[2], honest], ASKED)


def test_strangers_forgeries_and_other_questions_do_not_count(body: Committee) -> None:
    good = body.sign(MEMBERS[0], ASKED, ASKED.root_a)
    other = replace(ASKED, match_id=3)
    bad = [
        body.sign(dev_account("stranger"), ASKED, ASKED.root_a),
        replace(body.sign(MEMBERS[1], ASKED, ASKED.root_a), signature=b"\0" * 65),
        replace(body.sign(MEMBERS[1], ASKED, ASKED.root_a), signature=b""),
        replace(body.sign(MEMBERS[1], ASKED, ASKED.root_b), output_root=ASKED.root_a),
        replace(body.sign(MEMBERS[1], other, ASKED.root_a), asked=ASKED),
        body.sign(MEMBERS[1], other, ASKED.root_a),
        replace(body, chain_id=1).sign(MEMBERS[1], ASKED, ASKED.root_a),
        replace(body, referee="0x" + "66" * 20).sign(MEMBERS[1], ASKED, ASKED.root_a),
    ]
    for lie in bad:
        assert body.verdict([good, lie], ASKED) is None
    assert body.verdict([*bad, good, body.sign(MEMBERS[2], ASKED, ASKED.root_a)], ASKED) is not None


@pytest.mark.parametrize("config", [b"", b"\1", ZERO, b"\xff" * 96])
def test_a_configuration_that_is_none_is_a_data_error(config: bytes) -> None:
    with pytest.raises(DataError):
        Committee.read(1, "0x" + "55" * 20, config)


def test_another_kind_of_referee_has_nobody_to_ask(caplog: pytest.LogCaptureFixture) -> None:
    world, (member, *_), task_id = waiting()
    client = world.actors[0]
    task, match = open_match(client, task_id)
    foreign = replace(task, params=replace(task.params, referee_config=b"not a committee"))
    client.state = replace(client.state, tasks={task_id: foreign})
    client.perform(AskReferee(match.match_id))
    assert "has no committee to ask" in caplog.text
    assert not client.view().evidence
    assert member.committee_of(foreign) is None
