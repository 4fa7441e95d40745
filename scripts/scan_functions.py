"""Scan the elementary functions over bit patterns of their argument against a binary64 oracle, and check their bounds.

    python scripts/scan_functions.py                        every 15013th input of every function, 400,000 pairs of pow
    python scripts/scan_functions.py exp log --stride 1     all 2^32 inputs of two functions: one to two minutes each
    python scripts/scan_functions.py pow --pairs 200000000  so many pairs of pow, structured and random
    python scripts/scan_functions.py --stride 1 --table     prints rows of docs/functions.md

Builds csrc/tools/scan_functions.cpp with CXX (else c++): the kernels' text for AVX2 where the processor has it, else
for one lane. Prints for each function the largest error in units of the last place (subnormal results on their own
scale) and where it is, the largest absolute error for |x| <= 100, and the largest "either" = min(ulp / 2, error /
(2^-23 |x|)), which is at most 1 where an error is at most 2 ulp or 2^-23 |x|. Exit status 1 if a result is wrong in
kind (NaN and its pattern, infinity, sign of a zero) or beyond its bound.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "csrc" / "tools" / "scan_functions.cpp"

# What each function promises: the measure and its largest value.
BOUNDS: dict[str, tuple[str, float]] = {
    **dict.fromkeys(("exp", "exp2", "log", "log1p", "tanh", "erf", "sin", "cos", "pow"), ("ulp", 1.0)),
    **dict.fromkeys(("expm1", "log2", "log10"), ("ulp", 1.25)),
    "rsqrt": ("ulp", 1.5),
    "softplus": ("ulp", 2.0),
    **dict.fromkeys(("sigmoid", "silu"), ("ulp", 2.5)),
    **dict.fromkeys(("gelu_erf", "gelu_tanh"), ("either", 1.0)),
    **dict.fromkeys(("gelu_erf_slope", "gelu_tanh_slope"), ("absolute", 2.0**-22)),
}


def build(folder: Path) -> Path:
    """The scanner, with glibc's vector functions as the oracle where they link. Raises CalledProcessError."""
    program = folder / "scan"
    command = [os.environ.get("CXX", "c++"), "-std=c++17", "-O2", "-ffp-contract=off", "-fno-math-errno", "-w"]
    command += [f"-I{SOURCE.parents[1]}", str(SOURCE), "-o", str(program)]
    if platform.machine() == "x86_64" and "avx2" in Path("/proc/cpuinfo").read_text(encoding="utf-8"):
        command += ["-mavx2", "-mfma"]
        vector = [*command, "-DRO_SCAN_LIBMVEC", "-lmvec", "-lm"]
        if subprocess.run(vector, capture_output=True, check=False).returncode == 0:
            return program
    subprocess.run([*command, "-lm"], check=True)
    return program


def place(bits: str) -> str:
    """The number, or the pair of numbers, that a hexadecimal pattern stands for."""
    words = [bits[i : i + 8] for i in range(0, len(bits), 8)]
    return ", ".join(f"{float(np.array(int(w, 16), np.uint32).view(np.float32)):.9g}" for w in words)


def line(r: dict[str, Any], table: bool) -> str:
    measure, bound = BOUNDS[r["function"]]
    unit = {"ulp": "ulp", "either": "* 2 ulp or 2^-23 abs x", "absolute": "absolute"}[measure]
    if table:
        at = r[measure + "_at"]
        return f"| {r['function']} | {r[measure]:.4g} {unit} | {place(at)} (0x{at}) | {bound:.4g} | {r['inputs']:,} |"
    return (
        f"{r['function']:15s} inputs {r['inputs']:>10d}  wrong {r['wrong']}  ulp {r['ulp']:.4f} "
        f"at {place(r['ulp_at'])}  absolute {r['absolute']:.3g}  either {r['either']:.4f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Scan the elementary functions against a binary64 oracle.")
    parser.add_argument("functions", nargs="*", metavar="function", help=f"of {', '.join(BOUNDS)}; none: all")
    parser.add_argument("--stride", type=int, default=15013, help="every n-th bit pattern (default: 15013; 1: all)")
    parser.add_argument("--pairs", type=int, default=400_000, help="of pow (default: 400000)")
    parser.add_argument("--seed", type=int, default=1, help="of the pairs of pow (default: 1)")
    parser.add_argument("--table", action="store_true", help="print Markdown rows")
    options = parser.parse_args()
    unknown = [name for name in options.functions if name not in BOUNDS]
    if unknown:
        parser.error(f"unknown function {unknown[0]!r}; known: {', '.join(BOUNDS)}")
    if options.stride < 1 or options.pairs < 1:
        parser.error("--stride and --pairs must be at least 1")
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder))
        for name in options.functions or BOUNDS:
            numbers = [options.seed, options.pairs, 0] if name == "pow" else [0, 2**32, options.stride]
            command = [str(program), name, *map(str, numbers)]
            result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            measure, bound = BOUNDS[name]
            bad = result["wrong"] > 0 or result[measure] > bound
            failed = failed or bad
            print(line(result, options.table) + ("  FAILED" if bad else ""), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
