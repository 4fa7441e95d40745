"""Dropout and other random numbers as the operator `philox`: a pure function of seed, step, node and element.

While a step is traced, and while the self-check runs it eagerly, every random call of the table below is computed from
`repops::philox` instead of torch's generator, so that both see the same masks. Seed and step are the 0-d i64 batch
tensors SEED and STEP; the node is the number of the call in the step, from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from repops.errors import CaptureError
from repops.ops.twins import philox_uniform

SEED, STEP = "dropout.seed", "dropout.step"


@torch.library.custom_op("repops::philox", mutates_args=())
def philox(seed: Tensor, step: Tensor, node: int, shape: Sequence[int]) -> Tensor:
    """f32 numbers in [0, 1) (docs/spec/operators.md, "Random numbers")."""
    count = int(np.prod(shape, dtype=np.int64))
    return torch.from_numpy(philox_uniform(int(seed), int(step), node, count)).reshape(shape)


@philox.register_fake
def _(seed: Tensor, step: Tensor, node: int, shape: Sequence[int]) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=seed.device)


class RandomCapture(TorchFunctionMode):
    """While active, dropout, bernoulli and rand are computed by `repops::philox` from the batch's seed and step."""

    def __init__(self, batch: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._scalars = [batch.get(name) for name in (SEED, STEP)]
        self._calls = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        rule = _RULES.get(func)
        return func(*args, **(kwargs or {})) if rule is None else rule(self, *args, **(kwargs or {}))

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """The numbers of the next call."""
        for tensor, name in zip(self._scalars, (SEED, STEP), strict=True):
            if tensor is None or tensor.dtype is not torch.int64 or tensor.shape:
                raise CaptureError(
                    "the step draws random numbers, but its batch has no 0-d int64 tensor of this name",
                    name,
                    f'Give "{SEED}" and "{STEP}" in the batch (repops.lift does, with seed=), or use eval mode',
                )
        node, self._calls = self._calls, self._calls + 1
        out: Tensor = torch.ops.repops.philox(*self._scalars, node, [int(d) for d in shape])
        return out

    def dropout(
        self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, axes: int | None = None
    ) -> Tensor:
        """x times 1 / (1 - p) or 0; axes: the mask is one number for each index of the first so many axes."""
        if not 0 <= p <= 1:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        if not training or p == 0:
            return x
        shape = x.shape if axes is None else (*x.shape[:axes], *[1] * (x.dim() - axes))
        scale = 0.0 if p == 1 else _rounded(1 / (1 - p))
        noise = torch.where(self.uniform(shape) < _rounded(1 - p), x.new_full((), scale), x.new_zeros(()))
        return x.mul_(noise) if inplace else x * noise

    def bernoulli(self, p: Tensor, **_: object) -> Tensor:
        """1 with probability p."""
        return (self.uniform(p.shape) < p).to(p.dtype)

    def bernoulli_(self, x: Tensor, p: float | Tensor = 0.5, **_: object) -> Tensor:
        """Fills x with 1 with probability p, else 0."""
        return x.copy_(self.uniform(x.shape) < (p if isinstance(p, Tensor) else _rounded(p)))

    def rand(self, *size: Any, dtype: torch.dtype | None = None, **_: object) -> Tensor:
        """Uniform in [0, 1)."""
        shape = size[0] if size and isinstance(size[0], Sequence) else size
        return self.uniform(shape).to(dtype or torch.get_default_dtype())

    def rand_like(self, x: Tensor, *, dtype: torch.dtype | None = None, **_: object) -> Tensor:
        """Uniform in [0, 1)."""
        return self.uniform(x.shape).to(dtype or x.dtype)


def _rounded(x: float) -> float:
    return float(np.float32(x))


def _feature_dropout(batched: int) -> Callable[..., Tensor]:
    """Dropout of whole channels; batched: the rank of an input with a batch axis."""

    def rule(mode: RandomCapture, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        return mode.dropout(x, p, training, inplace, axes=2 if x.dim() == batched else 1)

    return rule


def _torch_dropout(mode: RandomCapture, x: Tensor, p: float, train: bool) -> Tensor:
    return mode.dropout(x, p, train)


_RULES: dict[Callable[..., Any], Callable[..., Any]] = {
    F.dropout: RandomCapture.dropout,
    torch.dropout: _torch_dropout,
    torch.dropout_: lambda mode, x, p, train: mode.dropout(x, p, train, True),
    F.dropout1d: _feature_dropout(3),
    F.dropout2d: _feature_dropout(4),
    F.dropout3d: _feature_dropout(5),
    torch.bernoulli: RandomCapture.bernoulli,
    Tensor.bernoulli: RandomCapture.bernoulli,
    Tensor.bernoulli_: RandomCapture.bernoulli_,
    torch.rand: RandomCapture.rand,
    torch.rand_like: RandomCapture.rand_like,
}
