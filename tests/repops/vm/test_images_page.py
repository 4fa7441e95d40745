"""The page docs/spec/images.md can stand alone: its words, hashes and bounds, read by nothing of the library."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from eth_abi import encode
from eth_utils import keccak
from golden_cases import cases
from nodes import random_node

from repops.graph.encoding import encode_node
from repops.graph.ir import Node
from repops.ops.table import OPERATORS
from repops.vm.programs import image

PAGE = Path(__file__).resolve().parents[3] / "docs" / "spec" / "images.md"


@dataclass(frozen=True)
class Entry:
    code: str
    count: int
    bound: str
    words: list[int]


def entries() -> dict[str, Entry]:
    found = {}
    for block in PAGE.read_text(encoding="utf-8").split("```")[1].strip().split("\n\n"):
        name, code, count, bound, *lines = (line.strip() for line in block.split("\n"))
        words = [int(w, 16) for line in lines for w in line.split()]
        found[name] = Entry(
            code.removeprefix("code "), int(count.removeprefix("words ")), bound.removeprefix("bound "), words
        )
    return found


ENTRIES = entries()


def code_hash(words: list[int]) -> str:
    """By the text of docs/spec/repvm.md, "Code"."""
    data = b"".join(w.to_bytes(8, "big") for w in words)
    level = [keccak(data[i : i + 32].ljust(32, b"\0")) for i in range(0, len(data), 32)]
    while len(level) & (len(level) - 1):
        level.append(bytes(32))
    while len(level) > 1:
        level = [keccak(a + b) for a, b in zip(level[::2], level[1::2], strict=True)]
    return (
        "0x" + keccak(encode(["bytes32", "uint256", "bytes32"], [keccak(text="RepVM(1)"), len(words), level[0]])).hex()
    )


def test_every_operator_is_listed() -> None:
    assert sorted(ENTRIES) == sorted(OPERATORS)


@pytest.mark.parametrize("op", OPERATORS)
def test_words_and_code_hashes(op: str) -> None:
    entry = ENTRIES[op]
    assert len(entry.words) == entry.count
    assert code_hash(entry.words) == entry.code == "0x" + image(op).code_hash.hex()
    assert tuple(entry.words) == image(op).words


def symbols(node: Node) -> dict[str, object]:
    """What a bound may name, by the page's table."""
    known: dict[str, object] = {"R": len(node.shape), "N": len(node.inputs), "out": node.shape}
    known |= {f"in{k}": i.shape for k, i in enumerate(node.inputs)}
    if node.params:
        known["p0"] = node.params[0]
    if len(node.params) > 1:
        known["T"] = node.params[-1] - node.params[-2]
    if "pool" in node.op:
        x, y = node.inputs[0].shape, node.shape
        if node.op.endswith("_grad"):
            x, y = y, x
        for j in (0, 1):
            size, windows, taps, stride = x[1 + j], y[1 + j], node.params[j], node.params[2 + j]
            dilation = 1 if node.op.startswith("avg") else node.params[6 + j]
            if taps > 0:
                known[f"P{j}"], known[f"W{j}"] = taps, min(windows, (taps - 1) * dilation // stride + 1)
            else:
                known[f"P{j}"], known[f"W{j}"] = ceil(size / max(windows, 1)) + 1, ceil(windows / max(size, 1)) + 1
    return known


def nodes_of(op: str) -> Iterator[Node]:
    yield from (case.node for case in cases(op))
    for seed in range(15):
        yield random_node(op, np.random.default_rng(seed))[0]


@pytest.mark.parametrize("op", OPERATORS)
def test_bounds_and_heights(op: str) -> None:
    text = ENTRIES[op].bound
    assert re.fullmatch(r"[\w\[\] +*/()]+", text)
    bounds = set()
    for node in nodes_of(op):
        bound = eval(text, {"__builtins__": {}}, symbols(node))  # the page's own expression
        assert bound == image(op).bound(node), node
        bounds.add(bound)
        height = next(h for h in range(64) if 2**h >= bound)
        assert height == image(op).height(node)
        tail_words = encode_node(node)[32:]  # the struct's head: vmHeight is its last of eight words
        assert int.from_bytes(tail_words[7 * 32 : 8 * 32], "big") == height
    assert (len(bounds) > 1) == (not text.isdigit())  # the nodes tell a wrong symbol from a right one
