"""The readable interpreter, csrc/vm and docs/spec/repvm.md: whole states of random images, and what the text fixes."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from kernel_calls import hostile
from machines import DTYPES, Both, node_of, one_step, random_node, random_word

from repops.commit import keccak256
from repops.dtypes import DType
from repops.graph.ir import Node
from repops.vm import softfloat as sf
from repops.vm.isa import OPERANDS, OUTPUT, REGISTERS, SCRATCH, SPACE, Instruction, Op
from repops.vm.machine import State, Surroundings, step

OPS = list(OPERANDS)
NO_REGISTER = 32


# ---- random images ---------------------------------------------------------------------------------------------------


def random_instruction(rng: np.random.Generator, words: int) -> int:
    """Mostly an instruction whose registers exist, with operands near what it can use; now and then any word."""
    if rng.random() < 0.01:
        return random_word(rng)
    op = OPS[rng.integers(len(OPS))]
    a, b, c = rng.integers(0, REGISTERS, 3).tolist()
    form = OPERANDS[op]
    imm = int(rng.choice([0, 1, -1, 2, -2, 31, 63, 64, rng.integers(-(2**31), 2**31)]))
    if "t" in form:  # few registers hold a tensor's number
        c, imm = (0, int(rng.integers(-3, 5))) if rng.random() < 0.9 else (c, imm)
    elif "j" in form:
        imm = int(rng.integers(0, words + 1)) if rng.random() < 0.9 else imm
    elif "s" in form:
        b, imm = (0, int(rng.integers(0, SCRATCH))) if rng.random() < 0.9 else (b, imm)
    elif "d" in form:
        imm = int(rng.integers(0, REGISTERS))
    elif op in (Op.PARAM, Op.LITERAL, Op.CODE) and rng.random() < 0.8:
        c, imm = 0, int(rng.integers(-1, 5 if op != Op.CODE else words + 2))
    if rng.random() < 0.004:
        a = int(rng.integers(NO_REGISTER, 256))
    if rng.random() < 0.004:
        b = int(rng.integers(NO_REGISTER, 256))
    return Instruction(op, a, b, c, imm).encode()


def random_image(rng: np.random.Generator, length: int) -> list[int]:
    """Loads registers 1 to 31 from the image, writes some scratch, then random instructions, then constants.

    Register 0 stays zero at first; small numbers fill a third of the registers, so that indices hit.
    """
    constants = [int(rng.integers(0, 8)) if k % 3 == 0 else random_word(rng) for k in range(REGISTERS - 1)]
    first = REGISTERS - 1 + 8 + length
    words = [Instruction(Op.CODE, k + 1, 0, 0, first + k).encode() for k in range(REGISTERS - 1)]
    words += [
        Instruction(Op.PUT, int(rng.integers(REGISTERS)), 0, 0, int(rng.integers(SCRATCH))).encode() for _ in range(8)
    ]
    return words + [random_instruction(rng, first) for _ in range(length)] + constants


def run_random(seed: int) -> Counter[Op]:
    rng = np.random.default_rng(seed)
    node, inputs = random_node(rng)
    height = int(rng.integers(5, 9))
    return Both(random_image(rng, 60), node, inputs, height).check(int(rng.integers(-2, 6)))


@pytest.mark.parametrize("part", range(4))
def test_random_images_and_every_instruction(part: int) -> None:
    ran: Counter[Op] = Counter()
    for seed in range(150):
        ran += run_random(1000 * part + seed)
    assert set(ran) == set(Op)
    assert min(ran.values()) >= 3, ran


@pytest.mark.parametrize("seed", range(8))
def test_random_words_of_any_kind(seed: int) -> None:
    """No care taken: bytes of opcodes and fields at random. Most trap, and must trap alike."""
    rng = np.random.default_rng(seed)
    for _ in range(100):
        node, inputs = random_node(rng)
        words = [int(w) for w in rng.integers(2**64, size=8, dtype=np.uint64)]
        words[0] = words[0] & 2**56 - 1 | OPS[rng.integers(len(OPS))] << 56
        Both(words, node, inputs, 4).check(int(rng.integers(0, 4)))


@pytest.mark.parametrize("op", OPS)
def test_one_instruction_on_hostile_operands(op: Op) -> None:
    rng = np.random.default_rng(op)
    for _ in range(40):
        node, inputs = random_node(rng)
        words = [Instruction(Op.CODE, 2 + k, 0, 0, 5 + k).encode() for k in range(3)]
        a, b, c = (int(rng.choice([2, 3, 4, 4])) for _ in range(3))
        imm = {"d": 3, "j": 4}.get(OPERANDS[op][-1], int(rng.choice([0, 0, 1, -1, 2, -2])))
        words += [Instruction(op, a, b, c, imm).encode(), Instruction(Op.HALT, a).encode()]
        small = rng.random() < 0.5
        words += [int(rng.integers(-1, 66)) % 2**64 if small else random_word(rng) for _ in range(3)]
        Both(words, node, inputs, 4).check(0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_element_of_every_dtype(dtype: DType) -> None:
    """LOAD, RAW and PLACE over all elements of tensors, and one to either side."""
    rng = np.random.default_rng(dtype)
    shapes = ((3, 1, 5), (4, 1), ())
    node = node_of(dtype, (3, 4, 5), tuple((dtype, s) for s in shapes))
    inputs = [hostile(rng, dtype, s) for s in shapes]
    for tensor in (-3, SPACE, OUTPUT, 0, 1, 2, 3):
        words = [
            Instruction(op, 2 + k, 1, 0, tensor).encode() for k, op in enumerate((Op.LOAD, Op.RAW, Op.PLACE, Op.RANK))
        ]
        words += [Instruction(Op.NARROW, 6, 2).encode(), Instruction(Op.HALT, 3).encode()]
        both = Both(words, node, inputs, 3)
        for element in range(-1, 17):
            both.check(element)
        for element in (59, 60, 2**40, 2**63 - 1, -(2**63)):
            both.check(element)


# ---- the text, case by case ------------------------------------------------------------------------------------------


def after(instruction: Instruction, registers: dict[int, int] | None = None, node: Node | None = None) -> State:
    """One step from a state with these registers."""
    state = State()
    for k, value in (registers or {}).items():
        state.registers[k] = value % 2**64
    return one_step([instruction.encode()], state, node)


@pytest.mark.parametrize(
    ("op", "x", "y", "result"),
    [
        (Op.ADD, 2**63 - 1, 1, -(2**63)),
        (Op.SUB, -(2**63), 1, 2**63 - 1),
        (Op.MUL, 2**62, 4, 0),
        (Op.DIV, -7, 2, -3),
        (Op.DIV, 7, -2, -3),
        (Op.DIV, 5, 0, 0),
        (Op.DIV, -(2**63), -1, -(2**63)),
        (Op.REM, -7, 2, -1),
        (Op.REM, 7, -2, 1),
        (Op.REM, 5, 0, 5),
        (Op.REM, -(2**63), -1, 0),
        (Op.SHL, 3, 63, -(2**63)),
        (Op.SHL, 3, 64, 0),
        (Op.SHL, 3, -1, 0),
        (Op.SHR, -1, 63, 1),
        (Op.SHR, -1, 64, 0),
        (Op.SHR, -1, -(2**63), 0),
        (Op.SAR, -(2**63), 63, -1),
        (Op.SAR, -5, 64, -1),
        (Op.SAR, 5, -1, 0),
        (Op.MIN, -1, 1, -1),
        (Op.MAX, -1, 1, 1),
        (Op.SEQ, -1, -1, 1),
        (Op.SLT, -(2**63), 0, 1),
    ],
)
def test_integers_at_the_edges(op: Op, x: int, y: int, result: int) -> None:
    got = after(Instruction(op, 2, 3, 4), {3: x, 4: y})
    assert got.registers[2] == result % 2**64 and got.pc == 1 and not got.halted
    if -(2**31) <= y < 2**31:
        assert after(Instruction(op, 2, 3, 0, y), {3: x}).registers[2] == result % 2**64


def test_y_is_a_sum_modulo_two_to_the_64() -> None:
    assert after(Instruction(Op.SEQ, 2, 0, 3, 1), {3: -1}).registers[2] == 1
    assert after(Instruction(Op.SEQ, 2, 0, 3, -1), {3: 2**63, 0: 2**63 - 1}).registers[2] == 1


def test_floats_read_low_halves_and_write_zero_high_halves() -> None:
    one, junk = 0x3F800000, 0xFFFFFFFF << 32
    assert after(Instruction(Op.FADD, 2, 3, 4), {3: junk | one, 4: junk | one}).registers[2] == 0x40000000
    assert after(Instruction(Op.FFMA, 2, 3, 3, 3), {3: junk | one}).registers[2] == 0x40000000
    assert after(Instruction(Op.FNAN, 2, 3), {3: junk | one}).registers[2] == 0
    assert after(Instruction(Op.FSUB, 2, 3, 3), {3: 0xFFFFFFFF}).registers[2] == sf.NAN
    assert after(Instruction(Op.NARROW, 2, 3), {3: junk | 0x7F800001}).registers[2] == 0x7F800001  # an i64 output


@pytest.mark.parametrize(
    "instruction",
    [
        Instruction(0x00),
        Instruction(0x07),
        Instruction(0x4A),
        Instruction(0xFF),
        Instruction(Op.HALT, NO_REGISTER),
        Instruction(Op.ADD, NO_REGISTER),
        Instruction(Op.ADD, 1, NO_REGISTER),
        Instruction(Op.ADD, 1, 1, NO_REGISTER),
        Instruction(Op.BEQ, NO_REGISTER, 0),
        Instruction(Op.BEQ, 0, 255),
        Instruction(Op.SEL, 1, 1, 1, NO_REGISTER),
        Instruction(Op.SEL, 1, 1, 1, -1),
        Instruction(Op.FFMA, 1, 1, 1, 2**31 - 1),
        Instruction(Op.LOAD, 1, NO_REGISTER),
        Instruction(Op.RANK, 1, 0, NO_REGISTER),
        Instruction(Op.GET, 1, 0, 0, SCRATCH),
        Instruction(Op.GET, 1, 0, 0, -1),
        Instruction(Op.PUT, 1, 0, 0, SCRATCH),
        Instruction(Op.PUT, NO_REGISTER, 0, 0, 0),
    ],
    ids=lambda i: i.text,
)
def test_what_is_not_defined_is_a_trap(instruction: Instruction) -> None:
    assert after(instruction) == State.halt(0)
    assert Both([instruction.encode()], node_of()).fast.run(0) == (0, 1)


@pytest.mark.parametrize(
    "instruction",
    [
        Instruction(Op.JMP, 255, 255, 255, 0),
        Instruction(Op.SEXT, 1, 1, 255, -1),
        Instruction(Op.INPUTS, 1, 255, 255, -1),
        Instruction(Op.PARAM, 1, 255, 0, 0),
        Instruction(Op.FADD, 1, 1, 1, -1),
        Instruction(Op.FSQRT, 1, 1, 255, -1),
        Instruction(Op.GET, 1, 0, 255, 0),
        Instruction(Op.BNE, 1, 1, 255, 0),
        Instruction(Op.HALT, 1, 255, 255, -1),
    ],
    ids=lambda i: i.text,
)
def test_fields_that_are_not_used_are_not_looked_at(instruction: Instruction) -> None:
    both = Both([instruction.encode()], node_of(DType.BOOL, literals=(1,), params=(3,)))
    got = one_step([instruction.encode()], State(registers=[0, 7, *[0] * 30]))
    assert got != State.halt(0)
    both.check(7)


def test_pc_outside_the_image_and_jumps_far_away() -> None:
    for words in ([], [Instruction(Op.JMP, imm=1).encode()], [Instruction(Op.JMP, imm=-1).encode()]):
        both = Both(words, node_of(), height=3)
        both.check(0)
        assert both.fast.run(0) == (0, len(words) + 1)
    far = one_step([Instruction(Op.JMP, imm=-1).encode()], State())
    assert far.pc == 2**32 - 1 and not far.halted


@pytest.mark.parametrize("dtype", DTYPES)
def test_halt_keeps_the_bits_of_the_outputs_dtype(dtype: DType) -> None:
    word = 0xFEDCBA9876543210
    got = after(Instruction(Op.HALT, 3), {3: word}, node_of(dtype))
    assert got == State.halt(word % 2 ** (8 * dtype.itemsize))


def test_the_last_instruction() -> None:
    """At 2^h - 1 a state that would go on is halted with 0; a HALT there keeps its value."""
    count = [Instruction(Op.ADD, 2, 2, 0, 1).encode(), Instruction(Op.JMP).encode()]
    for height in (0, 1, 5):
        both = Both(count, node_of(), height=height)
        both.check(0)
        assert both.fast.run(0) == (0, 2**height)
        assert both.fast.state(0, 2**height) == State.halt(0).encode()
    nop = Instruction(Op.ADD, 2, 2, 0, 1).encode()
    on_time = Both([*[nop] * 7, Instruction(Op.HALT, 2).encode()], node_of(), height=3)
    on_time.check(0)
    assert on_time.fast.run(0) == (7, 8)
    late = Both([*[nop] * 8, Instruction(Op.HALT, 2).encode()], node_of(), height=3)
    late.check(0)
    assert late.fast.run(0) == (0, 8)
    assert one_step([nop], State(), last=True) == State.halt(0)


def test_encoding() -> None:
    state = State(False, 0x01020304, 0, list(range(100, 132)), list(range(200, 256)))
    data = state.encode()
    assert (
        len(data) == 512 and data[:20] == bytes(20) and data[20:24] == bytes([1, 2, 3, 4]) and data[24:32] == bytes(8)
    )
    assert [int.from_bytes(data[32 + 8 * k : 40 + 8 * k], "big") for k in range(32)] == state.registers
    assert [int.from_bytes(data[288 + 4 * k : 292 + 4 * k], "big") for k in range(56)] == state.scratch
    assert State.decode(data) == state and state.hash == keccak256(data)
    halted = State.halt(0xABCDEF0123456789).encode()
    assert halted == bytes([1]) + bytes(23) + bytes.fromhex("abcdef0123456789") + bytes(480)
    start = State.start(-2).encode()
    assert start == bytes(40) + (2**64 - 2).to_bytes(8, "big") + bytes(464)
    assert Both([], node_of()).fast.state(-2, 0) == start


def test_a_halted_state_is_its_own_successor() -> None:
    halted = State.halt(7)
    words = [Instruction(Op.HALT, 1).encode()]
    assert step(halted, Surroundings(words, node_of(), []), False) is halted
    both = Both(words, node_of(), height=4)
    assert {both.fast.state(7, n) for n in range(1, 17)} == {halted.encode()}
    with pytest.raises(IndexError):
        both.fast.state(7, 17)


def test_place_by_numpy() -> None:
    """PLACE of every element of a space is where numpy's broadcast finds it."""
    shapes = ((3, 1, 5), (4, 1), (), (1, 1, 1, 1), (2, 3, 4, 5))
    node = node_of(DType.I64, (2, 3, 4, 5), tuple((DType.I64, s) for s in shapes))
    see = Surroundings([], node, [])
    for tensor, shape in ((OUTPUT, node.shape), (SPACE, node.shape), *enumerate(shapes)):
        places = np.broadcast_to(np.arange(int(np.prod(shape))).reshape(shape), node.shape).ravel().tolist()
        assert [see.place(i, tensor) for i in range(len(places))] == places
        assert see.place(-1, tensor) == -1 and see.place(len(places), tensor) == places[0]  # the space repeats
    assert see.place(-1, 7) == see.place(3, -3) == 0


def test_the_page_lists_the_instructions() -> None:
    """Numbers, names and operands of docs/spec/repvm.md."""
    page = (Path(__file__).parents[3] / "docs" / "spec" / "repvm.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([0-9A-F]{2}) \| (\w+)((?: \w+)*) \|", page, re.MULTILINE)
    listed = {int(number, 16): (name, operands.split()) for number, name, operands in rows}
    letters = {"j": ["imm"], "s": ["b", "imm"]}
    assert listed == {op: (op.name, [x for c in OPERANDS[op] for x in letters.get(c, [c])]) for op in Op}


def test_an_instruction_is_a_word() -> None:
    assert Instruction(Op.FFMA, 1, 2, 3, -4).encode() == 0x3D010203FFFFFFFC
    rng = np.random.default_rng(0)
    for word in [0, 2**64 - 1, *rng.integers(2**64, size=500, dtype=np.uint64).tolist()]:
        assert Instruction.decode(word).encode() == word
