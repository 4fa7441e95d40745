"""docs/spec/interface.md by itself: its signatures give its selectors, and it lists what the contracts have."""

from __future__ import annotations

import json
import re
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest
from eth_utils import keccak

from node import structs

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "spec" / "interface.md").read_text(encoding="utf-8")
LINE = re.compile(r"^(function|event|error) (0x[0-9a-f]+) (\w+)\((.*?)\)(?: .*)?$", re.MULTILINE)

ENUMS = {name: body.split(", ") for name, body in re.findall(r"^enum (\w+) \{ (.*) \}$", TEXT, re.MULTILINE)}
STRUCTS = {
    name: [field.rsplit(" ", 1)[0] for field in body.split("; ")]
    for name, body in re.findall(r"^struct (\w+) \{ (.*); \}$", TEXT, re.MULTILINE)
}


def canonical(kind: str) -> str:
    name, brackets = re.fullmatch(r"(\w+)((?:\[\])*)", kind).groups()  # type: ignore[union-attr]
    if name in ENUMS:
        name = "uint8"
    if name in STRUCTS:
        name = f"({','.join(map(canonical, STRUCTS[name]))})"
    return name + brackets


def selector(kind: str, name: str, arguments: str) -> str:
    types = [canonical(a.split(" ")[0]) for a in arguments.split(", ") if a]
    digest = keccak(text=f"{name}({','.join(types)})")
    return "0x" + (digest if kind == "event" else digest[:4]).hex()


def listed(contract: str) -> set[tuple[str, str]]:
    section = TEXT.split(f"\n## {contract}\n")[1].split("\n## ")[0]
    return {(kind, name) for kind, _, name, _ in LINE.findall(section)}


def test_signatures_and_selectors() -> None:
    found = LINE.findall(TEXT)
    assert len(found) > 100
    for kind, number, name, arguments in found:
        assert selector(kind, name, arguments) == number, name


@pytest.mark.parametrize("contract", ["Verde", "EvmReferee", "CommitteeReferee", "AppealReferee"])
def test_nothing_is_left_out(contract: str) -> None:
    abi = json.loads((ROOT / "node" / "abi" / f"{contract}.json").read_text())["abi"]
    has = {(item["type"], item["name"]) for item in abi if item["type"] != "constructor"}
    names = listed(contract)
    assert names <= has
    if contract == "AppealReferee":
        names |= listed("EvmReferee") | listed("CommitteeReferee")
    assert has <= names


def test_every_function_that_changes_anything_is_a_verb_of_the_game() -> None:
    game = (ROOT / "docs" / "spec" / "game.md").read_text(encoding="utf-8")
    lines = re.findall(r"^function 0x\w+ (\w+)\(.*?\)(.*)$", TEXT, re.MULTILINE)
    verbs = {name for name, rest in lines if not re.search(r"\b(view|pure)\b", rest)}
    assert len(verbs) > 20
    for name in verbs:
        assert f"`{name}" in game, name


def test_indexed_arguments_are_marked() -> None:
    found = {number: [a.split(" ") for a in arguments.split(", ")] for _, number, _, arguments in LINE.findall(TEXT)}
    for contract in ("Verde", "AppealReferee"):
        for item in json.loads((ROOT / "node" / "abi" / f"{contract}.json").read_text())["abi"]:
            if item["type"] == "event":
                kinds = [canonical_of(i) for i in item["inputs"]]
                arguments = found["0x" + keccak(text=f"{item['name']}({','.join(kinds)})").hex()]
                assert [a[-1] for a in arguments] == [i["name"] for i in item["inputs"]]
                assert ["indexed" in a for a in arguments] == [i["indexed"] for i in item["inputs"]]


def canonical_of(item: dict[str, Any]) -> str:
    if not item["type"].startswith("tuple"):
        return str(item["type"])
    return f"({','.join(map(canonical_of, item['components']))}){item['type'].removeprefix('tuple')}"


def test_enums_are_those_of_the_node() -> None:
    """The node's, whose fold of the events equals the contracts' storage (test_fold.py)."""
    ours = {
        c.__name__.removeprefix("Trial"): c
        for c in vars(structs).values()
        if isinstance(c, type) and issubclass(c, IntEnum)
    }
    shared = set(ENUMS) & set(ours)
    assert {"Status", "Standing", "Level", "Phase", "Side", "Outcome", "Reason", "Ruling", "Stage"} <= shared
    for name in shared:
        values = {value.replace("_", "").lower(): number for value, number in ours[name].__members__.items()}
        assert values == {value.lower(): number for number, value in enumerate(ENUMS[name])}, name
