"""What a move takes from earlier moves: the opening that closes a level (docs/spec/game.md, section 3). Pure."""

from __future__ import annotations

from collections.abc import Sequence

from repops.commit import Tree, hash_pair


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
