"""Tables: rows of figures on the console, in Markdown and in JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from bench.demo import console

WIDTH = 180  # of a table on the console, at least


def tabulated(section: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> pd.DataFrame:
    """A section as a table; a single row stands upright, and rows within it are told apart by dots."""
    if isinstance(section, Mapping):
        flat = pd.json_normalize(dict(section), sep=": ").iloc[0]
        return pd.DataFrame({"figure": flat.index, "value": flat.to_numpy()})
    return pd.DataFrame(list(section))


def show(title: str, table: pd.DataFrame) -> None:
    """A table on the console."""
    shown = Table(*map(str, table.columns), title=title, title_justify="left")
    for row in table.itertuples(index=False):
        shown.add_row(*map(cell, row))
    Console(width=max(console.width, WIDTH)).print(shown)


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.map(cell).to_numpy().tolist()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def facts(*several: Mapping[str, Any]) -> str:
    """Names and values as a list in Markdown."""
    return "\n".join(f"- {name}: {value}" for known in several for name, value in known.items())


def cell(value: object) -> str:
    """A value as a reader wants it: four digits, blank where there is none."""
    if not isinstance(value, float):
        return str(value)
    return "" if math.isnan(value) else f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Write figures, NaN as null."""
    path.write_text(json.dumps(without_nan(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def without_nan(value: Any) -> Any:
    """The same with None for NaN, which JSON does not know."""
    if isinstance(value, Mapping):
        return {str(key): without_nan(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value
