"""Captures an MLP's AdamW step as a program, saves it, and trains with RepOps kernels: the same bits on every CPU.

python examples/train_mlp.py [--steps N] [--save DIRECTORY]
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import repops


def spirals(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points [count, 2] on three noisy spiral arms, and their arm [count]."""
    arm = torch.randint(3, (count,), generator=generator)
    radius = torch.rand(count, generator=generator)
    angle = 4 * radius + arm * (2 * torch.pi / 3) + 0.15 * torch.randn(count, generator=generator)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1), arm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--save", metavar="DIRECTORY", help="write the program here")
    options = parser.parse_args()

    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 3))
    schedule = repops.cosine(1e-2, options.steps, warmup=options.steps // 20)
    step, state, make_batch = repops.lift(model, F.cross_entropy, optimizer=repops.AdamW(), schedule=schedule)

    program = repops.capture(step, state, make_batch(*spirals(128, generator), 0))
    print(f"program 0x{program.root.hex()}: {len(program.nodes)} nodes, {len(program.slots)} slots")
    if options.save:
        program.save(options.save)
        print(f"saved: verde program inspect {options.save}")

    executor = repops.Executor(program, threads=2)
    values = executor.run(state, make_batch(*spirals(128, generator), 0))
    for index in range(1, options.steps):
        values = executor.run(values, make_batch(*spirals(128, generator), index), donate=True)
        if (index + 1) % 100 == 0:
            print(f"step {index + 1}: loss {float(values['loss']):.4f}")

    points, arms = spirals(2000, generator)
    weights = {name: torch.from_numpy(values[name]) for name, _ in model.named_parameters()}
    with torch.no_grad():
        guesses = torch.func.functional_call(model, weights, (points,)).argmax(1)
    print(f"accuracy on new points: {float((guesses == arms).float().mean()):.3f}")


if __name__ == "__main__":
    main()
