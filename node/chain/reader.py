"""Follows the contract: logs by range, folded as they come, rewound on a reorg.

The follower keeps the folded state of every block that had events for as long as a reorg may reach, together with
the blocks' hashes. States are immutable and share what did not change, so this costs little, and a rewind is the
choice of an older state. What it returns is always the state of the endpoint's own chain up to `head`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from eth_typing import HexStr
from eth_utils.address import to_checksum_address
from web3.exceptions import BlockNotFound
from web3.types import BlockData, FilterParams

from node.chain.rpc import Rpc
from node.errors import MalformedLog, RpcUnavailable
from node.events import Event, decode_log
from node.fold import ChainState, fold_all
from node.structs import RefereeKind


@dataclass(frozen=True)
class Cursor:
    """A block: all logs up to it have been read."""

    number: int
    hash: bytes
    timestamp: int


@dataclass(frozen=True)
class Update:
    """What a tick brought: the state up to `head`, the events that are new, and, after a reorg, the block to which the
    follower went back first."""

    state: ChainState
    head: Cursor
    events: tuple[Event, ...]
    rewound_to: int | None


@dataclass(frozen=True)
class _Mark:
    """The state after a block."""

    number: int
    hash: bytes
    state: ChainState


class LogReader:
    """Reads the contract's events of a range of blocks, and those of the referees that this node knows, as far as they
    are about this contract's matches. Ranges that the endpoint refuses or fails are halved, down to one block; `chunk`
    is the largest range asked for."""

    def __init__(
        self, rpc: Rpc, address: str, *, referees: Mapping[str, RefereeKind] | None = None, chunk: int = 2_000
    ) -> None:
        self.rpc, self.address, self.chunk = rpc, to_checksum_address(address), chunk
        self.referees: Mapping[str, RefereeKind] = {
            to_checksum_address(at): kind for at, kind in (referees or {}).items()
        }

    def block(self, which: int | str) -> Cursor | None:
        """The block with this number or tag, None if the endpoint does not have it."""

        def ask() -> BlockData | bool:
            try:
                return self.rpc.w3.eth.get_block(which)  # type: ignore[arg-type]
            except BlockNotFound:
                return False

        block = self.rpc.ask("eth_getBlockByNumber", ask)
        if isinstance(block, bool):
            return None
        try:
            return Cursor(int(block["number"]), bytes(block["hash"]), int(block["timestamp"]))
        except (KeyError, TypeError, ValueError) as error:
            raise RpcUnavailable(
                "a block without number, hash or time", where=self.rpc.name, cure="Use another endpoint"
            ) from error

    def events(self, first: int, last: int) -> list[Event]:
        """The events of blocks `first` to `last`, in order. Raises RpcUnavailable, MalformedLog."""
        found: list[Event] = []
        size = self.chunk
        while first <= last:
            end = min(first + size - 1, last)
            try:
                found += self._range(first, end)
            except RpcUnavailable:
                if end == first:
                    raise
                size = max((end - first + 1) // 2, 1)
                continue
            first = end + 1
            size = min(size * 2, self.chunk)
        return found

    def _range(self, first: int, last: int) -> list[Event]:
        queries: list[FilterParams] = [{"address": self.address, "fromBlock": first, "toBlock": last}]
        trials = [to_checksum_address(at) for at, kind in self.referees.items() if kind.has_trials]
        if trials:  # other contracts may use the same referee, so its logs are asked for by their first argument
            about = HexStr("0x" + self.address[2:].lower().rjust(64, "0"))
            queries.append({"address": trials, "topics": [None, about], "fromBlock": first, "toBlock": last})
        events: list[Event] = []
        for query in queries:
            logs = self.rpc.ask("eth_getLogs", partial(self.rpc.w3.eth.get_logs, query))
            events += self._ordered([decode_log(self._checked(log, query, first, last)) for log in logs], first, last)
        return self._ordered(sorted(events, key=lambda event: event.meta), first, last)

    def _ordered(self, events: list[Event], first: int, last: int) -> list[Event]:
        if any(one.meta >= two.meta for one, two in pairwise(events)):
            raise MalformedLog("logs out of order", where=f"blocks {first} to {last}", cure="Use another endpoint")
        return events

    def _checked(self, log: Mapping[str, Any], query: FilterParams, first: int, last: int) -> Mapping[str, Any]:
        number, asked = log.get("blockNumber"), query["address"]
        from_it = log.get("address") in ([asked] if isinstance(asked, str) else asked)
        if from_it and "topics" in query:
            topics = list(log.get("topics") or [])
            from_it = len(topics) > 1 and bytes(topics[1]) == bytes(12) + bytes.fromhex(self.address[2:])
        if log.get("removed") or not from_it:
            raise MalformedLog("a log that was not asked for", where=f"block {number}", cure="Use another endpoint")
        if not isinstance(number, int) or not first <= number <= last:
            raise MalformedLog(
                f"a log of block {number}", where=f"blocks {first} to {last}", cure="Use another endpoint"
            )
        return log


class Follower:
    """The contract's state at the endpoint's head.

    `start` is the block before the contract's creation. `depth` is how many blocks a reorg may reach back; if it
    reaches further, the logs are read again from the start. The cursor is kept in memory.
    """

    def __init__(self, reader: LogReader, *, start: int = 0, depth: int = 256) -> None:
        self.reader, self.start, self.depth = reader, start, depth
        self._history: list[_Mark] = []

    @property
    def state(self) -> ChainState:
        """The state after the last tick."""
        return self._history[-1].state if self._history else ChainState(referees=self.reader.referees)

    def tick(self) -> Update:
        """Reads up to the head. If the chain changes under the reading, the tick starts over."""
        while True:
            update = self._tick()
            if update is not None:
                return update

    def _tick(self) -> Update | None:
        head = self.reader.block("latest")
        if head is None:
            raise RpcUnavailable("there is no latest block", where=self.reader.rpc.name, cure="Use another endpoint")
        rewound = self._rewind(head)
        first = self._history[-1].number + 1 if self._history else self.start
        events = self.reader.events(first, head.number)
        again = self.reader.block(head.number)
        if again != head:
            return None
        state = self.state
        position = 0
        while position < len(events):
            meta = events[position].meta
            end = position
            while end < len(events) and events[end].meta.block == meta.block:
                end += 1
            state = fold_all(state, events[position:end])
            if meta.block != head.number:
                self._history.append(_Mark(meta.block, meta.block_hash, state))
            position = end
        if not self._history or self._history[-1].number < head.number:
            self._history.append(_Mark(head.number, head.hash, state))
        self._prune(head.number)
        return Update(state, head, tuple(events), rewound)

    def _rewind(self, head: Cursor) -> int | None:
        """Drops what is not of the endpoint's chain (any more); returns the block that is left, if anything was
        dropped."""
        before = len(self._history)
        while self._history:
            known = self._history[-1]
            if known.number <= head.number:
                block = head if known.number == head.number else self.reader.block(known.number)
                if block is not None and block.hash == known.hash:
                    break
            self._history.pop()
        if len(self._history) == before:
            return None
        return self._history[-1].number if self._history else self.start

    def _prune(self, head: int) -> None:
        """Keeps what a reorg may reach, and one entry before it."""
        while len(self._history) > 1 and self._history[1].number < head - self.depth:
            del self._history[0]
