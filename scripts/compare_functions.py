#!/usr/bin/env python3
"""Compare the elementary functions between the instruction sets of this processor, over bit patterns of their argument.

    python scripts/compare_functions.py                     every function, all 2^32 inputs, the vector instruction sets
    python scripts/compare_functions.py exp --stride 101 --isa avx512 scalar

Gradients of activations take dy = 1. Prints how many results differ in any bit and the first input that does. Exit
status 1 if one differs. All inputs take 5 to 30 s a function on two cores, the scalar reference minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from repops import _kernels
from repops.dtypes import DType

FUNCTIONS = (
    *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tanh", "erf", "sigmoid", "silu"),
    *("softplus", "rsqrt", "sqrt", "gelu_erf", "gelu_tanh", "gelu_erf_grad", "gelu_tanh_grad", "silu_grad"),
)
CHUNK = 1 << 24


def results(name: str, isa: str, bits: np.ndarray, threads: int) -> np.ndarray:
    """Bit patterns (uint32) of a function of the numbers that `bits` (uint32) stand for."""
    shape, f32 = [len(bits)], int(DType.F32)
    inputs = [(bits.view(np.float32), f32, shape)]
    if name.endswith("_grad"):
        inputs.insert(0, (np.ones(len(bits), np.float32), f32, shape))
    out = np.empty(len(bits), np.float32)
    _kernels.run(name, isa, threads, [], [], inputs, (out, f32, shape))
    return out.view(np.uint32)


def compare(name: str, isas: list[str], stride: int, threads: int) -> tuple[int, str]:
    """How many results of the other instruction sets differ from the first one's, and where the first of them is."""
    differ, first = 0, ""
    for start in range(0, 1 << 32, CHUNK * stride):
        bits = np.arange(start, min(start + CHUNK * stride, 1 << 32), stride, dtype=np.uint64).astype(np.uint32)
        expected = results(name, isas[0], bits, threads)
        for isa in isas[1:]:
            wrong = np.flatnonzero(results(name, isa, bits, threads) != expected)
            if len(wrong) and not first:
                first = f"  first: 0x{bits[wrong[0]]:08X}, {isa}"
            differ += len(wrong)
    return differ, first


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the elementary functions between instruction sets.")
    parser.add_argument("functions", nargs="*", metavar="function", help=f"of {', '.join(FUNCTIONS)}; none: all")
    parser.add_argument("--stride", type=int, default=1, help="every n-th bit pattern (default: 1, all)")
    parser.add_argument("--isa", nargs="+", help="of this processor (default: all but the scalar reference)")
    options = parser.parse_args()
    isas = options.isa or [isa for isa in _kernels.isas() if isa != "scalar"]
    unknown = sorted({*options.functions} - {*FUNCTIONS}) + sorted({*isas} - {*_kernels.isas()})
    if unknown:
        parser.error(f"unknown here: {unknown[0]!r}; functions: {', '.join(FUNCTIONS)}; isas: {_kernels.isas()}")
    if len(isas) < 2:
        parser.error(
            f"one instruction set, {isas[0]}, has nothing to be compared with; --isa {' '.join(_kernels.isas())}"
        )
    if options.stride < 1:
        parser.error("--stride must be at least 1")
    failed = False
    for name in options.functions or FUNCTIONS:
        differ, first = compare(name, isas, options.stride, len(os.sched_getaffinity(0)))
        failed = failed or differ > 0
        print(
            f"{name:15s} {', '.join(isas)}: {-(-(1 << 32) // options.stride)} inputs, {differ} differ{first}",
            flush=True,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
