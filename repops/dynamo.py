"""`torch.compile(model, backend="repops")`: forward and backward of an ordinary model by RepOps kernels.

The backend is registered when this module is imported, and by the package's entry point once it is installed.

At `torch._dynamo.config.recompile_limit` dynamo would go over to eager torch, whose bits are others. So the import, and
the first compilation in any other thread, set `fail_on_recompile_limit_hit`; whoever wants eager torch clears it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch._dynamo import config, list_backends, register_backend
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.exc import ShortenTraceback
from torch.fx import GraphModule

from repops import settings
from repops.aot import compile_graph
from repops.capture.attention import grouped_attention
from repops.capture.trace import decompositions
from repops.errors import CaptureError, RepopsError


def backend(
    graph: GraphModule, inputs: Sequence[Any], *, options: Mapping[str, Any] | None = None
) -> Callable[..., Any]:
    """Compiles a graph that dynamo found. There are no options.

    The threads are those of `repops.set_threads` when it runs, the instruction set that of `repops.set_isa` now.
    Raises UnsupportedOperators with the full list of what has no RepOps operator, CaptureError for an option; the call
    of the compiled model raises the same.
    """
    _fail_at_the_limit()
    try:
        return _compiled(graph, inputs, options)
    except RepopsError as error:
        raise _unwrapped(error) from None


def _compiled(graph: GraphModule, inputs: Sequence[Any], options: Mapping[str, Any] | None) -> Callable[..., Any]:
    if options:
        raise CaptureError(f"unknown options: {', '.join(sorted(options))}", "torch.compile", "There are none")
    _group_attention(graph)
    isa = settings.isa()

    def compiler(traced: GraphModule, _: Sequence[Any]) -> Callable[..., Any]:
        return compile_graph(traced, isa)

    compiled: Callable[..., Any] = aot_autograd(fw_compiler=compiler, decompositions=decompositions())(graph, inputs)
    return compiled


def _group_attention(graph: GraphModule) -> None:
    """Once decomposed, default attention gives wrong gradients (`repops.capture.attention`): it is replaced before."""
    for module in graph.modules():
        if isinstance(module, GraphModule):
            for node in module.graph.nodes:
                if node.target is F.scaled_dot_product_attention:
                    node.target = grouped_attention
            module.recompile()


def _unwrapped(error: RepopsError) -> RepopsError:
    """The error as it is and of its class, but also of the one class of errors that dynamo hands on unwrapped."""
    kind = type(error)
    handed_on = type(kind.__name__, (kind, ShortenTraceback), {"__module__": kind.__module__})
    made: RepopsError = handed_on.__new__(handed_on, *error.args)
    made.__dict__.update(error.__dict__, first_useful_frame=None)
    return made


_limits = threading.local()


def _fail_at_the_limit() -> None:
    """Once in each thread, as the settings of dynamo are a thread's own."""
    if not hasattr(_limits, "set"):
        _limits.set = True
        if not config.suppress_errors:  # dynamo refuses both at once
            config.fail_on_recompile_limit_hit = True


_fail_at_the_limit()
if "repops" not in list_backends(()):
    register_backend(backend, name="repops")
