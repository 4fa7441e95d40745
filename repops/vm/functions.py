"""The elementary functions in RepVM: lists of primitives (functions.txt) compiled to instructions, registers and all.

functions.txt is generated from csrc/kernels/functions.h, as is docs/spec/functions.md, which defines the primitives.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from repops.vm.assembler import Assembler, AssemblyError, Register
from repops.vm.isa import SCRATCH, Op

SPILL_FROM = 32  # scratch below holds the lanes of a sum

Source = str | int  # a name, or the pattern of a literal

_TWO_OVER_PI = 0xA2F9836E4E441529FC2757D1F534DDC0DB6295993C439041FE5163AB  # 224 bits after the point
_MINUS = -(2**31)


@dataclass(frozen=True, slots=True)
class Line:
    """name = primitive(operands); an operand is a name, a pattern "0x..." or a count."""

    name: str
    primitive: str
    operands: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """A function: the names of its arguments, its lines, the name of its result."""

    arguments: tuple[str, ...]
    lines: tuple[Line, ...]
    result: str


@cache
def listings() -> dict[str, Listing]:
    """Every function of functions.txt by name."""
    text = files("repops.vm").joinpath("functions.txt").read_text(encoding="utf-8")
    found = {}
    for block in text.strip().split("\n\n"):
        head, *lines, last = block.splitlines()
        name, arguments = _match(r"(\w+)\((.*)\)", head)
        parsed = []
        for line in lines:
            target, primitive, operands = _match(r"    (\w+) = (\w+)\((.*)\)", line)
            parsed.append(Line(target, primitive, tuple(operands.split(", "))))
        found[name] = Listing(tuple(arguments.split(", ")), tuple(parsed), last.removeprefix("    return "))
    return found


class Function:
    """A function ready to be put into a program.

    reserve: literals go into registers of the scope in which it is made (before a loop), the most used first, until so
    many registers are left. None: no literal stays in a register.
    """

    def __init__(self, assembler: Assembler, name: str, reserve: int | None = None) -> None:
        self._a = assembler
        listing = listings()[name]
        self._arguments = listing.arguments
        self._steps, self._result = _lower(listing)
        counts: dict[int, int] = {}
        for step in self._steps:
            for source in step.sources:
                if isinstance(source, int):
                    counts[source] = counts.get(source, 0) + 1
        room = 0 if reserve is None else max(0, assembler.free - reserve)
        chosen = sorted(counts, key=lambda pattern: -counts[pattern])[:room]
        self._hoisted: dict[Source, Register] = {pattern: assembler.literal(pattern) for pattern in chosen}

    def __call__(self, *arguments: Register) -> Register:
        """Puts the function's instructions here; returns a register of the current scope."""
        target = self._a.take()
        with self._a.scope():
            known = self._hoisted | dict(zip(self._arguments, arguments, strict=True))
            _Allocation(self._a, self._steps, known, self._result, target).run()
        return target


def function(assembler: Assembler, name: str, *arguments: Register) -> Register:
    """One use of a function, here."""
    return Function(assembler, name)(*arguments)


# ---- from primitives to instructions on names


@dataclass(frozen=True, slots=True)
class _Step:
    """One instruction on names: sources in the order of the fields b, c, d; imm where a field is none."""

    op: Op
    target: str
    sources: tuple[Source, ...]
    imm: int = 0
    table: tuple[int, ...] = ()  # the constants of a CODE


_DIRECT = {
    "ADD": Op.FADD, "SUB": Op.FSUB, "MUL": Op.FMUL, "DIV": Op.FDIV, "SQRT": Op.FSQRT, "FMA": Op.FFMA, "LT": Op.FLT,
    "LE": Op.FLE, "EQ": Op.FEQ, "ISNAN": Op.FNAN, "SEL": Op.SEL, "ISEL": Op.SEL, "MAND": Op.AND, "MOR": Op.OR,
    "FTOI": Op.FTOI,
}  # fmt: skip
_INTEGERS = {
    "AND": Op.AND, "OR": Op.OR, "XOR": Op.XOR, "IAND": Op.AND, "IOR": Op.OR, "IXOR": Op.XOR, "IADD": Op.ADD,
    "ISUB": Op.SUB, "IMUL": Op.MUL,
}  # fmt: skip
_SIGNED = {"IMIN": Op.MIN, "IMAX": Op.MAX, "ILT": Op.SLT, "IEQ": Op.SEQ}


class _Lowering:
    """Writes steps for lines. Integers are kept modulo 2^32, their high half is junk until it matters."""

    def __init__(self) -> None:
        self.steps: list[_Step] = []
        self._names: dict[str, Source] = {}  # what a name of the listing is
        self._turns: dict[Source, tuple[str, str, str]] = {}

    def name(self, operand: str) -> Source:
        if operand.startswith("0x"):
            return int(operand, 16)
        return self._names.get(operand, operand)

    def put(self, op: Op, *sources: Source, imm: int = 0, table: tuple[int, ...] = ()) -> str:
        target = f"v{len(self.steps)}"
        self.steps.append(_Step(op, target, sources, imm, table))
        return target

    def integer(self, op: Op, x: Source, y: Source) -> str:
        """x op y, a literal y in the instruction."""
        return self.put(op, x, imm=_as_signed(y)) if isinstance(y, int) else self.put(op, x, y)

    def signed(self, x: Source) -> Source:
        return x if isinstance(x, int) else self.put(Op.SEXT, x)

    def line(self, line: Line) -> None:
        self._names[line.name] = self._line(line.primitive, [self.name(o) for o in line.operands], line.operands)

    def _line(self, primitive: str, x: Sequence[Source], text: Sequence[str]) -> Source:
        if primitive in _DIRECT:
            return self.put(_DIRECT[primitive], *x)
        if primitive in ("BITS", "FLOAT"):
            return x[0]
        if primitive in _INTEGERS:
            first, second = (x[1], x[0]) if isinstance(x[0], int) and primitive != "ISUB" else (x[0], x[1])
            return self.integer(_INTEGERS[primitive], first, second)
        if primitive in _SIGNED:
            return self.integer(_SIGNED[primitive], self.signed(x[0]), self.signed(x[1]))
        match primitive:
            case "GT":
                return self.put(Op.FLT, x[1], x[0])
            case "GE":
                return self.put(Op.FLE, x[1], x[0])
            case "NE":
                return self.put(Op.XOR, self.put(Op.FEQ, *x), imm=1)
            case "MNOT":
                return self.put(Op.XOR, x[0], imm=1)
            case "NEG":
                return self.put(Op.XOR, x[0], imm=_MINUS)
            case "ABS":
                return self.put(Op.AND, x[0], imm=0x7FFFFFFF)
            case "GREATER":
                return self.put(Op.SEL, self.put(Op.FLT, x[1], x[0]), x[0], x[1])
            case "LESS":
                return self.put(Op.SEL, self.put(Op.FLT, x[0], x[1]), x[0], x[1])
            case "SHL":
                return self.put(Op.SHL, x[0], imm=int(text[1]))
            case "SAR":
                return self.put(Op.SAR, self.signed(x[0]), imm=int(text[1]))
            case "IGT":
                return self.integer(Op.SLT, self.signed(x[1]), self.signed(x[0]))
            case "ITOF":
                return self.put(Op.ITOF, self.signed(x[0]))
            case "QUADRANT" | "TURNHIGH" | "TURNLOW":
                if x[0] not in self._turns:
                    self._turns[x[0]] = self._turn(x[0])
                return self._turns[x[0]][("QUADRANT", "TURNHIGH", "TURNLOW").index(primitive)]
        raise AssemblyError(f"no instructions for the primitive {primitive}")

    def _turn(self, x: Source) -> tuple[str, str, str]:
        """QUADRANT, TURNHIGH, TURNLOW: the window W of 2/pi begins with bit `at` of 32 zeros and 2/pi."""
        bits = [0, *(_TWO_OVER_PI >> s & 0xFFFFFFFF for s in range(192, -1, -32))]
        table = tuple(high << 32 | low for high, low in zip(bits, [*bits[1:], 0], strict=True))
        exponent = self.put(Op.SHR, self.put(Op.AND, x, imm=0x7FFFFFFF), imm=23)
        at = self.put(Op.ADD, self.put(Op.MIN, self.put(Op.MAX, exponent, imm=145), imm=254), imm=-120)
        m = self.put(Op.OR, self.put(Op.AND, x, imm=0x007FFFFF), imm=0x00800000)
        word, shift = self.put(Op.SHR, at, imm=5), self.put(Op.AND, at, imm=31)
        first, second = self.put(Op.CODE, word, table=table), self.put(Op.CODE, word, imm=2, table=table)
        carried = self.put(Op.SHR, second, self.put(Op.SUB, 64, shift))
        high = self.put(Op.OR, self.put(Op.SHL, first, shift), carried)
        low = self.put(Op.SHR, self.put(Op.SHL, second, shift), imm=32)
        product = self.put(Op.ADD, self.put(Op.MUL, m, high), self.put(Op.SHR, self.put(Op.MUL, m, low), imm=32))
        quadrant = self.put(Op.SHR, self.put(Op.ADD, product, self.put(Op.SHL, 1, imm=61)), imm=62)
        fraction = self.put(Op.SUB, product, self.put(Op.SHL, quadrant, imm=62))
        whole = self.put(Op.ITOF, fraction)
        part = self.put(Op.ITOF, self.put(Op.SUB, fraction, self.put(Op.FTOI, whole)))
        return self.put(Op.AND, quadrant, imm=3), whole, part


def _lower(listing: Listing) -> tuple[list[_Step], Source]:
    lowering = _Lowering()
    for line in listing.lines:
        lowering.line(line)
    return lowering.steps, lowering.name(listing.result)


def _as_signed(pattern: int) -> int:
    return pattern - (pattern >> 31 << 32)


def _match(pattern: str, text: str) -> tuple[str, ...]:
    found = re.fullmatch(pattern, text)
    if found is None:
        raise AssemblyError(f"functions.txt: {text!r}")
    return found.groups()


# ---- registers


class _Allocation:
    """Gives registers to the names of a list of steps; what is used last is given up first (Belady), to scratch.

    known: names and literals that have registers already and keep them.
    """

    def __init__(
        self, a: Assembler, steps: Sequence[_Step], known: dict[Source, Register], result: Source, target: Register
    ) -> None:
        self._a, self._steps, self._known, self._result, self._target = a, steps, known, result, target
        self._uses: dict[Source, list[int]] = {}
        for at, step in enumerate(steps):
            for source in step.sources:
                self._uses.setdefault(source, []).append(at)
        self._uses.setdefault(result, []).append(len(steps))
        self._held: dict[Source, Register] = {}
        self._spilled: dict[Source, int] = {}
        self._slots = list(range(SCRATCH - 1, SPILL_FROM - 1, -1))

    def run(self) -> None:
        for at, step in enumerate(self._steps):
            fields = [self._fetch(source, at, step.sources) for source in step.sources]
            for source in dict.fromkeys(step.sources):
                self._release(source, at + 1)
            if step.target == self._result and at == len(self._steps) - 1:
                self._emit(step, fields, self._target)
                return
            to = self._room(at, ())
            self._emit(step, fields, to)
            self._held[step.target] = to
            self._release(step.target, at + 1)
        self._a.add(self._fetch(self._result, len(self._steps), ()), 0, to=self._target)

    def _emit(self, step: _Step, fields: Sequence[Register], to: Register) -> None:
        if step.op is Op.CODE:
            self._a.constants(list(step.table), fields[0], step.imm, to=to)
        else:
            self._a.operation(step.op, fields, step.imm, to=to)

    def _fetch(self, source: Source, at: int, keep: Iterable[Source]) -> Register:
        if source in self._known:
            return self._known[source]
        if source not in self._held:
            register = self._room(at, keep)
            if isinstance(source, int):
                self._a.literal(source, to=register)
            else:
                slot = self._spilled.pop(source)
                self._a.get(slot, to=register)
                self._slots.append(slot)
            self._held[source] = register
        return self._held[source]

    def _room(self, at: int, keep: Iterable[Source]) -> Register:
        if self._a.free:
            return self._a.take()
        candidates = [source for source in self._held if source not in set(keep)]
        if not candidates:
            raise AssemblyError("a function needs more registers than are free")
        victim = max(candidates, key=lambda source: self._next(source, at))
        register = self._held.pop(victim)
        if isinstance(victim, str) and self._next(victim, at) <= len(self._steps):
            if not self._slots:
                raise AssemblyError("a function needs more scratch than there is")
            self._spilled[victim] = self._slots.pop()
            self._a.put(register, self._spilled[victim])
        return register

    def _release(self, source: Source, at: int) -> None:
        """Gives the register back if the value is not used from step `at` on."""
        if source in self._held and self._next(source, at) > len(self._steps):
            self._a.give(self._held.pop(source))

    def _next(self, source: Source, at: int) -> int:
        return next((use for use in self._uses.get(source, ()) if use >= at), len(self._steps) + 1)
