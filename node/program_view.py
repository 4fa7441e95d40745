"""A program's description as tables, for `verde program inspect`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def print_program(description: Mapping[str, Any], console: Console) -> None:
    """Prints what `repops.graph.describe` returned."""
    nodes, sizes, heights = (description[key] for key in ("nodes", "bytes", "heights"))
    console.print(f"[bold]root[/bold] {description['root']}  [dim]profile {description['profile']}[/dim]")
    console.print(
        f"{nodes['trace']} trace nodes: {nodes['compute']} operators, {nodes['hash']} hash nodes; "
        f"trees: trace {heights['trace']}, state {heights['state']}, batch {heights['batch']}, "
        f"largest output {heights['largest_output']} levels"
    )
    console.print(
        f"bytes: state {sizes['state']:,}, batch {sizes['batch']:,}, constants {sizes['constants']:,}, "
        f"node outputs {sizes['node_outputs']:,}"
    )
    operators = _table("operator", "nodes")
    for name, count in description["operators"].items():
        operators.add_row(name, str(count))
    console.print(operators)
    _tensors(console, "slot", description["slots"], update=True)
    _tensors(console, "batch tensor", description["batch"])
    if description["constants"]:
        _tensors(console, "constant", description["constants"])


def _tensors(console: Console, title: str, tensors: Sequence[Mapping[str, Any]], *, update: bool = False) -> None:
    table = _table(title, "dtype", "shape", "bytes", *(["update"] if update else []))
    for index, tensor in enumerate(tensors):
        row = [tensor.get("name", str(index)), tensor["dtype"], str(tensor["shape"]), f"{tensor['bytes']:,}"]
        table.add_row(*row, *([tensor["update"]] if update else []))
    console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in ("nodes", "bytes") else "left", overflow="fold")
    return table
