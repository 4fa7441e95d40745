#!/usr/bin/env python3
"""Write docs/spec/images.md: the RepVM program of every operator, word by word, and the bound on its runs.

python scripts/build_images.py           writes the page
python scripts/build_images.py --check   compares with it, exit status 1 on a difference
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from repops.vm.image import WORDS_PER_LEAF  # noqa: E402
from repops.vm.programs import NAMES, image  # noqa: E402

PAGE = ROOT / "docs" / "spec" / "images.md"

HEAD = """# Images of the operators, profile RO-1

Note: normative, and generated from `repops/vm/programs` by `scripts/build_images.py`. What an image, its code hash and
a run are: [RepVM](repvm.md).

## Bounds

[I-1] `bound` is at least the number of instructions of any run for an element of a node; integers, `//` rounds down. It
is normative, not any bound: the node's `vmHeight` is `height(bound)`, and a node whose bound exceeds 2^20 is illegal.

| symbol | is |
|---|---|
| R, N | the number of the output's axes, of the node's inputs |
| T | stop - start, the last two params |
| inK[d], out[d] | the length of axis d of input K, of the output; p0 is the node's first param |
| P0, P1 | at most so many positions has a pooling window along the rows (0), along the columns (1) |
| W0, W1 | at most so many windows have a position, likewise |

[I-2] Along axis j of a pooling (0 rows, 1 columns), with x's length L and y's length O on its axis 1 + j, K taps,
stride S and dilation D (of an average: 1): if K > 0, Pj = K and Wj = min(O, (K - 1) D // S + 1); if K = 0 (adaptive),
Pj = ceil(L / max(O, 1)) + 1 and Wj = ceil(O / max(L, 1)) + 1.

Held by:

- I-1: `test_images_page.py::test_bounds_and_heights`, `test_programs.py::test_golden_cases`,
  `test_programs.py::test_a_full_sum_of_exponentials_halts_in_time`,
  `test_ir.py::test_a_node_whose_elements_take_too_long_is_refused`
- I-2: `test_images_page.py::test_bounds_and_heights`

## Images

[I-3] The program of an operator is the image listed here, and no other: words in hexadecimal, in order, four a line,
which is one leaf of the image's tree. `code` is its code hash.

Held by:

- I-3: `test_images_page.py::test_words_and_code_hashes`, `test_images_page.py::test_every_operator_is_listed`,
  `test_programs.py::test_random_shapes_and_hostile_data`

Note: what I-3 lists.

"""


def block(operator: str) -> str:
    """An operator's entry."""
    made = image(operator)
    words = [f"{w:016x}" for w in made.words]
    leaves = (words[i : i + WORDS_PER_LEAF] for i in range(0, len(words), WORDS_PER_LEAF))
    head = f"{operator}\n    code 0x{made.code_hash.hex()}\n    words {len(words)}\n    bound {made.bound_text}\n"
    return head + "".join(f"    {' '.join(leaf)}\n" for leaf in leaves)


def main() -> int:
    parser = argparse.ArgumentParser(description="Write docs/spec/images.md.")
    parser.add_argument("--check", action="store_true", help="compare only")
    text = f"{HEAD}```\n{chr(10).join(map(block, NAMES))}```\n"
    if not parser.parse_args().check:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        print(f"{PAGE.relative_to(ROOT)} is not what the programs are: run {Path(__file__).name}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
