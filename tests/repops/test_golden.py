"""Every instruction set of this machine gives the golden hashes, whatever the number of threads."""

from __future__ import annotations

from collections import Counter

import golden
import golden_programs
import pytest
from golden_cases import MissingCases, cases, shapes_of
from golden_data import Array, Data, Kind

from repops import _kernels
from repops.dtypes import DType
from repops.ops.table import OPERATORS

ISAS = _kernels.isas()
THREADS = {isa: (1, 2, 3) if isa != "scalar" else (2,) for isa in ISAS}


@pytest.fixture(scope="module")
def runs() -> list[golden_programs.Run]:
    return golden_programs.runs()


@pytest.mark.parametrize("op", OPERATORS)
def test_every_operator_and_dtype_has_its_hashes(op: str) -> None:
    expected = {n for n in golden.load(golden.OPERATOR_HASHES) if n.split("(")[0].split(" ")[0] == op}
    names = Counter(case.name for case in cases(op))
    assert max(names.values()) == 1
    assert set(names) == expected, f"run `make vectors`: missing or stale are {sorted(set(names) ^ expected)[:5]}"


def test_an_operator_without_cases_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATORS, "twist", OPERATORS["gather"])
    with pytest.raises(MissingCases, match=r"'twist' has no golden cases.*SHAPES.*make vectors"):
        shapes_of("twist")


@pytest.mark.parametrize("isa", ISAS)
def test_operators(isa: str) -> None:
    expected = golden.load(golden.OPERATOR_HASHES)
    got = {case.name: golden.call_hashes(case, isa, THREADS[isa]) for case in golden.all_cases()}
    different = [name for name, hashes in got.items() if hashes != {expected.get(name)}]
    assert not different, f"{len(different)} of {len(got)} differ, {different[:5]}"


@pytest.mark.parametrize("isa", ISAS)
def test_programs(isa: str, runs: list[golden_programs.Run]) -> None:
    expected = golden.load(golden.PROGRAM_HASHES)
    for threads in THREADS[isa]:
        for fuse in (True, False):
            got = {run.name: golden.run_hash(run, isa, threads, fuse) for run in runs}
            assert got == expected, (isa, threads, fuse)


def test_a_training_learns(runs: list[golden_programs.Run]) -> None:
    """Else 100 steps would prove little: the loss falls, and stays a number."""
    for run in (r for r in runs if r.name.startswith("training")):
        first, last = (loss_after(run, steps) for steps in (1, golden_programs.STEPS))
        assert 0 < last < 0.7 * first, run.name


def loss_after(run: golden_programs.Run, steps: int) -> float:
    from repops.execute import Executor  # noqa: PLC0415

    executor, program = Executor(run.program), run.program
    state: dict[str, Array] = {s.name: d.array() for s, d in zip(program.slots, run.state, strict=True)}
    for batch in run.batches[:steps]:
        state = executor.run(state, {t.name: d.array() for t, d in zip(program.batch, batch, strict=True)})
    return float(state["loss"])


def test_trees() -> None:
    expected = golden.load(golden.TREE_HASHES)
    for isa in _kernels.hash_isas():
        for threads in (1, 3):
            got = {
                name: _kernels.tensor_roots([data.array()], threads, isa)[0].hex()[: 2 * golden.HASH_BYTES]
                for name, data in golden.TREES.items()
            }
            assert got == expected


def test_the_generator_is_known() -> None:
    """Four words, computed apart: a changed generator would change every hash at once."""
    words = Data(DType.I64, (4,), Kind.BITS, 7).array()
    assert [w % 2**64 for w in words.tolist()] == [
        0xB8B4C2977EABCE45,
        0xA65305FD338EC8FE,
        0x8CA3CBB6CA63129B,
        0x9AAF21D8296E1E3D,
    ]
