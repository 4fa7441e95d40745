"""Canonical encoding: the committed vectors, and eth_abi-free oracles for the parts that Solidity reads."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from eth_utils import keccak
from programs import sgd_program

from repops.commit import height
from repops.dtypes import DType
from repops.graph.encoding import encode_node, hash_nodes, node_leaf
from repops.graph.ir import Node, Program, Ref, RefKind, Slot
from repops.ops.table import OPERATORS
from repops.vm.programs import image

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def vectors() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vectors", ROOT / "scripts" / "build_program_vectors.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_committed_vectors_are_what_the_library_makes(vectors: ModuleType) -> None:
    assert (ROOT / "tests" / "vectors" / "programs.json").read_text() == vectors.text()


def word(value: int) -> bytes:
    return (value % 2**256).to_bytes(32, "big")


def test_node_encoding_is_the_abi_layout_by_hand() -> None:
    node = Node("iota", (-3, 2), (), (), DType.I64, (5,))
    expected = b"".join(
        [
            word(32),  # the tuple is one dynamic argument
            image("iota").code_hash,
            word(8 * 32),  # offset of params
            word(11 * 32),  # of literals
            word(12 * 32),  # of inputs
            word(4),  # i64
            word(13 * 32),  # of shape
            word(0),  # tile height of 40 bytes
            word(3),  # 5 instructions
            word(2), word(-3), word(2),
            word(0),
            word(0),
            word(1), word(5),
        ]
    )  # fmt: skip
    assert encode_node(node) == expected
    assert node_leaf(node) == keccak(expected)


def listed(structs: list[bytes]) -> bytes:
    """abi.encode of a list of dynamic structs, given each one's encoding."""
    offsets = [len(structs) * 32 + sum(map(len, structs[:i])) for i in range(len(structs))]
    return word(32) + word(len(structs)) + b"".join(map(word, offsets)) + b"".join(structs)


def text(value: str) -> bytes:
    data = value.encode()
    return word(len(data)) + data + bytes(-len(data) % 32)


def numbers(values: tuple[int, ...]) -> bytes:
    return b"".join(map(word, (len(values), *values)))


def test_header_and_program_root_by_hand() -> None:
    program = sgd_program()
    slots = []
    for s in program.slots:
        name = text(s.name)
        head = [word(5 * 32), word(s.dtype), word(5 * 32 + len(name)), word(s.update.kind), word(s.update.index)]
        slots.append(b"".join(head) + name + numbers(s.shape))
    batch = []
    for b in program.batch:
        name = text(b.name)
        batch.append(word(3 * 32) + word(b.dtype) + word(3 * 32 + len(name)) + name + numbers(b.shape))
    constants = [word(c.dtype) + word(2 * 32) + numbers(c.shape) for c in program.constants]
    trace = len(program.nodes) + 2 ** max(1, height(len(program.slots))) - 1
    leaves = [node_leaf(program.trace_node(i)) for i in range(trace)]

    def root(level: list[bytes]) -> bytes:
        level = level + [bytes(32)] * (2 ** height(len(level)) - len(level))
        while len(level) > 1:
            level = [keccak(a + b) for a, b in zip(level[::2], level[1::2], strict=True)]
        return level[0]

    roots = [keccak(c.data.tobytes().ljust(1024, b"\0")) for c in program.constants]  # one tile each
    counts = (len(program.nodes), trace, len(slots), len(batch), len(constants))
    header = b"".join(map(word, counts)) + b"".join(
        [root(leaves), keccak(listed(slots)), keccak(listed(batch)), root(roots), keccak(listed(constants))]
    )
    assert len(roots) > 1 and len(slots) > 1 and len(batch) > 1
    assert program.header().encode() == header
    assert program.root == keccak(keccak(text="VerdeProgram(RO-1,1)") + header)
    bare = Program((Slot("a", DType.F32, (2,), Ref.state(0)),), (), (), ())
    assert bare.header().constants_root == bytes(32)


def test_hash_node_encoding_by_hand() -> None:
    node = Program((Slot("a", DType.F32, (2,), Ref.state(0)),), (), (), ()).trace_node(0)
    one = [word(4 * 32), word(0)]  # where the shape begins, and its length
    inputs = [b"".join([word(0), word(0), word(255), *one]), b"".join([word(4), word(0), word(255), *one])]
    heads = [keccak(text="RO-1/hash/1"), word(8 * 32), word(9 * 32), word(10 * 32), word(255), word(23 * 32), word(0)]
    tail = [word(0), word(0), word(0), listed(inputs)[32:], word(0)]
    assert encode_node(node) == b"".join([word(32), *heads, *tail])


@pytest.mark.parametrize("slots", [0, 1, 2, 3, 4, 5, 8, 9])
def test_hash_nodes_are_the_state_tree_bottom_up(slots: int) -> None:
    program = Program(tuple(Slot(f"s{i}", DType.F32, (), Ref.state(i)) for i in range(slots)), (), (), ())
    nodes = hash_nodes(program)
    h = max(1, height(slots))
    assert len(nodes) == 2**h - 1 == program.trace_length
    values = [bytes([i + 1]) * 32 for i in range(slots)]
    outputs: list[bytes] = []
    for node in nodes:
        halves = []
        for item in node.inputs:
            assert item.dtype is DType.ROOT and item.shape == ()
            table = {RefKind.STATE: values, RefKind.NODE: outputs, RefKind.ZERO: [bytes(32)]}[item.ref.kind]
            halves.append(table[item.ref.index])
        outputs.append(keccak(b"".join(halves)))
    level = values + [bytes(32)] * (2**h - slots)
    while len(level) > 1:
        level = [keccak(a + b) for a, b in zip(level[::2], level[1::2], strict=True)]
    assert outputs[-1] == level[0]


def test_root_changes_with_every_part() -> None:
    slot = Slot("a", DType.F32, (2,), Ref.state(0))
    base = Program((slot,), (), (), ())
    fill = Node("fill", (), (0,), (), DType.F32, (2,))
    others = [
        Program((Slot("b", DType.F32, (2,), Ref.state(0)),), (), (), ()),
        Program((Slot("a", DType.I32, (2,), Ref.state(0)),), (), (), ()),
        Program((Slot("a", DType.F32, (2, 1), Ref.state(0)),), (), (), ()),
        Program((slot,), (), (), (fill,)),
        Program((slot,), (), (), (Node("fill", (), (1,), (), DType.F32, (2,)),)),
        Program((Slot("a", DType.F32, (2,), Ref.node(0)),), (), (), (fill,)),
    ]
    roots = [program.check().root for program in (base, *others)]
    assert len(set(roots)) == len(roots)


def test_code_hashes_are_distinct() -> None:
    hashes = {image(name).code_hash for name in OPERATORS}
    assert len(hashes) == len(OPERATORS) and keccak(text="RO-1/hash/1") not in hashes
