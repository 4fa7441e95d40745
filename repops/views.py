"""Outputs of a functional graph that show the memory of an argument or of another output.

Eager torch makes and saves them for nothing; a program would copy them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor
from torch.fx import GraphModule

from repops.dtypes import DType
from repops.graph.ir import Shape
from repops.tensors import layout_of


@dataclass(frozen=True, slots=True)
class View:
    """An output within the memory of argument or computed output number `base`; strides and offset in elements."""

    of_argument: bool
    base: int
    shape: Shape
    strides: tuple[int, ...]
    offset: int

    def of(self, base: Tensor) -> Tensor:
        """The output, for a base that lies in memory as it was traced."""
        shown = base.detach()  # changes in place still count for both
        return shown.as_strided(self.shape, self.strides, shown.storage_offset() + self.offset)


def take_views(graph: GraphModule) -> list[View | None]:
    """Takes the views from a graph's outputs: for each output it had the view, or None where it is still computed."""
    nodes = list(graph.graph.nodes)
    results: Sequence[Any] = nodes[-1].args[0]
    values = [result.meta["val"] for result in results]
    arguments = [node.meta["val"] for node in nodes if node.op == "placeholder"]
    bases = {_storage(x): (True, i, x, _extent(x)) for i, x in enumerate(arguments)}
    found: dict[int, tuple[bool, int, Tensor]] = {}
    for i in sorted(range(len(values)), key=lambda i: -values[i].numel()):  # of the same size, the first is the base
        value = values[i]
        of_argument, base, shown, extent = bases.get(_storage(value), (False, i, value, 0))
        if _shows(value, shown, extent):
            found[i] = (of_argument, base, shown)
        elif shown is value and _extent(value) == value.numel():
            bases[_storage(value)] = (False, i, value, value.numel())
    places = {i: place for place, i in enumerate(i for i in range(len(values)) if i not in found)}
    nodes[-1].args = (tuple(results[i] for i in places),)
    graph.graph.eliminate_dead_code()
    views: list[View | None] = [None] * len(values)
    for i, (of_argument, base, shown) in found.items():
        value, number = values[i], base if of_argument else places[base]
        offset = value.storage_offset() - shown.storage_offset()
        views[i] = View(of_argument, number, tuple(value.shape), value.stride(), offset)
    return views


def _storage(value: Tensor) -> int:
    return int(value.untyped_storage()._cdata)


def _extent(value: Tensor) -> int:
    """How many elements its memory has; 0 if there are gaps."""
    layout = layout_of(DType.of(value.dtype), tuple(value.shape), value.stride())
    gaps = any(a != b for a, b, d in zip(layout.strides, value.stride(), value.shape, strict=True) if d > 1)
    return 0 if gaps else prod(layout.stored)


def _shows(value: Tensor, base: Tensor, extent: int) -> bool:
    """Whether a tensor lies within the memory of another."""
    start = value.storage_offset() - base.storage_offset()
    last = start + sum((d - 1) * s for d, s in zip(value.shape, value.stride(), strict=True))
    return value.dtype == base.dtype and value.numel() > 0 and start >= 0 and last < extent
