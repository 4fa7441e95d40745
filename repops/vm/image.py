"""The image of a RepVM program: its words, their tree and the code hash (docs/spec/repvm.md, "Code")."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from eth_abi.abi import encode

from repops.commit import Tree, height, keccak256
from repops.graph.ir import Node
from repops.vm.isa import WORD_BYTES, Instruction

CODE_TYPEHASH = keccak256(b"RepVM(1)")
WORDS_PER_LEAF = 4


@dataclass(frozen=True, slots=True)
class Trips:
    """How often the instructions of a loop may run for an element of a node; equal if their texts are.

    text: as an expression of what docs/spec/images.md lists, where it is normative. count: its value for a node.
    """

    text: str
    count: Callable[[Node], int] = field(compare=False)

    @classmethod
    def fixed(cls, number: int) -> Trips:
        """The same for every node."""
        return cls(str(number), lambda node: number)


ONCE = Trips.fixed(1)


@dataclass(frozen=True)
class Image:
    """words: code, then constants, each in [0, 2^64). counts: how many instructions may run how often."""

    words: tuple[int, ...]
    counts: tuple[tuple[Trips, int], ...] = field(compare=False)

    def bound(self, node: Node) -> int:
        """No run for an element of the node has more instructions."""
        return sum(trips.count(node) * number for trips, number in self.counts)

    @property
    def bound_text(self) -> str:
        """The bound as an expression, as docs/spec/images.md has it."""
        fixed = sum(int(trips.text) * number for trips, number in self.counts if trips.text.isdigit())
        loops = ((t.text, number) for t, number in self.counts if not t.text.isdigit())
        return " + ".join([str(fixed), *(f"{n} * ({text})" if "+" in text else f"{n} * {text}" for text, n in loops)])

    @cached_property
    def leaves(self) -> tuple[bytes, ...]:
        """The bytes of each leaf, 32 apiece."""
        data = b"".join(w.to_bytes(WORD_BYTES, "big") for w in self.words)
        size = WORDS_PER_LEAF * WORD_BYTES
        return tuple(data[i : i + size].ljust(size, b"\0") for i in range(0, len(data), size))

    @cached_property
    def tree(self) -> Tree:
        """The tree over the leaves."""
        return Tree([keccak256(leaf) for leaf in self.leaves])

    @cached_property
    def code_hash(self) -> bytes:
        """What a node names as its `code`, 32 bytes."""
        return keccak256(encode(["bytes32", "uint256", "bytes32"], [CODE_TYPEHASH, len(self.words), self.tree.root]))

    def height(self, node: Node) -> int:
        """The least h with 2^h at least the bound: the node's `vmHeight`."""
        return height(self.bound(node))

    @property
    def listing(self) -> str:
        """The image as assembly, a line a word."""
        return "\n".join(f"{i:4d}  {Instruction.decode(w).text}" for i, w in enumerate(self.words))
