"""The readable interpreter of RepVM: one instruction on one state (docs/spec/repvm.md).

It is written to be compared with the text, line by line, and is slow; `repops.vm.run` is the fast one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

import numpy as np
import numpy.typing as npt

from repops.commit import keccak256
from repops.dtypes import DType
from repops.graph.ir import Node, Shape
from repops.vm import softfloat as sf
from repops.vm.isa import OUTPUT, REGISTERS, SCRATCH, SPACE, STATE_BYTES, WORD_BYTES, Instruction, Op

_LOW = 2**64 - 1
_STATUS_BYTES = 32


@dataclass(slots=True)
class State:
    """A state. registers: 32 words in [0, 2^64); scratch: 56 words in [0, 2^32)."""

    halted: bool = False
    pc: int = 0
    output: int = 0
    registers: list[int] = field(default_factory=lambda: [0] * REGISTERS)
    scratch: list[int] = field(default_factory=lambda: [0] * SCRATCH)

    @classmethod
    def start(cls, element: int) -> State:
        """Before the first instruction of the run for the element with this row-major index."""
        state = cls()
        state.registers[1] = element & _LOW
        return state

    @classmethod
    def halt(cls, output: int) -> State:
        """After a HALT with this output, 0 <= output < 2^64."""
        return cls(halted=True, output=output)

    def encode(self) -> bytes:
        """The 512 bytes that are hashed."""
        head = bytes([self.halted]) + bytes(19) + self.pc.to_bytes(4, "big") + self.output.to_bytes(8, "big")
        return b"".join(
            (head, *(r.to_bytes(8, "big") for r in self.registers), *(s.to_bytes(4, "big") for s in self.scratch))
        )

    @classmethod
    def decode(cls, data: bytes) -> State:
        """From 512 bytes; bytes 1 .. 19 are ignored, as `encode` writes them zero."""
        if len(data) != STATE_BYTES:
            raise ValueError(f"a state has {STATE_BYTES} bytes, not {len(data)}")
        words = data[_STATUS_BYTES:]
        split = 8 * REGISTERS
        return cls(
            data[0] != 0,
            int.from_bytes(data[20:24], "big"),
            int.from_bytes(data[24:32], "big"),
            [int.from_bytes(words[i : i + 8], "big") for i in range(0, split, 8)],
            [int.from_bytes(words[i : i + 4], "big") for i in range(split, len(words), 4)],
        )

    @property
    def hash(self) -> bytes:
        """keccak-256 of the encoding, 32 bytes."""
        return keccak256(self.encode())


@dataclass(frozen=True)
class Surroundings:
    """What a run sees beside its state: the image, the node, and the raw bytes of each input (row-major)."""

    words: Sequence[int]
    node: Node
    inputs: Sequence[npt.NDArray[np.uint8]]

    @cached_property
    def space(self) -> Shape:
        """The shape to which all inputs and the output broadcast; the greatest length where they do not."""
        shapes = [*(i.shape for i in self.node.inputs), self.node.shape]
        rank = max(len(s) for s in shapes)
        aligned = [(1,) * (rank - len(s)) + s for s in shapes]
        return tuple(0 if 0 in lengths else max(lengths) for lengths in zip(*aligned, strict=True))

    def shape(self, tensor: int) -> Shape | None:
        """The shape of a tensor number; None if there is no such tensor."""
        if tensor == OUTPUT:
            return self.node.shape
        if tensor == SPACE:
            return self.space
        return self.node.inputs[tensor].shape if 0 <= tensor < len(self.node.inputs) else None

    def dtype(self, tensor: int) -> int:
        """The dtype code of a tensor number; 0 for the space and where there is no such tensor."""
        if tensor == OUTPUT:
            return int(self.node.dtype)
        return int(self.node.inputs[tensor].dtype) if 0 <= tensor < len(self.node.inputs) else 0

    def stored(self, tensor: int, element: int) -> bytes | None:
        """The bytes of an element of an input, little-endian; None if it does not exist."""
        if not 0 <= tensor < len(self.node.inputs):
            return None
        item = self.node.inputs[tensor]
        if not 0 <= element < prod(item.shape):
            return None
        size = item.dtype.itemsize
        return self.inputs[tensor][size * element : size * (element + 1)].tobytes()

    def place(self, index: int, tensor: int) -> int:
        """PLACE: where broadcasting finds element `index` of the space in a tensor."""
        shape = self.shape(tensor)
        if shape is None:
            return 0
        if index < 0:
            return -1
        coordinates: list[int] = []
        for length in reversed(self.space):
            if length == 0:
                return 0
            coordinates.insert(0, index % length)
            index //= length
        p = 0
        for length, c in zip(shape, coordinates[len(coordinates) - len(shape) :], strict=True):
            p = p * length + (0 if length == 1 else c)
        return p


class _Trap(Exception):
    """Ends the run with output 0."""


def step(state: State, see: Surroundings, last: bool) -> State:
    """The successor of a state. last: this is instruction 2^vmHeight - 1, after which no state is running."""
    if state.halted:
        return state
    try:
        after = _execute(state, see)
    except _Trap:
        return State.halt(0)
    return State.halt(0) if last and not after.halted else after


def states(element: int, see: Surroundings, height: int) -> Iterator[State]:
    """The states after instruction 0, 1, ... up to and with the halted one."""
    state = State.start(element)
    for n in range(2**height):
        state = step(state, see, n == 2**height - 1)
        yield state
        if state.halted:
            return


def _execute(state: State, see: Surroundings) -> State:
    if state.pc >= len(see.words):
        raise _Trap
    i = Instruction.decode(see.words[state.pc])
    r = state.registers

    def get(register: int) -> int:
        if not 0 <= register < REGISTERS:
            raise _Trap
        return r[register]

    def signed(register: int) -> int:
        return _signed(get(register))

    def low(register: int) -> int:
        return get(register) & 0xFFFFFFFF

    if i.op == Op.HALT:
        return State.halt(get(i.a) & (1 << see.node.dtype.bits) - 1)
    after = State(pc=state.pc + 1, registers=r.copy(), scratch=state.scratch.copy())
    if i.op in _BRANCHES:
        if _BRANCHES[Op(i.op)](signed(i.a), signed(i.b)):
            after.pc = i.imm & 0xFFFFFFFF
        return after
    if i.op == Op.JMP:
        after.pc = i.imm & 0xFFFFFFFF
        return after
    if i.op in (Op.GET, Op.PUT):
        at = _signed(get(i.b) + i.imm & _LOW)
        value = get(i.a)
        if not 0 <= at < SCRATCH:
            raise _Trap
        if i.op == Op.PUT:
            after.scratch[at] = value & 0xFFFFFFFF
        else:
            after.registers[i.a] = state.scratch[at]
        return after

    y = tensor = 0
    if i.op in _WITH_SUM:
        y = tensor = _signed(get(i.c) + i.imm & _LOW)
    result: int
    match i.op:
        case op if op in _INTEGER:
            result = _INTEGER[Op(op)](signed(i.b), y)
        case Op.SEXT:
            result = low(i.b) - (low(i.b) >> 31 << 32)
        case Op.SEL:
            result, other = get(i.c), get(i.imm)
            result = result if get(i.b) != 0 else other
        case Op.PARAM:
            result = see.node.params[y] if 0 <= y < len(see.node.params) else 0
        case Op.LITERAL:
            result = see.node.literals[y] if 0 <= y < len(see.node.literals) else 0
        case Op.DIM:
            shape, axis = see.shape(tensor) or (), signed(i.b)
            result = shape[axis] if 0 <= axis < len(shape) else 0
        case Op.RANK:
            result = len(see.shape(tensor) or ())
        case Op.DTYPE:
            result = see.dtype(tensor)
        case Op.INPUTS:
            result = len(see.node.inputs)
        case Op.PLACE:
            result = see.place(signed(i.b), tensor)
        case Op.LOAD:
            stored = see.stored(tensor, signed(i.b))
            result = 0 if stored is None else _number(stored, see.node.inputs[tensor].dtype)
        case Op.RAW:
            result = int.from_bytes(see.stored(tensor, signed(i.b)) or b"", "little")
        case Op.CODE:
            result = see.words[y] if 0 <= y < len(see.words) else 0
        case op if op in _FLOAT:
            result = int(_FLOAT[Op(op)](low(i.b), low(i.c)))
        case Op.FSQRT:
            result = sf.sqrt(low(i.b))
        case Op.FFMA:
            result = sf.fma(low(i.b), low(i.c), low(i.imm))
        case Op.FNAN:
            result = int(sf.is_nan(low(i.b)))
        case Op.ITOF:
            result = sf.from_integer(signed(i.b))
        case Op.FTOI:
            result = sf.to_integer(low(i.b))
        case Op.NARROW:
            narrow = _NARROW.get(see.node.dtype)
            result = narrow(low(i.b)) if narrow else low(i.b)
        case _:
            raise _Trap
    get(i.a)  # a register that does not exist traps
    after.registers[i.a] = result & _LOW
    return after


def _signed(word: int) -> int:
    return word - (word >> 63 << 64)


def _number(stored: bytes, dtype: DType) -> int:
    """LOAD: an element as a number or as the pattern of an f32."""
    bits = int.from_bytes(stored, "little", signed=dtype in (DType.I64, DType.I32))
    if dtype is DType.BOOL:
        return int(bits != 0)
    return sf.widen_bf16(bits) if dtype is DType.BF16 else sf.widen_f16(bits) if dtype is DType.F16 else bits


def _divide(x: int, y: int) -> int:
    quotient = 0 if y == 0 else abs(x) // abs(y)
    return -quotient if (x < 0) != (y < 0) else quotient


def _shift_left(x: int, y: int) -> int:
    return x << y if 0 <= y < 64 else 0


def _shift_right(x: int, y: int) -> int:
    return (x & _LOW) >> y if 0 <= y < 64 else 0


_INTEGER: dict[Op, Callable[[int, int], int]] = {
    Op.ADD: lambda x, y: x + y,
    Op.SUB: lambda x, y: x - y,
    Op.MUL: lambda x, y: x * y,
    Op.DIV: _divide,
    Op.REM: lambda x, y: x - _divide(x, y) * y,
    Op.AND: lambda x, y: x & y,
    Op.OR: lambda x, y: x | y,
    Op.XOR: lambda x, y: x ^ y,
    Op.SHL: _shift_left,
    Op.SHR: _shift_right,
    Op.SAR: lambda x, y: x >> (y if 0 <= y < 64 else 63),
    Op.MIN: min,
    Op.MAX: max,
    Op.SEQ: lambda x, y: int(x == y),
    Op.SLT: lambda x, y: int(x < y),
}
_BRANCHES: dict[Op, Callable[[int, int], bool]] = {
    Op.BEQ: lambda x, y: x == y,
    Op.BNE: lambda x, y: x != y,
    Op.BLT: lambda x, y: x < y,
    Op.BGE: lambda x, y: x >= y,
}
_FLOAT: dict[Op, Callable[[int, int], int]] = {
    Op.FADD: sf.add,
    Op.FSUB: sf.sub,
    Op.FMUL: sf.mul,
    Op.FDIV: sf.div,
    Op.FMAX: sf.maximum,
    Op.FMIN: sf.minimum,
    Op.FEQ: sf.eq,
    Op.FLT: sf.lt,
    Op.FLE: sf.le,
}
_NARROW: dict[DType, Callable[[int], int]] = {
    DType.F32: sf.canonical,
    DType.BF16: sf.narrow_bf16,
    DType.F16: sf.narrow_f16,
}
_WITH_SUM = {*_INTEGER, Op.PARAM, Op.LITERAL, Op.DIM, Op.RANK, Op.DTYPE, Op.PLACE, Op.LOAD, Op.RAW, Op.CODE}

assert STATE_BYTES == _STATUS_BYTES + WORD_BYTES * REGISTERS + 4 * SCRATCH
