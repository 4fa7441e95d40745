"""How many threads the library's front end uses, and which instruction set. Neither changes a bit of any result."""

from __future__ import annotations

import os

from repops.errors import TensorError
from repops.execute import checked_isa

_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_isa: str | None = None


def threads() -> int:
    """Threads that a call may use; at first one for each processor that this process may run on."""
    return _threads


def set_threads(count: int) -> None:
    """Sets `threads` for the process. Raises TensorError unless the count is a whole number of at least 1."""
    global _threads  # noqa: PLW0603
    _threads = checked_threads(count, "set_threads")


def checked_threads(count: int, where: str) -> int:
    """The count. Raises TensorError unless it is a whole number of at least 1."""
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise TensorError(f"{count!r} threads", where, "Give a whole number of at least 1")
    return count


def isa() -> str | None:
    """The chosen instruction set; None: the best of this machine, or the environment variable REPOPS_ISA."""
    return _isa


def set_isa(name: str | None) -> None:
    """Sets `isa`: "avx512", "avx2", "neon", "scalar" or None. Raises TensorError for one that this machine lacks."""
    global _isa  # noqa: PLW0603
    _isa = checked_isa(name)
