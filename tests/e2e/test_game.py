"""Whole tasks on the chain: everybody agrees, one lies, a challenger steps in."""

from __future__ import annotations

from world import TERMS, World, root_of, training_job, true_states

from node.structs import Standing, Status


def test_all_agree() -> None:
    world = World()
    job = training_job()
    client = world.client()
    honest = [world.provider(f"p{i}") for i in range(3)]
    task_id = client.post(job, world.bench(), TERMS)
    task = world.run(task_id)
    assert task.status is Status.SETTLED
    assert task.claim(task.settled_claim).final_state_root == root_of(true_states(job)[-1])
    assert not task.match_ids
    final = client.result(task_id)
    assert root_of(final) == root_of(true_states(job)[-1])
    client.confirm(task_id)
    world.run(task_id)
    assert [who.standing for who in client.state.tasks[task_id].roster] == [Standing.FREE] * 3
    assert [world.gained(p) for p in honest] == [TERMS.reward] * 3
    assert world.gained(client) == -3 * TERMS.reward
    world.check_conservation()
    assert world.balance(world.verde) == 0
