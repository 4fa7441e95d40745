"""What one actor serves to the others, and how what is received is checked.

A `DataSource` answers by root: program files, tensor bytes, the leaves of trees, a referee's verdicts. It is not
trusted. `Fetcher` asks several sources in turn and hands on only what hashes to the root that was asked for, so a lie
costs the liar one refused answer. `MemoryStore` is the source that an actor fills; it lives in the process.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from node.errors import DataError, MissingData, WrongRoot
from node.moves import PathTree
from node.verdict import SignedVerdict
from repops import Program
from repops.commit import TILE_BYTES, ZERO, TensorTree, Tree, height, keccak256, state_tree, tensor_root
from repops.dtypes import DType
from repops.errors import CommitmentError, RepopsError

Array = NDArray[np.generic]
State = dict[str, Array]
T = TypeVar("T")

PROGRAM_FILES = ("program.json", "constants.safetensors")
MAX_PROGRAM_BYTES = 1 << 30
MAX_VERDICTS = 64
MAX_DEPTH = 6  # levels of a tree that one answer goes down


class DataSource(Protocol):
    """What an actor answers. Every method raises MissingData for what it does not have or does not give out yet.

    Answers are untrusted: use a `Fetcher`.
    """

    def program(self, root: bytes) -> Mapping[str, bytes]:
        """The files of the program with this root, by name: `program.json` and perhaps `constants.safetensors`."""

    def tensor(self, root: bytes, size: int) -> bytes:
        """The `size` bytes of the tensor with this root: row-major, little-endian, contiguous.

        The last tile of a tensor is padded with zeros, so tensors of different sizes can have the same root.
        """

    def leaves(self, root: bytes, height: int) -> bytes:
        """The leaves of the tree of this root and height, 32 bytes each; missing leaves at the end may be left out.

        Trees of this kind: states (tensor roots of the slots), batches, data sets, claims, segments and traces. A
        claim of one checkpoint is a tree of height 0 with the root of a state, hence the height.
        """

    def tile(self, root: bytes, size: int, index: int) -> bytes:
        """Tile `index` of the tensor with this root and size: 1,024 bytes, the last tile padded with zeros."""

    def nodes(self, root: bytes, height: int, level: int, index: int, m: int) -> bytes:
        """The `2^m` nodes `m` levels below node `index` of `level` of the tree of this root and height, 32 bytes each.

        Trees of this kind: the states of an element's run, which have too many leaves to be asked for all of them.
        """

    def verdicts(self, match: int) -> Sequence[SignedVerdict]:
        """The signed verdicts on a match that this actor has given."""


@dataclass(frozen=True, order=True)
class Embargo:
    """When something may be served: once a finalized block has this time, or the latest block that one (seconds)."""

    final: int = 0
    latest: int = 0


PUBLIC = Embargo()


@dataclass(frozen=True)
class _Entry:
    """Something that is served, and from when on."""

    content: bytes
    embargo: Embargo


class MemoryStore:
    """A `DataSource` in memory: content-addressed and embargoed.

    clock: the times of the finalized and of the latest block, in seconds. What belongs to a claim is not served before
    nobody can commit to a copy of it any more (the commit deadline has passed in a finalized block, or even the
    reveals are over). What is put twice is served from the earlier instant.
    """

    def __init__(self, clock: Callable[[], tuple[int, int]]) -> None:
        self._clock = clock
        self._tensors: dict[tuple[bytes, int], _Entry] = {}
        self._leaves: dict[tuple[bytes, int], _Entry] = {}
        self._programs: dict[bytes, Mapping[str, bytes]] = {}
        self._trees: dict[tuple[bytes, int], tuple[Tree, Embargo]] = {}
        self._verdicts: dict[int, list[SignedVerdict]] = {}

    def put_program(self, program: Program) -> bytes:
        """Serves a program's files, and its constants by root. Returns the program root."""
        with tempfile.TemporaryDirectory(prefix="verde-") as folder:
            path = Path(folder) / "program"
            program.save(path)
            files = [path / name for name in PROGRAM_FILES if (path / name).exists()]
            self._programs[program.root] = {file.name: file.read_bytes() for file in files}
        for constant in program.constants:
            self.put_tensor(constant.data)
        return program.root

    def put_tensor(self, array: Array, embargo: Embargo = PUBLIC, root: bytes | None = None) -> bytes:
        """Serves a tensor. root: its root, if already known. Returns the root."""
        root = tensor_root(array) if root is None else root
        key = root, array.nbytes
        known = self._tensors.get(key)
        if known is None:
            self._tensors[key] = _Entry(array.tobytes(), embargo)
        elif embargo < known.embargo:
            self._tensors[key] = _Entry(known.content, embargo)
        return root

    def put_tree(self, tree: Tree, embargo: Embargo = PUBLIC) -> None:
        """Serves the leaves of a tree."""
        key = tree.root, tree.height
        known = self._leaves.get(key)
        if known is None:
            content = (
                tree.leaves().tobytes()
                if type(tree) in (Tree, TensorTree)
                else b"".join(map(tree.leaf, range(tree.count)))
            )
            self._leaves[key] = _Entry(content, embargo)
        elif embargo < known.embargo:
            self._leaves[key] = _Entry(known.content, embargo)

    def put_nodes(self, tree: Tree, embargo: Embargo = PUBLIC) -> None:
        """Serves the nodes of a tree."""
        self._trees.setdefault((tree.root, tree.height), (tree, embargo))

    def put_tensors(self, tensors: Mapping[str, Array], embargo: Embargo = PUBLIC) -> bytes:
        """Serves a state or a batch: its tensors, in this order, and the tree over their roots. Returns the root."""
        roots = [self.put_tensor(array, embargo) for array in tensors.values()]
        tree = state_tree(roots)
        self.put_tree(tree, embargo)
        return tree.root

    def put_verdict(self, match: int, verdict: SignedVerdict) -> None:
        """Serves a verdict on a match."""
        self._verdicts.setdefault(match, []).append(verdict)

    def program(self, root: bytes) -> Mapping[str, bytes]:
        """See DataSource."""
        found = self._programs.get(root)
        if found is None:
            raise _missing("program", root)
        return found

    def tensor(self, root: bytes, size: int) -> bytes:
        """See DataSource."""
        return self._serve("tensor", self._tensors.get((root, size)), root)

    def leaves(self, root: bytes, height: int) -> bytes:
        """See DataSource."""
        return self._serve("tree", self._leaves.get((root, height)), root)

    def tile(self, root: bytes, size: int, index: int) -> bytes:
        """See DataSource."""
        content = self.tensor(root, size)
        if not 0 <= index * TILE_BYTES < size:
            raise _missing("tile", root)
        return content[index * TILE_BYTES : (index + 1) * TILE_BYTES].ljust(TILE_BYTES, b"\0")

    def nodes(self, root: bytes, height: int, level: int, index: int, m: int) -> bytes:
        """See DataSource."""
        tree, embargo = self._trees.get((root, height), (None, PUBLIC))
        if tree is None or not self._open(embargo):
            raise _missing("tree", root)
        if not 0 <= m <= MAX_DEPTH:
            raise _missing("node", root)
        try:
            return b"".join(tree.children(level, index, m))
        except CommitmentError as error:
            raise _missing("node", root) from error

    def verdicts(self, match: int) -> Sequence[SignedVerdict]:
        """See DataSource."""
        return tuple(self._verdicts.get(match, ()))

    def _serve(self, kind: str, entry: _Entry | None, root: bytes) -> bytes:
        # One answer for "unknown" and "not yet": whether a root is that of a claim is itself a secret until the
        # deadline.
        if entry is None or not self._open(entry.embargo):
            raise _missing(kind, root)
        return entry.content

    def _open(self, embargo: Embargo) -> bool:
        final, latest = self._clock()
        return final >= embargo.final or latest >= embargo.latest


class Fetcher:
    """Asks sources in turn and returns the first answer that hashes to the asked root.

    Every method raises WrongRoot if somebody answered, but nobody with the right content, and MissingData if nobody
    answered.
    """

    def __init__(self, sources: Sequence[DataSource]) -> None:
        self._sources = tuple(sources)

    def program(self, root: bytes) -> Program:
        """The program with this root, loaded and checked (docs/spec/programs.md)."""
        return self._first("program", root, lambda source: _load_program(source.program(root), root))

    def tensor(self, root: bytes, dtype: DType, shape: Sequence[int]) -> Array:
        """The tensor with this root, read as dtype and shape; writable, its own memory."""
        size = math.prod(shape) * dtype.itemsize

        def ask(source: DataSource) -> Array:
            return _read_tensor(source.tensor(root, size), root, size).view(dtype.numpy).reshape(tuple(shape))

        return self._first("tensor", root, ask)

    def tree(self, root: bytes, tree_height: int) -> Tree:
        """The tree with this root, from its leaves. Leaves beyond the real count are taken as they are served."""
        return self._first("tree", root, lambda source: _read_tree(source.leaves(root, tree_height), root, tree_height))

    def leaves(self, root: bytes, count: int, tree_height: int) -> list[bytes]:
        """The first `count` leaves of the tree with this root."""
        tree = self.tree(root, tree_height)
        return [tree.leaf(i) for i in range(count)]

    def tile(self, root: bytes, size: int, index: int, leaf: bytes) -> bytes:
        """The tile with this index and hash of the tensor with this root and size."""

        def ask(source: DataSource) -> bytes:
            tile = bytes(source.tile(root, size, index))
            if len(tile) != TILE_BYTES or keccak256(tile) != leaf:
                raise _wrong("tile", leaf, f"{len(tile)} bytes were served that are not the tile")
            return tile

        return self._first("tile", leaf, ask)

    def path(self, own: Tree, root: bytes) -> PathTree:
        """The tree with this root, of the height of one's own, as far as it is needed to show where it first differs
        from one's own. Raises DataError also if nothing below the root differs."""
        return self._first("tree", root, lambda source: _read_path(source, own, root))

    def state(self, root: bytes, program: Program) -> State:
        """The state with this root: an array per slot, in slot order."""
        return self._group(root, [(slot.name, slot.dtype, slot.shape) for slot in program.slots])

    def batch(self, root: bytes, program: Program) -> State:
        """The batch with this root: an array per batch tensor, in the program's order."""
        return self._group(root, [(tensor.name, tensor.dtype, tensor.shape) for tensor in program.batch])

    def verdicts(self, match: int) -> list[SignedVerdict]:
        """What the sources say about a match, all of them; unverified, at most MAX_VERDICTS a source."""
        found: list[SignedVerdict] = []
        for source in self._sources:
            try:
                found += source.verdicts(match)[:MAX_VERDICTS]
            except (DataError, OSError):
                continue
        return found

    def _group(self, root: bytes, tensors: Sequence[tuple[str, DType, Sequence[int]]]) -> State:
        count = len(tensors)
        roots = self.leaves(root, count, max(1, height(count)))
        return {
            name: self.tensor(leaf, dtype, shape) for leaf, (name, dtype, shape) in zip(roots, tensors, strict=True)
        }

    def _first(self, kind: str, root: bytes, ask: Callable[[DataSource], T]) -> T:
        wrong: DataError | None = None
        for source in self._sources:
            try:
                return ask(source)
            except MissingData:
                continue
            except (DataError, OSError, RepopsError) as error:
                wrong = error if isinstance(error, DataError) else _wrong(kind, root, str(error))
        if wrong is not None:
            raise wrong
        raise _missing(kind, root)


def _missing(kind: str, root: bytes) -> MissingData:
    return MissingData(
        f"no {kind} with this root", where=f"{kind} 0x{root.hex()}", cure="Ask another source, or ask again later"
    )


def _wrong(kind: str, root: bytes, why: str) -> WrongRoot:
    return WrongRoot(why, where=f"{kind} 0x{root.hex()}", cure="The source lies or is damaged: ask another one")


def _read_tensor(content: bytes, root: bytes, size: int) -> NDArray[np.uint8]:
    if len(content) != size:
        raise _wrong("tensor", root, f"{len(content)} bytes were served, {size} were asked for")
    array = np.frombuffer(bytearray(content), dtype=np.uint8)
    if tensor_root(array) != root:
        raise _wrong("tensor", root, "the bytes hash to another root")
    return array


def _read_tree(content: bytes, root: bytes, tree_height: int) -> Tree:
    if len(content) % 32 or len(content) // 32 > 1 << tree_height:
        raise _wrong("tree", root, f"{len(content)} bytes are not the leaves of a tree of height {tree_height}")
    leaves = [content[i : i + 32] for i in range(0, len(content), 32)] or [ZERO]
    tree = Tree(leaves, tree_height)
    if tree.root != root:
        raise _wrong("tree", root, "the leaves hash to another root")
    return tree


def _read_path(source: DataSource, own: Tree, root: bytes) -> PathTree:
    """Walks down along the first difference, a few levels at a time; every answer is checked against the node above."""
    level, index = own.height, 0
    known = {(level, 0): root}
    while level:
        m = min(MAX_DEPTH, level)
        content = source.nodes(root, own.height, level, index, m)
        if len(content) != 32 << m:
            raise _wrong("tree", root, f"{len(content)} bytes are not {1 << m} nodes")
        below = Tree([content[i : i + 32] for i in range(0, len(content), 32)], m)
        if below.root != known[level, index]:
            raise _wrong("tree", root, "the nodes hash to another node")
        for k in range(m):
            for i in range(1 << m - k):
                known[level - m + k, (index << m - k) + i] = below.node(k, i)
        mine = own.children(level, index, m)
        found = next((i for i in range(1 << m) if mine[i] != below.leaf(i)), None)
        if found is None:
            raise _wrong("tree", root, "it does not differ from one's own")
        level, index = level - m, (index << m) + found
    return PathTree(own, known, index)


def _load_program(files: Mapping[str, bytes], root: bytes) -> Program:
    unknown = sorted(set(files) - set(PROGRAM_FILES))
    if unknown or PROGRAM_FILES[0] not in files:
        raise _wrong("program", root, f"files {sorted(files)} were served, {list(PROGRAM_FILES)} are expected")
    if sum(len(content) for content in files.values()) > MAX_PROGRAM_BYTES:
        raise _wrong("program", root, f"the files are larger than {MAX_PROGRAM_BYTES} bytes")
    with tempfile.TemporaryDirectory(prefix="verde-") as folder:
        path = Path(folder)
        for name in files:  # only names of PROGRAM_FILES get here, so no path can lead out of the folder
            (path / name).write_bytes(files[name])
        program = Program.load(path)
    if program.root != root:
        raise _wrong("program", root, f"the files are those of the program 0x{program.root.hex()}")
    return program
