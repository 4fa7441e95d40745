"""What both sides of a match hold whose trees are far too large to build.

A tree exists along the path to its first difference only: every other node is derived from its place, the same for both
sides left of the difference, another for each side right of it. That is all that a match ever looks at, so 2^20 steps
cost no more than two. What the contracts execute is real: a load in the longest dot product that one node may hold, by
the RepVM program of `matmul`, from a tile that is there.

`sparse_play.py` plays such a match on the real contracts, `gas.py` writes down what it costs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from eth_abi.abi import encode

from node.chain.abi import to_abi
from node.structs import NO_OPENING, ZERO, HashInput, Input, Node, Opening, ProgramHeader, RefereeKind, Side, Witness
from node.witness import needed, node_struct
from repops import graph
from repops.commit import TILE_BYTES, Divergence, Tree, divergence_between, hash_pair, height, keccak256
from repops.dtypes import DType
from repops.graph.encoding import HASH_CODE, NODE_ABI, Header
from repops.graph.ir import Ref, RefKind
from repops.vm import NodeRun
from repops.vm.image import WORDS_PER_LEAF
from repops.vm.isa import Instruction, Op
from repops.vm.machine import State

ITEM = 4  # bytes of an f32
TERMS = 1 << 14  # of a dot product in one node, the most that there may be


def word(*what: object) -> bytes:
    """A hash that stands for something that nobody looks into."""
    return keccak256(repr(what).encode())


class SparseTree(Tree):
    """A full tree of which only some leaves can be proven: the given ones, the last one, and `at` with the one before.

    at: the first leaf at which the two sides' trees differ. All else is derived from its place: a leaf, and a node with
    none of those leaves below, if it is a child that a move of `bits` levels publishes. What ends left of `at` is
    derived from `name` alone, the rest from `side` too.
    """

    __slots__ = ("_bits", "_known", "_name", "_points", "_side", "at")

    def __init__(
        self, name: str, tall: int, at: int, leaves: Mapping[int, bytes], side: Side = Side.A, bits: int = 1
    ) -> None:
        self.height, self.count, self.at = tall, 1 << tall, at
        self._name, self._side, self._bits = name, side, bits
        self._known = {(0, leaf): value for leaf, value in leaves.items()}
        self._points = {*leaves, at, max(at - 1, 0), self.count - 1}

    def node(self, level: int, index: int) -> bytes:
        """See Tree."""
        self._check(level, index)
        if (level, index) not in self._known:
            self._known[level, index] = self._derive(level, index)
        return self._known[level, index]

    def _derive(self, level: int, index: int) -> bytes:
        published = (self.height - level) % self._bits == 0 and all(p >> level != index for p in self._points)
        if level == 0 or published:
            agreed = (index + 1) << level <= self.at
            return word(self._name, level, index, *([] if agreed else [self._side.name]))
        return hash_pair(self.node(level - 1, 2 * index), self.node(level - 1, 2 * index + 1))


class Pair(NamedTuple):
    """The two sides' trees of one level."""

    a: SparseTree
    b: SparseTree

    @property
    def at(self) -> int:
        """The first leaf that differs."""
        return self.a.at

    @property
    def height(self) -> int:
        return self.a.height

    def last(self, side: Side) -> tuple[bytes, ...]:
        """The proof of a side's last leaf, as its post shows it."""
        return tuple(self[side].prove(self.a.count - 1))

    def children(self, side: Side, rest: int, bits: int) -> tuple[bytes, ...]:
        """What a side publishes of its node at height `rest` on the path."""
        return tuple(self[side].children(rest, self.at >> rest, min(bits, rest))) if rest else ()

    def proof(self, rest: int, m: int) -> Divergence:
        """The divergence proof from height `rest`, `m` levels down."""
        return divergence_between(self.a, self.b, rest, self.at >> rest, m)

    def before(self) -> Opening:
        """The leaf before the difference, under A's root; nothing if there is none."""
        at = self.at - 1
        return Opening(self.a.leaf(at), tuple(self.a.prove(at))) if at >= 0 else NO_OPENING


@dataclass(frozen=True)
class Scale:
    """How large a match is. All counts are powers of two.

    interval: steps between checkpoints. nodes: of the program, with the hash nodes of `slots` slots. elements: of the
    disputed output, an f32 square, whose elements are dot products of `terms` terms. path: "even": the sides part where
    half of the ways go right; "left": where all but the first go left, the dearest proof that there is. vm_height: of
    a trace, if it is more than the operator's. hash_node: not an operator is disputed but a hash node.
    """

    steps: int
    interval: int
    nodes: int
    slots: int
    elements: int
    arity_bits: int
    referee: RefereeKind
    terms: int = TERMS
    path: str = "even"
    vm_height: int = 0
    hash_node: bool = False
    honest: Side = Side.A

    @property
    def compute_nodes(self) -> int:
        return self.nodes - (1 << max(1, height(self.slots))) + 1

    def part(self, tall: int) -> int:
        """Where the sides part in a tree of this height."""
        return (1 << tall) // 2 if self.path == "left" else ((1 << tall) - 1) // 3


class Dispute:
    """Both sides' trees of one match, from the disputed instruction up to the claims, each bound to the one below."""

    def __init__(self, scale: Scale) -> None:
        self.scale = scale

    def _pair(self, name: str, tall: int, at: int, leaves: Callable[[Side], Mapping[int, bytes]]) -> Pair:
        """leaves: those that a side's tree is given."""
        return Pair(*(SparseTree(name, tall, at, leaves(side), side, self.scale.arity_bits) for side in Side))

    # -- the operator and its run --------------------------------------------------------------------------------------

    @cached_property
    def position(self) -> int:
        """Index of the disputed node."""
        return self.scale.nodes - 2 if self.scale.hash_node else self.scale.part(height(self.scale.nodes))

    @cached_property
    def source(self) -> Ref:
        """What the disputed load reads: a batch's tensor or an earlier node's output, whichever has the longer
        proof."""
        nodes_longer = height(self.scale.nodes) > height(self.scale.steps) + 1
        return Ref.node(self.position - 1) if nodes_longer and self.position else Ref.batch(0)

    @cached_property
    def node(self) -> graph.ir.Node:
        """The disputed operator."""
        edge, terms = 1 << height(self.scale.elements) // 2, self.scale.terms
        rows = self.scale.elements // edge
        inputs = [(self.source, (rows, terms)), (Ref.state(0), (terms, edge))]
        read = tuple(graph.ir.Input(ref, DType.F32, shape) for ref, shape in inputs)
        return graph.ir.Node("matmul", (0, 0, 0, terms), (), read, DType.F32, (rows, edge))

    @cached_property
    def tile(self) -> int:
        """Index of the disputed tile of the output."""
        return self.scale.part(height(self.scale.elements * ITEM // TILE_BYTES))

    @cached_property
    def element(self) -> int:
        """The disputed element: the last of its tile, which takes longest to find."""
        return min((self.tile + 1) * TILE_BYTES // ITEM, self.scale.elements) - 1

    @cached_property
    def _found(self) -> tuple[NodeRun, int, int]:
        """The run of the element; the instruction: its first load of input 0 from where the sides should part; the
        element that it loads."""
        # Memory that is never touched costs nothing: only what one run reads comes into being.
        inputs = [np.zeros(i.shape, np.float32) for i in self.node.inputs]
        run = NodeRun(self.node, inputs)
        n: int = self.scale.part(run.height)
        while (loaded := self._loads(run, n)) is None:
            n += 1
        first = loaded * ITEM // TILE_BYTES * TILE_BYTES // ITEM
        tile = inputs[0].reshape(-1)[first : first + TILE_BYTES // ITEM]
        tile[:] = np.random.default_rng(1).standard_normal(tile.size)
        return run, n, loaded

    def _loads(self, run: NodeRun, n: int) -> int | None:
        """The element of input 0 that instruction `n` loads, if it does."""
        state = State.decode(run.state(self.element, n))
        assert not state.halted, "the run has no such load: take more terms"
        instruction = Instruction.decode(run.image.words[state.pc])
        need = needed(run, state, instruction)
        return int(need[1]) if instruction.op == Op.LOAD and need is not None and need[0] == 0 else None

    @property
    def run(self) -> NodeRun:
        return self._found[0]

    @property
    def instruction(self) -> int:
        """Number of the disputed instruction in the run."""
        return self._found[1]

    @property
    def vm_height(self) -> int:
        return max(self.run.height, self.scale.vm_height)

    def value(self, side: Side) -> int:
        """What a side says that the element is."""
        truth: int = self.run.output(self.element)
        return truth if side is self.scale.honest else truth ^ 1

    # -- the trees, from the instruction upwards -----------------------------------------------------------------------

    @cached_property
    def states(self) -> Pair:
        """The element's traces."""
        n, last = self.instruction, (1 << self.vm_height) - 1
        before, after = (keccak256(self.run.state(self.element, k)) for k in (n, n + 1))

        def leaves(side: Side) -> dict[int, bytes]:
            claimed = after if side is self.scale.honest else word("another state")
            return {n - 1: before, n: claimed, last: State.halt(self.value(side)).hash}

        return self._pair("states", self.vm_height, n, leaves)

    def shown(self, side: Side) -> bytes:
        """A side's disputed tile: they differ in the one element."""
        size = min(TILE_BYTES, self.scale.elements * ITEM)
        others = np.random.default_rng(2).standard_normal(size // ITEM - 1).astype(np.float32)
        return (others.tobytes() + self.value(side).to_bytes(ITEM, "little")).ljust(TILE_BYTES, b"\0")

    @cached_property
    def tiles(self) -> Pair:
        """The disputed output."""
        tall = height(self.scale.elements * ITEM // TILE_BYTES)
        return self._pair("tiles", tall, self.tile, lambda side: {self.tile: keccak256(self.shown(side))})

    @cached_property
    def loaded(self) -> tuple[bytes, SparseTree]:
        """The tile that the instruction reads, and its tensor's tree."""
        at = self._found[2] * ITEM // TILE_BYTES
        data = self.run.surroundings.inputs[0].reshape(-1)[at * TILE_BYTES : (at + 1) * TILE_BYTES]
        tile = data.tobytes().ljust(TILE_BYTES, b"\0")
        tiles = -(-self.scale.terms * self.node.shape[0] * ITEM // TILE_BYTES)
        return tile, SparseTree("input", height(tiles), at, {at: keccak256(tile)})

    @cached_property
    def operators(self) -> Pair:
        """The traces of the step."""
        p = self.position
        if self.scale.hash_node:
            inputs = {p - 2: word("left"), p - 1: word("right")}
            outputs = [hash_pair(*inputs.values()), word("another hash")]
        else:
            inputs = {p - 1: self.loaded[1].root} if self.source.kind is RefKind.NODE else {}
            outputs = [self.tiles[side].root for side in (self.scale.honest, self.scale.honest.other)]

        def leaves(side: Side) -> dict[int, bytes]:
            return {**inputs, p: outputs[side is not self.scale.honest]}

        return self._pair("operators", height(self.scale.nodes), p, leaves)

    @cached_property
    def steps(self) -> Pair:
        """The steps of the disputed segment; the disputed one ends in the last leaf of its trace."""
        tall = height(self.scale.interval)
        at = self.scale.part(tall)
        return self._pair("steps", tall, at, lambda side: {at: self.operators[side].leaf(self.scale.nodes - 1)})

    @cached_property
    def claims(self) -> Pair:
        """The claims; the disputed checkpoint is the segment's last step."""
        tall = height(self.scale.steps // self.scale.interval)
        at = self.scale.part(tall)
        return self._pair("claims", tall, at, lambda side: {at: self.steps[side].leaf(self.scale.interval - 1)})

    @property
    def step(self) -> int:
        """The disputed step."""
        return self.claims.at * self.scale.interval + self.steps.at

    @cached_property
    def batch(self) -> Tree:
        """The disputed step's batch, of two tensors."""
        return Tree([self.loaded[1].root, word("labels")])

    @cached_property
    def data(self) -> SparseTree:
        """A batch for each step."""
        return SparseTree("data", height(self.scale.steps), self.step, {self.step: self.batch.root})

    # -- the program ---------------------------------------------------------------------------------------------------

    @cached_property
    def struct(self) -> Node:
        """The disputed node as the contract takes it."""
        if not self.scale.hash_node:
            return replace(node_struct(self.node), vm_height=self.vm_height)
        inputs = tuple(Input(RefKind.NODE, self.position - k, DType.ROOT, ()) for k in (2, 1))
        return Node(HASH_CODE, (), (), inputs, DType.ROOT, (), 0, 0)

    @cached_property
    def _nodes(self) -> SparseTree:
        leaf = keccak256(encode([NODE_ABI], [to_abi(self.struct)]))
        return SparseTree("program", height(self.scale.nodes), self.position, {self.position: leaf})

    @property
    def node_proof(self) -> tuple[bytes, ...]:
        """The disputed node's siblings in the program."""
        return tuple(self._nodes.prove(self.position))

    @cached_property
    def header(self) -> ProgramHeader:
        """The program in short."""
        scale = self.scale
        counts = scale.compute_nodes, scale.nodes, scale.slots, self.batch.count, 0
        return ProgramHeader(*counts, self._nodes.root, word("slots"), word("batch"), ZERO, word("no constants"))

    @property
    def program_root(self) -> bytes:
        return Header(*astuple(self.header)).root

    # -- what the contracts execute ------------------------------------------------------------------------------------

    def hash_inputs(self) -> tuple[HashInput, HashInput]:
        """What a disputed hash node hashes."""
        trace = self.operators.a
        left, right = (HashInput(trace.leaf(k), tuple(trace.prove(k))) for k in (self.position - 2, self.position - 1))
        return left, right

    def witness(self) -> Witness:
        """What the disputed instruction is executed from."""
        state, image = self.run.state(self.element, self.instruction), self.run.image
        four = State.decode(state).pc // WORDS_PER_LEAF
        tile, tensor = self.loaded
        if self.source.kind is RefKind.NODE:
            at = self.source.index
            opened = HashInput(self.operators.a.leaf(at), tuple(self.operators.a.prove(at)))
        else:
            proofs = tuple(self.batch.prove(0)), self.batch.root, tuple(self.data.prove(self.step))
            opened = HashInput(self.batch.leaf(0), *proofs)
        return Witness(
            state=state,
            words=len(image.words),
            code_root=image.tree.root,
            instructions=image.leaves[four],
            instructions_proof=tuple(image.tree.prove(four)),
            input=opened,
            tile=tile,
            tile_proof=tuple(tensor.prove(tensor.at)),
            constants=ZERO,
            constants_proof=(),
        )
