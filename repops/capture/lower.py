"""Lowers a functional ATen graph to a program: one rule per ATen overload (docs/spec/operators.md, "Composites").

What has no rule is refused with the full list; a rule may refuse an argument that it has no operators for.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch.fx import GraphModule, Node

from repops.capture import pooling, spatial
from repops.capture.builder import Builder, Unsupported, Value, pattern
from repops.dtypes import DType
from repops.errors import CaptureError, TensorError, UnsupportedOperators
from repops.execute import as_array
from repops.graph.ir import BatchTensor, Program, Shape
from repops.ops.rules import FOLD_TERMS

F32, I64, BOOL = DType.F32, DType.I64, DType.BOOL
# In which dtype a rule computes what torch has in this one; floats are rounded to their own once, at the end.
_DTYPES = {
    torch.float32: F32,
    torch.bfloat16: F32,
    torch.float16: F32,
    torch.int64: I64,
    torch.int32: DType.I32,
    torch.bool: BOOL,
}
# Outputs that stay f32 whatever torch rounds them to.
_STATISTICS = {f"aten.native_{name}_norm.default": (1, 2) for name in ("layer", "batch", "group")}

Outputs = Value | tuple[Value | None, ...]
Rule = Callable[..., Outputs]


def lower(graph: GraphModule, slots: Sequence[tuple[str, DType, Shape]], batch: Sequence[BatchTensor]) -> Program:
    """The program of a traced step whose placeholders are slots, then batch tensors, and whose outputs are the slots.

    Raises UnsupportedOperators with everything that has no operator, counted and placed; CaptureError for tensors that
    the step took from outside its arguments.
    """
    _refuse_outside_tensors(graph)
    _refuse_changed_arguments(graph, [name for name, _, _ in slots] + [tensor.name for tensor in batch])
    builder = Builder(slots, batch)
    values = [builder.state(i) for i in range(len(slots))] + [builder.batch(i) for i in range(len(batch))]
    updates = []
    for (name, dtype, shape), value in zip(slots, lower_nodes(graph, builder, values), strict=True):
        if not isinstance(value, Value) or value.dtype is not dtype or value.shape != shape:
            raise CaptureError(
                "its value was not lowered to its own dtype and shape", f"slot {name}", "Report this step"
            )
        updates.append(value)
    return builder.finish(updates)


def lower_nodes(graph: GraphModule, builder: Builder, arguments: Sequence[Value]) -> list[Outputs | None]:
    """Emits a graph's nodes over values for its placeholders; the values of its outputs.

    Raises UnsupportedOperators.
    """
    lowering = _Lowering(builder, graph)
    env: dict[Node, Outputs | None] = {}
    problems: list[tuple[str, Node]] = []
    placeholders = iter(arguments)
    results: Sequence[Any] = ()
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            env[node] = next(placeholders)
        elif node.op == "output":
            results = node.args[0]
        else:
            problem = lowering.problem_of(node)
            if problem is None and all(env.get(n) is not None for n in node.all_input_nodes):
                try:
                    env[node] = lowering.run(node, env)
                except Unsupported as reason:
                    problem = f"{_name(node)} ({reason})"
            if problem is not None:
                problems.append((problem, node))
    if problems:
        raise _unsupported(problems)
    return [env[result] for result in results]


def _name(node: Node) -> str:
    return str(node.target)


def _unsupported(problems: list[tuple[str, Node]]) -> UnsupportedOperators:
    counts = Counter(name for name, _ in problems)
    first: dict[str, Node] = {}
    for name, node in problems:
        first.setdefault(name, node)
    return UnsupportedOperators(
        f"{name}: {counts[name]} time{'s' if counts[name] > 1 else ''}, first at {_place(node)}"
        for name, node in first.items()
    )


def _place(node: Node) -> str:
    """The user's line that made a node, if it is known, else its name in the traced graph."""
    return node.stack_trace or f"graph node {node.name}"


def _refuse_outside_tensors(graph: GraphModule) -> None:
    outside = [
        node
        for node in graph.graph.nodes
        if node.op == "get_attr" and any(_name(user) not in _BIRTHS for user in node.users)
    ]
    if outside:
        shapes = ", ".join(str(list(getattr(graph, str(node.target)).shape)) for node in outside)
        raise CaptureError(
            f"it uses {len(outside)} tensor(s) from outside its arguments, of shape {shapes}",
            "step",
            "Pass them through state or batch",
        )


def _refuse_changed_arguments(graph: GraphModule, names: Sequence[str]) -> None:
    """A functional trace writes to its arguments only to give them back changed."""
    arguments = [node for node in graph.graph.nodes if node.op == "placeholder"]
    writes = [node for node in graph.graph.nodes if _name(node) == "aten.copy_.default"]
    changed = [name for name, node in zip(names, arguments, strict=True) if any(w.args[0] is node for w in writes)]
    if changed:
        raise CaptureError(f"it changes {', '.join(changed)} in place", "step", "Clone first, or return a new tensor")


_BIRTHS = ("aten.lift_fresh_copy.default", "aten.lift_fresh.default")


class _Lowering:
    """One method per ATen overload, found by the table below; arguments arrive as values and plain Python objects."""

    def __init__(self, builder: Builder, graph: GraphModule) -> None:
        self.b = builder
        self.graph = graph
        self.node: Node

    def problem_of(self, node: Node) -> str | None:
        """Why a node cannot be lowered, before looking at its arguments."""
        if node.op == "get_attr" or node.target is operator.getitem:
            return None
        schema = getattr(node.target, "_schema", None)
        if _name(node) not in _RULES:
            return _name(node) + (" (in place)" if schema is not None and schema.is_mutable else "")
        metas = node.meta["val"] if isinstance(node.meta["val"], (tuple, list)) else [node.meta["val"]]
        for meta in metas:
            if meta is not None and meta.dtype not in _DTYPES:
                return f"{_name(node)} ({meta.dtype})"
        return None

    def run(self, node: Node, env: dict[Node, Outputs | None]) -> Outputs | None:
        """Lowers one node."""
        self.node = node
        if node.op == "get_attr":
            tensor = getattr(self.graph, str(node.target)).detach()
            try:
                return self._constant(tensor)
            except TensorError:
                raise Unsupported(f"a constant of dtype {tensor.dtype}") from None
        args: Any = torch.fx.map_arg(node.args, env.__getitem__)  # type: ignore[arg-type]
        kwargs: Any = torch.fx.map_arg(node.kwargs, env.__getitem__)  # type: ignore[arg-type]
        if node.target is operator.getitem:
            chosen: Outputs | None = args[0][args[1]]
            return chosen
        return self._rounded(_RULES[_name(node)](self, *args, **kwargs))

    def _rounded(self, result: Outputs) -> Outputs:
        """Floats in the dtypes that torch gives this node's outputs."""
        meta = self.node.meta["val"]
        if isinstance(result, Value):
            own = DType.of(meta.dtype)
            return self.b.cast(result, own) if result.dtype.is_float and own.is_float else result
        kept = _STATISTICS.get(_name(self.node), ())
        return tuple(
            self.b.cast(value, DType.of(m.dtype))
            if value is not None and m is not None and value.dtype.is_float and i not in kept
            else value
            for i, (value, m) in enumerate(zip(result, meta, strict=False))
        )

    # What this node's output must be.

    @property
    def dtype(self) -> DType:
        """In which the node computes: f32 for every float."""
        return _DTYPES[self.node.meta["val"].dtype]

    @property
    def own_dtype(self) -> DType:
        """The output's, for operators that copy bits."""
        return DType.of(self.node.meta["val"].dtype)

    @property
    def shape(self) -> Shape:
        return tuple(int(d) for d in self.node.meta["val"].shape)

    def _constant(self, tensor: torch.Tensor) -> Value:
        dtype = DType.of(tensor.dtype)
        if tensor.ndim == 0:
            return self.b.scalar(tensor.item(), dtype)
        return self.b.constant(as_array(tensor))

    def operand(self, x: Value | float, dtype: DType) -> Value:
        """A value cast to dtype, or a Python number rounded once to it."""
        return self.b.cast(x, dtype) if isinstance(x, Value) else self.b.scalar(x, dtype)

    # Elementwise

    def unary(self, op: str, x: Value, **_: object) -> Value:
        return self.b.pointwise(op, self.operand(x, self.dtype))

    def unary_f32(self, op: str, x: Value, **_: object) -> Value:
        return self.b.pointwise(op, self.operand(x, F32))

    def arithmetic(self, op: str, x: Value | float, y: Value | float) -> Value:
        """add, sub, mul, maximum, minimum in the output's dtype; for bools or and and."""
        if self.dtype is BOOL:
            logical = {"add": "logical_or", "mul": "logical_and", "maximum": "logical_or", "minimum": "logical_and"}
            if op not in logical:
                raise Unsupported("of bools")
            op = logical[op]
        return self.b.pointwise(op, self.operand(x, self.dtype), self.operand(y, self.dtype))

    def add_sub(self, op: str, x: Value | float, y: Value | float, alpha: float = 1) -> Value:
        if alpha != 1:
            y = self.b.pointwise("mul", self.operand(y, self.dtype), self.b.scalar(alpha, self.dtype))
        return self.arithmetic(op, x, y)

    def rsub(self, x: Value, y: Value | float, alpha: float = 1) -> Value:
        if alpha != 1:
            x = self.b.pointwise("mul", self.operand(x, self.dtype), self.b.scalar(alpha, self.dtype))
        return self.arithmetic("sub", y, x)

    def div(self, x: Value | float, y: Value | float) -> Value:
        return self.b.pointwise("div", self.operand(x, F32), self.operand(y, F32))

    def reciprocal(self, x: Value) -> Value:
        return self.div(1.0, x)

    def compare(self, op: str, x: Value | float, y: Value | float) -> Value:
        metas: list[Any] = [m.meta["val"] if isinstance(m, Node) else m for m in self.node.args[:2]]
        common = torch.result_type(*metas)
        if common not in _DTYPES:
            raise Unsupported(f"compares in {common}")
        dtype = I64 if common is torch.bool else _DTYPES[common]
        return self.b.pointwise(op, self.operand(x, dtype), self.operand(y, dtype), dtype=BOOL)

    def isnan(self, x: Value) -> Value:
        return self.b.pointwise("ne", x, x, dtype=BOOL)

    def isinf(self, x: Value) -> Value:
        x = self.b.pointwise("abs", self._float(x))
        return self.b.pointwise("eq", x, self.b.scalar(float("inf"), F32), dtype=BOOL)

    def logical(self, op: str, *values: Value | bool) -> Value:
        return self.b.pointwise(op, *[self.operand(v, BOOL) for v in values], dtype=BOOL)

    def bitwise(self, op: str, *values: Value | bool) -> Value:
        if self.dtype is not BOOL:
            raise Unsupported("of integers")
        return self.logical(op, *values)

    def where(self, condition: Value, x: Value | float, y: Value | float) -> Value:
        dtype = self.own_dtype
        return self.b.pointwise("where", condition, self.operand(x, dtype), self.operand(y, dtype))

    def clamp(self, x: Value, low: Value | float | None = None, high: Value | float | None = None) -> Value:
        x = self.operand(x, self.dtype)
        if low is not None:
            x = self.b.pointwise("maximum", x, self.operand(low, self.dtype))
        if high is not None:
            x = self.b.pointwise("minimum", x, self.operand(high, self.dtype))
        return x

    def clamp_max(self, x: Value, high: float) -> Value:
        return self.clamp(x, None, high)

    def hardtanh(self, x: Value, low: float = -1, high: float = 1) -> Value:
        return self.clamp(x, low, high)

    def relu(self, x: Value) -> Value:
        return self.unary("relu", x) if self.dtype is F32 else self.clamp(x, 0)

    def leaky_relu(self, x: Value, slope: float = 0.01) -> Value:
        return self.leaky_relu_backward(x, x, slope, False)

    def leaky_relu_backward(self, dy: Value, x: Value, slope: float, _: bool) -> Value:
        positive = self.b.pointwise("gt", x, self.b.scalar(0.0, F32), dtype=BOOL)
        return self.b.pointwise("where", positive, dy, self.b.pointwise("mul", dy, self.b.scalar(slope, F32)))

    def sign(self, x: Value) -> Value:
        zero = self.b.scalar(0, x.dtype)
        above, below = (self.b.pointwise(op, x, zero, dtype=BOOL) for op in ("gt", "lt"))
        return self.b.pointwise("sub", self.b.cast(above, self.dtype), self.b.cast(below, self.dtype))

    def power(self, x: Value, exponent: float) -> Value:
        """Small integer exponents by multiplication from the left, the square roots, else `pow`."""
        x = self.operand(x, self.dtype)
        if self.dtype is F32 and exponent in (0.5, -0.5):
            return self.b.pointwise("sqrt" if exponent > 0 else "rsqrt", x)
        if abs(exponent) > 16 or exponent != int(exponent) or (exponent < 0 and self.dtype is not F32):
            return self.power_of(x, exponent)
        if exponent == 0:
            return self.b.full(x.shape, 1, self.dtype)
        out = x
        for _ in range(abs(int(exponent)) - 1):
            out = self.b.pointwise("mul", out, x)
        return out if exponent > 0 else self.b.pointwise("div", self.b.scalar(1.0, F32), out)

    def power_of(self, x: Value | float, y: Value | float) -> Value:
        if self.dtype is not F32:
            raise Unsupported(f"of {self.dtype.text}")
        if x == 2.0 and isinstance(y, Value):
            return self.b.pointwise("exp2", self.operand(y, F32))
        return self.b.pointwise("pow", self.operand(x, F32), self.operand(y, F32))

    def tan(self, x: Value) -> Value:
        return self.b.pointwise("div", self.unary_f32("sin", x), self.unary_f32("cos", x))

    def elu(self, x: Value, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Value:
        positive = self.b.pointwise("gt", x, self.b.scalar(0.0, F32), dtype=BOOL)
        below = self._times(self.b.pointwise("expm1", self._times(x, input_scale)), alpha * scale)
        return self.b.pointwise("where", positive, self._times(x, scale), below)

    def softplus(self, x: Value, beta: float = 1, threshold: float = 20) -> Value:
        z = self._times(x, beta)
        y = self.b.pointwise("softplus", z)
        return self._beyond(z, threshold, x, y if beta == 1 else self._over(y, beta))

    def softplus_backward(self, dy: Value, x: Value, beta: float, threshold: float) -> Value:
        z = self._times(x, beta)
        return self._beyond(z, threshold, dy, self.b.pointwise("mul", dy, self.b.pointwise("sigmoid", z)))

    def _beyond(self, z: Value, threshold: float, linear: Value, y: Value) -> Value:
        """Softplus is the identity above a threshold; from 18 on it is so in binary32 anyway."""
        if threshold >= 18:
            return y
        above = self.b.pointwise("gt", z, self.b.scalar(threshold, F32), dtype=BOOL)
        return self.b.pointwise("where", above, linear, y)

    def _times(self, x: Value, factor: float) -> Value:
        return x if factor == 1 else self.b.pointwise("mul", x, self.b.scalar(factor, F32))

    def gelu(self, x: Value, approximate: str = "none") -> Value:
        return self.b.pointwise("gelu_tanh" if approximate == "tanh" else "gelu_erf", x)

    def gelu_backward(self, dy: Value, x: Value, approximate: str = "none") -> Value:
        return self.b.pointwise("gelu_tanh_grad" if approximate == "tanh" else "gelu_erf_grad", dy, x)

    def threshold_backward(self, dy: Value, y: Value, threshold: float) -> Value:
        if threshold != 0:
            raise Unsupported(f"threshold {threshold}")
        return self.b.pointwise("relu_grad", dy, y)

    def gradient(self, op: str, dy: Value, y: Value) -> Value:
        return self.b.pointwise(op, dy, y)

    def to_copy(self, x: Value, **_: object) -> Value:
        return self.b.cast(x, self.own_dtype)

    def copy(self, destination: Value, source: Value, *_: object) -> Value:
        return self.b.expand(self.b.cast(source, destination.dtype), destination.shape)

    # Births

    def filled(self, number: float) -> Value:
        return self.b.full(self.shape, number, self.own_dtype)

    def full(self, size: object, number: float, **_: object) -> Value:
        return self.filled(number)

    def new_full(self, x: Value, size: object, number: float, **_: object) -> Value:
        return self.filled(number)

    def zeros(self, *_: object, **__: object) -> Value:
        return self.filled(0)

    def ones(self, *_: object, **__: object) -> Value:
        return self.filled(1)

    def scalar_tensor(self, number: float, **_: object) -> Value:
        return self.filled(number)

    def arange(self, start: float, end: float, step: float = 1, **_: object) -> Value:
        if any(v != int(v) for v in (start, step)):
            raise Unsupported(f"start {start}, step {step}")
        return self.b.cast(self.b.iota(self.shape[0], int(start), int(step)), self.dtype)

    def arange_to(self, end: float, **_: object) -> Value:
        return self.arange(0, end)

    # Views

    def same(self, x: Value, *_: object, **__: object) -> Value:
        return x

    def reshaped(self, x: Value, *_: object, **__: object) -> Value:
        return self.b.view(x, self.shape)

    def expand(self, x: Value, *_: object, **__: object) -> Value:
        return self.b.expand(x, self.shape)

    def repeat(self, x: Value, repeats: Sequence[int]) -> Value:
        shape = (*[1] * (len(repeats) - len(x.shape)), *x.shape)
        apart = self.b.view(x, tuple(d for n in shape for d in (1, n)))
        apart = self.b.expand(apart, tuple(d for pair in zip(repeats, shape, strict=True) for d in pair))
        return self.b.view(apart, self.shape)

    def flip(self, x: Value, dims: Sequence[int]) -> Value:
        for dim in dims:
            dim %= len(x.shape)
            x = self.index(x, [None] * dim + [self.b.iota(x.shape[dim], x.shape[dim] - 1, -1)])
        return x

    def permute(self, x: Value, dims: Sequence[int]) -> Value:
        return self.b.permute(x, [d % len(x.shape) for d in dims])

    def transpose(self, x: Value, a: int, b: int) -> Value:
        dims = list(range(len(x.shape)))
        dims[a], dims[b] = dims[b], dims[a]
        return self.b.permute(x, dims)

    def t(self, x: Value) -> Value:
        return self.b.permute(x, list(range(len(x.shape)))[::-1])

    # Data movement

    def slice(self, x: Value, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Value:
        dim %= len(x.shape)
        begin, stop, step = slice(start, end, step).indices(x.shape[dim])
        length = len(range(begin, stop, step))
        if length == x.shape[dim]:
            return x
        shape = (*x.shape[:dim], length, *x.shape[dim + 1 :])
        return self.b.node("slice", [x], x.dtype, shape, (dim, min(begin, x.shape[dim]), step))

    def select(self, x: Value, dim: int, index: int) -> Value:
        dim %= len(x.shape)
        index %= x.shape[dim]
        return self.b.view(self.slice(x, dim, index, index + 1), (*x.shape[:dim], *x.shape[dim + 1 :]))

    def split(self, x: Value, sizes: int | Sequence[int], dim: int = 0) -> tuple[Value, ...]:
        dim %= len(x.shape)
        if isinstance(sizes, int):
            sizes = [min(sizes, x.shape[dim] - i) for i in range(0, x.shape[dim], sizes)]
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        return tuple(self.slice(x, dim, a, a + n) for a, n in zip(starts, sizes, strict=True))

    def unbind(self, x: Value, dim: int = 0) -> tuple[Value, ...]:
        return tuple(self.select(x, dim, i) for i in range(x.shape[dim]))

    def slice_backward(self, dy: Value, sizes: Sequence[int], dim: int, start: int, end: int, step: int) -> Value:
        dim %= len(sizes)
        begin, _, step = slice(start, end, step).indices(sizes[dim])
        if dy.shape == tuple(sizes):
            return dy
        return self.b.node("slice_grad", [dy], dy.dtype, tuple(sizes), (dim, begin, step))

    def select_backward(self, dy: Value, sizes: Sequence[int], dim: int, index: int) -> Value:
        dim, index = dim % len(sizes), index % sizes[dim]
        dy = self.b.view(dy, (*sizes[:dim], 1, *sizes[dim + 1 :]))
        return self.slice_backward(dy, sizes, dim, index, index + 1, 1)

    def slice_scatter(
        self, x: Value, source: Value, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
    ) -> Value:
        dim %= len(x.shape)
        if step != 1:
            raise Unsupported(f"step {step}")
        begin = slice(start, end).indices(x.shape[dim])[0]
        if self.b.is_zeros(x):
            return self.slice_backward(source, x.shape, dim, begin, begin + source.shape[dim], 1)
        after = begin + source.shape[dim]
        parts = [self.slice(x, dim, 0, begin), self.b.cast(source, x.dtype), self.slice(x, dim, after, x.shape[dim])]
        return self.cat([p for p in parts if p.shape[dim]], dim)

    def select_scatter(self, x: Value, source: Value, dim: int, index: int) -> Value:
        dim, index = dim % len(x.shape), index % x.shape[dim]
        row = self.b.view(source, (*x.shape[:dim], 1, *x.shape[dim + 1 :]))
        return self.slice_scatter(x, row, dim, index, index + 1)

    def pad(self, x: Value, pads: Sequence[int], value: float = 0) -> Value:
        zero = pattern(value, x.dtype) == 0
        for i in range(len(pads) // 2):
            dim, (before, after) = len(x.shape) - 1 - i, pads[2 * i : 2 * i + 2]
            x = self.slice(x, dim, max(-before, 0), x.shape[dim] + min(after, 0))
            before, after = max(before, 0), max(after, 0)
            if (before or after) and not zero:
                sizes = ((*x.shape[:dim], n, *x.shape[dim + 1 :]) for n in (before, after))
                left, right = (self.b.full(size, value, x.dtype) for size in sizes)
                x = self._cat([v for v in (left, x, right) if v.shape[dim]], dim)
            elif before or after:
                shape = (*x.shape[:dim], before + x.shape[dim] + after, *x.shape[dim + 1 :])
                x = self.b.node("slice_grad", [x], x.dtype, shape, (dim, before, 1))
        return x

    def cat(self, values: Sequence[Value], dim: int = 0) -> Value:
        parts = [self.b.cast(v, self.own_dtype) for v in values if v.shape != (0,)]
        return self._cat(parts, dim % len(self.shape))

    def _cat(self, parts: Sequence[Value], dim: int) -> Value:
        while len(parts) > 1:
            head = parts[:64]  # the limit on inputs of a node
            shape = (*head[0].shape[:dim], sum(p.shape[dim] for p in head), *head[0].shape[dim + 1 :])
            parts = [self.b.node("cat", head, head[0].dtype, shape, (dim,)), *parts[64:]]
        return parts[0]

    def gather(self, x: Value, dim: int, index: Value, **_: object) -> Value:
        if not x.shape:
            return x
        return self.b.node("gather", [x, index], x.dtype, self.shape, (dim % len(x.shape),))

    def scatter(self, x: Value, dim: int, index: Value, number: float) -> Value:
        if not x.shape:
            raise Unsupported("rank 0")
        bits = pattern(number, x.dtype)
        return self.b.node("scatter", [x, index], x.dtype, x.shape, (dim % len(x.shape),), (bits,))

    def embedding(self, weight: Value, index: Value, *_: object, **__: object) -> Value:
        return self.b.node("embedding", [weight, index], weight.dtype, self.shape)

    def embedding_backward(
        self, dy: Value, index: Value, rows: int, padding: int = -1, scale_grad_by_freq: bool = False
    ) -> Value:
        if scale_grad_by_freq:
            raise Unsupported("scale_grad_by_freq")
        if padding >= 0:  # outside: embedding_grad drops it
            index = self.b.cast(index, I64)
            is_padding = self.b.pointwise("eq", index, self.b.scalar(padding, I64), dtype=BOOL)
            index = self.b.pointwise("where", is_padding, self.b.scalar(-1, I64), index)
        n = index.count
        return self.b.embedding_grad(self.b.view(dy, (n, dy.shape[-1])), self.b.view(index, (n,)), rows)

    def scatter_tensor(
        self, x: Value, dim: int, index: Value, source: Value, *, accumulate: bool = False, **_: object
    ) -> Value:
        if not x.shape:
            raise Unsupported("rank 0")
        for axis, n in enumerate(index.shape):
            source = self.slice(source, axis, 0, n)
        lines: list[Value | None] = [self._positions(index.shape, axis) for axis in range(len(index.shape))]
        lines[dim % len(x.shape)] = index
        return self.index_put(x, lines, source, accumulate)

    def scatter_add(self, x: Value, dim: int, index: Value, source: Value) -> Value:
        return self.scatter_tensor(x, dim, index, source, accumulate=True)

    def _positions(self, shape: Shape, axis: int) -> Value:
        """i64 of this shape: the index along an axis."""
        return self.b.view(self.b.iota(shape[axis], 0, 1), (shape[axis], *[1] * (len(shape) - axis - 1)))

    def index(self, x: Value, indices: Sequence[Value | None]) -> Value:
        index, axes = self._indexed(x, indices)
        table, rest = self._table(x, axes)
        out = self.b.node("embedding", [table, index], x.dtype, (*index.shape, table.shape[1]))
        first = len(index.shape)
        out = self.b.view(out, (*index.shape, *rest))
        before = _axes_before(axes)
        order = [*range(first, first + before), *range(first), *range(first + before, len(out.shape))]
        return self.b.view(self.b.permute(out, order), self.shape)

    def index_select(self, x: Value, dim: int, index: Value) -> Value:
        return self.index(x, [None] * (dim % max(1, len(x.shape))) + [index])

    def index_add(self, x: Value, dim: int, index: Value, source: Value, *, alpha: float = 1) -> Value:
        if alpha != 1:
            raise Unsupported(f"alpha {alpha}")
        return self.index_put(x, [None] * (dim % max(1, len(x.shape))) + [index], source, True)

    def index_put(self, x: Value, indices: Sequence[Value | None], source: Value, accumulate: bool = False) -> Value:
        if accumulate and not x.dtype.is_float:
            raise Unsupported("accumulates integers")
        index, axes = self._indexed(x, indices)
        kept = [a for a in range(len(x.shape)) if a not in axes]
        rest = tuple(x.shape[a] for a in kept)
        first, before = len(index.shape), _axes_before(axes)
        source = self.b.expand(source, (*rest[:before], *index.shape, *rest[before:]))
        order = [*range(before, before + first), *range(before), *range(before + first, len(source.shape))]
        n, width, rows = index.count, prod(rest), prod(x.shape[a] for a in axes)
        index, source = self.b.view(index, (n,)), self.b.view(self.b.permute(source, order), (n, width))
        shape = (*(x.shape[a] for a in axes), *rest)
        back = [[*axes, *kept].index(a) for a in range(len(x.shape))]
        if accumulate:
            added = self.b.permute(self.b.view(self.b.embedding_grad(source, index, rows), shape), back)
            return added if self.b.is_zeros(x) else self.b.pointwise("add", x, added)
        last = self._last_writers(index, rows)
        new = self.b.node("embedding", [source, last], x.dtype, (rows, width))
        written = self.b.pointwise("ge", last, self.b.scalar(0, I64), dtype=BOOL)
        written = self.b.view(written, (*shape[: len(axes)], *[1] * len(rest)))
        new, written = self.b.view(new, shape), self.b.expand(written, shape)
        return self.b.pointwise("where", self.b.permute(written, back), self.b.permute(new, back), x)

    def _last_writers(self, index: Value, rows: int) -> Value:
        """For each row the last t with index [n] at t equal to it, -1 if there is none; i64 [rows]."""
        n = index.count
        if n * rows > 2**24:
            raise Unsupported(f"without accumulate, {n} rows into {rows}")
        row = self.b.view(self.b.iota(rows, 0, 1), (rows, 1))
        here = self.b.pointwise("eq", row, index, dtype=BOOL)
        place = self.b.pointwise("where", here, self.b.cast(self.b.iota(n, 0, 1), F32), self.b.scalar(-1.0, F32))
        return self.b.cast(self.b.reduce("amax", place, [1]), I64)

    def index_copy(self, x: Value, dim: int, index: Value, source: Value) -> Value:
        return self.index_put(x, [None] * (dim % max(1, len(x.shape))) + [index], source)

    def _indexed(self, x: Value, indices: Sequence[Value | None]) -> tuple[Value, list[int]]:
        """The row numbers, over the indexed axes of x as one, of an index by integer tensors; and those axes.

        A negative index counts from the end of its axis.
        """
        axes = [a for a, index in enumerate(indices) if index is not None]
        total: Value | None = None
        for axis in axes:
            index = indices[axis]
            assert index is not None
            if index.dtype is BOOL:
                raise Unsupported("by a mask: the shape depends on values")
            index = self.b.cast(index, I64)
            negative = self.b.pointwise("lt", index, self.b.scalar(0, I64), dtype=BOOL)
            wrapped = self.b.pointwise("add", index, self.b.scalar(x.shape[axis], I64))
            index = self.b.pointwise("where", negative, wrapped, index)
            if total is None:
                total = index
            else:
                total = self.b.pointwise("mul", total, self.b.scalar(x.shape[axis], I64))
                total = self.b.pointwise("add", total, index)
        if total is None:
            raise Unsupported("by no tensor")
        return total, axes

    def _table(self, x: Value, axes: Sequence[int]) -> tuple[Value, Shape]:
        """x as rows [product of the indexed axes, product of the others], and the others."""
        kept = [a for a in range(len(x.shape)) if a not in axes]
        rest = tuple(x.shape[a] for a in kept)
        rows = prod(x.shape[a] for a in axes)
        return self.b.view(self.b.permute(x, [*axes, *kept]), (rows, prod(rest))), rest

    # Reductions

    def sum(self, x: Value, dims: Sequence[int] | None = None, keepdim: bool = False, **_: object) -> Value:
        if self.dtype is F32:
            x = self.b.cast(x, F32)
        out = self.b.reduce("sum", x, _axes(x, dims))
        return self.b.cast(self.b.view(out, self.shape), self.dtype)

    def mean(self, x: Value, dims: Sequence[int] | None = None, keepdim: bool = False, **_: object) -> Value:
        axes = _axes(x, dims)
        out = self.b.reduce("sum", self.b.cast(x, F32), axes)
        return self._over(self.b.view(out, self.shape), prod(x.shape[a] for a in axes))

    def amax(self, x: Value, dims: Sequence[int] | None = None, keepdim: bool = False) -> Value:
        return self.b.view(self.b.reduce("amax", self._float(x), _axes(x, dims)), self.shape)

    def amin(self, x: Value, dims: Sequence[int] | None = None, keepdim: bool = False) -> Value:
        negative = self.b.reduce("amax", self.b.pointwise("neg", self._float(x)), _axes(x, dims))
        return self.b.view(self.b.pointwise("neg", negative), self.shape)

    def var(
        self, x: Value, dims: Sequence[int] | None = None, *, correction: float | None = None, keepdim: bool = False
    ) -> Value:
        axes = _axes(x, dims)
        kept = [a for a in range(len(x.shape)) if a not in axes]
        n = prod(x.shape[a] for a in axes)
        if kept == [1]:  # of channels: shares the nodes of batch norm
            _, ssq = (c := spatial.Channels(self.b, x.shape)).statistics(c.rows(self._float(x)))
            return self.b.view(self._over(ssq, n - (1 if correction is None else correction)), self.shape)
        rows = self.b.view(self.b.plain(self.b.permute(self._float(x), [*kept, *axes])), (x.count // max(n, 1), n))
        mean = self._over(self.b.fold("sum", [rows], 1), n)
        ssq = self.b.fold("sum_sq_centered", [rows, mean], 1)
        return self.b.view(self._over(ssq, n - (1 if correction is None else correction)), self.shape)

    def vector_norm(
        self, x: Value, order: float = 2, dims: Sequence[int] | None = None, keepdim: bool = False, **_: object
    ) -> Value:
        """The square root of the sum of squares; over all axes: of each row, then of the rows' sums."""
        if order != 2:
            raise Unsupported(f"order {order}")
        axes, x = _axes(x, dims), self._float(x)
        total = self.b.reduce("sum_sq", x, axes[-1:] if len(axes) == len(x.shape) else axes)
        total = self.b.reduce("sum", total, range(len(total.shape))) if len(axes) == len(x.shape) else total
        return self.b.view(self.b.pointwise("sqrt", total), self.shape)

    def argmax(self, x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
        x = self._float(x) if dim is not None else self.b.view(self._float(x), (x.count,))
        return self.b.view(self._argmax(x, dim or 0)[1], self.shape)

    def max_dim(self, x: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
        shape = tuple(int(d) for d in self.node.meta["val"][0].shape)
        values, places = self._argmax(self._float(x), dim)
        return self.b.view(values, shape), self.b.view(places, shape)

    def min_dim(self, x: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
        values, places = self.max_dim(self.b.pointwise("neg", self._float(x)), dim)
        return self.b.pointwise("neg", values), places

    def _argmax(self, x: Value, dim: int) -> tuple[Value, Value]:
        """Maxima along an axis and the first place of each, or of a NaN: n - 1 - amax(n - 1 - place), exact in f32."""
        dim %= max(1, len(x.shape))
        n = x.shape[dim] if x.shape else 1
        if n >= 2**24 or not x.shape:
            raise Unsupported(f"of {n} elements, rank {len(x.shape)}")
        places = self.b.cast(self.b.iota(n, n - 1, -1), F32)
        places = self.b.view(places, (n, *[1] * (len(x.shape) - dim - 1)))
        m = self.b.view(self.b.reduce("amax", x, [dim]), (*x.shape[:dim], 1, *x.shape[dim + 1 :]))
        best = self.b.pointwise("eq", x, m, dtype=BOOL)
        best = self.b.pointwise("logical_or", best, self.isnan(x))
        places = self.b.pointwise("where", best, places, self.b.scalar(-1.0, F32))
        place = self.b.pointwise("sub", self.b.scalar(n - 1.0, F32), self.b.reduce("amax", places, [dim]))
        return m, self.b.cast(place, I64)

    def argmin(self, x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
        return self.argmax(self.b.pointwise("neg", self._float(x)), dim, keepdim)

    def any(self, x: Value, dims: int | Sequence[int] | None = None, keepdim: bool = False) -> Value:
        count = self.b.reduce("sum", self.b.cast(x, BOOL), _axes(x, dims))
        return self.b.view(self.b.pointwise("ne", count, self.b.scalar(0, I64), dtype=BOOL), self.shape)

    def _float(self, x: Value) -> Value:
        if not x.dtype.is_float:
            raise Unsupported(f"of {x.dtype.text}")
        return x

    def _over(self, x: Value, count: float) -> Value:
        """x / count."""
        return self.b.pointwise("div", x, self.b.scalar(count, F32))

    # Matmul

    def mm(self, a: Value, b: Value) -> Value:
        return self.b.matmul(self._float(a), self._float(b))

    def addmm(self, bias: Value, a: Value, b: Value, *, beta: float = 1, alpha: float = 1) -> Value:
        out = self.mm(a, b)
        if alpha != 1:
            out = self.b.pointwise("mul", out, self.b.scalar(alpha, F32))
        if beta == 0:
            return out
        if beta != 1:
            bias = self.b.pointwise("mul", bias, self.b.scalar(beta, F32))
        return self.b.pointwise("add", out, bias)

    # Row operators: statistic nodes and one pointwise node

    def _along(self, values: Sequence[Value], dim: int) -> tuple[list[Value], int]:
        """Values of one shape viewed as [outer, N, inner] (shorter where an end is 1), and the axis of N."""
        shape = values[0].shape or (1,)
        dim %= len(shape)
        outer, inner = prod(shape[:dim]), prod(shape[dim + 1 :])
        view = (outer, shape[dim]) if inner == 1 else (outer, shape[dim], inner)
        return [self.b.view(self.b.plain(v), view) for v in values], 1

    def softmax(self, op: str, x: Value, dim: int, half_to_float: bool = False) -> Value:
        (x,), axis = self._along([self._float(x)], dim)
        m = self.b.fold("amax", [x], axis)
        s = self.b.fold("sum_exp", [x, m], axis)
        return self.b.view(self.b.pointwise(op, x, m, s), self.shape)

    def softmax_backward(self, dy: Value, y: Value, dim: int, _: object) -> Value:
        (dy, y), axis = self._along([dy, y], dim)
        t = self.b.fold("sum_mul", [dy, y], axis)
        return self.b.view(self.b.pointwise("mul", self.b.pointwise("sub", dy, t), y), self.shape)

    def log_softmax_backward(self, dy: Value, y: Value, dim: int, _: object) -> Value:
        (dy, y), axis = self._along([dy, y], dim)
        t = self.b.fold("sum", [dy], axis)
        p = self.b.pointwise("exp", y)
        return self.b.view(self.b.pointwise("sub", dy, self.b.pointwise("mul", p, t)), self.shape)

    def layer_norm(
        self, x: Value, normalized: Sequence[int], weight: Value | None, bias: Value | None, eps: float
    ) -> tuple[Value, ...]:
        shape, n = x.shape, prod(normalized)
        rows = prod(shape) // n if n else 0
        x = self.b.view(self.b.plain(x), (rows, n))
        mean = self._over(self.b.fold("sum", [x], 1), n)
        ssq = self.b.fold("sum_sq_centered", [x, mean], 1)
        rstd = self.b.pointwise("rstd", ssq, literals=(pattern(n, F32), pattern(eps, F32)))
        if weight is None and bias is None:
            out = self.b.pointwise("normalize", x, mean, rstd)
        else:
            w, b = self._affine(weight, n, 1.0), self._affine(bias, n, 0.0)
            out = self.b.pointwise("layer_norm", x, mean, rstd, w, b)
        kept = (*shape[: len(shape) - len(normalized)], *[1] * len(normalized))
        return self.b.view(out, shape), self.b.view(mean, kept), self.b.view(rstd, kept)

    def layer_norm_backward(
        self,
        dy: Value,
        x: Value,
        normalized: Sequence[int],
        mean: Value,
        rstd: Value,
        weight: Value | None,
        bias: Value | None,
        mask: Sequence[bool],
    ) -> tuple[Value | None, ...]:
        shape, n = x.shape, prod(normalized)
        rows = prod(shape) // n if n else 0
        dy, x = (self.b.view(self.b.plain(v), (rows, n)) for v in (dy, x))
        mean, rstd = (self.b.view(self.b.plain(v), (rows, 1)) for v in (mean, rstd))
        w = self._affine(weight, n, 1.0)
        dx = dw = db = None
        if mask[0]:
            g = self.b.pointwise("mul", dy, w)
            c1 = self._over(self.b.fold("sum_mul", [dy, w], 1), n)
            c2 = self._over(self.b.fold("sum_mul_normalized", [g, x, mean, rstd], 1), n)
            dx = self.b.view(self.b.pointwise("layer_norm_grad", dy, x, mean, rstd, w, c1, c2), shape)
        if mask[1] and weight is not None:
            dw = self.b.view(self.b.fold("sum_mul_normalized", [dy, x, mean, rstd], 0), tuple(normalized))
        if mask[2] and bias is not None:
            db = self.b.view(self.b.fold("sum", [dy], 0), tuple(normalized))
        return dx, dw, db

    def _affine(self, x: Value | None, n: int, default: float) -> Value:
        return self.b.scalar(default, F32) if x is None else self.b.view(x, (n,))

    def cumsum(self, x: Value, dim: int, **_: object) -> Value:
        if self.dtype is not I64:
            raise Unsupported(f"of {self.dtype.text}")
        if not x.shape:
            return self.b.cast(x, I64)
        dim %= len(x.shape)
        if x.shape[dim] > FOLD_TERMS:
            raise Unsupported(f"along an axis longer than {FOLD_TERMS}")
        x = x if x.dtype is BOOL else self.b.cast(x, I64)
        return self.b.node("cumsum", [x], I64, x.shape, (dim,))

    def philox(self, seed: Value, step: Value, node: int, shape: Sequence[int]) -> Value:
        return self.b.node("philox", [seed, step], F32, tuple(shape), (node,))

    # Attention group

    def attention(self, q: Value, k: Value, v: Value, causal: bool, scale: float) -> Value:
        s, m, total = self._attention_statistics(q, k, causal, scale)
        return self.b.node("attention_out", [s, m, total, v], F32, self.shape, (int(causal),))

    def attention_backward(
        self, grad: Value, q: Value, k: Value, v: Value, out: Value, causal: bool, scale: float
    ) -> tuple[Value, ...]:
        s, m, total = self._attention_statistics(q, k, causal, scale)
        params, literals = (int(causal),), (pattern(scale, F32),)
        grad, out = self.b.plain(grad), self.b.plain(out)
        delta = self.b.fold("sum_mul", [grad, out], 2)
        dv = self.b.node("attention_dv", [s, m, total, grad], F32, v.shape, params)
        dp = self.b.node("attention_dp", [grad, v], F32, s.shape, params)
        ds = self.b.node("attention_ds", [s, m, total, dp, delta], F32, s.shape, params)
        dq = self.b.node("attention_dq", [ds, k], F32, q.shape, params, literals)
        dk = self.b.node("attention_dk", [ds, q], F32, k.shape, params, literals)
        return dq, dk, dv

    def _attention_statistics(self, q: Value, k: Value, causal: bool, scale: float) -> tuple[Value, Value, Value]:
        """Scores [B, T, S], row maxima and exponential sums [B, T, 1]; the backward finds the forward's nodes again."""
        b, t, s = q.shape[0], q.shape[1], k.shape[1]
        params = (int(causal),)
        scores = self.b.node("attention_scores", [q, k], F32, (b, t, s), params, (pattern(scale, F32),))
        m = self.b.node("attention_max", [scores], F32, (b, t, 1), params)
        return scores, m, self.b.node("attention_sum", [scores, m], F32, (b, t, 1), params)


def _axes(x: Value, dims: int | Sequence[int] | None) -> list[int]:
    """The axes that a reduction names; all if it names none."""
    if isinstance(dims, int):
        dims = [dims]
    return [d % len(x.shape) for d in dims] if dims and x.shape else list(range(len(x.shape)))


def _axes_before(axes: Sequence[int]) -> int:
    """How many axes of x stand before the index's in the result: 0 if the indexed axes are not adjacent."""
    return axes[0] if axes[-1] - axes[0] == len(axes) - 1 else 0


def _with(op: str, method: Rule) -> Rule:
    return lambda lowering, *args, **kwargs: method(lowering, op, *args, **kwargs)


_L = _Lowering
_RULES: dict[str, Rule] = {
    **{f"aten.{n}.default": _with(n, _L.unary) for n in ("neg", "abs")},
    **{
        f"aten.{n}.default": _with(n, _L.unary_f32)
        for n in [
            *("sqrt", "rsqrt", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos"),
            *("tanh", "sigmoid", "erf", "silu"),
        ]
    },
    "aten.relu.default": _L.relu,
    **{f"aten.{n}.{o}": _with(n, _L.add_sub) for n in ("add", "sub") for o in ("Tensor", "Scalar")},
    **{f"aten.rsub.{o}": _L.rsub for o in ("Tensor", "Scalar")},
    **{f"aten.mul.{o}": _with("mul", _L.arithmetic) for o in ("Tensor", "Scalar")},
    **{f"aten.{n}.default": _with(n, _L.arithmetic) for n in ("maximum", "minimum")},
    **{f"aten.div.{o}": _L.div for o in ("Tensor", "Scalar")},
    "aten.reciprocal.default": _L.reciprocal,
    **{
        f"aten.{n}.{o}": _with(n, _L.compare)
        for n in ["eq", "ne", "lt", "le", "gt", "ge"]
        for o in ("Tensor", "Scalar")
    },
    "aten.isnan.default": _L.isnan,
    "aten.isinf.default": _L.isinf,
    **{f"aten.logical_{n}.default": _with(f"logical_{n}", _L.logical) for n in ("and", "or", "xor", "not")},
    **{
        f"aten.bitwise_{n}.{o}": _with(f"logical_{n}", _L.bitwise)
        for n in ("and", "or", "xor")
        for o in ("Tensor", "Scalar")
    },
    "aten.bitwise_not.default": _with("logical_not", _L.bitwise),
    "aten.where.self": _L.where,
    **{f"aten.clamp.{o}": _L.clamp for o in ("default", "Tensor")},
    "aten.clamp_min.default": _L.clamp,
    "aten.clamp_max.default": _L.clamp_max,
    "aten.pow.Tensor_Scalar": _L.power,
    **{f"aten.pow.{o}": _L.power_of for o in ("Tensor_Tensor", "Scalar")},
    "aten.tan.default": _L.tan,
    "aten.elu.default": _L.elu,
    "aten.hardtanh.default": _L.hardtanh,
    "aten.softplus.default": _L.softplus,
    "aten.softplus_backward.default": _L.softplus_backward,
    "aten.leaky_relu.default": _L.leaky_relu,
    "aten.leaky_relu_backward.default": _L.leaky_relu_backward,
    "aten.sign.default": _L.sign,
    "aten.sgn.default": _L.sign,
    "aten.gelu.default": _L.gelu,
    "aten.gelu_backward.default": _L.gelu_backward,
    "aten.threshold_backward.default": _L.threshold_backward,
    **{f"aten.{n}_backward.default": _with(f"{n}_grad", _L.gradient) for n in ("tanh", "sigmoid", "silu")},
    "aten._to_copy.default": _L.to_copy,
    "aten.copy.default": _L.copy,
    "aten.full.default": _L.full,
    "aten.full_like.default": _L.full,
    "aten.new_full.default": _L.new_full,
    **{f"aten.{p}zeros{s}.default": _L.zeros for p, s in (("", ""), ("", "_like"), ("new_", ""))},
    **{f"aten.{p}ones{s}.default": _L.ones for p, s in (("", ""), ("", "_like"), ("new_", ""))},
    "aten.scalar_tensor.default": _L.scalar_tensor,
    "aten.arange.start_step": _L.arange,
    "aten.arange.start": _L.arange,
    "aten.arange.default": _L.arange_to,
    **{
        f"aten.{n}.default": _L.same
        for n in (
            "alias",
            "detach",
            "clone",
            "lift_fresh_copy",
            "lift_fresh",
            "contiguous",
            "alias_copy",
            "detach_copy",
        )
    },
    **{
        f"aten.{n}": _L.reshaped
        for n in [
            "view.default",
            "view_copy.default",
            "_unsafe_view.default",
            "reshape.default",
            "unsqueeze.default",
            "unsqueeze_copy.default",
            "squeeze.default",
            "squeeze.dim",
            "squeeze.dims",
            "squeeze_copy.dims",
        ]
    },
    **{f"aten.{n}.default": _L.expand for n in ("expand", "expand_copy")},
    **{f"aten.{n}.default": _L.permute for n in ("permute", "permute_copy")},
    "aten.repeat.default": _L.repeat,
    "aten.flip.default": _L.flip,
    "aten.transpose.int": _L.transpose,
    "aten.t.default": _L.t,
    "aten.slice.Tensor": _L.slice,
    "aten.select.int": _L.select,
    **{f"aten.split{n}": _L.split for n in (".Tensor", "_with_sizes.default")},
    "aten.unbind.int": _L.unbind,
    "aten.slice_scatter.default": _L.slice_scatter,
    "aten.select_scatter.default": _L.select_scatter,
    "aten.slice_backward.default": _L.slice_backward,
    "aten.select_backward.default": _L.select_backward,
    "aten.constant_pad_nd.default": _L.pad,
    "aten.cat.default": _L.cat,
    "aten.gather.default": _L.gather,
    "aten.scatter_add.default": _L.scatter_add,
    "aten.scatter.src": _L.scatter_tensor,
    "aten.scatter.value": _L.scatter,
    "aten.embedding.default": _L.embedding,
    "aten.embedding_dense_backward.default": _L.embedding_backward,
    "aten.index.Tensor": _L.index,
    "aten.index_put.default": _L.index_put,
    "aten.index_copy.default": _L.index_copy,
    "aten.index_select.default": _L.index_select,
    "aten.index_add.default": _L.index_add,
    "aten.var.correction": _L.var,
    "aten.sum.dim_IntList": _L.sum,
    "aten.sum.default": _L.sum,
    "aten.mean.dim": _L.mean,
    "aten.mean.default": _L.mean,
    "aten.amax.default": _L.amax,
    "aten.amin.default": _L.amin,
    "aten.max.default": _L.amax,
    "aten.min.default": _L.amin,
    "aten.max.dim": _L.max_dim,
    "aten.min.dim": _L.min_dim,
    "aten.argmax.default": _L.argmax,
    "aten.argmin.default": _L.argmin,
    "aten.linalg_vector_norm.default": _L.vector_norm,
    **{f"aten.any.{o}": _L.any for o in ("default", "dim", "dims")},
    "aten.mm.default": _L.mm,
    "aten.bmm.default": _L.mm,
    "aten.addmm.default": _L.addmm,
    "aten.baddbmm.default": _L.addmm,
    "aten._softmax.default": _with("softmax", _L.softmax),
    "aten._log_softmax.default": _with("log_softmax", _L.softmax),
    "aten._softmax_backward_data.default": _L.softmax_backward,
    "aten._log_softmax_backward_data.default": _L.log_softmax_backward,
    "aten.native_layer_norm.default": _L.layer_norm,
    "aten.native_layer_norm_backward.default": _L.layer_norm_backward,
    **spatial.RULES,
    **pooling.RULES,
    "aten.cumsum.default": _L.cumsum,
    "repops.philox.default": _L.philox,
    "repops.attention.default": _L.attention,
    "repops.attention_backward.default": _L.attention_backward,
}
