"""Writes tests/vectors/programs.json: node encodings, leaves, hash nodes, headers and program roots.

Flat JSON, so that forge reads it: arrays of hex strings, equal indices belong together. `tests/repops/test_encoding.py`
holds the file against the library, `contracts/` against Solidity.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from repops.dtypes import DType
from repops.graph.encoding import encode_node, node_leaf
from repops.graph.ir import BatchTensor, Constant, Input, Node, Program, Ref, Slot

PATH = Path(__file__).parents[1] / "tests" / "vectors" / "programs.json"
F32, I64 = DType.F32, DType.I64


def sample_programs() -> list[Program]:
    """Small programs that hold every kind of ref, param, literal, slot and number of slots."""
    alone = Program((Slot("w", F32, (3,), Ref.state(0)),), (), (), ())
    sgd = Program(
        slots=(
            Slot("weight", F32, (4, 3), Ref.node(4)),
            Slot("count", I64, (), Ref.state(1)),
            Slot("\u03bcean", F32, (1, 3), Ref.batch(1)),
        ),
        batch=(BatchTensor("x", F32, (2, 4)), BatchTensor("y", F32, (3,)), BatchTensor("lr", F32, ())),
        constants=(Constant.of(np.arange(6, dtype=np.float32).reshape(2, 3)), Constant.of(np.array([True, False]))),
        nodes=(
            Node("matmul", (0, 0, 0, 4), (), (_in(Ref.batch(0), 2, 4), _in(Ref.state(0), 4, 3)), F32, (2, 3)),
            Node("sub", (), (), (_in(Ref.node(0), 2, 3), _in(Ref.constant(0), 2, 3)), F32, (2, 3)),
            Node("matmul", (1, 0, 0, 2), (), (_in(Ref.batch(0), 2, 4), _in(Ref.node(1), 2, 3)), F32, (4, 3)),
            Node("mul", (), (), (_in(Ref.node(2), 4, 3), _in(Ref.batch(2))), F32, (4, 3)),
            Node("sub", (), (), (_in(Ref.state(0), 4, 3), _in(Ref.node(3), 4, 3)), F32, (4, 3)),
        ),
    )
    integers = Program(
        slots=tuple(Slot(f"s{i}", I64, (5,), Ref.node(i % 2)) for i in range(5)),
        batch=(),
        constants=(),
        nodes=(
            Node("iota", (-3, 2), (), (), I64, (5,)),
            Node("fill", (), (2**64 - 1,), (), I64, (5,)),
            Node("fill", (), (0x7FC00000,), (), F32, (7,)),
            Node("rstd", (), (0x42280000, 0x3727C5AC), (_in(Ref.node(2), 7),), F32, (7,)),
        ),
    )
    empty = Program((Slot("nothing", F32, (0, 3), Ref.node(0)),), (), (), (Node("fill", (), (0,), (), F32, (0, 3)),))
    return [program.check() for program in (alone, sgd, integers, empty)]


def build() -> dict[str, object]:
    """The content of the file."""
    programs = sample_programs()
    nodes = [node for program in programs for node in program.nodes]
    hashes = [node for program in programs for node in program.hash_nodes]
    headers = [program.header() for program in programs]
    vectors: dict[str, object] = {
        "nodeEncodings": [_hex(encode_node(node)) for node in nodes],
        "nodeLeaves": [_hex(node_leaf(node)) for node in nodes],
        "hashNodeEncodings": [_hex(encode_node(node)) for node in hashes],
        "hashNodeLeaves": [_hex(node_leaf(node)) for node in hashes],
        "headerEncodings": [_hex(header.encode()) for header in headers],
        "programRoots": [_hex(header.root) for header in headers],
    }
    for i, program in enumerate(programs):
        leaves = [node_leaf(node) for node in (*program.nodes, *program.hash_nodes)]
        vectors[f"leavesOfProgram{i}"] = [_hex(leaf) for leaf in leaves]
    return vectors


def text() -> str:
    """The file's bytes as text."""
    return json.dumps(build(), indent=1) + "\n"


def _in(ref: Ref, *shape: int) -> Input:
    return Input(ref, F32, shape)


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


if __name__ == "__main__":
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(text())
