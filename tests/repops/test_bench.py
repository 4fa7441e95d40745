"""scripts/bench_repops.py, bench_step.py: rows are measured and printed as promised; operators have torch's values."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent.parent / "scripts"
KEYS = {"op", "shape", "threads", "isa", "kind", "ours_s", "torch_s", "ratio", "aa"}


def _run(*arguments: str, script: str = "bench_repops.py") -> str:
    return subprocess.run(
        [sys.executable, SCRIPTS / script, *arguments], check=True, capture_output=True, text=True, timeout=300
    ).stdout


def test_json_and_tables(tmp_path: Path) -> None:
    only = ("--only", r"add \[32768\]|matmul b12 128x64x128 NT", "--rounds", "1", "--threads", "1", "--quiet")
    saved = tmp_path / "rows.json"
    saved.write_text(_run(*only, "--json"), encoding="utf-8")
    rows = json.loads(saved.read_text(encoding="utf-8"))
    assert rows and {row["op"] for row in rows} == {"add", "matmul"}
    for row in rows:
        assert set(row) - {"openblas_ratio"} == KEYS
        assert ("openblas_ratio" in row) == (row["kind"] == "gemm")
        assert row["ours_s"] > 0 and row["torch_s"] > 0 and row["ratio"] > 0
    table = _run("--from", str(saved), "--markdown")
    assert "| matmul b12 128x64x128 NT |" in table and "| add [32768] |" in table
    assert "geometric mean" in _run("--from", str(saved))


def test_list_has_every_kind() -> None:
    kinds = {line.split()[0] for line in _run("--list").splitlines()}
    assert kinds == {"gemm", "compute", "memory"}


def test_training_steps_of_chosen_sides() -> None:
    tiny = ("--model", "tiny", "--threads", "1", "--pairs", "1")
    row = json.loads(_run(*tiny, "--sides", "torch", "backend", "--with-loss", "--json", script="bench_step.py"))
    taken, memory = {"torch_s", "backend_s", "torch/backend"}, {"torch_bytes", "backend_bytes"}
    assert set(row) == {"model", "threads", "torch_to_itself", *taken, *memory}
    assert all(row[key] > 0 for key in taken | memory) and row["torch_to_itself"] is None  # one turn has no next
    assert row["torch/backend"] == row["torch_s"] / row["backend_s"]
    table = _run(*tiny, "--sides", "ours", "torch", "--no-memory", "--markdown", script="bench_step.py").splitlines()
    assert table[0] == "| model, threads | ours | eager | eager / ours | state root every 10 steps |"
    assert len(table) == 3 and table[2].startswith("| tiny, 1 | ") and table[2].endswith(" % |")
