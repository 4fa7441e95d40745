"""A functional ATen graph compiled to be called: its placeholders are the batch of a program, its outputs the slots.

The slots' old values are never read. Inputs are read as they lie in memory; outputs are written where the caller wants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.fx import GraphModule

from repops.capture.builder import Builder, Value
from repops.capture.lower import lower_nodes
from repops.dtypes import DType
from repops.errors import CaptureError
from repops.execute import fused_kernels
from repops.graph.ir import BatchTensor, Program, Ref, Shape, element_count
from repops.plan import Compiler
from repops.tensors import Layout, check_memory

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Output:
    """A graph's output: dtype and shape of its memory, and where each of its axes lies there."""

    dtype: DType
    stored: Shape
    axes: tuple[int, ...]


class Call:
    """One graph for inputs of given layouts. isa: as in Executor. Large memory is not kept between calls.

    Raises UnsupportedOperators, CaptureError, ProgramError for results beyond the limits of programs, TensorError for
    those beyond the machine's memory.
    """

    def __init__(self, graph: GraphModule, inputs: Sequence[Layout], isa: str | None) -> None:
        self.outputs = _outputs(graph)
        slots = [(f"y{i}", out.dtype, out.stored) for i, out in enumerate(self.outputs)]
        builder = Builder(slots, [BatchTensor(f"x{i}", x.dtype, x.stored) for i, x in enumerate(inputs)])
        values = [Value(Ref.batch(i), x.dtype, x.shape, x.strides) for i, x in enumerate(inputs)]
        updates = []
        for value, out in zip(lower_nodes(graph, builder, values), self.outputs, strict=True):
            if isinstance(value, Value) and value.dtype.is_float and out.dtype.is_float:
                value = builder.cast(value, out.dtype)  # statistics, which stay f32 within a graph
            stored = builder.permute(value, np.argsort(out.axes).tolist()) if isinstance(value, Value) else None
            if stored is None or stored.dtype is not out.dtype or stored.shape != out.stored:
                raise CaptureError("an output was not lowered to its own dtype and shape", "graph", "Report this graph")
            updates.append(stored)
        self.program: Program = builder.finish(updates)
        layout = Compiler(self.program, fused_kernels(isa))
        results = sum(element_count(y.stored) * y.dtype.itemsize for y in self.outputs)
        check_memory(results + layout.arena_bytes, "results and what lies between need", "graph")
        self._constants = [c.data for c in self.program.constants]
        self._plan = layout.plan(isa, keep=False)

    def run(self, inputs: Sequence[Array], outputs: Sequence[Array], threads: int) -> None:
        """Writes the outputs. inputs, outputs: C-contiguous memory, which must not overlap."""
        self._plan.run([], inputs, self._constants, outputs, threads)


def _outputs(graph: GraphModule) -> list[Output]:
    node = next(n for n in graph.graph.nodes if n.op == "output")
    return [_output(result.meta["val"]) for result in node.args[0]]


def _output(meta: Any) -> Output:
    """Memory in the order of the traced strides if they have no gaps, else row-major."""
    shape, strides = tuple(int(d) for d in meta.shape), [int(s) for s in meta.stride()]
    order = sorted(range(len(shape)), key=lambda i: (-strides[i], i))
    step, dense = 1, True
    for i in reversed(order):
        dense = dense and (shape[i] == 1 or strides[i] == step)
        step *= shape[i]
    if not dense or 0 in shape:
        order = list(range(len(shape)))
    return Output(DType.of(meta.dtype), tuple(shape[i] for i in order), tuple(np.argsort(order).tolist()))
