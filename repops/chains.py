"""Finds chains: pointwise nodes over the same elements, which one call evaluates block by block.

What only the chain reads is never stored. A chain stands where its last node stood, so nobody outside may read one of
its nodes before that; it grows along the program until somebody does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import mul

from repops.dtypes import DType
from repops.fuse import Graph, Group
from repops.graph.ir import Input, Node, Program, Ref, RefKind, Shape, element_count

CHAIN = "chain"
# Limits of csrc/kernels/chain.h, and a rank that a tensor may have.
_MAX_NODES, _MAX_INPUTS, _MAX_REGISTERS, _MAX_RANK = 64, 16, 48, 8

# Lengths from the innermost axis outwards, each with whether the tensor runs along it (or is broadcast).
_Runs = tuple[tuple[int, bool], ...]


@dataclass(frozen=True, slots=True)
class Chain:
    """One call of the kernel "chain".

    nodes: ascending. shape: the elements, with as few axes as the inputs allow; inputs broadcast to it. outputs: the
    nodes that others read. over: for each output the inputs whose memory it may take: none is read after it is written.
    """

    nodes: tuple[int, ...]
    shape: Shape
    inputs: tuple[Input, ...]
    outputs: tuple[int, ...]
    params: tuple[int, ...]
    literals: tuple[int, ...]
    over: Mapping[int, frozenset[Ref]]

    @property
    def last(self) -> int:
        """The node in whose place the call stands."""
        return self.nodes[-1]


def find_chains(program: Program, groups: Sequence[Group], operators: Sequence[str]) -> list[Chain]:
    """The chains of at least two nodes of a checked program, none with a node of a group.

    operators: the pointwise operators of the kernels, in their order.
    """
    codes = {name: code for code, name in enumerate(operators)}
    open_: dict[int, _Growing] = {}  # by node
    grown: dict[_Growing, None] = {}
    grouped = {index: group for group in groups for index in group.nodes}
    for index, node in enumerate(program.nodes):
        group = grouped.get(index)
        if group is not None:
            if index == group.last:
                _close(open_, (item.ref for item in group.inputs))
            continue
        count = element_count(node.shape)
        if node.op not in codes or not count:
            _close(open_, (item.ref for item in node.inputs))
            continue
        _close(open_, (item.ref for item in node.inputs if element_count(item.shape) != count))
        chain = _Growing.of(index, node)
        for item in node.inputs:
            other = open_.get(item.ref.index) if item.ref.kind is RefKind.NODE else None
            if other is None or other is chain:
                continue
            merged = chain.merged(other)
            if merged is None:
                _close(open_, [item.ref])
                continue
            del grown[other]
            chain = merged
            open_.update(dict.fromkeys(chain.nodes, chain))
        open_.update(dict.fromkeys(chain.nodes, chain))
        grown[chain] = None
    readers = Graph(program).readers
    chains = [_finished(program, chain, readers, codes) for chain in grown if len(chain.nodes) > 1]
    return [chain for chain in chains if chain.outputs]


@dataclass(eq=False, slots=True)
class _Growing:
    """A chain while it grows."""

    nodes: tuple[int, ...]
    reads: dict[tuple[Ref, _Runs], DType]
    cuts: frozenset[
        int
    ]  # counts of elements, from the innermost axis outwards, at which some input's broadcasting changes

    @staticmethod
    def of(index: int, node: Node) -> _Growing:
        reads = {(item.ref, _runs(item.shape, node.shape)): item.dtype for item in node.inputs}
        cuts = frozenset(cut for _, runs in reads for cut in _cuts(runs))
        return _Growing((index,), reads, cuts)

    def merged(self, other: _Growing) -> _Growing | None:
        """Both at once, if the kernel's limits allow it."""
        nodes = tuple(sorted(self.nodes + other.nodes))
        cuts = self.cuts | other.cuts
        inside = set(nodes)
        reads = {
            key: dtype
            for key, dtype in (other.reads | self.reads).items()
            if not (key[0].kind is RefKind.NODE and key[0].index in inside)
        }
        if len(nodes) > _MAX_NODES or len(reads) > _MAX_INPUTS or len(nodes) + len(reads) > _MAX_REGISTERS:
            return None
        if len(cuts) > _MAX_RANK or any(b % a for a, b in pairwise(sorted(cuts))):
            return None
        return _Growing(nodes, reads, cuts)


def _close(open_: dict[int, _Growing], refs: Iterable[Ref]) -> None:
    """Nothing joins the chains of these nodes any more."""
    for ref in refs:
        chain = open_.get(ref.index) if ref.kind is RefKind.NODE else None
        if chain is not None:
            for index in chain.nodes:
                del open_[index]


def _finished(program: Program, chain: _Growing, readers: Callable[[int], set[int]], codes: Mapping[str, int]) -> Chain:
    inside = set(chain.nodes)
    lengths = [b // a for a, b in pairwise(sorted({1, *chain.cuts}))] or [1]
    keys = list(chain.reads)
    outputs = tuple(i for i in chain.nodes if readers(i) - inside)
    last = {item.ref: index for index in chain.nodes for item in program.nodes[index].inputs}
    registers = _Registers(len(keys), outputs)
    params: list[int] = []
    literals: list[int] = []
    for index in chain.nodes:
        node = program.nodes[index]
        read = [
            registers.of(item.ref.index)
            if item.ref.kind is RefKind.NODE and item.ref.index in inside
            else keys.index((item.ref, _runs(item.shape, node.shape)))
            for item in node.inputs
        ]
        params += [codes[node.op], int(node.dtype), registers.take(index), len(literals), len(read), *read]
        literals += node.literals
        registers.free({index, *(item.ref.index for item in node.inputs if item.ref.kind is RefKind.NODE)}, last, index)
    inputs = tuple(Input(ref, dtype, _shape(runs, lengths)) for (ref, runs), dtype in chain.reads.items())
    over = {o: frozenset(x.ref for x in inputs if alike(x, program.nodes[o]) and last[x.ref] <= o) for o in outputs}
    return Chain(chain.nodes, tuple(reversed(lengths)), inputs, outputs, tuple(params), tuple(literals), over)


class _Registers:
    """Numbers for what a chain computes: one of its own for each output, the rest as few as will do."""

    def __init__(self, inputs: int, outputs: Sequence[int]) -> None:
        self._of = {index: inputs + k for k, index in enumerate(outputs)}
        self._outputs = frozenset(outputs)
        self._next = inputs + len(outputs)
        self._spare: list[int] = []

    def of(self, index: int) -> int:
        """The register that holds a node."""
        return self._of[index]

    def take(self, index: int) -> int:
        """A register for a node."""
        if index not in self._of:
            if not self._spare:
                self._spare.append(self._next)
                self._next += 1
            self._of[index] = self._spare.pop()
        return self._of[index]

    def free(self, nodes: Iterable[int], last: Mapping[Ref, int], now: int) -> None:
        """Gives up those of the nodes that nobody reads after the node `now`."""
        for index in nodes:
            if index in self._of and index not in self._outputs and last.get(Ref.node(index), now) <= now:
                self._spare.append(self._of.pop(index))


def alike(item: Input, node: Node) -> bool:
    """Whether an input has as many elements as a node's output, and the same dtype."""
    return item.dtype is node.dtype and element_count(item.shape) == element_count(node.shape)


def _runs(read: Shape, out: Shape) -> _Runs:
    """How a tensor read under a shape runs along or broadcasts over an output."""
    runs: list[tuple[int, bool]] = []
    for d in range(1, len(out) + 1):
        if out[-d] == 1:
            continue
        kept = d <= len(read) and read[-d] == out[-d]
        if runs and runs[-1][1] == kept:
            runs[-1] = (runs[-1][0] * out[-d], kept)
        else:
            runs.append((out[-d], kept))
    return tuple(runs)


def _cuts(runs: _Runs) -> Iterable[int]:
    return accumulate((length for length, _ in runs), mul)


def _shape(runs: _Runs, lengths: Sequence[int]) -> Shape:
    """The tensor's shape over axes of these lengths (innermost first)."""
    shape: list[int] = []
    end = covered = 1
    for length, kept in runs:
        end *= length
        while covered < end:
            axis = lengths[len(shape)]
            covered *= axis
            shape.append(axis if kept else 1)
    return tuple(reversed(shape)) or (1,)
