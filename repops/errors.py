"""Errors of the library. Every message says what is wrong, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable


class RepopsError(Exception):
    """Base of every error that `repops` raises on purpose.

    what: the fault, naming the offending value. where: the place (node, slot, file, argument), may be empty.
    cure: what the reader can do, may be empty. All three are kept as attributes and joined into the message.
    """

    def __init__(self, what: str, where: str = "", cure: str = "") -> None:
        self.what = what
        self.where = where
        self.cure = cure
        message = f"{where}: {what}" if where else what
        super().__init__(f"{message}. {cure}" if cure else message)


class ProgramError(RepopsError):
    """A program breaks a rule of docs/spec/programs.md, or a program file is damaged."""


class TensorError(RepopsError):
    """A tensor has the wrong dtype, shape, name or memory for its use."""


class CommitmentError(RepopsError):
    """A root, tree, proof or leaf is malformed, or a request lies outside its tree."""


class CaptureError(RepopsError):
    """A step function cannot be captured as a program, or the captured program failed its self-check."""


class UnsupportedOperators(CaptureError):
    """A step function uses operations that have no RepOps operator. `.operators`: all of them, sorted, once each."""

    def __init__(self, operators: Iterable[str], where: str = "", cure: str = "") -> None:
        self.operators: tuple[str, ...] = tuple(sorted(set(operators)))
        super().__init__(
            f"no RepOps operator for: {', '.join(self.operators)}",
            where or "capture",
            cure or "Rewrite the step without them",
        )
