"""Graphs of AOT autograd (forward, backward, inference) as functions of torch tensors, run by RepOps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter

from repops import settings
from repops.call import Call
from repops.capture.trace import trace_function
from repops.dtypes import DType
from repops.tensors import Array, Layout, array_of, laid_out, layout_of, new_torch, torch_dtype, torch_of
from repops.views import View, take_views

Boxed = Callable[[list[Any]], list[Any]]


def compile_graph(graph: GraphModule, isa: str | None) -> Boxed:
    """A graph as a function of the list of its arguments, which it empties, to the list of its outputs.

    It is compiled once for each combination of layouts and numbers that it meets, first for the one that it was traced
    with: what has no operator is refused before anything runs. Raises UnsupportedOperators or CaptureError.
    """
    compiled = _Compiled(graph, isa)
    compiled.compile([_traced(node.meta["val"]) for node in graph.graph.nodes if node.op == "placeholder"])
    return compiled


def _traced(value: Any) -> Any:
    """The key of an argument as it was traced: its layout, or the number that a symbolic one had."""
    if not isinstance(value, Tensor):
        return _number(value)
    shape, strides = (tuple(_number(x) for x in sizes) for sizes in (value.shape, value.stride()))
    return layout_of(DType.of(value.dtype), shape, strides)


def _number(value: Any) -> Any:
    return value.node.hint if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)) else value


@dataclass(frozen=True)
class _Version:
    """The graph for one key: the call, and all outputs, with a View or _COMPUTED in the place of tensors."""

    call: Call
    outputs: Sequence[Any]


class _Compiled:
    def __init__(self, graph: GraphModule, isa: str | None) -> None:
        self._boxed_call = True  # AOT autograd hands over its list of arguments, and with it their lifetime
        self._graph = graph
        self._isa = isa
        self._versions: dict[tuple[Any, ...], _Version] = {}
        nodes = list(graph.graph.nodes)
        places = {node: i for i, node in enumerate(n for n in nodes if n.op == "placeholder")}
        # An argument that is an output is given back itself; the others are computed.
        self._passed = {i: places[result] for i, result in enumerate(nodes[-1].args[0]) if result in places}

    def __call__(self, arguments: list[Any]) -> list[Any]:
        given = list(arguments)
        arguments.clear()
        tensors, memory, key = [], [], []
        for i, value in enumerate(given):
            if isinstance(value, Tensor):
                array, layout = laid_out(array_of(value, f"argument {i}"))
                tensors.append(value)
                memory.append(array)
                key.append(layout)
            else:
                key.append(value)
        version = self._versions.get(tuple(key)) or self.compile(key)
        made = [new_torch(y.stored, y.dtype, y.axes) for y in version.call.outputs]
        version.call.run(memory, [array for _, array in made], settings.threads())
        computed = iter(made)
        results = list(version.outputs)
        for i, x in enumerate(results):
            if x is _COMPUTED:
                results[i] = next(computed)[0]
            elif isinstance(x, View):
                results[i] = x.of(_shown(tensors[x.base], memory[x.base]) if x.of_argument else made[x.base][0])
        for i, place in self._passed.items():
            results[i] = given[place]
        return results

    def compile(self, key: Sequence[Any]) -> _Version:
        """For arguments with these layouts and numbers."""
        layouts = [x for x in key if isinstance(x, Layout)]
        run = Interpreter(self._graph).run
        outputs: list[Any] = []

        def function(*tensors: Tensor) -> tuple[Tensor, ...]:
            given = iter(tensors)
            results = run(*[next(given) if isinstance(x, Layout) else x for x in key])
            computed = [isinstance(x, Tensor) and i not in self._passed for i, x in enumerate(results)]
            outputs[:] = [
                _COMPUTED if c else None if isinstance(x, Tensor) else x for x, c in zip(results, computed, strict=True)
            ]
            return tuple(x for x, c in zip(results, computed, strict=True) if c)

        examples = [torch.empty_strided(x.shape, x.strides, dtype=torch_dtype(x.dtype)) for x in layouts]
        traced = trace_function(function, examples)
        views = iter(take_views(traced))
        outputs = [next(views) or _COMPUTED if x is _COMPUTED else x for x in outputs]
        call = Call(traced, layouts, self._isa)
        version = self._versions[tuple(key)] = _Version(call, outputs)
        return version


def _shown(tensor: Tensor, array: Array) -> Tensor:
    """A tensor over an argument's memory as the call reads it: the argument itself, if it was not copied."""
    shown: Tensor = tensor if tensor.data_ptr() == array.ctypes.data else torch_of(array)
    return shown


_COMPUTED = object()
