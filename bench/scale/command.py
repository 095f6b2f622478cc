"""``python -m bench scale``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from bench.demo import console, show_progress
from bench.scale.exact import OURS, STORED, exact
from bench.tables import markdown, show, write_json
from bench.timing import Budget


def main(
    seconds: Annotated[float, typer.Option(help="For each system, at most.")] = 40.0,
    out: Annotated[Path, typer.Option(help="Where the results go.")] = Path("runs/scale"),
    tiny: Annotated[bool, typer.Option(help="A fraction of the work, to try the path.")] = False,
) -> None:
    """Measure offline generation at sizes that no real data set here has."""
    show_progress()
    n_users, n_items, dim = (2_000, 3_000, 16) if tiny else (100_000, 100_000, 128)
    k, batch = (20, 500) if tiny else (200, 2_048)
    found = exact(n_users, n_items, dim, k, batch, (1, 2), Budget(1.0 if tiny else seconds))
    rows = [
        {
            "cores": cores, "system": name, "batches": len(timings.latencies),
            "users a second": batch / timings.median,
            "this library against it": str(found.ratio(name, cores)) if name != OURS else "",
        }
        for (name, cores), timings in found.timings.items()
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    told = (
        f"{n_users:,} users × {n_items:,} items, {dim} factors, {k} candidates, batches of {batch:,} users; "
        f"of {STORED}, {found.shared:.2%} of the candidates are the same, and no score differs by more than "
        f"{found.largest:.1e} of the best."
    )
    show(told, table)
    out.mkdir(parents=True, exist_ok=True)
    (out / "scale.md").write_text(f"# ALS candidates\n\n{told}\n\n{markdown(table)}", encoding="utf-8")
    sizes = {"users": n_users, "items": n_items, "factors": dim, "k": k, "batch": batch}
    write_json({**sizes, "shared": found.shared, "largest difference": found.largest, "als": rows}, out / "scale.json")
    console.print(f"Written to {out}.")
