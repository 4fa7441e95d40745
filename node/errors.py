"""Errors of the node: typed, each says what is wrong, where, and what to do.

`VerdeError.exit_code` is the exit status of `verde` when the error reaches the command line: 1 failure, 2 usage or bad
input, 3 chain or RPC, 4 verification mismatch (docs/architecture.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class VerdeError(Exception):
    """Base of every error that the node raises on purpose.

    `what` is the fact, `where` the thing it concerns (a file, an address, a match), `cure` what to do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", cure: str = "") -> None:
        self.what, self.where, self.cure = what, where, cure
        super().__init__((f"{where}: " if where else "") + what + (f". {cure}" if cure else ""))


class UsageError(VerdeError):
    """A command was called with values it cannot take."""

    exit_code = 2


class ConfigError(VerdeError):
    """The configuration is incomplete or contradicts itself."""

    exit_code = 2


class DataError(VerdeError):
    """Data of another actor is missing or is not what its root says."""

    exit_code = 4


class MissingData(DataError):
    """Nobody who was asked serves the data under this root."""


class WrongRoot(DataError):
    """Data does not hash to the root under which it was served."""


class ChainError(VerdeError):
    """The chain, or the way to it, is the problem."""

    exit_code = 3


class RpcUnavailable(ChainError):
    """An RPC endpoint does not answer, or answers with something that is not an answer. Trying again may help."""


class WrongChain(ChainError):
    """The endpoint serves another chain than the one configured."""

    def __init__(self, expected: int, actual: int, *, where: str = "") -> None:
        self.expected, self.actual = expected, actual
        super().__init__(
            f"chain id is {actual}, expected {expected}",
            where=where,
            cure="Use an endpoint of the chain that the contract lives on, or correct the configured chain id",
        )


class TxReverted(ChainError):
    """The contract refused a call, in simulation or on the chain.

    `error` is the name of the contract's custom error (`"Error"` and `"Panic"` for Solidity's own, `""` if the contract
    gave no reason), `args` its arguments by name, `data` the raw revert data.
    """

    def __init__(
        self,
        verb: str,
        error: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        data: bytes = b"",
        where: str = "",
        tx_hash: bytes | None = None,
        cure: str = "",
    ) -> None:
        self.verb, self.error, self.arguments = verb, error, dict(arguments or {})
        self.data, self.tx_hash = data, tx_hash
        shown = ", ".join(f"{name}={_show(value)}" for name, value in self.arguments.items())
        reason = f"{error}({shown})" if error else f"no reason given (revert data 0x{data.hex()})"
        mined = f" in transaction 0x{tx_hash.hex()}" if tx_hash is not None else ""
        super().__init__(f"{verb} reverted{mined}: {reason}", where=where, cure=cure)


class TxUnresolved(ChainError):
    """A transaction was sent and no receipt appeared in time; it may still be mined."""

    def __init__(self, verb: str, tx_hash: bytes, seconds: float, *, where: str = "") -> None:
        self.verb, self.tx_hash = verb, tx_hash
        super().__init__(
            f"{verb}: transaction 0x{tx_hash.hex()} has no receipt after {seconds:g} s",
            where=where,
            cure="Check that the endpoint is in sync and that the fee is high enough; the next tick plans anew",
        )


class MalformedLog(ChainError):
    """A log of the contract is of no known event, or its bytes do not fit the event's ABI."""


class InconsistentEvents(ChainError):
    """Events that no run of the contract can emit in this order: logs are missing, doubled or forged."""


def _show(value: Any) -> str:
    return f"0x{value.hex()}" if isinstance(value, bytes) else str(value)
