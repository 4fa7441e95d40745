"""Programs of pooling (docs/spec/operators.md, "Pooling"): x [P, H, W], y [P, OH, OW]; dx is like x, dy like y."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from repops.graph.ir import Node
from repops.ops.rules import pool_reach
from repops.vm.assembler import Assembler, Register
from repops.vm.image import Trips
from repops.vm.isa import OUTPUT, Op
from repops.vm.programs.pointwise import Build
from repops.vm.programs.windows import inside, join, split

# Params: the first three for the height and then for the width; of averages, the last two have another meaning.
_TAPS, _STRIDE, _PAD, _DILATION = 0, 2, 4, 6
_COUNTS_PADDING, _DIVISOR = 6, 7

_MINUS_INF = 0xFF800000


@dataclass(frozen=True, slots=True)
class _Axis:
    """Rows (0) or columns (1) of a pooling. What every window asks for is in registers; 0 taps: adaptive."""

    a: Assembler
    number: int
    gradient: bool
    averages: bool
    size: Register  # of x
    count: Register  # of y
    taps: Register
    padding: Register  # whether it counts
    limit: Register  # the end of what counts

    @classmethod
    def of(cls, a: Assembler, number: int, gradient: bool, averages: bool) -> _Axis:
        size, count = (a.dim(1 + number, tensor) for tensor in ((OUTPUT, 0) if gradient else (0, OUTPUT)))
        taps, padding, limit = a.param(_TAPS + number), a.zero, a.zero
        if averages:
            padding = a.param(_COUNTS_PADDING)
            limit = a.value(lambda: a.add(size, a.mul(padding, a.param(_PAD + number))))
        return cls(a, number, gradient, averages, size, count, taps, padding, limit)

    def param(self, k: int) -> Register:
        return self.a.param(k + self.number)

    def dilation(self) -> Register:
        return self.a.set(1) if self.averages else self.param(_DILATION)

    def window(self, o: Register) -> tuple[Register, Register]:
        """The place where window o begins, and how many taps it has."""
        a = self.a
        begin, taps = a.take(), a.add(self.taps, 0)
        with a.scope():
            a.sub(a.mul(o, self.param(_STRIDE)), self.param(_PAD), to=begin)
            with a.when(Op.BEQ, taps, a.zero):
                product = a.mul(o, self.size)
                a.div(product, self.count, to=begin)
                end = a.add(a.add(product, self.size, to=product), (self.count, -1), to=product)
                a.sub(a.div(end, self.count, to=end), begin, to=taps)
        return begin, taps

    def extent(self, o: Register, to: Register) -> Register:
        """How much of window o counts."""
        a = self.a
        with a.scope():
            begin, taps = self.window(o)
            end = a.integer(Op.MIN, a.add(begin, taps, to=taps), self.limit, to=taps)
            within = a.integer(Op.MAX, begin, 0)
            return a.sub(end, a.select(self.padding, begin, within, to=begin), to=to)

    def windows(self, i: Register) -> tuple[Register, Register]:
        """The first of the windows that may have position i, and the one after the last."""
        a = self.a
        first, stop = a.take(), a.take()
        with a.scope():
            taps, stride, count = self.taps, self.param(_STRIDE), self.count
            padded = a.add(i, self.param(_PAD))
            a.div(padded, stride, to=stop)
            reach = a.mul(a.sub(taps, 1), self.dilation())
            a.integer(Op.MAX, a.sub(padded, reach), 0, to=first)
            a.div(a.sub(a.add(first, stride, to=first), 1, to=first), stride, to=first)
            with a.when(Op.BEQ, taps, a.zero):
                product = a.mul(i, count)
                a.div(product, self.size, to=first)
                a.div(a.add(product, (count, -1)), self.size, to=stop)
            a.integer(Op.MIN, a.add(stop, 1, to=stop), count, to=stop)
        return first, stop

    def reach(self, node: Node) -> tuple[int, int]:
        """At most how many positions a window of the node has, and how many windows a position."""
        shapes = (node.shape, node.inputs[0].shape) if self.gradient else (node.inputs[0].shape, node.shape)
        size, count = (shape[1 + self.number] for shape in shapes)
        taps, stride, dilation = (node.params[k + self.number] for k in (_TAPS, _STRIDE, _DILATION))
        return pool_reach(size, count, taps, stride, 1 if self.averages else dilation)


def _axes(a: Assembler, gradient: bool, averages: bool) -> tuple[_Axis, _Axis]:
    return _Axis.of(a, 0, gradient, averages), _Axis.of(a, 1, gradient, averages)


def _trips(rows: _Axis, columns: _Axis, kind: int) -> tuple[Trips, Trips]:
    """Passes of a loop over rows and of one over columns inside it: kind 0 over positions, 1 over windows."""
    over = "PW"[kind]
    return (
        Trips(f"{over}0", lambda n: rows.reach(n)[kind]),
        Trips(f"{over}0 * {over}1", lambda n: rows.reach(n)[kind] * columns.reach(n)[kind]),
    )


def _element(rows: _Axis, columns: _Axis) -> tuple[Register, ...]:
    """The element's plane, row and column."""
    lengths = (axis.size if axis.gradient else axis.count for axis in (rows, columns))
    return split(rows.a, rows.a.element, *lengths)


def _each_position(a: Assembler, averages: bool, body: Callable[[Register, Register], object]) -> Register:
    """body(place in x, place in its plane) over the element's window, ascending. Returns the divisor of averages."""
    rows, columns = _axes(a, False, averages)
    plane, oh, ow = _element(rows, columns)
    divisor = a.zero
    if averages:
        divisor = a.take()
        with a.scope():
            _divisor(a, a.param(_DIVISOR), rows.extent(oh, a.take()), columns.extent(ow, a.take()), divisor)
    (row, tall), (left, wide) = rows.window(oh), columns.window(ow)
    down, right = rows.dilation(), columns.dilation()
    over_rows, over_columns = _trips(rows, columns, 0)
    t = a.set(0)
    with a.loop(t, tall, over_rows):
        with inside(a, row, rows.size):
            u, column = a.set(0), a.add(left, 0)
            with a.loop(u, wide, over_columns):
                with inside(a, column, columns.size):
                    own = join(a, a.add(row, 0), (columns.size, column))
                    body(a.add(a.mul(a.mul(plane, rows.size), columns.size), own), own)
                a.add(column, right, to=column)
        a.add(row, down, to=row)
    return divisor


def _divisor(a: Assembler, fixed: Register, tall: Register, wide: Register, to: Register) -> Register:
    """What the sum of a window of these extents is divided by, as a float: a number that is fixed if that is not 0."""
    a.select(fixed, fixed, a.mul(tall, wide, to=to), to=to)
    return a.float1(Op.ITOF, to, to=to)


def _max_pool(a: Assembler) -> None:
    m = a.literal(_MINUS_INF)
    _each_position(a, False, lambda at, own: a.float2(Op.FMAX, m, a.load(at, 0), to=m))
    a.halt(a.narrow(m))


def _max_pool_index(a: Assembler) -> None:
    found, m = a.set(-1), a.set(0)

    def body(at: Register, own: Register) -> None:
        x = a.load(at, 0, to=at)
        better = a.integer(Op.OR, a.integer(Op.SLT, found, 0), a.float2(Op.FLT, m, x))
        a.integer(Op.OR, better, a.float1(Op.FNAN, x), to=better)
        a.select(better, x, m, to=m)
        a.select(better, own, found, to=found)

    _each_position(a, False, body)
    a.halt(found)


def _avg_pool(a: Assembler) -> None:
    s = a.set(0)
    divisor = _each_position(a, True, lambda at, own: a.fadd(s, a.load(at, 0), to=s))
    a.halt(a.narrow(a.fdiv(s, divisor)))


def _max_pool_grad(a: Assembler) -> None:
    rows, columns = _axes(a, True, False)
    s, plane, i, j = a.set(0), *_element(rows, columns)
    own = join(a, a.add(i, 0), (columns.size, j))
    down, right = rows.dilation(), columns.dilation()
    (oh, bottom), (first, end) = rows.windows(i), columns.windows(j)
    for place, pad in ((i, rows), (j, columns)):
        a.add(place, pad.param(_PAD), to=place)
    tall, wide = rows.param(_STRIDE), columns.param(_STRIDE)
    over_rows, over_columns = _trips(rows, columns, 1)

    def has(place: Register, o: Register, stride: Register, dilation: Register) -> AbstractContextManager[None]:
        tap = a.mul(o, stride)
        return a.when(Op.BEQ, a.rem(a.sub(place, tap, to=tap), dilation, to=tap), a.zero)

    with a.loop(oh, bottom, over_rows), has(i, oh, tall, down):
        ow = a.add(first, 0)
        with a.loop(ow, end, over_columns), has(j, ow, wide, right):
            at = join(a, a.add(plane, 0), (rows.count, oh), (columns.count, ow))
            with a.when(Op.BEQ, a.load(at, 1), own):
                a.fadd(s, a.load(at, 0, to=at), to=s)
    a.halt(a.narrow(s))


def _avg_pool_grad(a: Assembler) -> None:
    rows, columns = _axes(a, True, True)
    s, plane, i, j = a.set(0), *_element(rows, columns)
    (oh, bottom), (first, end) = rows.windows(i), columns.windows(j)
    over_rows, over_columns = _trips(rows, columns, 1)
    tall, fixed = a.take(), a.param(_DIVISOR)
    with a.loop(oh, bottom, over_rows):
        rows.extent(oh, tall)
        ow = a.add(first, 0)
        with a.loop(ow, end, over_columns):
            wide = columns.extent(ow, a.take())
            divisor = _divisor(a, fixed, tall, wide, wide)
            at = join(a, a.add(plane, 0), (rows.count, oh), (columns.count, ow))
            a.fadd(s, a.fdiv(a.load(at, 0, to=at), divisor, to=at), to=s)
    a.halt(a.narrow(s))


PROGRAMS: dict[str, Build] = {
    "max_pool": _max_pool,
    "max_pool_index": _max_pool_index,
    "max_pool_grad": _max_pool_grad,
    "avg_pool": _avg_pool,
    "avg_pool_grad": _avg_pool_grad,
}
