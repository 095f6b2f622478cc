"""``python -m bench scale``."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import typer

from bench.demo import console, show_progress
from bench.scale.exact import OURS, STORED, exact
from bench.scale.memory import EVENTS, FACTORS, memory
from bench.tables import markdown, show, write_json
from bench.timing import Budget

MEGABYTE = 10**6


def main(
    part: Annotated[Literal["als", "memory"] | None, typer.Option(help="One part alone.")] = None,
    seconds: Annotated[float, typer.Option(help="For each system that is timed, at most.")] = 40.0,
    users: Annotated[list[int] | None, typer.Option(help="Numbers of users whose memory is measured.")] = None,
    out: Annotated[Path, typer.Option(help="Where the results go.")] = Path("runs/scale"),
    tiny: Annotated[bool, typer.Option(help="A fraction of the work, to try the path.")] = False,
) -> None:
    """Measure offline generation at sizes that no real data set here has."""
    show_progress()
    out.mkdir(parents=True, exist_ok=True)
    if part in (None, "als"):
        _als(1.0 if tiny else seconds, out, tiny)
    if part in (None, "memory"):
        _memory(tuple(users or ((500, 1_000) if tiny else (100_000, 1_000_000))), out, tiny)
    console.print(f"Written to {out}.")


def _als(seconds: float, out: Path, tiny: bool) -> None:
    """Candidates a second, beside implicit's."""
    n_users, n_items, dim = (2_000, 3_000, 16) if tiny else (100_000, 100_000, 128)
    k, batch = (20, 500) if tiny else (200, 2_048)
    found = exact(n_users, n_items, dim, k, batch, (1, 2), Budget(seconds))
    rows = [
        {
            "cores": cores, "system": name, "batches": len(timings.latencies),
            "users a second": batch / timings.median,
            "this library against it": str(found.ratio(name, cores)) if name != OURS else "",
        }
        for (name, cores), timings in found.timings.items()
    ]  # fmt: skip
    told = (
        f"{n_users:,} users × {n_items:,} items, {dim} factors, {k} candidates, batches of {batch:,} users; "
        f"of {STORED}, {found.shared:.2%} of the candidates are the same, and no score differs by more than "
        f"{found.largest:.1e} of the best."
    )
    sizes = {"users": n_users, "items": n_items, "factors": dim, "k": k, "batch": batch}
    about = {**sizes, "shared": found.shared, "largest difference": found.largest}
    _write("als", "ALS candidates", told, rows, about, out)


def _memory(users: tuple[int, ...], out: Path, tiny: bool) -> None:
    """Memory that generation needs, by the number of users and of items."""
    items, k = ((200,) if tiny else (1_000, 10_000)), 10
    with tempfile.TemporaryDirectory(prefix="scale-", dir=out) as folder:
        found = memory(users, items, k, Path(folder))
    rows = [
        {
            "items": each.items, "users": each.users, "memory, MB": each.peak / MEGABYTE,
            "users a second": each.users / each.seconds,
        }
        for each in found
    ]  # fmt: skip
    told = (
        f"`ranker candidates` of ALS ({FACTORS} factors) and popularity, {k} candidates for each user, {EVENTS} events "
        "a user on average. Memory is that of all its processes at once, at most, but for pages of mapped files."
    )
    _write("memory", "Memory by users and items", told, rows, {"found": list(map(asdict, found))}, out)


def _write(name: str, title: str, told: str, rows: list[dict[str, Any]], about: dict[str, Any], out: Path) -> None:
    table = pd.DataFrame(rows)
    show(told, table)
    (out / f"{name}.md").write_text(f"# {title}\n\n{told}\n\n{markdown(table)}", encoding="utf-8")
    write_json({**about, "rows": rows}, out / f"{name}.json")
