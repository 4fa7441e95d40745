#!/usr/bin/env python3
"""Builds the test vectors in tests/vectors from the plain definitions of docs/spec, by an oracle of its own.

Nothing here calls the library's hashing: trees are padded to their full width and folded with eth_utils.keccak, so that
C++, Python and Solidity are all checked against something that shares no code with them. Same output on every run.

    python scripts/build_vectors.py             writes the files
    python scripts/build_vectors.py --check     exit code 1 if a file differs from what would be written
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from eth_utils import keccak

DIRECTORY = Path(__file__).resolve().parent.parent / "tests" / "vectors"
ZERO = bytes(32)
TILE_BYTES = 1024
ITEM_BYTES = {"f32": 4, "bf16": 2, "f16": 2, "i64": 8, "i32": 4, "bool": 1}


def stream(label: str, size: int) -> bytes:
    """`size` bytes that depend on the label alone."""
    blocks = (keccak(label.encode() + i.to_bytes(8, "big")) for i in range((size + 31) // 32))
    return b"".join(blocks)[:size]


def words(label: str, count: int) -> list[bytes]:
    """`count` different 32-byte values that depend on the label alone."""
    return [keccak(f"{label}/{i}".encode()) for i in range(count)]


# ---- the oracle -----------------------------------------------------------------------------------------------------


def height_of(count: int) -> int:
    """ceil(log2(max(count, 1)))"""
    height = 0
    while 2**height < count:
        height += 1
    return height


def levels_of(leaves: Sequence[bytes], height: int) -> list[list[bytes]]:
    """Every node of the tree, leaves first, missing leaves written out."""
    levels = [list(leaves) + [ZERO] * (2**height - len(leaves))]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([keccak(below[i] + below[i + 1]) for i in range(0, len(below), 2)])
    return levels


def root_of(leaves: Sequence[bytes], height: int) -> bytes:
    return levels_of(leaves, height)[-1][0]


def siblings_of(levels: list[list[bytes]], index: int) -> list[bytes]:
    """The proof of a leaf, bottom-up."""
    return [level[(index >> k) ^ 1] for k, level in enumerate(levels[:-1])]


def tiles_of(data: bytes) -> list[bytes]:
    return [data[i : i + TILE_BYTES].ljust(TILE_BYTES, b"\0") for i in range(0, len(data), TILE_BYTES)]


def tensor_root_of(data: bytes) -> bytes:
    leaves = [keccak(tile) for tile in tiles_of(data)]
    return root_of(leaves, height_of(len(leaves))) if leaves else ZERO


def divergence_of(a: list[list[bytes]], b: list[list[bytes]], index: int) -> list[bytes]:
    """The siblings of a divergence proof at leaf `index`: path right, one word; path left, two words."""
    siblings = []
    for k in range(len(a) - 1):
        at = index >> k
        siblings += [a[k][at - 1]] if at & 1 else [a[k][at + 1], b[k][at + 1]]
    return siblings


# ---- writing --------------------------------------------------------------------------------------------------------


def text(value: Any) -> Any:
    """JSON with bytes as 0x-hex."""
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, dict):
        return {key: text(item) for key, item in value.items()}
    return [text(item) for item in value] if isinstance(value, list) else value


class Table:
    """Parallel arrays: one list for each column; a ragged column is one flat list, sliced by `offset` and `count`."""

    def __init__(self, *columns: str, flat: str | None = None) -> None:
        self._flat = flat
        self.columns: dict[str, list[Any]] = {name: [] for name in columns}
        if flat is not None:
            self.columns |= {"offset": [], "count": [], flat: []}

    def add(self, items: Sequence[bytes] = (), **row: Any) -> None:
        if self._flat is not None:
            row |= {"offset": len(self.columns[self._flat]), "count": len(items)}
            self.columns[self._flat] += items
        expected = self.columns.keys() - {self._flat}
        if row.keys() != expected:
            raise ValueError(f"a row has the columns {sorted(expected)}, not {sorted(row)}")
        for name, value in row.items():
            self.columns[name].append(value)


# ---- commitments.json -----------------------------------------------------------------------------------------------


def keccak_cases() -> Table:
    table = Table("data", "hash")
    for size in (0, 1, 31, 32, 63, 64, 65, 96, 135, 136, 137, 271, 272, 273, 1023, 1024, 1025):
        data = stream(f"keccak/{size}", size)
        table.add(data=data, hash=keccak(data))
    return table


def tensor_cases() -> Table:
    table = Table("dtype", "elements", "height", "data", "root")
    for dtype, item in ITEM_BYTES.items():
        counts = {0, 1, (1024 - 1) // item, 1024 // item, 1024 // item + 1, 3 * 1024 // item - 1}
        counts |= {1025, 8 * 1024, 8 * 1024 + 1} if dtype == "bool" else set()
        for elements in sorted(counts):
            data = stream(f"tensor/{dtype}/{elements}", elements * item)
            if dtype == "bool":
                data = bytes(byte & 1 for byte in data)
            height = height_of(len(tiles_of(data)))
            table.add(dtype=dtype, elements=elements, height=height, data=data, root=tensor_root_of(data))
    return table


def tree_cases() -> Table:
    table = Table("height", "root", flat="leaves")
    for count in range(18):
        leaves = words(f"tree/{count}", count)
        for height in (height_of(count), height_of(count) + 1, height_of(count) + 3):
            table.add(leaves, height=height, root=root_of(leaves, height))
    return table


def proof_cases() -> Table:
    """All proofs of small trees, padding leaves included, and for each tree some that must be refused."""
    table = Table("root", "height", "index", "leaf", "valid", flat="siblings")
    for count in range(1, 10):
        for height in (height_of(count), height_of(count) + 1):
            leaves = words(f"tree/{count}", count)
            levels = levels_of(leaves, height)
            root = levels[-1][0]

            def add(
                proof: list[bytes], valid: bool, index: int, leaf: bytes, of: tuple[bytes, int] = (root, height)
            ) -> None:
                table.add(proof, root=of[0], height=of[1], index=index, leaf=leaf, valid=valid)

            for index in range(2**height):
                add(siblings_of(levels, index), True, index, levels[0][index])
            last = count - 1
            proof, leaf = siblings_of(levels, last), leaves[last]
            add(proof, False, last, keccak(leaf))
            add(proof, False, 2**height, leaf)
            add([*proof, ZERO], False, last, leaf)
            if height > 0:
                add(proof, False, last ^ 1, leaf)
                add(proof[:-1], False, last, leaf)
                add([keccak(proof[0]), *proof[1:]], False, last, leaf)
                # An inner node offered as a leaf one level higher: a true path of the wrong length.
                add(proof[1:], False, last >> 1, levels[1][last >> 1])
            if height > 1:
                add(proof[::-1], False, last, leaf)
    return table


def structure_cases() -> Table:
    table = Table("kind", "height", "root", flat="roots")
    for kind, floor in (("state", 1), ("batch", 1), ("data", 0), ("constants", 0), ("claim", 0), ("trace", 0)):
        for count in (0, 1, 2, 3, 5, 8, 9):
            if count == 0 and kind not in {"state", "batch", "constants"}:
                continue
            leaves = words(f"{kind}/{count}", count)
            height = max(floor, height_of(count))
            table.add(leaves, kind=kind, height=height, root=root_of(leaves, height))
    return table


def hash_node_cases() -> Table:
    """`values`: the output roots of a state's hash nodes, in trace order."""
    table = Table("slots", "root", flat="values")
    for slots in (1, 2, 3, 4, 5, 9):
        levels = levels_of(words(f"state/{slots}", slots), max(1, height_of(slots)))
        table.add([node for level in levels[1:] for node in level], slots=slots, root=levels[-1][0])
    return table


def divergence_cases() -> Table:
    table = Table("name", "nodeA", "nodeB", "m", "index", "a", "b", "valid", flat="siblings")
    for m in range(5):
        for index in range(2**m):
            a = words(f"divergence/{m}", 2**m)
            later = words(f"divergence/{m}/{index}/b", 2**m)
            # B differs at `index`, agrees at the next leaf and differs from there on.
            b = [a[i] if i < index or i == index + 1 else later[i] for i in range(2**m)]
            tree_a, tree_b = levels_of(a, m), levels_of(b, m)
            siblings = divergence_of(tree_a, tree_b, index)
            true: dict[str, Any] = {"nodeA": tree_a[-1][0], "nodeB": tree_b[-1][0], "m": m, "index": index}
            true |= {"a": a[index], "b": b[index]}

            def add(name: str, items: Sequence[bytes], base: dict[str, Any] = true, **changed: Any) -> None:
                table.add(items, name=name, valid=name == "true", **(base | changed))

            add("true", siblings)
            if m > 3 and index not in {0, 5, 10, 15}:
                continue
            add("sides swapped", siblings, a=b[index], b=a[index])
            add("equal values", siblings, b=a[index])
            add("forged value", siblings, b=keccak(b[index]))
            add("index out of range", siblings, index=2**m)
            add("sibling too many", [*siblings, ZERO])
            if siblings:
                add("sibling missing", siblings[:-1])
                add("sibling forged", [*siblings[:-1], keccak(siblings[-1])])
            if index + 2 < 2**m:
                # True openings of a later difference, but a left sibling differs: one word cannot serve both trees.
                later_index = index + 2
                add(
                    "later difference, A's left siblings",
                    divergence_of(tree_a, tree_b, later_index),
                    index=later_index,
                    a=a[later_index],
                    b=b[later_index],
                )
                add(
                    "later difference, B's left siblings",
                    divergence_of(tree_b, tree_a, later_index),
                    index=later_index,
                    a=a[later_index],
                    b=b[later_index],
                )
    return table


def commitments() -> dict[str, Any]:
    tables = {
        "keccak": keccak_cases(),
        "tensor": tensor_cases(),
        "tree": tree_cases(),
        "proof": proof_cases(),
        "structure": structure_cases(),
        "hashNodes": hash_node_cases(),
        "divergence": divergence_cases(),
    }
    zeros = [ZERO]
    while len(zeros) <= 64:
        zeros.append(keccak(zeros[-1] + zeros[-1]))
    about = {
        "source": "scripts/build_vectors.py, from docs/spec/commitments.md and docs/spec/game.md",
        "layout": "each table is an object of parallel arrays: entry i of every column is case i. "
        "A ragged column is flat: case i owns the `count[i]` entries from `offset[i]` on",
        "zeros": "zeros[k] = Z_k, the node at level k over missing leaves",
        "keccak": "hash = keccak256(data)",
        "tensor": "root and tree height of a tensor with `elements` elements of `dtype` whose bytes are data",
        "tree": "root of the tree of height over leaves (flat)",
        "proof": "valid: siblings (flat, bottom-up) prove that leaf stands at index of the tree of height with root",
        "structure": "root and height of a tree of kind over roots (flat)",
        "hashNodes": "values (flat): output roots of the hash nodes of a state of `slots` slots (the leaves of "
        "structure state of the same size), in trace order; root: the state root, the last of them",
        "divergence": "valid: siblings (flat, bottom-up; path right: one shared left sibling; path left: A's right "
        "sibling, then B's) prove that (a, b) is the first difference, m levels below (nodeA, nodeB), at index",
    }
    return {"about": about, "zeros": zeros} | {name: table.columns for name, table in tables.items()}


FILES: dict[str, Callable[[], dict[str, Any]]] = {"commitments.json": commitments}


def main() -> int:
    parser = argparse.ArgumentParser(description="Builds the test vectors in tests/vectors.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail if a file is not up to date")
    arguments = parser.parse_args()
    stale = []
    for name, build in FILES.items():
        content = json.dumps(text(build()), indent=1) + "\n"
        path = DIRECTORY / name
        if arguments.check:
            if not path.is_file() or path.read_text(encoding="utf-8") != content:
                stale.append(name)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
    if stale:
        print(f"not up to date: {', '.join(stale)}; run python scripts/build_vectors.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
