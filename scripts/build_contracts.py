#!/usr/bin/env python3
"""Builds the contracts and writes what a node needs of them to node/abi/.

    scripts/build_contracts.py            builds and writes
    scripts/build_contracts.py --check    builds, writes nothing, exits 1 if a committed file differs

One file for each contract, canonical JSON (UTF-8, keys sorted, no spaces, one newline at the end):

    {"abi": [...], "bytecode": "0x...", "compiler": "0.8.37+commit...", "contractName": "...", "settings": {...}}

`bytecode` is the creation code ("0x" for an interface). The build is reproducible: same sources, same compiler and
settings, same bytes.
Needs node and `npm install` in the project's root; Python's standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "node" / "abi"
CONTRACTS = ("Verde", "CommitteeReferee", "EvmReferee", "AppealReferee", "IReferee")
SIZE_LIMIT = 24_576  # EIP-170, bytes of runtime code


class BuildError(Exception):
    """The contracts cannot be built, or break a limit."""


def find_forge() -> str:
    """Path of forge: the project's own if `npm install` was run (npm's wrapper exits with 0 whatever forge says), else
    the one on PATH."""
    own = sorted((ROOT / "node_modules" / "@foundry-rs").glob("forge-*/bin/forge"))
    found = str(own[0]) if own else shutil.which("forge")
    if found is None:
        raise BuildError("forge is not installed; run `npm install` in the project's root")
    return found


def build() -> None:
    """Runs `forge build` on the contracts alone."""
    done = subprocess.run(
        [find_forge(), "build", "--skip", "test", "--force"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BuildError(f"forge build failed:\n{done.stdout}{done.stderr}")


def describe(name: str) -> bytes:
    """Canonical JSON of one built contract."""
    artifact: dict[str, Any] = json.loads((ROOT / "out" / f"{name}.sol" / f"{name}.json").read_text("utf-8"))
    runtime = len(artifact["deployedBytecode"]["object"]) // 2 - 1
    if runtime > SIZE_LIMIT:
        raise BuildError(f"{name} has {runtime} bytes of code, the limit is {SIZE_LIMIT}")
    metadata = artifact["metadata"]
    settings = metadata["settings"]
    described = {
        "contractName": name,
        "abi": artifact["abi"],
        "bytecode": artifact["bytecode"]["object"],
        "compiler": metadata["compiler"]["version"],
        "settings": {key: settings[key] for key in ("evmVersion", "optimizer", "viaIR") if key in settings},
    }
    text = json.dumps(described, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8") + b"\n"


def main() -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description="Build the contracts and write node/abi/*.json.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a committed file differs")
    arguments = parser.parse_args()
    try:
        build()
        described = {TARGET / f"{name}.json": describe(name) for name in CONTRACTS}
    except BuildError as error:
        print(f"build_contracts: {error}", file=sys.stderr)
        return 1
    if arguments.check:
        stale = [path for path, data in described.items() if not path.exists() or path.read_bytes() != data]
        stale += [path for path in TARGET.glob("*.json") if path not in described]
        for path in stale:
            print(
                f"build_contracts: {os.path.relpath(path, ROOT)} is stale; run scripts/build_contracts.py",
                file=sys.stderr,
            )
        return 1 if stale else 0
    TARGET.mkdir(parents=True, exist_ok=True)
    for path, data in described.items():
        path.write_bytes(data)
        print(f"{os.path.relpath(path, ROOT)}  {len(data):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
