"""scripts/bench_repops.py: its rows are measured, compared with torch's values and printed as promised."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "bench_repops.py"
KEYS = {"op", "shape", "threads", "isa", "kind", "ours_s", "torch_s", "ratio", "aa"}


def _run(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments], check=True, capture_output=True, text=True, timeout=300
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
