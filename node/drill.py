"""`verde drill`: for every kind of operator of a program, one dispute on an embedded chain down to its ruling.

An honest provider meets one that claims one wrong bit of the operator's output, with the chain as the referee.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from node.adversaries import FlipOutput
from node.chain.devnet import Devnet
from node.client import Bench, Client, Terms
from node.data import State
from node.errors import UsageError
from node.exhibit import Exhibit, exhibit
from node.fold import MatchState
from node.localnet import Contracts, Localnet, deploy
from node.provider import Policy, Provider
from node.structs import Level, Outcome, Ruling
from node.work import Job, Work
from repops import Program
from repops.commit import batch_root, tensor_roots
from repops.dtypes import DType
from repops.graph.ir import BatchTensor, Slot, element_count

NAMES = ("deployer", "watcher", "client", "honest", "liar")
TERMS = Terms(seats=2, verb_fee=0, bounty=1, bond=10**15)


@dataclass(frozen=True)
class Dispute:
    """One dispute. `honest_won`: the liar lost at the operator and by the instruction that was executed.

    `moves` (verbs), `transactions` and `gas`: of the whole match; `trial_gas`: of those transactions that played below
    the operator.
    """

    operator: str
    node: int
    element: int
    bit: int
    liar: str
    instruction: str | None
    position: int | None
    instructions: int
    moves: int
    transactions: int
    gas: int
    trial_gas: int
    ruling: str
    honest_won: bool
    seconds: float
    exhibit: Exhibit | None


@dataclass(frozen=True)
class DrillReport:
    """All disputes of a drill."""

    program_root: str
    seed: int
    disputes: tuple[Dispute, ...]
    skipped: tuple[str, ...]

    @property
    def honest_won(self) -> bool:
        """Whether every lie was found."""
        return all(dispute.honest_won for dispute in self.disputes)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, with stable keys."""
        return {**asdict(self), "honest_won": self.honest_won}


def operators(program: Program) -> Mapping[str, Sequence[int]]:
    """The nodes of each operator that have elements, by its name, in order of first appearance."""
    found: dict[str, list[int]] = {}
    for i, node in enumerate(program.nodes):
        found.setdefault(node.op, [])
        if element_count(node.shape):
            found[node.op].append(i)
    return found


def random_tensors(tensors: Sequence[Slot | BatchTensor], seed: int) -> State:
    """Contents for a state or a batch: small normal floats, integers from 0 to 7."""
    rng = np.random.default_rng(seed)

    def one(dtype: DType, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        if dtype is DType.BOOL:
            return rng.integers(0, 2, shape).astype(dtype.numpy)
        if not dtype.is_float:
            return rng.integers(0, 8, shape).astype(dtype.numpy)
        values = (rng.standard_normal(shape) * 0.3).astype(np.float32)
        if dtype is DType.BF16:
            return (np.ascontiguousarray(values).view(np.uint32) >> 16).astype(dtype.numpy)
        return values.astype(dtype.numpy)

    return {tensor.name: np.ascontiguousarray(one(tensor.dtype, tensor.shape)) for tensor in tensors}


def run_drill(
    program: Program,
    names: Sequence[str],
    state: State,
    batch: State,
    *,
    seed: int = 0,
    one_transaction: bool = True,
    arity_bits: int = 4,
    each: Callable[[Dispute], None] | None = None,
) -> DrillReport:
    """Disputes an operator of each of these names. each: hears of every dispute. Raises UsageError for a name that the
    program does not have."""
    known = operators(program)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(
            f"the program has no {', '.join(unknown)}", where="--operator", cure=f"It has {', '.join(known)}"
        )
    devnet = Devnet(names=NAMES)
    contracts = deploy(devnet)
    clean = devnet.snapshot()
    root = batch_root(tensor_roots(batch.values()))
    job = Job(program, state, [batch], [root], 1, 1)
    terms = replace(TERMS, arity_bits=arity_bits)
    disputes = []
    for name in names:
        if not known[name]:
            continue
        devnet.revert(clean)
        dice = random.Random(f"{seed} {name}")
        disputes.append(_dispute(devnet, contracts, job, known[name], dice, one_transaction, terms))
        if each is not None:
            each(disputes[-1])
    skipped = tuple(name for name in names if not known[name])
    return DrillReport("0x" + program.root.hex(), seed, tuple(disputes), skipped)


def _dispute(
    devnet: Devnet,
    contracts: Contracts,
    job: Job,
    nodes: Sequence[int],
    dice: random.Random,
    one_transaction: bool,
    terms: Terms,
) -> Dispute:
    started = time.perf_counter()
    index = dice.choice(nodes)
    node = job.program.nodes[index]
    element = dice.randrange(element_count(node.shape))
    bit = 0 if node.dtype is DType.BOOL else dice.randrange(node.dtype.bits)
    net = Localnet(devnet, contracts)
    client = net.add(Client(net.link("client"), net.directory))
    lie = partial(FlipOutput, node=index, bit=(element, bit))
    liar = dice.choice(["A", "B"])
    for name in ("liar", "honest") if liar == "A" else ("honest", "liar"):
        net.add(
            Provider(
                net.link(name),
                net.directory,
                policy=Policy(window_share=float("inf")),
                make_work=lie if name == "liar" else Work,
                one_transaction=one_transaction,
            )
        )
    task_id = client.post(job, Bench(contracts.evm), terms)
    task = net.run(task_id, until=lambda task: bool(task.match_ids) and not task.live_matches)
    client.sync()
    match = client.state.matches[task.match_ids[0]]
    found, count = _findings(job, match, ("liar", "honest") if liar == "A" else ("honest", "liar"))
    ids = [({getattr(event, "match_id", None) for event in sent.events}, sent) for _, sent in net.sent]
    of_match = [sent for about, sent in ids if match.match_id in about]
    below = [sent for sent in of_match if sent.verb.startswith("trial_")]
    trial = match.trial
    won = match.outcome is (Outcome.B_WINS if liar == "A" else Outcome.A_WINS)
    return Dispute(
        operator=node.op,
        node=index,
        element=element,
        bit=bit,
        liar=liar,
        instruction=None if found is None else found.instruction,
        position=None if found is None else found.position,
        instructions=count,
        moves=match.verbs,
        transactions=len(of_match),
        gas=sum(sent.gas for sent in of_match),
        trial_gas=sum(sent.gas for sent in below),
        ruling=(Ruling.NONE if trial is None else trial.ruling).name.lower().replace("_", " "),
        honest_won=won and match.at.closed_at == index and trial is not None and trial.word is not None
        and trial.element == element,
        seconds=round(time.perf_counter() - started, 3),
        exhibit=found,
    )  # fmt: skip


def _findings(job: Job, match: MatchState, names: tuple[str, str]) -> tuple[Exhibit | None, int]:
    """What the trial found, and how many instructions the element's run has."""
    trial = match.trial
    if trial is None or match.level is not Level.OPERATORS or trial.value_a == trial.value_b:
        return None, 0
    work = Work(job)
    work.run()
    found = exhibit(work.node_run(match.step, match.position), trial, names)
    return found, found.instructions
