"""`torch.compile(model, backend="repops")`: forward and backward of an ordinary model by RepOps kernels.

The backend is registered when this module is imported, and by the package's entry point once it is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch._dynamo import list_backends, register_backend
from torch._dynamo.backends.common import aot_autograd
from torch.fx import GraphModule

from repops import settings
from repops.aot import compile_graph
from repops.capture.attention import grouped_attention
from repops.capture.trace import decompositions
from repops.errors import CaptureError


def backend(
    graph: GraphModule, inputs: Sequence[Any], *, options: Mapping[str, Any] | None = None
) -> Callable[..., Any]:
    """Compiles a graph that dynamo found. There are no options.

    The threads are those of `repops.set_threads` when it runs, the instruction set that of `repops.set_isa` now.
    Raises UnsupportedOperators with the full list of what has no RepOps operator, CaptureError for an option.
    """
    if options:
        raise CaptureError(f"unknown options: {', '.join(sorted(options))}", "torch.compile", "There are none")
    _group_attention(graph)
    isa = settings.isa()

    def compiler(traced: GraphModule, _: Sequence[Any]) -> Callable[..., Any]:
        return compile_graph(traced, isa, transient=False)

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


if "repops" not in list_backends(()):
    register_backend(backend, name="repops")
