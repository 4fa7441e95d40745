"""The caller's floating-point state changes nothing and is given back: flush to zero, rounding, traps; any thread."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
import torch
from kernel_calls import F32, VECTOR_ISAS, Case, finite

from repops import _kernels


@pytest.fixture
def flush() -> Iterator[None]:
    assert torch.set_flush_denormal(True)
    yield
    torch.set_flush_denormal(False)


def flushes() -> bool:
    return bool((torch.tensor([1e-39]) * 1.0).item() == 0.0)


def cases() -> list[Case]:
    rng = np.random.default_rng(0)
    tiny = (finite(rng, (70, 300)) * np.float32(1e-39)).astype(np.float32)
    other = finite(rng, (300, 50))
    heads = (tiny[:60].reshape(2, 30, 300).copy(), finite(rng, (2, 20, 300)))
    return [
        Case("matmul", [tiny, other], F32, (70, 50), (0, 0, 0, 300)),
        Case("matmul", [tiny[:1].copy(), other], F32, (1, 50), (0, 0, 0, 300)),
        Case("sum", [tiny], F32, (70, 1), (1, 1, 0, 300)),
        Case("sum", [tiny], F32, (1, 300), (1, 0, 0, 70)),
        Case("add", [tiny, tiny], F32, (70, 300)),
        Case("attention_scores", heads, F32, (2, 30, 20), (0,), (0x3F800000,)),
    ]


@pytest.mark.parametrize("case", cases(), ids=lambda c: c.op)
def test_subnormal_numbers_survive_a_flushing_caller(case: Case) -> None:
    isas = [*VECTOR_ISAS, "scalar"]
    expected = {case.run(isa, threads) for isa in isas for threads in (1, 4)}
    assert len(expected) == 1
    subnormal = np.abs(np.frombuffer(next(iter(expected)), np.float32))
    assert np.any((subnormal > 0) & (subnormal < 1.17e-38)), "the case does not reach the subnormal numbers"
    torch.set_flush_denormal(True)
    try:
        assert flushes()
        assert {case.run(isa, threads) for isa in isas for threads in (1, 4)} == expected
        assert flushes(), "the caller's state was not restored"
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.usefixtures("flush")
def test_the_reference_and_a_plan_are_guarded() -> None:
    a = np.full(40, 713624, np.uint32).view(np.float32)  # 1e-39, in bits: numpy would flush it here
    b = np.full(40, 1.5, np.float32)
    operands = [(a, int(F32), [40]), (b, int(F32), [40])]
    expected = 713624 * 3 // 2
    assert _kernels.element("mul", [], [], operands, int(F32), [40], 0) == expected
    out = np.empty(40, np.float32)
    step = ("mul", [], [], [(0, 0, 1, [40]), (0, 1, 1, [40])], [(4, 0, 1, [40])], False)
    _kernels.Plan([step], 0).run([a, b], [], [], [out], 2)
    assert np.all(out.view(np.uint32) == expected)
    assert flushes()


HELPER = """
#include <xmmintrin.h>
extern "C" void set_state(unsigned state, int threads) {
#pragma omp parallel num_threads(threads)
  _mm_setcsr(state);
}
extern "C" int changed(unsigned state, int threads) {
  int n = 0;
#pragma omp parallel num_threads(threads) reduction(+ : n)
  n += (_mm_getcsr() & ~0x3Fu) != state;
  return n;
}
"""
# MXCSR: flush to zero and denormals are zero; down; up; toward zero with both flushes; every exception traps.
STATES = {"none": 0x1F80, "flush": 0x9FC0, "down": 0x3F80, "up": 0x5F80, "zero": 0xFFC0, "trap": 0x0000}
THREADS = 4


@pytest.fixture(scope="module")
def helper(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Sets the state of the calling thread and of the workers of OpenMP's pool, the one that the kernels use."""
    directory = tmp_path_factory.mktemp("helper")
    (directory / "state.cpp").write_text(HELPER)
    compiler = os.environ.get("CXX", "c++")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-fopenmp", "-o", directory / "state.so", directory / "state.cpp"], check=True
    )
    library = ctypes.CDLL(str(directory / "state.so"))
    # Others may have brought an OpenMP library of their own into the process; this one has to be the kernels'.
    pools = {
        ctypes.cast(each.omp_get_num_threads, ctypes.c_void_p).value
        for each in (library, ctypes.CDLL(_kernels.__file__))
    }
    assert len(pools) == 1, "the helper has a pool of its own"
    return library


@pytest.mark.skipif(platform.machine() != "x86_64", reason="MXCSR; ARM's FPCR is in scripts/check_builds.py")
@pytest.mark.parametrize("state", STATES)
def test_a_hostile_state_in_the_caller_and_in_the_workers(state: str, helper: ctypes.CDLL) -> None:
    isas = [*VECTOR_ISAS, "scalar"]
    expected = [case.run("scalar") for case in cases()]
    for case, bits in zip(cases(), expected, strict=True):
        for isa, threads in product(isas, (1, THREADS)):
            helper.set_state(STATES[state], THREADS)
            try:
                got = case.run(isa, threads)
                changed = helper.changed(STATES[state], 1)  # workers come and go with the size of a team
            finally:
                helper.set_state(STATES["none"], THREADS)
            assert got == bits, (case.op, isa, threads)
            assert not changed, "the caller's state was not given back"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="MXCSR")
def test_the_helper_reaches_the_workers(helper: ctypes.CDLL) -> None:
    try:
        helper.set_state(STATES["up"], THREADS)
        assert helper.changed(STATES["none"], THREADS) == THREADS
    finally:
        helper.set_state(STATES["none"], THREADS)
