#!/usr/bin/env python3
"""Speed and memory of a whole training step of a GPT-2 class model, or of its forward pass: ours beside torch.

The sides: "ours" is the captured program through `Executor.run(donate=True)`; "torch" is the same module in eager mode,
with its default attention, `AdamW(fused=True)` and the ordinary zero_grad, backward, step; "compile" is this step with
the module through `torch.compile`, "backend" with `torch.compile(module, backend="repops")`; with --with-loss these
two compile the loss, too. They take turns in one process, step by step, on torch's own thread pool; a ratio is the
median of torch's time over ours, of the same turns.
Peak memory is the high-water mark of the resident set in a process of its own for each side, less what it was after the
imports (of a side that compiles, after a function of one operator was compiled, which imports much of torch).
Commitment: the state root every 10 steps, with the same threads.
With --inference it is the forward pass of one sequence to its logits: frozen (`Executor.freeze`) and unfrozen, beside
the module in eager mode under `torch.inference_mode`.

    python scripts/bench_step.py [--model small large] [--threads 1 2] [--pairs 15] [--sides ours torch compile backend]
        [--with-loss] [--no-memory] [--json | --markdown]
    python scripts/bench_step.py --profile [--model ..] [--threads ..]
    python scripts/bench_step.py --inference [--sequence 16 32 128] [--model ..] [--threads ..] [--pairs ..] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import repops
import repops.dynamo
from repops import commit, optim
from repops.graph.ir import Program

RATE = 1e-4
CHECKPOINT_STEPS = 10


@dataclass(frozen=True)
class Config:
    """Sizes of a GPT-2: pre-norm blocks, learned positions, a head tied to the token embedding."""

    layers: int
    width: int
    heads: int
    vocabulary: int = 50257
    context: int = 1024
    sequence: int = 256
    batch: int = 2


MODELS = {
    "tiny": Config(1, 64, 2, vocabulary=512, context=64, sequence=32),  # to try this script
    "small": Config(4, 256, 4),
    "large": Config(12, 768, 12),
}
MEASURED = ["small", "large"]
SIDES = ("ours", "torch", "compile", "backend")
OURS, TORCHS = ("ours", "backend"), ("torch", "compile")
LABELS = {"ours": "ours", "torch": "eager", "compile": "`torch.compile`", "backend": "backend"}


class Block(nn.Module):
    """Causal self-attention and a gelu network, each behind a layer norm and beside a residual."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.heads = c.heads
        self.ln_1, self.ln_2 = nn.LayerNorm(c.width), nn.LayerNorm(c.width)
        self.qkv, self.proj = nn.Linear(c.width, 3 * c.width), nn.Linear(c.width, c.width)
        self.up, self.down = nn.Linear(c.width, 4 * c.width), nn.Linear(4 * c.width, c.width)

    def forward(self, x: Tensor) -> Tensor:
        """x: [batch, sequence, width], and so is the result."""
        b, t, width = x.shape
        heads = (p.view(b, t, self.heads, -1).transpose(1, 2) for p in self.qkv(self.ln_1(x)).split(width, dim=2))
        y = F.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(b, t, width))
        return x + self.down(F.gelu(self.up(self.ln_2(x)), approximate="tanh"))


class GPT2(nn.Module):
    """Logits [batch, sequence, vocabulary] of tokens [batch, sequence]."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(c.vocabulary, c.width), nn.Embedding(c.context, c.width)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.ln = nn.LayerNorm(c.width)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: i64."""
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return F.linear(self.ln(x), self.tokens.weight)


def loss_of(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy over all tokens."""
    return F.cross_entropy(logits.flatten(0, 1), target.flatten())


def tokens_of(c: Config) -> tuple[Tensor, Tensor]:
    """One batch: tokens and the tokens that follow them."""
    tokens = torch.randint(c.vocabulary, (c.batch, c.sequence + 1), generator=torch.Generator().manual_seed(1))
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def as_called(module: Callable[..., Any], side: str) -> Callable[..., Any]:
    """A module in eager mode or compiled, as a side of torch has it."""
    if side == "torch":
        return module
    return torch.compile(module, backend="repops" if side == "backend" else "inductor", dynamic=False)


def torch_step(c: Config, side: str, with_loss: bool = False) -> Callable[[], None]:
    """A step of the module in torch. with_loss: what compiles the module compiles the loss, too."""
    torch.manual_seed(0)
    module = GPT2(c)
    optimizer = torch.optim.AdamW(module.parameters(), lr=RATE, fused=True)
    x, y = tokens_of(c)

    def module_and_loss(x: Tensor, y: Tensor) -> Tensor:
        return loss_of(module(x), y)

    call = as_called(module_and_loss if with_loss else module, side)

    def step() -> None:
        optimizer.zero_grad()
        loss = call(x, y) if with_loss else loss_of(call(x), y)
        loss.backward()
        optimizer.step()

    return step


class Ours:
    """The captured step; `state` is updated in place."""

    def __init__(self, c: Config, program: Program | None = None) -> None:
        torch.manual_seed(0)
        step, state, make_batch = repops.lift(GPT2(c), loss_of, optimizer=optim.AdamW(), schedule=optim.constant(RATE))
        batch = make_batch(*tokens_of(c), 0)
        self.program = program or repops.capture(step, state, batch, check=False)
        self.state = {name: tensor.numpy() for name, tensor in state.items()}
        self.batch = {name: tensor.numpy() for name, tensor in batch.items()}

    def executor(self, threads: int) -> repops.Executor:
        """Runs the program."""
        return repops.Executor(self.program, threads=threads)

    def step(self, threads: int) -> Callable[[], object]:
        """A step of the captured program."""
        executor = self.executor(threads)
        return lambda: executor.run(self.state, self.batch, donate=True)

    def root(self, threads: int) -> bytes:
        """The checkpoint's commitment: the root over all slots."""
        return commit.state_root(commit.tensor_roots(self.state.values(), threads))


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def take_turns(sides: dict[str, Callable[[], object]], pairs: int) -> dict[str, list[float]]:
    """The seconds of every side, turn by turn."""
    times: dict[str, list[float]] = defaultdict(list)
    for turn in range(pairs + 1):
        for side, step in sides.items():
            taken = seconds(step)
            if turn > 0:  # the first warms up
                times[side].append(taken)
    return times


def median_ratio(others: list[float], ours: list[float]) -> float:
    """Of the times taken in the same turns."""
    return statistics.median(a / b for a, b in zip(others, ours, strict=True))


def to_itself(times: list[float]) -> float | None:
    """The median ratio of a side's times to those of the next turn; None for one turn."""
    return statistics.median(a / b for a, b in pairwise(times)) if len(times) > 1 else None


def measure_inference(name: str, sequence: int, threads: list[int], pairs: int) -> Iterator[dict[str, object]]:
    """Rows of the table of forward passes, one for each number of threads."""
    c = replace(MODELS[name], sequence=sequence, batch=1)
    torch.manual_seed(0)
    module = GPT2(c).eval()
    batch = {"tokens": tokens_of(c)[0]}
    step, state = repops.lift_forward(module, batch)
    program = repops.capture(step, state, batch, check=False)

    @torch.inference_mode()
    def eager() -> None:
        module(batch["tokens"])

    for count in threads:
        torch.set_num_threads(count)
        executor = repops.Executor(program, threads=count)
        frozen = executor.freeze(state)
        output = {slot: state[slot].clone() for slot in frozen.slots}
        sides: dict[str, Callable[[], object]] = {
            "frozen": lambda: frozen.run(output, batch, donate=True),  # noqa: B023 (called before the next turn)
            "unfrozen": lambda: executor.run(state, batch, donate=True),  # noqa: B023
            "torch": eager,
        }
        times = take_turns(sides, pairs)
        if any(not torch.equal(output[slot], state[slot]) for slot in frozen.slots):
            raise SystemExit("frozen and unfrozen runs differ")
        yield {
            "model": name,
            "sequence": sequence,
            "threads": count,
            **{f"{side}_s": statistics.median(taken) for side, taken in times.items()},
            "ratio": median_ratio(times["torch"], times["frozen"]),
            "unfrozen_ratio": median_ratio(times["torch"], times["unfrozen"]),
            "gain": median_ratio(times["unfrozen"], times["frozen"]),
            "torch_to_itself": to_itself(times["torch"]),
            "frozen_bytes": frozen.bytes,
            "weight_bytes": sum(p.nbytes for p in module.parameters()),
        }


def measure(
    name: str, threads: int, pairs: int, sides: Sequence[str], ours: Ours | None, with_loss: bool
) -> dict[str, object]:
    """One row of the table of training steps. ours: if it is one of the sides."""
    set_threads(threads)
    torch._dynamo.reset()  # what was compiled for another number of threads
    steps = {
        side: ours.step(threads) if side == "ours" and ours else torch_step(MODELS[name], side, with_loss)
        for side in sides
    }
    times = take_turns(steps, pairs)
    row: dict[str, object] = {"model": name, "threads": threads}
    row |= {f"{side}_s": statistics.median(taken) for side, taken in times.items()}
    row |= {ratio_of(b, a): median_ratio(times[b], times[a]) for a, b in compared(sides)}
    row |= {f"{side}_to_itself": to_itself(times[side]) for side in sides if side in TORCHS}
    if ours:
        root_s = statistics.median(seconds(lambda: ours.root(threads)) for _ in range(3))
        row |= {"root_s": root_s, "commitment": root_s / (CHECKPOINT_STEPS * statistics.median(times["ours"]))}
    return row


def compared(sides: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of a side of ours and one of torch's."""
    return [(a, b) for a in OURS for b in TORCHS if a in sides and b in sides]


def ratio_of(above: str, below: str) -> str:
    """The name of a ratio in a row."""
    return f"{above}/{below}"


def set_threads(threads: int) -> None:
    """For torch and the backend."""
    torch.set_num_threads(threads)
    repops.set_threads(threads)


def resident_peak() -> int:
    """The most bytes this process ever had in memory. Not ru_maxrss: that starts at the parent's."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("ascii").splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024


def peak_memory(name: str, side: str, with_loss: bool) -> int:
    """Bytes that two steps need at most, in a process of their own: the median of three, as heaps differ by chance."""
    command = [sys.executable, __file__, "--peak", side, "--model", name, *["--with-loss"][:with_loss]]
    return statistics.median(
        int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout) for _ in range(3)
    )


def peak(name: str, side: str, with_loss: bool) -> None:
    """Prints this process's high-water mark after two steps, less what it was before there was a model."""
    set_threads(1)
    if side in ("compile", "backend"):
        as_called(torch.square, side)(torch.ones(1, requires_grad=True)).backward()
    before = resident_peak()
    step = Ours(MODELS[name]).step(1) if side == "ours" else torch_step(MODELS[name], side, with_loss)
    for _ in range(2):
        step()
    print(resident_peak() - before)


def table(rows: list[dict[str, Any]], sides: Sequence[str]) -> Iterator[str]:
    """The rows as a table in Markdown; peak memory once for each model."""
    pairs = compared(sides)
    heads = [LABELS[side] for side in sides] + [f"{LABELS[b]} / {LABELS[a]}" for a, b in pairs]
    memory = [side for side in sides if f"{side}_bytes" in rows[0]]
    heads += [f"peak memory, {' / '.join(LABELS[side] for side in memory)}"] if memory else []
    heads += [f"state root every {CHECKPOINT_STEPS} steps"] if "commitment" in rows[0] else []
    yield f"| model, threads | {' | '.join(heads)} |"
    yield "|---" * (1 + len(heads)) + "|"
    before = None
    for row in rows:
        cells = [f"{row['model']}, {row['threads']}", *(f"{row[f'{side}_s']:.3f} s" for side in sides)]
        cells += [f"{row[ratio_of(b, a)]:.2f}" for a, b in pairs]
        sizes = " / ".join(f"{row[f'{side}_bytes'] / 1e6:,.0f}" for side in memory) + " MB"
        cells += [sizes if row["model"] != before else ""] if memory else []
        cells += [f"{100 * row['commitment']:.1f} %"] if "commitment" in row else []
        yield f"| {' | '.join(cells)} |".replace("|  |", "| |")
        before = row["model"]


def profile(ours: Ours, threads: int, lines: int = 45) -> Iterator[str]:
    """Where a step's time goes: by operator, then by operator and shapes."""
    executor = ours.executor(threads)
    executor.run(ours.state, ours.batch, donate=True)
    by_op: dict[str, list[float]] = defaultdict(list)
    by_shape: dict[str, list[float]] = defaultdict(list)
    calls = executor.profile(ours.state, ours.batch, donate=True)
    total = sum(call.seconds for call in calls)
    for call in calls:
        by_op[call.op].append(call.seconds)
        by_shape[f"{call.op} {[list(s) for s in call.inputs]} -> {[list(s) for s in call.outputs]}"].append(
            call.seconds
        )
    yield f"{total:.3f} s in {len(calls)} calls, {threads} threads"
    for table in (by_op, by_shape):
        for name, taken in sorted(table.items(), key=lambda item: -sum(item[1]))[:lines]:
            yield f"{sum(taken) * 1e3:9.2f} ms {100 * sum(taken) / total:5.1f} % {len(taken):5d} x {name}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, nargs="+", default=MEASURED)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--sides", choices=SIDES, nargs="+", default=["ours", "torch"], help="what takes turns")
    parser.add_argument("--profile", action="store_true", help="where our step's time goes, instead")
    parser.add_argument("--inference", action="store_true", help="forward passes, instead")
    parser.add_argument("--sequence", type=int, nargs="+", default=[16, 32, 128], help="tokens of a forward pass")
    parser.add_argument("--with-loss", action="store_true", help="sides that compile the module compile the loss, too")
    parser.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true")
    form.add_argument("--markdown", action="store_true", help="training steps as a table")
    parser.add_argument("--peak", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        peak(options.model[0], options.peak, options.with_loss)
    elif options.inference:
        for name, sequence in product(options.model, options.sequence):
            for row in measure_inference(name, sequence, options.threads, options.pairs):
                print(json.dumps(row) if options.json else plain(row), flush=True)
    elif options.profile:
        for name in options.model:
            ours = Ours(MODELS[name])
            for threads in options.threads:
                print(f"{name}: " + "\n".join(profile(ours, threads)))
    else:
        sides = list(dict.fromkeys(options.sides))
        rows = list(training_rows(options, sides))
        lines = table(rows, sides) if options.markdown else map(json.dumps if options.json else plain, rows)
        print("\n".join(lines))


def training_rows(options: argparse.Namespace, sides: Sequence[str]) -> Iterator[dict[str, object]]:
    """All rows of the table of training steps."""
    for name in options.model:
        measured = () if options.no_memory else sides
        sizes = {f"{side}_bytes": peak_memory(name, side, options.with_loss) for side in measured}
        ours = Ours(MODELS[name]) if "ours" in sides else None
        for threads in options.threads:
            yield measure(name, threads, options.pairs, sides, ours, options.with_loss) | sizes


def plain(row: dict[str, object]) -> str:
    """A row in words."""
    return "  ".join(f"{k} {v}" for k, v in row.items())


if __name__ == "__main__":
    main()
