"""What a data set's log is like, as far as figures that are measured on it depend on that."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import pandas as pd
import typer

from bench.demo import console
from bench.quality.protocols import pose
from bench.tables import markdown, show, write_json
from ranker.data import load_movielens
from ranker.data.movielens import MovieLensName

DAY = pd.Timedelta(days=1)


def main(
    folder: Annotated[Path, typer.Option(help="Where the data sets are kept.")] = Path("data"),
    out: Annotated[Path, typer.Option(help="Results go into this folder.")] = Path("runs/logs"),
) -> None:
    """What MovieLens' logs are like: pages of ratings in one second, users of one day, users of the newest tenth."""
    found = {}
    for name in get_args(MovieLensName):
        paths = load_movielens(name, folder)
        found[name] = facts_of(pd.read_parquet(paths.interactions), pd.read_parquet(paths.items))
    table = pd.DataFrame(found).rename_axis("figure").reset_index().astype(object)
    show("What is measured on", table)
    out.mkdir(parents=True, exist_ok=True)
    (out / "logs.md").write_text(markdown(table), encoding="utf-8")
    write_json(found, out / "logs.json")
    console.print(f"Written to {out}.")


def facts_of(interactions: pd.DataFrame, items: pd.DataFrame) -> dict[str, int | float]:
    """Counts, and shares from 0 to 1, of a log ``user_id, item_id, weight, datetime`` and its catalogue."""
    times = interactions.groupby("user_id")["datetime"]
    first, last = times.min(), times.max()
    in_last_second = (interactions["datetime"] == interactions["user_id"].map(last)).groupby(interactions["user_id"])
    asked = pose(interactions, items, "temporal", "file").asked
    new = int((asked.histories().lengths == 0).sum())
    return {
        "ratings": len(interactions),
        "users": len(last),
        "films": len(items),
        "films that nobody rated": int((~items["item_id"].isin(interactions["item_id"])).sum()),
        "share of ratings that share user and second with another": float(
            interactions.duplicated(["user_id", "datetime"], keep=False).mean()
        ),
        "share of users with several ratings in their last second": float((in_last_second.sum() > 1).mean()),
        "share of users who rated all within a day": float((last - first <= DAY).mean()),
        "users who liked something in the newest tenth": len(asked),
        "of them, users with ratings before it": len(asked) - new,
    }
