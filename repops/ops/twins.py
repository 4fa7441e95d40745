"""Float64 twins of the operators: the same mathematics in numpy float64, in no particular order of additions.

Capture's self-check runs a program with them and compares with the eager step in float64. f32, bf16 and f16 tensors are
float64 here and nothing is rounded to them; i64, i32 and bool tensors are themselves. A twin takes a checked node and
its inputs in the shapes under which the node reads them, and returns the output in the node's shape.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from repops.dtypes import DType, to_float64
from repops.graph.ir import Node

Array = np.ndarray[Any, Any]
Twin = Callable[[Node, Sequence[Array]], Array]

_GELU_TANH = math.sqrt(2 / math.pi)
_erf: Callable[[Array], Array] = np.vectorize(math.erf, otypes=[np.float64])


def float_literal(bits: int) -> float:
    """The number that an f32 pattern stands for."""
    return float(np.array(bits, dtype=np.uint32).view(np.float32))


def pointwise(function: Callable[..., Array]) -> Twin:
    """A function of broadcasting arrays; f32 literals come last."""

    def twin(node: Node, inputs: Sequence[Array]) -> Array:
        return np.asarray(function(*inputs, *[float_literal(v) for v in node.literals]))

    return twin


def reduction(function: Callable[..., Array], combine: np.ufunc = np.add, start: float = 0) -> Twin:
    """A fold by `combine`, from `start`, over the terms [start, stop) that a function makes of the inputs."""

    def twin(node: Node, inputs: Sequence[Array]) -> Array:
        axes, (first, last) = node.params[1:-2], node.params[-2:]
        operands = inputs[:-1] if first else inputs
        terms = np.asarray(function(*np.broadcast_arrays(*operands)))
        before, after = terms.shape[: axes[0]], terms.shape[axes[-1] + 1 :]
        terms = terms.reshape(*before, -1, *after).take(range(first, last), axis=len(before))
        if terms.dtype in (np.bool_, np.int32):
            terms = terms.astype(np.int64)
        with np.errstate(over="ignore"):
            out = np.asarray(combine.reduce(terms, axis=len(before), initial=np.array(start).astype(terms.dtype)[()]))
            out = out.reshape(node.shape)
            return np.asarray(combine(inputs[-1], out)) if first else out

    return twin


def cast(node: Node, inputs: Sequence[Array]) -> Array:
    """To an integer truncates and saturates, NaN gives 0; i64 to i32 wraps; bool is x != 0; floats stay float64."""
    (x,) = inputs
    if node.dtype is DType.BOOL:
        return np.asarray(x != 0)
    if node.dtype.is_float:
        return np.asarray(x.astype(np.float64))
    if x.dtype != np.float64:
        return np.asarray(x.astype(node.dtype.numpy))
    whole = np.nan_to_num(np.trunc(x), nan=0.0)
    limits = np.iinfo(node.dtype.numpy)
    top = 2.0 ** (node.dtype.bits - 1)
    inside = np.clip(whole, -top, top - (1024 if node.dtype is DType.I64 else 1)).astype(node.dtype.numpy)
    return np.where(whole >= top, limits.max, np.where(whole < -top, limits.min, inside)).astype(node.dtype.numpy)


def matmul(node: Node, inputs: Sequence[Array]) -> Array:
    """A link of a product: terms [start, stop) of k, added to the carry."""
    ta, tb, start, stop = node.params
    a, b = (x.swapaxes(-1, -2) if t else x for x, t in zip(inputs, (ta, tb), strict=False))
    out = a[..., start:stop] @ b[..., start:stop, :]
    return np.asarray(inputs[2] + out if start else out)


class _Convolution:
    """The tensors of a convolution by groups, x and dx padded."""

    def __init__(self, node: Node, x: tuple[int, ...], w: tuple[int, ...], y: tuple[int, ...]) -> None:
        self.groups, *geometry = node.params[:7]
        self.stride, self.pad, self.dilation = geometry[:2], geometry[2:4], geometry[4:]
        g = self.groups
        self.x = (x[0], g, x[1] // g, *x[2:])
        self.w = (g, w[0] // g, *w[1:])
        self.y = (y[0], g, y[1] // g, y[2] * y[3])
        self.out = y[2:]

    def padded(self, x: Array) -> Array:
        return np.pad(x.reshape(self.x), ((0, 0),) * 3 + tuple((p, p) for p in self.pad))

    def inside(self, padded: Array) -> Array:
        """What `padded` added is taken off."""
        ph, pw = self.pad
        return padded[..., ph : padded.shape[-2] - ph, pw : padded.shape[-1] - pw]

    def taps(self) -> Iterator[tuple[tuple[int, int], tuple[slice, slice]]]:
        """Each tap and what the windows see through it of the padded rows and columns."""
        for tap in np.ndindex(self.w[-2:]):
            first = [t * d for t, d in zip(tap, self.dilation, strict=True)]
            rows, columns = (
                slice(f, f + (o - 1) * s + 1, s) for f, o, s in zip(first, self.out, self.stride, strict=True)
            )
            yield (tap[0], tap[1]), (rows, columns)


def _linked(node: Node, terms: Array) -> Array:
    """The terms [start, stop) of a link, counted over the last three axes; zeros in place of the others."""
    flat = terms.reshape(*terms.shape[:-3], -1)
    place = np.arange(flat.shape[-1])
    return np.where((place >= node.params[-2]) & (place < node.params[-1]), flat, 0.0).reshape(terms.shape)


def _carried(node: Node, inputs: Sequence[Array], out: Array) -> Array:
    out = out.reshape(node.shape)
    return np.asarray(inputs[2] + out if node.params[-2] else out)


def conv2d(node: Node, inputs: Sequence[Array]) -> Array:
    x, w = inputs[:2]
    c = _Convolution(node, x.shape, w.shape, node.shape)
    padded, weight, out = c.padded(x), _linked(node, w.reshape(c.w)), np.zeros(c.y)
    for tap, seen in c.taps():
        out += weight[(..., *tap)] @ padded[(..., *seen)].reshape(*c.x[:3], c.y[-1])
    return _carried(node, inputs, out)


def conv2d_dx(node: Node, inputs: Sequence[Array]) -> Array:
    dy, w = inputs[:2]
    c = _Convolution(node, node.shape, w.shape, dy.shape)
    weight = np.moveaxis(_linked(node, np.moveaxis(w.reshape(c.w), 1, 2)), 1, 2)
    dy, out = dy.reshape(c.y), c.padded(np.zeros(node.shape))
    for tap, seen in c.taps():
        out[(..., *seen)] += (weight[(..., *tap)].swapaxes(-1, -2) @ dy).reshape(*c.x[:3], *c.out)
    return _carried(node, inputs, c.inside(out))


def conv2d_dw(node: Node, inputs: Sequence[Array]) -> Array:
    dy, x = inputs[:2]
    c = _Convolution(node, x.shape, node.shape, dy.shape)
    padded, out = c.padded(x), np.zeros(c.w)
    terms = np.moveaxis(_linked(node, np.moveaxis(dy, 1, 0)), 0, 1).reshape(c.y)
    for tap, seen in c.taps():
        through = padded[(..., *seen)].reshape(*c.x[:3], c.y[-1])
        out[(..., *tap)] = (terms @ through.swapaxes(-1, -2)).sum(axis=0)
    return _carried(node, inputs, out)


class _Pool:
    """The windows of a pooling of x [P, H, W]: slices of its rows and of its columns."""

    def __init__(self, node: Node, x: tuple[int, ...], y: tuple[int, ...]) -> None:
        self.average = node.op.startswith("avg")
        dilations = (1, 1) if self.average else node.params[6:]
        axes = list(zip(x[1:], y[1:], *(node.params[i : i + 2] for i in (0, 2, 4)), dilations, strict=True))
        self.rows, self.columns = ([_seen(o, *axis) for o in range(axis[1])] for axis in axes)
        self.divisor = node.params[7] if self.average else 0
        self.extents = [
            [len(range(*seen.indices(axis[0]))) for seen in windows]
            if not (self.average and node.params[6] and axis[2])
            else [min(o * axis[3] + axis[2], axis[0] + 2 * axis[4]) - o * axis[3] for o in range(axis[1])]
            for axis, windows in zip(axes, (self.rows, self.columns), strict=True)
        ]

    def windows(self) -> Iterator[tuple[int, int, slice, slice]]:
        for (i, rows), (j, columns) in itertools.product(enumerate(self.rows), enumerate(self.columns)):
            yield i, j, rows, columns

    def count(self, i: int, j: int) -> int:
        return self.divisor or self.extents[0][i] * self.extents[1][j]


def _seen(o: int, size: int, out: int, taps: int, stride: int, pad: int, dilation: int) -> slice:
    """The positions of window o of one axis."""
    if taps == 0:
        return slice(o * size // out, -(-(o + 1) * size // out))
    first = o * stride - pad
    inside = first if first >= 0 else first % dilation
    return slice(inside, max(first + (taps - 1) * dilation + 1, 0), dilation)


def max_pool(node: Node, inputs: Sequence[Array]) -> Array:
    x, out = inputs[0], np.zeros(node.shape)
    for i, j, rows, columns in _Pool(node, x.shape, node.shape).windows():
        out[:, i, j] = x[:, rows, columns].max(axis=(1, 2), initial=-np.inf)
    return out


def max_pool_index(node: Node, inputs: Sequence[Array]) -> Array:
    x, out = inputs[0], np.full(node.shape, -1, np.int64)
    place = np.arange(math.prod(x.shape[1:])).reshape(x.shape[1:])
    for i, j, rows, columns in _Pool(node, x.shape, node.shape).windows():
        seen = place[rows, columns].ravel()
        if len(seen):
            out[:, i, j] = seen[x[:, rows, columns].reshape(len(x), -1).argmax(axis=1)]
    return out


def max_pool_grad(node: Node, inputs: Sequence[Array]) -> Array:
    (dy, index), out = inputs, np.zeros(node.shape)
    place = np.arange(math.prod(node.shape[1:])).reshape(node.shape[1:])
    for i, j, rows, columns in _Pool(node, node.shape, dy.shape).windows():
        hit = place[None, rows, columns] == index[:, i, j, None, None]
        out[:, rows, columns] += np.where(hit, dy[:, i, j, None, None], 0.0)
    return out


def avg_pool(node: Node, inputs: Sequence[Array]) -> Array:
    x, out = inputs[0], np.zeros(node.shape)
    pool = _Pool(node, x.shape, node.shape)
    for i, j, rows, columns in pool.windows():
        out[:, i, j] = x[:, rows, columns].sum(axis=(1, 2)) / pool.count(i, j)
    return out


def avg_pool_grad(node: Node, inputs: Sequence[Array]) -> Array:
    dy, out = inputs[0], np.zeros(node.shape)
    pool = _Pool(node, node.shape, dy.shape)
    for i, j, rows, columns in pool.windows():
        out[:, rows, columns] += dy[:, i, j, None, None] / pool.count(i, j)
    return out


def _visible(node: Node, shape: tuple[int, ...]) -> Array:
    """[T, S]: whether key j is visible to query i."""
    return np.tri(shape[-2], shape[-1], dtype=np.bool_) if node.params[0] else np.ones(shape[-2:], dtype=np.bool_)


def attention_scores(node: Node, inputs: Sequence[Array]) -> Array:
    q, k = inputs
    scores = (q @ k.swapaxes(1, 2)) * float_literal(node.literals[0])
    return np.where(_visible(node, scores.shape), scores, -np.inf)


def attention_max(node: Node, inputs: Sequence[Array]) -> Array:
    seen = np.where(_visible(node, inputs[0].shape), inputs[0], -np.inf)
    return np.asarray(seen.max(axis=2, keepdims=True, initial=-np.inf))


def _exponentials(node: Node, s: Array, m: Array) -> Array:
    visible = _visible(node, s.shape)
    return np.where(visible, np.exp(np.where(visible, s, m) - m), 0.0)


def attention_sum(node: Node, inputs: Sequence[Array]) -> Array:
    return np.asarray(_exponentials(node, *inputs).sum(axis=2, keepdims=True))


def attention_out(node: Node, inputs: Sequence[Array]) -> Array:
    s, m, total, v = inputs
    return np.asarray((_exponentials(node, s, m) @ v) / total)


def attention_dv(node: Node, inputs: Sequence[Array]) -> Array:
    s, m, total, do = inputs
    return np.asarray((_exponentials(node, s, m) / total).swapaxes(1, 2) @ do)


def attention_dp(node: Node, inputs: Sequence[Array]) -> Array:
    do, v = inputs
    dp = do @ v.swapaxes(1, 2)
    return np.where(_visible(node, dp.shape), dp, 0.0)


def attention_ds(node: Node, inputs: Sequence[Array]) -> Array:
    s, m, total, dp, delta = inputs
    return np.where(_visible(node, s.shape), _exponentials(node, s, m) / total * (dp - delta), 0.0)


def attention_dq(node: Node, inputs: Sequence[Array]) -> Array:
    ds, k = inputs
    return np.asarray((np.where(_visible(node, ds.shape), ds, 0.0) @ k) * float_literal(node.literals[0]))


def attention_dk(node: Node, inputs: Sequence[Array]) -> Array:
    ds, q = inputs
    seen = np.where(_visible(node, ds.shape), ds, 0.0)
    return np.asarray((seen.swapaxes(1, 2) @ q) * float_literal(node.literals[0]))


def permute(node: Node, inputs: Sequence[Array]) -> Array:
    return inputs[0].transpose(node.params)


def expand(node: Node, inputs: Sequence[Array]) -> Array:
    return np.broadcast_to(inputs[0], node.shape)


def _positions(node: Node, length: int) -> tuple[slice | Array, ...]:
    axis, start, step = node.params
    return (slice(None),) * axis + (start + step * np.arange(length),)


def slice_(node: Node, inputs: Sequence[Array]) -> Array:
    return np.asarray(inputs[0][_positions(node, node.shape[node.params[0]])])


def slice_grad(node: Node, inputs: Sequence[Array]) -> Array:
    out = np.zeros(node.shape, inputs[0].dtype)
    out[_positions(node, inputs[0].shape[node.params[0]])] = inputs[0]
    return out


def cat(node: Node, inputs: Sequence[Array]) -> Array:
    return np.concatenate(inputs, axis=node.params[0])


def _grids(index: Array, axis: int) -> list[Array]:
    grids: list[Array] = list(np.indices(index.shape, sparse=True))
    grids[axis] = index
    return grids


def gather(node: Node, inputs: Sequence[Array]) -> Array:
    x, index = inputs
    axis = node.params[0]
    inside = (index >= 0) & (index < x.shape[axis])
    if not inside.any():
        return np.zeros(node.shape, x.dtype)
    values = x[tuple(_grids(np.where(inside, index, 0), axis))]
    return np.where(inside, values, np.zeros((), x.dtype))


def scatter(node: Node, inputs: Sequence[Array]) -> Array:
    x, index = inputs
    axis = node.params[0]
    inside = (index >= 0) & (index < x.shape[axis])
    grids = [np.broadcast_to(g, index.shape)[inside] for g in _grids(index, axis)]
    out = x.copy()
    out[tuple(grids)] = _filled(node)
    return out


def embedding(node: Node, inputs: Sequence[Array]) -> Array:
    weight, index = inputs
    inside = (index >= 0) & (index < len(weight))
    if not inside.any():
        return np.zeros(node.shape, weight.dtype)
    rows = weight[np.where(inside, index, 0)]
    return np.where(inside[..., None], rows, np.zeros((), weight.dtype))


def embedding_grad(node: Node, inputs: Sequence[Array]) -> Array:
    start, stop = node.params
    dy, index = inputs[0][start:stop], inputs[1][start:stop]
    inside = (index >= 0) & (index < node.shape[0])
    out = inputs[2].copy() if start else np.zeros(node.shape)
    np.add.at(out, index[inside], dy[inside])
    return out


def cumsum(node: Node, inputs: Sequence[Array]) -> Array:
    with np.errstate(over="ignore"):
        return np.cumsum(inputs[0], axis=node.params[0], dtype=np.int64)


def philox(node: Node, inputs: Sequence[Array]) -> Array:
    seed, step = (int(x) for x in inputs)
    return philox_uniform(seed, step, node.params[0], math.prod(node.shape)).reshape(node.shape).astype(np.float64)


def philox_uniform(seed: int, step: int, node: int, count: int) -> Array:
    """The first `count` f32 numbers in [0, 1) of `philox`: the same bits as the operator's."""
    block = np.arange(-(-count // 4), dtype=np.uint64)
    low = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    words = [block & low, block >> half | np.uint64(node << 8)]
    words += [np.full_like(block, word) for word in (step & 0xFFFFFFFF, step >> 32 & 0xFFFFFFFF)]
    keys = [seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF]
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * words[0], np.uint64(0xCD9E8D57) * words[2]
        k0, k1 = (np.uint64(k) for k in keys)
        words = [p1 >> half ^ words[1] ^ k0, p1 & low, p0 >> half ^ words[3] ^ k1, p0 & low]
        keys = [(keys[0] + 0x9E3779B9) & 0xFFFFFFFF, (keys[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return ((np.stack(words, 1).ravel()[:count] >> np.uint64(8)) * 2.0**-24).astype(np.float32)


def iota(node: Node, inputs: Sequence[Array]) -> Array:
    start, step = node.params
    with np.errstate(over="ignore"):
        counted = np.arange(math.prod(node.shape), dtype=np.int64) * np.int64(step) + np.int64(start)
    return counted.reshape(node.shape)


def _filled(node: Node) -> Array:
    bits = node.literals[0].to_bytes(8, "little")[: node.dtype.itemsize]
    value = np.frombuffer(bits, dtype=node.dtype.numpy)[0]
    return to_float64(value, node.dtype) if node.dtype.is_float else np.asarray(value)


def fill(node: Node, inputs: Sequence[Array]) -> Array:
    return np.full(node.shape, _filled(node))


def gelu_erf(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + _erf(x * math.sqrt(0.5))))


def gelu_erf_grad(dy: Array, x: Array) -> Array:
    cdf = 0.5 * (1 + _erf(x * math.sqrt(0.5)))
    return np.asarray(dy * (cdf + x * np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)))


def gelu_tanh(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.tanh(_GELU_TANH * (x + 0.044715 * x**3))))


def gelu_tanh_grad(dy: Array, x: Array) -> Array:
    t = np.tanh(_GELU_TANH * (x + 0.044715 * x**3))
    return np.asarray(dy * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * _GELU_TANH * (1 + 3 * 0.044715 * x * x)))


def erf(x: Array) -> Array:
    return np.asarray(_erf(x))


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def silu_grad(dy: Array, x: Array) -> Array:
    s = sigmoid(x)
    return np.asarray(dy * s * (1 + x * (1 - s)))


def layer_norm_grad(dy: Array, x: Array, mean: Array, rstd: Array, w: Array, c1: Array, c2: Array) -> Array:
    return np.asarray(rstd * (dy * w - c1 - (x - mean) * rstd * c2))
