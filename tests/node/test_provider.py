"""What a provider refuses, keeps, serves, and recomputes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from world import TERMS, World, root_of, training_job, true_states

from node.adversaries import Nothing, noise
from node.chain.contracts import commitment
from node.client import Bench, Client
from node.data import MemoryStore
from node.errors import MissingData
from node.provider import Policy, Provider, Reason
from node.referee import Referee
from node.structs import TaskParams
from node.work import Job, Work
from repops import BatchTensor, Executor, Input, Node, Program, Ref, Slot
from repops.commit import Tree, batch_root, height, tensor_root
from repops.dtypes import DType


class OddClient(Client):
    """A client whose task is not what it should be. change: what it does to the parameters."""

    change: Callable[[TaskParams], TaskParams] = staticmethod(lambda params: params)  # type: ignore[assignment]

    def _params(self, *arguments: Any) -> TaskParams:
        return self.change(super()._params(*arguments))


def offered(change: Callable[[TaskParams], TaskParams] | None = None, policy: Policy | None = None, **terms: Any):
    """A world in which a client has posted a task and a provider has looked at it once."""
    world, job = World(), training_job()
    client = OddClient(world.link("client"), world.directory)
    if change is not None:
        client.change = change
    world.add(client)
    provider = world.provider("honest", policy=policy)
    task_id = client.post(job, world.bench(), replace(TERMS, **terms))
    return world, client, provider, task_id


def refusal(*arguments: Any, **how: Any):
    """Why the provider refuses, and that it has not paid a bond."""
    world, _, provider, task_id = offered(*arguments, **how)
    provider.tick()
    provider.sync()
    assert not provider.state.tasks[task_id].roster
    assert world.gained(provider) == 0
    return provider.refusals[task_id]


@pytest.mark.parametrize(
    ("reason", "policy", "says"),
    [
        (Reason.MONEY, Policy(min_reward=10**18), "a reward of"),
        (Reason.MONEY, Policy(max_bond=10**15), "a bond of"),
        (Reason.MONEY, Policy(gas_reserve=10**24), "a bond of"),
        (Reason.TOO_LARGE, Policy(max_steps=9), "10 steps"),
        (Reason.TOO_LARGE, Policy(max_batches=2), "3 batches"),
        (Reason.TOO_LARGE, Policy(max_nodes=20), "21 trace nodes"),
        (Reason.CLOCK, Policy(min_allowance=301), "allowance: 300 s"),
        (Reason.CLOCK, Policy(min_grace=21), "grace: 20 s"),
        (Reason.CLOCK, Policy(min_window=201), "reveal window: 200 s"),
        (Reason.TOO_SLOW, Policy(window_share=0.0), "the build window is 200 s"),
    ],
)
def test_terms_outside_the_policy_are_refused(reason: Reason, policy: Policy, says: str) -> None:
    refused = refusal(policy=policy)
    assert refused.reason is reason
    assert says in str(refused) and str(refused).startswith("task 1: ") and refused.cure


def test_a_commit_window_that_is_too_short_for_the_work_is_refused() -> None:
    # A share so small that the build window is long enough and the commit window is not.
    world, _, provider, task_id = offered(policy=Policy(window_share=1e-6), commit_window=40, build_window=10**7)
    provider.tick()
    assert provider.refusals[task_id].reason is Reason.TOO_SLOW
    assert "left to commit" in str(provider.refusals[task_id])
    assert world.gained(provider) == 0


def test_a_header_that_is_not_the_programs_is_refused() -> None:
    def change(params: TaskParams) -> TaskParams:
        return replace(params, program=replace(params.program, slots_hash=noise("other slots")))

    world, client, provider, task_id = offered(change)
    # The contract hashed another header, so nobody can serve its program: the client serves the true one.
    provider.sync()
    wanted = provider.state.tasks[task_id].program_root
    client.store._programs[wanted] = client.store.program(training_job().program.root)
    provider.tick()
    assert provider.refusals[task_id].reason is Reason.PROGRAM
    assert world.gained(provider) == 0


@pytest.mark.parametrize("what", ["program", "state", "data"])
def test_what_the_client_serves_has_to_be_what_it_committed_to(what: str) -> None:
    world, client, provider, task_id = offered()
    store, job = client.store, training_job()
    if what == "program":
        files = dict(store.program(job.program.root))
        store._programs[job.program.root] = {**files, "program.json": files["program.json"][:-1]}
    else:
        tree_key = {"state": (root_of(job.initial), 3), "data": (Tree(job.batch_roots).root, 2)}[what]
        store._leaves[tree_key] = replace(store._leaves[tree_key], content=noise("lie"))
    provider.tick()
    assert provider.refusals[task_id].reason is (Reason.PROGRAM if what == "program" else Reason.DATA)
    assert world.gained(provider) == 0


def test_a_task_with_a_batch_that_does_not_fit_the_program_is_not_taken() -> None:
    world, job = World(), training_job()
    client = world.client()
    provider = world.provider("honest")
    short = {name: array[:1].copy() if name == "x" else array for name, array in job.batches[1].items()}
    batches = [job.batches[0], short, job.batches[2]]
    roots = [root_of(batch) for batch in batches]
    task_id = client.post(replace(job, batches=batches, batch_roots=roots), world.bench(), TERMS)
    provider.tick()
    provider.sync()
    assert not provider.state.tasks[task_id].roster, "nobody has a tensor of that root and of the program's size"
    assert world.gained(provider) == 0


class Garbage(Nothing):
    """Serves noise for every tree and tensor."""

    def tensor(self, root: bytes, size: int) -> bytes:
        return (noise("tensor") * (size // 32 + 1))[:size]

    def leaves(self, root: bytes, height: int) -> bytes:
        return noise("leaves")


def test_a_peer_that_lies_while_the_client_is_away_is_no_reason_to_refuse() -> None:
    world, client, provider, task_id = offered()
    world.directory[client.address] = Nothing()
    world.directory["0x" + "22" * 20] = Garbage()
    provider.tick()
    assert task_id not in provider.refusals
    world.directory[client.address] = client.store
    provider.tick()
    provider.sync()
    assert provider.state.tasks[task_id].committed == 1


def test_nothing_of_the_claim_is_served_before_the_commit_deadline() -> None:
    world, _, provider, task_id = offered()
    provider.tick()
    provider.sync()
    task = provider.state.tasks[task_id]
    claim = provider.view().claims[task_id]
    final = true_states(training_job())[-1]
    assert task.committed == 1

    def served() -> list[bool]:
        found = []
        for ask in (
            lambda: provider.store.leaves(claim.tree.root, claim.tree.height),
            lambda: provider.store.leaves(claim.final_root, 3),
            lambda: provider.store.tensor(tensor_root(final["w1"]), final["w1"].nbytes),
        ):
            try:
                found.append(bool(ask()))
            except MissingData:
                found.append(False)
        return found

    assert served() == [False] * 3
    world.devnet.advance(task.commit_deadline - 1 - world.devnet.now)
    provider.sync()
    assert (provider.now, served()) == (task.commit_deadline - 1, [False] * 3)
    world.devnet.advance(1)
    provider.sync()
    assert (provider.now, served()) == (task.commit_deadline, [True] * 3)


def test_on_a_chain_that_finalizes_slowly_it_waits_but_not_too_long() -> None:
    world, _, provider, task_id = offered()
    world.provider("p0").tick()
    provider.tick()
    provider.sync()
    task, claim = provider.state.tasks[task_id], provider.view().claims[task_id]
    reader = provider.link.follower.reader
    block = reader.block
    genesis = block(0)
    finalized = [genesis]
    reader.block = lambda which: finalized[0] if which == "finalized" else block(which)

    def revealed_at(instant: int) -> bool:
        world.devnet.advance(instant - world.devnet.now)
        provider.tick()
        provider.sync()
        return bool(provider.state.tasks[task_id].revealed)

    def serves() -> bool:
        try:
            return bool(provider.store.leaves(claim.tree.root, claim.tree.height))
        except MissingData:
            return False

    half = (task.commit_deadline + task.reveal_deadline) // 2
    assert not revealed_at(task.commit_deadline)
    assert not revealed_at(half - 1)
    finalized[0] = block("latest")
    assert finalized[0].timestamp >= task.commit_deadline
    assert not serves()
    assert revealed_at(half - 1 + 1)
    assert serves()


def test_on_a_chain_that_never_finalizes_it_reveals_at_half_time_and_serves_when_matches_begin() -> None:
    world, _, provider, task_id = offered()
    world.provider("p0").tick()
    provider.tick()
    provider.sync()
    task, claim = provider.state.tasks[task_id], provider.view().claims[task_id]
    reader = provider.link.follower.reader
    block = reader.block
    reader.block = lambda which: None if which == "finalized" else block(which)
    half = (task.commit_deadline + task.reveal_deadline) // 2
    for instant, revealed in ((half - 1, 0), (half, 1)):
        world.devnet.advance(instant - world.devnet.now)
        provider.tick()
        provider.sync()
        assert provider.state.tasks[task_id].revealed == revealed
    for instant, served in ((task.reveal_deadline - 1, False), (task.reveal_deadline, True)):
        world.devnet.advance(instant - world.devnet.now)
        provider.sync()
        if served:
            assert provider.store.leaves(claim.tree.root, claim.tree.height)
        else:
            with pytest.raises(MissingData):
                provider.store.leaves(claim.tree.root, claim.tree.height)


def test_the_salt_is_the_same_after_a_restart_and_another_for_every_task() -> None:
    world, _, provider, task_id = offered()
    provider.tick()
    provider.sync()
    again = Provider(type(provider.link).connect(world.rpc(), world.verde, world.devnet.account("honest")), {})
    other = Provider(type(provider.link).connect(world.rpc(), world.verde, world.devnet.account("p0")), {})
    assert again.salt(task_id) == provider.salt(task_id)
    assert len({provider.salt(1), provider.salt(2), other.salt(1), other.salt(2)}) == 4
    claim = provider.view().claims[task_id]
    sealed = commitment(
        world.devnet.chain_id, world.verde, task_id, provider.address, claim.tree.root, claim.final_root, claim.salt
    )
    assert provider.state.tasks[task_id].roster[0].commitment == claim.commitment == sealed


# ---------------------------------------------------------------------------------------------------------------- Work


@pytest.mark.parametrize(("steps", "interval"), [(10, 4), (8, 4), (5, 1), (6, 6), (1, 1)])
def test_the_trees_of_a_work_are_those_of_the_steps_one_by_one(steps: int, interval: int) -> None:
    job = training_job(steps, interval)
    states = true_states(job)
    work = Work(job)
    done: list[tuple[int, int]] = []
    work.run(lambda *progress: done.append(progress))
    assert done == [(i + 1, steps) for i in range(steps)]
    checkpoints = [root_of(states[min((i + 1) * interval, steps) - 1]) for i in range(job.checkpoints)]
    assert work.claim_tree().root == Tree(checkpoints, height(len(checkpoints))).root
    assert root_of(work.final_state) == root_of(states[-1])
    for segment in range(job.checkpoints):
        first = segment * interval
        real = [root_of(state) for state in states[first : first + interval]]
        assert work.segment_tree(first).root == Tree(real, height(len(real))).root
    for step in range(steps):
        before = job.initial if step == 0 else states[step - 1]
        assert root_of(work.state_before(step)) == root_of(before)
        trace = work.trace_tree(step)
        assert (trace.count, trace.leaf(trace.count - 1)) == (job.program.trace_length, root_of(states[step]))


def test_a_work_keeps_the_checkpoints_and_no_other_state() -> None:
    job: Job = training_job(steps=10, interval=4)
    work = Work(job)
    work.run()
    kept = [root_of(state) for state in work._checkpoints]
    states = true_states(job)
    assert kept == [root_of(states[i]) for i in (3, 7, 9)]
    work.segment_tree(4)
    work.trace_tree(6)
    assert len(work._checkpoints) == 3


def inference_job() -> Job:
    """y = x w, and y w^T, over five batches; the state is given in another order than the program's."""
    x, w, f32 = Ref.batch(0), Ref.state(0), DType.F32
    nodes = (
        Node("matmul", (0, 0, 0, 16), (), (Input(x, f32, (8, 16)), Input(w, f32, (16, 24))), f32, (8, 24)),
        Node("matmul", (0, 1, 0, 24), (), (Input(Ref.node(0), f32, (8, 24)), Input(w, f32, (16, 24))), f32, (8, 16)),
    )
    slots = (Slot("w", f32, (16, 24), w), Slot("y", f32, (8, 24), Ref.node(0)), Slot("z", f32, (8, 16), Ref.node(1)))
    program = Program(slots, (BatchTensor("x", f32, (8, 16)),), (), nodes).check()
    rng = np.random.default_rng(2)
    initial = {slot.name: rng.standard_normal(slot.shape).astype(np.float32) for slot in reversed(slots)}
    data = [{"x": rng.standard_normal((8, 16)).astype(np.float32)} for _ in range(5)]
    return Job(program, initial, data, [batch_root([tensor_root(b["x"])]) for b in data], steps=5, interval=2)


def test_weights_are_shared_between_the_states_of_an_inference() -> None:
    job = inference_job()
    work, states = Work(job), true_states(job)
    work.run()
    assert work.claim_tree().root == Tree([root_of(states[i]) for i in (1, 3, 4)], 2).root
    assert all(checkpoint["w"] is job.initial["w"] for checkpoint in work._checkpoints)
    assert work.segment_tree(2).root == Tree([root_of(states[i]) for i in (2, 3)], 1).root
    assert work.trace_tree(4).leaf(job.program.trace_length - 1) == root_of(states[4])


def test_a_state_with_other_weights_is_computed_with_them() -> None:
    job = inference_job()
    work = Work(job)
    work.advance(0, job.initial)
    other = job.initial | {"w": job.initial["w"] * np.float32(2)}
    assert root_of(work.advance(1, other)) == root_of(Executor(job.program).run(other, job.batches[1]))


def test_the_inputs_of_every_node_are_what_the_trace_says() -> None:
    job = training_job()
    work = Work(job)
    work.run()
    trace = work.trace_tree(6)
    for index, node in enumerate(job.program.nodes):
        for operand, array in zip(node.inputs, work.node_inputs(6, index), strict=True):
            assert array.shape == operand.shape
            if operand.ref.kind.name == "NODE":
                assert tensor_root(array) == trace.leaf(operand.ref.index)


def test_a_store_is_its_own() -> None:
    """Two actors in one process share nothing: what one is given the other does not serve."""
    one, two = MemoryStore(lambda: (0, 0)), MemoryStore(lambda: (0, 0))
    root = one.put_tensor(training_job().initial["w1"])
    with pytest.raises(MissingData):
        two.tensor(root, training_job().initial["w1"].nbytes)


def test_after_a_reorg_a_task_of_the_same_id_is_another_task() -> None:
    world, client, provider, task_id = offered()
    bench = Bench(world.contracts.committee, tuple(a.address for a in world.actors if isinstance(a, Referee)), 2)
    forked = world.devnet.chain.head.number
    provider.tick()
    provider.sync()
    before = provider.view().claims[task_id]
    assert provider.state.tasks[task_id].committed == 1
    world.devnet.chain.revert_to(forked - 1)
    world.devnet.advance(5)
    other = training_job(seed=2)
    assert client.post(other, bench, TERMS) == task_id
    provider.tick()
    provider.sync()
    claim = provider.view().claims[task_id]
    assert provider.state.tasks[task_id].roster[0].commitment == claim.commitment != before.commitment
    assert claim.final_root == root_of(true_states(other)[-1])
