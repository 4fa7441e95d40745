"""Golden hashes: operators, programs and tile trees give these bytes on every processor, build and number of threads.

The hashes are in tests/vectors/golden_*.json. Run as a program, this module captures the golden programs again and
writes those files from the scalar reference; with `--cases FILE` it writes the binary file for csrc/tools/golden.cpp.
A hash that changes is a new version of an operator, or the graph of a program has changed.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

import golden_programs
from golden_cases import Golden, cases
from golden_data import Array, Data, Kind, Shape

from repops import _kernels
from repops.commit import keccak256, tensor_root
from repops.dtypes import DType
from repops.execute import fused_kernels
from repops.graph.ir import Program
from repops.ops.table import OPERATORS
from repops.plan import Compiler

VECTORS = Path(__file__).parents[1] / "vectors"
OPERATOR_HASHES = VECTORS / "golden_operators.json"
PROGRAM_HASHES = VECTORS / "golden_programs.json"
TREE_HASHES = VECTORS / "golden_trees.json"
HASH_BYTES = 16  # of keccak-256, in the files

TREES = {f"{size} bytes": Data(DType.BOOL, (size,), Kind.BITS, size) for size in
         (0, 1, 1023, 1024, 1025, 2048, 3 * 1024, 7 * 1024 + 5, 8 * 1024, 17 * 1024 - 1, 513 * 1024 + 77)}  # fmt: skip


def call_hashes(case: Golden, isa: str, threads: Sequence[int]) -> set[str]:
    """The hashes of one call's output, with these numbers of threads: one, if all is well."""
    node, inputs = case.node, [(d.array(), int(d.dtype), list(d.shape)) for d in case.inputs]
    hashes = set()
    for count in threads:
        out = np.empty(node.shape, node.dtype.numpy)
        result = (out, int(node.dtype), list(node.shape))
        _kernels.run(node.op, isa, count, list(node.params), list(node.literals), inputs, result)
        hashes.add(keccak256(out.tobytes()).hex()[: 2 * HASH_BYTES])
    return hashes


def run_hash(run: golden_programs.Run, isa: str, threads: int, fuse: bool) -> str:
    """The hash of a program's state after all steps."""
    layout = Compiler(run.program, fused_kernels(isa) if fuse else ())
    plan = layout.plan(isa)
    constants = [c.data for c in run.program.constants]
    state = [d.array() for d in run.state]
    for batch in run.batches:
        new: list[Array] = [a.copy() for a in state]
        plan.run(state, [d.array() for d in batch], constants, new, threads)
        state = new
    return keccak256(b"".join(keccak256(a.tobytes()) for a in state)).hex()[: 2 * HASH_BYTES]


def tree_hash(data: Data) -> str:
    """The root of a tree of tiles."""
    return tensor_root(data.array()).hex()[: 2 * HASH_BYTES]


def load(path: Path) -> dict[str, str]:
    """The hashes of a file by name."""
    hashes: dict[str, str] = json.loads(path.read_text())
    return hashes


# ---- the binary file -------------------------------------------------------------------------------------------------


def _numbers(*values: int) -> bytes:
    return b"".join(struct.pack("<Q", v % 2**64) for v in values)


def _list(items: Sequence[bytes]) -> bytes:
    return _numbers(len(items)) + b"".join(items)


def _integers(values: Sequence[int]) -> bytes:
    return _numbers(len(values), *values)


def _text(text: str) -> bytes:
    raw = text.encode()
    return _numbers(len(raw)) + raw


def _tensor(dtype: DType | int, shape: Sequence[int]) -> bytes:
    return _numbers(int(dtype)) + _integers(shape)


def _data(d: Data) -> bytes:
    tail = d.given if d.kind is Kind.BYTES else _numbers(d.seed, d.low, d.count)
    return _tensor(d.dtype, d.shape) + _numbers(int(d.kind)) + tail


def _layout(program: Program, fuse: bool) -> bytes:
    layout = Compiler(program, fused_kernels(None) if fuse else ())
    steps = []
    for op, params, literals, inputs, outputs, in_place in layout.calls:
        operands = [
            _list([_numbers(place, index) + _tensor(dtype, shape) for place, index, dtype, shape in group])
            for group in (inputs, outputs)
        ]
        steps.append(
            _text(op) + _integers(params) + _integers(literals) + operands[0] + operands[1] + _numbers(in_place)
        )
    return _numbers(fuse, layout.arena_bytes) + _list(steps)


def _head(name: str, digest: str, kind: int) -> bytes:
    return _text(name) + bytes.fromhex(digest) + _numbers(kind)


def _call(
    name: str, digest: str, kind: int, op: str, params: Sequence[int], literals: Sequence[int],
    inputs: Sequence[Data], dtype: DType, shape: Shape,
) -> bytes:  # fmt: skip
    body = _text(op) + _integers(params) + _integers(literals) + _list([_data(d) for d in inputs])
    return _head(name, digest, kind) + body + _tensor(dtype, shape)


def binary_cases() -> Iterator[bytes]:
    """Every case of the three files, with the hash that the file has."""
    operators, programs, trees = (load(path) for path in (OPERATOR_HASHES, PROGRAM_HASHES, TREE_HASHES))
    for case in all_cases():
        node = case.node
        yield _call(
            case.name, operators[case.name], 0, node.op, node.params, node.literals, case.inputs, node.dtype, node.shape
        )
    for run in golden_programs.runs():
        yield (
            _head(run.name, programs[run.name], 1)
            + _list([_layout(run.program, fuse) for fuse in (True, False)])
            + _list([_data(d) for d in run.state])
            + _list([_data(Data.of(np.asarray(c.data))) for c in run.program.constants])
            + _list([_list([_data(d) for d in batch]) for batch in run.batches])
        )
    for name, data in TREES.items():
        yield _call(f"tree {name}", trees[name], 2, "", (), (), [data], DType.BOOL, (0,))


def all_cases() -> Iterator[Golden]:
    """The calls of every operator."""
    for op in OPERATORS:
        yield from cases(op)


def write(path: Path, hashes: dict[str, str]) -> None:
    path.write_text(json.dumps(hashes, indent=0) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=Path, metavar="FILE", help="write the binary file for csrc/tools/golden.cpp")
    target = parser.parse_args().cases
    if target:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_text("verde golden cases 1") + _list(list(binary_cases())))
    else:
        golden_programs.capture_all()
        write(OPERATOR_HASHES, {case.name: min(call_hashes(case, "scalar", (1,))) for case in all_cases()})
        write(PROGRAM_HASHES, {run.name: run_hash(run, "scalar", 1, fuse=False) for run in golden_programs.runs()})
        write(TREE_HASHES, {name: tree_hash(data) for name, data in TREES.items()})
