"""The assembler and what it makes: text, code hash, tree, bounds, registers."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from eth_abi import encode
from eth_utils import keccak
from kernel_calls import hostile
from machines import Both, node_of

from repops.commit import height
from repops.dtypes import DType
from repops.vm.assembler import Assembler, AssemblyError
from repops.vm.functions import function, listings
from repops.vm.image import Image, Trips
from repops.vm.isa import OPERANDS, SCRATCH, Instruction, Op
from repops.vm.programs import NAMES, image


def fold(left: bytes, right: bytes) -> bytes:
    return keccak(left + right)


@pytest.mark.parametrize("words", [0, 1, 4, 5, 19])
def test_code_hash_by_hand(words: int) -> None:
    made = Image(tuple(range(1, words + 1)), ())
    data = b"".join(w.to_bytes(8, "big") for w in made.words)
    leaves = [keccak(data[i : i + 32].ljust(32, b"\0")) for i in range(0, len(data), 32)]
    leaves += [bytes(32)] * (2 ** height(-(-words // 4)) - len(leaves))
    while len(leaves) > 1:
        leaves = [fold(*pair) for pair in zip(leaves[::2], leaves[1::2], strict=True)]
    expected = keccak(encode(["bytes32", "uint256", "bytes32"], [keccak(text="RepVM(1)"), words, leaves[0]]))
    assert made.code_hash == expected


def test_any_other_word_gives_another_hash() -> None:
    made = image("matmul")
    hashes = {made.code_hash}
    for k in range(len(made.words)):
        hashes.add(replace(made, words=(*made.words[:k], made.words[k] ^ 1 << k % 64, *made.words[k + 1 :])).code_hash)
    assert len(hashes) == len(made.words) + 1
    longer = replace(made, words=(*made.words, 0))  # the same leaves: the number of words is hashed too
    assert longer.code_hash not in hashes


def test_a_word_is_proven_by_its_leaf() -> None:
    made = image("softplus")
    for pc in (0, 1, len(made.words) - 1):
        leaf = made.leaves[pc // 4]
        assert leaf[pc % 4 * 8 : pc % 4 * 8 + 8] == made.words[pc].to_bytes(8, "big")
        node = keccak(leaf)
        for level, sibling in enumerate(made.tree.prove(pc // 4)):
            node = fold(sibling, node) if pc // 4 >> level & 1 else fold(node, sibling)
        assert node == made.tree.root


def test_operators_have_different_code() -> None:
    assert len({image(name).code_hash for name in NAMES}) == len(NAMES)


def test_the_code_does_not_depend_on_the_process() -> None:
    """Python orders sets by a seed of the process; a code hash must not."""
    script = "from repops.vm.programs import NAMES, image; print(b''.join(image(n).code_hash for n in NAMES).hex())"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {b"".join(image(n).code_hash for n in NAMES).hex().encode() + b"\n"}


@pytest.mark.parametrize(
    ("instruction", "text"),
    [
        (Instruction(Op.HALT, 3), "HALT r3"),
        (Instruction(Op.JMP, imm=7), "JMP -> 7"),
        (Instruction(Op.BLT, 1, 2, 0, 17), "BLT r1, r2 -> 17"),
        (Instruction(Op.ADD, 1, 2, 3), "ADD r1 = r2, r3"),
        (Instruction(Op.ADD, 1, 2, 0, -5), "ADD r1 = r2, -5"),
        (Instruction(Op.ADD, 1, 2, 3, -5), "ADD r1 = r2, r3 -5"),
        (Instruction(Op.SEL, 1, 2, 3, 4), "SEL r1 = r2, r3, r4"),
        (Instruction(Op.LOAD, 1, 2, 0, 1), "LOAD r1 = r2, tensor 1"),
        (Instruction(Op.INPUTS, 4), "INPUTS r4"),
        (Instruction(Op.GET, 1, 2, 0, 3), "GET r1 = s[r2 +3]"),
        (Instruction(Op.PUT, 1, 0, 0, 3), "PUT r1, s[3]"),
        (Instruction(0x77, 1, 2, 3, 4), "word 0x7701020300000004"),
    ],
)
def test_text(instruction: Instruction, text: str) -> None:
    assert instruction.text == text


def test_a_listing_has_a_line_a_word() -> None:
    a = Assembler()
    x = a.load(a.place(a.element, 0), 0)
    a.halt(a.narrow(a.fmul(x, x)))
    made = a.assemble()
    assert made.listing.split("\n") == [
        "   0  PLACE r2 = r1, tensor 0",
        "   1  LOAD r3 = r2, tensor 0",
        "   2  FMUL r4 = r3, r3",
        "   3  NARROW r5 = r4",
        "   4  HALT r5",
    ]
    assert made.bound(node_of()) == 5 and made.height(node_of()) == 3


def test_every_instruction_has_operands_and_programs_use_nearly_all() -> None:
    assert set(OPERANDS) == set(Op)
    used = {Op(w >> 56) for n in NAMES for w in image(n).words if w >> 56 in OPERANDS}
    assert set(Op) - used <= {Op.JMP, Op.BGE, Op.SUB, Op.FLE}, set(Op) - used


def test_bounds_add_up_over_loops() -> None:
    a = Assembler()
    i, stop = a.set(0), a.set(3)
    with a.loop(i, stop, Trips.fixed(3)):
        j = a.set(0)
        with a.loop(j, stop, Trips.fixed(9)):
            a.add(j, 0, to=j)
    a.halt(i)
    made = a.assemble()
    # 2 sets, the test, HALT; 3 times set, test, add, branch; 9 times add, add, branch
    assert made.bound(node_of()) == 4 + 3 * 4 + 9 * 3 == 43
    assert Both(list(made.words), node_of()).fast.run(0) == (3, 43)  # here no loop ends early


def test_too_many_registers_and_too_much_scratch_are_refused() -> None:
    a = Assembler()
    for _ in range(a.free):
        a.set(0)
    with pytest.raises(AssemblyError, match="registers"):
        a.set(0)
    for index in (-1, SCRATCH):
        with pytest.raises(AssemblyError, match="scratch"):
            Assembler().put(Assembler.zero, index)


def test_registers_come_back_at_the_end_of_a_scope() -> None:
    a = Assembler()
    before = a.free
    with a.scope():
        kept = a.value(lambda: a.add(a.set(1), a.set(2)))
        assert a.free == before - 1 and kept.number > 1
    assert a.free == before


def test_equal_tables_of_constants_are_stored_once() -> None:
    a = Assembler()
    a.constants([5, 6, 7], a.element)
    a.constants([6, 7], a.element, offset=1)
    made = a.assemble()
    assert made.words[2:] == (5, 6, 7)
    assert [Instruction.decode(w).imm for w in made.words[:2]] == [2, 4]


@pytest.mark.parametrize("name", listings())
def test_a_function_with_few_registers_gives_the_same(name: str) -> None:
    """What does not fit goes to scratch."""
    rng = np.random.default_rng(1)
    arguments = len(listings()[name].arguments)
    inputs = [hostile(rng, DType.F32, (60,)) for _ in range(arguments)]
    node = node_of(DType.F32, (60,), ((DType.F32, (60,)),) * arguments)

    def outputs(registers: int) -> list[int]:
        a = Assembler()
        x = [a.load(a.element, k) for k in range(arguments)]
        while a.free > registers:
            a.take()
        a.halt(function(a, name, *x))
        run = Both(list(a.assemble().words), node, inputs, 9).fast.run
        return [run(i)[0] for i in range(60)]

    assert outputs(7) == outputs(28)
