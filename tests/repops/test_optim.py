"""Optimizers against torch.optim, and the scalars that travel in the batch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from repops.optim import SGD, AdamW, Clipped, Optimizer, constant, cosine, linear_decay

OPTIMIZERS: list[tuple[Optimizer, type[torch.optim.Optimizer], dict[str, Any]]] = [
    (SGD(), torch.optim.SGD, {}),
    (SGD(momentum=0.9, weight_decay=0.1), torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    (SGD(momentum=0.8, nesterov=True), torch.optim.SGD, {"momentum": 0.8, "nesterov": True}),
    (AdamW(), torch.optim.AdamW, {}),
    (
        AdamW(betas=(0.7, 0.95), eps=1e-3, weight_decay=0.3),
        torch.optim.AdamW,
        {"betas": (0.7, 0.95), "eps": 1e-3, "weight_decay": 0.3},
    ),
]


@pytest.mark.parametrize("case", range(len(OPTIMIZERS)))
def test_a_hundred_steps_are_torchs(case: int) -> None:
    optimizer, reference, options = OPTIMIZERS[case]
    generator = torch.Generator().manual_seed(case)
    start = {n: torch.randn(s, generator=generator, dtype=torch.float64) for n, s in (("a", (3, 2)), ("b", (4,)))}
    schedule = cosine(0.05, 100, warmup=10)
    theirs = {n: p.clone().requires_grad_() for n, p in start.items()}
    torchs = reference(theirs.values(), lr=1.0, **options)  # type: ignore[call-arg]
    ours, moments = dict(start), optimizer.slots(start)
    for index in range(100):
        gradients = {n: torch.randn(p.shape, generator=generator, dtype=torch.float64) for n, p in start.items()}
        for name, p in theirs.items():
            p.grad = gradients[name].clone()
        torchs.param_groups[0]["lr"] = schedule(index)
        torchs.step()
        numbers = optimizer.scalars(index, schedule(index))
        scalars = {n: torch.tensor(v, dtype=torch.float64) for n, v in numbers.items()}
        ours, moments = optimizer.update(ours, gradients, moments, scalars)
    for name, p in theirs.items():
        torch.testing.assert_close(ours[name], p.detach(), rtol=1e-11, atol=1e-12)
    assert set(moments) == set(optimizer.slots(start))


@pytest.mark.parametrize("max_norm", [0.5, 3.0, 1e3])
def test_clipping_is_torchs(max_norm: float) -> None:
    """A momentum of gradients of norm about 3, clipped always, sometimes and never."""
    optimizer = Clipped(SGD(momentum=0.9), max_norm)
    generator = torch.Generator().manual_seed(7)
    start = {n: torch.randn(s, generator=generator, dtype=torch.float64) for n, s in (("a", (3, 2)), ("b", (4,)))}
    theirs = {n: p.clone().requires_grad_() for n, p in start.items()}
    torchs = torch.optim.SGD(theirs.values(), lr=0.1, momentum=0.9)
    ours, moments, clipped = dict(start), optimizer.slots(start), 0
    scalars = {n: torch.tensor(v, dtype=torch.float64) for n, v in optimizer.scalars(0, 0.1).items()}
    for _ in range(20):
        gradients = {n: torch.randn(p.shape, generator=generator, dtype=torch.float64) for n, p in start.items()}
        for name, p in theirs.items():
            p.grad = gradients[name].clone()
        clipped += bool(torch.nn.utils.clip_grad_norm_(theirs.values(), max_norm) > max_norm)
        torchs.step()
        ours, moments = optimizer.update(ours, gradients, moments, scalars)
    assert clipped == {0.5: 20, 1e3: 0}.get(max_norm, clipped) and (max_norm != 3.0 or 0 < clipped < 20)
    for name, p in theirs.items():
        torch.testing.assert_close(ours[name], p.detach(), rtol=1e-11, atol=1e-12)


def test_scalars_are_float64_until_they_are_rounded_once() -> None:
    scalars = AdamW(weight_decay=0.1).scalars(0, 1e-3)
    assert scalars["adam.bias2_sqrt"] == math.sqrt(1 - 0.999) and scalars["adam.decay"] == 1 - 1e-4
    assert scalars["adam.step_size"] == 1e-3 / (1 - 0.9)
    in_f32 = math.sqrt(float(1 - torch.tensor(0.999) ** 1))
    assert abs(scalars["adam.bias2_sqrt"] - in_f32) > 1e-7, "f32 would be off by more than its own rounding"


def test_schedules() -> None:
    schedule = cosine(1.0, 20, warmup=4, floor=0.1)
    assert [schedule(i) for i in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert schedule(12) == pytest.approx(0.55) and schedule(20) == pytest.approx(0.1) == schedule(99)
    assert constant(0.3)(7) == 0.3
    schedule = linear_decay(1.0, 20, warmup=4, floor=0.2)
    assert [schedule(i) for i in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert schedule(12) == pytest.approx(0.6) and schedule(20) == pytest.approx(0.2) == schedule(99)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SGD(momentum=1.0),
        lambda: SGD(momentum=-0.1),
        lambda: SGD(weight_decay=-1),
        lambda: SGD(nesterov=True),
        lambda: AdamW(betas=(0.9, 1.0)),
        lambda: AdamW(eps=0),
        lambda: AdamW(weight_decay=-1),
        lambda: cosine(1.0, 5, warmup=5),
        lambda: linear_decay(1.0, 5, warmup=-1),
        lambda: Clipped(SGD(), 0.0),
    ],
)
def test_bad_settings_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r" is | are | needs "):
        make()


def test_moments_start_at_zero() -> None:
    parameters: dict[str, Tensor] = {"w": torch.ones(2, 3)}
    assert SGD().slots(parameters) == {}
    for optimizer in (SGD(momentum=0.5), AdamW()):
        slots = optimizer.slots(parameters)
        assert slots and all(m.shape == (2, 3) and not m.any() for m in slots.values())
