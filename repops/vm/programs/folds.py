"""The two orders of summation, as blocks of instructions (docs/spec/operators.md, "Blocks and folds")."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from repops.graph.ir import Node
from repops.vm.assembler import Assembler, Register
from repops.vm.image import Trips
from repops.vm.isa import Op

DOT_BLOCK = 256
SUM_BLOCK = 1024
LANES = 32


class BlockSum:
    """Adds block results in ascending order; the first is taken as it is, unless a carry precedes it."""

    def __init__(self, a: Assembler, carry_input: int | None = None) -> None:
        """carry_input: the input that is the carry, if the node has it."""
        self._a = a
        self.value, self._begun = a.set(0), a.set(0)
        if carry_input is not None:
            with a.scope(), a.when(Op.BNE, a.inputs(), a.set(carry_input)):
                a.load(a.element, carry_input, to=self.value)
                a.set(1, to=self._begun)

    def add(self, block: Register) -> None:
        """One block."""
        a = self._a
        with a.scope():
            a.select(self._begun, a.fadd(self.value, block), block, to=self.value)
        a.set(1, to=self._begun)


def _blocks(terms: Trips, size: int) -> Trips:
    """How many blocks hold so many terms, wherever the first begins."""
    return Trips(f"{terms.text} // {size} + 2", lambda node: terms.count(node) // size + 2)


@contextmanager
def _each_block(
    a: Assembler, start: Register, stop: Register, terms: Trips, size: int
) -> Iterator[tuple[Register, Register]]:
    """Goes through the blocks of [start, stop): first term and end of each, in registers that the block may change."""
    first = a.add(start, 0)
    with a.loop(first, stop, _blocks(terms, size), step=0):  # the block moves `first` to its end
        # The end: the next multiple of the size, or stop.
        end = a.integer(Op.AND, a.add(first, size), -size)
        a.integer(Op.MIN, end, stop, to=end)
        yield first, end


def dot(
    a: Assembler,
    total: BlockSum,
    start: Register,
    stop: Register,
    terms: Trips,
    multiply: Callable[[Register, Register], None],
    seen: Register | None = None,
) -> None:
    """DOT over k of [start, stop). multiply(k, p) puts p = FMA(a_k, b_k, p) and may move on its own registers.

    It is called for k ascending. seen: where not every k is visible, multiply makes it 1 at one that is.
    """
    p = a.take()
    with _each_block(a, start, stop, terms, DOT_BLOCK) as (k, end):
        a.set(0, to=p)
        if seen is None:
            with a.loop(k, end, terms):
                multiply(k, p)
            total.add(p)
        else:
            a.set(0, to=seen)
            with a.loop(k, end, terms):
                multiply(k, p)
            with a.when(Op.BNE, seen, a.zero):
                total.add(p)


def strided_sum(
    a: Assembler,
    total: BlockSum,
    start: Register,
    stop: Register,
    terms: Trips,
    accumulate: Callable[[Register, Register], Register],
) -> None:
    """RSUM over i of [start, stop). accumulate(i, lane) gives the lane after term i."""
    with _each_block(a, start, stop, terms, SUM_BLOCK) as (i, end):
        for j in range(LANES):
            a.put(a.zero, j)
        with a.loop(i, end, terms):
            at = a.integer(Op.AND, i, LANES - 1)
            a.put(accumulate(i, a.get(at)), at)
        with a.scope():
            total.add(_lane_tree(a))


def _lane_tree(a: Assembler) -> Register:
    """h = 16, 8, 4, 2, 1: lane_j += lane_(j + h). The result is lane 0."""
    x, y = a.take(), a.take()
    for h in (16, 8, 4, 2, 1):
        for j in range(h):
            a.get(j, to=x)
            a.get(j + h, to=y)
            a.fadd(x, y, to=x)
            a.put(x, j)
    return a.get(0, to=x)


def _link_terms(node: Node) -> int:
    return node.params[-1] - node.params[-2]


link_terms = Trips("T", _link_terms)
"""Terms of a link of a fold whose params end in start, stop."""
