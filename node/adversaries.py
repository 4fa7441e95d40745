"""Every liar that the game must survive, a class each. They are used by the tests and by `verde demo --cheat`.

A liar about the computation is a `Work` that does one thing differently. It is rational: where it claims a state that
the program does not give, it forges a trace that ends in that state, so that it loses at the operator and no earlier.
A liar about the game is a `Provider` that leaves out or replaces an action, or a `Referee` that signs something else.
`CHEATS` says who of them takes part under which name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from eth_abi.abi import decode
from hexbytes import HexBytes

from node.actions import (
    Action,
    Advance,
    Chain,
    Challenge,
    Commit,
    Execute,
    Post,
    PostElement,
    Reveal,
    TrialAdvance,
)
from node.data import Array, DataSource, State
from node.errors import MissingData, TxReverted
from node.events import Event, Revealed
from node.fold import ChainState, MatchState, TaskState, due
from node.forgery import forge
from node.localnet import LAST_SECONDS
from node.plan import seat_free
from node.player import Link
from node.provider import Provider
from node.referee import Referee
from node.structs import Level, Phase, RefereeKind, Side, Standing
from node.verdict import SignedVerdict
from node.work import Job, Progress, Work
from repops import Program
from repops.commit import Tree, hash_node_roots, hash_pair, tensor_roots
from repops.dtypes import DType
from repops.graph.ir import Ref, RefKind
from repops.ops.table import OPERATORS
from repops.vm import NodeRun

PlainStep = Callable[[State, State], State]


# ------------------------------------------------------------------------------------------ Lies about the computation


class FlipBit(Work):
    """Flips one bit of one element of one node's output at one step, and goes on with what follows from it.

    Defaults: the middle step, the last matrix product (in training the gradient of a weight, so that every bit of it
    counts), the first element, the highest bit of an f32's mantissa.
    """

    def __init__(
        self,
        job: Job,
        threads: int = 1,
        *,
        step: int | None = None,
        node: int | None = None,
        bit: tuple[int, int] = (0, 22),
    ) -> None:
        """bit: (element, bit), the lowest bit is 0."""
        super().__init__(job, threads)
        self.step = job.steps // 2 if step is None else step
        self.node = last_matmul(job.program) if node is None else node
        self.element, self.bit = bit

    def advance(self, step: int, state: State) -> State:
        return super().advance(step, state) if step != self.step else self._walk(state)[1]

    def trace(self, step: int, state: State) -> list[bytes]:
        return super().trace(step, state) if step != self.step else self._walk(state)[0]

    def output(self, step: int, node: int) -> Array:
        output = super().output(step, node)
        if (step, node) == (self.step, self.node):
            flip_bit(output, self.element, self.bit)
        return output

    def element_trace(self, run: NodeRun, element: int, value: int) -> Tree:
        return forge(run, element, value)

    def _walk(self, state: State) -> tuple[list[bytes], State]:
        walk = self.executor.walk(state, self.batch(self.step), roots=True)
        for visited in walk:
            if visited.index == self.node:
                flip_bit(visited.output, self.element, self.bit)
        return [row.tobytes() for row in walk.trace()], walk.state()


class FlipOutput(Work):
    """Claims one wrong bit in one operator's output at the last step, and a final state that follows from nothing.

    Whatever the bit would change in what follows, the lie is seen, and first at the operator.
    """

    def __init__(self, job: Job, threads: int = 1, *, node: int | None = None, bit: tuple[int, int] = (0, 0)) -> None:
        """node: default the last matrix product. bit: (element, bit), the lowest bit is 0."""
        super().__init__(job, threads)
        self.step, (self.element, self.bit) = job.steps - 1, bit
        self.node = last_matmul(job.program) if node is None else node

    def claimed_root(self, step: int, state: State) -> bytes:
        if step != self.step:
            return super().claimed_root(step, state)
        return noise(f"state {step} {self.node} {self.element} {self.bit}")

    def trace(self, step: int, state: State) -> list[bytes]:
        leaves = super().trace(step, state)
        if step == self.step:
            leaves[self.node] = self.output_tree(step, self.node).root
            leaves[-1] = self.claimed_root(step, state)
        return leaves

    def output(self, step: int, node: int) -> Array:
        output = super().output(step, node)
        if (step, node) == (self.step, self.node):
            flip_bit(output, self.element, self.bit)
        return output

    def element_trace(self, run: NodeRun, element: int, value: int) -> Tree:
        return forge(run, element, value)


class ForgedTrace(Work):
    """A liar that claims a state which the program does not give.

    It forges the trace: the honest one, with the leaves that make up the claimed state replaced and the hash nodes
    recomputed, so that the last leaf is the claimed root.
    """

    def trace(self, step: int, state: State) -> list[bytes]:
        program = self.job.program
        roots = super().trace(step, state)[: len(program.nodes)]
        slots = tensor_roots(self.advance(step, state).values())
        for slot, root in zip(program.slots, slots, strict=True):
            if slot.update.kind is RefKind.NODE:
                roots[slot.update.index] = root
        return roots + [row.tobytes() for row in hash_node_roots(slots)]

    def output(self, step: int, node: int) -> Array:
        for slot in self.job.program.slots:
            if slot.update == Ref.node(node):
                return self.advance(step, self.state_before(step))[slot.name]
        return super().output(step, node)

    def element_trace(self, run: NodeRun, element: int, value: int) -> Tree:
        return forge(run, element, value)


class SkipStep(ForgedTrace):
    """Does not compute one step: the state after it is the state before it."""

    def __init__(self, job: Job, threads: int = 1, *, step: int | None = None) -> None:
        super().__init__(job, threads)
        self.step = job.steps // 2 if step is None else step

    def advance(self, step: int, state: State) -> State:
        return super().advance(step, state) if step != self.step else dict(state)


class PlainTorchOrder(ForgedTrace):
    """Computes every step in another order of floating-point operations: as good as the program's, but with other
    bits.

    plain: the client's own step in plain torch, mapping (state, batch), dicts of arrays, to the new state. None:
    every operator is computed in numpy, in whatever order its libraries have, and rounded at the end.
    """

    def __init__(self, job: Job, threads: int = 1, *, plain: PlainStep | None = None) -> None:
        super().__init__(job, threads)
        self.plain = plain

    def advance(self, step: int, state: State) -> State:
        if self.plain is not None:
            return self.plain(state, self.batch(step))
        walk = self.executor.walk(state, self.batch(step))
        for visited in walk:
            if visited.node.dtype is DType.F32:
                wide = [x.astype(np.float64) if x.dtype == np.float32 else x for x in visited.inputs]
                visited.output[...] = OPERATORS[visited.node.op].twin(visited.node, wide)
        return walk.state()


class WrongBatch(Work):
    """Trains on the next step's batch, from one step on."""

    def __init__(self, job: Job, threads: int = 1, *, step: int | None = None) -> None:
        super().__init__(job, threads)
        self.step = job.steps // 2 if step is None else step

    def batch(self, step: int) -> State:
        return super().batch(step if step < self.step else step + 1)


class WrongLearningRate(Work):
    """Multiplies the learning rate in every batch by a factor.

    tensor: the batch tensor's name; None: the first that holds one f32.
    """

    def __init__(self, job: Job, threads: int = 1, *, tensor: str | None = None, factor: float = 1.5) -> None:
        super().__init__(job, threads)
        scalars = [t.name for t in job.program.batch if t.dtype is DType.F32 and np.prod(t.shape) == 1]
        self.tensor = scalars[0] if tensor is None else tensor
        self.factor = np.float32(factor)

    def batch(self, step: int) -> State:
        batch = dict(super().batch(step))
        batch[self.tensor] = np.multiply(batch[self.tensor], self.factor, dtype=np.float32)
        return batch


class RandomRoot(Work):
    """Computes nothing: every root is random, but for those in which a posted tree has to end."""

    def run(self, progress: Progress | None = None) -> None:
        self._checkpoints = [self.job.initial] * self.job.checkpoints
        ends = [min((i + 1) * self.job.interval, self.job.steps) for i in range(self.job.checkpoints)]
        self._roots = [self.claimed_root(end - 1, self.job.initial) for end in ends]

    def advance(self, step: int, state: State) -> State:
        return state

    def claimed_root(self, step: int, state: State) -> bytes:
        return noise(f"state {step}")

    def trace(self, step: int, state: State) -> list[bytes]:
        last = self.job.program.trace_length - 1
        return [noise(f"node {step} {i}") for i in range(last)] + [self.claimed_root(step, state)]


class LyingHashNode(Work):
    """Computes everything rightly, but lies about the root of one state: about the top hash node of its step's trace.

    step: one that ends in a checkpoint, or nobody would see it; None: one in the middle.
    """

    def __init__(self, job: Job, threads: int = 1, *, step: int | None = None) -> None:
        super().__init__(job, threads)
        segment = (job.steps // 2) // job.interval
        self.step = segment * job.interval + job.segment_steps(segment) - 1 if step is None else step

    def claimed_root(self, step: int, state: State) -> bytes:
        return super().claimed_root(step, state) if step != self.step else noise(f"state {step}")

    def trace(self, step: int, state: State) -> list[bytes]:
        leaves = super().trace(step, state)
        return leaves if step != self.step else [*leaves[:-1], noise(f"state {step}")]


class GarbageSubtree(FlipBit):
    """Its tree of one level has a node that is the hash of nothing, where the opponent has real leaves."""

    def __init__(self, job: Job, threads: int = 1, *, level: Level = Level.STEPS, step: int | None = None) -> None:
        super().__init__(job, threads, step=step)
        self.level = level

    def tree(self, level: Level, leaves: list[bytes]) -> Tree:
        tree = super().tree(level, leaves)
        if level is not self.level:
            return tree
        # The last leaf has to be proven, so the garbage must not stand above it.
        at = (1, 0) if tree.count > 2 else (0, 0)
        return PatchedTree(tree, {at: noise(f"subtree {level}")}) if tree.count > 1 else tree


class GarbagePadding(FlipBit):
    """Hides garbage in the padding of a tree, as high up as it can, so that it is the hash of nothing.

    In a claim that is its only lie; its trees of the other levels need another one to be asked for: a flipped bit.
    """

    def __init__(self, job: Job, threads: int = 1, *, level: Level = Level.CHECKPOINTS) -> None:
        super().__init__(job, threads)
        self.level = level
        if level is Level.CHECKPOINTS:
            self.step = job.steps  # never

    def tree(self, level: Level, leaves: list[bytes]) -> Tree:
        tree = super().tree(level, leaves)
        if level is not self.level or tree.count == 1 << tree.height:
            return tree
        top = max(k for k in range(tree.height) if ((1 << tree.height - k) - 1) << k >= tree.count)
        return PatchedTree(tree, {(top, (1 << tree.height - top) - 1): noise(f"padding {level}")})


class CopyAllButPadding(Work):
    """Every real leaf of its claim is right (copied, for all one knows), and the missing leaves are not zero."""

    def tree(self, level: Level, leaves: list[bytes]) -> Tree:
        tree = super().tree(level, leaves)
        if level is not Level.CHECKPOINTS:
            return tree
        return Tree([*leaves, *(noise(f"leaf {i}") for i in range(len(leaves), 1 << tree.height))], tree.height)


# ------------------------------------------------------------------------------------------------- Lies about the game


class NeverReveal(Provider):
    """Takes a seat and never opens its commitment."""

    def choose(self, state: ChainState, actions: Sequence[Action]) -> Sequence[Action]:
        return [action for action in actions if not isinstance(action, Reveal)]


class SilentAt(Provider):
    """Lies, and makes no move at one level (phase: only in that phase) of its matches."""

    def __init__(
        self, link: Link, directory: Mapping[str, DataSource], *, level: Level, phase: Phase | None = None, **how: Any
    ) -> None:
        super().__init__(link, directory, **({"make_work": FlipBit} | how))
        self.level, self.phase = level, phase

    def choose(self, state: ChainState, actions: Sequence[Action]) -> Sequence[Action]:
        return [action for action in actions if not self._silent(state, action)]

    def _silent(self, state: ChainState, action: Action) -> bool:
        match = state.matches.get(getattr(action, "match", 0))
        return match is not None and match.level is self.level and self.phase in (None, match.phase)


class WithholdsChildren(Provider):
    """Lies, and posts as side B without the children that spare side A its opening, and makes no move of A's."""

    def __init__(self, link: Link, directory: Mapping[str, DataSource], **how: Any) -> None:
        super().__init__(link, directory, **({"make_work": FlipBit} | how))

    def choose(self, state: ChainState, actions: Sequence[Action]) -> Sequence[Action]:
        return [self._without(state, action) for action in actions if not self._for_a(state, action)]

    def _without(self, state: ChainState, action: Action) -> Action:
        if not isinstance(action, Post | PostElement) or side_in(self, state, action.match) is Side.A:
            return action
        return replace(action, children=self.children(state, action))

    def _for_a(self, state: ChainState, action: Action) -> bool:
        if not isinstance(action, Advance | TrialAdvance | Execute):
            return False
        match = state.matches[action.match]
        waits = due(state.tasks[match.task_id], match, self.now)
        return waits is not None and waits.side is not side_in(self, state, action.match)

    def children(self, _state: ChainState, _post: Post | PostElement) -> tuple[bytes, ...]:
        """What it posts."""
        return ()


class WrongChildren(WithholdsChildren):
    """Lies, and posts as side B with children that are not its tree's: the contract takes no such post."""

    def children(self, state: ChainState, post: Post | PostElement) -> tuple[bytes, ...]:
        match = state.matches[post.match]
        height = match.rest if isinstance(post, Post) or match.trial is None else match.trial.vm_height
        count = 1 << min(state.tasks[match.task_id].arity_bits, height)
        return (noise("child"), *(post.children[1:] or map(noise, map(str, range(1, count)))))


class Turncoat(Provider):
    """Holds the honest claim, so that honest challengers might think that they are not needed, and lets itself be
    beaten: it makes no move in any match."""

    def choose(self, state: ChainState, actions: Sequence[Action]) -> Sequence[Action]:
        return [action for action in actions if not hasattr(action, "match")]


class LateClaim(Provider):
    """Brings its lie in the last seconds of the challenge window, when it is too late for others to look."""

    def __init__(self, link: Link, directory: Mapping[str, DataSource], **how: Any) -> None:
        settings: dict[str, Any] = {"make_work": FlipBit, "takes_seats": False, "challenges": True}
        super().__init__(link, directory, **(settings | how))

    def choose(self, state: ChainState, actions: Sequence[Action]) -> Sequence[Action]:
        return [action for action in actions if not isinstance(action, Challenge) or self._late(action.task)]

    def _late(self, task_id: int) -> bool:
        return self.now >= self.state.tasks[task_id].challenge_deadline - LAST_SECONDS


class RefuseData(Provider):
    """Lies, and serves nothing: every level has to be played move by move."""

    def __init__(self, link: Link, directory: Mapping[str, DataSource], **how: Any) -> None:
        super().__init__(link, directory, **({"make_work": FlipBit} | how))

    def serves(self) -> DataSource:
        return Nothing()


class CopyCommitment(Provider):
    """Computes nothing: commits to another's commitment, and reveals what that one reveals, salt and all."""

    def __init__(self, link: Link, directory: Mapping[str, DataSource], **how: Any) -> None:
        super().__init__(link, directory, **how)
        self.refused: list[TxReverted] = []
        self._copied: dict[int, Reveal] = {}

    def prepare(self) -> None:
        for task in self.state.tasks.values():
            self._copy(task)

    def heard(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Revealed):
                sent = self.link.verde.rpc.w3.eth.get_transaction(HexBytes(event.meta.tx_hash))
                types = ("uint256", "bytes32", "bytes32", "bytes32", "bytes32[]")
                task, claim, final, salt, proof = decode(types, bytes(sent["input"])[4:])
                self._copied[task] = Reveal(task, claim, final, salt, tuple(proof))

    def _copy(self, task: TaskState) -> None:
        own = task.index_of(self.address)
        if own is None and self.now < task.commit_deadline and task.roster and seat_free(task, self.address):
            self._try(Commit(task.task_id, task.roster[0].commitment, task.bond))
        copied = self._copied.get(task.task_id)
        if own is not None and copied is not None and task.roster[own].standing is Standing.COMMITTED:
            self._try(self._copied.pop(task.task_id))

    def _try(self, action: Chain) -> None:
        try:
            self.link.sender.send(self._call(action))
        except TxReverted as error:
            self.refused.append(error)


class LyingReferee(Referee):
    """A member of the committee that signs for whoever is wrong."""

    def judge(self, task: TaskState, match: MatchState) -> bytes:
        truth = super().judge(task, match)
        return match.node_b if truth == match.node_a else match.node_a


class Nothing:
    """A data source that serves nothing."""

    def program(self, root: bytes) -> Mapping[str, bytes]:
        raise _refused()

    def tensor(self, root: bytes, size: int) -> bytes:
        raise _refused()

    def leaves(self, root: bytes, height: int) -> bytes:
        raise _refused()

    def tile(self, root: bytes, size: int, index: int) -> bytes:
        raise _refused()

    def nodes(self, root: bytes, height: int, level: int, index: int, m: int) -> bytes:
        raise _refused()

    def verdicts(self, match: int) -> Sequence[SignedVerdict]:
        raise _refused()


# --------------------------------------------------------------------------------------------------------------- Casts


@dataclass(frozen=True)
class Cheat:
    """Who lies in a task, under the name by which `verde demo --cheat` knows it.

    liars: makers of the dishonest providers; each takes what `Provider` takes. fills_seats: they take every seat,
    in turn, and one honest party joins as a challenger. lying_members: members of the committee that lie. referee: the
    kind that is needed to withstand it, if not every kind does.
    """

    name: str
    text: str
    liars: tuple[Callable[..., Provider], ...]
    fills_seats: bool = False
    lying_members: int = 0
    referee: RefereeKind | None = None


def _works(*makers: Callable[..., Work]) -> tuple[Callable[..., Provider], ...]:
    return tuple(partial(Provider, make_work=maker) for maker in makers)


def _silent(level: Level) -> tuple[Callable[..., Provider], ...]:
    return (partial(SilentAt, level=level),)


def _late_flip(job: Job, threads: int = 1) -> Work:
    return FlipBit(job, threads, step=job.steps - 1)


CHEATS: Mapping[str, Cheat] = {
    cheat.name: cheat
    for cheat in (
        Cheat("flip-bit", "flips one bit of one operator's output at one step", _works(FlipBit)),
        Cheat("skip-step", "skips a step", _works(SkipStep)),
        Cheat("wrong-batch", "trains on another batch", _works(WrongBatch)),
        Cheat("learning-rate", "uses another learning rate", _works(WrongLearningRate)),
        Cheat("torch-order", "computes in another floating-point order", _works(PlainTorchOrder)),
        Cheat("random-root", "computes nothing and claims random roots", _works(RandomRoot)),
        Cheat("copy-commitment", "copies another provider's commitment", (CopyCommitment,)),
        Cheat("never-reveal", "commits and never reveals", (NeverReveal,)),
        Cheat("silent-checkpoints", "goes silent at the checkpoints", _silent(Level.CHECKPOINTS)),
        Cheat("silent-steps", "goes silent at the steps", _silent(Level.STEPS)),
        Cheat("silent-operators", "goes silent at the operators", _silent(Level.OPERATORS)),
        Cheat("garbage-subtree", "posts a tree whose inside is garbage", _works(GarbageSubtree)),
        Cheat("garbage-padding", "hides garbage in the padding of its claim", _works(GarbagePadding)),
        Cheat("copy-padding", "copies every real leaf but not the padding", _works(CopyAllButPadding)),
        Cheat("hash-node", "lies about a hash node", _works(LyingHashNode)),
        Cheat("refuse-data", "lies and serves no data", (RefuseData,)),
        Cheat(
            "withhold-children", "posts without the children that spare the other side's opening", (WithholdsChildren,)
        ),
        Cheat("wrong-children", "posts with children that are not its tree's", (WrongChildren,)),
        Cheat("sybils", "fills every seat with one lie; a challenger must win", _works(FlipBit), fills_seats=True),
        Cheat(
            "turncoat",
            "fills the seats with a lie and with the honest claim, whose holder lets itself be beaten",
            (*_works(FlipBit), Turncoat),
            fills_seats=True,
        ),
        Cheat("two-liars", "two liars with one wrong root", _works(FlipBit, FlipBit)),
        Cheat("two-lies", "two liars with different wrong roots", _works(FlipBit, _late_flip)),
        Cheat("lying-referee", "a liar, and a minority of the committee with it", _works(FlipBit), lying_members=1),
        Cheat(
            "lying-committee",
            "a liar, and a majority of the committee with it; an appeal to the chain must win",
            _works(FlipBit),
            lying_members=2,
            referee=RefereeKind.APPEAL,
        ),
    )
}


# -------------------------------------------------------------------------------------------------------- Small things


class PatchedTree(Tree):
    """A tree some of whose nodes are replaced: what stands above them is hashed anew, what stands below them is noise
    that does not hash to them."""

    __slots__ = ("_base", "_patches")

    def __init__(self, base: Tree, patches: Mapping[tuple[int, int], bytes]) -> None:
        """patches: node by (level, index)."""
        self._base, self._patches = base, patches
        self.count, self.height = base.count, base.height

    def node(self, level: int, index: int) -> bytes:
        patched = self._patches.get((level, index))
        if patched is not None:
            return patched
        if any(at < level and i >> level - at == index for at, i in self._patches):
            return hash_pair(self.node(level - 1, 2 * index), self.node(level - 1, 2 * index + 1))
        if any(at > level and index >> at - level == i for at, i in self._patches):
            return noise(f"below {level} {index}")
        return self._base.node(level, index)


def side_in(player: Provider, state: ChainState, match_id: int) -> Side | None:
    """The side that a player plays in a match."""
    match = state.matches[match_id]
    index = state.tasks[match.task_id].index_of(player.address)
    return None if index is None else match.side_of(index)


def noise(seed: str) -> bytes:
    """32 bytes that look random and are the same every time: a liar has to stand by what it said."""
    return hashlib.sha256(seed.encode()).digest()


def flip_bit(array: Array, element: int, bit: int) -> None:
    """Flips one bit (0 is the lowest) of an element (row-major) of a C-contiguous little-endian array, in place."""
    data = array.reshape(-1)[element : element + 1].view(np.uint8)
    data[bit // 8] ^= np.uint8(1 << bit % 8)


def last_matmul(program: Program) -> int:
    found = [i for i, node in enumerate(program.nodes) if node.op == "matmul"]
    return found[-1] if found else len(program.nodes) - 1


def _refused() -> MissingData:
    return MissingData("this actor serves nothing", cure="Ask another source")
