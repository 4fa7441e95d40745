"""Builds programs node by node: views without nodes, folds cut into links, equal nodes once, dead nodes dropped.

A `Value` is a strided view of a contiguous tensor. Reshapes, transposes and broadcasts only change the strides; a
`permute`, `expand` or larger `fill` node is emitted when an operator cannot read the view itself.

Floats are computed in f32 unless another dtype is asked for. What widens bf16 or f16 for an operator that reads them
itself is left out, and so is, at the end, what rounds a result that nobody reads unrounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from repops.dtypes import DType, to_float64
from repops.errors import ProgramError
from repops.graph.ir import MAX_TRACE_NODES, BatchTensor, Constant, Input, Node, Program, Ref, RefKind, Shape, Slot
from repops.ops.rules import FOLD_TERMS, RuleViolation, broadcast, fold_ranges
from repops.ops.table import OPERATORS
from repops.tensors import plain_strides

F32, I64, BOOL = DType.F32, DType.I64, DType.BOOL
LOW = (DType.BF16, DType.F16)


class Unsupported(Exception):
    """Raised by a lowering rule for arguments that it has no operators for; says what."""


@dataclass(frozen=True, slots=True)
class Value:
    """A view of what `ref` refers to. strides count elements; a broadcast or length-1 axis has stride 0.

    Every element of the referent is visible: slices are nodes, not views.
    """

    ref: Ref
    dtype: DType
    shape: Shape
    strides: tuple[int, ...]

    @property
    def count(self) -> int:
        """Elements of the view."""
        return prod(self.shape)

    @property
    def is_plain(self) -> bool:
        """Whether the view is the referent in its own order, reshaped at most."""
        return self.strides == plain_strides(self.shape)

    @property
    def is_single(self) -> bool:
        """Whether the view shows one single element, however often."""
        return not any(self.strides) and self.count > 0


class Builder:
    """Collects the nodes of one program, in the order in which they are asked for."""

    def __init__(self, slots: Sequence[tuple[str, DType, Shape]], batch: Sequence[BatchTensor]) -> None:
        self._slots = tuple(slots)
        self._batch = tuple(batch)
        self._constants: list[Constant] = []
        self._nodes: list[Node] = []
        self._known: dict[Node, int] = {}

    def state(self, index: int) -> Value:
        """The value of a slot before the step."""
        _, dtype, shape = self._slots[index]
        return Value(Ref.state(index), dtype, shape, plain_strides(shape))

    def batch(self, index: int) -> Value:
        """A batch tensor."""
        tensor = self._batch[index]
        return Value(Ref.batch(index), tensor.dtype, tensor.shape, plain_strides(tensor.shape))

    def constant(self, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Value:
        """A tensor that becomes part of the program; equal ones are stored once."""
        constant = Constant.of(array)
        if constant not in self._constants:
            self._constants.append(constant)
        ref = Ref.constant(self._constants.index(constant))
        return Value(ref, constant.dtype, constant.shape, plain_strides(constant.shape))

    def scalar(self, number: float | int | bool, dtype: DType) -> Value:
        """A rank-0 `fill`: a Python number, rounded once to `dtype`, to bf16 and f16 by way of f32 as torch does."""
        bits = pattern(number, dtype)
        if dtype in LOW and to_float64(np.array(bits, np.uint16).view(dtype.numpy), dtype) != number:
            return self.cast(self.scalar(number, F32), dtype)
        return self._scalar_of_pattern(bits, dtype)

    def full(self, shape: Shape, number: float | int | bool, dtype: DType) -> Value:
        """A number, broadcast to a shape."""
        return self.expand(self.scalar(number, dtype), shape)

    def iota(self, count: int, start: int, step: int) -> Value:
        """i64 [count]: start + step * i."""
        return self._emit("iota", (), I64, (count,), params=(start, step))

    def view(self, value: Value, shape: Shape) -> Value:
        """The same elements in the same order under another shape."""
        if shape == value.shape:
            return value
        strides = _reshaped_strides(value, shape)
        if strides is None:
            value = self._materialise(value)
            strides = plain_strides(shape)
        return replace(value, shape=shape, strides=strides)

    def permute(self, value: Value, dims: Sequence[int]) -> Value:
        """Output axis a is input axis dims[a]."""
        shape = tuple(value.shape[d] for d in dims)
        return replace(value, shape=shape, strides=tuple(value.strides[d] for d in dims))

    def expand(self, value: Value, shape: Shape) -> Value:
        """Broadcast to a shape, aligned at the right."""
        if 0 in shape:
            return self._empty(value.dtype, shape)
        return replace(value, shape=shape, strides=(0,) * (len(shape) - len(value.shape)) + value.strides)

    def _empty(self, dtype: DType, shape: Shape) -> Value:
        return self._emit("fill", (), dtype, shape, literals=(0,))

    def pointwise(self, op: str, *values: Value, dtype: DType | None = None, literals: Sequence[int] = ()) -> Value:
        """One elementwise node over the smallest shapes; dtype: the output's, default f32 or the last input's."""
        if op == "where" and values[1].dtype is not values[2].dtype:
            values = (values[0], self.cast(values[1], F32), self.cast(values[2], F32))
        dtype = dtype or (F32 if op != "where" and values[-1].dtype.is_float else values[-1].dtype)
        full = broadcast([v.shape for v in values])
        if prod(full) == 0:
            return self._empty(dtype, full)
        layout = self._shared_layout(values, full)
        if layout is not None:
            inputs = [self._flat(v) for v in values]
            out = self._emit(op, inputs, dtype, (prod(full),), literals=tuple(literals))
            return replace(out, shape=full, strides=layout)
        inputs = [self._broadcastable(v) for v in values]
        shape = broadcast([i.shape for i in inputs])
        # Without axes of length 1, so that the same elements under another shape are the same node.
        narrow = [_without(i, [a for a, d in enumerate(shape) if d == 1], len(shape)) for i in inputs]
        small = tuple(d for d in shape if d > 1)
        out = self._emit(op, narrow, dtype, small, literals=tuple(literals))
        return self.expand(self.view(out, shape), full)

    def cast(self, value: Value, dtype: DType) -> Value:
        """A cast, nothing if the dtype is the same already, or was before an exact widening."""
        if value.dtype is dtype:
            return value
        source = self._narrow(value)
        return source if source.dtype is dtype else self.pointwise("cast", source, dtype=dtype)

    def _narrow(self, value: Value) -> Value:
        """The bf16 or f16 tensor of which a value is the widening, else the value."""
        if value.dtype is F32 and value.ref.kind is RefKind.NODE:
            node = self._nodes[value.ref.index]
            if node.op == "cast" and node.inputs[0].dtype in LOW:
                return replace(value, ref=node.inputs[0].ref, dtype=node.inputs[0].dtype)
        return value

    def reduce(self, op: str, value: Value, axes: Iterable[int]) -> Value:
        """`sum`, `sum_sq` or `amax` over axes, which are dropped. Over no elements: the operator's neutral element."""
        axes = sorted(set(axes))
        kept = [i for i in range(len(value.shape)) if i not in axes]
        shape = tuple(value.shape[i] for i in kept)
        out_dtype = F32 if value.dtype.is_float else I64
        if value.count == 0:
            number = float("-inf") if op == "amax" else 0
            return self.full(shape, number, out_dtype) if prod(shape) else self._empty(out_dtype, shape)
        if any(s == 0 and d > 1 for s, d in zip(value.strides, value.shape, strict=True)):
            value = self._materialise(value)
        inner = [i for i in axes if value.shape[i] > 1]
        if not inner:
            value = self.pointwise("mul", value, value) if op == "sum_sq" else value
            return self.cast(self.view(value, shape), out_dtype)
        order = [i for i in _memory_order(value) if value.shape[i] > 1]
        places = [order.index(i) for i in inner]
        if max(places) - min(places) + 1 != len(places):
            value = self._materialise(self.permute(value, [*kept, *axes]))
            value = self.permute(value, np.argsort([*kept, *axes]).tolist())
            order = [i for i in _memory_order(value) if value.shape[i] > 1]
            places = [order.index(i) for i in inner]
        first, last = min(places), max(places) + 1
        sizes = [value.shape[i] for i in order]
        outer, terms, rest = prod(sizes[:first]), prod(sizes[first:last]), prod(sizes[last:])
        out = self.fold(op, [self.view(self._flat(value), (outer, terms, rest))], 1)
        kept_order = [i for i in order if i not in inner]
        out = self.view(out, tuple(value.shape[i] for i in kept_order))
        back = self.permute(out, [kept_order.index(i) for i in kept if value.shape[i] > 1])
        return self.view(back, shape)

    def fold(self, op: str, values: Sequence[Value], axis: int) -> Value:
        """A reduction over one axis, kept with length 1; inputs broadcast to their common shape. Cut into links."""
        shapes = [v.shape for v in values]
        common = broadcast(shapes)
        out_shape = (*common[:axis], 1, *common[axis + 1 :])
        dtype = F32 if values[0].dtype.is_float else I64
        inputs = [self._broadcastable(v) for v in values]
        shape, position, inputs = _drop_ones(common, axis, inputs)
        small = (*shape[:position], 1, *shape[position + 1 :])
        out = self._links(op, inputs, common[axis], dtype, small, lambda start, stop: (1, position, start, stop))
        return self.view(out, out_shape)

    def matmul(self, a: Value, b: Value) -> Value:
        """[.., M, K] x [.., K, N], rank 2 or 3; a transposed operand is read as it lies."""
        m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
        shape = (*a.shape[:-2], m, n)
        if prod(shape) == 0:
            return self._empty(F32, shape)
        (a, ta), (b, tb) = self._operand(a), self._operand(b)
        return self._links("matmul", [a, b], k, F32, shape, lambda start, stop: (ta, tb, start, stop))

    def convolution(self, op: str, a: Value, b: Value, terms: int, shape: Shape, geometry: tuple[int, ...]) -> Value:
        """conv2d or one of its gradients over `terms` positions; geometry: its params but for the range."""
        if prod(shape) == 0:
            return self._empty(F32, shape)
        inputs = [self.plain(a), self.plain(b)]
        return self._links(op, inputs, terms, F32, shape, lambda start, stop: (*geometry, start, stop))

    def embedding_grad(self, dy: Value, index: Value, rows: int) -> Value:
        """dy [n, D] added into the rows index [n] of zeros [rows, D]."""
        shape = (rows, dy.shape[1])
        inputs = [self.plain(dy), self.plain(index)]
        return self._links("embedding_grad", inputs, dy.shape[0], F32, shape, lambda start, stop: (start, stop))

    def is_zeros(self, value: Value) -> bool:
        """Whether a value is known to be all zero bits."""
        fill = self._fill_of(value)
        return fill is not None and fill.literals == (0,)

    def node(
        self,
        op: str,
        values: Sequence[Value],
        dtype: DType,
        shape: Shape,
        params: Sequence[int] = (),
        literals: Sequence[int] = (),
    ) -> Value:
        """One node whose inputs are read whole, in their logical order."""
        return self._emit(op, [self.plain(v) for v in values], dtype, shape, tuple(params), tuple(literals))

    def plain(self, value: Value) -> Value:
        """The value as a contiguous tensor of its own shape."""
        return value if value.is_plain else self._materialise(value)

    def finish(self, updates: Sequence[Value]) -> Program:
        """The checked program with these values as the slots' updates; unused nodes and constants are dropped."""
        refs = [self.plain(value).ref for value in updates]
        rounded = self._round_at_once(refs, self._needed(refs))
        refs = [rounded.get(ref, ref) for ref in refs]
        needed = self._needed(refs)
        nodes = [i for i in range(len(self._nodes)) if Ref.node(i) in needed]
        constants = [i for i in range(len(self._constants)) if Ref.constant(i) in needed]
        moved = {Ref.node(old): Ref.node(new) for new, old in enumerate(nodes)}
        moved |= {Ref.constant(old): Ref.constant(new) for new, old in enumerate(constants)}
        return Program(
            slots=tuple(
                Slot(name, dtype, shape, moved.get(ref, ref))
                for (name, dtype, shape), ref in zip(self._slots, refs, strict=True)
            ),
            batch=self._batch,
            constants=tuple(self._constants[i] for i in constants),
            nodes=tuple(
                replace(
                    self._nodes[i], inputs=tuple(replace(x, ref=moved.get(x.ref, x.ref)) for x in self._nodes[i].inputs)
                )
                for i in nodes
            ),
        ).check()

    def _needed(self, refs: Sequence[Ref]) -> set[Ref]:
        """The refs and all that they are computed from."""
        needed: set[Ref] = set()
        stack = list(refs)
        while stack:
            ref = stack.pop()
            if ref not in needed:
                needed.add(ref)
                if ref.kind is RefKind.NODE:
                    stack += [i.ref for i in self._nodes[ref.index].inputs]
        return needed

    def _round_at_once(self, updates: Sequence[Ref], needed: set[Ref]) -> dict[Ref, Ref]:
        """Lets nodes write bf16 or f16 themselves if all that reads their f32 is a cast to it; cast -> node."""
        readers: dict[Ref, list[int]] = {ref: [-1] for ref in updates}
        for i, node in enumerate(self._nodes):
            if Ref.node(i) in needed:
                for item in node.inputs:
                    readers.setdefault(item.ref, []).append(i)
        moved: dict[Ref, Ref] = {}
        for i, node in enumerate(self._nodes):
            if Ref.node(i) not in needed:
                continue
            if any(x.ref in moved for x in node.inputs):
                inputs = tuple(replace(x, ref=moved.get(x.ref, x.ref)) for x in node.inputs)
                node = self._nodes[i] = replace(node, inputs=inputs)
            source = node.inputs[0].ref if node.op == "cast" and node.dtype in LOW else None
            if source is None or source.kind is not RefKind.NODE or readers[source] != [i]:
                continue
            before = self._nodes[source.index]
            after = _obedient(replace(before, dtype=node.dtype))
            if before.dtype is F32 and before.op not in ("cast", "fill") and after is not None:
                self._nodes[source.index] = after
                moved[Ref.node(i)] = source
        return moved

    def _emit(
        self,
        op: str,
        values: Sequence[Value],
        dtype: DType,
        shape: Shape,
        params: tuple[int, ...] = (),
        literals: tuple[int, ...] = (),
    ) -> Value:
        """A node over values whose shape is the one to read; the same node again is not emitted again."""
        node = Node(op, params, literals, tuple(Input(v.ref, v.dtype, v.shape) for v in values), dtype, shape)
        narrow = [self._narrow(v) for v in values]
        if any(v.dtype in LOW for v in narrow):
            inputs = tuple(Input(v.ref, v.dtype, v.shape) for v in narrow)
            node = _obedient(replace(node, inputs=inputs)) or node
        index = self._known.setdefault(node, len(self._nodes))
        if index == len(self._nodes):
            self._nodes.append(node)
        return Value(Ref.node(index), dtype, shape, plain_strides(shape))

    def _links(
        self,
        op: str,
        inputs: Sequence[Value],
        terms: int,
        dtype: DType,
        shape: Shape,
        params: Callable[[int, int], tuple[int, ...]],
    ) -> Value:
        """A fold over `terms` terms as a chain of links, each with the carry of the one before."""
        if terms > MAX_TRACE_NODES * FOLD_TERMS:
            raise ProgramError(f"a fold over {terms} terms has too many links", op, "Fold it in parts")
        out: Value | None = None
        for start, stop in fold_ranges(terms):
            carry = [] if out is None else [out]
            out = self._emit(op, [*inputs, *carry], dtype, shape, params(start, stop))
        assert out is not None
        return out

    def _scalar_of_pattern(self, bits: int, dtype: DType) -> Value:
        return self._emit("fill", (), dtype, (), literals=(bits,))

    def _fill_of(self, value: Value) -> Node | None:
        """The fill node that a value shows, if it shows one."""
        if value.ref.kind is RefKind.NODE and self._nodes[value.ref.index].op == "fill":
            return self._nodes[value.ref.index]
        return None

    def _materialise(self, value: Value) -> Value:
        """A contiguous tensor with the view's elements in the view's order."""
        if value.is_plain:
            return value
        fill = self._fill_of(value)
        if fill is not None:
            return self._emit("fill", (), value.dtype, value.shape, literals=fill.literals)
        small = tuple(d if s else 1 for d, s in zip(value.shape, value.strides, strict=True))
        order = [i for i in _memory_order(value) if small[i] > 1]
        out = self._flat(value)
        if order != sorted(order):
            natural = sorted(order)
            source = replace(out, shape=tuple(small[i] for i in order))
            shape = tuple(small[i] for i in natural)
            out = self._emit("permute", [source], value.dtype, shape, tuple(order.index(i) for i in natural))
        if small != value.shape:
            out = self._emit("expand", [replace(out, shape=small)], value.dtype, value.shape)
        return replace(out, shape=value.shape, strides=plain_strides(value.shape))

    def _flat(self, value: Value) -> Value:
        """The referent as it lies in memory, one axis (rank 0 for a single element)."""
        count = prod(d for d, s in zip(value.shape, value.strides, strict=True) if s)
        shape = () if value.is_single else (count,)
        return Value(value.ref, value.dtype, shape, plain_strides(shape))

    def _broadcastable(self, value: Value) -> Value:
        """The value with broadcast axes read as length 1, permuted by a node if it does not lie in its order."""
        if value.is_plain and not value.is_single:
            return value
        small = tuple(d if s else 1 for d, s in zip(value.shape, value.strides, strict=True))
        if value.is_single:
            return self._flat(value)
        narrow = replace(value, shape=small)
        return narrow if narrow.is_plain else self._materialise(narrow)

    def _shared_layout(self, values: Sequence[Value], full: Shape) -> tuple[int, ...] | None:
        """Strides of a pointwise result that is computed in memory order, as all inputs lie alike but not plainly."""
        layouts = {(v.shape, v.strides) for v in values if not v.is_single}
        if len(layouts) != 1:
            return None
        shape, strides = layouts.pop()
        broadcasts = any(d > 1 and s == 0 for d, s in zip(shape, strides, strict=True))
        if shape != full or broadcasts or strides == plain_strides(shape):
            return None
        return strides

    def _operand(self, value: Value) -> tuple[Value, int]:
        """A matmul operand as stored, and whether that is transposed."""
        swapped = self.permute(value, [*range(len(value.shape) - 2), len(value.shape) - 1, len(value.shape) - 2])
        if not value.is_plain and swapped.is_plain:
            return swapped, 1
        return self.plain(value), 0


def pattern(number: float | int | bool, dtype: DType) -> int:
    """The bit pattern of a number, rounded once to a dtype (an integer wraps)."""
    if dtype is DType.I64 or dtype is DType.I32:
        return int(number) & ((1 << dtype.bits) - 1)
    if dtype is DType.BOOL:
        return int(bool(number))
    with np.errstate(over="ignore"):
        single = np.array(float(number), dtype=np.float64).astype(np.float32)
        if dtype is DType.BF16:
            word = int(single.view(np.uint32))
            return 0x7FC0 if np.isnan(single) else (word + 0x7FFF + (word >> 16 & 1)) >> 16
        bits = single.astype(dtype.numpy)
    return int.from_bytes(bits.tobytes(), "little")


def _obedient(node: Node) -> Node | None:
    """The node, if it obeys its operator's rule."""
    try:
        OPERATORS[node.op].rule(node)
    except RuleViolation:
        return None
    return node


def _memory_order(value: Value) -> list[int]:
    """The axes from the slowest to the fastest in memory."""
    return sorted(range(len(value.shape)), key=lambda i: (-value.strides[i], i))


def _without(value: Value, axes: Sequence[int], rank: int) -> Value:
    """A plain value without the given axes of a broadcast of this rank, where its own length is 1."""
    missing = rank - len(value.shape)
    shape = tuple(d for i, d in enumerate(value.shape, missing) if i not in axes)
    return replace(value, shape=shape, strides=plain_strides(shape))


def _drop_ones(common: Shape, axis: int, inputs: Sequence[Value]) -> tuple[Shape, int, list[Value]]:
    """Removes the leading and trailing axes of length 1 from a reduction, so that equal reductions are equal nodes."""
    keep = [i for i, d in enumerate(common) if d != 1 or i == axis]
    out = []
    for value in inputs:
        shape = (1,) * (len(common) - len(value.shape)) + value.shape
        small = tuple(shape[i] for i in keep)
        out.append(replace(value, shape=small, strides=plain_strides(small)))
    return tuple(common[i] for i in keep), keep.index(axis), out


def _reshaped_strides(value: Value, shape: Shape) -> tuple[int, ...] | None:
    """Strides of a view under another shape of as many elements, or None if only a copy has them."""
    if value.is_plain:
        return plain_strides(shape)
    if value.is_single:
        return (0,) * len(shape)
    # Runs of axes that lie together in memory, each (length, stride of its last axis); then each run is split anew.
    runs: list[tuple[int, int]] = []
    for d, s in zip(value.shape, value.strides, strict=True):
        if d == 1:
            continue
        if runs and runs[-1][1] == s * d:
            runs[-1] = (runs[-1][0] * d, s)
        else:
            runs.append((d, s))
    strides = [0] * len(shape)
    axis = len(shape) - 1
    for length, stride in reversed(runs):
        left, step = length, stride
        while left > 1:
            while axis >= 0 and shape[axis] == 1:
                axis -= 1
            if axis < 0 or left % shape[axis]:
                return None
            strides[axis] = step
            step *= shape[axis]
            left //= shape[axis]
            axis -= 1
    return tuple(strides)
