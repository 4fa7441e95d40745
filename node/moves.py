"""What a move takes from earlier moves, and from the other side's tree (docs/spec/game.md, section 3). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from node.structs import Opening, Side
from node.trial import Move
from repops.commit import Divergence, Tree, divergence_between, divergence_proof, hash_pair
from repops.errors import CommitmentError


def siblings_of_a(index: int, m: int, siblings: Sequence[bytes]) -> list[bytes]:
    """A's sibling at each of the `m` levels of a divergence proof, bottom-up."""
    found, at = [], 0
    for level in range(m):
        found.append(siblings[at])
        at += 1 if index >> level & 1 else 2
    return found


def opening_before(own: Tree, position: int, a: bytes, siblings: Sequence[bytes]) -> tuple[bytes, list[bytes]]:
    """Leaf `position - 1` and its proof under A's root, for who does not have A's tree.

    own: any tree that agrees with A's left of `position`. a: A's leaf at `position` (> 0). siblings: A's siblings of
    that leaf, bottom-up, one for each level of the tree. At the level where the two paths part, the sibling is A's node
    above `position`; below it everything is agreed, above it the paths are one.
    """
    before = position - 1
    part = (position ^ before).bit_length() - 1
    node = a
    for level in range(part):
        node = hash_pair(node, siblings[level])
    agreed = [own.node(level, before >> level ^ 1) for level in range(part)]
    return own.leaf(before), [*agreed, node, *siblings[part + 1 :]]


@dataclass(frozen=True)
class Step:
    """Where a divergence proof leads, and what its mover publishes there."""

    found: Divergence
    position: int
    rest: int
    children: tuple[bytes, ...]


@dataclass(frozen=True)
class Place:
    """Where a level stands: the height and index of its nodes, the task's arity, the moves that were made."""

    rest: int
    position: int
    arity_bits: int
    moves: tuple[Move, ...]

    def opening(self, own: Tree) -> tuple[bytes, ...]:
        """One's children of the current node."""
        return tuple(own.children(self.rest, self.position, min(self.arity_bits, self.rest)))

    def step(self, own: Tree, theirs: Tree | None, side: Side, children: Sequence[bytes]) -> Step:
        """The move of `side`: down the whole rest if the other side's tree is at hand, else as far as the children
        reach that it has published."""
        if theirs is not None:
            a, b = (own, theirs) if side is Side.A else (theirs, own)
            found = divergence_between(a, b, self.rest, self.position)
        else:
            found = divergence_proof(own, self.rest, self.position, children, mine_is_a=side is Side.A)
        position, rest = self.position << found.m | found.index, self.rest - found.m
        below = replace(self, rest=rest, position=position)
        return Step(found, position, rest, below.opening(own) if rest else ())

    def before(self, own: Tree, tree_a: Tree | None, step: Step) -> Opening:
        """The leaf before the divergence, under A's root. tree_a: A's tree, if it is at hand."""
        before = step.position - 1
        if tree_a is not None:
            return Opening(tree_a.leaf(before), tuple(tree_a.prove(before)))
        found = step.found
        siblings = siblings_of_a(found.index, found.m, found.siblings)
        for move in reversed(self.moves):
            siblings += siblings_of_a(move.position & (1 << move.m) - 1, move.m, move.siblings)
        value, proof = opening_before(own, step.position, found.a, siblings)
        return Opening(value, tuple(proof))


class PathTree(Tree):
    """Another side's tree of which only the nodes along its first difference from one's own are known. What lies left
    of the path is one's own."""

    __slots__ = ("_known", "_leaf", "_own")

    def __init__(self, own: Tree, known: Mapping[tuple[int, int], bytes], leaf: int) -> None:
        """known: nodes by (level, index): the path, and each node's right sibling. leaf: where the path ends."""
        self._own, self._known, self._leaf = own, known, leaf
        self.count, self.height = own.count, own.height

    def node(self, level: int, index: int) -> bytes:
        """See Tree. Raises CommitmentError for a node that is not known."""
        known = self._known.get((level, index))
        if known is not None:
            return known
        if index < self._leaf >> level:
            return self._own.node(level, index)
        raise CommitmentError(f"node {index} of level {level} is not known", "tree")
