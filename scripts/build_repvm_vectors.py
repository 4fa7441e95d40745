#!/usr/bin/env python3
"""Writes tests/vectors/repvm.json: single instructions and whole runs of RepVM, by its readable interpreter.

    python scripts/build_repvm_vectors.py             writes the file
    python scripts/build_repvm_vectors.py --check     exit code 1 if it differs from what would be written

`tests/repops/vm/test_vectors.py` replays the file with both interpreters, `tests/contracts` with RepVM.sol. Same output
on every run; the arithmetic behind it is held against the processor's in `tests/repops/vm/test_softfloat.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from eth_abi.abi import encode

from repops.dtypes import DType
from repops.graph.encoding import NODE_ABI
from repops.graph.ir import Input, Node, Ref, Shape, tile_height
from repops.vm import Image, NodeRun
from repops.vm.isa import OPERANDS, OUTPUT, REGISTERS, SCRATCH, SPACE, Instruction, Op
from repops.vm.machine import State, Surroundings, states, step
from repops.vm.programs import image

PATH = Path(__file__).resolve().parent.parent / "tests" / "vectors" / "repvm.json"
TILE = 1024
Row = dict[str, Any]
Table = dict[str, list[Any]]
F32, BF16, F16, I64, I32, BOOL = DTYPES = [d for d in DType if d is not DType.ROOT]
NEED_NOTHING, NEED_ELEMENT, NEED_WORD = range(3)

ABOUT = {
    "source": "scripts/build_repvm_vectors.py, from docs/spec/repvm.md",
    "layout": "tables of parallel arrays: entry i of every column is case i. A state is its 512 bytes without zeros at "
    "the end, a tile its 1,024 bytes likewise; 64-bit numbers are hexadecimal",
    "nodes": "abi.encode of struct Node",
    "step": "one instruction: `word` stands at the pc of the state `before`, in an image of `words` words, and is "
    "instruction 2^vmHeight - 1 where `last`; pc >= words: there is no such word. `need`: 0 nothing, 1 element `index` "
    "of input `tensor`, which lies in `tile` (number tileIndex of the tensor) at byte `offset` and is `value`, "
    "little-endian, 2 word `index` of the image, which is `value`. `after` is the state after it",
    "image": "words (flat: `count` from `offset` on), root of their tree, code hash",
    "proof": "siblings (flat, bottom-up) prove that `leaf` stands at `index` of the tree of height of image `image`",
    "run": "a whole run for `element` of node `node` by the image `image`, whose inputs are `inputs` (flat: inputCount "
    "from inputOffset on): `hashes` (flat: count from offset on), the hash of the state after every instruction, up to "
    "the halted one of `output`; `root` of the trace of height vmHeight",
}


# ---- nodes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Given:
    """A node with the bytes of its inputs."""

    node: Node
    inputs: tuple[bytes, ...] = ()

    def encode(self, code: bytes, height: int) -> bytes:
        n = self.node
        inputs = [(int(i.ref.kind), i.ref.index, int(i.dtype), i.shape) for i in n.inputs]
        heights = (tile_height(n.dtype, n.shape), height)
        return encode([NODE_ABI], [(code, n.params, n.literals, inputs, int(n.dtype), n.shape, *heights)])


def given(out: DType, shape: Shape = (), *inputs: tuple[DType, Shape, list[int]], op: str = "") -> Given:
    """inputs: dtype, shape, and patterns that are repeated to fill it."""
    read = tuple(Input(Ref.batch(k), dtype, s) for k, (dtype, s, _) in enumerate(inputs))
    data = []
    for dtype, s, patterns in inputs:
        values = [patterns[i % len(patterns)] % 2**dtype.bits for i in range(prod(s))]
        data.append(b"".join(v.to_bytes(dtype.itemsize, "little") for v in values))
    return Given(Node(op, PARAMS, LITERALS, read, out, shape), tuple(data))


PARAMS = (3, -1, -(2**63), 2**63 - 1)
LITERALS = (0x40490FDB, 2**64 - 1)
FLOATS = [
    0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007FFFFF, 0x00800000, 0x3F800000, 0xBF800000, 0x7F7FFFFF,
    0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF, 0x3F800001, 0x4B7FFFFF,
    0x33800000, 0x42280000,
]  # fmt: skip
HALVES = [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x3C00, 0x7BFF, 0x7C00, 0xFC00, 0x7E00, 0xFD23, 0x7C01]
BRAINS = [0x0000, 0x8000, 0x0001, 0x807F, 0x0080, 0x3F80, 0x7F7F, 0x7F80, 0xFF80, 0x7FC0, 0xFF81]
WHOLE = [0, 1, -1, 2**63 - 1, -(2**63), 2**53 + 1, 255]
ANY = {
    F32: FLOATS,
    BF16: BRAINS,
    F16: HALVES,
    I64: WHOLE,
    I32: [0, 1, -1, 2**31 - 1, -(2**31)],
    BOOL: [0, 1, 2, 0x80, 255],
}

SYNTHETIC: dict[str, Given] = {
    **{f"{d.text} scalar": given(d) for d in DTYPES},
    "every dtype": given(F32, (3, 4, 5), *((d, (4, 5), ANY[d]) for d in DTYPES)),
    "tiles": given(I32, (2, 600), (F32, (2, 600), FLOATS), (I64, (300,), WHOLE), (BOOL, (2100,), [0, 1, 255])),
    "broadcast": given(F32, (3, 4, 5), (F32, (3, 1, 5), FLOATS), (F32, (4, 1), FLOATS), (F32, (), FLOATS)),
    "no broadcast": given(F32, (5,), (F32, (2, 3), FLOATS), (F32, (4,), FLOATS), (F32, (1, 7, 1, 1), FLOATS)),
    "empty": given(F32, (3, 0, 5), (F32, (0, 5), []), (F32, (3, 1, 1), FLOATS)),
    "eight axes": given(BOOL, (2, 1, 3, 1, 2, 1, 1, 5), (F32, (2, 1, 3, 1, 2, 1, 1, 1), FLOATS)),
}

# ---- single instructions ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One instruction on a state with these registers and scratch words."""

    instruction: Instruction
    registers: Mapping[int, int]
    scratch: Mapping[int, int]
    node: str
    last: bool
    pc: int
    words: int  # of the image; all but the one at pc are CONSTANT + index

    def row(self) -> Row:
        state = State(pc=self.pc)
        for k, value in self.registers.items():
            state.registers[k] = value % 2**64
        for k, value in self.scratch.items():
            state.scratch[k] = value
        word = self.instruction.encode()
        words = [CONSTANT + k for k in range(self.words)]
        if self.pc < self.words:
            words[self.pc] = word
        at = SYNTHETIC[self.node]
        see = Surroundings(words, at.node, [np.frombuffer(b, np.uint8) for b in at.inputs])
        after = step(state, see, self.last)
        return {
            "node": list(SYNTHETIC).index(self.node), "words": self.words, "word": number(word), "last": self.last,
            "before": short(state.encode()), **needs(state, self.instruction, see), "after": short(after.encode()),
        }  # fmt: skip


CONSTANT = 0xC0DE000000000000


def needs(state: State, i: Instruction, see: Surroundings) -> Row:
    """What the instruction must be told, as RepVM.sol asks for it."""
    need, tensor, index, value, tile, place, offset = NEED_NOTHING, 0, 0, 0, b"", 0, 0
    registers = {"a": i.a, "b": i.b, "t": i.c, "y": i.c}
    reads = i.op in (Op.LOAD, Op.RAW, Op.CODE) and all(registers[f] < REGISTERS for f in OPERANDS[Op(i.op)])
    if reads and state.pc < len(see.words):
        y = signed(state.registers[i.c] + i.imm)
        if i.op == Op.CODE and 0 <= y < len(see.words):
            need, index, value = NEED_WORD, y, see.words[y]
        elif i.op != Op.CODE:
            element = signed(state.registers[i.b])
            stored = see.stored(y, element)
            if stored is not None:
                at = element * len(stored)
                need, tensor, index, value = NEED_ELEMENT, y, element, int.from_bytes(stored, "little")
                place, offset = divmod(at, TILE)
                tile = see.inputs[y][place * TILE : (place + 1) * TILE].tobytes()
    return {
        "need": need, "tensor": tensor, "index": number(index), "value": number(value), "tile": short(tile),
        "tileIndex": place, "offset": offset,
    }  # fmt: skip


def single(
    op: int,
    a: int = 0,
    b: int = 0,
    c: int = 0,
    imm: int = 0,
    registers: Mapping[int, int] | None = None,
    scratch: Mapping[int, int] | None = None,
    node: str = "i64 scalar",
    last: bool = False,
    pc: int = 2,
    words: int = 9,
) -> Row:
    return Step(Instruction(op, a, b, c, imm), registers or {}, scratch or {}, node, last, pc, words).row()


EDGES = [
    (7, 2), (-7, 2), (7, -2), (0, 0), (5, 0), (-(2**63), -1), (-(2**63), 1), (2**63 - 1, 1), (-1, 63), (-1, 64),
    (3, 63), (-5, -1), (2**62, 4), (-1, -1), (-(2**63), 2**63 - 1), (0x123456789ABCDEF, 0xFEDCBA987654321),
]  # fmt: skip
PAIRS = [
    (0x3F800000, 0x40000000), (0x3F800000, 0xBF800000), (0x00000000, 0x80000000), (0x80000000, 0x80000000),
    (0x7F800000, 0xFF800000), (0x7F800000, 0x00000000), (0x7F800001, 0x3F800000), (0x3F800000, 0xFFFFFFFF),
    (0x00000001, 0x00000001), (0x007FFFFF, 0x00000001), (0x00800000, 0x80000001), (0x7F7FFFFF, 0x7F7FFFFF),
    (0x7F7FFFFF, 0x73000000), (0x3F800000, 0x33800000), (0x3F800001, 0x33800000), (0x1A3F1234, 0x2513AB3D),
    (0x3EAAAAAB, 0x40400000), (0x3F800000, 0x00000000), (0x00000001, 0x3F000000), (0x40490FDB, 0x402DF854),
]  # fmt: skip
TRIPLES = [
    (0x3F800001, 0x3F800001, 0xBF800002), (0x3F800000, 0x3F800000, 0xBF800000), (0x80000000, 0x3F800000, 0x80000000),
    (0x00000000, 0x3F800000, 0x80000000), (0x7F800000, 0x00000000, 0x7F800001), (0x7F800000, 0x3F800000, 0xFF800000),
    (0x7F800000, 0x3F800000, 0x7F800000), (0x7F7FFFFF, 0x40000000, 0xFF7FFFFF), (0x00000001, 0x3F000000, 0x00000001),
    (0x00000001, 0x00000001, 0x00000001), (0x00000001, 0x80000001, 0x00800000), (0x3F800000, 0x3F800000, 0x33800000),
    (0x4B7FFFFF, 0x4B7FFFFF, 0x3F800000), (0x3DCCCCCD, 0x41200000, 0xBF800000), (0x5F000000, 0x5F000000, 0xFF7FFFFF),
    (0x40490FDB, 0x402DF854, 0xC10A1A2A), (0xFFC00001, 0x3F800000, 0x3F800000), (0x3F800000, 0x3F800000, 0xFF812345),
    (0x1F800000, 0x20000000, 0x80000001), (0x3F800001, 0x34000000, 0x3F800000),
]  # fmt: skip
INTEGER = [op for op in Op if OPERANDS[op] == "aby"]
FLOAT2 = [Op.FADD, Op.FSUB, Op.FMUL, Op.FDIV, Op.FMAX, Op.FMIN, Op.FEQ, Op.FLT, Op.FLE]
JUNK = 0xDEADBEEF << 32  # in the high half, where a float has nothing


def integers() -> Iterator[Row]:
    for op in INTEGER:
        for x, y in EDGES if op < Op.AND or Op.SHL <= op <= Op.SAR else EDGES[4:9]:
            yield single(op, 3, 1, 2, 0, {1: x, 2: y})
        yield single(op, 3, 1, 2, -7, {1: 1000, 2: 12})  # y is a sum
        yield single(op, 1, 1, 2, 2**31 - 1, {1: 2**63 - 2, 2: 2**63 - 1})  # which wraps
    for x in (0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, JUNK | 5, -1):
        yield single(Op.SEXT, 3, 1, registers={1: x})
    for m in (0, 1, -1, 2**63, JUNK):
        yield single(Op.SEL, 3, 1, 2, 4, {1: m, 2: 22, 4: 2**64 - 44})
    for op in (Op.BEQ, Op.BNE, Op.BLT, Op.BGE):
        for x, y in ((1, 1), (-1, 1), (1, -1), (2**63 - 1, -(2**63)), (JUNK, 0)):
            yield single(op, 1, 2, 0, 7, {1: x, 2: y})
    yield single(Op.JMP, imm=0)
    yield single(Op.JMP, imm=-1)
    yield single(Op.BEQ, 1, 1, 0, -(2**31))


def floats() -> Iterator[Row]:
    for op in FLOAT2:
        for k, (x, y) in enumerate(PAIRS if op <= Op.FDIV else PAIRS[:9]):
            yield single(op, 3, 1, 2, 0, {1: x | (JUNK if k % 5 == 0 else 0), 2: y})
    for x, y, z in TRIPLES:
        yield single(Op.FFMA, 3, 1, 2, 4, {1: x, 2: JUNK | y, 4: z})
    for x in (0, 0x80000000, 1, 0x007FFFFF, 0x00800000, 0x40000000, 0x3F7FFFFF, 0x7F7FFFFF, 0x7F800000, 0xFF800000,
              0xBF800000, 0x7F800001, 0x40800000, 0x4B800001):  # fmt: skip
        yield single(Op.FSQRT, 3, 1, registers={1: JUNK | x})
    for x in (0, 0x7F800000, 0x7F800001, 0xFFC00000, JUNK | 0x3F800000):
        yield single(Op.FNAN, 3, 1, registers={1: x})
    for i in (
        0,
        1,
        -1,
        2**24 + 1,
        2**24 + 3,
        -(2**24) - 1,
        2**63 - 1,
        -(2**63),
        2**40 + 2**16,
        2**40 + 2**16 + 1,
        0x7FFFFFBFFFFFFFFF,
    ):
        yield single(Op.ITOF, 3, 1, registers={1: i})
    for x in (0x80000000, 0x3F7FFFFF, 0xBFC00000, 0x5EFFFFFF, 0x5F000000, 0xDF000000, 0xDF000001, 0x7F800000,
              0xFF800000, 0x7FC00000, 0xFF800001, 0x00000001, 0x4F800000):  # fmt: skip
        yield single(Op.FTOI, 3, 1, registers={1: x})
    narrow = {
        F32: (0x7F800001, 0xFFFFFFFF, 0x3F800001), I64: (0x7F800001,), I32: (0xFFFFFFFF,), BOOL: (0x3F800000,),
        BF16: (0x3F808000, 0x3F818000, 0x3F808001, 0x7F7FFFFF, 0x00007FFF, 0x00008000, 0x00018000, 0x7F800001,
               0xFF800000),
        F16: (0x3F801000, 0x3F803000, 0x3F801001, 0x477FEFFF, 0x477FF000, 0x33000000, 0x33000001, 0xB2FFFFFF,
              0x387FF000, 0x387FEFFF, 0x33C00000, 0xFF812345, 0x7F800000, 0xC7000000),
    }  # fmt: skip
    for dtype, patterns in narrow.items():
        for x in patterns:
            yield single(Op.NARROW, 3, 1, registers={1: JUNK | x}, node=f"{dtype.text} scalar")


def surroundings() -> Iterator[Row]:
    for op, count in ((Op.PARAM, len(PARAMS)), (Op.LITERAL, len(LITERALS))):
        for k in (*range(-1, count + 1), 2**31 - 1):
            yield single(op, 3, 0, 0, k)
        yield single(op, 3, 0, 2, -(2**31), {2: 2**31 + 1})
    for node in ("every dtype", "no broadcast", "empty", "eight axes", "i64 scalar"):
        rank = len(SYNTHETIC[node].node.shape)
        yield single(Op.INPUTS, 3, node=node)
        for tensor in (SPACE, OUTPUT, 0, len(SYNTHETIC[node].inputs)):
            yield single(Op.RANK, 3, 0, 0, tensor, node=node)
            yield single(Op.DTYPE, 3, 0, 2, tensor - 9, {2: 9}, node=node)
            for axis in {-1, 0, rank - 1, rank}:
                yield single(Op.DIM, 3, 1, 0, tensor, {1: axis}, node=node)
    for tensor in (-3, 6, 2**31 - 1):
        yield single(Op.DIM, 3, 1, 0, tensor, {1: 0}, node="every dtype")
        yield single(Op.PLACE, 3, 1, 0, tensor, {1: 0}, node="every dtype")
    for node in ("broadcast", "no broadcast", "empty", "eight axes", "i64 scalar"):
        for tensor in (SPACE, OUTPUT, *range(len(SYNTHETIC[node].inputs))):
            for index in (0, 37, 2**63 - 1, -1):
                yield single(Op.PLACE, 3, 1, 0, tensor, {1: index}, node=node)


def loads() -> Iterator[Row]:
    every = SYNTHETIC["every dtype"].node
    for tensor, item in enumerate(every.inputs):
        for op in (Op.LOAD, Op.RAW):
            patterns = len(ANY[item.dtype])
            for element in range(0, patterns, 1 if op == Op.LOAD else 3):
                yield single(op, 3, 1, 0, tensor, {1: element}, node="every dtype")
        for element in (19, 20, -1, 2**63 - 1, -(2**63)):
            yield single(Op.LOAD, 3, 1, 2, 0, {1: element, 2: tensor}, node="every dtype")
    for tensor in (OUTPUT, SPACE, 6, 2**31 - 1):
        yield single(Op.LOAD, 3, 1, 0, tensor, {1: 0}, node="every dtype")
        yield single(Op.RAW, 3, 1, 0, tensor, {1: 0}, node="every dtype")
    for tensor, element in ((0, 255), (0, 1199), (0, 1200), (1, 128), (2, 1023), (2, 2099), (2, 2100)):
        yield single(Op.RAW, 3, 1, 0, tensor, {1: element}, node="tiles")
    yield single(Op.LOAD, 3, 1, 0, 0, {1: 0}, node="empty")
    for k in (-1, 0, 2, 8, 9, 2**31 - 1):
        yield single(Op.CODE, 3, 0, 0, k)
    yield single(Op.CODE, 3, 0, 2, 5, {2: -3})
    yield single(Op.CODE, 2, 0, 2, 0, {2: 2**63})


def scratches() -> Iterator[Row]:
    for base, imm in (
        (0, 0),
        (0, 55),
        (3, 4),
        (60, -5),
        (0, 56),
        (0, -1),
        (-1, 0),
        (2**63 - 1, 1),
        (-(2**63), -1),
        (56, -1),
    ):
        yield single(Op.GET, 3, 1, 0, imm, {1: base}, {k: 0xA0000000 + k for k in (0, 7, 55)})
        yield single(Op.PUT, 3, 1, 0, imm, {1: base, 3: JUNK | 0x12345678})
    yield single(Op.PUT, 1, 1, 0, 0, {1: 3}, {3: 7})
    yield single(Op.GET, 1, 1, 0, 0, {1: 3}, {3: 7})
    yield single(Op.PUT, 31, 0, 255, SCRATCH - 1, {31: 2**64 - 1})


def ends() -> Iterator[Row]:
    for dtype in DTYPES:
        yield single(Op.HALT, 31, registers={31: 0xFEDCBA9876543210, 1: 5}, scratch={4: 4}, node=f"{dtype.text} scalar")
    yield single(Op.HALT, 1, registers={1: 5}, last=True)
    yield single(Op.ADD, 1, 1, registers={1: 5}, last=True)
    yield single(Op.JMP, imm=1, last=True)
    for opcode in (0x00, 0x07, 0x0F, 0x21, 0x27, 0x2F, 0x33, 0x37, 0x47, 0x4A, 0x80, 0xFF):
        yield single(opcode, 1, 2, 3, 4, {1: 9})
    for pc, words in ((9, 9), (2**32 - 1, 9), (0, 0), (10, 9)):
        yield single(Op.HALT, 1, registers={1: 9}, pc=pc, words=words)
    for op in Op:
        used = OPERANDS[op]
        for field in "abc":
            fields = {"a": 1, "b": 0, "c": 0, "imm": 0} | {field: 32}
            if (
                used[-1] == "d"
                or field in used
                or (field == "c" and used[-1] in "ty")
                or (field == "b" and used[-1] == "s")
            ):
                yield single(op, **fields, registers={1: 1}, node="every dtype")
        if used[-1] == "d":
            yield single(op, 1, 0, 0, 32, {1: 1})
            yield single(op, 1, 0, 0, -1, {1: 1})
    yield single(Op.JMP, 255, 255, 255, 4)  # fields that are not used may hold anything
    yield single(Op.INPUTS, 1, 255, 255, -1)
    yield single(Op.PARAM, 1, 255, 0, 0)
    yield single(Op.FADD, 1, 0, 0, -1)
    yield single(Op.FSQRT, 1, 0, 255, -1)
    full = {k: 0x0101010101010101 * k for k in range(1, 32)}
    yield single(Op.ADD, 31, 31, 30, 1, full, {k: 0x02020202 * (k + 1) for k in range(SCRATCH)})


# ---- images and runs -------------------------------------------------------------------------------------------------


def run_given(op: str, params: tuple[int, ...], literals: tuple[int, ...], out: DType, shape: Shape,
              *inputs: tuple[DType, Shape, list[int]]) -> Given:  # fmt: skip
    made = given(out, shape, *inputs, op=op)
    return Given(Node(op, params, literals, made.node.inputs, out, shape), made.inputs)


ODD = [0x3F99999A, 0xC0133333, 0x3E4CCCCD, 0x40A00000, 0xBF19999A, 0x00012345, 0x7F800001]
RUNS: list[tuple[Given, int]] = [
    (run_given("mul", (), (), I64, (3, 2), (I64, (3, 1), WHOLE), (I64, (2,), [-3, 5])), 5),
    (run_given("silu_grad", (), (), BF16, (4,), (BF16, (4,), [0x3FC0]), (F32, (4,), ODD)), 1),
    (run_given("where", (), (), I32, (3,), (BOOL, (3,), [0, 2]), (I32, (3,), [7, -7]), (I32, (1,), [9])), 1),
    (run_given("cast", (), (), BF16, (2,), (I64, (2,), [2**63 - 1, -(2**40) - 1])), 1),
    (run_given("sin", (), (), F32, (3,), (F32, (3,), [0x7F000001, 0x3F800000])), 0),
    (run_given("layer_norm", (), (), F32, (2,), *((F32, (2,), ODD[k:]) for k in range(5))), 1),
    (run_given("matmul", (1, 0, 0, 3), (), F32, (2, 2), (F32, (3, 2), ODD), (F32, (3, 2), ODD[2:])), 3),
    (run_given("amax", (1, 1, 0, 3), (), F32, (2, 1), (F32, (2, 3), ODD)), 1),
    (run_given("attention_ds", (1,), (), F32, (1, 2, 2), *((F32, s, ODD[:5]) for s in
               ((1, 2, 2), (1, 2, 1), (1, 2, 1), (1, 2, 2), (1, 2, 1)))), 3),
    (run_given("gather", (1,), (), F16, (2, 2), (F16, (2, 3), HALVES), (I64, (2, 2), [2, -1, 5, 1])), 3),
    (run_given("iota", (-7, 2**62), (), I64, (9,)), 6),
]  # fmt: skip


def image_table(images: list[Image]) -> Table:
    words: list[str] = []
    rows = []
    for made in images:
        own = [number(w) for w in made.words]
        root, code = hexed(made.tree.root), hexed(made.code_hash)
        rows.append({"offset": len(words), "count": len(own), "root": root, "code": code})
        words += own
    return columns(rows) | {"words": words}


def proof_table(images: list[Image]) -> Table:
    """Of the first and the last leaf of each."""
    siblings: list[str] = []
    rows = []
    for k, made in enumerate(images):
        for index in sorted({0, len(made.leaves) - 1}):
            own = [hexed(s) for s in made.tree.prove(index)]
            rows.append({"image": k, "index": index, "height": made.tree.height, "leaf": hexed(made.leaves[index]),
                         "offset": len(siblings), "count": len(own)})  # fmt: skip
            siblings += own
    return columns(rows) | {"siblings": siblings}


def run_table(first_node: int) -> Table:
    inputs: list[str] = []
    hashes: list[str] = []
    rows = []
    for k, (at, element) in enumerate(RUNS):
        run = NodeRun(at.node, [np.frombuffer(b, np.uint8) for b in at.inputs])
        found = list(states(element, run.surroundings, run.height))
        rows.append({"image": k, "node": first_node + k, "element": element, "inputOffset": len(inputs),
                     "inputCount": len(at.inputs), "offset": len(hashes), "count": len(found),
                     "output": number(found[-1].output), "root": hexed(run.trace(element).tree.root)})  # fmt: skip
        inputs += map(hexed, at.inputs)
        hashes += [hexed(state.hash) for state in found]
    return columns(rows) | {"inputs": inputs, "hashes": hashes}


# ---- writing ---------------------------------------------------------------------------------------------------------


def columns(rows: list[Row]) -> Table:
    return {name: [row[name] for row in rows] for name in rows[0]}


def signed(word: int) -> int:
    return (word + 2**63) % 2**64 - 2**63


def number(value: int) -> str:
    return f"{value:#x}"


def hexed(data: bytes) -> str:
    return "0x" + data.hex()


def short(data: bytes) -> str:
    return hexed(data.rstrip(b"\0"))


def text() -> str:
    """The content of the file."""
    rows = [row for part in (integers, floats, surroundings, loads, scratches, ends) for row in part()]
    images = [image(at.node.op) for at, _ in RUNS]
    nodes = [at.encode(bytes(32), 10) for at in SYNTHETIC.values()]
    nodes += [at.encode(made.code_hash, made.height(at.node)) for (at, _), made in zip(RUNS, images, strict=True)]
    content = {
        "about": ABOUT, "nodes": [hexed(n) for n in nodes], "step": columns(rows), "image": image_table(images),
        "proof": proof_table(images), "run": run_table(len(SYNTHETIC)),
    }  # fmt: skip
    packed = json.dumps(content, separators=(",", ":"))
    return packed.replace('],"', '],\n"').replace('},"', '},\n"') + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Writes tests/vectors/repvm.json.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail if the file is not up to date")
    arguments = parser.parse_args()
    if not arguments.check:
        PATH.write_text(text(), encoding="utf-8")
    elif not PATH.is_file() or PATH.read_text(encoding="utf-8") != text():
        print(f"not up to date: {PATH.name}; run python scripts/{Path(__file__).name}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
