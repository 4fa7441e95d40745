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


@dataclass(frozen=True)
class Image:
    """words: code, then constants, each in [0, 2^64). bound: no run for an element of a node has more instructions."""

    words: tuple[int, ...]
    bound: Callable[[Node], int] = field(compare=False)

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
