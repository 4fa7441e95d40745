"""A drill as it is seen: a line a dispute. And its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from safetensors import SafetensorError
from safetensors.numpy import load_file

from node.data import State
from node.drill import Dispute, DrillReport
from node.errors import UsageError
from repops.execute import checked_tensors
from repops.graph.ir import BatchTensor, Slot

_ROW = "{:<26} {:>6} {:>9} {:>4} {:>2}  {:<34} {:>8} {:>8} {:>6} {:>4} {:>10} {:>10}  {}"
_HEAD = (
    "operator",
    "node",
    "element",
    "bit",
    "by",
    "instruction",
    "number",
    "of",
    "moves",
    "txs",
    "gas",
    "of these",
    "ruling",
)


def read_tensors(path: Path, wanted: Sequence[Slot | BatchTensor]) -> State:
    """A state or a batch from a safetensors file. Raises UsageError, TensorError for tensors that are not the
    program's."""
    try:
        content = load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise UsageError(
            f"not a safetensors file ({error})", where=str(path), cure="Give a file that exists"
        ) from error
    return {
        tensor.name: array for tensor, array in zip(wanted, checked_tensors(wanted, content, str(path)), strict=True)
    }


class DrillView:
    """Prints to a console; with `quiet` nothing."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(quiet=quiet, highlight=False)
        self._started = False

    def dispute(self, found: Dispute) -> None:
        """One dispute's row."""
        if not self._started:
            self._started = True
            self._row(_HEAD, "bold")
        ruling = f"{found.ruling}" if found.honest_won else f"{found.ruling}: THE LIE WAS NOT FOUND"
        number = "-" if found.position is None else str(found.position)
        self._row(
            (
                found.operator,
                str(found.node),
                str(found.element),
                str(found.bit),
                found.liar,
                found.instruction or "-",
                number,
                str(found.instructions),
                str(found.moves),
                str(found.transactions),
                f"{found.gas:,}",
                f"{found.trial_gas:,}",
                ruling,
            ),
            "green" if found.honest_won else "red",
        )

    def finish(self, report: DrillReport) -> None:
        """The result."""
        if report.skipped:
            self.console.print(f"without elements, so without disputes: {', '.join(report.skipped)}")
        won = sum(dispute.honest_won for dispute in report.disputes)
        self.console.print(f"{won} of {len(report.disputes)} lies found by the instruction that the chain executed")

    def _row(self, cells: Sequence[str], style: str) -> None:
        self.console.print(f"[{style}]{escape(_ROW.format(*cells))}[/{style}]", soft_wrap=True)
