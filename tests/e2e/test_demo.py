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


@pytest.mark.parametrize("mode", [(), ("--one-transaction",)])
def test_the_chain_alone_judges(mode: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    report = demo(capsys, "--referee", "evm", "--cheat-step", "3", "--cheat-node", "40", "--cheat-element", "5", *mode)
    assert report["referee"] == "evm"
    (match,) = report["matches"]  # type: ignore[misc]
    found = match["exhibit"]
    assert (match["step"], match["node"], found["element"]) == (3, 40, 5)
    assert found["instruction"] and found["operands"]
    assert all({"name", "hex", "decimal"} == set(operand) for operand in found["operands"])
    claims = {claim["who"]: claim for claim in found["claims"]}
    honest, liar = claims["provider 0"], claims["provider 1 (liar)"]
    assert honest["value"] == found["truth"]["value"] != liar["value"]
    assert honest["state_after"] == found["truth"]["state_after"] != liar["state_after"]


def test_an_appeal_beats_a_lying_committee(capsys: pytest.CaptureFixture[str]) -> None:
    report = demo(capsys, "--cheat", "lying-committee")
    assert report["referee"] == "appeal" and report["slashed"] == ["provider 1 (liar)"]
    (match,) = report["matches"]  # type: ignore[misc]
    assert sorted(match["wrong_members"]) == ["member 0 (liar)", "member 1 (liar)"]
    assert match["exhibit"]["instruction"]


def test_what_the_chain_found_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["demo", "--steps", "2", "--interval", "1", "--referee", "evm"]
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert not stopped.value.code
    out = capsys.readouterr().out
    for said in ("is the first that differs", "instruction", "truth", "the chain executed one instruction"):
        assert said in out
    assert "the trial goes on below it" in out


def test_a_committee_is_named_as_the_one_that_recomputes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["demo", "--steps", "2", "--interval", "1", "--cheat-step", "1"])
    out = capsys.readouterr().out
    assert "(the committee recomputes it)" in out and "the committee recomputed the operator" in out


def test_an_unknown_referee_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["demo", "--referee", "oracle"])
    assert stopped.value.code == 2
    assert "Known: committee, evm, appeal" in capsys.readouterr().err


def test_one_transaction_levels_take_fewer_moves(capsys: pytest.CaptureFixture[str]) -> None:
    (slow,) = demo(capsys)["matches"]  # type: ignore[misc]
    (fast,) = demo(capsys, "--one-transaction")["matches"]  # type: ignore[misc]
    assert (slow["step"], slow["node"]) == (fast["step"], fast["node"])
    assert fast["moves"] < slow["moves"]
    assert fast["transactions"] < slow["transactions"] <= slow["moves"]
    assert fast["gas"] < slow["gas"]
