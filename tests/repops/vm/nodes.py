"""Random nodes of every operator: the dtypes and literals of a golden case, other shapes and params, hostile data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

import numpy as np
from golden_cases import ATTENTION, cases
from kernel_calls import hostile

from repops.dtypes import DType
from repops.graph.ir import Node, Shape
from repops.ops.table import OPERATORS
from repops.vm.programs import pointwise, reductions

Rng = np.random.Generator
_CONVOLUTIONS = {"conv2d": "xwy", "conv2d_dx": "ywx", "conv2d_dw": "yxw"}
Reshaped = tuple[list[Shape], Shape, tuple[int, ...]]  # shapes of the inputs and of the output, params


def random_node(op: str, rng: Rng) -> tuple[Node, list[np.ndarray]]:
    """A node that the operator's rule admits, with at least one element in its output mostly, and its inputs."""
    found = cases(op)
    like = found[rng.integers(len(found))].node
    shapes, out, params = _reshape(op)(like, rng)
    inputs = tuple(replace(i, shape=s) for i, s in zip(like.inputs, shapes, strict=True))
    node = replace(like, inputs=inputs, shape=out, params=params)
    OPERATORS[op].rule(node)
    return node, [_data(node, k, rng) for k in range(len(inputs))]


def _data(node: Node, k: int, rng: Rng) -> np.ndarray:
    item = node.inputs[k]
    if node.op in ("gather", "scatter", "embedding", "embedding_grad") and k == 1:
        axis = node.params[0] if node.op in ("gather", "scatter") else 0
        size = (node.shape if node.op in ("scatter", "embedding_grad") else node.inputs[0].shape)[axis]
        wild = rng.random(item.shape) < 0.2
        near = rng.integers(-1, size + 1, item.shape)
        return np.where(wild, hostile(rng, item.dtype, item.shape), near).astype(item.dtype.numpy)
    if node.op == "max_pool_grad" and k == 1:
        return rng.integers(-1, prod(node.shape[1:]) + 1, item.shape).astype(item.dtype.numpy)
    if item.dtype is DType.BOOL or rng.random() < 0.5:
        return hostile(rng, item.dtype, item.shape)
    if item.dtype.numpy.kind == "f":
        return rng.standard_normal(item.shape).astype(item.dtype.numpy)
    if item.dtype is DType.BF16:
        return (rng.standard_normal(item.shape).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return rng.integers(-100, 100, item.shape).astype(item.dtype.numpy)


def _reshape(op: str) -> Callable[[Node, Rng], Reshaped]:
    if op in pointwise.PROGRAMS:
        return _pointwise
    if op in reductions.PROGRAMS:
        return _reduction
    if op in ATTENTION:
        return _attention
    return {**_BY_NAME, **dict.fromkeys(_CONVOLUTIONS, _convolution)}.get(op, _as_it_is)


def _shape(rng: Rng, low: int = 0, high: int = 4) -> Shape:
    return tuple(rng.integers(1, 6, rng.integers(low, high + 1)).tolist())


def _cut(rng: Rng, shape: Shape) -> Shape:
    """A shape that broadcasts to this one: axes of length 1, axes left out."""
    kept = tuple(d if rng.random() < 0.6 else 1 for d in shape)
    while kept and kept[0] == 1 and rng.random() < 0.5:
        kept = kept[1:]
    return kept


def _pointwise(like: Node, rng: Rng) -> Reshaped:
    out = _shape(rng)
    shapes = [_cut(rng, out) for _ in like.inputs]
    shapes[rng.integers(len(shapes))] = out
    return shapes, out, ()


def _reduction(like: Node, rng: Rng) -> Reshaped:
    whole = _shape(rng, 1)
    if rng.random() < 0.3:  # more than one block
        whole = (*whole[:1], int(rng.integers(1000, 1100)))
    first = int(rng.integers(len(whole)))
    axes = tuple(range(first, int(rng.integers(first, len(whole))) + 1))
    out = tuple(1 if k in axes else d for k, d in enumerate(whole))
    links = like.params[-2] > 0  # has a carry: an axis long enough for a second link
    if links:
        whole, out, axes = (2, 16_400), (2, 1), (1,)
    count = len(like.inputs) - links
    shapes = [whole if k == 0 or rng.random() < 0.5 else out for k in range(count)]
    terms = prod(whole[a] for a in axes)
    start = 16_384 if links else 0
    return [*shapes, *([out] if links else [])], out, (len(axes), *axes, start, terms)


def _matmul(like: Node, rng: Rng) -> Reshaped:
    links = like.params[2] > 0
    batch = (int(rng.integers(1, 4)),) if rng.random() < 0.5 else ()
    m, n = rng.integers(1, 6, 2).tolist()
    k = 16_390 if links else int(rng.choice([0, 1, 5, 255, 256, 257, 600]))
    ta, tb = rng.integers(0, 2, 2).tolist()
    a, b = ((k, m) if ta else (m, k)), ((n, k) if tb else (k, n))
    if links:
        batch = ()
    out = (*batch, m, n)
    start = 16_384 if links else 0
    return [(*batch, *a), (*batch, *b), *([out] if links else [])], out, (ta, tb, start, k)


def _attention(like: Node, rng: Rng) -> Reshaped:
    inputs, out, _ = ATTENTION[like.op]
    sizes = dict(zip("BTSDE", rng.integers(1, 9, 5).tolist(), strict=True)) | {"1": 1}
    sizes |= {axis: int(rng.integers(250, 270)) for axis in "TSDE" if rng.random() < 0.2}
    *shapes, last = (tuple(sizes[x] for x in dims) for dims in (*inputs, out))
    return shapes, last, (int(rng.integers(2)),)


def _convolution(like: Node, rng: Rng) -> Reshaped:
    groups, n, c, o = rng.integers(1, 4, 4).tolist()
    x, w, y, params = [n, groups * c], [groups * o, c], [n, groups * o], [[], [], []]
    for _ in range(2):
        taps, stride, pad, dilation = (int(rng.integers(low, 4)) for low in (1, 1, 0, 1))
        size = int(rng.integers(max(0, dilation * (taps - 1) + 1 - 2 * pad), 9))
        x.append(size)
        w.append(taps)
        y.append((size + 2 * pad - dilation * (taps - 1) - 1) // stride + 1)
        for found, value in zip(params, (stride, pad, dilation), strict=True):
            found.append(value)
    shapes = {"x": tuple(x), "w": tuple(w), "y": tuple(y)}
    terms = {"conv2d": w[1:], "conv2d_dx": [o, *w[2:]], "conv2d_dw": [n, *y[2:]]}[like.op]
    first, second, out = (shapes[r] for r in _CONVOLUTIONS[like.op])
    if len(like.inputs) == 3:  # a second link
        return [i.shape for i in like.inputs], like.shape, like.params
    return [first, second], out, (groups, *(v for pair in params for v in pair), 0, prod(terms))


def _pool(like: Node, rng: Rng) -> Reshaped:
    planes = int(rng.integers(1, 3))
    x, y, geometry = [planes], [planes], []
    averages = like.op.startswith("avg")
    for _ in range(2):
        size = int(rng.integers(1, 9))
        taps, stride, dilation = (int(rng.integers(low, 5)) for low in (0, 1, 1))
        if taps == 0:
            stride = dilation = 1
        elif averages:
            dilation = 1
        pad = int(rng.integers(0, taps // 2 + 1))
        count = int(rng.integers(1, 9)) if taps == 0 else int(rng.integers(0, (size + pad - 1) // stride + 2))
        x.append(size)
        y.append(count)
        geometry.append((taps, stride, pad, dilation))
    last = (int(rng.integers(2)), int(rng.choice([0, 3]))) if averages else tuple(g[3] for g in geometry)
    params = (*(g[k] for k in range(3) for g in geometry), *last)
    source, out = (tuple(y), tuple(x)) if like.op.endswith("_grad") else (tuple(x), tuple(y))
    return [source for _ in like.inputs], out, params


def _permute(like: Node, rng: Rng) -> Reshaped:
    shape = _shape(rng, 0, 6)
    order = tuple(rng.permutation(len(shape)).tolist())
    return [shape], tuple(shape[d] for d in order), order


def _expand(like: Node, rng: Rng) -> Reshaped:
    out = _shape(rng)
    return [_cut(rng, out)], out, ()


def _slice(like: Node, rng: Rng) -> Reshaped:
    whole = list(_shape(rng, 1))
    axis = int(rng.integers(len(whole)))
    whole[axis] = int(rng.integers(1, 20))
    start, step = int(rng.integers(whole[axis])), int(rng.choice([1, 2, 3, 2**62]))
    part = list(whole)
    part[axis] = int(rng.integers(0, (whole[axis] - 1 - start) // step + 2))
    source, out = (whole, part) if like.op == "slice" else (part, whole)
    return [tuple(source)], tuple(out), (axis, start, step)


def _cat(like: Node, rng: Rng) -> Reshaped:
    shape = _shape(rng, 1)
    axis = int(rng.integers(len(shape)))
    shapes = [(*shape[:axis], int(rng.integers(0, 4)), *shape[axis + 1 :]) for _ in like.inputs]
    return shapes, (*shape[:axis], sum(s[axis] for s in shapes), *shape[axis + 1 :]), (axis,)


def _indexed(like: Node, rng: Rng) -> Reshaped:
    x = _shape(rng, 1)
    axis = int(rng.integers(len(x)))
    index = tuple(int(rng.integers(1, 8)) if k == axis else int(rng.integers(1, d + 1)) for k, d in enumerate(x))
    return [x, index], x if like.op == "scatter" else index, (axis,)


def _embedding(like: Node, rng: Rng) -> Reshaped:
    v, d = rng.integers(1, 9, 2).tolist()
    index = _shape(rng, 0, 3)
    return [(v, d), index], (*index, d), ()


def _cumsum(like: Node, rng: Rng) -> Reshaped:
    shape = _shape(rng, 1)
    return [shape], shape, (int(rng.integers(len(shape))),)


def _generated(like: Node, rng: Rng) -> Reshaped:
    return [i.shape for i in like.inputs], _shape(rng), like.params


def _as_it_is(like: Node, rng: Rng) -> Reshaped:
    """Links of folds with long inputs, and whatever has no other shapes here."""
    return [i.shape for i in like.inputs], like.shape, like.params


_BY_NAME: dict[str, Callable[[Node, Rng], Reshaped]] = {
    "matmul": _matmul, "permute": _permute, "expand": _expand, "slice": _slice, "slice_grad": _slice, "cat": _cat,
    "gather": _indexed, "scatter": _indexed, "embedding": _embedding, "cumsum": _cumsum, "iota": _generated,
    "fill": _generated, "philox": _generated, "max_pool": _pool, "max_pool_index": _pool, "max_pool_grad": _pool,
    "avg_pool": _pool, "avg_pool_grad": _pool,
}  # fmt: skip
