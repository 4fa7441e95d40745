"""Traces a step: `make_fx` with fake tensors and core decompositions, then functionalised by a second trace."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.fx.traceback import preserve_node_meta, set_stack_trace
from torch.overrides import TorchFunctionMode

from repops.capture.attention import AttentionCapture
from repops.capture.norms import NormCapture
from repops.capture.random import RandomCapture
from repops.errors import CaptureError

Step = Callable[[dict[str, Tensor], dict[str, Tensor]], dict[str, Tensor]]

# Lowered as they stand, because RO-1 has an order of its own for them (docs/spec/operators.md).
_KEPT = [
    "native_layer_norm",
    "native_layer_norm_backward",
    "native_batch_norm",
    "native_batch_norm_backward",
    "native_group_norm",
    "native_group_norm_backward",
    "_softmax",
    "_softmax_backward_data",
    "_log_softmax",
    "_log_softmax_backward_data",
    "gelu",
    "gelu_backward",
    "embedding",
    "embedding_dense_backward",
    "tanh_backward",
    "sigmoid_backward",
    "threshold_backward",
    "silu",
    "silu_backward",
    "softplus",
    "softplus_backward",
    "slice_backward",
    "select_backward",
]


_DATA_DEPENDENT = (GuardOnDataDependentSymNode, DataDependentOutputException, DynamicOutputShapeException)

# Files that are never the user's line of an operator.
_LIBRARIES = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]), "<")


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Core ATen decompositions without the operators that are lowered as they stand; the caller's own copy."""
    return dict(_decompositions())


# torch collects its table anew at each call, in about 0.1 s. Composite operators registered later decompose without it.
@functools.cache
def _decompositions() -> dict[Any, Callable[..., Any]]:
    packets = [getattr(torch.ops.aten, name) for name in _KEPT]
    kept = {getattr(packet, overload) for packet in packets for overload in packet.overloads()}
    core: dict[Any, Callable[..., Any]] = dict(core_aten_decompositions())
    return {target: rule for target, rule in core.items() if target not in kept}


def trace(step: Step, state: dict[str, Tensor], batch: dict[str, Tensor]) -> GraphModule:
    """The step as a graph of functional ATen operators over the tensors of state, then batch; outputs in slot order.

    Raises CaptureError if the step does not return exactly its slots with their dtypes and shapes, or decides by
    the values of tensors.
    """
    names = list(state)

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(names, tensors, strict=False))
        scalars = dict(zip(batch, tensors[len(names) :], strict=True))
        with NormCapture(), RandomCapture(scalars), AttentionCapture(), _Places():
            return tuple(_returned(step(given, scalars), state))

    return trace_function(flat, [*state.values(), *batch.values()])


def trace_function(function: Callable[..., Any], arguments: Sequence[Tensor]) -> GraphModule:
    """A function of tensors, which returns a tuple of tensors, as a graph of functional ATen operators."""
    with preserve_node_meta():
        try:
            with AttentionCapture(), _Places():
                first = _make(function, arguments)
        except _DATA_DEPENDENT as error:
            raise CaptureError(
                f"its control flow or a shape depends on the values of tensors ({_first_line(error)})",
                _raised_at(error),
                "Decide from shapes and Python values, or use torch.where",
            ) from None
        second = _make(torch.func.functionalize(Interpreter(first).run, remove="mutations"), arguments)
    _fill_overwritten(second)
    second.graph.eliminate_dead_code(is_impure_node=_is_impure)
    return second


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0]


def _raised_at(error: Exception) -> str:
    """The user's line that led to an error."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_LIBRARIES)]
    return f"{Path(frames[-1].filename).name} line {frames[-1].lineno}" if frames else "step"


def _fill_overwritten(graph: GraphModule) -> None:
    """What is copied over as a whole may be anything before: zeros instead of memory that nobody set."""
    for node in graph.graph.nodes:
        if node.target is torch.ops.aten.copy.default and str(node.args[0].target).startswith("aten.empty"):
            old = node.args[0].meta["val"]
            with graph.graph.inserting_before(node):
                zeros = graph.graph.call_function(torch.ops.aten.full.default, (list(old.shape), 0))
            zeros.meta["val"] = old
            node.args = (zeros, *node.args[1:])


class _Places(TorchFunctionMode):
    """Notes, for error messages, the user's line that each traced operator comes from (for a backward: the call)."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        frames = (frame for frame, _ in traceback.walk_stack(None))
        users = (f for f in frames if not f.f_code.co_filename.startswith(_LIBRARIES))
        if (frame := next(users, None)) is not None:
            set_stack_trace([f"{Path(frame.f_code.co_filename).name} line {frame.f_lineno}"])
        return func(*args, **(kwargs or {}))


def _make(function: Callable[..., Any], arguments: Sequence[Tensor]) -> GraphModule:
    graph = make_fx(function, decomposition_table=decompositions(), tracing_mode="fake", _allow_non_fake_inputs=True)(
        *arguments
    )
    assert isinstance(graph, GraphModule)
    return graph


def _is_impure(node: Node) -> bool:
    """Only in-place operators have an effect besides their result; random ones count as unused like all others."""
    schema = getattr(node.target, "_schema", None)
    return node.op in ("placeholder", "output") or (schema is not None and schema.is_mutable)


def _returned(result: object, state: dict[str, Tensor]) -> list[Tensor]:
    if not isinstance(result, dict):
        raise CaptureError(f"it returned {type(result).__name__}", "step", "A step returns the new state as a dict")
    if set(result) != set(state):
        wrong = sorted(set(result) ^ set(state))
        raise CaptureError(
            f"its result and its state differ in the slots {', '.join(map(str, wrong))}",
            "step",
            "A step returns every slot of its state and nothing else",
        )
    for name, old in state.items():
        new = result[name]
        if not isinstance(new, Tensor) or new.dtype != old.dtype or new.shape != old.shape:
            found = f"{new.dtype}{list(new.shape)}" if isinstance(new, Tensor) else type(new).__name__
            raise CaptureError(
                f"it became {found}, it was {old.dtype}{list(old.shape)}",
                f"slot {name}",
                "A slot keeps its dtype and shape",
            )
    return [result[name] for name in state]
