"""Compiles a program for its result: kernel calls in order, and where in memory every tensor lies.

Node outputs live in one arena; an output's place is free again after its last reader, an elementwise operator takes
over the place of an input that dies in it, and what becomes a slot's new value is written straight into the slot, as is
what it is computed from in place. The state's own buffers may be given for the new state (donation): nothing writes a
slot before its old value is read.
The right operand of a product that never changes can be packed once instead of in each run, with the same bits.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from repops import _kernels
from repops.chains import CHAIN, alike, find_chains
from repops.dtypes import DType
from repops.fuse import find_groups
from repops.graph.ir import Input, Program, Ref, RefKind, Shape, element_count
from repops.ops.table import OPERATORS

_CONSTANT, _ARENA, _NEW_STATE = int(RefKind.CONSTANT), 3, 4
_ALIGNMENT = 64
# A copy is a cat of one: the only operator that copies any dtype and shape.
_COPY = "cat"
_PACK, _PACKED_MATMUL = "matmul_pack", "matmul_packed"
# Rows of a product for which its right operand is packed once: fewer take kernels that need no packing; to more of them
# packing adds less than 3 %. And the columns that it has at least: fewer may be computed in transposed form.
_PACKED_ROWS, _PACKED_COLUMNS = range(4, 257), 16

# (place, index or byte offset, dtype code, shape); places as in _kernels.Plan
Operand = tuple[int, int, int, list[int]]
KernelCall = tuple[str, list[int], list[int], list[Operand], list[Operand], bool]


@dataclass
class _Arena:
    """Byte ranges by first fit. `size` is the most that was ever in use."""

    size: int = 0
    _free: list[tuple[int, int]] = field(default_factory=list)  # (start, end), ascending, not touching

    def take(self, length: int) -> int:
        """Start of a free range."""
        for i, (start, end) in enumerate(self._free):
            if end - start >= length:
                self._free[i : i + 1] = [(start + length, end)] if end - start > length else []
                return start
        start = self.size
        if self._free and self._free[-1][1] == self.size:
            start = self._free.pop()[0]
        self.size = start + length
        return start

    def give(self, start: int, length: int) -> None:
        """Frees a range that was taken."""
        if not length:
            return
        insort(self._free, (start, start + length))
        i = self._free.index((start, start + length))
        if i + 1 < len(self._free) and self._free[i + 1][0] == self._free[i][1]:
            self._free[i : i + 2] = [(self._free[i][0], self._free[i + 1][1])]
        if i and self._free[i - 1][1] == self._free[i][0]:
            self._free[i - 1 : i + 1] = [(self._free[i - 1][0], self._free[i][1])]


@dataclass(frozen=True, slots=True)
class _Unit:
    """What one call computes: a node, or a group of nodes at once."""

    op: str
    params: tuple[int, ...]
    literals: tuple[int, ...]
    inputs: tuple[Input, ...]
    outputs: tuple[int, ...]
    shape: Shape | None  # of the outputs, if the call sees another than the nodes'
    over: Mapping[int, frozenset[Ref]]  # for an output the inputs whose memory it may take


class Compiler:
    """Lays out one checked program: `calls`, `arena_bytes`, `written` (the slots that a call writes).

    fused: names of the fused kernels that may be used. frozen: state slots and constants that never change; the calls
    read `packed` copies of some, by dtype and shape, which lie after the program's constants and are made by
    `packing`.
    """

    def __init__(self, program: Program, fused: Iterable[str] = (), frozen: Collection[Ref] = ()) -> None:
        self.program = program
        self.calls: list[KernelCall] = []
        self.written: set[int] = set()
        self.packed: list[tuple[DType, Shape]] = []
        self._packing: list[KernelCall] = []
        self._packed_as: dict[tuple[Input, tuple[int, ...]], Operand] = {}
        fused = set(fused)
        self._frozen = frozenset(frozen) if {_PACK, _PACKED_MATMUL} <= fused else frozenset()
        self._units = _units(program, fused)
        self._last = self._last_readers()
        self._arena = _Arena()
        self._places: dict[Ref, tuple[int, int]] = {}
        self._aside: dict[Ref, int] = {}
        self._targets = self._find_targets()
        self._copy_early()
        for position, unit in enumerate(self._units):
            self._compile(position, unit)
        self._copy_late()

    @property
    def arena_bytes(self) -> int:
        """Bytes of the arena."""
        return self._arena.size

    def plan(self, isa: str | None, *, keep: bool = True) -> _kernels.Plan:
        """The plan for an instruction set. keep: memory for the arena stays between runs."""
        return _kernels.Plan(self.calls, self.arena_bytes, isa, keep)

    def packing(self, isa: str | None) -> _kernels.Plan:
        """The plan that packs: reads the frozen slots and constants, writes `packed` as its new state."""
        return _kernels.Plan(self._packing, 0, isa)

    def _last_readers(self) -> dict[Ref, int]:
        """For each ref the last unit that reads it; the number of units if a slot is updated from it."""
        last = {item.ref: position for position, unit in enumerate(self._units) for item in unit.inputs}
        updates = (slot.update for slot in self.program.slots)
        return last | {ref: len(self._units) for ref in updates if ref.kind is RefKind.NODE}

    def _find_targets(self) -> dict[int, int]:
        """Node index -> slot, for updates that may be written while they are computed, even over the old value.

        And for the values that such an update takes over, or that these take over in turn: each ends where the next
        begins.
        """
        positions = {index: position for position, unit in enumerate(self._units) for index in unit.outputs}
        targets: dict[int, int] = {}
        for i, slot in enumerate(self.program.slots):
            update = slot.update.index if slot.update.kind is RefKind.NODE else None
            if update is not None and update not in targets and self._may_write(i, update, positions[update]):
                targets[update] = i
        for update, i in list(targets.items()):
            index = self._earlier(i, update, positions, targets)
            while index is not None:
                targets[index] = i
                index = self._earlier(i, index, positions, targets)
        return targets

    def _may_write(self, slot: int, index: int, position: int) -> bool:
        """Whether a node may be written into a slot: nobody reads the old value later, or in this call elsewhere."""
        old = Ref.state(slot)
        last = self._last.get(old, -1)
        return last < position or (last == position and old in self._units[position].over.get(index, ()))

    def _earlier(self, slot: int, index: int, positions: Mapping[int, int], targets: Collection[int]) -> int | None:
        """The input, if any, that a node in a slot takes over there: the one that lies in memory longest."""
        position = positions[index]
        over = {ref.index for ref in self._units[position].over.get(index, ()) if ref.kind is RefKind.NODE}
        fits = [
            (positions[i], i)
            for i in over.difference(targets)
            if self._last[Ref.node(i)] == position and self._may_write(slot, i, positions[i])
        ]
        return min(fits)[1] if fits else None

    def _compile(self, position: int, unit: _Unit) -> None:
        inputs = [self._operand(x.ref, x.dtype, x.shape) for x in unit.inputs]
        op, packed = unit.op, self._packed_operand(unit)
        if packed is not None:
            op, inputs[1] = _PACKED_MATMUL, packed
        outputs = []
        for index in unit.outputs:
            node = self.program.nodes[index]
            if index in self._targets:
                self._places[Ref.node(index)] = (_NEW_STATE, self._targets[index])
                self.written.add(self._targets[index])
            else:
                self._places[Ref.node(index)] = (_ARENA, self._taken_over(position, unit, index))
            outputs.append(self._operand(Ref.node(index), node.dtype, unit.shape or node.shape))
        self.calls.append((op, list(unit.params), list(unit.literals), inputs, outputs, bool(unit.over)))
        self._free_dead(position, unit)

    def _packed_operand(self, unit: _Unit) -> Operand | None:
        """The right operand of a product as it is packed once, if it never changes and that saves time."""
        if unit.op != "matmul" or unit.inputs[1].ref not in self._frozen:
            return None
        *batch, m, n = self.program.nodes[unit.outputs[0]].shape
        _, tb, start, stop = unit.params
        if m not in _PACKED_ROWS or n < _PACKED_COLUMNS or 0 in batch or start == stop:
            return None
        right = unit.inputs[1]
        key = (right, (tb, start, stop))
        if key not in self._packed_as:
            # In whole vectors of the widest instruction set.
            shape, index = (*batch, stop - start, -(-n // 16) * 16), len(self.packed)
            source, target = self._operand(right.ref, right.dtype, right.shape), (int(right.dtype), list(shape))
            self._packing.append((_PACK, list(unit.params), [], [source], [(_NEW_STATE, index, *target)], False))
            self._packed_as[key] = (_CONSTANT, len(self.program.constants) + index, *target)
            self.packed.append((right.dtype, shape))
        return self._packed_as[key]

    def _taken_over(self, position: int, unit: _Unit, index: int) -> int:
        """The arena offset of an output: an input's, if that dies here and the unit allows it, else a free one."""
        taken = {self._places.get(Ref.node(index)) for index in unit.outputs}
        allowed = unit.over.get(index, ())
        for x in unit.inputs:
            place = self._places.get(x.ref)
            dies = place is not None and place[0] == _ARENA and self._last[x.ref] == position
            if place is not None and dies and x.ref in allowed and place not in taken:
                return place[1]
        node = self.program.nodes[index]
        return self._arena.take(_rounded(node.dtype, node.shape))

    def _free_dead(self, position: int, unit: _Unit) -> None:
        outputs = [Ref.node(index) for index in unit.outputs]
        kept = {self._places[ref] for ref in outputs if self._last.get(ref, -1) > position}
        freed: dict[int, int] = {}
        for ref in (*(x.ref for x in unit.inputs), *outputs):
            place = self._places.get(ref)
            if place is not None and place[0] == _ARENA and self._last.get(ref, -1) <= position:
                del self._places[ref]
                if place not in kept:
                    freed[place[1]] = _rounded(*self.program.referent(ref))
        for start, length in freed.items():
            self._arena.give(start, length)

    def _copy_early(self) -> None:
        """Old values that become the new value of another slot are put aside before anything is written."""
        moved = {s.update for i, s in enumerate(self.program.slots) if s.update.kind is RefKind.STATE}
        unchanged = {Ref.state(i) for i, s in enumerate(self.program.slots) if s.update == Ref.state(i)}
        for ref in sorted(moved - unchanged, key=lambda r: r.index):
            dtype, shape = self.program.referent(ref)
            source = self._operand(ref, dtype, shape)
            self._aside[ref] = self._arena.take(_rounded(dtype, shape))
            self._copy(source, (_ARENA, self._aside[ref], int(dtype), [element_count(shape)]))

    def _copy_late(self) -> None:
        """Slots whose value could not be written where it was computed."""
        for i, slot in enumerate(self.program.slots):
            if i in self.written or slot.update == Ref.state(i):
                continue
            count = [element_count(slot.shape)]
            source = self._operand(slot.update, slot.dtype, slot.shape)
            if slot.update in self._aside:
                source = (_ARENA, self._aside[slot.update], int(slot.dtype), count)
            self._copy(source, (_NEW_STATE, i, int(slot.dtype), count))
            self.written.add(i)

    def _copy(self, source: Operand, target: Operand) -> None:
        flat = (*source[:3], target[3])
        self.calls.append((_COPY, [0], [], [flat], [target], False))

    def _operand(self, ref: Ref, dtype: DType, shape: Shape) -> Operand:
        place, index = self._places.get(ref, (int(ref.kind), ref.index))
        return (place, index, int(dtype), list(shape))


def _units(program: Program, fused: set[str]) -> list[_Unit]:
    """The program's calls in order: a group or chain in the place of its last node, the other nodes as they stand."""
    groups = find_groups(program, fused)
    chains = find_chains(program, groups, _kernels.pointwise()) if CHAIN in fused else []
    joined = {i for g in groups for i in g.nodes} | {i for c in chains for i in c.nodes}
    units = {g.last: _Unit(g.name, g.params, g.literals, g.inputs, g.outputs, None, g.over) for g in groups}
    units |= {c.last: _Unit(CHAIN, c.params, c.literals, c.inputs, c.outputs, c.shape, c.over) for c in chains}
    for index, node in enumerate(program.nodes):
        if index not in joined:
            over = (
                {index: frozenset(x.ref for x in node.inputs if alike(x, node))} if OPERATORS[node.op].in_place else {}
            )
            units[index] = _Unit(node.op, node.params, node.literals, node.inputs, (index,), None, over)
    return [units[index] for index in sorted(units)]


def last_uses(program: Program) -> dict[Ref, int]:
    """For each ref the last node that reads it; the number of nodes if a slot is updated from it."""
    last: dict[Ref, int] = {}
    for index, node in enumerate(program.nodes):
        for item in node.inputs:
            last[item.ref] = index
    for slot in program.slots:
        if slot.update.kind is RefKind.NODE:
            last[slot.update] = len(program.nodes)
    return last


def _rounded(dtype: DType, shape: Shape) -> int:
    """Bytes of a tensor, up to the arena's alignment."""
    return -(-element_count(shape) * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
