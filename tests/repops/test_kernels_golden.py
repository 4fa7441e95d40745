"""Every instruction set of this machine reproduces the golden hashes."""

from __future__ import annotations

import json

import kernel_vectors
import pytest

from repops import _kernels


@pytest.mark.parametrize("isa", _kernels.isas())
def test_golden_hashes(isa: str) -> None:
    expected = json.loads(kernel_vectors.PATH.read_text())
    for threads in (1, 3):
        got = {name: kernel_vectors.digest(case.run(isa, threads)) for name, case in kernel_vectors.cases()}
        assert got == expected
