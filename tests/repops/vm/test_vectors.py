"""tests/vectors/repvm.json, which Solidity reads: both interpreters give what it says, and it leaves nothing out."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from eth_abi import decode
from eth_utils import keccak
from machines import Both

from repops.commit import height
from repops.dtypes import DType
from repops.graph.encoding import NODE_ABI
from repops.graph.ir import Input, Node, Ref
from repops.vm.image import Image
from repops.vm.isa import OPERANDS, STATE_BYTES, Instruction, Op
from repops.vm.machine import State, step

ROOT = Path(__file__).parents[3]
TILE = 1024


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("repvm_vectors", ROOT / "scripts" / "build_repvm_vectors.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys  # noqa: PLC0415

    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def vectors(script: ModuleType) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(script.PATH.read_text())
    return content


def rows(table: dict[str, list[Any]], column: str) -> list[dict[str, Any]]:
    """The rows of a table of parallel arrays, those as long as `column`."""
    count = len(table[column])
    names = [name for name, values in table.items() if len(values) == count]
    return [{name: table[name][i] for name in names} for i in range(count)]


def data(text: str, size: int = 0) -> bytes:
    return bytes.fromhex(text[2:]).ljust(size, b"\0")


def node_at(vectors: dict[str, Any], index: int) -> tuple[Node, bytes, int]:
    """A node, its code hash and its vmHeight, from the encoding."""
    (fields,) = decode([NODE_ABI], data(vectors["nodes"][index]))
    code, params, literals, inputs, dtype, shape, _, vm_height = fields
    read = tuple(Input(Ref.batch(i), DType(d), tuple(s)) for _, i, d, s in inputs)
    return Node("", tuple(params), tuple(literals), read, DType(dtype), tuple(shape)), code, vm_height


def test_the_file_is_what_the_script_writes(script: ModuleType) -> None:
    assert script.PATH.read_text() == script.text(), "run scripts/build_repvm_vectors.py"


def test_steps(vectors: dict[str, Any]) -> None:
    """From what a row tells alone: the word at pc, and the tile or the word that it opens."""
    for row in rows(vectors["step"], "word"):
        node, _, _ = node_at(vectors, row["node"])
        before = State.decode(data(row["before"], STATE_BYTES))
        words = [0] * row["words"]
        if before.pc < len(words):
            words[before.pc] = int(row["word"], 16)
        index, value = int(row["index"], 16), int(row["value"], 16)
        inputs = [np.zeros(i.dtype.itemsize * int(np.prod(i.shape)), np.uint8) for i in node.inputs]
        if row["need"] == 1:
            tile = np.frombuffer(data(row["tile"], TILE), np.uint8)
            at, item = row["tileIndex"] * TILE, node.inputs[row["tensor"]].dtype.itemsize
            part = inputs[row["tensor"]][at : at + TILE]
            part[:] = tile[: len(part)]
            assert index * item == at + row["offset"]
            assert value == int.from_bytes(tile[row["offset"] : row["offset"] + item].tobytes(), "little")
        elif row["need"] == 2 and index != before.pc:
            words[index] = value
        both = Both(words, node, inputs, height=2)
        after = data(row["after"], STATE_BYTES)
        what = (Instruction.decode(int(row["word"], 16)).text, before)
        assert step(before, both.see, row["last"]).encode() == after, what
        assert both.fast.step(before.encode(), 3 if row["last"] else 0) == after, what


def test_steps_cover_every_instruction_and_dtype(vectors: dict[str, Any]) -> None:
    went_on: Counter[Op] = Counter()
    trapped: Counter[int] = Counter()
    dtypes: set[tuple[Op, DType]] = set()
    for row in rows(vectors["step"], "word"):
        op = int(row["word"], 16) >> 56
        if data(row["after"], STATE_BYTES) == State.halt(0).encode():
            trapped[op] += 1
        elif op in OPERANDS:
            went_on[Op(op)] += 1
            node = node_at(vectors, row["node"])[0]
            dtypes.add((Op(op), node.inputs[row["tensor"]].dtype if row["need"] == 1 else node.dtype))
    assert set(went_on) == set(Op) and min(went_on.values()) >= 3, went_on
    assert set(Op) - set(trapped) == {Op.JMP} - set(trapped)
    assert any(op not in OPERANDS for op in trapped)
    assert {(op, d) for op in (Op.LOAD, Op.RAW, Op.NARROW, Op.HALT) for d in list(DType)[1:]} <= dtypes | {
        (op, DType.ROOT) for op in Op
    }


def test_images_and_proofs(vectors: dict[str, Any]) -> None:
    table = vectors["image"]
    images = []
    for row in rows(table, "code"):
        words = tuple(int(w, 16) for w in table["words"][row["offset"] : row["offset"] + row["count"]])
        images.append(Image(words, ()))
        assert images[-1].code_hash == data(row["code"]) and images[-1].tree.root == data(row["root"])
    for row in rows(vectors["proof"], "leaf"):
        assert row["height"] == height(len(images[row["image"]].leaves))
        value = keccak(data(row["leaf"]))
        siblings = vectors["proof"]["siblings"][row["offset"] : row["offset"] + row["count"]]
        for level, sibling in enumerate(map(data, siblings)):
            value = keccak(sibling + value) if row["index"] >> level & 1 else keccak(value + sibling)
        assert value == data(vectors["image"]["root"][row["image"]]) and len(siblings) == row["height"]


def test_runs(vectors: dict[str, Any]) -> None:
    table = vectors["run"]
    for row in rows(table, "root"):
        node, code, vm_height = node_at(vectors, row["node"])
        made = rows(vectors["image"], "code")[row["image"]]
        assert code == data(made["code"])
        words = [int(w, 16) for w in vectors["image"]["words"][made["offset"] : made["offset"] + made["count"]]]
        given = table["inputs"][row["inputOffset"] : row["inputOffset"] + row["inputCount"]]
        both = Both(words, node, [np.frombuffer(data(g), np.uint8) for g in given], vm_height)
        hashes = [data(h) for h in table["hashes"][row["offset"] : row["offset"] + row["count"]]]
        state = State.start(row["element"])
        for n, expected in enumerate(hashes):
            after = step(state, both.see, False)
            assert after.hash == expected and keccak(both.fast.step(state.encode(), n)) == expected
            state = after
        assert state.halted and state.output == int(row["output"], 16)
        leaves = both.fast.leaves(row["element"], 1)
        assert leaves[: len(hashes)].tobytes() == b"".join(hashes)
