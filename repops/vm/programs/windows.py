"""Programs of convolution (docs/spec/operators.md, "Convolution").

x [N, G C, H, W], w [G O, C, KH, KW], y [N, G O, OH, OW]; dx and dw are like x and w, dy like y.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from repops.vm.assembler import Assembler, Register
from repops.vm.isa import OUTPUT, Op
from repops.vm.programs.folds import BlockSum, dot, link_terms
from repops.vm.programs.pointwise import Build

# Params: the groups, these three for the height and then for the width, the range of terms.
_GROUPS, _STRIDE, _PAD, _DILATION, _START, _STOP = 0, 1, 3, 5, 7, 8

Term = Callable[
    [Register, Callable[[Register, Register], None]], None
]  # (k, see): see(places in the inputs) if visible


def _convolution(prepare: Callable[[Assembler], Term]) -> Build:
    """A DOT. prepare(a), before the loop, gives what goes into it."""

    def build(a: Assembler) -> None:
        term = prepare(a)
        total, seen = BlockSum(a, 2), a.take()

        def multiply(k: Register, p: Register) -> None:
            def see(x: Register, y: Register) -> None:
                a.ffma(a.load(x, 0, to=x), a.load(y, 1, to=y), p, to=p)
                a.set(1, to=seen)

            term(k, see)

        dot(a, total, a.param(_START), a.param(_STOP), link_terms, multiply, seen)
        a.halt(a.narrow(total.value))

    return build


def split(a: Assembler, index: Register, *lengths: Register) -> tuple[Register, ...]:
    """A row-major index as one before all axes of these lengths, then one along each."""
    rest = a.add(index, 0)
    along: list[Register] = []
    for length in reversed(lengths):
        along.insert(0, a.rem(rest, length))
        a.div(rest, length, to=rest)
    return (rest, *along)


def join(a: Assembler, at: Register, *along: tuple[Register, Register]) -> Register:
    """Makes `at`, an index before some axes, the row-major index; along: (length, index) for each axis."""
    for length, i in along:
        a.add(a.mul(at, length, to=at), i, to=at)
    return at


def _element(a: Assembler) -> tuple[Register, ...]:
    """The element's indices along the four axes of the output."""
    return split(a, a.element, *(a.dim(axis, OUTPUT) for axis in (1, 2, 3)))


def _pair(a: Assembler, param: int) -> tuple[Register, Register]:
    """Of the height and of the width."""
    return a.param(param), a.param(param + 1)


def _plane(a: Assembler, tensor: int) -> tuple[Register, Register]:
    """The lengths of the last two axes."""
    return a.dim(2, tensor), a.dim(3, tensor)


def _filters(a: Assembler, weight: int) -> Register:
    """O, the filters of a group."""
    return a.div(a.dim(0, weight), a.param(_GROUPS))


@contextmanager
def inside(a: Assembler, i: Register, length: Register) -> Iterator[None]:
    """The block runs if 0 <= i < length."""
    with a.when(Op.BGE, i, a.zero), a.when(Op.BLT, i, length):
        yield


def _conv2d(a: Assembler) -> Term:
    top, left, maps, filters = (a.take() for _ in range(4))  # the window's corner; first map of x; place in w
    with a.scope():
        image, o, oh, ow = _element(a)
        for at, i, stride, pad in zip((top, left), (oh, ow), _pair(a, _STRIDE), _pair(a, _PAD), strict=True):
            a.sub(a.mul(i, stride), pad, to=at)
        channels = a.dim(1, 1)
        group = a.div(o, _filters(a, 1))
        a.mul(a.add(a.mul(image, a.param(_GROUPS)), group), channels, to=maps)
        a.mul(a.mul(a.mul(o, channels), a.dim(2, 1)), a.dim(3, 1), to=filters)
    (h, w), (kh, kw), (dh, dw) = _plane(a, 0), _plane(a, 1), _pair(a, _DILATION)

    def term(k: Register, see: Callable[[Register, Register], None]) -> None:
        c, i, j = split(a, k, kh, kw)
        row, column = a.add(a.mul(i, dh), top), a.add(a.mul(j, dw), left)
        with inside(a, row, h), inside(a, column, w):
            see(join(a, a.add(maps, c), (h, row), (w, column)), a.add(filters, k))

    return term


def _conv2d_dx(a: Assembler) -> Term:
    bottom, right, maps, filters, c = (
        a.take() for _ in range(5)
    )  # the place under padding; first map of dy; filter of w
    with a.scope():
        image, channel, ih, iw = _element(a)
        for at, i, pad in zip((bottom, right), (ih, iw), _pair(a, _PAD), strict=True):
            a.add(i, pad, to=at)
        channels = a.dim(1, 1)
        a.mul(a.div(channel, channels), _filters(a, 1), to=filters)
        a.add(a.mul(image, a.dim(1, 0)), filters, to=maps)
        a.rem(channel, channels, to=c)
    (oh, ow), (kh, kw), (sh, sw) = _plane(a, 0), _plane(a, 1), _pair(a, _STRIDE)

    def term(k: Register, see: Callable[[Register, Register], None]) -> None:
        o, i, j = split(a, k, kh, kw)
        dh, dw = _pair(a, _DILATION)
        row, column = a.sub(bottom, a.mul(i, dh, to=dh), to=dh), a.sub(right, a.mul(j, dw, to=dw), to=dw)
        with a.when(Op.BEQ, a.rem(row, sh), a.zero), a.when(Op.BEQ, a.rem(column, sw), a.zero):
            a.div(row, sh, to=row)
            a.div(column, sw, to=column)
            with inside(a, row, oh), inside(a, column, ow):
                y = join(a, a.add(maps, o), (oh, row), (ow, column))
                see(y, join(a, a.add(filters, o, to=o), (a.dim(1, 1), c), (kh, i), (kw, j)))

    return term


def _conv2d_dw(a: Assembler) -> Term:
    top, left, o, channel = (a.take() for _ in range(4))  # the tap's place in the first window
    with a.scope():
        filter_, c, kh, kw = _element(a)
        for at, i, dilation, pad in zip((top, left), (kh, kw), _pair(a, _DILATION), _pair(a, _PAD), strict=True):
            a.sub(a.mul(i, dilation), pad, to=at)
        a.add(filter_, 0, to=o)
        a.add(a.mul(a.div(o, _filters(a, OUTPUT)), a.dim(1, OUTPUT)), c, to=channel)
    (oh, ow), (h, w), (sh, sw) = _plane(a, 0), _plane(a, 1), _pair(a, _STRIDE)

    def term(k: Register, see: Callable[[Register, Register], None]) -> None:
        image, i, j = split(a, k, oh, ow)
        row, column = a.add(a.mul(i, sh), top), a.add(a.mul(j, sw), left)
        with inside(a, row, h), inside(a, column, w):
            y = join(a, a.add(image, 0), (a.dim(1, 0), o), (oh, i), (ow, j))
            see(y, join(a, image, (a.dim(1, 1), channel), (h, row), (w, column)))

    return term


PROGRAMS: dict[str, Build] = {
    "conv2d": _convolution(_conv2d),
    "conv2d_dx": _convolution(_conv2d_dx),
    "conv2d_dw": _convolution(_conv2d_dw),
}
