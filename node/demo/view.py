"""The demo as it is seen: progress while training, then the dispute as it narrows. Reads chain events only."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from node import events as ev
from node.demo.report import DemoReport
from node.events import Event
from node.exhibit import Exhibit
from node.fold import ChainState, MatchState
from node.structs import Level, Outcome, Phase, Reason, RefereeKind, Ruling, Side, TrialStage
from repops import Program
from repops.vm.isa import Instruction

ETHER = 10**18
WHY = {
    "TIMEOUT": "the other side was silent until its time was over",
    "PADDING": "the trees differ where no leaf belongs: judged at once",
    "HASH_NODE": "the contract recomputed one keccak",
    "VERDICT": "the committee recomputed the operator",
    "UNAVAILABLE": "neither side served the agreed inputs",
    "SILENCE": "the referee was silent",
}


def describe_node(program: Program, index: int) -> tuple[str, str]:
    """Operator name and shapes of a trace node, e.g. ("matmul", "f32[128, 32] x f32[32, 96] -> f32[128, 96]")."""
    if index >= len(program.nodes):
        return "hash", "keccak256(left || right), an inner node of the new state's tree"
    node = program.nodes[index]

    def text(dtype: object, shape: tuple[int, ...]) -> str:
        return f"{getattr(dtype, 'text', dtype)}[{', '.join(map(str, shape))}]"

    inputs = " x ".join(text(i.dtype, i.shape) for i in node.inputs) or "-"
    return node.op, f"{inputs} -> {text(node.dtype, node.shape)}"


class View:
    """Prints to a console; with `quiet` nothing."""

    def __init__(self, names: Mapping[str, str], gas_of: Callable[[bytes], int], *, quiet: bool = False) -> None:
        self.console = Console(quiet=quiet, highlight=False, stderr=False)
        self.names, self.gas_of = names, gas_of
        self.program: Program | None = None
        self._progress: Progress | None = None
        self._bars: dict[str, TaskID] = {}
        self._last_tx = b""
        self._transactions: dict[int, set[bytes]] = {}
        self.exhibit_of: Callable[[ChainState, MatchState], Exhibit | None] = lambda _state, _match: None

    # -- phases --------------------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """A line of its own."""
        self.console.print(text, soft_wrap=True)

    def training(self, name: str, done: int, steps: int) -> None:
        """Progress of one provider."""
        if self._progress is None:
            self._progress = Progress(
                TextColumn("  {task.description:22}"),
                BarColumn(32),
                MofNCompleteColumn(),
                TextColumn("steps"),
                TimeElapsedColumn(),
                console=self.console,
            )
            self._progress.start()
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(name, total=steps)
        self._progress.update(self._bars[name], completed=done)

    def stop_progress(self) -> None:
        """Ends the bars; later lines are printed below them."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    # -- events --------------------------------------------------------------------------------------------------------

    def event(self, event: Event, state: ChainState) -> None:
        """One chain event, with the folded state after it."""
        self.stop_progress()
        match_id = getattr(event, "match_id", None)
        if match_id is not None:
            self._transactions.setdefault(match_id, set()).add(event.meta.tx_hash)
        match event:
            case ev.TaskCreated():
                self._line("task", f"escrow {event.params.reward * event.params.seats / ETHER:g} ether", event)
            case ev.Committed():
                self._line("commit", f"{self._who(event.provider)} seals its claim and pays its bond", event)
            case ev.Revealed():
                self._line("reveal", f"{self._who(event.provider)} claims {_short(event.claim_root)}", event)
            case ev.Challenged():
                self._line("challenge", f"{self._who(event.challenger)} claims {_short(event.claim_root)}", event)
            case ev.Paired():
                a, b = self._sides(state, state.matches[event.match_id])
                self.say(f"\n[bold]Match {event.match_id}: {a} (A) against {b} (B)[/bold]")
                self._line("pair", "", event)
            case ev.Opened():
                self._move(event, state, Side.A, f"opens {len(event.children)} children")
            case ev.Advanced():
                self._advanced(event, state)
            case ev.Posted():
                children = f" and opens {len(event.children)} children" if event.children else ""
                self._move(event, state, event.side, f"posts its tree {_short(event.root)}{children}")
            case ev.LevelClosed():
                self._closed(event, state)
            case ev.Judged():
                self._line("verdict", _ruling(event), event)
            case ev.MatchEnded():
                self._ended(event, state)
            case ev.Settled():
                self._line("settle", f"state root {_short(event.final_state_root)} stands", event)
            case ev.Failed() | ev.Voided() | ev.Cancelled():
                self._line(type(event).__name__.lower(), "", event)
            case _:
                self._referee(event, state)

    def _referee(self, event: Event, state: ChainState) -> None:
        """A committee whose verdict can be appealed, and the game below the operator."""
        match event:
            case ev.VerdictGiven():
                said = f"the true output is {_short(event.output_root)}" if event.available else "inputs unavailable"
                self._line("committee", f"{said}; it stands unless a side appeals", event)
            case ev.Appealed():
                self._line("appeal", f"{self._who(event.account)} appeals to the chain", event)
            case ev.CommitteeWrong():
                self._line("committee", f"{event.signers.bit_count()} members signed the root that lost", event)
            case ev.Begun():
                text = f"{event.elements:,} elements, runs of up to {1 << event.vm_height:,} instructions"
                self._line("trial", text, event)
            case ev.TrialOpened():
                trial = state.matches[event.match_id].trial
                verb = "instructions" if trial is not None and trial.over_states else "elements"
                who = self._side(event.match_id, state, Side.A)
                self._line(verb, f"{who} opens {len(event.children)} children", event)
            case ev.TrialAdvanced():
                self._trial_advanced(event, state)
            case ev.TileShown():
                self._line("elements", f"{self._side(event.match_id, state, Side.A)} shows its tile", event)
            case ev.ElementFound():
                text = (
                    f"element {event.element} is the first that differs: {event.value_a:#x} (A), {event.value_b:#x} (B)"
                )
                self._line("elements", text, event)
            case ev.TracePosted():
                who = self._side(event.match_id, state, event.side)
                self._line("instructions", f"{who} posts its run of the element {_short(event.root)}", event)
            case ev.InstructionFound():
                self._line("instructions", f"instruction {event.position} is the first that differs", event)
            case ev.Executed():
                text = Instruction.decode(event.word).text
                self._line("execute", f"[bold]{escape(text)}[/bold]{' ' * (66 - len(text))}", event)
                self._show(self.exhibit_of(state, state.matches[event.match_id]))

    def finish(self, report: DemoReport) -> None:
        """Who is paid, who is slashed, and the model's accuracy."""
        self.stop_progress()
        table = Table(title="Money (ether, gas not counted)", title_justify="left", box=None, padding=(0, 2))
        table.add_column("actor")
        table.add_column("won or lost", justify="right")
        table.add_column("")
        for name, wei in report.paid.items():
            note = "[red]slashed[/red]" if name in report.slashed else ""
            table.add_row(name, f"{wei / ETHER:+.6f}", note)
        table.add_row("burned", f"{report.burned / ETHER:+.6f}", "")
        self.console.print()
        self.console.print(table)
        accuracy = "-" if report.accuracy is None else f"{100 * report.accuracy:.1f} %"
        verdict = (
            "[green]the honest root won[/green]" if report.honest_won else "[red]the honest root did NOT win[/red]"
        )
        if report.cheat != "none" and not report.slashed:
            self.say("\nNobody lost a bond: this lie changed no checkpoint, so nobody claimed anything wrong.")
        self.say(
            f"\n{verdict}: {_short_hex(report.winner_root)}   accuracy on held-out digits {accuracy}\n"
            f"{report.transactions} transactions, {report.gas_total:,} gas, {report.seconds:.1f} s"
        )

    # -- inside --------------------------------------------------------------------------------------------------------

    def _line(self, verb: str, text: str, event: Event) -> None:
        tx = event.meta.tx_hash
        gas = f"{self.gas_of(tx):>9,} gas" if tx != self._last_tx else "         with it"
        self._last_tx = tx
        self.say(f"  [cyan]{verb:12}[/cyan] {text:66} [dim]tx {_short(tx)} {gas}[/dim]")

    def _side(self, match_id: int, state: ChainState, side: Side) -> str:
        return self._sides(state, state.matches[match_id])[side is Side.B]

    def _trial_advanced(self, event: ev.TrialAdvanced, state: ChainState) -> None:
        trial = state.matches[event.match_id].trial
        verb, what = ("instructions", "state") if trial is not None and trial.over_states else ("elements", "tile")
        first, last = event.position << event.rest, (event.position + 1 << event.rest) - 1
        where = f"{what} {first}" if event.rest == 0 else f"{what}s {first}..{last}"
        who = self._side(event.match_id, state, event.mover)
        self._line(verb, f"{who}: first difference in {where}", event)

    def _show(self, found: Exhibit | None) -> None:
        """What a trial has found: the operands, what the sides claim, the truth."""
        if found is None:
            return
        at = f"element {list(found.place)}" if len(found.place) != 1 else f"element {found.place[0]}"
        self.say(f"  [yellow]->[/yellow] {escape(at)}, instruction {found.position} of {found.instructions}:")
        table = Table(box=None, padding=(0, 2), show_header=False)
        for _ in range(5):
            table.add_column(no_wrap=True)
        for operand in found.operands:
            table.add_row("", operand.name, operand.hex, operand.decimal)
        if found.result is not None:
            table.add_row("", f"gives {found.result.name}", found.result.hex, found.result.decimal)
        for claim in (*found.claims, found.truth):
            state = "" if claim.state_after is None else f"-> {claim.state_after[:10]}.."
            table.add_row("", claim.who, claim.value.hex, claim.value.decimal, state)
        self.console.print(table)

    def _move(self, event: ev.Opened | ev.Posted, state: ChainState, side: Side, text: str) -> None:
        match = state.matches[event.match_id]
        who = self._sides(state, match)[side is Side.B]
        self._line(match.level.name.lower(), f"{who} {text}", event)

    def _advanced(self, event: ev.Advanced, state: ChainState) -> None:
        match = state.matches[event.match_id]
        who = self._sides(state, match)[event.mover is Side.B]
        moved = match.at
        first = event.position << event.rest
        last = min(((event.position + 1) << event.rest) - 1, max(first, moved.leaves - 1))
        where = f"leaf {first}" if event.rest == 0 else f"leaves {first}..{last}"
        turn = len(moved.moves)
        self._line(
            moved.level.name.lower(), f"round {turn:2} {who}: first difference in {where} of {moved.leaves}", event
        )

    def _closed(self, event: ev.LevelClosed, state: ChainState) -> None:
        if event.closed is Level.CHECKPOINTS and event.level is Level.STEPS:
            text = f"checkpoint {event.position} is the first that differs: steps from {event.step} on"
        elif event.level is Level.OPERATORS and event.closed is not Level.OPERATORS:
            text = f"step {event.step} is the first that differs"
        else:
            operator, shapes = "", ""
            if self.program is not None:
                operator, shapes = describe_node(self.program, event.position)
            kind = state.tasks[state.matches[event.match_id].task_id].referee_kind
            who = {
                RefereeKind.EVM: "the trial goes on below it",
                RefereeKind.APPEAL: "the committee recomputes it; a side may appeal",
            }.get(kind, "the committee recomputes it")
            who = "the contract judges" if event.phase is Phase.HASH_NODE else who
            text = f"node {event.position} is the first that differs: [bold]{operator}[/bold] {escape(shapes)} ({who})"
        self.say(f"  [yellow]->[/yellow] {text}")

    def _ended(self, event: ev.MatchEnded, state: ChainState) -> None:
        a, b = self._sides(state, state.matches[event.match_id])
        won = {
            Outcome.A_WINS: f"{a} wins, {b} is slashed",
            Outcome.B_WINS: f"{b} wins, {a} is slashed",
            Outcome.BOTH_LOSE: "both lose",
            Outcome.VOID: "the task is void",
        }[event.outcome]
        self.say(
            f"  [green]=> {won}[/green]: {_why(state.matches[event.match_id])}; "
            f"paid {event.paid / ETHER:g}, burned {event.burned / ETHER:g} ether"
        )
        gas = [self.gas_of(tx) for tx in self._transactions[event.match_id]]
        verbs = state.matches[event.match_id].verbs
        self.say(f"     {verbs} verbs after the pairing, {len(gas)} transactions, {sum(gas):,} gas")

    def _who(self, address: str) -> str:
        return self.names.get(address, address)

    def _sides(self, state: ChainState, match: MatchState) -> tuple[str, str]:
        roster = state.tasks[match.task_id].roster
        return self._who(roster[match.index_a].account), self._who(roster[match.index_b].account)


def _why(match: MatchState) -> str:
    """Why a match ended."""
    trial = match.trial
    if match.reason is not Reason.VERDICT or trial is None:
        return WHY.get(match.reason.name, match.reason.name)
    if trial.word is not None:
        return "the chain executed one instruction"
    past_end = trial.tile is None and trial.rest == 0 and trial.stage is TrialStage.DONE and trial.moves
    return WHY["PADDING"] if past_end else WHY["TIMEOUT"]


def _ruling(event: ev.Judged) -> str:
    if event.ruling is Ruling.ROOT:
        return f"the true output is {_short(event.output_root)}"
    return f"ruling: {event.ruling.name.lower().replace('_', ' ')}"


def _short(root: bytes) -> str:
    return f"0x{root[:4].hex()}.."


def _short_hex(root: str | None) -> str:
    return "-" if root is None else f"{root[:18]}.."
