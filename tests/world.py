"""A small world for tests of actors: a chain in the process, the contracts, a training job of a few steps.

The actors share nothing but the chain and each other's data sources.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from node.chain.devnet import Devnet
from node.client import Bench, Client, Terms
from node.data import State
from node.fold import MatchState, TaskState
from node.localnet import Contracts, Localnet, deploy
from node.provider import Provider
from node.referee import Referee
from node.structs import BURN, Outcome, RefereeKind, Standing, Status
from node.work import Job
from repops import Executor, Program
from repops.commit import batch_root, state_root, tensor_root
from repops.dtypes import DType
from repops.graph.ir import BatchTensor, Constant, Input, Node, Ref, Slot

ROWS, INPUTS, HIDDEN, OUTPUTS = 48, 6, 8, 3
F32 = DType.F32


def mlp(rows: int = ROWS) -> Program:
    """One step of gradient descent of a two-layer network under a squared loss, written by hand.

    Slots: both weights, the loss, a frozen tensor (its update is itself), the labels last seen (a batch tensor is
    the update). Five slots make a state tree of height 3 with missing leaves, so all kinds of hash nodes occur but
    a constant's.
    """
    nodes: list[Node] = []
    shapes = {
        Ref.state(0): (INPUTS, HIDDEN), Ref.state(1): (HIDDEN, OUTPUTS),
        Ref.batch(0): (rows, INPUTS), Ref.batch(1): (rows, OUTPUTS), Ref.batch(2): (1,), Ref.constant(0): (1, HIDDEN),
    }  # fmt: skip

    def add(op: str, shape: tuple[int, ...], *inputs: Ref, params: tuple[int, ...] = ()) -> Ref:
        nodes.append(Node(op, params, (), tuple(Input(ref, F32, shapes[ref]) for ref in inputs), F32, shape))
        ref = Ref.node(len(nodes) - 1)
        shapes[ref] = shape
        return ref

    w1, w2, x, y, rate, bias = Ref.state(0), Ref.state(1), Ref.batch(0), Ref.batch(1), Ref.batch(2), Ref.constant(0)
    hidden = add("matmul", (rows, HIDDEN), x, w1, params=(0, 0, 0, INPUTS))
    shifted = add("add", (rows, HIDDEN), hidden, bias)
    active = add("tanh", (rows, HIDDEN), shifted)
    guess = add("matmul", (rows, OUTPUTS), active, w2, params=(0, 0, 0, HIDDEN))
    error = add("sub", (rows, OUTPUTS), guess, y)
    loss = add("sum_sq", (1, 1), error, params=(2, 0, 1, 0, rows * OUTPUTS))
    grad2 = add("matmul", (HIDDEN, OUTPUTS), active, error, params=(1, 0, 0, rows))
    back = add("matmul", (rows, HIDDEN), error, w2, params=(0, 1, 0, OUTPUTS))
    inner = add("tanh_grad", (rows, HIDDEN), back, active)
    grad1 = add("matmul", (INPUTS, HIDDEN), x, inner, params=(1, 0, 0, rows))
    new1 = add("sub", (INPUTS, HIDDEN), w1, add("mul", (INPUTS, HIDDEN), grad1, rate))
    new2 = add("sub", (HIDDEN, OUTPUTS), w2, add("mul", (HIDDEN, OUTPUTS), grad2, rate))
    return Program(
        slots=(
            Slot("w1", F32, (INPUTS, HIDDEN), new1),
            Slot("w2", F32, (HIDDEN, OUTPUTS), new2),
            Slot("loss", F32, (1, 1), loss),
            Slot("frozen", F32, (3,), Ref.state(3)),
            Slot("seen", F32, (rows, OUTPUTS), y),
        ),
        batch=(
            BatchTensor("x", F32, (rows, INPUTS)),
            BatchTensor("y", F32, (rows, OUTPUTS)),
            BatchTensor("lr", F32, (1,)),
        ),
        constants=(Constant.of(np.full((1, HIDDEN), 0.125, np.float32)),),
        nodes=tuple(nodes),
    ).check()


def training_job(steps: int = 10, interval: int = 4, batches: int = 3, seed: int = 1, rows: int = ROWS) -> Job:
    """Ten steps of `mlp` with checkpoints after 4, 8 and 10: claim and last segment have padding or an odd length."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray[Any, Any]:
        return (rng.standard_normal(shape) * 0.3).astype(np.float32)

    initial = {
        "w1": normal(INPUTS, HIDDEN), "w2": normal(HIDDEN, OUTPUTS), "loss": np.zeros((1, 1), np.float32),
        "frozen": normal(3), "seen": np.zeros((rows, OUTPUTS), np.float32),
    }  # fmt: skip
    data = [
        {"x": normal(rows, INPUTS), "y": normal(rows, OUTPUTS), "lr": np.array([0.01], np.float32)}
        for _ in range(batches)
    ]
    roots = [batch_root([tensor_root(array) for array in batch.values()]) for batch in data]
    return Job(mlp(rows), initial, data, roots, steps, interval)


def true_states(job: Job) -> list[State]:
    """The states after every step, computed by the library alone."""
    executor, state, found = Executor(job.program), job.initial, []
    for step in range(job.steps):
        state = executor.run(state, job.batches[step % len(job.batches)])
        found.append(state)
    return found


def root_of(state: State) -> bytes:
    """The root of a state."""
    return state_root([tensor_root(array) for array in state.values()])


TERMS = Terms(
    holdback_bps=2_500, arity_bits=2, commit_window=300, reveal_window=200, challenge_window=200, build_window=200,
    allowance=300, grace=20, referee_window=200, delivery_window=1_000,
)  # fmt: skip


NAMES = ("deployer", "watcher", "client", "honest", "liar", *(f"p{i}" for i in range(4)), *(f"m{i}" for i in range(3)))


@cache
def _deployed() -> tuple[Devnet, Contracts, int]:
    """A chain with funded accounts and the contracts, and the snapshot to which every world goes back."""
    devnet = Devnet(names=NAMES)
    contracts = deploy(devnet)
    return devnet, contracts, devnet.snapshot()


class World(Localnet):
    """A local network with shorthands. One at a time: a new world takes the chain back to its beginning."""

    def __init__(self) -> None:
        devnet, contracts, snapshot = _deployed()
        devnet.revert(snapshot)
        super().__init__(devnet, contracts)

    def provider(self, name: str, make: Callable[..., Provider] = Provider, **how: Any) -> Any:
        return self.add(make(self.link(name), self.directory, **how))

    def client(self, name: str = "client") -> Any:
        return self.add(Client(self.link(name), self.directory))

    def bench(
        self,
        makers: Sequence[Callable[..., Referee]] = (Referee, Referee, Referee),
        threshold: int = 2,
        kind: RefereeKind = RefereeKind.COMMITTEE,
    ) -> Bench:
        """A referee of a kind; if it has a committee, of members m0, m1 ... with two out of three."""
        if kind is RefereeKind.EVM:
            return Bench(self.contracts.evm)
        contract, window = {
            RefereeKind.COMMITTEE: (self.contracts.committee, 0), RefereeKind.APPEAL: (self.contracts.appeal, 150),
        }[kind]  # fmt: skip
        members = [self.add(make(self.link(f"m{i}"), self.directory)) for i, make in enumerate(makers)]
        return Bench(contract, tuple(member.address for member in members), threshold, window)

    def check_conservation(self) -> None:
        """What the actors have lost, to the wei, is what stands in the contract, and all of that is burned."""
        held = self.balance(self.verde)
        assert sum(self.gained(actor) for actor in self.actors) == -held
        assert self.actors[0].link.verde.credit(BURN) == held

    def check_honest(self, client: Client, task_id: int, job: Job, *honest: Provider) -> TaskState:
        """What every attack must end in: the honest root stands, the client has the state, the honest are paid and
        never slashed, no wei is lost. Returns the task."""
        client.sync()
        task = client.state.tasks[task_id]
        truth = true_states(job)[-1]
        assert task.status is Status.SETTLED
        assert task.claim(task.settled_claim).final_state_root == root_of(truth)
        final = client.result(task_id)
        assert {name: array.tobytes() for name, array in final.items()} == {
            name: array.tobytes() for name, array in truth.items()
        }
        client.confirm(task_id)
        self.run(task_id)
        task = client.state.tasks[task_id]
        paid_seats = 0
        for provider in honest:
            index = task.index_of(provider.address)
            assert index is not None and task.roster[index].standing is Standing.FREE
            rewarded = index < task.committed or task.payee == index + 1
            paid_seats += rewarded
            won = [m for m in map(client.state.matches.get, task.match_ids) if m and _winner(m) == index]
            assert self.gained(provider) == rewarded * task.reward + sum(match.paid for match in won)
        losers = [i for i, who in enumerate(task.roster) if who.standing is not Standing.FREE]
        assert len(losers) + len(honest) == len(task.roster)
        for actor in self.actors:
            if isinstance(actor, Provider) and actor not in honest:
                index = task.index_of(actor.address)
                won = [m for m in map(client.state.matches.get, task.match_ids) if m and _winner(m) == index]
                assert self.gained(actor) == (0 if index is None else sum(match.paid for match in won) - task.bond)
        assert self.gained(client) == -paid_seats * task.reward
        self.check_conservation()
        return task


def _winner(match: MatchState) -> int | None:
    sides = {Outcome.A_WINS: match.index_a, Outcome.B_WINS: match.index_b}
    return sides.get(match.outcome)


def match_line(match: MatchState) -> str:
    """A match in a line, for messages of failing tests."""
    at = [f"{level.level.name}@{level.closed_at}" for level in match.levels]
    return f"{' '.join(at)} {match.outcome.name} {match.reason.name} verbs {match.verbs}"
