"""What a demo run was: the object that `verde demo --json` prints."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from node.exhibit import Exhibit


@dataclass(frozen=True)
class MatchReport:
    """One match.

    `level` is where it ended; `step` and `node` are None unless the match came to them. `operator` is "hash" for a node
    of the state tree. `moves`: verbs that the contracts accepted; `transactions`: how many carried them, and `gas` that
    they took, `pair` included.
    `exhibit`: what a trial found below the operator. `wrong_members`: those of a committee who signed the root that
    lost an appeal.
    """

    match: int
    sides: tuple[str, str]
    winner: str | None
    losers: tuple[str, ...]
    reason: str
    level: str
    checkpoint: int | None
    step: int | None
    node: int | None
    operator: str | None
    shapes: str | None
    moves: int
    transactions: int
    gas: int
    exhibit: Exhibit | None = None
    wrong_members: tuple[str, ...] = ()


@dataclass(frozen=True)
class DemoReport:
    """The whole run.

    Roots are 0x-hex state roots; `winner_root` is None if the task did not settle. `paid`: wei won or lost by
    each actor, gas not counted. `conserved`: every wei that left an account is held by the contract or was burned.
    """

    cheat: str
    referee: str
    seed: int
    settled: bool
    winner_root: str | None
    honest_root: str
    accuracy: float | None
    slashed: list[str]
    matches: list[MatchReport]
    paid: dict[str, int]
    burned: int
    conserved: bool
    transactions: int
    gas_total: int
    seconds: float
    program_root: str
    nodes: int
    steps: int
    providers: int

    @property
    def honest_won(self) -> bool:
        """Whether the task settled on the root that an execution outside the game gives, and no wei is missing."""
        return self.settled and self.winner_root == self.honest_root and self.conserved

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, with stable keys."""
        return {**asdict(self), "honest_won": self.honest_won}
