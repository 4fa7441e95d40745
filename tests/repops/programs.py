"""Small programs and captured models that several test files share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import repops
from repops.dtypes import DType
from repops.graph.ir import BatchTensor, Constant, Input, Node, Program, Ref, Slot

F32, I64, BOOL = DType.F32, DType.I64, DType.BOOL


def read(ref: Ref, *shape: int, dtype: DType = F32) -> Input:
    return Input(ref, dtype, shape)


def sgd_program() -> Program:
    """weight -= lr * x^T (x weight - target); a count and a batch tensor as slots; one of two constants is unused."""
    return Program(
        slots=(
            Slot("weight", F32, (4, 3), Ref.node(4)),
            Slot("count", I64, (), Ref.state(1)),
            Slot("last", F32, (3,), Ref.batch(1)),
        ),
        batch=(BatchTensor("x", F32, (2, 4)), BatchTensor("y", F32, (3,)), BatchTensor("lr", F32, ())),
        constants=(
            Constant.of(np.arange(6, dtype=np.float32).reshape(2, 3)),
            Constant.of(np.array([True, False])),
        ),
        nodes=(
            Node("matmul", (0, 0, 0, 4), (), (read(Ref.batch(0), 2, 4), read(Ref.state(0), 4, 3)), F32, (2, 3)),
            Node("sub", (), (), (read(Ref.node(0), 2, 3), read(Ref.constant(0), 2, 3)), F32, (2, 3)),
            Node("matmul", (1, 0, 0, 2), (), (read(Ref.batch(0), 2, 4), read(Ref.node(1), 2, 3)), F32, (4, 3)),
            Node("mul", (), (), (read(Ref.node(2), 4, 3), read(Ref.batch(2))), F32, (4, 3)),
            Node("sub", (), (), (read(Ref.state(0), 4, 3), read(Ref.node(3), 4, 3)), F32, (4, 3)),
        ),
    )


def sgd_tensors() -> tuple[dict[str, Any], dict[str, Any]]:
    rng = np.random.default_rng(5)
    state = {
        "weight": rng.standard_normal((4, 3), np.float32),
        "count": np.array(7, np.int64),
        "last": np.zeros(3, np.float32),
    }
    batch = {
        "x": rng.standard_normal((2, 4), np.float32),
        "y": rng.standard_normal(3, np.float32),
        "lr": np.array(0.125, np.float32),
    }
    return state, batch


class Attention(nn.Module):
    """Self-attention with separate projections, as a head over [B, T, width]."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.heads, self.causal = heads, causal

    def forward(self, x: Tensor) -> Tensor:
        b, t, width = x.shape
        q, k, v = (f(x).view(b, t, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.o(out.transpose(1, 2).reshape(b, t, width))


class ConvNet(nn.Module):
    """Digits f32 [N, 8, 8] to ten classes: convolutions, batch and group norm, every kind of pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.batch_norm = nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.second, self.group_norm = nn.Conv2d(6, 8, 3, padding=1, groups=2), nn.GroupNorm(2, 8)
        self.third, self.head = nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.batch_norm(self.first(x.unsqueeze(1))))
        h = F.gelu(self.group_norm(self.second(F.max_pool2d(h, 3, 2, 1))))
        h = F.relu(self.third(F.adaptive_avg_pool2d(h, 3)))
        return self.head(F.avg_pool2d(h, 2).flatten(1))


class Transformer(nn.Module):
    """Token embedding, one pre-norm block, mean over tokens, classes."""

    def __init__(self, causal: bool = False) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(11, 16), nn.Parameter(torch.randn(6, 16) * 0.1)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(16) for _ in range(3))
        self.attention = Attention(16, 2, causal)
        self.up, self.down, self.head = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.tokens(x) + self.positions
        h = h + self.attention(self.norm1(h))
        h = h + self.down(F.gelu(self.up(self.norm2(h))))
        return self.head(self.norm3(h).mean(1))


Parts = tuple[Program, Callable[..., Any], dict[str, Tensor], dict[str, Tensor]]


def mlp() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(7, 12), nn.ReLU(), nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 4))


@cache
def captured(name: str) -> Parts:
    """(program, step, initial state, batch of step 3) of a model, captured with all checks. Models: see MODELS."""
    torch.manual_seed(2)
    tokens = torch.randint(0, 11, (3, 6))
    parts: dict[str, tuple[Callable[[], nn.Module], Any, Tensor, int]] = {
        "mlp-sgd": (mlp, repops.SGD(momentum=0.9, weight_decay=1e-3), torch.randn(5, 7), 4),
        "mlp-adamw": (mlp, repops.AdamW(), torch.randn(5, 7), 4),
        "transformer-adamw": (Transformer, repops.AdamW(weight_decay=0.1), tokens, 5),
        "causal-sgd": (lambda: Transformer(causal=True), repops.SGD(momentum=0.9, nesterov=True), tokens, 5),
    }
    make, optimizer, x, classes = parts[name]
    step, state, make_batch = repops.lift(
        make(), F.cross_entropy, optimizer=optimizer, schedule=repops.cosine(0.02, 100, warmup=5)
    )
    batch = make_batch(x, torch.randint(0, classes, (len(x),)), 3)
    return repops.capture(step, state, batch), step, state, batch


MODELS = ["mlp-sgd", "mlp-adamw", "transformer-adamw", "causal-sgd"]
