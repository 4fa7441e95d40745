"""The command line: exit codes, what goes where, and that bad values get one clear line and no traceback."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from node import cli
from node.adversaries import CHEATS
from repops.dtypes import DType
from repops.graph.ir import BatchTensor, Constant, Input, Node, Program, Ref, Slot


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A saved program: y = x + c, a counter that does not change."""
    node = Node(
        "add",
        (),
        (),
        (Input(Ref.state(0), DType.F32, (2, 3)), Input(Ref.constant(0), DType.F32, (3,))),
        DType.F32,
        (2, 3),
    )
    built = Program(
        slots=(Slot("x", DType.F32, (2, 3), Ref.node(0)), Slot("count", DType.I64, (), Ref.state(1))),
        batch=(BatchTensor("unused", DType.F32, (1,)),),
        constants=(Constant.of(np.ones(3, np.float32)),),
        nodes=(node,),
    ).check()
    built.save(tmp_path / "p.program")
    return tmp_path / "p.program"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `verde ARGUMENTS`."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments))
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, captured.err


def test_inspect_json_names_everything(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "program", "inspect", str(program), "--json")
    shown = json.loads(out)
    assert (code, err) == (0, "")
    assert shown["root"] == "0x" + Program.load(program).root.hex()
    assert shown["nodes"] == {"compute": 1, "hash": 1, "trace": 2}
    assert shown["operators"] == {"add": 1}
    assert [slot["name"] for slot in shown["slots"]] == ["x", "count"]


def test_inspect_prints_a_table(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "program", "inspect", str(program))
    assert code == 0
    for text in ("add", "count", "node:0", "state:1", Program.load(program).root.hex()):
        assert text in out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("program", "inspect", "/nowhere/at/all"), "/nowhere/at/all"),
        (("demo", "--cheat", "bribe"), "bribe"),
        (("demo", "--providers", "1"), "--providers"),
        (("demo", "--providers", "17"), "--providers"),
        (("demo", "--seed", "-1"), "--seed"),
        (("demo", "--seed", "many"), "--seed"),
        (("demo", "--steps", "10", "--interval", "11"), "--interval"),
        (("demo", "--steps", "10", "--interval", "5", "--cheat-step", "10"), "--cheat-step"),
        (("demo", "--cheat", "two-lies", "--providers", "2"), "--providers"),
        (("demo", "--cheat", "skip-step", "--cheat-node", "3"), "--cheat-node"),
        (("demo", "--steps", "4", "--interval", "2", "--cheat-node", "99999"), "--cheat-node"),
        (("demo", "--cheat", "skip-step", "--cheat-element", "3"), "--cheat-element"),
        (("bogus",), "bogus"),
    ],
)
def test_bad_values_exit_with_2_and_name_the_thing(
    arguments: tuple[str, ...], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, *arguments)
    assert code == 2, err
    assert named in err
    assert "Traceback" not in err + out


def test_a_damaged_program_is_refused_in_one_line(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (program / "program.json").read_text()
    (program / "program.json").write_text(text[: len(text) // 2])
    code, out, err = run(capsys, "program", "inspect", str(program))
    assert (code, out) == (2, "")
    assert err.startswith("verde: ")
    assert err.count("\n") == 1


def test_help_lists_every_cheat(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "demo", "--help")
    assert code == 0
    flat = "".join(out.replace("│", "").split())
    for name in CHEATS:
        assert name in flat
