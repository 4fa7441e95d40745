"""`verde demo`, shortened: every kind of cheating ends with the honest root."""

from __future__ import annotations

import json
from functools import cache

import pytest

from node import cli
from node.adversaries import CHEATS
from node.demo import workload

STEPS, INTERVAL = 6, 2


@pytest.fixture(autouse=True, scope="module")
def captured_once() -> object:
    """The workload is captured once for all runs: capturing is tested elsewhere and takes most of a short run."""
    patch = pytest.MonkeyPatch()
    patch.setattr(workload, "digits_transformer", cache(workload.digits_transformer))
    yield None
    patch.undo()


def demo(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    """The JSON object of a short run, which must exit with 0."""
    try:
        cli.main(["demo", "--steps", str(STEPS), "--interval", str(INTERVAL), "--json", *arguments])
    except SystemExit as stopped:
        assert not stopped.code, capsys.readouterr()
    out = capsys.readouterr().out
    report: dict[str, object] = json.loads(out)
    return report


@pytest.mark.parametrize("cheat", ["none", *CHEATS])
@pytest.mark.parametrize("seed", [0])
def test_the_honest_root_wins(cheat: str, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    report = demo(capsys, "--cheat", cheat, "--seed", str(seed))
    assert report["settled"]
    assert report["winner_root"] == report["honest_root"]
    assert report["conserved"]
    slashed, paid = report["slashed"], report["paid"]
    assert isinstance(slashed, list)
    assert isinstance(paid, dict)
    liars = sorted(name for name in paid if name.endswith("(liar)"))
    assert sorted(slashed) == liars
    assert all(paid[name] < 0 for name in liars)
    honest = [name for name in paid if name not in liars and name != "client"]
    assert honest
    assert all(paid[name] > 0 for name in honest)
    assert paid["client"] <= 0


def test_the_report_has_what_users_read(capsys: pytest.CaptureFixture[str]) -> None:
    report = demo(capsys, "--cheat-step", "3", "--cheat-node", "40")
    for key in ("settled", "winner_root", "honest_root", "accuracy", "slashed", "matches", "transactions", "gas_total"):
        assert key in report
    (match,) = report["matches"]  # type: ignore[misc]
    assert (match["step"], match["node"]) == (3, 40)
    assert match["operator"]
    assert match["moves"] > 0
    assert match["gas"] > 0
    assert 0 <= report["accuracy"] <= 1  # type: ignore[operator]


def test_one_transaction_levels_take_fewer_moves(capsys: pytest.CaptureFixture[str]) -> None:
    (slow,) = demo(capsys)["matches"]  # type: ignore[misc]
    (fast,) = demo(capsys, "--one-transaction")["matches"]  # type: ignore[misc]
    assert (slow["step"], slow["node"]) == (fast["step"], fast["node"])
    assert fast["moves"] < slow["moves"]
    assert fast["gas"] < slow["gas"]
