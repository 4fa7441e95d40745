"""RepVM for use: the value of one element by its operator's program, and the trace that a dispute is played over.

The work is done by csrc/vm; `repops.vm.machine` is the readable interpreter of the same machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from repops import _kernels
from repops.commit import Tree
from repops.errors import TensorError
from repops.graph.ir import Node, element_count
from repops.settings import threads as all_threads
from repops.vm.image import Image
from repops.vm.machine import Surroundings
from repops.vm.programs import image

Array = np.ndarray[Any, Any]


class NodeRun:
    """The program of a node's operator on the node's inputs.

    node: of a checked program. inputs: one C-contiguous array for each of its inputs, of their dtypes (bf16 as uint16)
    and element counts; they are held, and must not change. Raises TensorError for arrays that are not the node's
    inputs.
    """

    def __init__(self, node: Node, inputs: Sequence[Array]) -> None:
        self.node = node
        self.image: Image = image(node.op)
        self.height: int = self.image.height(node)
        self._arrays = [
            _flat(a, i.dtype.itemsize * element_count(i.shape), k) for k, (a, i) in enumerate(_paired(node, inputs))
        ]
        self._program = _kernels.VmProgram(
            list(self.image.words), self.height, list(node.params), list(node.literals),
            [(a, int(i.dtype), list(i.shape)) for a, i in zip(self._arrays, node.inputs, strict=True)],
            int(node.dtype), list(node.shape),
        )  # fmt: skip

    def output(self, element: int) -> int:
        """The pattern of the output element with this row-major index."""
        return self.run(element)[0]

    def run(self, element: int) -> tuple[int, int]:
        """(pattern, instructions): up to and with the instruction that halts."""
        output, instructions = self._program.run(element)
        return output, instructions

    def state(self, element: int, n: int) -> bytes:
        """The 512 bytes of the state after n instructions, 0 <= n <= 2^height."""
        data: bytes = self._program.state(element, n)
        return data

    def trace(self, element: int, threads: int | None = None) -> Trace:
        """The trace of an element."""
        return Trace(self, element, threads or all_threads())

    @cached_property
    def surroundings(self) -> Surroundings:
        """The same for the readable interpreter."""
        return Surroundings(self.image.words, self.node, self._arrays)


@dataclass(frozen=True)
class Trace:
    """The tree over the states of one element's run (docs/spec/repvm.md, "Trace"). Memory: 64 bytes a leaf."""

    run: NodeRun
    element: int
    threads: int

    @cached_property
    def tree(self) -> Tree:
        """2^height leaves, all real."""
        leaves = self.run._program.leaves(self.element, self.threads)
        return Tree(leaves, self.run.height, self.threads)

    def state(self, n: int) -> bytes:
        """The state after n instructions; its hash is leaf n - 1, that of n = 0 the start state's."""
        return self.run.state(self.element, n)


def _paired(node: Node, inputs: Sequence[Array]) -> list[tuple[Array, Any]]:
    if len(inputs) != len(node.inputs):
        raise TensorError(f"{len(inputs)} arrays", node.op, f"The node has {len(node.inputs)} inputs")
    return list(zip(inputs, node.inputs, strict=True))


def _flat(array: Array, size: int, k: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    if array.nbytes != size or not array.flags.c_contiguous:
        raise TensorError(f"{array.nbytes} bytes", f"input {k}", f"It is C-contiguous and has {size} bytes")
    return array.reshape(-1).view(np.uint8)
