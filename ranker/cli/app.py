"""The program: its global options and its table of commands."""

import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ranker.cli.candidates import candidates
from ranker.cli.compare import compare
from ranker.cli.evaluate import backtest, evaluate
from ranker.cli.export import export
from ranker.cli.feedback import feedback
from ranker.cli.fit import data, fit, update
from ranker.cli.info import info
from ranker.cli.learn import learn, rollback, status
from ranker.cli.log import compact, forget, log
from ranker.cli.output import Output, notes
from ranker.cli.serve import rank, recommend, similar
from ranker.cli.tune import tune

PROGRAM = "ranker"
GLOBAL_OPTIONS = frozenset({"--json", "--quiet", "-q", "--verbose", "-v", "--debug"})
LONG_COMMANDS = frozenset({"data", "tune", "fit", "update", "export", "backtest"})  # they say unasked how far they are


class Command(TyperCommand):
    """A command during whose run stdout is the result's alone, whatever a library prints."""

    def invoke(self, ctx: Any) -> Any:
        """Run it, notes of the library and stray prints going to stderr."""
        output: Output = ctx.obj
        level = output.level if output.level is not None else _usual_level(str(self.name))
        with redirect_stdout(sys.stderr), notes(output.stderr, level):
            return super().invoke(ctx)


def with_global_options_first(words: Sequence[str]) -> list[str]:
    """The words with the global options at the front, so that they may be typed anywhere before a ``--``."""
    end = words.index("--") if "--" in words else len(words)
    options = [word for word in words[:end] if word in GLOBAL_OPTIONS]
    return [*options, *(word for word in words[:end] if word not in GLOBAL_OPTIONS), *words[end:]]


def _usual_level(command: str) -> int:
    return logging.INFO if command in LONG_COMMANDS else logging.WARNING


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            number = version("hybrid-ranker")
        except PackageNotFoundError:
            number = "(not installed: run from its source)"
        typer.echo(f"hybrid-ranker {number}")
        raise typer.Exit


app = typer.Typer(
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


@app.callback(epilog="The options above may be typed before or after a command. Each command has a --help of its own.")
def options(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, to stdout.")] = (
        False
    ),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes and no progress bars, errors only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Notes of every step, from every command.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Rank items for users: candidates from a log and item texts, a cross-encoder, and instant feedback.

    Begin with:

        ranker fit interactions.csv items.csv --out model
        ranker recommend model 42
    """
    level = logging.ERROR if quiet else logging.DEBUG if verbose else None
    ctx.obj = Output.to_terminal(as_json=as_json, quiet=quiet, level=level)


COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Make an engine": (data, tune, fit, update, export),
    "Ask it": (recommend, rank, similar, candidates),
    "Teach it": (feedback, learn, rollback, status),
    "Keep its log": (log, compact, forget),
    "Judge it": (evaluate, backtest, compare, info),
}
for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(command.__name__, cls=Command, rich_help_panel=panel)(command)
