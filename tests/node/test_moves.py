"""The opening that closes a level, for a side that has not got A's tree."""

from __future__ import annotations

import hashlib

import pytest

from node.data import Fetcher, MemoryStore
from node.errors import MissingData, WrongRoot
from node.moves import PathTree, Place, opening_before, siblings_of_a
from node.structs import Side
from repops.commit import Tree, divergence_between, divergence_proof, verify_proof
from repops.errors import CommitmentError


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


def served(tree: Tree) -> Fetcher:
    store = MemoryStore(lambda: (0, 0))
    store.put_nodes(tree)
    return Fetcher([store])


@pytest.mark.parametrize("height", [1, 5, 6, 7, 9])
@pytest.mark.parametrize("side", list(Side))
def test_the_path_to_the_first_difference_is_all_that_a_move_needs(height: int, side: Side) -> None:
    for position in {0, 1, (1 << height) // 3, (1 << height) - 1}:
        own, theirs = two_trees(height, position)
        path = served(theirs).path(own, theirs.root)
        assert path.root == theirs.root
        place = Place(height, 0, 2, ())
        step, whole = (place.step(own, tree, side, ()) for tree in (path, theirs))
        assert step == whole and (step.position, step.rest) == (position, 0)
        if position:
            a = own if side is Side.A else theirs
            assert place.before(own, own if side is Side.A else path, step).proof == tuple(a.prove(position - 1))


def test_a_path_knows_nothing_right_of_it() -> None:
    own, theirs = two_trees(8, 3)
    path = served(theirs).path(own, theirs.root)
    assert isinstance(path, PathTree)
    assert path.leaf(2) == own.leaf(2)
    with pytest.raises(CommitmentError, match="not known"):
        path.leaf(200)


def test_a_served_path_is_checked_node_by_node() -> None:
    class Twisted(MemoryStore):
        def nodes(self, *asked: object) -> bytes:
            content = super().nodes(*asked)  # type: ignore[arg-type]
            return content if asked[2] == 8 else bytes([content[0] ^ 1]) + content[1:]

    own, theirs = two_trees(8, 200)
    store = Twisted(lambda: (0, 0))
    store.put_nodes(theirs)
    with pytest.raises(WrongRoot, match="hash to another node"):
        Fetcher([store]).path(own, theirs.root)
    with pytest.raises(MissingData):
        Fetcher([store]).path(own, own.root)
    same = MemoryStore(lambda: (0, 0))
    same.put_nodes(own)
    with pytest.raises(WrongRoot, match="does not differ"):
        Fetcher([same]).path(own, own.root)
