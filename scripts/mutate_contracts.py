#!/usr/bin/env python3
"""Breaks the contracts on purpose, guard by guard, and runs the test that must notice.

    scripts/mutate_contracts.py                  every mutation
    scripts/mutate_contracts.py Clock Merkle     those of the named files
    scripts/mutate_contracts.py --write          also records the result in docs/mutations.md

The mutations stand in tests/contracts/mutations.toml. Each replaces one piece of source text, which must occur exactly
once, and names one forge test. The test must pass on the true source and fail on the broken one; a test that still
passes is reported as SURVIVED and the exit status is 1. Files are restored whatever happens.
Needs node and `npm install` in the project's root; Python's standard library only.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from build_contracts import ROOT, BuildError, find_forge

TABLE = ROOT / "tests" / "contracts" / "mutations.toml"
RECORD = ROOT / "docs" / "mutations.md"


@dataclass(frozen=True)
class Mutation:
    """One broken guard: in `file` (under contracts/) `old` becomes `new`, and `test` of `suite` must fail."""

    guard: str
    file: str
    old: str
    new: str
    suite: str
    test: str


def read_table() -> list[Mutation]:
    """The mutations of tests/contracts/mutations.toml."""
    return [Mutation(**entry) for entry in tomllib.loads(TABLE.read_text("utf-8"))["mutation"]]


def run_test(suite: str, test: str) -> tuple[bool, str]:
    """Runs one forge test. Returns whether it passed, and forge's output. Raises BuildError if it did not run."""
    command = [find_forge(), "test", "--match-path", f"tests/contracts/{suite}.t.sol", "--match-test", rf"^{test}\b"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    if re.search(rf"\[PASS\] {test}\(", output):
        return True, output
    if re.search(rf"\[FAIL[^\n]*\] {test}\(", output):
        return False, output
    raise BuildError(f"{suite}.{test} did not run:\n{output}")


def find(mutation: Mutation) -> str:
    """The text to replace, as the source has it. Raises BuildError unless it occurs exactly once."""
    # forge fmt breaks long statements over lines; a space in the table stands for any white space.
    pattern = re.sub(r"(?:\\ )+", r"\\s+", re.escape(mutation.old)).replace(r"\(", r"\(\s*").replace(r"\)", r"\s*\)")
    found: list[str] = re.findall(pattern, (ROOT / "contracts" / mutation.file).read_text("utf-8"))
    if len(found) != 1:
        raise BuildError(f"{mutation.file}: {mutation.old!r} occurs {len(found)} times, must be once")
    return found[0]


def killed(mutation: Mutation) -> bool:
    """Whether the test notices the mutation. The source is restored before this returns or raises."""
    path = ROOT / "contracts" / mutation.file
    original = path.read_text("utf-8")
    try:
        path.write_text(original.replace(find(mutation), mutation.new), "utf-8")
        passed, _ = run_test(mutation.suite, mutation.test)
        return not passed
    finally:
        path.write_text(original, "utf-8")


def record(rows: list[tuple[Mutation, bool]]) -> str:
    """docs/mutations.md."""
    lines = [
        "# Mutations",
        "",
        "Each guard of the contracts was removed or bent, one at a time, and the named test was run: it must fail.",
        "What exactly is changed stands in `tests/contracts/mutations.toml`. Made by",
        f"`scripts/mutate_contracts.py --write`: {sum(dead for _, dead in rows)} of {len(rows)} mutations are caught.",
        "",
        "| file | guard | test | result |",
        "|---|---|---|---|",
    ]
    for mutation, dead in rows:
        verdict = "caught" if dead else "**survived**"
        lines.append(
            f"| `{mutation.file}` | {mutation.guard} | `{mutation.suite}.t.sol` `{mutation.test}` | {verdict} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description="Break the contracts guard by guard; the named tests must notice.")
    parser.add_argument("files", nargs="*", help="stems of the files to mutate, e.g. Clock; all by default")
    parser.add_argument("--write", action="store_true", help="record the result in docs/mutations.md")
    arguments = parser.parse_args()
    table = read_table()
    chosen = [m for m in table if not arguments.files or Path(m.file).stem in arguments.files]
    if arguments.write and len(chosen) != len(table):
        parser.error("--write records all mutations; name no files")
    rows: list[tuple[Mutation, bool]] = []
    try:
        for mutation in chosen:
            find(mutation)
        for suite, test in sorted({(m.suite, m.test) for m in chosen}):
            passed, output = run_test(suite, test)
            if not passed:
                raise BuildError(f"{suite}.{test} fails on the true source:\n{output}")
        for mutation in chosen:
            dead = killed(mutation)
            rows.append((mutation, dead))
            print(
                f"{'caught  ' if dead else 'SURVIVED'}  {mutation.file:26} {mutation.guard}  ({mutation.test})",
                flush=True,
            )
    except BuildError as error:
        print(f"mutate_contracts: {error}", file=sys.stderr)
        return 1
    survived = sum(not dead for _, dead in rows)
    print(f"{len(rows) - survived} of {len(rows)} mutations caught")
    if arguments.write:
        RECORD.write_text(record(rows), "utf-8")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
