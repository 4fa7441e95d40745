#!/usr/bin/env python3
"""Breaks the contracts on purpose, guard by guard, and runs the test that must notice.

    scripts/mutate_contracts.py                  every mutation
    scripts/mutate_contracts.py Clock Merkle     those of the named files
    scripts/mutate_contracts.py --stale          those whose file has changed since they were run, and new ones
    scripts/mutate_contracts.py --seconds 200    begins no mutation after that time
    scripts/mutate_contracts.py --check          runs nothing: whether every text to be replaced is there
    scripts/mutate_contracts.py --write          also records what was run in docs/mutations.md; other rows stay

The mutations stand in tests/contracts/mutations.toml. Each replaces one piece of source text, which must occur exactly
once, and names one forge test. The test must pass on the true source and fail on the broken one; a test that still
passes is reported as SURVIVED and the exit status is 1. Files are restored whatever happens.
Needs node and `npm install` in the project's root; Python's standard library only.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from build_contracts import ROOT, BuildError, find_forge

TABLE = ROOT / "tests" / "contracts" / "mutations.toml"
RECORD = ROOT / "docs" / "mutations.md"
TESTS = ROOT / "tests" / "contracts"
DEPLOYED = ("Verde", "CommitteeReferee", "EvmReferee", "AppealReferee", "Float32Calls")


@dataclass(frozen=True)
class Mutation:
    """One broken guard: in `file` (under contracts/) `old` becomes `new`, and `test` of `suite` must fail."""

    guard: str
    file: str
    old: str
    new: str
    suite: str
    test: str

    @property
    def source(self) -> str:
        """Digest of the text that is broken."""
        return hashlib.sha256((ROOT / "contracts" / self.file).read_bytes()).hexdigest()[:8]


@dataclass(frozen=True)
class Result:
    """What came of a mutation, and the digest of the true source then."""

    dead: bool
    source: str


def read_table() -> list[Mutation]:
    """The mutations of tests/contracts/mutations.toml."""
    return [Mutation(**entry) for entry in tomllib.loads(TABLE.read_text("utf-8"))["mutation"]]


@cache
def skipped(suite: str) -> tuple[str, ...]:
    """Options that leave out the contracts which a suite does not deploy: they take longest to compile."""
    deployed = {name for text in _texts(TESTS / f"{suite}.t.sol") for name in re.findall(r"deployCode\(\"(\w+)", text)}
    return tuple(word for name in DEPLOYED if name not in deployed for word in ("--skip", f"{name}.sol"))


def _texts(path: Path) -> Iterator[str]:
    """A test file and those tests that it imports."""
    text = path.read_text("utf-8")
    yield text
    for name in re.findall(r'from "\./((?:utils/)?\w+(?:\.t)?\.sol)"', text):
        yield from _texts(path.parent / name)


def run_tests(suite: str, tests: Sequence[str]) -> tuple[dict[str, bool], str]:
    """Runs tests of one suite. Returns whether each passed, and forge's output. Raises BuildError if one is not run."""
    chosen = rf"^({'|'.join(tests)})\b"
    command = [find_forge(), "test", "--match-path", f"tests/contracts/{suite}.t.sol", "--match-test", chosen]
    done = subprocess.run([*command, *skipped(suite)], cwd=ROOT, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    passed = {}
    for test in tests:
        found = re.search(rf"\[(PASS|FAIL)[^\n]*\] {test}\(", output)
        if found is None:
            raise BuildError(f"{suite}.{test} did not run:\n{output}")
        passed[test] = found[1] == "PASS"
    return passed, output


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
        passed, _ = run_tests(mutation.suite, [mutation.test])
        return not passed[mutation.test]
    finally:
        path.write_text(original, "utf-8")


def read_record() -> dict[tuple[str, str], Result]:
    """The results in docs/mutations.md, by file and guard."""
    if not RECORD.is_file():
        return {}
    row = re.compile(
        r"^\| `([^`]+)` \| (.+?) \| `[^|]+` \| (caught|\*\*survived\*\*) \|(?: [`*]*(\w*)[`*]* \|)?$", re.MULTILINE
    )
    return {(f, guard): Result(r == "caught", source) for f, guard, r, source in row.findall(RECORD.read_text("utf-8"))}


def record(table: list[Mutation], results: dict[tuple[str, str], Result]) -> str:
    """docs/mutations.md."""
    known = [(m, results.get((m.file, m.guard))) for m in table]
    now = [result for m, result in known if result is not None and result.source == m.source]
    earlier = sum(result is not None and result.source != m.source for m, result in known)
    never = sum(result is None for _, result in known)
    lines = [
        "# Mutations",
        "",
        "Each guard of the contracts was removed or bent, one at a time, and the named test was run: it must fail.",
        "What exactly is changed stands in `tests/contracts/mutations.toml`. Made by",
        f"`scripts/mutate_contracts.py --write`: of {len(table)} mutations {len(now)} were run on the sources",
        f"as they are now, and {sum(result.dead for result in now)} of them are caught;"
        f" {earlier} were run on an earlier text of their file, {never} not yet.",
        "`source` is the beginning of the SHA-256 of the file that was broken, in bold if it is an earlier text.",
        "",
        "| file | guard | test | result | source |",
        "|---|---|---|---|---|",
    ]
    for m, result in known:
        verdict = "not run" if result is None else "caught" if result.dead else "**survived**"
        source = f"`{result.source}`" if result is not None and result.source else ""
        if result is not None and result.source not in ("", m.source):
            source = f"**{result.source}**"
        lines.append(f"| `{m.file}` | {m.guard} | `{m.suite}.t.sol` `{m.test}` | {verdict} | {source} |")
    return "\n".join(lines) + "\n"


def check_true_source(chosen: list[Mutation]) -> None:
    """Raises BuildError unless every test passes."""
    suites: dict[str, set[str]] = defaultdict(set)
    for mutation in chosen:
        suites[mutation.suite].add(mutation.test)
    for suite, tests in sorted(suites.items()):
        passed, output = run_tests(suite, sorted(tests))
        if not all(passed.values()):
            raise BuildError(f"{suite} fails on the true source:\n{output}")


def main() -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description="Break the contracts guard by guard; the named tests must notice.")
    parser.add_argument("files", nargs="*", help="stems of the files to mutate, e.g. Clock; all by default")
    parser.add_argument("--stale", action="store_true", help="only what was not run on the sources that stand now")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no mutation after this time")
    parser.add_argument("--check", action="store_true", help="run nothing; exit 1 if a text is not there exactly once")
    parser.add_argument("--write", action="store_true", help="record the results in docs/mutations.md")
    arguments = parser.parse_args()
    # A run that is told to end restores the file that it has broken.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    start = time.monotonic()
    table, results = read_table(), read_record()
    chosen = [m for m in table if not arguments.files or Path(m.file).stem in arguments.files]
    if arguments.stale:
        last = {(m.file, m.guard): m.source for m in table}
        chosen = [
            m for m in chosen if (r := results.get((m.file, m.guard))) is None or r.source != last[m.file, m.guard]
        ]
    done: list[Result] = []
    try:
        for mutation in chosen:
            find(mutation)
        if arguments.check:
            return 0
        check_true_source(chosen)
        for mutation in chosen:
            if time.monotonic() - start > arguments.seconds:
                print(f"{len(chosen) - len(done)} mutations are left")
                break
            result = Result(killed(mutation), mutation.source)
            done.append(result)
            results[mutation.file, mutation.guard] = result
            verdict = "caught  " if result.dead else "SURVIVED"
            print(f"{verdict}  {mutation.file:26} {mutation.guard}  ({mutation.test})", flush=True)
            if arguments.write:
                RECORD.write_text(record(table, results), "utf-8")
    except BuildError as error:
        print(f"mutate_contracts: {error}", file=sys.stderr)
        return 1
    survived = sum(not result.dead for result in done)
    print(f"{len(done) - survived} of {len(done)} mutations caught")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
