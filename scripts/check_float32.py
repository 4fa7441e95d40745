#!/usr/bin/env python3
"""Checks contracts/libraries/Float32.sol against the processor's own floats.

    scripts/check_float32.py                short: seconds; tests/vectors/float32.json is what the processor says
    scripts/check_float32.py --write        writes that file
    scripts/check_float32.py --long         10 million cases of each operation, every operand of those that have one,
                                            and 200,000 cases on a real EVM
    scripts/check_float32.py fma --cases 100000000 --seed 7

The library is translated to C++ from the compiler's syntax tree (scripts/solidity_to_cpp.py) and compiled beside the
processor's operations (csrc/tools/check_float32.cpp, with CXX, else c++). The EVM is anvil, which runs
contracts/harness/Float32Calls.sol as forge compiles it. Exit status 1 if a result differs.
Needs node and `npm install` in the project's root; numpy.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from build_contracts import BuildError, find_forge
from solidity_to_cpp import Refused, translate

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "contracts" / "libraries" / "Float32.sol"
SOURCE = ROOT / "csrc" / "tools" / "check_float32.cpp"
VECTORS = ROOT / "tests" / "vectors" / "float32.json"

# In the order of Float32Calls, with the bits of the operand of those that have one.
OPERATIONS = {
    **dict.fromkeys(("add", "sub", "mul", "div"), 0),
    "sqrt": 32,
    **dict.fromkeys(("fma", "eq", "lt", "le"), 0),
    "isNaN": 32,
    **dict.fromkeys(("maximum", "minimum", "fromInt64"), 0),
    "toInt64": 32,
    **dict.fromkeys(("widenF16", "widenBF16"), 16),
    **dict.fromkeys(("narrowF16", "narrowBF16"), 32),
}
ABOUT = {
    "source": "scripts/check_float32.py --write: csrc/tools/check_float32.cpp, the results by the processor",
    "layout": "a list of cases for each operation, 20 bytes each, big-endian: operands a, b, c (4 bytes each; 0 where "
    "there are fewer), result (8 bytes). fromInt64 takes a * 2^32 + b; it and toInt64 in two's complement",
}
RECORD = np.dtype([("a", ">u4"), ("b", ">u4"), ("c", ">u4"), ("result", ">u8")])
ADDRESS = "0x00000000000000000000000000000000000f10a7"
SELECTOR = "0x9a94c44b"  # run(uint256,uint256[])
BATCH = 5_000


def build(folder: Path) -> Path:
    """The checker. Raises Refused or CalledProcessError."""
    (folder / "float32_port.h").write_text(translate(LIBRARY), encoding="utf-8")
    program = folder / "check_float32"
    command = [os.environ.get("CXX", "c++"), "-std=c++17", "-O3", "-ffp-contract=off", f"-I{folder}", f"-I{ROOT}/csrc"]
    if platform.machine() == "x86_64":
        features = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
        command += [f"-m{name}" for name in ("fma", "f16c") if name in features]
    subprocess.run([*command, str(SOURCE), "-o", str(program), "-lm"], check=True)
    return program


def output(program: Path, *arguments: object) -> bytes:
    return subprocess.run([str(program), *map(str, arguments)], check=True, capture_output=True).stdout


def vectors(program: Path) -> str:
    """What tests/vectors/float32.json must be."""
    tables = {name: "0x" + output(program, name, "vectors").hex() for name in OPERATIONS}
    return json.dumps({"about": ABOUT, **tables}, indent=1) + "\n"


def agrees(program: Path, name: str, cases: int, seed: int, step: int) -> bool:
    """Checks one operation, prints what came out."""
    tallies = [json.loads(output(program, name, "random", seed, cases))]
    if OPERATIONS[name]:
        tallies.append(json.loads(output(program, name, "every", 0, step if OPERATIONS[name] == 32 else 1)))
    every = f", {tallies[1]['cases']:,} patterns in order" if len(tallies) > 1 else ""
    print(f"{name:12s} {tallies[0]['cases']:>13,} random and structured cases{every}: ", end="")
    first = [t["first"] for t in tallies if t["wrong"]]
    print(f"WRONG, {first[0]}" if first else "equal", flush=True)
    return not first


# ---- a real EVM


def call(url: str, method: str, parameters: list[Any]) -> Any:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        reply = json.load(answer)
    if "result" not in reply:
        raise RuntimeError(f"{method}: {str(reply)[:300]}")
    return reply["result"]


@contextmanager
def evm() -> Iterator[str]:
    """The address of an anvil that holds Float32Calls. Raises BuildError."""
    done = subprocess.run(
        [find_forge(), "build", "--skip", "test"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BuildError(done.stdout + done.stderr)
    artifact = json.loads((ROOT / "out" / "Float32Calls.sol" / "Float32Calls.json").read_text("utf-8"))
    if artifact["methodIdentifiers"]["run(uint256,uint256[])"] != SELECTOR[2:]:
        raise BuildError("Float32Calls.run is not what this script calls")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(ROOT / "node_modules" / ".bin" / "anvil"), "--port", str(port), "--hardfork", "prague", "--silent"]
    process = subprocess.Popen([*command, "--gas-limit", str(10**10)], start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        for attempt in range(200):
            try:
                call(url, "anvil_setCode", [ADDRESS, artifact["deployedBytecode"]["object"]])
                break
            except (urllib.error.URLError, ConnectionError):
                if attempt == 199:
                    raise
                time.sleep(0.05)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # npm's anvil is a script that starts the program
        process.wait()


def evm_agrees(program: Path, url: str, name: str, cases: int, seed: int) -> bool:
    """Runs cases of one operation on the EVM, prints what came out and the gas."""
    records = np.frombuffer(output(program, name, "records", seed, cases), RECORD)
    results, gas = [], []
    for start in range(0, cases, BATCH):
        batch = records[start : start + BATCH]
        operands = np.zeros((len(batch), 8), ">u4")
        operands[:, 5], operands[:, 6], operands[:, 7] = batch["a"], batch["b"], batch["c"]
        head = b"".join(n.to_bytes(32, "big") for n in (list(OPERATIONS).index(name), 64, len(batch)))
        data = SELECTOR + (head + operands.tobytes()).hex()
        answer = bytes.fromhex(call(url, "eth_call", [{"to": ADDRESS, "data": data, "gas": hex(10**10)}, "latest"])[2:])
        words = np.frombuffer(answer, ">u8")[8:].reshape(len(batch), 4)
        results.append(words[:, 2])
        gas.append(words[:, 3])
    wrong = np.flatnonzero(np.concatenate(results) != records["result"])
    spent = np.concatenate(gas)
    print(
        f"{name:12s} {cases:>13,} cases on the EVM, gas {int(np.median(spent)):,} median, {spent.max():,} at most: ",
        end="",
    )
    print(f"WRONG, {records[wrong[0]]}" if len(wrong) else "equal", flush=True)
    return len(wrong) == 0


def main() -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description="Check Float32.sol against the processor's floats.")
    parser.add_argument("operations", nargs="*", metavar="operation", help=f"of {', '.join(OPERATIONS)}; none: all")
    parser.add_argument("--long", action="store_true", help="--cases 10000000 --step 1 --evm 200000")
    parser.add_argument("--cases", type=int, help="random and structured cases of each operation (default: 300000)")
    parser.add_argument("--step", type=int, help="every n-th pattern where there is one operand (default: 4099)")
    parser.add_argument("--evm", type=int, help="cases of each operation on a real EVM (default: 0)")
    parser.add_argument("--seed", type=int, default=1, help="of the cases (default: 1)")
    parser.add_argument("--write", action="store_true", help="write tests/vectors/float32.json, check nothing")
    options = parser.parse_args()
    unknown = [name for name in options.operations if name not in OPERATIONS]
    if unknown:
        parser.error(f"unknown operation {unknown[0]!r}; known: {', '.join(OPERATIONS)}")
    defaults = (10_000_000, 1, 200_000) if options.long else (300_000, 4099, 0)
    given = (options.cases, options.step, options.evm)
    cases, step, on_evm = (d if g is None else g for d, g in zip(defaults, given, strict=True))
    if cases < 1 or step < 1 or on_evm < 0:
        parser.error("--cases and --step must be at least 1, --evm at least 0")
    names = options.operations or list(OPERATIONS)
    try:
        with tempfile.TemporaryDirectory() as folder:
            program = build(Path(folder))
            if options.write:
                VECTORS.write_text(vectors(program), encoding="utf-8")
                return 0
            fine = VECTORS.is_file() and VECTORS.read_text(encoding="utf-8") == vectors(program)
            if not fine:
                print(f"{VECTORS.relative_to(ROOT)} is not up to date: run scripts/check_float32.py --write")
            wrong = [name for name in names if not agrees(program, name, cases, options.seed, step)]
            if on_evm:
                with evm() as url:
                    wrong += [n for n in names if not evm_agrees(program, url, n, on_evm, options.seed)]
    except (Refused, BuildError, subprocess.CalledProcessError) as error:
        print(f"check_float32: {error}", file=sys.stderr)
        return 1
    return 0 if fine and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
