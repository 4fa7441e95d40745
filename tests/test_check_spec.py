"""scripts/check_spec.py: what it refuses, and what it takes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_spec", ROOT / "scripts" / "check_spec.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


check = load()

GOOD = """# A page

Note: what it is about.

## One

[A-1] A rule, over
two lines:

    code of the rule

[A-2] Another one.

| thing | is |
|---|---|
| a row | of rule A-2 |

1. [A-3] In a list,
   with a tail.

Held by:

- A-1, A-2: `test_it.py::test_one`, `Deep.t.sol: test_Two`,
  `Deep.t.sol: invariant_Three`
- A-3: `test_it.py::test_one`

## Two

| thing | is |
|---|---|
| [A-4] a row | of its own |

```
[A-9] fenced text is no rule
```

Held by:

- A-4: `test_it.py::test_in_a_class`
"""

PYTHON = """
def test_one(): ...
class TestIt:
    def test_in_a_class(self): ...
def helper(): ...
"""
SOLIDITY = (
    "contract T { function test_Two() public {} function invariant_Three() public {} function _no() internal {} }"
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "pages").mkdir()
    (tmp_path / "tests" / "deep").mkdir(parents=True)
    (tmp_path / "tests" / "test_it.py").write_text(PYTHON)
    (tmp_path / "tests" / "deep" / "Deep.t.sol").write_text(SOLIDITY)
    return tmp_path


def problems(tree: Path, **pages: str) -> list[str]:
    for name, text in pages.items():
        (tree / "pages" / f"{name}.md").write_text(text)
    return check.Checker(tree / "pages", tree / "tests").problems


def test_a_good_page(tree: Path) -> None:
    assert problems(tree, page=GOOD) == []
    assert list(check.Checker(tree / "pages", tree / "tests").rules) == ["A-1", "A-2", "A-3", "A-4"]


def test_the_specification() -> None:
    checker = check.Checker(ROOT / "docs" / "spec", ROOT / "tests")
    assert checker.problems == []
    assert set("PCOFIVGA") == {rule[0] for rule in checker.rules}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[A-2] Another one.", "Another one.", "page.md:12: a rule without an id: 'Another one.'"),
        ("[A-2] ", "[A-1] ", "A-1 stands at page.md:7 as well"),
        ("[A-4] ", "", "a rule without an id: '| a row | of its own |'"),
        ("1. [A-3]", "1. [A-7]", "no test holds A-7"),
        ("- A-3: ", "- A-5: ", "there is no rule A-5"),
        ("- A-3: ", "- A-1: ", "the tests of A-1 stand at"),
        ("- A-3: `test_it.py::test_one`\n", "", "no test holds A-3"),
        ("`test_it.py::test_one`, `Deep", "`test_it.py::test_gone`, `Deep", "test_it.py has no test test_gone"),
        ("`test_it.py::test_one`, `Deep", "`test_if.py::test_one`, `Deep", "0 files have the name test_if.py"),
        ("test_in_a_class", "helper", "'test_it.py::helper' names no test"),
        ("`Deep.t.sol: test_Two`", "`Deep.t.sol: test_Tow`", "Deep.t.sol has no test test_Tow"),
        ("`Deep.t.sol: test_Two`", "`Deep.t.sol: _no`", "names no test"),
        ("- A-4: `test_it.py::test_in_a_class`", "- A-4: see elsewhere", "not of the form"),
        ("Note: what it", "What it", "page.md:3: a rule without an id"),
        ("    code of the rule\n\n[A-2]", "Free text.\n\n[A-2]", "page.md:10: a rule without an id: 'Free text.'"),
    ],
)
def test_a_broken_page(tree: Path, old: str, new: str, says: str) -> None:
    assert old in GOOD
    assert any(says in problem for problem in problems(tree, page=GOOD.replace(old, new, 1)))


def test_an_id_stands_on_one_page_only(tree: Path) -> None:
    found = problems(tree, page=GOOD, other="# B\n\n[A-1] Again.\n\nHeld by:\n\n- A-1: `test_it.py::test_one`\n")
    assert any("A-1 stands at other.md:3 as well" in p for p in found)


def test_two_files_of_one_name_are_refused(tree: Path) -> None:
    (tree / "tests" / "deep" / "test_it.py").write_text(PYTHON)
    assert any("2 files have the name test_it.py" in p for p in problems(tree, page=GOOD))
