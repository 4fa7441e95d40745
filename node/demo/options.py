"""What `verde demo` can be asked for."""

from __future__ import annotations

from dataclasses import dataclass

from node.errors import UsageError
from node.structs import RefereeKind

NO_CHEAT = "none"
DEFAULT_CHEAT = "flip-bit"
REFEREES = {kind.value: kind for kind in (RefereeKind.COMMITTEE, RefereeKind.EVM, RefereeKind.APPEAL)}


@dataclass(frozen=True)
class DemoOptions:
    """The options of `verde demo`.

    providers: 2 to 16, the liars among them. cheat: a name of `node.adversaries.CHEATS`, or "none". threads: None means
    all cores. cheat_step, cheat_node: where flip-bit flips; None: by seed; cheat_element: in which
    element of the node's output, row-major. one_transaction: levels are settled with one
    proof from the other side's served tree, instead of move by move. referee: a name of `REFEREES`; None: what the
    cheat needs, mostly a committee.
    """

    providers: int = 3
    cheat: str = DEFAULT_CHEAT
    seed: int = 0
    steps: int = 200
    interval: int = 20
    cheat_step: int | None = None
    cheat_node: int | None = None
    cheat_element: int = 0
    threads: int | None = None
    one_transaction: bool = False
    referee: str | None = None

    def check(self, known: dict[str, str]) -> None:
        """Raises UsageError for values that contradict each other. known: cheats, name to description."""
        if self.cheat != NO_CHEAT and self.cheat not in known:
            raise UsageError(
                f"unknown kind of cheating {self.cheat!r}", where="--cheat", cure=f"Known: none, {', '.join(known)}"
            )
        if self.referee is not None and self.referee not in REFEREES:
            raise UsageError(
                f"unknown referee {self.referee!r}", where="--referee", cure=f"Known: {', '.join(REFEREES)}"
            )
        if self.interval > self.steps:
            raise UsageError(
                f"{self.interval} is more than the {self.steps} steps", where="--interval", cure="Use --steps or less"
            )
        placed = self.cheat_step is not None or self.cheat_node is not None or self.cheat_element
        if placed and self.cheat != DEFAULT_CHEAT:
            where = "--cheat-step, --cheat-node, --cheat-element"
            raise UsageError("only flip-bit takes a place to flip", where=where, cure="Leave them out")
        if self.cheat_step is not None and self.cheat_step >= self.steps:
            raise UsageError(
                f"{self.cheat_step} is not one of the {self.steps} steps", where="--cheat-step", cure="Count from 0"
            )
