"""The caller's floating-point state changes nothing and is given back: flush to zero, on any thread."""

from __future__ import annotations

from collections.abc import Iterator

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
