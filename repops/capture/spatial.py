"""Lowering of the layers over channels: batch and group norm, convolution (docs/spec/operators.md).

Activations are [N, C, ...]. Statistics of a channel are folds over the inner axes, then over N, so that nothing is
permuted. Each rule takes the lowering first; `RULES` is part of the table in `repops.capture.lower`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from repops.capture.builder import Builder, Unsupported, Value, pattern
from repops.dtypes import DType
from repops.graph.ir import Shape

if TYPE_CHECKING:
    from repops.capture.lower import _Lowering

F32, I64 = DType.F32, DType.I64


class Channels:
    """Views of [N, C, ...] tensors as [N, C, S], or [N, C] where S is 1, and folds over all but the channel."""

    def __init__(self, builder: Builder, shape: Sequence[int]) -> None:
        self.b = builder
        self.batch, self.channels, self.inner = shape[0], shape[1], prod(shape[2:])
        self.count = self.batch * self.inner

    def rows(self, x: Value) -> Value:
        """A whole tensor."""
        shape = (self.batch, self.channels) + (() if self.inner == 1 else (self.inner,))
        return self.b.view(self.b.plain(x), shape)

    def each(self, x: Value | None, default: float = 0.0) -> Value:
        """One number a channel, so that it broadcasts against `rows`; the default for None."""
        if x is None:
            return self.b.scalar(default, F32)
        return self.b.view(self.b.plain(x), (self.channels,) if self.inner == 1 else (self.channels, 1))

    def fold(self, op: str, *rows: Value) -> Value:
        """[C]: a fold over the inner axes, then the sum over N."""
        if self.inner > 1:
            out = self.b.view(self.b.fold(op, rows, 2), (self.batch, self.channels))
            out = out if self.batch == 1 else self.b.fold("sum", [out], 0)
        else:
            out = self.b.fold(op, rows, 0)
        return self.b.view(out, (self.channels,))

    def over(self, x: Value, count: float) -> Value:
        """x / count."""
        return self.b.pointwise("div", x, self.b.scalar(count, F32))

    def statistics(self, x: Value) -> tuple[Value, Value]:
        """Mean and sum of squared deviations [C] of `rows`."""
        mean = self.over(self.fold("sum", x), self.count)
        return mean, self.fold("sum_sq_centered", x, self.each(mean))


def batch_norm(
    lowering: _Lowering,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value | None,
    running_var: Value | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Value, Value, Value]:
    """y, mean, rstd: statistic nodes, then one pointwise node."""
    b, c = lowering.b, Channels(lowering.b, x.shape)
    rows = c.rows(x)
    if training:
        if running_mean is not None or running_var is not None:
            raise Unsupported("it would change running statistics unseen; use F.batch_norm")
        if rows.count == 0:
            raise Unsupported("of nothing")
        mean, ssq = c.statistics(rows)
        rstd = b.pointwise("rstd", ssq, literals=(pattern(c.count, F32), pattern(eps, F32)))
        kept = mean, rstd
    else:
        assert running_mean is not None and running_var is not None
        mean, rstd = running_mean, _running_rstd(b, running_var, eps)
        kept = b.full((0,), 0.0, F32), b.full((0,), 0.0, F32)
    out = b.pointwise("layer_norm", rows, c.each(mean), c.each(rstd), c.each(weight, 1.0), c.each(bias, 0.0))
    return b.view(out, x.shape), *kept


def _running_rstd(b: Builder, variance: Value, eps: float) -> Value:
    return b.pointwise("rstd", variance, literals=(pattern(1.0, F32), pattern(eps, F32)))


def batch_norm_backward(
    lowering: _Lowering,
    dy: Value,
    x: Value,
    weight: Value | None,
    running_mean: Value | None,
    running_var: Value | None,
    mean: Value | None,
    rstd: Value | None,
    training: bool,
    eps: float,
    mask: Sequence[bool],
) -> tuple[Value | None, ...]:
    """dx from the two channel sums, which are the gradients of weight and bias."""
    b, c = lowering.b, Channels(lowering.b, x.shape)
    if not training:
        assert running_mean is not None and running_var is not None
        mean, rstd = running_mean, _running_rstd(b, running_var, eps)
    assert mean is not None and rstd is not None
    grad, rows = c.rows(dy), c.rows(x)
    centre, scale, w = c.each(mean), c.each(rstd), c.each(weight, 1.0)
    db = c.fold("sum", grad)
    dw = c.fold("sum_mul_normalized", grad, rows, centre, scale)
    dx = None
    if mask[0] and training:
        c1, c2 = (b.pointwise("mul", c.each(c.over(s, c.count)), w) for s in (db, dw))
        dx = b.pointwise("layer_norm_grad", grad, rows, centre, scale, w, c1, c2)
    elif mask[0]:
        dx = b.pointwise("mul", grad, b.pointwise("mul", scale, w))
    return b.view(dx, x.shape) if dx is not None else None, dw if mask[1] else None, db if mask[2] else None


class _Groups:
    """Views of group norm: [N, G, C / G, S] and what broadcasts against it."""

    def __init__(self, builder: Builder, n: int, channels: int, inner: int, groups: int) -> None:
        self.b, self.n, self.channels, self.inner, self.groups = builder, n, channels, inner, groups
        self.count = channels // groups * inner

    def full(self, x: Value) -> Value:
        return self.b.view(self.b.plain(x), (self.n, self.groups, self.channels // self.groups, self.inner))

    def rows(self, x: Value) -> Value:
        return self.b.view(self.b.plain(x), (self.n * self.groups, self.count))

    def statistic(self, x: Value) -> Value:
        return self.b.view(self.b.plain(x), (self.n, self.groups, 1, 1))

    def each(self, x: Value | None, default: float) -> Value:
        if x is None:
            return self.b.scalar(default, F32)
        return self.b.view(self.b.plain(x), (self.groups, self.channels // self.groups, 1))

    def over(self, x: Value) -> Value:
        return self.b.pointwise("div", x, self.b.scalar(self.count, F32))

    def per_channel(self, op: str, *values: Value) -> Value:
        """[C]: a fold over the inner axes of full views, then the sum over N."""
        out = self.b.view(self.b.fold(op, values, 3), (self.n, self.channels))
        return self.b.view(self.b.fold("sum", [out], 0), (self.channels,))


def group_norm(
    lowering: _Lowering,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    n: int,
    channels: int,
    inner: int,
    groups: int,
    eps: float,
) -> tuple[Value, Value, Value]:
    """y, mean [N, G], rstd [N, G]."""
    if x.count == 0:
        raise Unsupported("of nothing")
    b, g = lowering.b, _Groups(lowering.b, n, channels, inner, groups)
    rows = g.rows(x)
    mean = g.over(b.fold("sum", [rows], 1))
    ssq = b.fold("sum_sq_centered", [rows, mean], 1)
    rstd = b.pointwise("rstd", ssq, literals=(pattern(g.count, F32), pattern(eps, F32)))
    w, o = g.each(weight, 1.0), g.each(bias, 0.0)
    out = b.pointwise("layer_norm", g.full(x), g.statistic(mean), g.statistic(rstd), w, o)
    return b.view(out, x.shape), b.view(mean, (n, groups)), b.view(rstd, (n, groups))


def group_norm_backward(
    lowering: _Lowering,
    dy: Value,
    x: Value,
    mean: Value,
    rstd: Value,
    weight: Value | None,
    n: int,
    channels: int,
    inner: int,
    groups: int,
    mask: Sequence[bool],
) -> tuple[Value | None, ...]:
    b, g = lowering.b, _Groups(lowering.b, n, channels, inner, groups)
    grad, full, centre, scale = g.full(dy), g.full(x), g.statistic(mean), g.statistic(rstd)
    w = g.each(weight, 1.0)
    dx = dw = db = None
    if mask[0]:
        weighted = g.rows(b.pointwise("mul", grad, w))
        one = [b.view(v, (n * groups, 1)) for v in (centre, scale)]
        c1 = g.over(b.fold("sum", [weighted], 1))
        c2 = g.over(b.fold("sum_mul_normalized", [weighted, g.rows(x), *one], 1))
        dx = b.pointwise("layer_norm_grad", grad, full, centre, scale, w, g.statistic(c1), g.statistic(c2))
        dx = b.view(dx, x.shape)
    if mask[1]:
        dw = g.per_channel("sum_mul_normalized", grad, full, centre, scale)
    if mask[2]:
        db = g.per_channel("sum", grad)
    return dx, dw, db


class _Convolution:
    """The geometry of a convolution over images, or over sequences as images of one row.

    x, w and y are the roles of docs/spec/operators.md: a transposed convolution reads y and gives x.
    """

    def __init__(
        self,
        builder: Builder,
        rank: int,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
    ) -> None:
        self.b, self.groups = builder, groups
        flat = rank == 3
        stride, padding, dilation = ([neutral] * flat + list(v) for v, neutral in
                                     ((stride, 1), (padding, 0), (dilation, 1)))  # fmt: skip
        self.stride, self.padding, self.dilation = stride, padding, dilation

    @staticmethod
    def _image(shape: Shape) -> Shape:
        return shape if len(shape) == 4 else (*shape[:2], 1, shape[2])

    def _run(self, op: str, a: Value, b: Value, terms: int, shape: Shape) -> Value:
        a, b = (self.b.view(self.b.plain(v), self._image(v.shape)) for v in (a, b))
        geometry = (self.groups, *self.stride, *self.padding, *self.dilation)
        return self.b.view(self.b.convolution(op, a, b, terms, self._image(shape), geometry), shape)

    def forward(self, x: Value, w: Value, y: Shape) -> Value:
        """y."""
        return self._run("conv2d", x, w, prod(w.shape[1:]), y)

    def dx(self, dy: Value, w: Value, x: Shape) -> Value:
        """The gradient of x."""
        return self._run("conv2d_dx", dy, w, w.shape[0] // self.groups * prod(w.shape[2:]), x)

    def dw(self, dy: Value, x: Value, w: Shape) -> Value:
        """The gradient of w."""
        return self._run("conv2d_dw", dy, x, dy.shape[0] * prod(dy.shape[2:]), w)


def convolution(
    lowering: _Lowering,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Value:
    """y, transposed or not; the bias is an add."""
    rank = len(x.shape)
    if rank not in (3, 4):
        raise Unsupported(f"of rank {rank}")
    b, out = lowering.b, lowering.shape
    c = _Convolution(b, rank, stride, padding, dilation, groups)
    if transposed and any(o >= s for o, s in zip(output_padding, stride, strict=True)):
        raise Unsupported("output padding of a stride or more")
    y = c.dx(x, weight, out) if transposed else c.forward(x, weight, out)
    if bias is None:
        return y
    return b.pointwise("add", y, b.view(b.plain(bias), (out[1], *(1 for _ in out[2:]))))


def convolution_backward(
    lowering: _Lowering,
    dy: Value,
    x: Value,
    weight: Value,
    _: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    mask: Sequence[bool],
) -> tuple[Value | None, ...]:
    """The gradients of x, weight and bias."""
    rank = len(x.shape)
    if rank not in (3, 4):
        raise Unsupported(f"of rank {rank}")
    c = _Convolution(lowering.b, rank, stride, padding, dilation, groups)
    channels = Channels(lowering.b, dy.shape)
    dx = dw = db = None
    if mask[0]:
        dx = c.forward(dy, weight, x.shape) if transposed else c.dx(dy, weight, x.shape)
    if mask[1]:
        dw = c.dw(x, dy, weight.shape) if transposed else c.dw(dy, x, weight.shape)
    if mask[2]:
        db = channels.fold("sum", channels.rows(dy))
    return dx, dw, db


RULES: dict[str, Callable[..., Any]] = {
    "aten.convolution.default": convolution,
    "aten.convolution_backward.default": convolution_backward,
    "aten.native_batch_norm.default": batch_norm,
    "aten.native_batch_norm_backward.default": batch_norm_backward,
    "aten.native_group_norm.default": group_norm,
    "aten.native_group_norm_backward.default": group_norm_backward,
}
