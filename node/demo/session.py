"""One run of `verde demo`: the cast, the task, the dispute, and what came of it."""

from __future__ import annotations

import os
import random
import time
from collections import defaultdict
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

from node.adversaries import CHEATS, Cheat, FlipBit, LyingReferee, PlainTorchOrder
from node.chain.reader import Follower, LogReader
from node.client import Bench, Client, Terms
from node.demo.options import DEFAULT_CHEAT, NO_CHEAT, REFEREES, DemoOptions
from node.demo.report import DemoReport, MatchReport
from node.demo.view import View, describe_node
from node.errors import UsageError
from node.events import Event
from node.exhibit import Exhibit, exhibit
from node.fold import ChainState, MatchState, TaskState, fold
from node.localnet import Localnet
from node.provider import Provider
from node.referee import Referee
from node.structs import BURN, Level, Outcome, RefereeKind, Standing, Status
from node.verdict import Committee
from node.work import Job, Work
from repops import Program
from repops.commit import batch_root, state_root, tensor_roots
from repops.dtypes import DType
from repops.graph.ir import element_count
from repops.vm import NodeRun

MEMBERS, THRESHOLD = 3, 2
APPEAL_WINDOW = 600  # seconds
MANTISSA_TOP = 22  # the bit that is flipped: the highest of an f32's mantissa
CLIENT = "client"
TORCH_ORDER = "torch-order"  # the only cheat that needs the client's own model

MakeProvider = Callable[..., Provider]


def run_demo(options: DemoOptions, *, quiet: bool = False) -> DemoReport:
    """Runs the whole demo and reports on it. Raises UsageError for options that contradict each other."""
    options.check({name: cheat.text for name, cheat in CHEATS.items()})
    seats, challenger = _cast(options)
    started = time.perf_counter()
    return _Session(options, seats, challenger, quiet=quiet).run(started)


def _cast(options: DemoOptions) -> tuple[list[tuple[str, MakeProvider]], bool]:
    """Who takes the seats, by name, in order; and whether an honest challenger is needed."""
    if options.cheat == NO_CHEAT:
        return [(f"provider {i}", Provider) for i in range(options.providers)], False
    cheat = CHEATS[options.cheat]
    liars: list[MakeProvider] = list(cheat.liars)
    if options.cheat == DEFAULT_CHEAT:
        liars = [partial(Provider, make_work=partial(_seeded_flip, options=options))]
    if cheat.fills_seats:
        return [(f"provider {i} (liar)", liars[i % len(liars)]) for i in range(options.providers)], True
    if len(liars) >= options.providers:
        raise UsageError(
            f"{options.cheat} has {len(liars)} liars, so {options.providers} providers leave nobody honest",
            where="--providers",
            cure=f"Use {len(liars) + 1} or more",
        )
    seats: list[tuple[str, MakeProvider]] = []
    for i in range(options.providers):
        lying = 1 <= i <= len(liars)
        seats.append((f"provider {i}{' (liar)' if lying else ''}", liars[i - 1] if lying else Provider))
    return seats, False


def _seeded_flip(job: Job, threads: int = 1, *, options: DemoOptions) -> FlipBit:
    """Flips the chosen node at the chosen step, else a matrix product and a step that follow from the seed."""
    dice = random.Random(options.seed)
    step = dice.randrange(job.steps) if options.cheat_step is None else options.cheat_step
    products = [i for i, node in enumerate(job.program.nodes) if node.op == "matmul"]
    node = dice.choice(products) if options.cheat_node is None else options.cheat_node
    if node >= len(job.program.nodes):
        raise UsageError(
            f"the program has {len(job.program.nodes)} compute nodes", where="--cheat-node", cure="Count from 0"
        )
    count = element_count(job.program.nodes[node].shape)
    if options.cheat_element >= count:
        raise UsageError(
            f"the output of node {node} has {count} elements", where="--cheat-element", cure="Count from 0, row-major"
        )
    bit = 0 if job.program.nodes[node].dtype is DType.BOOL else MANTISSA_TOP
    return FlipBit(job, threads, step=step, node=node, bit=(options.cheat_element, bit))


class _Session:
    def __init__(
        self, options: DemoOptions, seats: list[tuple[str, MakeProvider]], challenger: bool, *, quiet: bool
    ) -> None:
        self.options, self.seats, self.challenger = options, seats, challenger
        self.net = Localnet()
        self.view = View(self.net.names, self._gas_of, quiet=quiet)
        self._watch = Follower(LogReader(self.net.rpc(), self.net.verde, referees=self.net.contracts.referees))
        self._events: list[Event] = []
        self._state = ChainState(referees=self.net.contracts.referees)

    def run(self, started: float) -> DemoReport:
        from node.demo.workload import digits_transformer  # noqa: PLC0415  imports torch

        options, net, view = self.options, self.net, self.view
        view.say(f"[bold]The client captures {options.steps} steps of a transformer on 8x8 digits[/bold]")
        workload = digits_transformer(options.steps, options.seed)
        program = view.program = workload.program
        view.say(
            f"  program 0x{program.root.hex()[:16]}..: {len(program.nodes)} operators, "
            f"{program.trace_length} trace nodes, {len(program.slots)} slots; "
            f"captured and checked in {time.perf_counter() - started:.1f} s"
        )
        roots = [batch_root(tensor_roots(batch.values())) for batch in workload.batches]
        job = Job(program, workload.initial_state, workload.batches, roots, options.steps, options.interval)
        if options.cheat == DEFAULT_CHEAT:
            _seeded_flip(job, options=options)  # refuses what does not exist before anything is posted

        self.honest = Honest(job)
        view.exhibit_of = self._exhibit
        cheat = CHEATS.get(options.cheat)
        client = net.add(Client(net.link(CLIENT), net.directory))
        bench = self._bench(cheat)
        threads = options.threads or os.cpu_count() or 1
        if options.cheat == TORCH_ORDER:
            torch_order = partial(Provider, make_work=partial(PlainTorchOrder, plain=workload.plain))
            self.seats = [(name, make if make is Provider else torch_order) for name, make in self.seats]
        providers = [net.add(self._provider(name, make, threads)) for name, make in self.seats]
        if self.challenger:
            honest = partial(Provider, takes_seats=False, challenges=True)
            providers.append(net.add(self._provider("challenger", honest, threads)))
        terms = Terms(seats=len(self.seats))
        task_id = client.post(job, bench, terms)
        self._show()
        view.say("\n[bold]The providers execute it[/bold]")
        task = net.run(task_id, each=self._show)
        view.stop_progress()
        accuracy = None
        winner = None
        if task.status is Status.SETTLED:
            claim = task.claim(task.settled_claim)
            winner = claim.final_state_root
            accuracy = workload.evaluate(client.result(task_id))
            client.confirm(task_id)
            task = net.run(task_id, each=self._show)
        client.sync()
        report = DemoReport(
            cheat=options.cheat,
            referee=self.kind.value,
            seed=options.seed,
            settled=task.status is Status.SETTLED,
            winner_root=None if winner is None else "0x" + winner.hex(),
            honest_root="0x" + self.honest.root.hex(),
            accuracy=accuracy,
            slashed=[net.names[who.account] for who in task.roster if who.standing in _OUT],
            matches=[self._match(client.state, task, match_id, program) for match_id in task.match_ids],
            paid={net.names[p.address]: net.gained(p) for p in (client, *providers)},
            burned=client.link.verde.credit(BURN),
            conserved=sum(net.gained(actor) for actor in net.actors) == -net.balance(net.verde),
            transactions=len(net.sent),
            gas_total=sum(sent.gas for _, sent in net.sent),
            seconds=round(time.perf_counter() - started, 3),
            program_root="0x" + program.root.hex(),
            nodes=program.trace_length,
            steps=options.steps,
            providers=options.providers,
        )
        view.finish(report)
        return report

    def _bench(self, cheat: Cheat | None) -> Bench:
        """Who decides, with the committee if one is needed."""
        kind = self.kind = (
            REFEREES.get(self.options.referee or "") or (cheat and cheat.referee) or REFEREES["committee"]
        )
        contract = next(address for address, known in self.net.contracts.referees.items() if known is kind)
        if not kind.has_committee:
            return Bench(contract)
        lying = cheat.lying_members if cheat is not None else 0
        members = []
        for i in range(MEMBERS):
            make: Any = LyingReferee if i < lying else Referee
            name = f"member {i}{' (liar)' if i < lying else ''}"
            members.append(self.net.add(make(self.net.link(name), self.net.directory)).address)
        return Bench(contract, tuple(members), THRESHOLD, APPEAL_WINDOW if kind is RefereeKind.APPEAL else 0)

    def _provider(self, name: str, make: MakeProvider, threads: int) -> Provider:
        def progress(_task: int, done: int, steps: int) -> None:
            self.view.training(name, done, steps)

        return make(
            self.net.link(name),
            self.net.directory,
            threads=threads,
            progress=progress,
            one_transaction=self.options.one_transaction,
        )

    # -- what happened -------------------------------------------------------------------------------------------------

    def _show(self) -> None:
        """Reads the chain as anybody could, and shows what is new."""
        for event in self._watch.tick().events:
            self._events.append(event)
            self._state = fold(self._state, event)
            self.view.event(event, self._state)

    def _gas_of(self, tx_hash: bytes) -> int:
        return next((sent.gas for _, sent in self.net.sent if sent.tx_hash == tx_hash), 0)

    def _match(self, state: ChainState, task: TaskState, match_id: int, program: Program) -> MatchReport:
        match = state.matches[match_id]
        sides = tuple(self.net.names[task.roster[i].account] for i in (match.index_a, match.index_b))
        won = {Outcome.A_WINS: (0,), Outcome.B_WINS: (1,)}.get(match.outcome, ())
        closed = {level.level: level.closed_at for level in match.levels}
        node = closed.get(Level.OPERATORS)
        operator, shapes = describe_node(program, node) if node is not None else (None, None)
        transactions = defaultdict(int)
        for event in self._events:
            if getattr(event, "match_id", None) == match_id:
                transactions[event.meta.tx_hash] = self._gas_of(event.meta.tx_hash)
        return MatchReport(
            match=match_id,
            sides=(sides[0], sides[1]),
            winner=sides[won[0]] if won else None,
            losers=tuple(side for i, side in enumerate(sides) if i not in won),
            reason=match.reason.name.lower(),
            level=match.level.name.lower(),
            checkpoint=closed.get(Level.CHECKPOINTS),
            step=_disputed_step(match),
            node=node,
            operator=operator,
            shapes=shapes,
            moves=match.verbs,
            transactions=len(transactions),
            gas=sum(transactions.values()),
            exhibit=self._exhibit(state, match),
            wrong_members=tuple(
                self.net.names[member] for i, member in enumerate(self._members(task)) if match.wrong_members >> i & 1
            ),
        )

    def _members(self, task: TaskState) -> tuple[str, ...]:
        return Committee.of(self.net.devnet.chain_id, task).members if self.kind.has_committee else ()

    def _exhibit(self, state: ChainState, match: MatchState) -> Exhibit | None:
        """What the match's trial has found, None if it has not found an element."""
        trial = match.trial
        if trial is None or not trial.over_states or trial.tile is None or trial.value_a == trial.value_b:
            return None
        roster = state.tasks[match.task_id].roster
        names = self.net.names[roster[match.index_a].account], self.net.names[roster[match.index_b].account]
        return exhibit(self.honest.run(match.step, match.position), trial, names)


_OUT = (Standing.LOST, Standing.COMMITTED)  # lost a match, or did not reveal


def _disputed_step(match: MatchState) -> int | None:
    return match.step if match.level is Level.OPERATORS else None


class Honest:
    """An execution outside the game: one thread, whatever the providers used."""

    def __init__(self, job: Job) -> None:
        self.job = job

    @cached_property
    def _work(self) -> Work:
        work = Work(self.job, threads=1)
        work.run()
        return work

    @property
    def root(self) -> bytes:
        """The final state's root."""
        return state_root(tensor_roots(self._work.final_state.values()))

    def run(self, step: int, node: int) -> NodeRun:
        """A compute node of a step, element by element."""
        return self._work.node_run(step, node)
