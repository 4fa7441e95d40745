#!/usr/bin/env python3
"""Speed of tensor roots, for each instruction set of this machine, beside pycryptodome.

Ours is the whole root, leaves and inner nodes; pycryptodome hashes the 1 KiB leaves only, one call each. The variants
take turns round by round, so that all see the same machine; a ratio is the median over the rounds of pycryptodome's
time per byte over ours. The A/A row is pycryptodome against itself: what its ratio differs from 1 is noise.

    python scripts/bench_hash.py [--mib 16] [--rounds 15] [--threads 1] [--json]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from Crypto.Hash import keccak

from repops import _kernels

TILE_BYTES = 1024
REFERENCE = "pycryptodome"


def reference_leaves(data: memoryview) -> list[bytes]:
    return [
        keccak.new(digest_bits=256, data=data[i : i + TILE_BYTES]).digest() for i in range(0, len(data), TILE_BYTES)
    ]


def processor() -> str:
    """The processor's name as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(mib: int, rounds: int, threads: int) -> dict[str, dict[str, float]]:
    """For each variant: median and best GB/s (10^9 bytes of tensor a second) and the median ratio to the reference."""
    data = np.random.default_rng(0).integers(0, 256, mib << 20, dtype=np.uint8)
    sample = memoryview(data)[: 1 << 20]  # as long as ours takes for all of it, within a factor of a few
    isas = _kernels.hash_isas()
    expected = b"".join(reference_leaves(sample))
    for isa in isas:
        if _kernels.tensor_levels(sample, threads, isa)[0].tobytes() != expected:
            raise SystemExit(f"{isa}: the leaves differ from {REFERENCE}'s")

    variants: dict[str, tuple[int, Callable[[], object]]] = {
        REFERENCE: (len(sample), lambda: reference_leaves(sample)),
        "A/A": (len(sample), lambda: reference_leaves(sample)),
    }
    for isa in isas:
        variants[isa] = (data.nbytes, lambda isa=isa: _kernels.tensor_roots([data], threads, isa))
    per_byte: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, (size, work) in variants.items():
            taken = seconds(work) / size
            if turn > 0:  # the first round warms up
                per_byte[name].append(taken)
    return {
        name: {
            "gb_per_s": 1e-9 / statistics.median(times),
            "best_gb_per_s": 1e-9 / min(times),
            "ratio": statistics.median(a / b for a, b in zip(per_byte[REFERENCE], times, strict=True)),
        }
        for name, times in per_byte.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Speed of tensor roots beside pycryptodome.")
    parser.add_argument("--mib", type=int, default=16, help="size of the tensor (default 16)")
    parser.add_argument("--rounds", type=int, default=15, help="measured rounds (default 15)")
    parser.add_argument("--threads", type=int, default=1, help="threads of ours (default 1)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    if min(arguments.mib, arguments.rounds, arguments.threads) < 1:
        parser.error("--mib, --rounds and --threads must be at least 1")
    results = measure(arguments.mib, arguments.rounds, arguments.threads)
    settings = {key: getattr(arguments, key) for key in ("mib", "rounds", "threads")}
    if arguments.json:
        print(json.dumps({"processor": processor(), **settings, "results": results}, indent=1))
        return 0
    print(f"{processor()}; tensor of {arguments.mib} MiB, {arguments.threads} thread(s), {arguments.rounds} rounds")
    print(f"{'':<14}{'GB/s':>8}{'best':>8}{'ratio':>8}")
    for name, row in results.items():
        print(f"{name:<14}{row['gb_per_s']:>8.3f}{row['best_gb_per_s']:>8.3f}{row['ratio']:>8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
