"""Builds csrc with several compilers and for ARM, and runs the golden cases in each build (docs/reproducibility.md).

    python scripts/check_builds.py [BUILD ...] [--jobs N]

Without a name all builds, N at a time (default: one for each core). Needs the Debian packages of PACKAGES and an
installed extension (tests/repops/golden.py writes the case file). Exit code 0: all builds give the golden hashes, the
sanitizers have nothing to say, and each negative control, a build with a forbidden option, gives other hashes; 1: not
so; 2: a tool is missing.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
WHERE = ROOT / "build" / "golden"
CASES = WHERE / "cases.bin"
PACKAGES = "clang-16 libomp-16-dev g++-aarch64-linux-gnu qemu-user libsimde-dev"
STATES = "none,flush,up,down,zero"


@dataclass(frozen=True)
class Build:
    """One build and how it is run. flags: for kernels and hashing, after all others; all_flags: for the program too."""

    what: str
    compiler: str
    runs: Sequence[Sequence[str]]
    flags: str = ""
    all_flags: str = ""
    cmake: Sequence[str] = ()
    emulator: Sequence[str] = ()
    control: bool = False  # must give other hashes
    environment: dict[str, str] = field(default_factory=dict)


X86_RUNS = (
    ("--threads", "1,2,3"),
    ("--threads", "2", "--state", "flush,up,down,zero,trap", "--offset", "1"),
)
CONTROL_RUNS = (("--isa", "avx2,scalar"),)
ARM = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64")
QEMU = ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu")

# Those that take longest come first.
BUILDS = {
    "neon": Build(
        "64-bit ARM under qemu",
        "aarch64-linux-gnu-g++",
        (("--threads", "1,2"), ("--threads", "2", "--isa", "neon", "--state", "flush,up,down,zero", "--offset", "1")),
        cmake=ARM,
        emulator=QEMU,
    ),
    "sanitizers": Build(
        "AddressSanitizer and UBSan",
        "g++",
        (("--threads", "2"), ("--threads", "1", "--offset", "1")),
        flags="-O1",
        all_flags="-fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all -g1",
    ),
    "gcc": Build("x86-64, the compiler of the extension", "g++", X86_RUNS),
    "clang": Build("x86-64, another compiler", "clang++-16", X86_RUNS),
    "emulated-avx512": Build(
        "x86-64, AVX-512 by way of SIMDe",
        "g++",
        (("--isa", "avx512", "--threads", "1,3"),),
        flags="-O1",
        cmake=("-DVERDE_EMULATE_AVX512=ON",),
    ),
    # Our own -fno-fast-math and -ffp-contract=off win over a plain -Ofast in the user's flags; the controls undo them.
    "ofast": Build(
        "control: -Ofast", "g++", CONTROL_RUNS, flags="-Ofast -ffast-math -DRO_WITHOUT_AVX512", control=True
    ),
    "contract": Build(
        "control: a*b + c contracted to one FMA",
        "g++",
        CONTROL_RUNS,
        flags="-ffp-contract=fast -mfma -DRO_WITHOUT_AVX512",
        control=True,
    ),
}


class Missing(Exception):
    """A tool that the builds need is not there."""


def find_tools(builds: Sequence[Build]) -> None:
    """Raises Missing."""
    tools = {"cmake", *(b.compiler for b in builds), *(b.emulator[0] for b in builds if b.emulator)}
    missing = sorted(tool for tool in tools if shutil.which(tool) is None)
    if missing:
        raise Missing(f"{', '.join(missing)} not found. On Debian, as root: apt-get install {PACKAGES}")


def make(name: str, build: Build, say: Callable[[str], None]) -> Path:
    """Builds; returns the program. Raises CalledProcessError."""
    directory = WHERE / name
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    launcher = ["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []
    options = [
        "-DVERDE_PYTHON=OFF", "-DVERDE_TOOLS=ON", f"-DCMAKE_CXX_COMPILER={build.compiler}",
        f"-DVERDE_CORE_FLAGS={build.flags}", f"-DCMAKE_CXX_FLAGS={build.all_flags} -Werror", *build.cmake,
    ]  # fmt: skip
    quiet(["cmake", "-S", str(ROOT), "-B", str(directory), *generator, *launcher, *options], say)
    quiet(["cmake", "--build", str(directory), "--target", "ro_golden", "-j", "1"], say)
    return directory / "ro_golden"


def quiet(command: Sequence[str], say: Callable[[str], None]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        say(done.stdout)
        raise subprocess.CalledProcessError(done.returncode, command)


def check(build: Build, program: Path, say: Callable[[str], None]) -> bool:
    """Runs the cases; says what was found."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **build.environment}
    for arguments in build.runs:
        begin = time.monotonic()
        command = [*build.emulator, str(program), str(CASES), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        lines = (done.stdout + done.stderr).strip().splitlines()
        took = f"{time.monotonic() - begin:.1f} s"
        differing = list(dict.fromkeys(re.findall(r"^DIFFERS (.*?): [0-9a-f]{32}, not", done.stdout, re.MULTILINE)))
        # What a control does with its wrong numbers is its own affair: it may even crash after the first of them.
        good = bool(differing) if build.control else done.returncode == 0
        say(f"  {'ok' if good else 'FAILED'}  {' '.join(arguments)}  {took}: {summary(done.returncode, lines)}")
        if build.control and good:
            operators = list(dict.fromkeys(d if d.startswith(("training", "group")) else d.split("(")[0].split(" ")[0]
                                           for d in differing))  # fmt: skip
            say(f"      as it must: {', '.join(operators[:12])}{' ...' if len(operators) > 12 else ''}")
        if not good:
            say("\n".join("      " + line for line in lines[-40:]))
            return False
    return True


def summary(code: int, lines: Sequence[str]) -> str:
    """The last line, or the signal that ended the program."""
    return f"ended by signal {-code}" if code < 0 else (lines[-1] if lines else "no output")


def make_and_check(name: str, build: Build) -> bool:
    """Makes a build and runs it; prints what there is to say in one piece."""
    begin = time.monotonic()
    said = [f"{name}: {build.what} ({build.compiler})"]
    try:
        program = make(name, build, said.append)
        said.append(f"  built in {time.monotonic() - begin:.1f} s")
        return check(build, program, said.append)
    except subprocess.CalledProcessError as error:
        said.append(f"  FAILED: {error}")
        return False
    finally:
        print("\n".join(said), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("builds", nargs="*", metavar="BUILD", help=f"of {', '.join(BUILDS)}; default all")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="builds at a time")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.builds) - set(BUILDS))
    if unknown:
        parser.error(f"no build {', '.join(unknown)}; there are {', '.join(BUILDS)}")
    chosen = {name: build for name, build in BUILDS.items() if not arguments.builds or name in arguments.builds}
    try:
        find_tools(list(chosen.values()))
    except Missing as error:
        print(f"check_builds: {error}", file=sys.stderr)
        return 2
    subprocess.run([sys.executable, str(ROOT / "tests/repops/golden.py"), "--cases", str(CASES)], check=True)
    # A build's runs use one core for long, so builds go side by side.
    with ThreadPoolExecutor(arguments.jobs) as pool:
        good = dict(zip(chosen, pool.map(lambda item: make_and_check(*item), chosen.items()), strict=True))
    failed = [name for name in chosen if not good[name]]
    print(f"failed: {', '.join(failed)}" if failed else f"{len(chosen)} builds as they must be")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
