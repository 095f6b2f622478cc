"""The demo: the whole main path on MovieLens-100K, as a newcomer would walk it."""

import logging
import shutil
import time
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

import ranker
from ranker.artifact import check_target
from ranker.data import load_movielens
from ranker.evaluation import Backtest, CalibrationReport, calibration_report, evaluate
from ranker.reranker import Gain

console = Console()
USER = 1

# A fraction of the work, so that the path can be walked in seconds.
TINY = {"rerank": {"split": {"depth": 10, "training": {"max_lists": 300, "epochs": 1, "validation_lists": 50}}}}
TINY_FILMS = 300


def main(
    folder: Annotated[Path, typer.Option(help="Where the data set is kept.")] = Path("data"),
    out: Annotated[Path, typer.Option(help="Where the engine is saved; an engine there is replaced.")] = Path(
        "runs/demo"
    ),
    tiny: Annotated[bool, typer.Option(help="A fraction of the films and of the training, to try the path.")] = False,
) -> None:
    """Fit, export, recommend, click, and measure, on MovieLens-100K."""
    show_progress()
    settings = ranker.EngineConfig.from_dict(TINY if tiny else {})
    start = time.monotonic()
    paths = load_movielens("ml-100k", folder)
    interactions, items = pd.read_parquet(paths.interactions), pd.read_parquet(paths.items)
    if tiny:
        items = items[:TINY_FILMS]
        interactions = interactions[interactions["item_id"].isin(items["item_id"])]
    plan = Backtest("leave-one-out")
    split = plan.cut(interactions)  # each user's last rating is kept for the test
    console.print(
        f"MovieLens-100K: {interactions['user_id'].nunique():,} users, {len(items):,} films, {len(interactions):,} "
        "ratings. Each user's last rating is kept aside for the test at the end."
    )

    console.rule("fit")
    engine = ranker.fit(split.train, items, settings)
    console.rule("export to ONNX: the encoder, as fit did it before it learned on it")
    check_target(out)  # what is no engine is not removed
    shutil.rmtree(out, ignore_errors=True)
    engine.save(out)
    exported = ranker.export(engine, out)
    console.print(gate_table(exported))
    engine = exported.engine

    console.rule(f"recommend to user {USER}, who last liked")
    titles = items.set_index("item_id")["title"]
    recent = split.train[(split.train["user_id"] == USER) & (split.train["weight"] >= 4)].tail(3)
    console.print("; ".join(titles[recent["item_id"]]), highlight=False)
    before = engine.recommend([USER], k=10)
    console.print(ranked_table(before, items))

    console.rule("measure, before any click")
    result = evaluate(engine, split.test)
    calibration = calibration_report(engine, plan.asked(engine.users, engine.catalogue, split.test))
    console.print(f"Ranked all unseen films for {len(split.test):,} users.", highlight=False)

    clicked = before["item_id"].iloc[4]
    console.rule(f"a click on {titles[clicked]}")
    click = pd.DataFrame(
        {
            "event_id": ["demo-click"],
            "user_id": [USER],
            "item_id": [clicked],
            "kind": ["click"],
            "datetime": [interactions["datetime"].max() + pd.Timedelta(minutes=1)],
        }
    )
    clock = time.perf_counter()
    engine.feedback(click)
    after = engine.recommend([USER], k=10)
    elapsed = time.perf_counter() - clock
    console.print(ranked_table(after, items, before))
    console.print(f"The click was on disk and the new list computed after {1000 * elapsed:.0f} ms.", highlight=False)

    console.rule("quality: rank all unseen films; is the user's next one in the first 10?")
    console.print(quality_table(result.summary[["hr@10", "ndcg@10", "mrr@10", "coverage@10"]]))
    console.print(f"Effect of the fine-tuned cross-encoder on NDCG@10: {result.difference()}", highlight=False)
    console.print(serving_note(engine.reranker.gain), highlight=False)
    console.print(probability_note(calibration), highlight=False)
    console.print(f"Done in {time.monotonic() - start:.0f} s. The engine is in {out}: try ranker info {out}")


def ranked_table(ranking: pd.DataFrame, items: pd.DataFrame, before: pd.DataFrame | None = None) -> Table:
    """A ranking with titles and, given an earlier one, how far each item moved."""
    ranks = {} if before is None else dict(zip(before["item_id"], before["rank"], strict=True))
    table = Table("rank", "film", "year", "genres", "score", *([] if before is None else ["was"]))
    described = ranking.merge(items, on="item_id", how="left").sort_values("rank")
    for row in described.itertuples():
        was = ranks.get(row.item_id)
        moved = [] if before is None else ["new" if was is None else f"{was}" if was != row.rank else "same"]
        table.add_row(str(row.rank), row.title, str(row.year), row.genres, f"{row.score:.2f}", *moved)
    return table


def serving_note(gain: Gain) -> str:
    """Whether the cross-encoder's order is served, and why."""
    verdict = "served" if gain.serves else "not served: the candidates' own order is"
    return f"On validation it added {gain.mean:+.4f} (standard error {gain.error:.4f}), so its order is {verdict}."


def probability_note(report: CalibrationReport) -> str:
    """How far the predicted probabilities can be taken at their word."""
    return (
        f"Probabilities of the next film: {report.predicted:.4f} on average, and {report.observed:.4f} came true; "
        f"calibration error {report.expected_calibration_error:.4f}, log loss {report.log_loss:.4f} "
        f"(a constant: {report.constant_log_loss:.4f})."
    )


def gate_table(exported: ranker.EngineExport) -> Table:
    """What each tried precision cost each transformer at its own task."""
    table = Table("part", "precision", "metric", "torch", "ONNX", "loss", "size", "")
    for row in exported.gates.itertuples():
        verdict = "passed" if row.passed else "refused"
        table.add_row(
            row.part, row.precision, row.metric, f"{row.original:.4f}", f"{row.exported:.4f}", f"{row.loss:+.1%}",
            f"{row.megabytes:.0f} MB", verdict,
        )  # fmt: skip
    return table


def quality_table(summary: pd.DataFrame) -> Table:
    """Means over users, one row per system."""
    table = Table("system", *summary.columns)
    for name, row in summary.iterrows():
        table.add_row(str(name), *(f"{value:.4f}" for value in row))
    return table


def show_progress() -> None:
    """The library's own progress notes on the console, and nobody else's."""
    handler = RichHandler(console=console, show_path=False, show_level=False, log_time_format="%H:%M:%S")
    for name in ("ranker", "retrieval", "encoders"):
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).setLevel(logging.INFO)
