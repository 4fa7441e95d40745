"""The command `verde`.

Data goes to stdout, messages to stderr. Exit codes: 0 ok, 1 failure, 2 bad input or usage, 3 chain or RPC,
4 verification mismatch. Expected errors (`VerdeError`, `RepopsError`) print one line, never a traceback.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from node.adversaries import CHEATS
from node.demo.options import DEFAULT_CHEAT, DemoOptions
from node.errors import UsageError, VerdeError
from repops.errors import CommitmentError, RepopsError

EXIT_FAILURE, EXIT_USAGE, EXIT_MISMATCH = 1, 2, 4

app = typer.Typer(
    name="verde",
    help="Verifies machine-learning programs by refereed delegation on a smart contract.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
program_app = typer.Typer(help="Programs: captured training steps.", no_args_is_help=True)
app.add_typer(program_app, name="program")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


@app.callback()
def _root() -> None:
    """Verifies machine-learning programs by refereed delegation on a smart contract."""


@program_app.command("inspect")
def inspect(
    path: Annotated[Path, typer.Argument(help="A program directory, as Program.save writes it.")],
    as_json: Json = False,
) -> None:
    """Show a program's nodes, operators, slots, sizes and root, after checking all of them."""
    # Imported here: --help and usage errors need none of it, and it takes seconds.
    import repops  # noqa: PLC0415
    from node.program_view import print_program  # noqa: PLC0415

    description = repops.graph.describe(repops.Program.load(path))
    if as_json:
        print(json.dumps(description, indent=2, sort_keys=True))
    else:
        print_program(description, Console())


@app.command("demo")
def demo(
    providers: Annotated[int, typer.Option(min=2, max=16, help="How many providers take part.")] = 3,
    cheat: Annotated[
        str, typer.Option(metavar="KIND", help=f"What the dishonest side does: none, {', '.join(CHEATS)}.")
    ] = DEFAULT_CHEAT,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Model, batches, keys, and what the liar picks.")] = 0,
    steps: Annotated[int, typer.Option(min=2, max=10_000, help="Training steps.")] = 200,
    interval: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 20,
    cheat_step: Annotated[int | None, typer.Option(min=0, help="flip-bit: the step. Default: by seed.")] = None,
    cheat_node: Annotated[int | None, typer.Option(min=0, help="flip-bit: the node. Default: by seed.")] = None,
    cheat_element: Annotated[int, typer.Option(min=0, help="flip-bit: the element, row-major.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, max=256, help="Threads a provider. Default: all cores.")] = None,
    one_transaction: Annotated[
        bool, typer.Option(help="Settle each level with one proof from the opponent's served tree.")
    ] = False,
    referee: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="Who decides on the operator: committee, evm (the chain, down to one instruction), or appeal (a "
            "committee first). Default: what the cheat needs, mostly a committee.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a small transformer on digits, on an embedded chain, with a liar among the providers."""
    from node.demo.session import run_demo  # noqa: PLC0415

    options = DemoOptions(
        providers=providers,
        cheat=cheat,
        seed=seed,
        steps=steps,
        interval=interval,
        cheat_step=cheat_step,
        cheat_node=cheat_node,
        cheat_element=cheat_element,
        threads=threads,
        one_transaction=one_transaction,
        referee=referee,
    )
    report = run_demo(options, quiet=as_json)
    if as_json:
        print(json.dumps(report.as_dict(), indent=2))
    if not report.honest_won:
        raise typer.Exit(EXIT_FAILURE)


@app.command("drill")
def drill(
    path: Annotated[Path, typer.Argument(metavar="PROGRAM", help="A program directory, as Program.save writes it.")],
    every: Annotated[bool, typer.Option("--all", help="One dispute for each kind of operator.")] = False,
    operator: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A dispute for this operator; may be repeated.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The initial state, safetensors. Default: random.")
    ] = None,
    batch: Annotated[Path | None, typer.Option(metavar="FILE", help="The batch, safetensors. Default: random.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="What is drawn: contents, nodes, elements, bits, sides.")] = 0,
    arity_bits: Annotated[int, typer.Option(min=1, max=6, help="log2 of the children that a move publishes.")] = 4,
    interactive: Annotated[
        bool, typer.Option("--interactive", help="Play every level move by move, instead of with one proof.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Dispute a program's operators, one by one, with the chain as the referee; exit 1 unless every lie is found."""
    import repops  # noqa: PLC0415
    from node.drill import operators, random_tensors, run_drill  # noqa: PLC0415
    from node.drill_view import DrillView, read_tensors  # noqa: PLC0415

    if every == bool(operator):
        raise UsageError("nothing, or two things, to dispute", where="drill", cure="Give --all, or --operator NAME")
    program = repops.Program.load(path)
    view = DrillView(quiet=as_json)
    report = run_drill(
        program,
        list(operators(program)) if every else operator or [],
        read_tensors(state, program.slots) if state else random_tensors(program.slots, seed),
        read_tensors(batch, program.batch) if batch else random_tensors(program.batch, seed + 1),
        seed=seed,
        one_transaction=not interactive,
        arity_bits=arity_bits,
        each=view.dispute,
    )
    if as_json:
        print(json.dumps(report.as_dict(), indent=2))
    else:
        view.finish(report)
    if not report.honest_won:
        raise typer.Exit(EXIT_FAILURE)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `verde`. Exits; never returns a traceback for an expected error."""
    try:
        app(args=arguments, prog_name="verde")
    except VerdeError as error:
        _fail(error, error.exit_code)
    except CommitmentError as error:
        _fail(error, EXIT_MISMATCH)
    except RepopsError as error:
        _fail(error, EXIT_USAGE)
    except KeyboardInterrupt:
        print("verde: interrupted", file=sys.stderr)
        sys.exit(130)


def _fail(error: Exception, code: int) -> None:
    print(f"verde: {error}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
