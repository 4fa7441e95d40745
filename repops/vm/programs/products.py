"""Programs of matmul and of the attention group (docs/spec/operators.md, "Matmul", "Attention group")."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from repops.vm.assembler import Assembler, Register
from repops.vm.functions import Function
from repops.vm.image import Trips
from repops.vm.isa import OUTPUT, Op
from repops.vm.programs.folds import BlockSum, dot, link_terms, strided_sum
from repops.vm.programs.pointwise import Build, reciprocal

_MINUS_INF = 0xFF800000
_WORKING = 12  # registers that a term needs beside the literals of its exponential


def multiply_along(
    a: Assembler, x: Register, x_step: Register | int, y: Register, y_step: Register | int
) -> Callable[[Register, Register], None]:
    """p = FMA(input 0 at x, input 1 at y, p), then x and y move on by their steps."""

    def multiply(_: Register, p: Register) -> None:
        a.ffma(a.load(x, 0), a.load(y, 1), p, to=p)
        a.add(x, x_step, to=x)
        a.add(y, y_step, to=y)

    return multiply


def _matmul(a: Assembler) -> None:
    x, x_step, y, y_step, start, stop = (a.take() for _ in range(6))
    with a.scope():
        r = a.rank()
        last, second = a.sub(r, 1), a.sub(r, 2)
        columns, rows = a.dim(last, OUTPUT), a.dim(second, OUTPUT)
        n, line = a.rem(a.element, columns), a.div(a.element, columns)
        m, batch = a.rem(line, rows), a.div(line, rows)
        ta, tb, one = a.param(0), a.param(1), a.set(1)
        a.param(2, to=start)
        a.param(3, to=stop)
        depth = a.dim(a.select(ta, second, last), 0)
        a.select(ta, rows, one, to=x_step)
        a.select(tb, one, columns, to=y_step)
        a.select(ta, one, depth, to=x)
        a.select(tb, depth, one, to=y)
        for place, i, length, step in ((x, m, rows, x_step), (y, n, columns, y_step)):
            with a.scope():
                first = a.mul(a.mul(batch, length), depth)
                a.add(first, a.add(a.mul(i, place), a.mul(start, step)), to=place)
    total = BlockSum(a, 2)
    dot(a, total, start, stop, link_terms, multiply_along(a, x, x_step, y, y_step))
    a.halt(a.narrow(total.value))


@dataclass(frozen=True, slots=True)
class _Head:
    """The element's position in an output [B, rows, columns]: first row of its head (b * rows), row, column."""

    batch: Register
    row: Register
    column: Register


def _head(a: Assembler) -> _Head:
    head = _Head(a.take(), a.take(), a.take())
    with a.scope():
        rows, columns = a.dim(1, OUTPUT), a.dim(2, OUTPUT)
        line = a.div(a.element, columns)
        a.div(line, rows, to=head.batch)
        a.rem(line, rows, to=head.row)
        a.rem(a.element, columns, to=head.column)
    return head


def _at(a: Assembler, tensor: int, batch: Register, row: Register | int, column: Register | int = 0) -> Register:
    """(batch * rows + row) * columns + column in an input [B, rows, columns]."""

    def place() -> Register:
        line = a.add(a.mul(batch, a.dim(1, tensor)), row)
        return a.add(a.mul(line, a.dim(2, tensor)), column)

    return a.value(place)


def _row_value(a: Assembler, tensor: int, batch: Register, row: Register) -> Register:
    """The element of a row in an input [B, rows, 1]."""
    at = _at(a, tensor, batch, row)
    return a.load(at, tensor, to=at)


def _masked(a: Assembler, query: Register, key: Register, value: Register) -> None:
    """Ends with `value` where causal attention does not let the query see the key."""
    with a.scope(), a.when(Op.BNE, a.param(0), a.zero), a.when(Op.BLT, query, key):
        a.halt(a.narrow(value))


def _keys(a: Assembler, query: Register) -> Register:
    """Of the keys of input 0 [B, T, S], those in [0, result) are visible to the query."""

    def visible() -> Register:
        keys = a.dim(2, 0)
        return a.select(a.param(0), a.integer(Op.MIN, a.add(query, 1), keys), keys)

    return a.value(visible)


def _queries(a: Assembler, key: Register) -> Register:
    """The first query that sees the key."""
    return a.value(lambda: a.select(a.param(0), key, a.zero))


def _axis(tensor: int, axis: int) -> Trips:
    return Trips(f"in{tensor}[{axis}]", lambda node: node.inputs[tensor].shape[axis])


def _row_product(a: Assembler, head: _Head) -> Register:
    """DOT over the last axis of row `row` of input 0 and row `column` of input 1."""
    x, y = _at(a, 0, head.batch, head.row), _at(a, 1, head.batch, head.column)
    total = BlockSum(a)
    dot(a, total, a.set(0), a.dim(2, 0), _axis(0, 2), multiply_along(a, x, 1, y, 1))
    return total.value


def _scores(a: Assembler) -> None:
    head = _head(a)
    _masked(a, head.row, head.column, a.literal(_MINUS_INF))
    a.halt(a.narrow(a.fmul(_row_product(a, head), a.node_literal(0))))


def _dp(a: Assembler) -> None:
    head = _head(a)
    _masked(a, head.row, head.column, a.zero)
    a.halt(a.narrow(_row_product(a, head)))


def _max(a: Assembler) -> None:
    head = _head(a)
    m, s, j = a.literal(_MINUS_INF), _at(a, 0, head.batch, head.row), a.set(0)
    with a.loop(j, _keys(a, head.row), _axis(0, 2)):
        a.float2(Op.FMAX, m, a.load(s, 0), to=m)
        a.add(s, 1, to=s)
    a.halt(a.narrow(m))


def _sum(a: Assembler) -> None:
    head = _head(a)
    s, m = _at(a, 0, head.batch, head.row), _row_value(a, 1, head.batch, head.row)
    stop, total = _keys(a, head.row), BlockSum(a)
    exp = Function(a, "exp", reserve=_WORKING)

    def accumulate(_: Register, lane: Register) -> Register:
        x = a.fsub(a.load(s, 0), m)
        a.add(s, 1, to=s)
        return a.fadd(lane, exp(x))

    strided_sum(a, total, a.set(0), stop, _axis(0, 2), accumulate)
    a.halt(a.narrow(total.value))


def _out(a: Assembler) -> None:
    head = _head(a)
    s, m = _at(a, 0, head.batch, head.row), _row_value(a, 1, head.batch, head.row)
    v, v_step = _at(a, 3, head.batch, 0, head.column), a.dim(2, 3)
    stop, total = _keys(a, head.row), BlockSum(a)
    exp = Function(a, "exp", reserve=_WORKING)

    def multiply(_: Register, p: Register) -> None:
        a.ffma(exp(a.fsub(a.load(s, 0), m)), a.load(v, 3), p, to=p)
        a.add(s, 1, to=s)
        a.add(v, v_step, to=v)

    dot(a, total, a.set(0), stop, _axis(0, 2), multiply)
    length = _row_value(a, 2, head.batch, head.row)
    a.halt(a.narrow(a.fmul(total.value, reciprocal(a, length))))


def _dv(a: Assembler) -> None:
    head = _head(a)
    key = head.row
    first, queries = _queries(a, key), a.dim(1, 0)
    s, s_step = _at(a, 0, head.batch, first, key), a.dim(2, 0)
    row = _at(a, 1, head.batch, first)
    do, do_step = _at(a, 3, head.batch, first, head.column), a.dim(2, 3)
    total, exp = BlockSum(a), Function(a, "exp", reserve=_WORKING)
    one = a.literal(0x3F800000)

    def multiply(_: Register, p: Register) -> None:
        power = exp(a.fsub(a.load(s, 0), a.load(row, 1)))
        a.fmul(power, a.fdiv(one, a.load(row, 2)), to=power)
        a.ffma(power, a.load(do, 3), p, to=p)
        a.add(s, s_step, to=s)
        a.add(row, 1, to=row)
        a.add(do, do_step, to=do)

    dot(a, total, first, queries, _axis(0, 1), multiply)
    a.halt(a.narrow(total.value))


def _ds(a: Assembler) -> None:
    head = _head(a)
    _masked(a, head.row, head.column, a.zero)
    at, row = _at(a, 0, head.batch, head.row, head.column), _at(a, 1, head.batch, head.row)
    power = Function(a, "exp")(a.fsub(a.load(at, 0), a.load(row, 1)))
    p = a.fmul(power, reciprocal(a, a.load(row, 2)))
    a.halt(a.narrow(a.fmul(p, a.fsub(a.load(at, 3), a.load(row, 4)))))


def _dq(a: Assembler) -> None:
    head = _head(a)
    ds, k = _at(a, 0, head.batch, head.row), _at(a, 1, head.batch, 0, head.column)
    total = BlockSum(a)
    stop = _keys(a, head.row)
    dot(a, total, a.set(0), stop, _axis(0, 2), multiply_along(a, ds, 1, k, a.dim(2, 1)))
    a.halt(a.narrow(a.fmul(total.value, a.node_literal(0))))


def _dk(a: Assembler) -> None:
    head = _head(a)
    first = _queries(a, head.row)
    ds, q = _at(a, 0, head.batch, first, head.row), _at(a, 1, head.batch, first, head.column)
    total = BlockSum(a)
    dot(a, total, first, a.dim(1, 0), _axis(0, 1), multiply_along(a, ds, a.dim(2, 0), q, a.dim(2, 1)))
    a.halt(a.narrow(a.fmul(total.value, a.node_literal(0))))


PROGRAMS: dict[str, Build] = {
    "matmul": _matmul,
    "attention_scores": _scores,
    "attention_max": _max,
    "attention_sum": _sum,
    "attention_out": _out,
    "attention_dv": _dv,
    "attention_dp": _dp,
    "attention_ds": _ds,
    "attention_dq": _dq,
    "attention_dk": _dk,
}
