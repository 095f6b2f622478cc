"""Ranking quality on MovieLens, leave-one-out, every part of the engine beside implicit's own ALS."""

import itertools
import json
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from implicit.cpu.als import AlternatingLeastSquares
from scipy import sparse
from threadpoolctl import threadpool_limits

import ranker
from bench.demo import TINY, console, quality_table, show_progress
from ranker.data import load_movielens
from ranker.data.movielens import MovieLensName
from ranker.evaluation import (
    PerUserResults,
    bootstrap_mean,
    leave_one_out,
    paired_bootstrap,
    per_user_metrics,
    write_per_user,
)
from ranker.evaluation import evaluate as evaluate_engine
from retrieval.catalogue import Catalogue
from retrieval.fusion import FusedRetriever, FusionConfig
from retrieval.interactions import Interactions

METRIC = "ndcg@10"
CUTOFFS = (5, 10, 20)
PEER = "implicit ALS"
RRF = "reciprocal rank fusion"
TITLES: dict[MovieLensName, str] = {"ml-100k": "MovieLens-100K", "ml-1m": "MovieLens-1M"}
# implicit's ALS over a fixed grid; the same confidence, 1 + alpha * rating, as the library's source
Grid = dict[str, list[float]]
OTHERS: Grid = {"regularization": [0.1, 1.0, 10.0], "alpha": [0.2, 1.0, 5.0]}
# more ratings bear more factors
GRIDS: dict[MovieLensName, Grid] = {
    "ml-100k": {"factors": [32, 64, 128], **OTHERS},
    "ml-1m": {"factors": [64, 128, 256], **OTHERS},
}
PROTOCOL = (
    "{title}, leave-one-out: each user's {place} rating in stable time order is the test, all ratings before it are "
    "positives, all {items:,} films less those the user had rated are ranked. {users:,} users; {ties:.0%} of them have "
    "several ratings in the second of the last one that is used, whose order is the file's. The peer's settings are "
    "chosen from a grid ({grid}) by NDCG@10 on each user's rating before the tested one, which no system of that "
    "choice was trained on. Intervals: 95 %, bootstrap over users."
)


def main(
    data: Annotated[MovieLensName, typer.Option(help="The data set.")] = "ml-100k",
    folder: Annotated[Path, typer.Option(help="Where the data set is kept.")] = Path("data"),
    out: Annotated[
        Path, typer.Option(help="Where tables and per-user results go, in a folder for each data set.")
    ] = Path("runs/quality"),
    seeds: Annotated[int, typer.Option(help="How many seeds, counted from 0.")] = 3,
    config: Annotated[Path | None, typer.Option(help="Settings of the engine, YAML; its defaults without.")] = None,
    validation: Annotated[bool, typer.Option(help="Test on the second last rating: for choosing settings.")] = False,
    tiny: Annotated[bool, typer.Option(help="One seed and a fraction of the work, to try the path.")] = False,
) -> None:
    """Ranking quality on MovieLens, leave-one-out, beside implicit's own ALS."""
    show_progress()
    paths = load_movielens(data, folder)
    interactions, items = pd.read_parquet(paths.interactions), pd.read_parquet(paths.items)
    settings = ranker.EngineConfig() if config is None else ranker.EngineConfig.from_yaml(config)
    tree = TINY if tiny else settings.to_dict()
    split = leave_one_out(interactions)
    if validation:
        interactions = split.train
        split = leave_one_out(interactions)
    grid = {name: values[:1] for name, values in GRIDS[data].items()} if tiny else GRIDS[data]
    chosen = tuned_peer(leave_one_out(split.train), items, grid)
    console.print(f"{PEER} with {chosen}, chosen on validation", highlight=False)

    runs: dict[str, list[pd.DataFrame]] = {}
    seconds: dict[str, list[float]] = {"fit": [], "evaluate": []}
    for seed in range(1 if tiny else seeds):
        clock = time.perf_counter()
        engine = ranker.fit(split.train, items, ranker.EngineConfig.from_dict({**tree, "seed": seed}))
        seconds["fit"].append(time.perf_counter() - clock)
        clock = time.perf_counter()
        result = evaluate_engine(engine, split.test, others={RRF: reciprocal_ranks(engine)}, cutoffs=CUTOFFS)
        seconds["evaluate"].append(time.perf_counter() - clock)
        tables = {PEER: peer(split.train, split.test, items, seed=seed, **chosen), **result.per_user}
        for name, table in tables.items():
            runs.setdefault(name, []).append(table.sort_values("user_id", ignore_index=True))
    # a user's metric is the mean over seeds, so that intervals are over users
    per_user = {name: pd.concat(tables).groupby("user_id").mean() for name, tables in runs.items()}
    place = "second last" if validation else "last"
    report(per_user, chosen, seconds, protocol(TITLES[data], interactions, len(items), place, grid), out / data)


def protocol(title: str, interactions: pd.DataFrame, n_items: int, place: str, grid: Grid) -> str:
    """What was done, in words.

    Args:
        title: Of the data set.
        interactions: All that are used; each user's last one is the test.
        n_items: In the catalogue.
        place: Of the test among all of a user's ratings.
        grid: Of the peer's settings.
    """
    values = "; ".join(f"{name} {', '.join(f'{value:g}' for value in several)}" for name, several in grid.items())
    ties = ties_at_the_end(interactions)
    return PROTOCOL.format(title=title, place=place, items=n_items, users=len(ties), ties=ties.mean(), grid=values)


def ties_at_the_end(interactions: pd.DataFrame) -> pd.Series:
    """By user, whether several ratings bear the time of their last one."""
    ends = interactions.groupby("user_id")["datetime"].transform("max")
    return interactions[interactions["datetime"] == ends].groupby("user_id").size() > 1


def reciprocal_ranks(engine: ranker.Engine) -> FusedRetriever:
    """The engine's sources fused without learned weights."""
    sources = engine.retriever.sources
    return FusedRetriever(sources, dict.fromkeys(sources, 1.0), FusionConfig(method="rrf"))


def tuned_peer(split: ranker.evaluation.Split, items: pd.DataFrame, grid: Grid) -> dict[str, float]:
    """The grid's best settings by NDCG@10."""

    def quality(settings: dict[str, float]) -> float:
        return float(peer(split.train, split.test, items, seed=0, **settings)[METRIC].mean())

    return max(combinations(grid), key=quality)


def combinations(grid: Grid) -> Iterator[dict[str, float]]:
    """Every combination of the grid's values."""
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def peer(
    train: pd.DataFrame, test: pd.DataFrame, items: pd.DataFrame, *, factors: float, regularization: float,
    alpha: float, seed: int,
) -> pd.DataFrame:  # fmt: skip
    """Per-user metrics of implicit's ALS with its own ``recommend``."""
    catalogue = Catalogue(items)
    log = Interactions.from_frame(train, catalogue)
    confidence = sparse.csr_matrix(log.histories.matrix(1 + np.float32(alpha) * log.histories.weights, len(catalogue)))
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=int(factors), regularization=regularization, alpha=1.0, iterations=15, random_state=seed
        )
        model.fit(confidence, show_progress=False)
    rows = log.users.positions(test["user_id"])
    ranked, _ = model.recommend(rows, confidence[rows], N=20, filter_already_liked_items=True)
    target = sparse.csr_array(
        (np.ones(len(test), np.bool_), catalogue.require(test["item_id"], "test"), np.arange(len(test) + 1)),
        shape=(len(test), len(catalogue)),
    )
    return per_user_metrics(ranked.astype(np.int64), target, CUTOFFS).assign(user_id=test["user_id"].to_numpy())


def report(
    per_user: dict[str, pd.DataFrame],
    chosen: dict[str, float],
    seconds: dict[str, list[float]],
    described: str,
    out: Path,
) -> None:
    """Show the table and write it as Markdown and JSON, with every system's per-user metrics as Parquet.

    Args:
        per_user: System → its metrics, a row per user.
        chosen: The peer's settings.
        seconds: What each seed took.
        described: The protocol.
        out: The folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    summary = pd.DataFrame({name: table.mean() for name, table in per_user.items()}).T
    console.print(quality_table(summary[["hr@10", METRIC, "mrr@10", "hr@20", "ndcg@20"]]))
    values = {name: table[METRIC].to_numpy() for name, table in per_user.items()}
    intervals = {name: str(bootstrap_mean(value, seed=0)) for name, value in values.items()}
    pairs = [(name, "engine") for name in values if name != "engine"] + [("candidates", "cross-encoder")]
    against = {
        f"{after} against {before}": str(paired_bootstrap(values[before], values[after], seed=0))
        for before, after in pairs
    }
    lines = [described, "", "| system | HR@10 | NDCG@10 (95 %) | MRR@10 |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {row['hr@10']:.4f} | {intervals[str(name)]} | {row['mrr@10']:.4f} |"
        for name, row in summary.iterrows()
    ]
    lines += ["", "Paired differences of NDCG@10:", "", *(f"- {name}: {value}" for name, value in against.items())]
    for name, value in against.items():
        console.print(f"{name}: {value}", highlight=False)
    (out / "quality.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    figures = {
        "protocol": described, "summary": summary.to_dict("index"), "intervals": intervals, "differences": against,
        "peer": chosen, "seconds": seconds, "python": platform.python_version(),
    }  # fmt: skip
    (out / "quality.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    tables = {name: table.reset_index() for name, table in per_user.items()}
    write_per_user(PerUserResults(tables, described, CUTOFFS), out / "per-user.parquet")
    console.print(f"Written to {out}")
