"""docs/gas.md: its matches are played to the right end, its numbers are those of receipts, and it is up to date.

Small matches and single rows here; `make gas` measures the whole page.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
import gas
from sparse_match import Dispute, Scale, SparseTree
from sparse_play import SMALL, Game, How, Net

from node.structs import RefereeKind, Side
from repops.commit import Tree, verify_divergence, verify_proof

STALE = "run scripts/gas.py --write"


@pytest.fixture(scope="module")
def page() -> str:
    return gas.PAGE.read_text(encoding="utf-8")


@pytest.fixture
def net() -> Iterator[Net]:
    yield gas.fresh()


def play(net: Net, scale: Scale, how: How) -> Game:
    """Plays a match; what it is said to have cost is what its transactions have cost, one a receipt."""
    dispute = Dispute(scale)
    for _ in net.prepare(dispute):
        pass
    before = net.devnet.chain.head.number
    game = Game(net, dispute, how)
    played = game.play()
    game.check()
    mined = [tx for block in net.devnet.chain.blocks[before + 1 :] for tx in block.transactions]
    assert [tx.gas_used for tx in mined] == [t.gas for t in played]
    assert [len(tx.transaction.data) for tx in mined] == [t.size for t in played]
    total = gas.Total.of(played)
    assert (total.gas, total.transactions) == (sum(tx.gas_used for tx in mined), len(mined))
    assert total.largest == max(tx.gas_used for tx in mined)
    return game


@pytest.mark.parametrize("honest", Side)
@pytest.mark.parametrize(("how", "bits"), [(How.AT_ONCE, 1), (How.INTERACTIVE, 2), (How.INTERACTIVE, 5)])
def test_the_honest_side_wins(net: Net, how: How, bits: int, honest: Side) -> None:
    play(net, replace(SMALL, arity_bits=bits, honest=honest), how)


def test_verb_by_verb(net: Net) -> None:
    play(net, replace(SMALL, arity_bits=5), How.SINGLE)


def test_other_ends(net: Net) -> None:
    play(net, replace(SMALL, referee=RefereeKind.COMMITTEE, honest=Side.B), How.AT_ONCE)
    net.reset()
    play(net, replace(SMALL, hash_node=True, slots=4), How.AT_ONCE)


@pytest.mark.parametrize(
    "scale",
    [
        replace(SMALL, steps=16, interval=4, nodes=64, elements=1 << 12, path="left", vm_height=12),
        replace(SMALL, interval=1),
        replace(SMALL, steps=1, interval=1),
        replace(SMALL, nodes=64, steps=1, interval=1),  # its input is an earlier node's output
    ],
)
def test_other_trees(net: Net, scale: Scale) -> None:
    play(net, scale, How.AT_ONCE)


def test_transactions_of_a_match(net: Net) -> None:
    """The sequences that the page promises."""
    scale = replace(SMALL, steps=16, interval=4, nodes=64, elements=1 << 12)
    net.reset()
    for how, wanted in (
        (How.AT_ONCE, [
            ["pair", "advance, closing", "post, A"],
            ["post, B", "advance, closing"],
            ["post, A"],
            ["post, B", "advance, closing"],
            ["begin", "advance, closing", "showTiles, both", "post, A"],
            ["post, B", "advance, closing", "execute"],
        ]),
        (How.INTERACTIVE, [
            ["pair", "open"],
            ["advance, closing"],
            ["post, A"],
            ["post, B"],
            ["advance, closing", "post, A"],
            ["post, B"],
            ["advance"],
            ["advance"],
            ["advance, closing"],
            ["begin", "open"],
            ["advance"],
            ["advance, closing", "showTiles, A"],
            ["showTiles, both"],
            ["post, A"],
            ["post, B"],
        ]),
    ):  # fmt: skip
        net.reset()
        dispute = Dispute(scale)
        list(net.prepare(dispute))
        played = Game(net, dispute, how).play()
        assert [list(t.verbs) for t in played][: len(wanted)] == wanted
        sides = [t.side for t in played[:6]]
        assert sides == [Side.A, Side.B, Side.A, Side.B, Side.A, Side.B]


def test_sparse_trees_prove_what_they_hold() -> None:
    """Proofs, children and divergences hash to the root, by the library's own checks."""
    sides = [SparseTree("t", 20, 700_000, {5: b"5" * 32, 700_000: s.name.encode() * 32}, s, bits=4) for s in Side]
    for tree in sides:
        for leaf in (5, 699_999, 700_000, 2**20 - 1):
            assert verify_proof(tree.root, 20, leaf, tree.leaf(leaf), tree.prove(leaf))
        children = tree.children(20, 0, 4)
        assert Tree(children).root == tree.root
    a, b = sides
    assert a.leaf(699_999) == b.leaf(699_999) and a.leaf(2**20 - 1) != b.leaf(2**20 - 1)
    found = Dispute(SMALL).tiles.proof(0, 0)
    assert verify_divergence(found.a, found.b, 0, 0, found.a, found.b, found.siblings)


def test_arity_does_not_matter_in_one_transaction_mode(net: Net) -> None:
    """But for the zero bytes of hashes, which come and go, and a word that may be overwritten by itself."""
    totals = [gas.total(replace(SMALL, arity_bits=bits), How.AT_ONCE).gas for bits in (1, 4, 5)]
    assert max(totals) - min(totals) < 5_000


# -- the page ----------------------------------------------------------------------------------------------------------


def test_a_row_of_the_page_is_up_to_date(page: str) -> None:
    row = gas.ROWS[0]
    assert row.line(row.measure()) in page.splitlines(), STALE


def test_the_bars_of_the_page_are_up_to_date(page: str) -> None:
    total = gas.total(gas.BASE, How.AT_ONCE)
    assert f"| {total.gas:,} ({total.transactions}) |" in page, STALE
    assert f"| to the instruction, one-transaction | {total.gas:,} |" in page, STALE


def test_the_contracts_of_the_page_are_up_to_date(page: str) -> None:
    found = gas.contracts()
    assert set(found) >= {"Verde", "CommitteeReferee", "EvmReferee", "AppealReferee"}
    for name, numbers in found.items():
        assert gas.contract_line(name, *numbers) in page.splitlines(), STALE
        assert numbers[0] <= gas.CODE_LIMIT


def test_limits_are_noticed() -> None:
    nothing = gas.Measured(
        {}, {}, {}, {"Verde|pair": (1, gas.TRANSACTION_LIMIT), "Verde|open": (1, 1)}, {"Verde": (gas.CODE_LIMIT, None)}
    )
    assert nothing.problems() == []
    large = replace(nothing, contracts={"Verde": (gas.CODE_LIMIT + 1, None)})
    dear = replace(nothing, verbs={**nothing.verbs, "Verde|open": (1, gas.TRANSACTION_LIMIT + 1)})
    assert len(large.problems()) == len(dear.problems()) == 1
