"""The client: posts a task, serves what it needs, takes the result home."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace

from node.actions import LocalView
from node.chain.committee import encode_appeal, encode_config
from node.chain.sender import Sent
from node.data import DataSource, State
from node.errors import UsageError
from node.events import TaskCreated
from node.player import Link, Player
from node.structs import ProgramHeader, Standing, Status, TaskParams
from node.work import Job
from repops import Program
from repops.commit import data_tree, state_root, tensor_roots

GWEI = 10**9


@dataclass(frozen=True)
class Terms:
    """Money and clocks of a task: amounts in wei, times in seconds. The defaults suit a test network.

    providers: the named providers, or empty: then the task is open to the first `seats` that commit. bond: at least
    twice what a match can cost its loser; None: exactly that. holdback_bps: share of each reward, in 1/10,000, that
    waits for the delivery.
    """

    seats: int = 3
    providers: tuple[str, ...] = ()
    reward: int = 10**16
    bond: int | None = None
    verb_fee: int = 200_000 * GWEI
    bounty: int = 10**15
    holdback_bps: int = 1_000
    arity_bits: int = 4
    commit_window: int = 3_600
    reveal_window: int = 600
    challenge_window: int = 600
    build_window: int = 600
    allowance: int = 1_800
    grace: int = 60
    referee_window: int = 600
    delivery_window: int = 86_400


@dataclass(frozen=True)
class Bench:
    """Who decides: the referee contract. members, threshold: its committee and how many of them have to agree, if it
    has one. appeal_window: seconds in which the committee's verdict can be appealed, if it can be."""

    contract: str
    members: tuple[str, ...] = ()
    threshold: int = 0
    appeal_window: int = 0

    @property
    def config(self) -> bytes:
        """The task's `refereeConfig`. Raises ConfigError for a committee that cannot decide."""
        if not self.members:
            return b""
        committee = encode_config(self.threshold, self.members)
        return encode_appeal(self.appeal_window, committee) if self.appeal_window else committee


class Client(Player):
    """Posts tasks and looks after them: pairs, settles, collects what is refunded, like anybody who is interested."""

    def __init__(self, link: Link, directory: Mapping[str, DataSource]) -> None:
        super().__init__(link, directory)
        self._programs: dict[bytes, Program] = {}

    def post(self, job: Job, bench: Bench, terms: Terms | None = None) -> int:
        """Serves the job's program, initial state and batches, creates the task and returns its id.

        Raises UsageError for a bond that the contract would refuse, TxReverted if it refuses the task all the same.
        """
        terms = terms or Terms()
        params = self._params(job, bench, terms)
        self._programs[job.program.root] = job.program
        self.store.put_program(job.program)
        self.store.put_tensors(job.initial)
        for batch in job.batches:
            self.store.put_tensors(batch)
        self.store.put_tree(data_tree(job.batch_roots))
        sent = self.link.sender.send(self.link.verde.create_task(params))
        created = [e for e in sent.events if isinstance(e, TaskCreated)] if isinstance(sent, Sent) else []
        self.sync()
        return created[0].task_id

    def view(self) -> LocalView:
        """See Player: a client looks after its own tasks."""
        own = [task.task_id for task in self.state.tasks.values() if task.client == self.address]
        return replace(super().view(), watched=frozenset(own))

    def result(self, task_id: int) -> State:
        """The final state of a settled task, from a provider that stands by it, checked against the settled root.

        Raises UsageError if the task has not settled, DataError if nobody serves the state.
        """
        task = self.state.tasks[task_id]
        if task.status is not Status.SETTLED:
            raise UsageError(f"the task is {task.status.name.lower()}, not settled", where=f"task {task_id}")
        program = self._programs.get(task.program_root) or self.fetcher().program(task.program_root)
        standing = [
            who.account for who in task.roster if who.standing is Standing.FREE and who.claim_id == task.settled_claim
        ]
        return self.fetcher(*standing).state(task.claim(task.settled_claim).final_state_root, program)

    def confirm(self, task_id: int) -> None:
        """Confirms the delivery: the held-back shares of the rewards can be collected."""
        self.link.sender.send(self.link.verde.confirm_delivery(task_id))
        self.sync()

    def _params(self, job: Job, bench: Bench, terms: Terms) -> TaskParams:
        header = ProgramHeader(*astuple(job.program.header()))
        verde = self.link.verde
        verbs = verde.max_verbs(job.steps, job.interval, header.nodes, terms.arity_bits)
        verbs += verde.referee_verbs(bench.contract, bench.config, terms.arity_bits)
        needed = 2 * (terms.verb_fee * verbs + terms.bounty)
        bond = needed if terms.bond is None else terms.bond
        if bond < needed:
            raise UsageError(
                f"a bond of {bond} wei does not cover twice what a match of {verbs} verbs can cost its loser",
                where="bond",
                cure=f"Ask for {needed} wei or more, or lower verb_fee or bounty",
            )
        return TaskParams(
            program=header,
            initial_state_root=state_root(tensor_roots(job.initial.values())),
            data_root=data_tree(job.batch_roots).root,
            batch_count=len(job.batches),
            steps=job.steps,
            interval=job.interval,
            seats=len(terms.providers) or terms.seats,
            providers=terms.providers,
            arity_bits=terms.arity_bits,
            reward=terms.reward,
            bond=bond,
            verb_fee=terms.verb_fee,
            bounty=terms.bounty,
            holdback_bps=terms.holdback_bps,
            commit_window=terms.commit_window,
            reveal_window=terms.reveal_window,
            challenge_window=terms.challenge_window,
            build_window=terms.build_window,
            allowance=terms.allowance,
            grace=terms.grace,
            referee_window=terms.referee_window,
            delivery_window=terms.delivery_window,
            referee=bench.contract,
            referee_config=bench.config,
        )
