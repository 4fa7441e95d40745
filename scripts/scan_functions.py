"""Scan the elementary functions over all 2^32 inputs, or every n-th, against a binary64 oracle.

    python scripts/scan_functions.py                        every 15013th input of every function
    python scripts/scan_functions.py exp log --stride 1     all inputs of two functions (minutes each)

Prints for each function the largest error in units of the last place (subnormal results on their own scale) and where
it is, the largest absolute error for |x| <= 100, the largest "either" = min(ulp / 2, error / (2^-23 |x|)), and how many
results are wrong in kind (NaN, infinity). Needs numpy and scipy; their binary64 functions are right to about 2^-50,
which moves the printed numbers by less than 1e-6 units. Exit status 1 if a result is wrong in kind.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special  # type: ignore[import-untyped]

from repops import _kernels
from repops.dtypes import DType

Array = np.ndarray[Any, Any]
CHUNK = 1 << 15  # stays in the cache
GATE = 2 * math.sqrt(2 / math.pi)


def gate(x: Array) -> Array:
    return GATE * (x + 0.044715 * x**3)


def gelu_tanh(x: Array) -> Array:
    return np.where(x < -1e3, -0.0, x * special.expit(gate(x)))


def gelu_erf_slope(x: Array) -> Array:
    y = np.clip(x, -40, 40)
    return special.ndtr(y) + y * np.exp(-y * y / 2) / math.sqrt(2 * math.pi)


def gelu_tanh_slope(x: Array) -> Array:
    y = np.clip(x, -40, 40)
    s = special.expit(gate(y))
    return s + y * s * special.expit(-gate(y)) * GATE * (1 + 3 * 0.044715 * y * y)


@dataclass(frozen=True)
class Scan:
    """An operator of one argument, or, with gradient set, one whose first argument is a gradient of 1."""

    op: str
    oracle: Callable[[Array], Array]
    gradient: bool = False

    def run(self, x: Array) -> Array:
        out = np.empty_like(x)
        code, shape = int(DType.F32), [len(x)]
        inputs = [(x, code, shape)]
        if self.gradient:
            inputs.insert(0, (np.ones(1, dtype=np.float32), code, [1]))
        _kernels.run(self.op, None, 1, [], [], inputs, (out, code, shape))
        return out


SCANS = {
    "exp": Scan("exp", np.exp),
    "log": Scan("log", np.log),
    "tanh": Scan("tanh", np.tanh),
    "erf": Scan("erf", special.erf),
    "sigmoid": Scan("sigmoid", special.expit),
    "silu": Scan("silu", lambda x: np.where(x < -1e3, -0.0, x * special.expit(x))),
    "gelu_erf": Scan("gelu_erf", lambda x: np.where(x < -1e3, -0.0, x * special.ndtr(x))),
    "gelu_tanh": Scan("gelu_tanh", gelu_tanh),
    "gelu_erf_grad": Scan("gelu_erf_grad", gelu_erf_slope, gradient=True),
    "gelu_tanh_grad": Scan("gelu_tanh_grad", gelu_tanh_slope, gradient=True),
}


@dataclass
class Worst:
    ulp: float = 0.0
    ulp_at: float = 0.0
    absolute: float = 0.0  # for |x| <= 100
    either: float = 0.0  # the smaller of ulp / 2 and error / (2^-23 |x|)
    count: int = 0
    wrong: int = 0


def scan(what: Scan, stride: int) -> Worst:
    worst = Worst()
    for start in range(0, 2**32, CHUNK * stride):
        stop = min(start + CHUNK * stride, 2**32)
        x = np.arange(start, stop, stride, dtype=np.uint64).astype(np.uint32).view(np.float32)
        y = what.run(x).astype(np.float64)
        with np.errstate(all="ignore"):
            wide = x.astype(np.float64)
            truth = what.oracle(wide)
            rounded = truth.astype(np.float32).astype(np.float64)
            both = np.isfinite(rounded) & np.isfinite(y)
            same = both | (np.isnan(rounded) & np.isnan(y)) | (rounded == y)
            # At the edge of overflow either neighbour may be taken.
            edge = np.isinf(y) & (np.abs(truth) > float(np.finfo(np.float32).max) * (1 - 2.0**-23)) & (y * truth > 0)
            error = np.where(both, np.abs(y - truth), 0.0)
            ulp = error / np.ldexp(1.0, np.maximum(np.frexp(np.abs(np.where(both, truth, 0.0)))[1], -125) - 24)
            relative = error / np.abs(wide) * 2.0**23
        worst.count += len(x)
        worst.wrong += int(np.count_nonzero(~(same | edge)))
        i = int(np.argmax(ulp))
        if ulp[i] > worst.ulp:
            worst.ulp, worst.ulp_at = float(ulp[i]), float(x[i])
        worst.either = max(worst.either, float(np.nanmax(np.fmin(ulp / 2, relative))))
        worst.absolute = max(worst.absolute, float(np.where(np.abs(x) <= 100, error, 0.0).max()))
    return worst


def main() -> int:
    parser = argparse.ArgumentParser(description="Scan the elementary functions against a binary64 oracle.")
    parser.add_argument("functions", nargs="*", metavar="function", help=f"of {', '.join(SCANS)}; none: all")
    parser.add_argument("--stride", type=int, default=15013, help="every n-th bit pattern (default: 15013; 1: all)")
    options = parser.parse_args()
    unknown = [name for name in options.functions if name not in SCANS]
    if unknown:
        parser.error(f"unknown function {unknown[0]!r}; known: {', '.join(SCANS)}")
    if options.stride < 1:
        parser.error("--stride must be at least 1")
    failed = False
    for name in options.functions or SCANS:
        w = scan(SCANS[name], options.stride)
        failed = failed or w.wrong > 0
        print(
            f"{name:15s} inputs {w.count:>10d}  wrong {w.wrong}  ulp {w.ulp:.4f} at {w.ulp_at:.9g}  "
            f"absolute {w.absolute:.3g}  either {w.either:.3f}",
            flush=True,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
