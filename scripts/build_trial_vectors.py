#!/usr/bin/env python3
"""Writes tests/vectors/trials.json: operators with their images, inputs and outputs, for the tests of the EVM referee.

    python scripts/build_trial_vectors.py            writes the file
    python scripts/build_trial_vectors.py --check    compares it with the file, exit status 1 on a difference

A case has the node (ABI encoding), the image's words, the bytes of each input and of the output by the kernels, and the
element that the test disputes. Inputs refer to node 0, state 1, batch 0 and constant 0, in turn.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repops.dtypes import DType
from repops.execute import execute_node
from repops.graph.encoding import encode_node
from repops.graph.ir import Input, Node, Ref
from repops.vm import NodeRun

TARGET = Path(__file__).resolve().parent.parent / "tests" / "vectors" / "trials.json"
REFS = (Ref.node(0), Ref.state(1), Ref.batch(0), Ref.constant(0))
Array = np.ndarray[Any, Any]


def node(op: str, inputs: Sequence[Array], dtype: DType, shape: Sequence[int], params: Sequence[int] = ()) -> Node:
    read = tuple(
        Input(REFS[k % len(REFS)], DType.of(x.dtype), tuple(int(d) for d in x.shape)) for k, x in enumerate(inputs)
    )
    return Node(op, tuple(params), (), read, dtype, tuple(shape))


def cases() -> list[tuple[str, Node, list[Array], int]]:
    """(name, node, inputs, element)."""
    rng = np.random.default_rng(7)

    def floats(*shape: int) -> Array:
        return (rng.standard_normal(shape) * 3).astype(np.float32)

    tokens = rng.integers(-1, 12, (3, 5)).astype(np.int64)
    found: list[tuple[str, Node, list[Array], int]] = []
    for name, op, inputs, dtype, shape, params, element in [
        ("five tiles, broadcast", "add", [floats(5, 250), floats(250)], DType.F32, (5, 250), (), 1001),
        ("one tile", "mul", [floats(3, 4), floats(3, 1)], DType.F32, (3, 4), (), 5),
        ("a constant of the image", "sin", [np.float32([1e20, -3.0, 2.5e5])], DType.F32, (3,), (), 0),
        ("bf16", "cast", [floats(600)], DType.BF16, (600,), (), 599),
        ("bool", "lt", [floats(7), floats(7)], DType.BOOL, (7,), (), 6),
        ("indices", "embedding", [floats(11, 6), tokens], DType.F32, (3, 5, 6), (), 44),
        ("a fold", "matmul", [floats(4, 9), floats(9, 5)], DType.F32, (4, 5), (0, 0, 0, 9), 13),
        ("five inputs", "layer_norm", [floats(2, 8), floats(2, 1), floats(2, 1), floats(8), floats(8)],
         DType.F32, (2, 8), (), 3),
        ("integers", "cumsum", [tokens], DType.I64, (3, 5), (1,), 9),
    ]:  # fmt: skip
        found.append((name, node(op, inputs, dtype, shape, params), inputs, element))
    return found


def describe(name: str, item: Node, inputs: list[Array], element: int) -> dict[str, Any]:
    run = NodeRun(item, inputs)
    output = np.ascontiguousarray(execute_node(item, inputs))
    value, instructions = run.run(element)
    stored = output.reshape(-1).view(np.uint8).reshape(output.size, -1)[element].tobytes()
    if value != int.from_bytes(stored, "little"):
        raise SystemExit(f"{name}: RepVM and the kernel differ")
    return {
        "name": name,
        "element": element,
        "instructions": instructions,
        "value": value,
        "node": "0x" + encode_node(item).hex(),
        "words": ["0x" + word.to_bytes(32, "big").hex() for word in run.image.words],
        "code": "0x" + run.image.code_hash.hex(),
        "height": run.height,
        "inputs": ["0x" + x.tobytes().hex() for x in inputs],
        "output": "0x" + output.tobytes().hex(),
        "traceRoot": "0x" + run.trace(element).tree.root.hex(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Write tests/vectors/trials.json.")
    parser.add_argument("--check", action="store_true", help="compare only")
    arguments = parser.parse_args()
    text = json.dumps({"cases": [describe(*case) for case in cases()]}, indent=1) + "\n"
    if not arguments.check:
        TARGET.write_text(text, encoding="utf-8")
        return 0
    if TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text:
        return 0
    print(f"{TARGET.name} is not what the operators give: run {Path(__file__).name}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
