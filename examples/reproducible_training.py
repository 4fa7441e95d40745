"""Trains an ordinary model twice over: by eager torch, and by `torch.compile(model, backend="repops")`.

RepOps' bits do not depend on the number of threads, nor on how a batch is split; torch's may depend on both. What is
compared is the hash of the weights after a few steps, and the outputs of single samples against those of the batch.
(Gradients of a split batch are another sum than those of the whole batch, so only outputs are compared there.)

    python examples/reproducible_training.py [--steps 20] [--threads 1 2 3]
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import repops
import repops.dynamo  # registers the backend where the package is not installed

BATCH = 128


def make_model() -> nn.Module:
    """A small classifier with the same weights every time."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 192), nn.GELU(), nn.LayerNorm(192), nn.Linear(192, 10))


def digits() -> tuple[Tensor, Tensor]:
    """1,797 handwritten digits, f32 [n, 64] in [0, 1], and their classes, int64 [n]."""
    data = load_digits()
    return torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)


def train(wrap: Callable[[nn.Module], Callable[[Tensor], Tensor]], threads: int, steps: int) -> nn.Module:
    """The model after `steps` steps of SGD with momentum."""
    torch.set_num_threads(threads)
    repops.set_threads(threads)
    model = make_model()
    function = wrap(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = digits()
    for step in range(steps):
        rows = torch.arange(step * BATCH, (step + 1) * BATCH) % len(x)
        optimizer.zero_grad()
        F.cross_entropy(function(x[rows]), y[rows]).backward()
        optimizer.step()
    return model


def hash_of(model: nn.Module) -> str:
    """The first hexadecimal digits of SHA-256 over all weights."""
    digest = hashlib.sha256()
    for weight in model.parameters():
        digest.update(weight.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def rows_that_change(function: Callable[[Tensor], Tensor], sizes: Sequence[int] = (1, 32)) -> int:
    """How many rows of an output differ in a bit when the batch is computed in parts."""
    x, _ = digits()
    x = x[:BATCH]
    with torch.no_grad():
        whole = function(x)
        changed = torch.zeros(len(x), dtype=torch.bool)
        for size in sizes:
            parts = torch.cat([function(part) for part in x.split(size)])
            changed |= (parts.view(torch.int32) != whole.view(torch.int32)).any(1)
    return int(changed.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description="The same bits for any number of threads and any split of a batch.")
    parser.add_argument("--steps", type=int, default=20, help="steps of training (default 20)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 3], help="thread counts (default 1 2 3)")
    arguments = parser.parse_args()
    sides: dict[str, Callable[[nn.Module], Callable[[Tensor], Tensor]]] = {
        "torch": lambda model: model,
        "repops": lambda model: torch.compile(model, backend="repops", dynamic=False),
    }
    for name, wrap in sides.items():
        hashes = {threads: hash_of(train(wrap, threads, arguments.steps)) for threads in arguments.threads}
        changed = rows_that_change(wrap(make_model()))
        print(f"{name:<7} weights " + ", ".join(f"{t} threads {h}" for t, h in hashes.items()))
        print(f"{name:<7} {len(set(hashes.values()))} result(s); rows that change when the batch is split: {changed}")


if __name__ == "__main__":
    main()
