"""Both interpreters on one image, and random surroundings for it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from kernel_calls import SPECIAL_F32, SPECIAL_I64, hostile

from repops import _kernels
from repops.dtypes import DType
from repops.graph.ir import Input, Node, Ref
from repops.vm.isa import OPERANDS, Instruction, Op
from repops.vm.machine import State, Surroundings, states, step

DTYPES = [d for d in DType if d is not DType.ROOT]


@dataclass
class Both:
    """An image with a node and its inputs (raw bytes), for the readable interpreter and for csrc/vm."""

    words: list[int]
    node: Node
    inputs: list[np.ndarray] = field(default_factory=list)
    height: int = 6

    def __post_init__(self) -> None:
        self.inputs = [np.ascontiguousarray(a).reshape(-1).view(np.uint8) for a in self.inputs]
        self.see = Surroundings(self.words, self.node, self.inputs)
        given = [(a, int(i.dtype), list(i.shape)) for a, i in zip(self.inputs, self.node.inputs, strict=True)]
        self.fast = _kernels.VmProgram(
            self.words, self.height, list(self.node.params), list(self.node.literals), given,
            int(self.node.dtype), list(self.node.shape),
        )  # fmt: skip

    def check(self, element: int, limit: int | None = None) -> Counter[Op]:
        """Both give the same 512 bytes after every instruction, value and count; how often an Op ran without a TRAP.

        limit: of the instructions after which states are compared.
        """
        ran: Counter[Op] = Counter()
        before, n = State.start(element), 0
        assert self.fast.state(element, 0) == before.encode()
        for n, after in enumerate(islice(states(element, self.see, self.height), limit), 1):
            assert self.fast.state(element, n) == after.encode(), self.describe(before, n)
            word = self.words[before.pc] if before.pc < len(self.words) else 0
            op = word >> 56
            if op in OPERANDS and (not after.halted or op == Op.HALT):
                ran[Op(op)] += 1
            before = after
        if before.halted:
            assert self.fast.run(element) == (before.output, n)
        return ran

    def describe(self, before: State, n: int) -> str:
        word = self.words[before.pc] if before.pc < len(self.words) else 0
        return f"instruction {n - 1}, pc {before.pc}: {Instruction.decode(word).text}; {self.node}; {before}"


def node_of(
    dtype: DType = DType.I64,
    shape: tuple[int, ...] = (),
    inputs: tuple[tuple[DType, tuple[int, ...]], ...] = (),
    params: tuple[int, ...] = (),
    literals: tuple[int, ...] = (),
) -> Node:
    return Node("test", params, literals, tuple(Input(Ref.batch(k), *i) for k, i in enumerate(inputs)), dtype, shape)


def one_step(words: list[int], state: State, node: Node | None = None, last: bool = False) -> State:
    return step(state, Surroundings(words, node or node_of(), []), last)


def random_node(rng: np.random.Generator) -> tuple[Node, list[np.ndarray]]:
    """Shapes that need not broadcast to each other, any dtypes, params and literals."""

    def shape() -> tuple[int, ...]:
        return tuple(rng.choice([0, 1, 1, 2, 3, 5, 7], rng.integers(0, 5)).tolist())

    inputs = tuple((DTYPES[rng.integers(6)], shape()) for _ in range(rng.integers(0, 4)))
    node = node_of(
        DTYPES[rng.integers(6)], shape(), inputs,
        tuple(random_word(rng) - 2**63 for _ in range(rng.integers(0, 4))),
        tuple(random_word(rng) for _ in range(rng.integers(0, 3))),
    )  # fmt: skip
    return node, [hostile(rng, dtype, s) for dtype, s in inputs]


def random_word(rng: np.random.Generator) -> int:
    """64 bits: a small number, an extreme one, a float, or any."""
    kind = rng.integers(4)
    if kind == 0:
        return int(rng.integers(-3, 70)) % 2**64
    if kind == 1:
        return int(rng.choice(SPECIAL_I64)) % 2**64
    if kind == 2:
        return int(rng.choice(SPECIAL_F32)) if rng.random() < 0.5 else int(rng.integers(2**32))
    return int(rng.integers(2**64, dtype=np.uint64))
