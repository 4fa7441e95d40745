#!/usr/bin/env python3
"""Check that every rule of docs/spec/ names the test that holds it.

    python scripts/check_spec.py     exit status 1 and a line for each mistake

A rule is a paragraph, list item or row of a table that begins with its id in brackets, "[G-12] ...". A table, list or
code without ids belongs to the rule before it. A section ends with the tests of its rules:

    Held by:

    - G-12, G-13: `Tasks.t.sol: test_CommitTakesASeat`, `test_fold.py::test_a_commitment`

A text that is no rule begins with "Note:"; so does nothing else. Refused: text without an id, an id twice, a rule
without a test, a test that is not there.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

_MARK = re.compile(r"^(?:- |\d+\. |\| )?(.*)$", re.DOTALL)
_ID = re.compile(r"\[([A-Z]-\d+)\] ")
_ITEM = re.compile(r"(?:- |\d+\. )")
_PYTHON = re.compile(r"(test_\w+\.py)::(test_\w+)")
_FORGE = re.compile(r"(\w+\.t\.sol): ((?:test|check|invariant)\w*)")


@dataclass(frozen=True)
class Block:
    """Lines of one kind: "heading", "text", "item", "row" (of a table, its head left out) or "code"."""

    kind: str
    line: int
    text: str

    @property
    def id(self) -> str | None:
        """The id of the rule that it states."""
        found = _ID.match(_MARK.sub(r"\1", self.text))
        return found[1] if found else None


def blocks(text: str) -> Iterator[Block]:
    """The blocks of a page."""
    current: list[str] = []
    kind, start, fenced = "", 0, False
    rows = 0  # of the table so far, its head and rule included
    for number, line in enumerate([*text.split("\n"), ""], 1):
        rows = rows + 1 if line.startswith("|") and not fenced else 0
        if line.startswith("```"):
            fenced = not fenced
            new = "code"
        elif fenced:
            new = "code"
        elif not line.strip():
            new = ""
        elif line.startswith("#"):
            new = "heading"
        elif line.startswith("|"):
            new = "row" if rows > 2 else ""
        elif line.startswith("    "):
            new = "code"
        elif _ITEM.match(line):
            new = "item"
        elif kind == "item":
            new = kind  # a continuation
        else:
            new = "text"
        continues = new == kind and (new in ("text", "code") or (new == "item" and not _ITEM.match(line)))
        if not continues and current:
            yield Block(kind, start, "\n".join(current))
            current = []
        if new:
            if not current:
                start = number
            current.append(line)
        kind = new


def tests_of(file: Path) -> set[str]:
    """The names of the tests in a file."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".sol":
        return set(re.findall(r"function (\w+)\(", text))
    return {n.name for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)}


class Checker:
    """Collects what is wrong with the pages of `pages`, whose tests are in `tests`."""

    def __init__(self, pages: Path, tests: Path) -> None:
        self.problems: list[str] = []
        self.rules: dict[str, str] = {}  # id: where
        self.held: dict[str, str] = {}
        self._files: dict[str, list[Path]] = {}
        self._names: dict[Path, set[str]] = {}
        for file in (*tests.rglob("test_*.py"), *tests.rglob("*.t.sol")):
            self._files.setdefault(file.name, []).append(file)
        for page in sorted(pages.glob("*.md")):
            self._page(page)
        for rule, where in self.rules.items():
            if rule not in self.held:
                self.problems.append(f"{where}: no test holds {rule}")
        for rule, where in self.held.items():
            if rule not in self.rules:
                self.problems.append(f"{where}: there is no rule {rule}")

    def _page(self, page: Path) -> None:
        known = False  # whether the section has a text that a table, list or code may belong to
        held = False
        for block in blocks(page.read_text(encoding="utf-8")):
            where = f"{page.name}:{block.line}"
            if block.kind == "heading":
                known = held = False
            elif block.kind == "text" and block.text == "Held by:":
                held = True
            elif held and block.kind == "item":
                self._tests(block.text, where)
            elif block.id is not None:
                known, held = True, False
                if block.id in self.rules:
                    self.problems.append(f"{where}: {block.id} stands at {self.rules[block.id]} as well")
                self.rules[block.id] = where
            elif block.text.startswith("Note: "):
                known, held = True, False  # what follows belongs to it
            elif block.kind == "text" or not known or held:
                self.problems.append(f"{where}: a rule without an id: {block.text[:40]!r}")

    def _tests(self, text: str, where: str) -> None:
        found = re.fullmatch(r"- ([A-Z]-\d+(?:, [A-Z]-\d+)*): (`[^`]+`(?:,\s+`[^`]+`)*)", text)
        if found is None:
            self.problems.append(f"{where}: not of the form '- X-1, X-2: `test`, `test`': {text[:40]!r}")
            return
        for rule in found[1].split(", "):
            if rule in self.held:
                self.problems.append(f"{where}: the tests of {rule} stand at {self.held[rule]} as well")
            self.held[rule] = where
        for name in re.findall(r"`([^`]+)`", found[2]):
            parts = _PYTHON.fullmatch(name) or _FORGE.fullmatch(name)
            if parts is None:
                self.problems.append(f"{where}: {name!r} names no test")
            elif len(files := self._files.get(parts[1], [])) != 1:
                self.problems.append(f"{where}: {len(files)} files have the name {parts[1]}")
            else:
                names = self._names.setdefault(files[0], tests_of(files[0]))
                if parts[2] not in names:
                    self.problems.append(f"{where}: {parts[1]} has no test {parts[2]}")


def main() -> int:
    checker = Checker(ROOT / "docs" / "spec", ROOT / "tests")
    for problem in checker.problems:
        print(f"docs/spec/{problem}", file=sys.stderr)
    print(f"{len(checker.rules)} rules")
    return 1 if checker.problems else 0


if __name__ == "__main__":
    sys.exit(main())
