"""Lowering of pooling (docs/spec/operators.md, "Pooling").

Each rule takes the lowering first; `RULES` is part of the table in `repops.capture.lower`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from repops.capture.builder import Builder, Unsupported, Value
from repops.dtypes import DType
from repops.graph.ir import Input, Node
from repops.ops.rules import RuleViolation
from repops.ops.table import OPERATORS

if TYPE_CHECKING:
    from repops.capture.lower import _Lowering

F32, I64 = DType.F32, DType.I64


def _pair(sizes: Sequence[int], default: Sequence[int] = ()) -> tuple[int, int]:
    """A size of each axis: two, one for both, or none for the default's."""
    sizes = sizes or default
    return (sizes[0], sizes[-1])


def _adapted(size: int, out: int) -> tuple[int, int]:
    """Taps and stride of an adaptive axis: those of a plain one where all windows are equally long and disjoint."""
    return (size // out, size // out) if out and size % out == 0 and size else (0, 1)


def _planes(b: Builder, x: Value) -> Value:
    """[.., H, W] as [planes, H, W]."""
    return b.view(b.plain(x), (prod(x.shape[:-2]), *x.shape[-2:]))


def _pool(lowering: _Lowering, op: str, values: Sequence[Value], size: Sequence[int], params: Sequence[int]) -> Value:
    """A pooling node over planes; size: the last two of its output's shape."""
    b, x = lowering.b, values[0]
    if not x.dtype.is_float:
        raise Unsupported(f"of {x.dtype.text}")
    shape = (*x.shape[:-2], *size)
    small = (prod(shape[:-2]), *size)
    dtype = I64 if op == "max_pool_index" else F32
    node = Node(
        op, tuple(params), (), tuple(Input(v.ref, v.dtype, (small[0], *v.shape[-2:])) for v in values), dtype, small
    )
    try:
        OPERATORS[op].rule(node)
    except RuleViolation as error:
        raise Unsupported(f"{error.what}") from None
    return b.view(b.node(op, [_planes(b, v) for v in values], dtype, small, params), shape)


def _window(kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> tuple[int, ...]:
    return (*_pair(kernel), *_pair(stride, kernel), *_pair(padding))


def _adaptive(x: Value, size: Sequence[int]) -> tuple[int, ...]:
    (kh, sh), (kw, sw) = (_adapted(d, out) for d, out in zip(x.shape[-2:], size, strict=True))
    return (kh, kw, sh, sw, 0, 0)


def _maxima(lowering: _Lowering, x: Value, params: Sequence[int]) -> tuple[Value, Value]:
    """The maxima and, in the plane, their places."""
    size = [int(d) for d in lowering.node.meta["val"][0].shape[-2:]]
    return _pool(lowering, "max_pool", [x], size, params), _pool(lowering, "max_pool_index", [x], size, params)


def max_pool(
    lowering: _Lowering,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> tuple[Value, Value]:
    return _maxima(lowering, x, (*_window(kernel, stride, padding), *_pair(dilation)))


def max_pool_backward(
    lowering: _Lowering,
    dy: Value,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    index: Value,
) -> Value:
    params = (*_window(kernel, stride, padding), *_pair(dilation))
    return _pool(lowering, "max_pool_grad", [dy, index], x.shape[-2:], params)


def adaptive_max_pool(lowering: _Lowering, x: Value, size: Sequence[int]) -> tuple[Value, Value]:
    return _maxima(lowering, x, (*_adaptive(x, size), 1, 1))


def adaptive_max_pool_backward(lowering: _Lowering, dy: Value, x: Value, index: Value) -> Value:
    return _pool(lowering, "max_pool_grad", [dy, index], x.shape[-2:], (*_adaptive(x, dy.shape[-2:]), 1, 1))


def avg_pool(
    lowering: _Lowering,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Value:
    params = (*_window(kernel, stride, padding), int(count_include_pad), divisor or 0)
    return _pool(lowering, "avg_pool", [x], lowering.shape[-2:], params)


def avg_pool_backward(
    lowering: _Lowering,
    dy: Value,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Value:
    params = (*_window(kernel, stride, padding), int(count_include_pad), divisor or 0)
    return _pool(lowering, "avg_pool_grad", [dy], x.shape[-2:], params)


def adaptive_avg_pool(lowering: _Lowering, x: Value, size: Sequence[int]) -> Value:
    """Over a whole plane: its mean."""
    b = lowering.b
    if tuple(size) == (1, 1):
        total = b.reduce("sum", b.cast(x, F32), [len(x.shape) - 2, len(x.shape) - 1])
        return b.view(b.pointwise("div", total, b.scalar(prod(x.shape[-2:]), F32)), lowering.shape)
    return _pool(lowering, "avg_pool", [x], size, (*_adaptive(x, size), 0, 0))


def adaptive_avg_pool_backward(lowering: _Lowering, dy: Value, x: Value) -> Value:
    b = lowering.b
    if dy.shape[-2:] == (1, 1):
        return b.expand(b.pointwise("div", dy, b.scalar(prod(x.shape[-2:]), F32)), x.shape)
    return _pool(lowering, "avg_pool_grad", [dy], x.shape[-2:], (*_adaptive(x, dy.shape[-2:]), 0, 0))


RULES: dict[str, Callable[..., Any]] = {
    "aten.max_pool2d_with_indices.default": max_pool,
    "aten.max_pool2d_with_indices_backward.default": max_pool_backward,
    "aten.adaptive_max_pool2d.default": adaptive_max_pool,
    "aten.adaptive_max_pool2d_backward.default": adaptive_max_pool_backward,
    "aten.avg_pool2d.default": avg_pool,
    "aten.avg_pool2d_backward.default": avg_pool_backward,
    "aten._adaptive_avg_pool2d.default": adaptive_avg_pool,
    "aten._adaptive_avg_pool2d_backward.default": adaptive_avg_pool_backward,
}
