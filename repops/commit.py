"""Commitments: tensors, states, batches, data sets, traces and claims as 32-byte roots (docs/spec/commitments.md).

Roots, leaves and nodes are `bytes` of length 32. Trees keep only the nodes over real leaves; everything over missing
leaves is known from its level alone. Hashing runs in C++ (csrc/hash), from the tensor's own memory, without the GIL.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

import repops._kernels as _kernels  # noqa: PLR0402
from repops.dtypes import DType
from repops.errors import CommitmentError, TensorError

Hashes = npt.NDArray[np.uint8]

HASH_BYTES = 32
TILE_BYTES = 1024
MAX_HEIGHT = 64
ZERO = bytes(HASH_BYTES)


def keccak256(data: bytes) -> bytes:
    """keccak-256 as Ethereum defines it (padding byte 0x01), of any bytes-like object."""
    digest: bytes = _kernels.keccak256(data)
    return digest


def hash_pair(left: bytes, right: bytes) -> bytes:
    """An inner node: keccak256 of its two children, in order. Raises CommitmentError unless both are 32 bytes."""
    return keccak256(_word(left, "left") + _word(right, "right"))


def height(count: int) -> int:
    """ceil(log2(max(count, 1))): the least height whose tree has room for `count` leaves."""
    if count < 0:
        raise CommitmentError(f"a tree cannot have {count} leaves", "height")
    return (max(count, 1) - 1).bit_length()


@cache
def zero_root(level: int) -> bytes:
    """Z_level, the node at `level` (0 to 64) over missing leaves only. Z_0 is ZERO."""
    if not 0 <= level <= MAX_HEIGHT:
        raise CommitmentError(f"level {level} is outside 0 to {MAX_HEIGHT}", "zero_root")
    root: bytes = _kernels.zero_root(level)
    return root


def tensor_root(array: Any, threads: int | None = None) -> bytes:
    """The root of a tensor: the tree over its 1,024-byte tiles; ZERO if it has no elements.

    array: numpy array, torch tensor, or anything with DLPack or a buffer, of any shape and of a dtype of programs (bf16
    in numpy: uint16). Bytes and uint8 arrays count as the tensor's little-endian bytes. Copied only if not contiguous
    or not in CPU memory. threads: default all that the process may use; the root does not depend on it.
    Raises TensorError for another dtype or byte order or an object that is no array.
    """
    return tensor_roots((array,), threads)[0]


def tensor_roots(arrays: Iterable[Any], threads: int | None = None) -> list[bytes]:
    """`tensor_root` of each array, in order. Threads share out the tiles of all of them: quicker than one by one."""
    roots: list[bytes] = _kernels.tensor_roots([_contiguous(array) for array in arrays], _threads(threads))
    return roots


class Tree:
    """A tree of `2^height` leaves, of which the first `count` are real and the others ZERO.

    leaves: 32-byte values, in order, or a uint8 array (count, 32), which is copied. height: 0 to 64, default
    `height(count)`. Level 0 are the leaves, level `height` is the root. Memory: 32 bytes a real node.
    Raises CommitmentError for a leaf of another size or more leaves than fit.
    """

    __slots__ = ("_levels", "count", "height")

    def __init__(self, leaves: Sequence[bytes] | Hashes, height: int | None = None, threads: int | None = None) -> None:
        array = _hash_array(leaves)
        self.count: int = len(array)
        self.height: int = _least_height(self.count) if height is None else height
        if not 0 <= self.height <= MAX_HEIGHT:
            raise CommitmentError(f"height {self.height} is outside 0 to {MAX_HEIGHT}", "tree")
        if self.count > 1 << self.height:
            raise CommitmentError(
                f"{self.count} leaves do not fit into a tree of height {self.height}",
                "tree",
                f"Use height {_least_height(self.count)}",
            )
        self._levels: list[Hashes] = [array, *_kernels.tree_levels(array, self.height, _threads(threads))]

    @property
    def root(self) -> bytes:
        """The node at level `height`."""
        return self.node(self.height, 0)

    def node(self, level: int, index: int) -> bytes:
        """Node `index` of `level`, real or padding. Raises CommitmentError if the tree has no such node."""
        self._check(level, index)
        nodes = self._levels[level]
        return nodes[index].tobytes() if index < len(nodes) else zero_root(level)

    def leaf(self, index: int) -> bytes:
        """Leaf `index`, real or ZERO. Raises CommitmentError unless `0 <= index < 2^height`."""
        return self.node(0, index)

    def leaves(self) -> Hashes:
        """The real leaves, a read-only uint8 array (count, 32)."""
        view = self._levels[0].view()
        view.flags.writeable = False
        return view

    def children(self, level: int, index: int, m: int = 1) -> list[bytes]:
        """The `2^m` nodes that stand `m` levels below node `index` of `level`, left to right; `0 <= m <= level`.

        Raises CommitmentError if the tree has no such node or not that many levels below it.
        """
        self._check(level, index)
        if not 0 <= m <= level:
            raise CommitmentError(f"there are not {m} levels below level {level}", "tree")
        first = index << m
        return [self.node(level - m, first + i) for i in range(1 << m)]

    def prove(self, index: int) -> list[bytes]:
        """The siblings of leaf `index`, bottom-up: `height` hashes. Raises CommitmentError if it does not exist."""
        self._check(0, index)
        return [self.node(level, (index >> level) ^ 1) for level in range(self.height)]

    def _check(self, level: int, index: int) -> None:
        if not 0 <= level <= self.height:
            raise CommitmentError(f"level {level} is outside a tree of height {self.height}", "tree")
        if not 0 <= index < 1 << (self.height - level):
            raise CommitmentError(f"index {index} is outside level {level} of a tree of height {self.height}", "tree")


class TensorTree(Tree):
    """The tile tree of a tensor: leaf i is keccak256 of tile i. `.nbytes`: the tensor's size without padding.

    array, threads, errors: as for `tensor_root`. Keeps a view of the array's memory (a copy where `tensor_root`
    would make one): the tensor must not change while tiles are read.
    """

    __slots__ = ("_bytes", "nbytes")

    def __init__(self, array: Any, threads: int | None = None) -> None:
        contiguous = _contiguous(array)
        self._levels = _kernels.tensor_levels(contiguous, _threads(threads))
        self._bytes: Hashes = _kernels.byte_view(contiguous)
        self.nbytes: int = len(self._bytes)
        self.count = len(self._levels[0])
        self.height = len(self._levels) - 1

    def tile(self, index: int) -> bytes:
        """The 1,024 bytes of tile `index`, the last one padded with zeros.

        Raises CommitmentError for `index >= count`: a padding leaf is ZERO, which is the hash of no tile.
        """
        if not 0 <= index < self.count:
            raise CommitmentError(f"tile {index} does not exist, the tensor has {self.count}", "tensor tree")
        return self._bytes[index * TILE_BYTES : (index + 1) * TILE_BYTES].tobytes().ljust(TILE_BYTES, b"\0")


def verify_proof(root: bytes, height: int, index: int, leaf: bytes, proof: Sequence[bytes]) -> bool:
    """Whether `leaf` is leaf `index` of the tree of `height` with `root`.

    proof: the siblings bottom-up. Never raises for what a stranger sent: a wrong length, a word that is not 32 bytes
    or an index outside the tree is no proof.
    """
    if not _are_words([root, leaf, *proof]) or len(proof) != height or not 0 <= index < 1 << height:
        return False
    node = leaf
    for level, sibling in enumerate(proof):
        node = hash_pair(sibling, node) if index >> level & 1 else hash_pair(node, sibling)
    return node == root


# ---- the trees of the specification ---------------------------------------------------------------------------------


def state_tree(roots: Sequence[bytes] | Hashes) -> Tree:
    """The tree over the tensor roots of a state's slots, in slot order; height `max(1, height(slots))`."""
    return Tree(roots, max(1, height(len(roots))))


def state_root(roots: Sequence[bytes] | Hashes) -> bytes:
    """The root of `state_tree(roots)`."""
    return state_tree(roots).root


def batch_tree(roots: Sequence[bytes] | Hashes) -> Tree:
    """The tree over the tensor roots of a batch's tensors, in the program's order; height `max(1, height(tensors))`."""
    return Tree(roots, max(1, height(len(roots))))


def batch_root(roots: Sequence[bytes] | Hashes) -> bytes:
    """The root of `batch_tree(roots)`."""
    return batch_tree(roots).root


def data_tree(roots: Sequence[bytes] | Hashes) -> Tree:
    """The tree over the batch roots of a data set. Raises CommitmentError if there are none."""
    return _non_empty("data set", "batch", roots)


def data_root(roots: Sequence[bytes] | Hashes) -> bytes:
    """The root of `data_tree(roots)`."""
    return data_tree(roots).root


def constants_tree(roots: Sequence[bytes] | Hashes) -> Tree:
    """The tree over the tensor roots of a program's constants, in order; without constants its root is ZERO."""
    return Tree(roots)


def constants_root(roots: Sequence[bytes] | Hashes) -> bytes:
    """The root of `constants_tree(roots)`."""
    return constants_tree(roots).root


def claim_tree(state_roots: Sequence[bytes] | Hashes) -> Tree:
    """The tree over a claim's checkpoints: leaf i is the state root after `min((i + 1) * interval, steps)` steps.

    Raises CommitmentError if there are none.
    """
    return _non_empty("claim", "checkpoint", state_roots)


def segment_tree(state_roots: Sequence[bytes] | Hashes) -> Tree:
    """The tree over the steps of segment c: leaf i is the state root after step `c * interval + i`.

    Raises CommitmentError if there are none.
    """
    return _non_empty("segment", "step", state_roots)


def trace_tree(output_roots: Sequence[bytes] | Hashes) -> Tree:
    """The tree over the output roots of a step's trace: the compute nodes, then the hash nodes.

    Raises CommitmentError if there are none.
    """
    return _non_empty("trace", "node", output_roots)


def hash_node_roots(slot_roots: Sequence[bytes] | Hashes) -> Hashes:
    """The output roots of the hash nodes of a trace whose new state has these slot roots, in trace order.

    A uint8 array (2^h - 1, 32) with `h = max(1, height(slots))`: the inner nodes of the state tree, those over missing
    slots included, bottom-up and left to right; the last row is the state root.
    """
    tree = state_tree(slot_roots)
    nodes = [tree.node(level, i) for level in range(1, tree.height + 1) for i in range(1 << (tree.height - level))]
    return _hash_array(nodes)


# ---- first divergence -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Divergence:
    """A divergence proof for a pair of nodes (docs/spec/game.md, section 3).

    m: levels from the pair down to the first difference. index: its position among the `2^m` nodes there. a, b: the two
    values there, A's and B's. siblings: bottom-up; where the path goes right one word, the left sibling that both trees
    share; where it goes left two words, A's right sibling, then B's.
    """

    m: int
    index: int
    a: bytes
    b: bytes
    siblings: tuple[bytes, ...]


def first_difference(children_a: Sequence[bytes], children_b: Sequence[bytes]) -> int:
    """The least index at which the two lists differ. Raises CommitmentError if their lengths differ or nothing does."""
    if len(children_a) != len(children_b):
        raise CommitmentError(f"{len(children_a)} children against {len(children_b)}", "divergence")
    for index, (a, b) in enumerate(zip(children_a, children_b, strict=True)):
        if a != b:
            return index
    raise CommitmentError(
        "the two sides' children are equal", "divergence", "There is nothing to dispute below this node"
    )


def divergence_between(a: Tree, b: Tree, level: int, index: int, m: int | None = None) -> Divergence:
    """The divergence proof from node `index` of `level` in A's and B's tree, `m` levels down (default: to the leaves).

    The one-transaction form of a level: the other side's leaves are at hand as a tree of the same height.
    Raises CommitmentError if the heights differ, the node or the levels below it do not exist, or the nodes are equal.
    """
    if a.height != b.height:
        raise CommitmentError(f"heights {a.height} and {b.height} differ", "divergence")
    depth = level if m is None else m
    if not 0 <= depth <= level:
        raise CommitmentError(f"there are not {depth} levels below level {level}", "divergence")

    def below(tree: Tree) -> Callable[[int, int], bytes]:
        return lambda k, i: tree.node(level - depth + k, (index << (depth - k)) + i)

    return _descend(below(a), below(b), depth)


def divergence_proof(
    mine: Tree, level: int, index: int, other_children: Sequence[bytes], *, mine_is_a: bool
) -> Divergence:
    """The divergence proof from node `index` of `level`, against the other side's published children of its node.

    other_children: `2^m` nodes, `1 <= m <= level`. Raises CommitmentError if they are not that many, or equal mine.
    """
    m = height(len(other_children))
    if len(other_children) != 1 << m or not 1 <= m <= level:
        raise CommitmentError(
            f"{len(other_children)} children are not the nodes of 1 to {level} levels below level {level}", "divergence"
        )
    own, other = Tree(mine.children(level, index, m), m, threads=1), Tree(other_children, m, threads=1)
    a, b = (own, other) if mine_is_a else (other, own)
    return _descend(a.node, b.node, m)


def verify_divergence(
    node_a: bytes, node_b: bytes, m: int, index: int, a: bytes, b: bytes, siblings: Sequence[bytes]
) -> bool:
    """Whether (a, b) are the first different nodes, `m` levels below (node_a, node_b), at `index`.

    siblings: as in `Divergence`. That everything to the left is equal follows from the shared left siblings. Never
    raises for what a stranger sent: malformed input is no proof.
    """
    if not _are_words([node_a, node_b, a, b, *siblings]) or not 0 <= m <= MAX_HEIGHT or a == b:
        return False
    if not 0 <= index < 1 << m or len(siblings) != 2 * m - index.bit_count():
        return False
    words = iter(siblings)
    for level in range(m):
        if index >> level & 1:
            left = next(words)
            a, b = hash_pair(left, a), hash_pair(left, b)
        else:
            a, b = hash_pair(a, next(words)), hash_pair(b, next(words))
    return a == node_a and b == node_b


def _descend(node_a: Callable[[int, int], bytes], node_b: Callable[[int, int], bytes], m: int) -> Divergence:
    """Follows the leftmost difference from level m down to level 0; node_x(level, index) gives a side's node."""
    if node_a(m, 0) == node_b(m, 0):
        raise CommitmentError("the two sides' nodes are equal", "divergence", "There is nothing to dispute below them")
    index = 0
    siblings: list[tuple[bytes, ...]] = []
    for level in range(m - 1, -1, -1):
        index *= 2
        if node_a(level, index) != node_b(level, index):
            siblings.append((node_a(level, index + 1), node_b(level, index + 1)))
        else:
            siblings.append((node_a(level, index),))
            index += 1
    flat = tuple(word for words in reversed(siblings) for word in words)
    return Divergence(m, index, node_a(0, index), node_b(0, index), flat)


# ---- checks ---------------------------------------------------------------------------------------------------------

_least_height = height  # the name that `Tree.__init__`, whose argument is called height, can reach


def _non_empty(tree: str, leaf: str, roots: Sequence[bytes] | Hashes) -> Tree:
    if len(roots) == 0:
        raise CommitmentError(f"a {tree} needs at least one {leaf}", tree)
    return Tree(roots)


def _threads(threads: int | None) -> int:
    if threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads < 1:
        raise CommitmentError(f"{threads} threads", "hashing", "Use at least 1, or None for all")
    return threads


def _are_words(values: Sequence[bytes]) -> bool:
    return all(isinstance(value, bytes) and len(value) == HASH_BYTES for value in values)


def _word(value: bytes, where: str) -> bytes:
    if not _are_words([value]):
        size = f"{len(value)} bytes" if isinstance(value, bytes) else type(value).__name__
        raise CommitmentError(f"a hash is bytes of length {HASH_BYTES}, not {size}", where)
    return value


def _hash_array(leaves: Sequence[bytes] | Hashes) -> Hashes:
    """A fresh (n, 32) array."""
    if isinstance(leaves, np.ndarray):
        if leaves.dtype != np.uint8 or leaves.ndim != 2 or leaves.shape[1] != HASH_BYTES:
            raise CommitmentError(
                f"an array of leaves is uint8 (n, {HASH_BYTES}), not {leaves.dtype} {leaves.shape}", "tree"
            )
        return np.array(leaves, order="C")
    joined = b"".join([_word(leaf, f"leaf {i}") for i, leaf in enumerate(leaves)])
    return np.frombuffer(joined, np.uint8).reshape(-1, HASH_BYTES)


def _contiguous(array: Any) -> Any:
    """Something of the tensor's bytes that `_kernels` can read: its own memory, or a contiguous copy in CPU memory."""
    if not isinstance(array, np.ndarray) and hasattr(array, "detach"):  # torch: numpy cannot hold its bf16
        if str(array.dtype) != "torch.uint8":
            DType.of(array.dtype)
        return array.detach().cpu().contiguous()  # each returns its operand where there is nothing to do
    if not isinstance(array, np.ndarray):
        try:
            array = np.from_dlpack(array) if hasattr(array, "__dlpack__") else np.asarray(memoryview(array))
        except (TypeError, ValueError, BufferError, RuntimeError) as error:
            raise TensorError(f"cannot read {type(array).__name__} as a tensor: {error}") from error
    if array.dtype != np.uint8:
        DType.of(array.dtype)
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
