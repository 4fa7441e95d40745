"""docs/operators.md says what capture does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
import build_operator_table as table


@pytest.fixture(scope="module")
def rows() -> dict[str, table.Row]:
    return {row.name: row for row in map(table.row_of, table.overloads())}


def test_the_page_is_what_the_script_writes(rows: dict[str, table.Row]) -> None:
    page = table.PAGE.read_text(encoding="utf-8")
    assert page == table.page(rows.values()), "run scripts/build_operator_table.py"


def test_every_rule_has_a_row_and_an_example_that_it_captures(rows: dict[str, table.Row]) -> None:
    for name in table.lower._RULES:
        assert rows[name].status.startswith(("captured", "composed", "no node")), name


def test_rows_name_what_is_lowered(rows: dict[str, table.Row]) -> None:
    assert rows["aten.mm.default"].operators == "`matmul`"
    assert rows["aten._softmax.default"].operators == "`amax`, `sum_exp`, `softmax`"
    assert rows["aten.add_.Tensor"] == table.Row("aten.add_.Tensor", "see `aten.add.Tensor`", "in place")
    assert "not of integers" in rows["aten.bitwise_and.Tensor"].status
    assert "not threshold *threshold*" in rows["aten.threshold_backward.default"].status
    assert "along an axis longer than 16,384" in rows["aten.cumsum.default"].status


def test_no_row_shows_source_code(rows: dict[str, table.Row]) -> None:
    for name in ("aten.pow.Scalar", "aten.pow.Tensor_Scalar", "aten.pow.Tensor_Tensor", "aten.mm.default"):
        assert "not of some dtypes" in rows[name].status
    for row in rows.values():
        assert not set("{}()") & set(row.status.partition(" (")[0]), row


def test_rows_of_what_is_refused(rows: dict[str, table.Row]) -> None:
    assert rows["aten.nonzero.default"].status == "refused: the shape of its result depends on values"
    assert rows["aten.rand.default"].status == "refused: random numbers of torch's own generator"
