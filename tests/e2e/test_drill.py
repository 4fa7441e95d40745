"""`verde drill`: a flipped bit in an operator's output, found by the chain.

`REPOPS_DRILL=all` disputes every operator of the demo's program (scripts/drill.sh); without it a few, always the same.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from world import mlp, training_job

from node import cli
from node.demo.workload import Workload, digits_transformer
from node.drill import operators, random_tensors, run_drill

SAMPLE = 12  # operators a run
SEED = 4


@pytest.fixture(scope="module")
def workload() -> Workload:
    return digits_transformer(2, 0)


def test_a_flipped_bit_in_any_operator_of_the_demo_is_found(workload: Workload) -> None:
    names = list(operators(workload.program))
    if os.environ.get("REPOPS_DRILL") != "all":
        names = random.Random(SEED).sample(names, SAMPLE)
    report = run_drill(workload.program, names, workload.initial_state, workload.batches[0], seed=SEED)
    lost = [(found.operator, found.node, found.ruling) for found in report.disputes if not found.honest_won]
    assert not lost
    assert len(report.disputes) == len(names) and not report.skipped
    for found in report.disputes:
        assert found.exhibit is not None and found.exhibit.instruction
        assert found.trial_gas < found.gas


def test_denormals_infinities_and_payloads_of_nans_are_judged_alike() -> None:
    program = mlp()
    state, batch = random_tensors(program.slots, 1), random_tensors(program.batch, 2)
    special = np.array(
        [0x7FC12345, 0xFFA00001, 0x7F800000, 0xFF800000, 1, 0x80000001, 0x007FFFFF, 0x80000000], np.uint32
    )
    for tensors in (state, batch):
        for array in tensors.values():
            flat = array.reshape(-1).view(np.uint32)
            flat[::5] = np.resize(special, flat[::5].shape)
    report = run_drill(program, list(operators(program)), state, batch, seed=SEED)
    assert report.honest_won, [(found.operator, found.ruling) for found in report.disputes]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program"
    mlp().save(path)
    return path


def drill(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = 0
    try:
        cli.main(["drill", *arguments])
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    out = capsys.readouterr()
    return code, out.out, out.err


def test_all_operators_of_a_program_directory(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = drill(capsys, str(program), "--all", "--json")
    report = json.loads(out)
    assert code == 0 and report["honest_won"]
    assert [found["operator"] for found in report["disputes"]] == list(operators(mlp()))
    assert all(found["moves"] and found["gas"] for found in report["disputes"])


def test_given_contents_move_by_move(program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = training_job()
    save_file(dict(job.initial), tmp_path / "state")
    save_file(dict(job.batches[0]), tmp_path / "batch")
    given = ("--state", str(tmp_path / "state"), "--batch", str(tmp_path / "batch"))
    one = drill(capsys, str(program), "--operator", "tanh", *given, "--json")
    many = drill(capsys, str(program), "--operator", "tanh", *given, "--interactive", "--arity-bits", "1", "--json")
    (quick,), (slow,) = (json.loads(out)["disputes"] for _, out, _ in (one, many))
    assert quick["honest_won"] and slow["honest_won"]
    assert (quick["node"], quick["element"], quick["instruction"]) == (
        slow["node"],
        slow["element"],
        slow["instruction"],
    )
    assert slow["moves"] > quick["moves"] and slow["gas"] > quick["gas"]
    assert slow["transactions"] > quick["transactions"] == 4, "there is one checkpoint"


def test_the_table_is_for_people(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = drill(capsys, str(program), "--operator", "sub")
    assert code == 0
    assert "FSUB" in out and "1 of 1 lies found" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Give --all, or --operator NAME"),
        (("--all", "--operator", "add"), "Give --all, or --operator NAME"),
        (("--operator", "conv3d"), "the program has no conv3d"),
        (("--all", "--state", "/nowhere"), "not a safetensors file"),
    ],
)
def test_what_cannot_be_drilled(
    program: Path, arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = drill(capsys, str(program), *arguments)
    assert code == 2 and says in err


def test_random_contents_fit_the_program() -> None:
    job = training_job()
    state = random_tensors(job.program.slots, 1)
    assert {name: (a.dtype, a.shape) for name, a in state.items()} == {
        name: (a.dtype, a.shape) for name, a in job.initial.items()
    }
