"""Batch norm without hidden effects.

`native_batch_norm` changes its running statistics although its schema does not say so, and a trace loses the change. So
while a step is traced `F.batch_norm` becomes the functional operator, and the statistics are updated beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class NormCapture(TorchFunctionMode):
    """While active, `F.batch_norm` is traced as a functional operator plus plain updates of the running statistics."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is F.batch_norm:
            return _captured(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _captured(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    native = torch.ops.aten.native_batch_norm
    if not training:
        return native(x, weight, bias, running_mean, running_var, False, momentum, eps)[0]  # type: ignore[no-any-return]
    out: Tensor
    out, mean, _ = native(x, weight, bias, None, None, True, momentum, eps)
    with torch.no_grad():
        if running_mean is not None:
            running_mean.mul_(1 - momentum).add_(mean * momentum)
        if running_var is not None:
            axes = [a for a in range(x.dim()) if a != 1]
            running_var.mul_(1 - momentum).add_(x.float().var(axes, correction=1) * momentum)
    return out
