#!/usr/bin/env python3
"""Speed of the operators beside torch (and, for products, numpy's OpenBLAS), as ratios of times: torch / ours.

For every instruction set and thread count a process of its own takes the rows of scripts/bench_cases.py one by one.
Ours and torch take turns, ours in torch's own OpenMP pool, and so does torch once more: its ratio to itself (A/A)
shows what is noise. A ratio is the median over the rounds. In the AVX2 columns torch and OpenBLAS are limited to AVX2.
OpenBLAS has threads of its own, which would fight for the cores: it takes turns at one thread only, for more it is
timed in another process.

    python scripts/bench_repops.py [--quick] [--only PATTERN] [--isa avx2] [--threads 1] [--json | --markdown]
    python scripts/bench_repops.py --from a.json b.json --markdown      merges the JSON of several runs
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = str(Path(__file__).resolve().parent.parent)
sys.path.insert(0, ROOT)

Row = dict[str, Any]
KINDS = {"gemm": "products", "compute": "compute-bound", "memory": "memory-bound"}
# (each ratio, geometric mean) by kind; of products by instruction set
BARS = {"compute": (1.0, 1.3), "memory": (0.95, 1.0), "gemm avx512": (1.0, 1.15), "gemm avx2": (0.95, 1.05)}
OPENBLAS_BAR = 0.95
SHORTEST = 1e-3  # seconds: quicker calls are repeated in a loop
NOT_INHERITED = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OPENBLAS_NUM_THREADS", "REPOPS_ISA", "OMP_PROC_BIND")


def environment(isa: str, threads: int, openblas: int) -> dict[str, str]:
    """Of a measuring process. Both sides recycle memory: the allocator never gives any back to the system."""
    kept = {k: v for k, v in os.environ.items() if k not in NOT_INHERITED}
    kept |= {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(openblas), "REPOPS_ISA": isa}
    kept |= {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(1 << 26)}
    if isa == "avx2":
        kept |= {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
        kept["OPENBLAS_CORETYPE"] = "Haswell"
    return kept


def seconds(work: Callable[[], object], repeat: int = 1) -> float:
    """Of one call."""
    start = time.perf_counter()
    for _ in range(repeat):
        work()
    return (time.perf_counter() - start) / repeat


def take_turns(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Times of every side in every round; who begins changes from round to round."""
    for work in sides.values():
        work()
    repeat = max(1, math.ceil(SHORTEST / min(seconds(work) for work in sides.values())))
    times: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            taken = seconds(sides[name], repeat)
            if turn:  # the first round warms up
                times[name].append(taken)
    return times


def median_ratio(others: list[float], ours: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(others, ours, strict=True))


def selected(arguments: argparse.Namespace) -> list[Any]:
    from bench_cases import cases  # noqa: PLC0415

    return [
        case
        for case in cases()
        if (case.quick or not arguments.quick) and (not arguments.only or re.search(arguments.only, case.name))
    ]


def one_pool() -> bool:
    """Whether this process has loaded one OpenMP library only."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    return len({line.split()[-1] for line in maps.splitlines() if re.search(r"lib(gomp|iomp|omp)\b", line)}) == 1


def measure(case: Any, isa: str, threads: int, rounds: int) -> Row:
    """Ours, torch and torch again; for products at one thread OpenBLAS too."""
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415

    import repops  # noqa: PLC0415
    from repops.execute import fused_kernels  # noqa: PLC0415
    from repops.plan import Compiler  # noqa: PLC0415

    torch.manual_seed(0)
    data = case.make()
    program = repops.capture(data.step, data.slots, data.batch, check=False)
    plan = Compiler(program, fused_kernels(isa)).plan(isa)
    slots = [data.slots[slot.name].numpy() for slot in program.slots]  # donated
    batch = [data.batch[tensor.name].numpy() for tensor in program.batch]
    constants = [constant.data for constant in program.constants]

    def ours() -> None:
        plan.run(slots, batch, constants, slots, threads)

    ours()
    result = data.eager()
    results = list(result) if isinstance(result, (tuple, list)) else [result]
    for mine, other in zip(data.slots.values(), results, strict=False):
        error = float((mine.double() - other.double()).norm() / other.double().norm().clamp_min(1e-30))
        if not error <= data.tolerance:
            raise SystemExit(f"{case.name}: ours and torch differ by {error:.1e} of the norm")
    if not one_pool():
        raise SystemExit("torch and repops have loaded different OpenMP libraries: their threads would fight")
    sides: dict[str, Callable[[], object]] = {"ours": ours, "torch": data.eager, "again": data.again}
    if data.operands is not None and threads == 1:
        a, b = (x.numpy() for x in data.operands)
        out = np.empty((*a.shape[:-1], b.shape[-1]), dtype=np.float32)
        sides["openblas"] = lambda: np.matmul(a, b, out=out)
    times = take_turns(sides, rounds)
    row = {
        "op": case.op,
        "shape": case.shape,
        "threads": threads,
        "isa": isa,
        "kind": case.kind,
        "ours_s": statistics.median(times["ours"]),
        "torch_s": statistics.median(times["torch"]),
        "ratio": median_ratio(times["torch"], times["ours"]),
        "aa": median_ratio(times["again"], times["torch"]),
    }
    if "openblas" in times:
        row["openblas_ratio"] = median_ratio(times["openblas"], times["ours"])
    return row


def measure_openblas(case: Any, rounds: int) -> float:
    """Seconds of numpy's product, with nobody else's threads about."""
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)
    a, b = (x.numpy() for x in case.make().operands)
    out = np.empty((*a.shape[:-1], b.shape[-1]), dtype=np.float32)
    return statistics.median(take_turns({"openblas": lambda: np.matmul(a, b, out=out)}, rounds)["openblas"])


def work(arguments: argparse.Namespace) -> None:
    """The measuring process: rows as JSON lines."""
    isa, threads = arguments.isa[0], arguments.threads[0]
    import torch  # noqa: F401, PLC0415 (first: what comes later takes torch's OpenMP library)

    for case in selected(arguments):
        if arguments.worker == "openblas":
            if case.kind != "gemm":
                continue
            row = {"op": case.op, "shape": case.shape, "openblas_s": measure_openblas(case, arguments.rounds)}
        else:
            row = measure(case, isa, threads, arguments.rounds)
        print(json.dumps(row), flush=True)


def column(arguments: argparse.Namespace, isa: str, threads: int) -> list[Row]:
    """The rows of one instruction set and thread count."""

    def process(kind: str) -> list[Row]:
        command = [sys.executable, __file__, "--worker", kind, "--isa", isa, "--threads", str(threads)]
        command += ["--rounds", str(arguments.rounds), "--only", arguments.only] + ["--quick"] * arguments.quick
        rows = []
        env = environment(isa, threads, threads if kind == "openblas" else 1)
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            for line in worker.stdout:
                rows.append(json.loads(line))
                if not arguments.quiet and kind == "rows":
                    print(text_row(rows[-1]), file=sys.stderr, flush=True)
        if worker.returncode:
            raise SystemExit(worker.returncode)
        return rows

    rows = process("rows")
    if threads > 1 and any(row["kind"] == "gemm" for row in rows):
        other = {(row["op"], row["shape"]): row["openblas_s"] for row in process("openblas")}
        for row in rows:
            if row["kind"] == "gemm":
                row["openblas_ratio"] = other[row["op"], row["shape"]] / row["ours_s"]
    return rows


# ---- output ----------------------------------------------------------------------------------------------------------


def bars(kind: str, isa: str) -> tuple[float, float]:
    return BARS[f"gemm {'avx512' if isa == 'avx512' else 'avx2'}" if kind == "gemm" else kind]


def below(row: Row) -> bool:
    """Whether a row misses its bar."""
    openblas = row["isa"] == "avx512" and row.get("openblas_ratio", 9) < OPENBLAS_BAR
    return bool(row["ratio"] < bars(row["kind"], row["isa"])[0] or openblas)


def columns(rows: list[Row]) -> list[tuple[str, int]]:
    return sorted({(row["isa"], row["threads"]) for row in rows}, key=lambda c: (c[0] != "avx512", c))


def means(rows: list[Row]) -> list[Row]:
    """Geometric means by kind and column."""
    made = []
    for kind in KINDS:
        for isa, threads in columns(rows):
            ratios = [r["ratio"] for r in rows if (r["kind"], r["isa"], r["threads"]) == (kind, isa, threads)]
            if ratios:
                missed = sum(ratio < bars(kind, isa)[0] for ratio in ratios)
                mean = math.exp(statistics.fmean(math.log(r) for r in ratios))
                made.append(
                    {"kind": kind, "isa": isa, "threads": threads, "mean": mean, "rows": len(ratios), "below": missed}
                )
    return made


def milliseconds(s: float) -> str:
    return f"{1e3 * s:.3g}" if s < 0.1 else f"{1e3 * s:.0f}"


def text_row(row: Row) -> str:
    extra = f"  openblas {row['openblas_ratio']:.2f}" if "openblas_ratio" in row else ""
    name = f"{row['op']} {row['shape']}"
    return (
        f"{row['isa']:<7}{row['threads']:>2}  {row['kind']:<8}{name:<56}{milliseconds(row['ours_s']):>9}"
        f"{milliseconds(row['torch_s']):>9}  {row['ratio']:.2f}{'*' if below(row) else ' '} A/A {row['aa']:.2f}{extra}"
    )


def text(rows: list[Row]) -> str:
    lines = [f"{'isa':<7}{'t':>2}  {'kind':<8}{'row':<56}{'ours ms':>9}{'torch ms':>9}  ratio (* below its bar)"]
    lines += [text_row(row) for row in rows]
    for m in means(rows):
        each, mean = bars(m["kind"], m["isa"])
        lines.append(
            f"{m['isa']}, {m['threads']} thread(s), {KINDS[m['kind']]}: geometric mean {m['mean']:.2f} (bar {mean}), "
            f"{m['below']} of {m['rows']} rows below {each}"
        )
    return "\n".join(lines)


def markdown(rows: list[Row]) -> str:
    """One table for each kind, a column group for each instruction set and thread count, and the means."""
    shown = columns(rows)
    lines = [f"Measured on: {machine()}.", ""]
    lines += ["| kind | " + " | ".join(f"{isa}, {t} thread{'s' * (t > 1)}" for isa, t in shown) + " | bar |"]
    lines += ["|---" * (len(shown) + 2) + "|"]
    mean_of = {(m["kind"], m["isa"], m["threads"]): m for m in means(rows)}
    for kind, title in KINDS.items():
        cells = [mean_of.get((kind, *c)) for c in shown]
        wanted = ", ".join(sorted({f"{bars(kind, isa)[1]}" for isa, _ in shown}))
        lines.append(
            f"| {title} | "
            + " | ".join(f"{m['mean']:.2f} ({m['below']} of {m['rows']} below)" if m else "" for m in cells)
        )
        lines[-1] += f" | {wanted} |"
    for kind, title in KINDS.items():
        found = {(r["op"], r["shape"], r["isa"], r["threads"]): r for r in rows if r["kind"] == kind}
        if not found:
            continue
        openblas = kind == "gemm"
        heads = [f"{isa}, {t}: ours ms | torch ms | ratio | A/A" + " | OpenBLAS" * openblas for isa, t in shown]
        lines += ["", f"### {title.capitalize()}", "", "| row | " + " | ".join(heads) + " |"]
        lines.append("|---" * (1 + len(shown) * (5 if openblas else 4)) + "|")
        for op, shape in dict.fromkeys(key[:2] for key in found):
            cells = []
            for c in shown:
                row = found.get((op, shape, *c))
                if row is None:
                    cells += [""] * (5 if openblas else 4)
                    continue
                ratio = f"{row['ratio']:.2f}"
                cells += [milliseconds(row["ours_s"]), milliseconds(row["torch_s"])]
                cells += [f"**{ratio}**" if below(row) else ratio, f"{row['aa']:.2f}"]
                if openblas:
                    cells.append(f"{row['openblas_ratio']:.2f}")
            lines.append(f"| {op} {shape} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def machine() -> str:
    """Processor, cores and versions."""
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415

    info = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").is_file() else ""
    field = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", info, re.M))
    name = field.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in field:
        name += f" (family {field['cpu family']}, model {field['model']})"
    versions = f"torch {torch.__version__}, numpy {np.__version__}, Python {platform.python_version()}"
    return f"{name}, {os.cpu_count()} cores; {versions}"


def merged(files: list[Path]) -> list[Row]:
    """The rows of several runs; of the same row the last."""
    found: dict[tuple[Any, ...], Row] = {}
    for file in files:
        for row in json.loads(file.read_text(encoding="utf-8")):
            found[row["op"], row["shape"], row["isa"], row["threads"]] = row
    return list(found.values())


def main() -> int:
    parser = argparse.ArgumentParser(description="Speed of the operators beside torch and OpenBLAS.")
    parser.add_argument("--quick", action="store_true", help="a subset of the rows")
    parser.add_argument("--only", default="", metavar="PATTERN", help="rows whose 'operator shape' the pattern matches")
    parser.add_argument("--isa", nargs="+", help="instruction sets (default: all vector sets of this processor)")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="thread counts (default 1 2)")
    parser.add_argument("--rounds", type=int, default=15, help="measured rounds (default 15)")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--markdown", action="store_true", help="print tables for docs/performance.md")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
    parser.add_argument("--from", dest="files", nargs="+", type=Path, help="print saved JSON instead of measuring")
    parser.add_argument("--list", action="store_true", help="names of the rows")
    parser.add_argument("--worker", choices=("rows", "openblas"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments)
        return 0
    if arguments.list:
        print("\n".join(f"{case.kind:<8} {case.name}" for case in selected(arguments)))
        return 0
    if arguments.files:
        rows = merged(arguments.files)
    else:
        from repops import _kernels  # noqa: PLC0415

        isas = arguments.isa or [isa for isa in _kernels.isas() if isa != "scalar"]
        rows = [row for isa in isas for threads in arguments.threads for row in column(arguments, isa, threads)]
    if arguments.json:
        print(json.dumps(rows, indent=1))
    else:
        print(markdown(rows) if arguments.markdown else text(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
