"""Golden programs: 100-step trainings of four models, and every group of nodes that a fused kernel computes.

The programs are captured once and kept in tests/vectors/golden_programs, so that the hashes speak of fixed graphs
and need no torch; `python tests/repops/golden.py` captures them again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from golden_data import Array, Data, Kind

from repops.dtypes import DType
from repops.graph.ir import Program

DIRECTORY = Path(__file__).parents[1] / "vectors" / "golden_programs"
STEPS = 100


@dataclass(frozen=True)
class Run:
    """A program with its initial state and one batch for each step, in the program's order."""

    name: str
    program: Program
    state: Sequence[Data]
    batches: Sequence[Sequence[Data]]


def integers(seed: int, low: int, count: int, *shape: int) -> Array:
    return Data(DType.I64, shape, Kind.RANGE, seed, low, count).array()


def weights(seed: int, *shape: int) -> Array:
    """Multiples of 2^-16 in [-1/4, 1/4): exact in f32, and so the same everywhere."""
    return (integers(seed, -(2**14), 2**15, *shape) / 2.0**16).astype(np.float32)


def digits(step: int, size: int) -> tuple[Array, Array]:
    """Images of scikit-learn's digits, f32 [size, 8, 8] in sixteenths, and their labels, i64."""
    from sklearn.datasets import load_digits  # noqa: PLC0415

    pixels, labels = load_digits(return_X_y=True)
    rows = np.arange(step * size, (step + 1) * size) % len(pixels)
    return (pixels[rows] / 16).astype(np.float32).reshape(size, 8, 8), labels[rows].astype(np.int64)


def sentences(step: int, size: int, length: int, words: int) -> tuple[Array, Array]:
    """Tokens i64 [size, length], and for each sentence the number of its even tokens."""
    tokens = integers(1000 + step, 0, words, size, length)
    return tokens, (tokens % 2 == 0).sum(1) % 5


def runs() -> list[Run]:
    """Every golden program with its data."""
    groups = [_group(name, kind) for name in GROUPS for kind in (Kind.PLAIN, Kind.SPECIAL)]
    return [*(_training(name) for name in TRAININGS), *groups]


def _training(name: str) -> Run:
    program = Program.load(DIRECTORY / name)
    batch_of, scalars_of = TRAININGS[name].batch, TRAININGS[name].scalars
    state = []
    for i, slot in enumerate(program.slots):
        moment = slot.name.startswith(("momentum/", "exp_avg"))
        zero = moment or slot.name in ("loss",) or slot.dtype is not DType.F32 or "running_" in slot.name
        array = np.zeros(slot.shape, slot.dtype.numpy) if zero else weights(i, *slot.shape)
        if not zero and "norm" in slot.name and slot.name.endswith("weight"):
            array += np.float32(1)
        state.append(Data.of(np.asarray(array + 1 if "running_var" in slot.name else array, slot.dtype.numpy)))
    batches = []
    for step in range(STEPS):
        x, y = batch_of(step)
        given = {"x": x, "y": y, **{k: np.array(v, np.float32) for k, v in scalars_of(step).items()}}
        batches.append([Data.of(given[t.name]) for t in program.batch])
    return Run(f"training {name}, {STEPS} steps", program, state, batches)


def _group(name: str, kind: Kind) -> Run:
    program = Program.load(DIRECTORY / name)
    state = [Data(s.dtype, s.shape, Kind.PLAIN, 50 + i) for i, s in enumerate(program.slots)]
    batch = [Data(t.dtype, t.shape, kind, 900 + i) for i, t in enumerate(program.batch)]
    return Run(f"group {name} {kind.name.lower()}", program, state, [batch])


@dataclass(frozen=True)
class Training:
    """What a training needs beside its program: data by step, and the optimizer's scalars."""

    module: Callable[[], Any]
    optimizer: Callable[[], Any]
    rate: float
    batch: Callable[[int], tuple[Array, Array]]

    def scalars(self, step: int) -> dict[str, float]:
        from repops.optim import cosine  # noqa: PLC0415

        return self.optimizer().scalars(step, cosine(self.rate, STEPS, warmup=5)(step))


def _sgd() -> Any:
    from repops.optim import SGD  # noqa: PLC0415

    return SGD(momentum=0.9, weight_decay=1e-3, nesterov=True)


def _adamw() -> Any:
    from repops.optim import AdamW  # noqa: PLC0415

    return AdamW(weight_decay=0.05)


def _mlp() -> Any:
    from torch import nn  # noqa: PLC0415

    return nn.Sequential(nn.Flatten(), nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 24), nn.Tanh(), nn.Linear(24, 10))


def _transformer(causal: bool) -> Any:
    from programs import Transformer  # noqa: PLC0415

    return Transformer(causal)


def _conv_net() -> Any:
    from programs import ConvNet  # noqa: PLC0415

    return ConvNet()


TRAININGS: dict[str, Training] = {
    "digits_mlp_sgd": Training(_mlp, _sgd, 0.05, lambda step: digits(step, 16)),
    "transformer_adamw": Training(lambda: _transformer(False), _adamw, 0.01, lambda step: sentences(step, 8, 6, 11)),
    "causal_transformer_sgd": Training(lambda: _transformer(True), _sgd, 0.05, lambda step: sentences(step, 5, 6, 11)),
    "digits_conv_net_adamw": Training(_conv_net, _adamw, 0.02, lambda step: digits(step, 12)),
}

# ---- groups: functions of (weight, bias) slots and batch tensors whose gradients are taken ---------------------------


def _attention(causal: bool, t: int, s: int, d: int) -> Any:
    import torch  # noqa: PLC0415
    import torch.nn.functional as F  # noqa: PLC0415

    def loss(q: Any, k: Any, v: Any, g: Any) -> Any:
        return (F.scaled_dot_product_attention(q, k, v, is_causal=causal) * g).sum()

    shapes = [(2, 3, t, d), (2, 3, s, d), (2, 3, s, d), (2, 3, t, d)]
    return loss, [torch.zeros(x) for x in shapes], 3


def _layer_norm(rows: int, width: int) -> Any:
    import torch  # noqa: PLC0415
    import torch.nn.functional as F  # noqa: PLC0415

    def loss(x: Any, w: Any, b: Any, g: Any) -> Any:
        return (F.layer_norm(x, (width,), w, b) * g).sum()

    return loss, [torch.zeros(x) for x in [(rows, width), (width,), (width,), (rows, width)]], 3


def _softmax(log: bool, rows: int, width: int) -> Any:
    import torch  # noqa: PLC0415

    def loss(x: Any, g: Any) -> Any:
        return ((torch.log_softmax(x, -1) if log else torch.softmax(x, -1)) * g).sum()

    return loss, [torch.zeros(rows, width)] * 2, 1


def _chain(rows: int, width: int) -> Any:
    import torch  # noqa: PLC0415
    import torch.nn.functional as F  # noqa: PLC0415

    def loss(x: Any, b: Any, g: Any) -> Any:
        return ((F.gelu(x + b) * x - F.silu(b) / 3) * g + torch.tanh(x * 0.5)).sum()

    return loss, [torch.zeros(rows, width), torch.zeros(width), torch.zeros(rows, width)], 2


GROUPS: dict[str, Callable[[], Any]] = {
    "attention": lambda: _attention(False, 37, 41, 20),
    "attention_causal": lambda: _attention(True, 70, 70, 17),
    "attention_small": lambda: _attention(True, 1, 1, 1),
    "attention_long": lambda: _attention(False, 19, 300, 8),
    "layer_norm": lambda: _layer_norm(13, 77),
    "layer_norm_narrow": lambda: _layer_norm(3, 5),
    "layer_norm_wide": lambda: _layer_norm(4, 1100),
    "softmax": lambda: _softmax(False, 9, 131),
    "softmax_one": lambda: _softmax(False, 3, 1),
    "log_softmax": lambda: _softmax(True, 9, 131),
    "chain": lambda: _chain(5, 77),
    "chain_long": lambda: _chain(3, 7001),
}


def capture_all() -> None:
    """Writes every program of TRAININGS and GROUPS to DIRECTORY."""
    import torch  # noqa: PLC0415
    import torch.nn.functional as F  # noqa: PLC0415

    import repops  # noqa: PLC0415

    for name, training in TRAININGS.items():
        step, state, make_batch = repops.lift(
            training.module(), F.cross_entropy, optimizer=training.optimizer(), schedule=repops.constant(training.rate)
        )
        x, y = (torch.from_numpy(a) for a in training.batch(0))
        repops.capture(step, state, make_batch(x, y, 0)).save(DIRECTORY / name)
    for name, make in GROUPS.items():
        loss, tensors, gradients = make()

        def step(state: Any, batch: Any, loss: Any = loss, gradients: int = gradients) -> Any:
            values = [batch[k].detach().requires_grad_() for k in batch]
            value = loss(*values)
            grads = torch.autograd.grad(value, values[:gradients])
            return {"loss": value.detach(), **{f"d{i}": g for i, g in enumerate(grads)}}

        torch.manual_seed(0)
        batch = {f"x{i}": torch.randn_like(t) for i, t in enumerate(tensors)}
        state = {"loss": torch.zeros(()), **{f"d{i}": torch.zeros_like(tensors[i]) for i in range(gradients)}}
        repops.capture(step, state, batch).save(DIRECTORY / name)
