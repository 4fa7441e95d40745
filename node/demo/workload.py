"""What the demo's client wants done: a small transformer trained on scikit-learn's digits.

This is the client's own code: the only place in `node` where torch is imported.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn

import repops

Arrays = dict[str, NDArray[np.generic]]

WIDTH, HEADS, LAYERS, PATCH, CLASSES = 32, 4, 2, 2, 10
BATCH_SIZE = 128
HELD_OUT = 360
PEAK_LEARNING_RATE = 6e-3


@dataclass(frozen=True)
class Workload:
    """A task's content: the program, its initial state, one batch a step, and how to score a final state.

    `plain(state, batch)` is the same step in eager torch: as good a result, other bits. `evaluate(state)` returns the
    accuracy in [0, 1] on images that no batch contains.
    """

    program: repops.Program
    initial_state: Arrays
    batches: list[Arrays]
    plain: Callable[[Arrays, Arrays], Arrays]
    evaluate: Callable[[Arrays], float]


class Block(nn.Module):
    """Pre-norm transformer block: attention over patches, then a GELU MLP. [B, T, WIDTH] -> the same."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, tokens, 3, HEADS, width // HEADS)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(heads.transpose(1, 2).reshape(batch, tokens, width))
        mixed: Tensor = x + self.down(F.gelu(self.up(self.norm2(x))))
        return mixed


class PatchClassifier(nn.Module):
    """8x8 images [B, 8, 8] -> logits [B, 10], through 16 patches of 2x2."""

    def __init__(self) -> None:
        super().__init__()
        self.grid = 8 // PATCH
        self.embed = nn.Linear(PATCH * PATCH, WIDTH)
        self.position = nn.Parameter(torch.randn(self.grid**2, WIDTH) * 0.02)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        batch, grid = images.shape[0], self.grid
        patches = images.view(batch, grid, PATCH, grid, PATCH).permute(0, 1, 3, 2, 4)
        x = self.embed(patches.reshape(batch, grid * grid, PATCH * PATCH)) + self.position
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x).mean(1))
        return logits


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up over a tenth of the run, then a cosine down to a twentieth of the peak."""
    warmup = min(1.0, (step + 1) / max(1, steps // 10))
    return PEAK_LEARNING_RATE * warmup * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def digits_transformer(steps: int, seed: int) -> Workload:
    """The demo's task: `steps` AdamW steps on 1,437 digits, scored on the other 360. Deterministic in `seed`."""
    torch.manual_seed(seed)
    pixels, digits = load_digits(return_X_y=True)
    images = torch.tensor(pixels / 8.0 - 1.0, dtype=torch.float32).view(-1, 8, 8)
    labels = torch.tensor(digits, dtype=torch.int64)
    order = torch.randperm(len(images))
    train, held_out = order[HELD_OUT:], order[:HELD_OUT]

    model = PatchClassifier()
    step, state, make_batch = repops.lift(
        model,
        F.cross_entropy,
        optimizer=repops.AdamW(weight_decay=0.01),
        schedule=lambda t: learning_rate(t, steps),
    )
    batches = []
    for t in range(steps):
        rows = train[torch.randint(len(train), (BATCH_SIZE,))]
        batches.append(make_batch(images[rows], labels[rows], t))
    program = repops.capture(step, state, batches[0])

    parameters = [name for name, _ in model.named_parameters()]

    def evaluate(final: Arrays) -> float:
        weights = {name: torch.from_numpy(np.array(final[name])) for name in parameters}
        with torch.no_grad():
            logits = torch.func.functional_call(model, weights, (images[held_out],))
        return float((logits.argmax(1) == labels[held_out]).double().mean())

    def plain(before: Arrays, batch: Arrays) -> Arrays:
        tensors = [{k: torch.from_numpy(np.array(v)) for k, v in group.items()} for group in (before, batch)]
        after = step(*tensors)
        return {name: np.ascontiguousarray(after[name].numpy()) for name in before}

    return Workload(
        program=program,
        initial_state={name: tensor.detach().numpy().copy() for name, tensor in state.items()},
        batches=[{name: tensor.numpy() for name, tensor in batch.items()} for batch in batches],
        plain=plain,
        evaluate=evaluate,
    )
