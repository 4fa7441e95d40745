"""The opening that closes a level, for a side that has not got A's tree."""

from __future__ import annotations

import hashlib

import pytest

from node.moves import opening_before, siblings_of_a
from repops.commit import Tree, divergence_between, divergence_proof, verify_proof


def leaf(*seed: object) -> bytes:
    return hashlib.sha256(repr(seed).encode()).digest()


def two_trees(height: int, position: int) -> tuple[Tree, Tree]:
    """Trees that differ from `position` on, everywhere."""
    a = [leaf("a", i) for i in range(1 << height)]
    b = a[:position] + [leaf("b", i) for i in range(position, 1 << height)]
    return Tree(a, height), Tree(b, height)


@pytest.mark.parametrize("height", range(1, 7))
def test_b_opens_the_leaf_before_under_the_root_of_a(height: int) -> None:
    for position in range(1, 1 << height):
        a, b = two_trees(height, position)
        found = divergence_between(a, b, height, 0)
        siblings = siblings_of_a(found.index, found.m, found.siblings)
        assert siblings == a.prove(position)
        value, proof = opening_before(b, position, found.a, siblings)
        assert proof == a.prove(position - 1)
        assert verify_proof(a.root, height, position - 1, value, proof)


@pytest.mark.parametrize("arity", [1, 2, 3])
def test_the_siblings_of_a_come_together_over_the_moves_of_a_level(arity: int) -> None:
    height = 6
    for position in range(1, 1 << height):
        a, b = two_trees(height, position)
        rest, at, moves = height, 0, []
        mover_is_a = False
        while rest:
            mine, other = (a, b) if mover_is_a else (b, a)
            found = divergence_proof(mine, rest, at, other.children(rest, at, min(arity, rest)), mine_is_a=mover_is_a)
            at, rest = at << found.m | found.index, rest - found.m
            moves.append(found)
            mover_is_a = not mover_is_a
        assert at == position
        siblings = [s for move in reversed(moves) for s in siblings_of_a(move.index, move.m, move.siblings)]
        value, proof = opening_before(b, position, moves[-1].a, siblings)
        assert verify_proof(a.root, height, position - 1, value, proof)
