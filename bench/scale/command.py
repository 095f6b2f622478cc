"""``python -m bench scale``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import typer

from bench.demo import console, show_progress
from bench.scale import encoding, exact, growth, memory, search, spark
from bench.scale.part import Asked, Told
from bench.tables import markdown, show, write_json
from bench.timing import Budget

Part = Literal["als", "search", "encoding", "spark", "growth", "memory"]
PARTS: Mapping[Part, Callable[[Asked], Told]] = {
    "als": exact.measured,
    "search": search.measured,
    "encoding": encoding.measured,
    "spark": spark.measured,
    "growth": growth.measured,
    "memory": memory.measured,
}


def main(
    part: Annotated[Part | None, typer.Option(help="One part alone.")] = None,
    seconds: Annotated[float, typer.Option(help="For each system that is timed, at most.")] = 40.0,
    users: Annotated[list[int] | None, typer.Option(help="Numbers of users whose memory is measured.")] = None,
    data: Annotated[Path, typer.Option(help="Where the data sets are kept whose texts are read.")] = Path("data"),
    out: Annotated[Path, typer.Option(help="Where the results go.")] = Path("runs/scale"),
    tiny: Annotated[bool, typer.Option(help="A fraction of the work, to try the path.")] = False,
) -> None:
    """Measure offline generation at sizes that no real data set here has."""
    show_progress()
    out.mkdir(parents=True, exist_ok=True)
    budget = Budget(1.0 if tiny else seconds)
    for name in PARTS if part is None else (part,):
        with tempfile.TemporaryDirectory(prefix="scale-", dir=out) as folder:
            told = PARTS[name](Asked(budget, tuple(users) if users else None, data, out, Path(folder), tiny))
        table = pd.DataFrame(told.rows)
        show(told.protocol, table)
        (out / f"{name}.md").write_text(f"# {told.title}\n\n{told.protocol}\n\n{markdown(table)}", encoding="utf-8")
        write_json({**told.about, "rows": told.rows}, out / f"{name}.json")
    console.print(f"Written to {out}.")
