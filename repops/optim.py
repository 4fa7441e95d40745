"""Optimizers as pure functions over dicts of tensors, and learning-rate schedules.

What a schedule changes from step to step (learning rate, Adam's bias corrections) is computed here in float64 on the
client's side, rounded once to f32 and given to the step in its batch (`scalars`); the step itself never counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
Schedule = Callable[[int], float]


class Optimizer(Protocol):
    """What `lift` needs of an optimizer. Parameters, gradients and moments are f32 tensors by name."""

    def slots(self, parameters: Mapping[str, Tensor]) -> Tensors:
        """The initial moments, by slot name."""

    def scalars(self, index: int, rate: float) -> dict[str, float]:
        """What the step with this index (from 0) reads from its batch, by batch tensor name, in float64."""

    def update(
        self, parameters: Tensors, gradients: Tensors, moments: Tensors, scalars: Tensors
    ) -> tuple[Tensors, Tensors]:
        """New parameters and new moments, by the keys of `parameters` and `moments`."""


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent as torch.optim.SGD computes it: weight decay is added to the gradient.

    With momentum > 0 each parameter has a slot "momentum/<parameter>", which starts at zero, so that the first step's
    buffer is the gradient.
    """

    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        _require(0 <= self.momentum < 1 and self.weight_decay >= 0, "momentum is in [0, 1) and weight_decay at least 0")
        _require(self.momentum > 0 or not self.nesterov, "nesterov needs momentum")

    def slots(self, parameters: Mapping[str, Tensor]) -> Tensors:
        """One momentum buffer for each parameter, if there is momentum."""
        return {f"momentum/{n}": torch.zeros_like(p) for n, p in parameters.items() if self.momentum}

    def scalars(self, index: int, rate: float) -> dict[str, float]:
        """ "lr", the learning rate."""
        return {"lr": rate}

    def update(
        self, parameters: Tensors, gradients: Tensors, moments: Tensors, scalars: Tensors
    ) -> tuple[Tensors, Tensors]:
        """b = momentum * b + g; p -= lr * b."""
        new, buffers = {}, {}
        for name, p in parameters.items():
            g = gradients[name]
            if self.weight_decay:
                g = g + self.weight_decay * p
            if self.momentum:
                b = self.momentum * moments[f"momentum/{name}"] + g
                buffers[f"momentum/{name}"] = b
                g = g + self.momentum * b if self.nesterov else b
            new[name] = p - scalars["lr"] * g
        return new, buffers


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay as torch.optim.AdamW computes it.

    Slots "exp_avg/<parameter>" and "exp_avg_sq/<parameter>" for each parameter; batch tensors "adam.decay" =
    1 - lr * weight_decay, "adam.step_size" = lr / (1 - beta1^t), "adam.bias2_sqrt" = sqrt(1 - beta2^t), t from 1.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        _require(all(0 <= b < 1 for b in self.betas), "betas are in [0, 1)")
        _require(self.eps > 0 and self.weight_decay >= 0, "eps is positive and weight_decay at least 0")

    def slots(self, parameters: Mapping[str, Tensor]) -> Tensors:
        """Two moments for each parameter, both zero."""
        return {f"{kind}/{n}": torch.zeros_like(p) for kind in ("exp_avg", "exp_avg_sq") for n, p in parameters.items()}

    def scalars(self, index: int, rate: float) -> dict[str, float]:
        """Decay factor, step size and root of the second bias correction."""
        correction1, correction2 = (1 - beta ** (index + 1) for beta in self.betas)
        return {
            "adam.decay": 1 - rate * self.weight_decay,
            "adam.step_size": rate / correction1,
            "adam.bias2_sqrt": math.sqrt(correction2),
        }

    def update(
        self, parameters: Tensors, gradients: Tensors, moments: Tensors, scalars: Tensors
    ) -> tuple[Tensors, Tensors]:
        """m, v: running averages of g, g^2; p = p * decay - step_size * m / (sqrt(v) / bias2_sqrt + eps)."""
        beta1, beta2 = self.betas
        new, averages, squares = {}, {}, {}
        for name, p in parameters.items():
            g = gradients[name]
            m = beta1 * moments[f"exp_avg/{name}"] + (1 - beta1) * g
            v = beta2 * moments[f"exp_avg_sq/{name}"] + (1 - beta2) * (g * g)
            root = v.sqrt() / scalars["adam.bias2_sqrt"] + self.eps
            new[name] = p * scalars["adam.decay"] - scalars["adam.step_size"] * (m / root)
            averages[f"exp_avg/{name}"], squares[f"exp_avg_sq/{name}"] = m, v
        return new, averages | squares


@dataclass(frozen=True)
class Clipped:
    """An optimizer whose gradients are first clipped by their global norm, as torch.nn.utils.clip_grad_norm_ does.

    With n the 2-norm over all gradients, each is multiplied by min(1, max_norm / (n + 1e-6)).
    """

    optimizer: Optimizer
    max_norm: float

    def __post_init__(self) -> None:
        _require(self.max_norm > 0, "max_norm is positive")

    def slots(self, parameters: Mapping[str, Tensor]) -> Tensors:
        """The optimizer's own."""
        return self.optimizer.slots(parameters)

    def scalars(self, index: int, rate: float) -> dict[str, float]:
        """The optimizer's own."""
        return self.optimizer.scalars(index, rate)

    def update(
        self, parameters: Tensors, gradients: Tensors, moments: Tensors, scalars: Tensors
    ) -> tuple[Tensors, Tensors]:
        """The optimizer's update from the clipped gradients."""
        norm = torch.nn.utils.get_total_norm(gradients.values())
        factor = (self.max_norm / (norm + 1e-6)).clamp(max=1.0)
        clipped = {name: gradient * factor for name, gradient in gradients.items()}
        return self.optimizer.update(parameters, clipped, moments, scalars)


def constant(rate: float) -> Schedule:
    """The same learning rate at every step."""
    return lambda index: rate


def cosine(rate: float, steps: int, warmup: int = 0, floor: float = 0.0) -> Schedule:
    """Linear warm-up over `warmup` steps to `rate`, then a cosine down to `floor` at step `steps`."""
    return _decaying(rate, steps, warmup, floor, lambda part: 0.5 * (1 + math.cos(math.pi * part)))


def linear_decay(rate: float, steps: int, warmup: int = 0, floor: float = 0.0) -> Schedule:
    """Linear warm-up over `warmup` steps to `rate`, then a straight line down to `floor` at step `steps`."""
    return _decaying(rate, steps, warmup, floor, lambda part: 1 - part)


def _decaying(rate: float, steps: int, warmup: int, floor: float, shape: Callable[[float], float]) -> Schedule:
    """Linear warm-up, then from rate to floor as shape goes from 1 at part 0 to 0 at part 1."""
    _require(steps > warmup >= 0, "steps is greater than warmup, and warmup at least 0")

    def schedule(index: int) -> float:
        if index < warmup:
            return rate * (index + 1) / warmup
        return floor + (rate - floor) * shape(min(1.0, (index - warmup) / (steps - warmup)))

    return schedule


def _require(condition: bool, rule: str) -> None:
    if not condition:
        raise ValueError(rule)
