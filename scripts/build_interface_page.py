#!/usr/bin/env python3
"""Write docs/spec/interface.md: functions, events, errors, structs and enums of the contracts, from node/abi.

    python scripts/build_interface_page.py           writes the page
    python scripts/build_interface_page.py --check   compares with it, exit status 1 on a difference

Run scripts/build_contracts.py first where the contracts have changed. Enums, which an ABI leaves out, are read in
contracts/interfaces.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from eth_utils import keccak

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "spec" / "interface.md"
CONTRACTS = ("Verde", "EvmReferee", "CommitteeReferee", "AppealReferee")

HEAD = """# Interface of the contracts

Note: normative, and generated from `node/abi` by `scripts/build_interface_page.py`. What the functions do:
[game](game.md); prose on every function, event and error is in `contracts/interfaces/`.

[A-1] Calls, custom errors and logs are encoded by the Solidity ABI. A function or an error is named by the first four
bytes, an event by all 32 bytes (topic 0) of the keccak256 of its signature, in which a struct stands as the tuple of
its fields and an enum as uint8. `indexed` arguments are topics 1 to 3. `AppealReferee` has what is listed for
`EvmReferee` and `CommitteeReferee` as well.

[A-2] The values of an enum count from 0.

Held by:

- A-1: `test_interface_page.py::test_signatures_and_selectors`, `test_interface_page.py::test_nothing_is_left_out`,
  `test_interface_page.py::test_indexed_arguments_are_marked`,
  `test_events.py::test_every_event_of_the_abi_has_a_class`
- A-2: `test_interface_page.py::test_enums_are_those_of_the_node`

Note: the listings.
"""

Item = dict[str, Any]


def enums() -> dict[str, list[str]]:
    """The values of each enum of contracts/interfaces, in order."""
    found = {}
    for file in sorted((ROOT / "contracts" / "interfaces").glob("*.sol")):
        for name, body in re.findall(r"\benum (\w+) \{([^}]*)\}", file.read_text(encoding="utf-8")):
            found[name] = [value.strip() for value in body.split(",")]
    return found


def type_text(item: Item) -> str:
    """A type by its name in Solidity: structs and enums without their contract."""
    text: str = item["internalType"]
    named = re.fullmatch(r"(?:struct|enum|contract) (?:\w+\.)?(\w+)((?:\[\d*\])*)", text)
    if named is None:
        return text
    return "address" if text.startswith("contract ") else named[1] + named[2]


def canonical(item: Item) -> str:
    """A type as it stands in a signature."""
    kind: str = item["type"]
    if not kind.startswith("tuple"):
        return kind
    return f"({','.join(map(canonical, item['components']))}){kind.removeprefix('tuple')}"


def arguments(items: list[Item]) -> str:
    """A list of arguments."""
    parts = ((type_text(i), "indexed" if i.get("indexed") else "", i["name"]) for i in items)
    return ", ".join(" ".join(p for p in part if p) for part in parts)


def entry(item: Item) -> str:
    """One line: the selector or topic, then the declaration."""
    signature = f"{item['name']}({','.join(map(canonical, item['inputs']))})"
    digest = keccak(text=signature)
    text = f"0x{(digest if item['type'] == 'event' else digest[:4]).hex()} {item['name']}({arguments(item['inputs'])})"
    if item["type"] != "function":
        return text
    mutability = {"nonpayable": ""}.get(item["stateMutability"], f" {item['stateMutability']}")
    returns = f" returns ({arguments(item['outputs'])})" if item["outputs"] else ""
    return text + mutability + returns


def structs(items: list[Item]) -> dict[str, str]:
    """The declarations of all structs below these arguments."""
    found: dict[str, str] = {}
    for item in items:
        if item["type"].startswith("tuple"):
            name = re.sub(r"\[\d*\]", "", type_text(item))
            fields = " ".join(f"{type_text(c)} {c['name']};" for c in item["components"])
            found |= {name: f"struct {name} {{ {fields} }}"} | structs(item["components"])
    return found


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    known: set[str] = set()
    declared: dict[str, str] = {}
    for contract in CONTRACTS:
        abi: list[Item] = json.loads((ROOT / "node" / "abi" / f"{contract}.json").read_text(encoding="utf-8"))["abi"]
        parts.append(f"\n## {contract}\n\nNote: functions, events, errors.\n\n```\n")
        for kind in ("function", "event", "error"):
            lines = {entry(i) for i in abi if i["type"] == kind}
            parts += [f"{kind} {line}\n" for line in sorted(lines - known, key=lambda line: line.split(" ", 1)[1])]
            known |= lines if contract != "Verde" else set()
        parts.append("```\n")
        for item in abi:
            declared |= structs([*item["inputs"], *item.get("outputs", ())])
    values = {f"enum {name} {{ {', '.join(options)} }}" for name, options in enums().items()}
    lines = [*sorted(values), *(declared[name] for name in sorted(declared))]
    parts.append("\n## Types\n\nNote: enums and structs.\n\n```\n" + "\n".join(lines) + "\n```\n")
    return "".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description="Write docs/spec/interface.md.")
    parser.add_argument("--check", action="store_true", help="compare only")
    text = page()
    if not parser.parse_args().check:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        print(f"{PAGE.relative_to(ROOT)} is not what node/abi says: run {Path(__file__).name}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
