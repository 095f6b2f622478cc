"""What a command prints: one result in two forms, a table for people or JSON for programs, and notes beside it."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import pandas as pd

PACKAGES = ("encoders", "retrieval", "ranker")
UNLIMITED = 100_000  # columns of a line that no terminal shows: a pipe gets whole lines


@dataclass(frozen=True)
class Output:
    """Where a command's result and its notes go.

    Attributes:
        as_json: Whether the result is printed as JSON.
        quiet: Whether progress is kept to oneself.
        level: Of the notes that are shown; None leaves it to the command.
        stdout: Takes the result.
        stderr: Takes the rest.
    """

    as_json: bool
    quiet: bool
    level: int | None
    stdout: Console
    stderr: Console

    @classmethod
    def to_terminal(cls, *, as_json: bool, quiet: bool, level: int | None) -> Output:
        """Output to the process's own stdout and stderr, as they are at this moment."""
        return cls(as_json, quiet, level, _console(stderr=False), _console(stderr=True))

    @property
    def shows_progress(self) -> bool:
        """Whether bars are shown: somebody watches, and wants to."""
        return self.stderr.is_terminal and not self.quiet

    def show(self, **parts: Any) -> None:
        """Print the result.

        Args:
            parts: Its parts by name: tables (DataFrames), facts (mappings), or single values. JSON has them under
                these names; people see the names as headings where there are several.
        """
        if self.as_json:
            self.stdout.file.write(json.dumps(_plain(parts), indent=2, allow_nan=False) + "\n")
            return
        for name, part in parts.items():
            if len(parts) > 1:
                self.stdout.print(Text(_spoken(name), style="bold"))
            self.stdout.print(_rendered(part), soft_wrap=isinstance(part, str))

    def note(self, message: str) -> None:
        """Say something beside the result."""
        if not self.quiet:
            self.stderr.print(Text(message), soft_wrap=True)


@contextmanager
def notes(console: Console, level: int) -> Iterator[None]:
    """Show what the library logs from this level on."""
    handler = _Notes(console)
    loggers = [logging.getLogger(name) for name in PACKAGES]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, before in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(before)


class _Notes(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        style = "dim" if record.levelno < logging.WARNING else "yellow"
        self._console.print(Text(record.getMessage(), style=style), soft_wrap=True)


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    # fixed now: what is printed to stdout later may be sent elsewhere
    return Console(file=console.file, highlight=False, width=None if console.is_terminal else UNLIMITED)


def _rendered(part: Any) -> Table | Text:
    if hasattr(part, "columns"):
        return _table(part)
    if isinstance(part, Mapping):
        grid = Table.grid(padding=(0, 2))
        for name, value in part.items():
            grid.add_row(Text(_spoken(str(name)), style="dim"), Text(_cell(value)))
        return grid
    return Text(_cell(part))


def _table(frame: pd.DataFrame) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    for name, kind in frame.dtypes.items():
        table.add_column(Text(_spoken(str(name))), justify="right" if kind.kind in "iuf" else "left")
    for row in frame.itertuples(index=False, name=None):
        table.add_row(*(Text(_cell(value, ".4f")) for value in row))
    return table


def _cell(value: Any, digits: str = ".4g") -> str:
    value = _plain_scalar(value)
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return format(value, digits)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_cell(entry)}" for name, entry in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_cell, value))
    return str(value)


def _spoken(name: str) -> str:
    return name if name.endswith("_id") else name.replace("_", " ")


def _plain(value: Any) -> Any:
    """The value as what JSON has: NaN, infinities and missing values as null."""
    if hasattr(value, "columns"):
        names = [str(name) for name in value.columns]
        rows = value.itertuples(index=False, name=None)
        return [{name: _plain(entry) for name, entry in zip(names, row, strict=True)} for row in rows]
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(entry) for entry in value]
    return _plain_scalar(value)


def _plain_scalar(value: Any) -> Any:
    if hasattr(value, "item"):  # numpy's numbers
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime):
        return None if value != value else value.isoformat()  # NaT is no time and equals nothing
    if isinstance(value, Path):
        return str(value)
    return None if type(value).__name__ == "NAType" else value
