"""The instructions of RepVM: numbers, operands, encoding (docs/spec/repvm.md, "Instructions")."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

REGISTERS = 32
SCRATCH = 56
STATE_BYTES = 512
WORD_BYTES = 8

OUTPUT, SPACE = -1, -2  # tensor numbers beside the inputs 0 .. n - 1


class Op(IntEnum):
    """Opcodes. Every other number is a TRAP."""

    HALT = 0x01
    JMP = 0x02
    BEQ = 0x03
    BNE = 0x04
    BLT = 0x05
    BGE = 0x06
    ADD = 0x10
    SUB = 0x11
    MUL = 0x12
    DIV = 0x13
    REM = 0x14
    AND = 0x15
    OR = 0x16
    XOR = 0x17
    SHL = 0x18
    SHR = 0x19
    SAR = 0x1A
    MIN = 0x1B
    MAX = 0x1C
    SEQ = 0x1D
    SLT = 0x1E
    SEXT = 0x1F
    SEL = 0x20
    PARAM = 0x28
    LITERAL = 0x29
    DIM = 0x2A
    RANK = 0x2B
    DTYPE = 0x2C
    INPUTS = 0x2D
    PLACE = 0x2E
    LOAD = 0x30
    RAW = 0x31
    CODE = 0x32
    FADD = 0x38
    FSUB = 0x39
    FMUL = 0x3A
    FDIV = 0x3B
    FSQRT = 0x3C
    FFMA = 0x3D
    FMAX = 0x3E
    FMIN = 0x3F
    FEQ = 0x40
    FLT = 0x41
    FLE = 0x42
    FNAN = 0x43
    ITOF = 0x44
    FTOI = 0x45
    NARROW = 0x46
    GET = 0x48
    PUT = 0x49


# The operands of each instruction, in the order of the text form. Letters are register fields; "d" is a register in
# imm; "y" is c and imm as an integer, "t" the same as a tensor, "s" is b and imm as a scratch place, "j" imm as a jump.
OPERANDS: dict[Op, str] = {
    Op.HALT: "a", Op.JMP: "j", Op.BEQ: "abj", Op.BNE: "abj", Op.BLT: "abj", Op.BGE: "abj",
    **dict.fromkeys((Op.ADD, Op.SUB, Op.MUL, Op.DIV, Op.REM, Op.AND, Op.OR, Op.XOR, Op.SHL, Op.SHR, Op.SAR, Op.MIN,
                     Op.MAX, Op.SEQ, Op.SLT), "aby"),
    Op.SEXT: "ab", Op.SEL: "abcd",
    Op.PARAM: "ay", Op.LITERAL: "ay", Op.DIM: "abt", Op.RANK: "at", Op.DTYPE: "at", Op.INPUTS: "a", Op.PLACE: "abt",
    Op.LOAD: "abt", Op.RAW: "abt", Op.CODE: "ay",
    **dict.fromkeys((Op.FADD, Op.FSUB, Op.FMUL, Op.FDIV, Op.FMAX, Op.FMIN, Op.FEQ, Op.FLT, Op.FLE), "abc"),
    **dict.fromkeys((Op.FSQRT, Op.FNAN, Op.ITOF, Op.FTOI, Op.NARROW), "ab"),
    Op.FFMA: "abcd", Op.GET: "as", Op.PUT: "as",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Instruction:
    """One word. a, b, c in [0, 256), imm in [-2^31, 2^31); op is any byte, an `Op` or not."""

    op: int
    a: int = 0
    b: int = 0
    c: int = 0
    imm: int = 0

    def encode(self) -> int:
        """The word, in [0, 2^64)."""
        return self.op << 56 | self.a << 48 | self.b << 40 | self.c << 32 | self.imm & 0xFFFFFFFF

    @classmethod
    def decode(cls, word: int) -> Instruction:
        """From any word in [0, 2^64)."""
        imm = word & 0xFFFFFFFF
        return cls(word >> 56, word >> 48 & 255, word >> 40 & 255, word >> 32 & 255, imm - (imm >> 31 << 32))

    @property
    def text(self) -> str:
        """As assembly, for people: "FFMA r5 = r1, r2, r3", "BLT r1, r2 -> 17"; no instruction: "word 0x00..."."""
        if self.op not in OPERANDS:
            return f"word {self.encode():#018x}"
        op = Op(self.op)
        sum_of = f"{self.imm}" if self.c == 0 else f"r{self.c}" if self.imm == 0 else f"r{self.c} {self.imm:+d}"
        forms = {
            "a": f"r{self.a}", "b": f"r{self.b}", "c": f"r{self.c}", "d": f"r{self.imm}", "y": sum_of,
            "t": f"tensor {sum_of}", "s": f"s[{self.imm}]" if self.b == 0 else f"s[r{self.b} {self.imm:+d}]",
            "j": f"-> {self.imm}",
        }  # fmt: skip
        parts = [forms[letter] for letter in OPERANDS[op]]
        if op in _NO_RESULT:
            return f"{op.name} {', '.join(parts)}".replace(", ->", " ->")
        return f"{op.name} {parts[0]}" + (f" = {', '.join(parts[1:])}" if len(parts) > 1 else "")


_NO_RESULT = (Op.HALT, Op.JMP, Op.BEQ, Op.BNE, Op.BLT, Op.BGE, Op.PUT)
