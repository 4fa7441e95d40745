"""The one table of operators against the kernels of this build."""

from __future__ import annotations

import pytest

from repops import _kernels
from repops.ops.table import OPERATORS


def test_every_operator_has_kernels_and_every_kernel_is_listed() -> None:
    assert sorted(OPERATORS) == sorted(_kernels.operators())


@pytest.mark.parametrize("isa", _kernels.isas())
def test_no_kernel_of_an_instruction_set_is_outside_the_table(isa: str) -> None:
    assert set(_kernels.kernels(isa)) <= set(OPERATORS)
