#!/usr/bin/env python3
"""Write docs/spec/functions.md: the elementary functions as lists of primitives, from csrc/kernels/functions.h itself.

    python scripts/build_function_listings.py           writes the page, and the lists alone to repops/vm/functions.txt
    python scripts/build_function_listings.py --check   compares with both, exit status 1 on a difference

Needs a C++17 compiler (CXX, else c++).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "spec" / "functions.md"
LISTS = ROOT / "repops" / "vm" / "functions.txt"  # what the RepVM programs of the functions are made from
SOURCE = ROOT / "csrc" / "tools" / "list_functions.cpp"

HEAD = """# Elementary functions, profile RO-1

Note: normative, and generated from `csrc/kernels/functions.h` by `scripts/build_function_listings.py`. An
implementation may do anything that gives the same bits. How accurate the functions are: [operators](operators.md),
section Functions.

[F-1] Each function is a straight list of primitives on 32-bit values: no branches, no tables of floats. A literal is
the hexadecimal pattern of 32 bits; as a float it is binary32, as an integer two's complement. The count of a shift is
decimal.

| primitive | meaning |
|---|---|
| ADD SUB MUL DIV SQRT | IEEE 754 binary32, round to nearest even, gradual underflow |
| FMA(a, b, c) | a b + c, rounded once |
| NEG ABS AND OR XOR | on the bits of floats: sign flipped, sign cleared, bit by bit |
| LT LE GT GE EQ NE | IEEE compare of floats to a mask; false with a NaN, NE true |
| ISNAN | mask: exponent all ones and a fraction that is not zero |
| SEL(m, a, b), ISEL | m ? a : b, floats, integers; bits verbatim |
| GREATER(a, b), LESS(a, b) | a > b ? a : b and a < b ? a : b. Where an operand is NaN the result is not used |
| MAND MOR MNOT | of masks |
| IADD ISUB IMUL | integers modulo 2^32 |
| IAND IOR IXOR, IANDNOT(a, b) | bit by bit; IANDNOT is (not a) and b |
| SHL SHR SAR | shift left, logical right, arithmetic right, by a constant |
| IMIN IMAX ILT IGT IEQ | of signed integers |
| BITS FLOAT | the same bits, read as an integer, as a float |
| ITOF | signed integer to float, round to nearest even |
| QUADRANT TURNHIGH TURNLOW | of a >= 2^18: see below. Elsewhere the result is not used |
| FTOI | float to signed integer, toward zero; where it is used the value is in range |

[F-2] QUADRANT, TURNHIGH, TURNLOW of a = m 2^k, 2^23 <= m < 2^24, in whole numbers: W = floor(2^(k+94) 2/pi) mod 2^96;
V = floor(m W / 2^32) mod 2^64; q = floor((V + 2^61) / 2^62); R = V - 2^62 q as a signed 64-bit number.
QUADRANT is q mod 4; TURNHIGH is R rounded to binary32; TURNLOW is R - TURNHIGH rounded to binary32.

[F-3] The functions. Those that end in `_slope` are what the gradient operators multiply dy with (`gelu_erf_slope` for
`gelu_erf_grad`). `pow` takes x and y.

"""

TAIL = """
Held by:

- F-1, F-2, F-3: `test_function_listings.py::test_the_page_gives_the_kernels_bits`
"""


def listing() -> str:
    """The listings, by compiling and running the generator. Raises CalledProcessError with the compiler's output."""
    compiler = os.environ.get("CXX", "c++")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "list_functions"
        include = f"-I{ROOT / 'csrc'}"
        subprocess.run([compiler, "-std=c++17", include, str(SOURCE), "-o", str(program)], check=True)
        return subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout


def main() -> int:
    parser = argparse.ArgumentParser(description="Write docs/spec/functions.md and repops/vm/functions.txt.")
    parser.add_argument("--check", action="store_true", help="compare only")
    arguments = parser.parse_args()
    lists = listing().rstrip()
    status = 0
    for path, text in ((PAGE, f"{HEAD}```\n{lists}\n```\n{TAIL}"), (LISTS, f"{lists}\n")):
        if not arguments.check:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            print(f"{path.relative_to(ROOT)} is not what functions.h says: run {Path(__file__).name}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
