"""What a trial was about, for people: the element, the instruction with its operands, both claims and the truth.

Everything is recomputed here from an honest execution; of the trial only its findings are used.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from node.structs import Side
from node.trial import TrialState
from repops.commit import keccak256
from repops.dtypes import DType
from repops.vm import NodeRun
from repops.vm.isa import OPERANDS, SCRATCH, Instruction, Op
from repops.vm.machine import State

_READS_FLOATS = {
    Op.FADD, Op.FSUB, Op.FMUL, Op.FDIV, Op.FSQRT, Op.FFMA, Op.FMAX, Op.FMIN, Op.FEQ, Op.FLT, Op.FLE, Op.FNAN, Op.FTOI,
    Op.NARROW,
}  # fmt: skip
_GIVES_FLOAT = {Op.FADD, Op.FSUB, Op.FMUL, Op.FDIV, Op.FSQRT, Op.FFMA, Op.FMAX, Op.FMIN, Op.ITOF}
_NO_RESULT = {Op.HALT, Op.JMP, Op.BEQ, Op.BNE, Op.BLT, Op.BGE, Op.PUT}


@dataclass(frozen=True)
class Value:
    """A bit pattern, in hex and as the number that it stands for."""

    name: str
    hex: str
    decimal: str


@dataclass(frozen=True)
class Claim:
    """What somebody says of the element, and of the state after the instruction (its keccak-256; None if the trial did
    not come to an instruction)."""

    who: str
    value: Value
    state_after: str | None


@dataclass(frozen=True)
class Exhibit:
    """A trial's findings.

    place: the element's indices in the node's output. instruction: as assembly, number `position` (from 0) of the
    element's run, which has `instructions` of them; None, with no operands, if the trial did not come to one. result:
    what the instruction gives in truth, if it gives a value. claims: side A, side B.
    """

    element: int
    place: tuple[int, ...]
    instructions: int
    position: int | None
    instruction: str | None
    operands: tuple[Value, ...]
    result: Value | None
    claims: tuple[Claim, Claim]
    truth: Claim


def exhibit(run: NodeRun, trial: TrialState, names: tuple[str, str]) -> Exhibit:
    """A trial that has found its element. run: an honest one of the disputed node. names: of side A and side B."""
    output, count = run.run(trial.element)
    dtype = run.node.dtype
    position = trial.position if trial.before is not None else None
    after: tuple[str | None, str | None, str | None] = (None, None, None)
    instruction: str | None = None
    operands: tuple[Value, ...] = ()
    result: Value | None = None
    if position is not None:
        after = _hex(trial.after_a), _hex(trial.after_b), _hex(keccak256(run.state(trial.element, position + 1)))
        instruction, operands, result = _instruction(run, trial.element, position)
    values = trial.value(Side.A), trial.value(Side.B), output
    claims = [
        Claim(who, pattern("value", value, dtype), state)
        for who, value, state in zip((*names, "truth"), values, after, strict=True)
    ]
    return Exhibit(
        element=trial.element,
        place=tuple(int(i) for i in np.unravel_index(trial.element, run.node.shape)),
        instructions=count,
        position=position,
        instruction=instruction,
        operands=operands,
        result=result,
        claims=(claims[0], claims[1]),
        truth=claims[2],
    )


def pattern(name: str, bits: int, dtype: DType) -> Value:
    """An element's pattern."""
    raw = bits.to_bytes(dtype.itemsize, "little")
    if dtype is DType.BF16:
        number = str(float32(bits << 16))
    elif dtype is DType.BOOL:
        number = "true" if bits else "false"
    else:
        number = str(np.frombuffer(raw, dtype.numpy)[0])
    return Value(name, f"0x{bits:0{2 * dtype.itemsize}x}", number)


def float32(bits: int) -> np.float32:
    """The binary32 number with this pattern (its low 32 bits)."""
    return np.float32(struct.unpack("<f", struct.pack("<I", bits & 0xFFFFFFFF))[0])


def _instruction(run: NodeRun, element: int, position: int) -> tuple[str, tuple[Value, ...], Value | None]:
    """The instruction as assembly, what it reads, what it gives."""
    state = State.decode(run.state(element, position))
    after = State.decode(run.state(element, position + 1))
    if state.halted:
        return "halted: the state stays as it is", (), None
    if state.pc >= len(run.image.words):
        return f"pc {state.pc} is outside the image: TRAP", (), None
    i = Instruction.decode(run.image.words[state.pc])
    if i.op not in OPERANDS:
        return f"{i.text}: TRAP", (), None
    op = Op(i.op)
    letters = OPERANDS[op] if op in _NO_RESULT else OPERANDS[op][1:]
    operands = []
    for letter in letters:
        register = {"a": i.a, "b": i.b, "c": i.c, "d": i.imm, "y": i.c, "t": i.c}.get(letter)
        if letter == "s":
            at = state.registers[i.b] + i.imm & 2**64 - 1
            operands.append(_value(f"s[{at}]", state.scratch[at] if at < SCRATCH else 0, is_float=True))
        elif letter == "t":
            tensor = state.registers[i.c] + i.imm & 2**64 - 1
            operands.append(Value("tensor", hex(tensor), str(_signed(tensor))))
        elif letter == "y":
            operands.append(_value(f"r{i.c} {i.imm:+d}", state.registers[i.c] + i.imm & 2**64 - 1, is_float=False))
        elif register is not None and 0 <= register < len(state.registers):
            is_float = op in _READS_FLOATS or (op is Op.HALT and run.node.dtype is DType.F32)
            operands.append(_value(f"r{register}", state.registers[register], is_float=is_float))
    if op in _NO_RESULT or after.halted:
        return i.text, tuple(operands), None
    narrowed = op is Op.NARROW and run.node.dtype is DType.F32
    loaded = op is Op.LOAD and _loads_float(run, state, i)
    is_float = op in _GIVES_FLOAT or narrowed or loaded
    return i.text, tuple(operands), _value(f"r{i.a}", after.registers[i.a], is_float=is_float)


def _loads_float(run: NodeRun, state: State, i: Instruction) -> bool:
    tensor = state.registers[i.c] + i.imm & 2**64 - 1
    return tensor < len(run.node.inputs) and run.node.inputs[tensor].dtype.is_float


def _value(name: str, word: int, *, is_float: bool) -> Value:
    if is_float:
        return Value(name, f"0x{word & 0xFFFFFFFF:08x}", str(float32(word)))
    return Value(name, f"0x{word:016x}", str(_signed(word)))


def _signed(word: int) -> int:
    return word - (word >> 63 << 64)


def _hex(data: bytes) -> str:
    return "0x" + data.hex()
