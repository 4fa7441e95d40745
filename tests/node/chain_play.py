"""Random play of whole tasks on the real contract: books (what an actor claims), and a driver that knows them all.

The driver is no player: it sees everybody's books and makes whatever moves are possible, in random order and at random
times. Trees are built here in a dozen lines of their own, so that nothing under test is also the oracle.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from node.chain.committee import encode_config, encode_evidence, encode_verdict, question, sign
from node.chain.contracts import Call, Verde, commitment
from node.chain.devnet import Devnet
from node.chain.sender import Sender
from node.fold import MatchState, TaskState
from node.structs import (
    NO_OPENING,
    ZERO,
    HashInput,
    Input,
    Level,
    Node,
    Opening,
    Phase,
    ProgramHeader,
    Side,
    TaskParams,
)
from repops.commit import height

HASH_CODE = keccak(text="RO-1/hash/1")


class Tree:
    """All levels of the tree over `leaves`, missing ones ZERO unless `padding` gives them."""

    def __init__(self, leaves: Sequence[bytes], h: int, padding: Sequence[bytes] = ()) -> None:
        row = [*leaves, *padding]
        row += [ZERO] * (2**h - len(row))
        self.rows = [row]
        while len(row) > 1:
            row = [keccak(row[i] + row[i + 1]) for i in range(0, len(row), 2)]
            self.rows.append(row)
        self.height = h
        self.root = row[0]

    def proof(self, index: int) -> tuple[bytes, ...]:
        return tuple(self.rows[k][(index >> k) ^ 1] for k in range(self.height))

    def below(self, h: int, position: int, m: int) -> tuple[bytes, ...]:
        """The 2^m nodes `m` levels below the node at height `h`."""
        return tuple(self.rows[h - m][position << m : (position + 1) << m])


class Lie(Enum):
    """What a book does wrong; each from its (step, node) on."""

    NONE = "none"
    OPERATOR = "operator"  # one operator's output, and all that follows from it
    HASH_NODE = "hash node"  # an inner node of the new state's tree
    PADDING = "padding"  # garbage behind the real leaves of the claim
    RANDOM = "random"  # checkpoints from nowhere, posts that fit nothing
    LAST = "last leaf"  # an operator, but posts what is right up to the last leaf: the state's root is disputed


@dataclass(frozen=True)
class Work:
    """The task's program in the small: `compute` operators, three slots (an operator's output, an unchanged slot, a
    batch tensor) and so three hash nodes; batches of two tensors."""

    seed: int
    steps: int
    interval: int
    compute: int
    batch_count: int

    @property
    def nodes(self) -> int:
        return self.compute + 3

    def word(self, *what: object) -> bytes:
        return keccak(text=repr((self.seed, *what)))

    def batch(self, t: int) -> Tree:
        which = t % self.batch_count
        return Tree([self.word("batch", which, 0), self.word("batch", which, 1)], 1)

    def data(self) -> Tree:
        return Tree([self.batch(i).root for i in range(self.batch_count)], height(self.batch_count))

    def initial_slots(self) -> list[bytes]:
        return [self.word("slot", s) for s in range(3)]

    def program(self) -> tuple[ProgramHeader, list[Node], Tree]:
        """Header, hash nodes, tree of all node leaves."""

        def ref(kind: int, index: int) -> Input:
            return Input(kind, index, 255, ())

        c = self.compute
        pairs = [(ref(3, c - 1), ref(0, 1)), (ref(1, 0), ref(4, 0)), (ref(3, c), ref(3, c + 1))]
        hashes = [Node(HASH_CODE, (), (), pair, 255, (), 0, 0) for pair in pairs]
        leaves = [self.word("operator", i) for i in range(c)] + [_node_leaf(node) for node in hashes]
        tree = Tree(leaves, height(len(leaves)))
        zero = self.word("hash of a table")
        return ProgramHeader(c, c + 3, 3, 2, 0, tree.root, zero, zero, ZERO, zero), hashes, tree


def _node_leaf(node: Node) -> bytes:
    kind = "(bytes32,int64[],uint64[],(uint8,uint32,uint8,uint64[])[],uint8,uint64[],uint8,uint8)"
    inputs = [(i.kind, i.index, i.dtype, list(i.shape)) for i in node.inputs]
    return keccak(encode([kind], [(node.code, [], [], inputs, 255, [], 0, 0)]))


class Book:
    """What one actor computes, claims and posts."""

    def __init__(self, work: Work, lie: Lie, at: tuple[int, int], seed: int) -> None:
        self.work, self.lie, self.at, self.seed = work, lie, at, seed
        self._slots = [work.initial_slots()]
        self._traces: list[list[bytes]] = []
        for t in range(work.steps):
            self._traces.append(self._step(t))

    def _step(self, t: int) -> list[bytes]:
        w, before = self.work, self._slots[-1]
        outputs = [
            w.word("lie", self.seed, t, i) if self._lies(t, i) else w.word("output", t, i) for i in range(w.compute)
        ]
        slots = [outputs[-1], before[1], w.batch(t).rows[0][0]]
        self._slots.append(slots)
        tree = [*slots, ZERO]
        for j in range(3):
            node = keccak(tree[2 * j] + tree[2 * j + 1])
            wrong = self.lie is Lie.HASH_NODE and t == self.at[0] and j == self.at[1] % 3
            tree.append(w.word("wrong hash", self.seed) if wrong else node)
        return outputs + tree[4:]

    def _lies(self, t: int, i: int) -> bool:
        if self.lie in (Lie.OPERATOR, Lie.LAST):
            return (t, i) >= self.at
        return self.lie is Lie.HASH_NODE and t > self.at[0]

    def slots(self, t: int) -> Tree:
        """The state's tree before step `t`."""
        return Tree(self._slots[t], 2)

    def state(self, t: int) -> bytes:
        """The state root after `t` steps, as this book has it."""
        return self._traces[t - 1][-1] if t else self.slots(0).root

    def claim(self) -> Tree:
        w = self.work
        n = -(-w.steps // w.interval)
        leaves = [self.state(min((i + 1) * w.interval, w.steps)) for i in range(n)]
        padding: list[bytes] = []
        if self.lie is Lie.RANDOM:
            leaves = [w.word("nowhere", self.seed, i) for i in range(n)]
        if self.lie is Lie.PADDING and n < 2 ** height(n):
            padding = [w.word("garbage", self.seed)]
        elif self.lie is Lie.PADDING:
            leaves[-1] = w.word("no room", self.seed)
        return Tree(leaves, height(n), padding)

    def segment(self, first: int, last: bytes) -> Tree:
        """The steps of the segment from step `first`, made to end in `last`, as a post must."""
        w = self.work
        n = min(w.interval, w.steps - first)
        book = Book(w, Lie.NONE, (0, 0), 0) if self.lie is Lie.LAST else self
        return self._posted([book.state(first + i + 1) for i in range(n)], last)

    def trace(self, t: int, last: bytes) -> Tree:
        """The operators of step `t`, made to end in `last`."""
        book = Book(self.work, Lie.NONE, (0, 0), 0) if self.lie is Lie.LAST else self
        return self._posted(list(book._traces[t]), last)

    def _posted(self, leaves: list[bytes], last: bytes) -> Tree:
        h = height(len(leaves))
        room = len(leaves) < 2**h
        garbage = self.lie in (Lie.LAST, Lie.RANDOM) and self.seed % 2
        return Tree([*leaves[:-1], last], h, [self.work.word("garbage", self.seed)] if garbage and room else ())


@dataclass
class Actor:
    """A provider or challenger: its name, its sender, its book, and how it behaves."""

    name: str
    sender: Sender
    book: Book
    challenger: bool
    reveals: bool
    silent: float  # probability of not answering when due


@dataclass
class Driver:
    """Plays one task to its end with everybody's books, on a random schedule."""

    rng: random.Random
    devnet: Devnet
    verde: Verde
    referee: str
    client: Sender
    actors: list[Actor]
    members: list[Sender]
    work: Work
    params: TaskParams
    honest: Book
    task_id: int = 0
    posts: dict[tuple[int, Level, Side], Tree] = field(default_factory=dict)
    verdicts: str = "honest"

    def salt(self, actor: Actor) -> bytes:
        return self.work.word("salt", actor.name)

    def call_commit(self, actor: Actor) -> Call:
        claim = actor.book.claim()
        final = claim.rows[0][-(-self.work.steps // self.work.interval) - 1]
        sealed = commitment(
            self.devnet.chain_id,
            self.verde.address,
            self.task_id,
            actor.sender.address,
            claim.root,
            final,
            self.salt(actor),
        )
        return self.verde.commit(self.task_id, sealed, bond=self.params.bond)

    def call_reveal(self, actor: Actor) -> Call:
        claim = actor.book.claim()
        n = -(-self.work.steps // self.work.interval)
        return self.verde.reveal(self.task_id, claim.root, claim.rows[0][n - 1], self.salt(actor), claim.proof(n - 1))

    def call_challenge(self, actor: Actor) -> Call:
        claim = actor.book.claim()
        n = -(-self.work.steps // self.work.interval)
        return self.verde.challenge(
            self.task_id, claim.root, claim.rows[0][n - 1], claim.proof(n - 1), bond=self.params.bond
        )

    def book(self, task: TaskState, match: MatchState, side: Side) -> Book:
        account = task.roster[match.index(side)].account
        return next(a.book for a in self.actors if a.sender.address == account)

    def tree(self, task: TaskState, match: MatchState, side: Side) -> Tree:
        """This side's tree of the current level."""
        if match.level is Level.CHECKPOINTS:
            return self.book(task, match, side).claim()
        return self.posts[match.match_id, match.level, side]

    def response(self, task: TaskState, match: MatchState) -> tuple[Actor | None, Call] | None:
        """The due side's call (with who must send it, if it matters), or the verdict."""
        side = match.turn
        match match.phase:
            case Phase.OPEN:
                m = min(task.arity_bits, match.rest)
                if self.rng.random() < 0.3:
                    return None, self.advance(task, match, match.rest)
                tree = self.tree(task, match, Side.A)
                return None, self.verde.open(match.match_id, tree.below(match.rest, 0, m), verbs=match.verbs)
            case Phase.MOVE:
                m = min(task.arity_bits, match.rest)
                return None, self.advance(task, match, match.rest if self.rng.random() < 0.3 else m)
            case Phase.POST_A | Phase.POST_B:
                book, last = self.book(task, match, side), match.at.last(side)
                tree = (book.segment if match.level is Level.STEPS else book.trace)(match.step, last)
                self.posts[match.match_id, match.level, side] = tree
                account = task.roster[match.index(side)].account
                poster = next(a for a in self.actors if a.sender.address == account)
                proof, top = tree.proof(match.at.leaves - 1), ()
                if side is Side.B and match.rest and self.rng.random() < 0.5:
                    top = tree.below(match.rest, 0, min(task.arity_bits, match.rest))
                return poster, self.verde.post(match.match_id, tree.root, proof, top, verbs=match.verbs)
            case Phase.HASH_NODE:
                call_or_none = self.hash_node(task, match)
                return None if call_or_none is None else (None, call_or_none)
            case Phase.REFEREE:
                return None, self.judge(task, match)
        raise AssertionError(match.phase)

    def advance(self, task: TaskState, match: MatchState, m: int) -> Call:
        mine, other = (self.tree(task, match, side) for side in (Side.A, Side.B))
        h = match.rest
        below = zip(mine.below(h, match.position, m), other.below(h, match.position, m), strict=True)
        index, (a, b) = next((i, pair) for i, pair in enumerate(below) if pair[0] != pair[1])
        position, rest = (match.position << m) + index, h - m
        siblings: list[bytes] = []
        for k in range(m):
            at = (position >> k) ^ 1
            if (position >> k) & 1:
                siblings.append(mine.rows[rest + k][at])
            else:
                siblings += [mine.rows[rest + k][at], other.rows[rest + k][at]]
        mover = mine if match.turn is Side.A else other
        children = mover.below(rest, position, min(task.arity_bits, rest)) if rest else ()
        pre = NO_OPENING
        if rest == 0 and 0 < position < match.at.leaves and match.level is not Level.OPERATORS:
            pre = Opening(mine.rows[0][position - 1], mine.proof(position - 1))
        return self.verde.advance(match.match_id, m, index, a, b, tuple(siblings), children, pre, verbs=match.verbs)

    def hash_node(self, task: TaskState, match: MatchState) -> Call | None:
        """The judgement of the disputed hash node; None if the agreed roots are a liar's invention, so that nobody can
        open them."""
        header, hashes, nodes = self.work.program()
        trace, p, t = self.tree(task, match, Side.A), match.position, match.step
        slots = self.honest.slots(t)
        opened = []
        node = hashes[p - self.work.compute]
        for ref in node.inputs:
            if ref.kind == 3:
                opened.append(HashInput(trace.rows[0][ref.index], trace.proof(ref.index)))
            elif ref.kind == 0:
                if slots.root != match.pre_state:
                    return None
                opened.append(HashInput(slots.rows[0][ref.index], slots.proof(ref.index)))
            elif ref.kind == 1:
                batch, data = self.work.batch(t), self.work.data()
                which = t % self.work.batch_count
                opened.append(HashInput(batch.rows[0][0], batch.proof(0), batch.root, data.proof(which)))
            else:
                opened.append(HashInput(ZERO, ()))
        return self.verde.hash_node(
            match.match_id, header, node, nodes.proof(p), opened[0], opened[1], verbs=match.verbs
        )

    def judge(self, task: TaskState, match: MatchState) -> Call:
        asked = question(self.verde.address, task, match)
        truth: bytes | None = self.work.word("output", asked.step, asked.node)
        if self.verdicts == "unavailable":
            truth = None
        elif self.verdicts == "neither":
            truth = self.work.word("neither")
        signatures = {
            member.address: sign(
                member.account, asked, chain_id=self.devnet.chain_id, referee=self.referee, output_root=truth
            )
            for member in self.members[:2]
        }
        evidence = encode_evidence(self.params.referee_config, encode_verdict(truth, signatures))
        return self.verde.judge(match.match_id, evidence, verbs=match.verbs)

    def end(self, match: MatchState) -> Call:
        """What ends a match whose time is over: a silent committee is judged without evidence."""
        if match.phase is Phase.REFEREE:
            return self.verde.judge(match.match_id, b"", verbs=match.verbs)
        return self.verde.timeout(match.match_id, verbs=match.verbs)


def random_work(rng: random.Random) -> Work:
    steps = rng.randint(1, 9)
    return Work(rng.getrandbits(32), steps, rng.randint(1, steps), rng.randint(1, 9), rng.randint(1, 3))


def random_params(rng: random.Random, work: Work, referee: str, members: Sequence[str], seats: int) -> TaskParams:
    header, _, _ = work.program()
    return TaskParams(
        program=header,
        initial_state_root=Tree(work.initial_slots(), 2).root,
        data_root=work.data().root,
        batch_count=work.batch_count,
        steps=work.steps,
        interval=work.interval,
        seats=seats,
        providers=(),
        arity_bits=rng.randint(1, 4),
        reward=10**15,
        bond=10**16,
        verb_fee=10**12,
        bounty=10**15,
        holdback_bps=rng.choice([0, 1, 2_500, 10_000]),
        commit_window=100,
        reveal_window=100,
        challenge_window=100,
        build_window=rng.randint(20, 60),
        allowance=rng.randint(20, 60),
        grace=rng.randint(0, 10),
        referee_window=40,
        delivery_window=200,
        referee=referee,
        referee_config=encode_config(2, members),
    )


def random_book(rng: random.Random, work: Work, lies: Sequence[tuple[Lie, tuple[int, int], int]]) -> Book:
    """An honest book, one of the liars' (so that several share a claim), or a new lie."""
    if rng.random() < 0.4:
        return Book(work, Lie.NONE, (0, 0), 0)
    lie, at, seed = rng.choice(lies)
    return Book(work, lie, at, seed)


def named(params: TaskParams, providers: Sequence[str]) -> TaskParams:
    return replace(params, providers=tuple(providers))
