"""Programs of data movement, indexing, running sums and generated tensors (docs/spec/operators.md, "Data movement")."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from repops.vm.assembler import Assembler, Register
from repops.vm.image import Trips
from repops.vm.isa import OUTPUT, Op
from repops.vm.programs.folds import link_terms
from repops.vm.programs.pointwise import Build

_rank = Trips("R", lambda node: len(node.shape))
_axes_twice = Trips("R * R", lambda node: len(node.shape) ** 2)
_inputs = Trips("N", lambda node: len(node.inputs))
_index_axis = Trips("in1[p0]", lambda node: node.inputs[1].shape[node.params[0]])
_output_axis = Trips("out[p0]", lambda node: node.shape[node.params[0]])


def _stride(a: Assembler, axis: Register, tensor: int) -> Register:
    """The product of the lengths behind an axis."""
    product = a.set(1)
    with a.scope():
        q = a.add(axis, 1)
        with a.loop(q, a.rank(tensor), _axes_twice):
            a.mul(product, a.dim(q, tensor), to=product)
    return product


@dataclass(frozen=True, slots=True)
class _Split:
    """The element's coordinate along an axis of the output, the index of what is before it and of what is behind it."""

    axis: Register
    before: Register
    at: Register
    behind: Register
    inner: Register  # positions behind the axis

    def place(self, a: Assembler, tensor: int | Register, at: Register) -> Register:
        """The place in a tensor that differs from the output in the axis only, at coordinate `at`."""
        line = a.mul(self.before, a.dim(self.axis, tensor))
        return a.add(a.mul(a.add(line, at), self.inner), self.behind)


def _split(a: Assembler) -> _Split:
    """By the axis that is param 0."""
    axis = a.param(0)
    inner, length = _stride(a, axis, OUTPUT), a.dim(axis, OUTPUT)
    line = a.div(a.element, inner)
    return _Split(axis, a.div(line, length), a.rem(line, length), a.rem(a.element, inner), inner)


def _outside(a: Assembler, i: Register, length: Register, otherwise: Register) -> None:
    """Ends with `otherwise` unless 0 <= i < length."""
    with a.when(Op.BLT, i, a.zero):
        a.halt(otherwise)
    with a.when(Op.BGE, i, length):
        a.halt(otherwise)


def _each_axis(a: Assembler, j: Register, rank: Register) -> AbstractContextManager[None]:
    return a.loop(j, rank, _rank)


def _permute(a: Assembler) -> None:
    rank, rest, at, j = a.rank(), a.add(a.element, 0), a.set(0), a.set(0)
    with _each_axis(a, j, rank):
        d = a.sub(a.sub(rank, 1), j)
        length = a.dim(d, OUTPUT)
        a.add(at, a.mul(a.rem(rest, length), _stride(a, a.param(d), 0)), to=at)
        a.div(rest, length, to=rest)
    a.halt(a.raw(at, 0))


def _expand(a: Assembler) -> None:
    a.halt(a.raw(a.place(a.element, 0), 0))


def _slice(a: Assembler) -> None:
    s = _split(a)
    a.halt(a.raw(s.place(a, 0, a.add(a.param(1), a.mul(s.at, a.param(2)))), 0))


def _slice_grad(a: Assembler) -> None:
    s = _split(a)
    offset, step = a.sub(s.at, a.param(1)), a.param(2)
    with a.when(Op.BNE, a.rem(offset, step), a.zero):
        a.halt(a.zero)
    i = a.div(offset, step)
    with a.when(Op.BLT, offset, a.zero):
        a.halt(a.zero)
    _outside(a, i, a.dim(s.axis, 0), a.zero)
    a.halt(a.raw(s.place(a, 0, i), 0))


def _cat(a: Assembler) -> None:
    s = _split(a)
    k, at, count = a.set(0), a.add(s.at, 0), a.inputs()
    with a.loop(k, count, _inputs):
        length = a.dim(s.axis, k)
        with a.when(Op.BLT, at, length):
            a.halt(a.raw(s.place(a, k, at), k))
        a.sub(at, length, to=at)


def _gather(a: Assembler) -> None:
    axis = a.param(0)
    i = a.load(a.element, 1)
    _outside(a, i, a.dim(axis, 0), a.zero)
    rank, rest, at, stride, j = a.rank(), a.add(a.element, 0), a.set(0), a.set(1), a.set(0)
    with _each_axis(a, j, rank):
        d = a.sub(a.sub(rank, 1), j)
        length = a.dim(d, OUTPUT)
        c = a.select(a.integer(Op.SEQ, d, axis), i, a.rem(rest, length))
        a.add(at, a.mul(c, stride), to=at)
        a.mul(stride, a.dim(d, 0), to=stride)
        a.div(rest, length, to=rest)
    a.halt(a.raw(at, 0))


def _scatter(a: Assembler) -> None:
    own = a.raw(a.element, 0)
    axis, rank, rest, j = a.param(0), a.rank(), a.add(a.element, 0), a.set(0)
    at, stride = a.set(0), a.set(1)  # in the index, where its coordinate along the axis is 0
    position, step = a.set(0), a.set(0)
    with _each_axis(a, j, rank):
        d = a.sub(a.sub(rank, 1), j)
        length, covered = a.dim(d, OUTPUT), a.dim(d, 1)
        c, on_axis = a.rem(rest, length), a.integer(Op.SEQ, d, axis)
        a.div(rest, length, to=rest)
        a.select(on_axis, c, position, to=position)
        a.select(on_axis, stride, step, to=step)
        c = a.select(on_axis, a.zero, c)
        with a.when(Op.BEQ, on_axis, a.zero), a.when(Op.BGE, c, covered):
            a.halt(own)
        a.add(at, a.mul(c, stride), to=at)
        a.mul(stride, covered, to=stride)
    i = a.set(0)
    with a.loop(i, a.dim(axis, 1), _index_axis):
        with a.when(Op.BEQ, a.load(at, 1), position):
            a.halt(a.node_literal(0))
        a.add(at, step, to=at)
    a.halt(own)


def _embedding(a: Assembler) -> None:
    width = a.dim(1, 0)
    row = a.load(a.div(a.element, width), 1)
    _outside(a, row, a.dim(0, 0), a.zero)
    a.halt(a.raw(a.add(a.mul(row, width), a.rem(a.element, width)), 0))


def _embedding_grad(a: Assembler) -> None:
    width = a.dim(1, OUTPUT)
    row, column = a.div(a.element, width), a.rem(a.element, width)
    s, t = a.set(0), a.param(0)
    with a.when(Op.BNE, a.inputs(), a.set(2)):
        a.load(a.element, 2, to=s)
    with a.loop(t, a.param(1), link_terms), a.when(Op.BEQ, a.load(t, 1), row):
        a.fadd(s, a.load(a.add(a.mul(t, width), column), 0), to=s)
    a.halt(a.narrow(s))


def _cumsum(a: Assembler) -> None:
    s = _split(a)
    total, i = a.set(0), a.set(0)
    place = s.place(a, 0, i)
    with a.loop(i, a.add(s.at, 1), _output_axis):
        a.add(total, a.load(place, 0), to=total)
        a.add(place, s.inner, to=place)
    a.halt(total)


def _iota(a: Assembler) -> None:
    a.halt(a.add(a.param(0), a.mul(a.param(1), a.element)))


def _fill(a: Assembler) -> None:
    a.halt(a.node_literal(0))


def _philox(a: Assembler) -> None:
    mask = a.integer(Op.SHR, a.set(-1), 32)

    def low(x: Register, to: Register | None = None) -> Register:
        return a.integer(Op.AND, x, mask, to)

    def high(x: Register) -> Register:
        return a.integer(Op.SHR, x, 32)

    w0 = a.value(lambda: low(a.integer(Op.SHR, a.element, 2)))
    w1 = a.value(lambda: a.integer(Op.OR, a.integer(Op.SHR, a.element, 34), a.integer(Op.SHL, a.param(0), 8)))

    def word_of(seed: int, half: Callable[[Register], Register]) -> Register:
        return a.value(lambda: half(a.load(a.zero, seed)))

    def constant(pattern: int) -> Register:
        return a.value(lambda: low(a.literal(pattern)))

    key0, key1, w2, w3 = (word_of(k, half) for k in (0, 1) for half in (low, high))
    m0, m1, step0, step1 = (constant(c) for c in (0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85))
    i, rounds = a.set(0), a.set(10)
    with a.loop(i, rounds, Trips.fixed(10)):
        p0, p1 = a.mul(m0, w0), a.mul(m1, w2)
        for product, word, key, to in ((p1, w1, key0, w0), (p0, w3, key1, w2)):
            with a.scope():
                a.integer(Op.XOR, a.integer(Op.XOR, high(product), word), key, to=to)
        low(p1, to=w1)
        low(p0, to=w3)
        for key, step_ in ((key0, step0), (key1, step1)):
            low(a.add(key, step_, to=key), to=key)
    word = a.integer(Op.AND, a.element, 3)
    chosen = a.select(
        a.integer(Op.SLT, word, 2),
        a.select(word, w1, w0),
        a.select(a.integer(Op.SEQ, word, 2), w2, w3),
    )
    number = a.float1(Op.ITOF, a.integer(Op.SHR, chosen, 8))
    a.halt(a.narrow(a.fmul(number, a.literal(0x33800000))))  # 2^-24


PROGRAMS: dict[str, Build] = {
    "permute": _permute,
    "expand": _expand,
    "slice": _slice,
    "slice_grad": _slice_grad,
    "cat": _cat,
    "gather": _gather,
    "scatter": _scatter,
    "embedding": _embedding,
    "embedding_grad": _embedding_grad,
    "cumsum": _cumsum,
    "iota": _iota,
    "fill": _fill,
    "philox": _philox,
}
