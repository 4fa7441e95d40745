"""Programs of the reductions (docs/spec/operators.md, "Reductions").

The reduced axes are adjacent, so term i of an output element lies at base + i * inner in the space, to which all inputs
broadcast, where `inner` is the number of positions behind the reduced axes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from repops.vm.assembler import Assembler, Register
from repops.vm.functions import Function
from repops.vm.image import Trips
from repops.vm.isa import SPACE, Op
from repops.vm.programs.folds import BlockSum, link_terms, strided_sum
from repops.vm.programs.pointwise import Build, if_float

Accumulate = Callable[[Sequence[Register], Register], Register]

_MINUS_INF = 0xFF800000
_WORKING = 12  # registers that a term needs beside the literals of its exponential


@dataclass(frozen=True, slots=True)
class _Range:
    """The terms [start, stop) of the element; at: the place of the first in the space, inner: the step to the next."""

    start: Register
    stop: Register
    at: Register
    inner: Register


_axes = Trips("R", lambda node: len(node.shape))


def _range(a: Assembler) -> _Range:
    inner, reduced = a.set(1), a.set(1)
    start, stop, at = a.take(), a.take(), a.take()
    with a.scope():
        n, rank = a.param(0), a.rank(SPACE)
        first, last = a.param(1), a.param(n)
        a.param((n, 1), to=start)
        a.param((n, 2), to=stop)
        axis = a.add(last, 1)
        with a.loop(axis, rank, _axes):
            a.mul(inner, a.dim(axis, SPACE), to=inner)
        a.add(first, 0, to=axis)
        with a.loop(axis, a.add(last, 1), _axes):
            a.mul(reduced, a.dim(axis, SPACE), to=reduced)
        outer = a.div(a.element, inner)
        a.add(a.mul(a.add(a.mul(outer, reduced), start), inner), a.rem(a.element, inner), to=at)
    a.give(reduced)
    return _Range(start, stop, at, inner)


def _sum(inputs: int, prepare: Callable[[Assembler], Accumulate]) -> Build:
    """An RSUM. prepare(a), before the loop, gives accumulate(values, lane), the lane after a term."""

    def build(a: Assembler) -> None:
        r = _range(a)
        total = BlockSum(a, inputs)
        accumulate = prepare(a)

        def term(_: Register, lane: Register) -> Register:
            values = []
            for k in range(inputs):
                x = a.place(r.at, k)
                values.append(a.load(x, k, to=x))
            a.add(r.at, r.inner, to=r.at)
            return accumulate(values, lane)

        strided_sum(a, total, r.start, r.stop, link_terms, term)
        a.halt(a.narrow(total.value))

    return build


def _fold_of(a: Assembler, s: Register, combine: Callable[[Register], object]) -> None:
    """s = the carry or as it is, then combine(x) for each term of input 0, ascending."""
    r = _range(a)
    with a.when(Op.BNE, a.inputs(), a.set(1)):
        a.load(a.element, 1, to=s)
    i = a.add(r.start, 0)
    with a.loop(i, r.stop, link_terms):
        x = a.place(r.at, 0)
        combine(a.load(x, 0, to=x))
        a.add(r.at, r.inner, to=r.at)


def _amax(a: Assembler) -> None:
    m = a.literal(_MINUS_INF)
    _fold_of(a, m, lambda x: a.float2(Op.FMAX, m, x, to=m))
    a.halt(a.narrow(m))


def _plain_sum(a: Assembler) -> None:
    with if_float(a):
        _sum(1, lambda a: lambda x, lane: a.fadd(lane, x[0]))(a)
    total = a.set(0)
    _fold_of(a, total, lambda x: a.add(total, x, to=total))
    a.halt(total)


def _centered(a: Assembler) -> Accumulate:
    def accumulate(x: Sequence[Register], lane: Register) -> Register:
        d = a.fsub(x[0], x[1])
        return a.ffma(d, d, lane)

    return accumulate


def _exponential(a: Assembler) -> Accumulate:
    exp = Function(a, "exp", reserve=_WORKING)
    return lambda x, lane: a.fadd(lane, exp(a.fsub(x[0], x[1])))


PROGRAMS: dict[str, Build] = {
    "sum": _plain_sum,
    "amax": _amax,
    "sum_sq": _sum(1, lambda a: lambda x, lane: a.ffma(x[0], x[0], lane)),
    "sum_mul": _sum(2, lambda a: lambda x, lane: a.ffma(x[0], x[1], lane)),
    "sum_sq_centered": _sum(2, _centered),
    "sum_exp": _sum(2, _exponential),
    "sum_mul_normalized": _sum(4, lambda a: lambda x, lane: a.ffma(x[0], a.fmul(a.fsub(x[1], x[2]), x[3]), lane)),
}
