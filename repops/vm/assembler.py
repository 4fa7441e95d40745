"""A small structured assembler for RepVM: a method an instruction, blocks for loops and conditions, registers by scope.

    a = Assembler()
    x = a.load(a.place(a.element, 0), 0)
    a.halt(a.narrow(a.fmul(x, x)))
    image = a.assemble()

Every method that computes returns a fresh register, or writes `to`. An integer operand is a register, a number, or a
pair of both (their sum). Registers that a block has taken are free again after it. `assemble` also gives the bound on
the instructions of a run, from the trip counts that `loop` was told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from repops.vm.image import ONCE, Image, Trips
from repops.vm.isa import OUTPUT, REGISTERS, SCRATCH, Instruction, Op

_INVERSE = {Op.BEQ: Op.BNE, Op.BNE: Op.BEQ, Op.BLT: Op.BGE, Op.BGE: Op.BLT}


class AssemblyError(Exception):
    """A program asks for more registers or scratch than the machine has; a mistake of who wrote it."""


@dataclass(frozen=True, slots=True)
class Register:
    """One of r0 .. r31. r0 stays zero by convention, r1 holds the element's index at the start."""

    number: int


Integer = Register | int | tuple[Register, int]


class Assembler:
    """Builds one image."""

    zero = Register(0)
    element = Register(1)

    def __init__(self) -> None:
        self._code: list[Instruction] = []
        self._constants: list[int] = []
        self._constant_uses: list[int] = []
        self._free = list(range(REGISTERS - 1, 1, -1))
        self._scopes: list[list[Register]] = [[]]
        self._counts: dict[Trips, int] = {ONCE: 0}  # instructions that run `Trips` times
        self._trips = [ONCE]

    # ---- registers and blocks

    def take(self) -> Register:
        """A register of the current scope. Raises AssemblyError if none is free."""
        if not self._free:
            raise AssemblyError("out of registers")
        register = Register(self._free.pop())
        self._scopes[-1].append(register)
        return register

    def give(self, register: Register) -> None:
        """Frees a register of the current scope before its end."""
        self._scopes[-1].remove(register)
        self._free.append(register.number)

    @property
    def free(self) -> int:
        """How many registers can be taken."""
        return len(self._free)

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Registers taken inside are free again afterwards."""
        self._scopes.append([])
        yield
        self._free.extend(reversed([r.number for r in self._scopes.pop()]))

    def value(self, compute: Callable[[], Register]) -> Register:
        """The result of a computation in one register; what else it took is free again."""
        target = self.take()
        with self.scope():
            self.add(compute(), 0, to=target)
        return target

    @contextmanager
    def when(self, op: Op, x: Register, y: Register) -> Iterator[None]:
        """The block runs if the branch `op` (BEQ, BNE, BLT, BGE) would be taken on x, y."""
        branch = self._emit(_INVERSE[op], x.number, y.number)
        with self.scope():
            yield
        self._target(branch)

    @contextmanager
    def loop(self, i: Register, stop: Register, total: Trips, step: int = 1) -> Iterator[None]:
        """Runs the block while i < stop, then i += step. total: bounds the passes in one run, over all entries."""
        skip = self._emit(Op.BGE, i.number, stop.number)
        top = len(self._code)
        self._trips.append(total)
        with self.scope():
            yield
        if step:
            self.add(i, step, to=i)
        self._emit(Op.BLT, i.number, stop.number, imm=top)
        self._trips.pop()
        self._target(skip)

    def _target(self, branch: int) -> None:
        i = self._code[branch]
        self._code[branch] = Instruction(i.op, i.a, i.b, i.c, len(self._code))

    # ---- instructions

    def halt(self, value: Register) -> None:
        """Ends the run with this value."""
        self._emit(Op.HALT, value.number)

    def operation(self, op: Op, operands: Sequence[Register], imm: int = 0, to: Register | None = None) -> Register:
        """An instruction that computes: one to three registers for the fields b, c and d; imm where there is no d."""
        b, c, d = (*(x.number for x in operands), *(0, 0, imm)[len(operands) :])
        return self._compute(op, b, c, d, to)

    def set(self, value: Integer, to: Register | None = None) -> Register:
        """The integer."""
        return self.add(self.zero, value, to)

    def literal(self, pattern: int, to: Register | None = None) -> Register:
        """The f32 pattern, 0 <= pattern < 2^32 (its sign extends into the high half, which floats do not see)."""
        return self.set(pattern - (pattern >> 31 << 32), to)

    def add(self, x: Register, y: Integer, to: Register | None = None) -> Register:
        """x + y."""
        return self.integer(Op.ADD, x, y, to)

    def sub(self, x: Register, y: Integer, to: Register | None = None) -> Register:
        """x - y."""
        return self.integer(Op.SUB, x, y, to)

    def mul(self, x: Register, y: Integer, to: Register | None = None) -> Register:
        """x y."""
        return self.integer(Op.MUL, x, y, to)

    def div(self, x: Register, y: Integer, to: Register | None = None) -> Register:
        """x / y toward zero."""
        return self.integer(Op.DIV, x, y, to)

    def rem(self, x: Register, y: Integer, to: Register | None = None) -> Register:
        """What DIV leaves."""
        return self.integer(Op.REM, x, y, to)

    def integer(self, op: Op, x: Register, y: Integer, to: Register | None = None) -> Register:
        """Any instruction of the form a b y."""
        c, imm = _sum(y)
        return self._compute(op, x.number, c, imm, to)

    def select(self, m: Register, x: Register, y: Register, to: Register | None = None) -> Register:
        """m != 0 ? x : y."""
        return self.operation(Op.SEL, (m, x, y), to=to)

    def param(self, k: Integer, to: Register | None = None) -> Register:
        """The node's param k."""
        return self._compute(Op.PARAM, 0, *_sum(k), to)

    def node_literal(self, k: Integer) -> Register:
        """The node's literal k."""
        return self._compute(Op.LITERAL, 0, *_sum(k), None)

    def dim(self, axis: Register | int, tensor: Integer) -> Register:
        """The length of an axis of a tensor."""
        if isinstance(axis, int):
            number = self.set(axis)
            return self._compute(Op.DIM, number.number, *_sum(tensor), number)
        return self._compute(Op.DIM, axis.number, *_sum(tensor), None)

    def rank(self, tensor: Integer = OUTPUT) -> Register:
        """The number of axes of a tensor."""
        return self._compute(Op.RANK, 0, *_sum(tensor), None)

    def dtype(self, tensor: Integer) -> Register:
        """The dtype code of a tensor."""
        return self._compute(Op.DTYPE, 0, *_sum(tensor), None)

    def inputs(self) -> Register:
        """The number of inputs."""
        return self._compute(Op.INPUTS, 0, 0, 0, None)

    def place(self, index: Register, tensor: Integer, to: Register | None = None) -> Register:
        """Where broadcasting finds element `index` of the space in a tensor."""
        return self._compute(Op.PLACE, index.number, *_sum(tensor), to)

    def load(self, index: Register, tensor: Integer, to: Register | None = None) -> Register:
        """Element `index` of an input, as a number."""
        return self._compute(Op.LOAD, index.number, *_sum(tensor), to)

    def raw(self, index: Register, tensor: Integer) -> Register:
        """The bytes of element `index` of an input."""
        return self._compute(Op.RAW, index.number, *_sum(tensor), None)

    def constants(self, words: list[int], index: Register, offset: int = 0, to: Register | None = None) -> Register:
        """words[index + offset], from the constants behind the code. Equal tables are stored once."""
        at = next((k for k in range(len(self._constants)) if self._constants[k : k + len(words)] == words), None)
        if at is None:
            at = len(self._constants)
            self._constants += words
        self._constant_uses.append(len(self._code))
        return self._compute(Op.CODE, 0, index.number, at + offset, to)

    def float2(self, op: Op, x: Register, y: Register, to: Register | None = None) -> Register:
        """FADD, FSUB, FMUL, FDIV, FMAX, FMIN, FEQ, FLT or FLE."""
        return self.operation(op, (x, y), to=to)

    def float1(self, op: Op, x: Register, to: Register | None = None) -> Register:
        """FSQRT, FNAN, ITOF, FTOI or NARROW."""
        return self.operation(op, (x,), to=to)

    def fadd(self, x: Register, y: Register, to: Register | None = None) -> Register:
        """x + y."""
        return self.float2(Op.FADD, x, y, to)

    def fsub(self, x: Register, y: Register, to: Register | None = None) -> Register:
        """x - y."""
        return self.float2(Op.FSUB, x, y, to)

    def fmul(self, x: Register, y: Register, to: Register | None = None) -> Register:
        """x y."""
        return self.float2(Op.FMUL, x, y, to)

    def fdiv(self, x: Register, y: Register, to: Register | None = None) -> Register:
        """x / y."""
        return self.float2(Op.FDIV, x, y, to)

    def ffma(self, x: Register, y: Register, z: Register, to: Register | None = None) -> Register:
        """x y + z."""
        return self.operation(Op.FFMA, (x, y, z), to=to)

    def fsqrt(self, x: Register, to: Register | None = None) -> Register:
        """The square root."""
        return self.float1(Op.FSQRT, x, to)

    def fneg(self, x: Register) -> Register:
        """x with its sign flipped, NaNs too."""
        return self.integer(Op.XOR, x, -(2**31))

    def narrow(self, x: Register) -> Register:
        """The pattern of x in the output's dtype."""
        return self.float1(Op.NARROW, x)

    def get(self, index: Register | int, offset: int = 0, to: Register | None = None) -> Register:
        """A scratch word."""
        base, imm = _scratch(index, offset)
        return self._compute(Op.GET, base, 0, imm, to)

    def put(self, value: Register, index: Register | int, offset: int = 0) -> None:
        """Writes a scratch word."""
        base, imm = _scratch(index, offset)
        self._emit(Op.PUT, value.number, base, 0, imm)

    # ---- the image

    def assemble(self) -> Image:
        """The image: code, then constants."""
        code = list(self._code)
        for at in self._constant_uses:
            i = code[at]
            code[at] = Instruction(i.op, i.a, i.b, i.c, i.imm + len(code))
        return Image((*(i.encode() for i in code), *self._constants), tuple(self._counts.items()))

    def _compute(self, op: Op, b: int, c: int, imm: int, to: Register | None) -> Register:
        target = to or self.take()
        self._emit(op, target.number, b, c, imm)
        return target

    def _emit(self, op: Op, a: int = 0, b: int = 0, c: int = 0, imm: int = 0) -> int:
        self._code.append(Instruction(op, a, b, c, imm))
        trips = self._trips[-1]
        self._counts[trips] = self._counts.get(trips, 0) + 1
        return len(self._code) - 1


def _sum(y: Integer) -> tuple[int, int]:
    """The fields c and imm of an integer operand."""
    if isinstance(y, Register):
        return y.number, 0
    return (0, y) if isinstance(y, int) else (y[0].number, y[1])


def _scratch(index: Register | int, offset: int) -> tuple[int, int]:
    if isinstance(index, int):
        if not 0 <= index + offset < SCRATCH:
            raise AssemblyError(f"scratch has {SCRATCH} words")
        return 0, index + offset
    return index.number, offset
