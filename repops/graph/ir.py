"""The intermediate representation: one step of a computation as a graph (docs/spec/programs.md, "Model").

Everything is immutable. A `Program` may be built by hand, by `repops.capture` or by `Program.load`; `check()` is the
one place that says whether it is well formed, and everything else (executor, encoder, files) expects a checked program.
`Program`'s methods import what they call, because those modules are about programs and import this one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from repops.commit import height
from repops.dtypes import DType
from repops.errors import ProgramError

if TYPE_CHECKING:
    from repops.graph.encoding import Header

PROFILE = "RO-1"

MAX_RANK = 8
MAX_ELEMENTS = 2**40
MAX_TRACE_NODES = 2**20
MAX_SLOTS = 2**16
MAX_BATCH_TENSORS = 2**16
MAX_CONSTANTS = 2**16
MAX_INPUTS = 64
MAX_PARAMS = 64
MAX_LITERALS = 16
MAX_NAME_BYTES = 256
MAX_INSTRUCTIONS = 2**20  # of RepVM, for one element

Shape = tuple[int, ...]


class RefKind(IntEnum):
    """What a ref points at. ZERO (index 0) stands only in hash nodes, for a missing leaf of the state tree."""

    STATE = 0
    BATCH = 1
    CONSTANT = 2
    NODE = 3
    ZERO = 4


@dataclass(frozen=True, slots=True)
class Ref:
    """A reference to a tensor: slot `index` of the state before the step, batch tensor, constant or node."""

    kind: RefKind
    index: int

    @classmethod
    def state(cls, index: int) -> Ref:
        """The value of slot `index` before the step."""
        return cls(RefKind.STATE, index)

    @classmethod
    def batch(cls, index: int) -> Ref:
        """Batch tensor `index`."""
        return cls(RefKind.BATCH, index)

    @classmethod
    def constant(cls, index: int) -> Ref:
        """Constant `index`."""
        return cls(RefKind.CONSTANT, index)

    @classmethod
    def node(cls, index: int) -> Ref:
        """The output of trace node `index`."""
        return cls(RefKind.NODE, index)

    @classmethod
    def zero(cls) -> Ref:
        """A missing leaf; only in hash nodes."""
        return cls(RefKind.ZERO, 0)

    @property
    def text(self) -> str:
        """As in files: "state:3", "batch:0", "constant:2", "node:17"."""
        return f"{self.kind.name.lower()}:{self.index}"

    @classmethod
    def parse(cls, text: str) -> Ref:
        """From the text of a file. Raises ProgramError for anything that `text` would not have written."""
        kind, _, index = text.partition(":")
        known = {k.name.lower(): k for k in RefKind if k is not RefKind.ZERO}
        if kind in known and index.isascii() and index.isdigit() and len(index) <= 10 and str(int(index)) == index:
            return cls(known[kind], int(index))
        raise ProgramError(
            f"{text[:40]!r} is not a ref",
            cure='A ref is "state:I", "batch:I", "constant:I" or "node:I" with a number I',
        )


@dataclass(frozen=True, slots=True)
class Input:
    """A ref with the dtype and the shape under which the node reads it (a reshape shares bytes and root)."""

    ref: Ref
    dtype: DType
    shape: Shape


@dataclass(frozen=True, slots=True)
class Node:
    """One operator with one output tensor. params are int64, literals raw bit patterns in uint64."""

    op: str
    params: tuple[int, ...]
    literals: tuple[int, ...]
    inputs: tuple[Input, ...]
    dtype: DType
    shape: Shape


@dataclass(frozen=True, slots=True)
class Slot:
    """A named tensor of the state; `update` refers to its value after the step."""

    name: str
    dtype: DType
    shape: Shape
    update: Ref


@dataclass(frozen=True, slots=True)
class BatchTensor:
    """A named tensor of the batch."""

    name: str
    dtype: DType
    shape: Shape


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A tensor that belongs to the program. data: C-contiguous, of `dtype.numpy`, not writable. Equal iff bytes are."""

    dtype: DType
    shape: Shape
    data: np.ndarray[Any, Any]

    @classmethod
    def of(cls, array: np.ndarray[Any, Any]) -> Constant:
        """A private, read-only copy of an array. Raises TensorError for a dtype that programs do not have."""
        dtype = DType.of(array.dtype)
        data = np.array(array, dtype=dtype.numpy, order="C", copy=True)
        data.flags.writeable = False
        return cls(dtype, tuple(int(d) for d in data.shape), data)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Constant):
            return NotImplemented
        return (self.dtype, self.shape, self.data.tobytes()) == (other.dtype, other.shape, other.data.tobytes())

    def __hash__(self) -> int:
        return hash((self.dtype, self.shape, self.data.tobytes()))


@dataclass(frozen=True)
class Program:
    """One step: (state, batch, constants) -> state'. Derived values (hash nodes, header, root) are computed once."""

    slots: tuple[Slot, ...]
    batch: tuple[BatchTensor, ...]
    constants: tuple[Constant, ...]
    nodes: tuple[Node, ...]

    def check(self) -> Program:
        """Checks every rule of docs/spec/programs.md and returns the program. Raises ProgramError naming the place."""
        from repops.graph.check import check_program  # noqa: PLC0415

        check_program(self)
        return self

    @cached_property
    def hash_nodes(self) -> tuple[Node, ...]:
        """The hash nodes that follow the compute nodes in a trace (docs/spec/commitments.md)."""
        from repops.graph.encoding import hash_nodes  # noqa: PLC0415

        return hash_nodes(self)

    @property
    def trace_length(self) -> int:
        """Real leaves of a trace: compute nodes and hash nodes."""
        return len(self.nodes) + (1 << max(1, height(len(self.slots)))) - 1

    def trace_node(self, index: int) -> Node:
        """Node `index` of the trace, compute or hash node. Raises ProgramError outside the trace."""
        if not 0 <= index < self.trace_length:
            raise ProgramError(f"there is no trace node {index}", cure=f"The trace has {self.trace_length} nodes")
        return self.nodes[index] if index < len(self.nodes) else self.hash_nodes[index - len(self.nodes)]

    @cached_property
    def _header(self) -> Header:
        from repops.graph.encoding import make_header  # noqa: PLC0415

        return make_header(self)

    def header(self) -> Header:
        """The header whose hash is the program root."""
        return self._header

    @property
    def root(self) -> bytes:
        """The program root, 32 bytes."""
        return self._header.root

    def save(self, path: str | Path) -> None:
        """Writes the program directory (docs/spec/programs.md, "Files"); see `repops.graph.files.save`."""
        from repops.graph.files import save  # noqa: PLC0415

        save(self, path)

    @staticmethod
    def load(path: str | Path) -> Program:
        """Reads and fully checks a program directory; see `repops.graph.files.load`."""
        from repops.graph.files import load  # noqa: PLC0415

        return load(path)

    def referent(self, ref: Ref) -> tuple[DType, Shape]:
        """dtype and shape of what a ref points at. Raises ProgramError if there is no such thing."""
        if ref.kind is not RefKind.ZERO:
            table: tuple[Slot | BatchTensor | Constant | Node, ...] = (
                self.slots, self.batch, self.constants, self.nodes,
            )[ref.kind]  # fmt: skip
            if 0 <= ref.index < len(table):
                return table[ref.index].dtype, table[ref.index].shape
        raise ProgramError(f"ref {ref.text} points at nothing", cure="Refer to a slot, batch tensor, constant or node")


def element_count(shape: Iterable[int]) -> int:
    """Number of elements of a shape; 1 for the empty shape."""
    return prod(shape)


def extent(shape: Iterable[int]) -> int:
    """The product of the dimensions with zeros left out: what a product of some of them may reach."""
    return prod(d for d in shape if d)


def tile_height(dtype: DType, shape: Shape) -> int:
    """Height of the tree over the 1,024-byte tiles of a tensor (docs/spec/commitments.md)."""
    return height(-(-element_count(shape) * dtype.itemsize // 1024))
