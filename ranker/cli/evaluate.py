"""How good an engine is, on what its users did afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ranker.cli.arguments import (
    Columns,
    ConfigFile,
    Cutoffs,
    Fast,
    Holdout,
    HowToSplit,
    InteractionsFile,
    ItemColumns,
    ItemsFile,
    LeastWeight,
    LikedFrom,
    Model,
    OnBadRows,
    PerUserFile,
    ReportFile,
    Seed,
    TestFraction,
    Unit,
    loaded,
    ranks,
)
from ranker.cli.fit import read_config, read_log
from ranker.cli.output import Output
from ranker.cli.tables import appearing, check_report_file, check_writable, read_events

if TYPE_CHECKING:
    from ranker import Engine
    from ranker.evaluation.evaluate import Evaluation
    from ranker.evaluation.questions import Questions


def evaluate(
    ctx: typer.Context,
    model: Model,
    test: Annotated[
        Path,
        typer.Argument(
            metavar="TEST_FILE", help="What users did afterwards: user_id, item_id, one row each.", show_default=False
        ),
    ],
    cutoffs: Cutoffs = "5,10,20",
    out: PerUserFile = None,
    report: ReportFile = None,
    time_unit: Unit = "s",
) -> None:
    """Measure a saved engine, and each of its parts, on events that it was not fitted on.

    Where the file has a weight, events of weight 0 (had, and not liked) are not to be found.

    Example:
        ranker evaluate model later.csv --cutoffs 10,50 --report later.html
    """
    from ranker.evaluation.evaluate import judged
    from ranker.evaluation.questions import asked_once

    output: Output = ctx.obj
    taken_at = ranks(cutoffs)
    check_writable(out, (".parquet",))
    check_report_file(report)
    events = read_events(test, time_unit)
    with loaded(model) as engine:
        asked = asked_once(engine.users, engine.catalogue, events[events["weight"] > 0])
        found = judged(engine, asked, cutoffs=taken_at, seed=engine.config.seed)
        described = f"the events of {test.name}"
        if report is not None:
            _write_report(report, f"{model.name} on {test.name}", engine, found, asked, described)
        _show(output, engine, found, described, taken_at, out, report)


def backtest(
    ctx: typer.Context,
    interactions: InteractionsFile,
    items: ItemsFile,
    split: HowToSplit = "global-temporal",
    holdout: Holdout = 1,
    test_fraction: TestFraction = 0.1,
    least_weight: LeastWeight = 0,
    config: ConfigFile = None,
    seed: Seed = None,
    fast: Fast = False,
    cutoffs: Cutoffs = "5,10,20",
    out: PerUserFile = None,
    report: ReportFile = None,
    columns: Columns = None,
    item_columns: ItemColumns = None,
    time_unit: Unit = "s",
    on_bad_rows: OnBadRows = "raise",
    liked_from: LikedFrom = 0,
) -> None:
    """Fit on the earlier part of a log and measure on the later; nothing is saved.

    Example:
        ranker backtest log.csv films.csv --split leave-one-out
    """
    import ranker
    from ranker.evaluation import Backtest
    from ranker.evaluation.evaluate import judged

    output: Output = ctx.obj
    taken_at = ranks(cutoffs)
    check_writable(out, (".parquet",))
    check_report_file(report)
    settings = read_config(config, seed, fast)
    log, catalogue, _ = read_log(output, interactions, items, columns, item_columns, time_unit, on_bad_rows, liked_from)
    plan = Backtest(split, holdout, test_fraction, least_weight)
    parts = plan.cut(log)
    output.note(f"Fitting on {len(parts.train):,} events, measuring on {len(parts.test):,} later ones.")
    engine = ranker.fit(parts.train, catalogue, settings, progress=output.shows_progress)
    asked = plan.asked(engine.users, engine.catalogue, parts.test)
    found = judged(engine, asked, cutoffs=taken_at, seed=settings.seed)
    described = f"{plan}, of {interactions.name}"
    if report is not None:
        _write_report(report, f"Backtest on {interactions.name}", engine, found, asked, described)
    _show(output, engine, found, described, taken_at, out, report)
    engine.log.close()


def _write_report(path: Path, title: str, engine: Engine, evaluation: Evaluation, asked: Questions, split: str) -> None:
    import numpy as np

    from ranker.evaluation import usual_groups, write_report

    known = engine.users.base.histories.items
    with appearing(path) as part:
        write_report(
            part,
            evaluation,
            title=title,
            described=f"Ranked the whole catalogue, less what each user had seen, and judged by {split}.",
            slices=usual_groups(asked, np.bincount(known, minlength=len(engine.catalogue))),
            details={"Items": f"{len(engine.catalogue):,}", "Events fitted on": f"{len(known):,}"},
        )


def _show(
    output: Output,
    engine: Engine,
    evaluation: Evaluation,
    split: str,
    cutoffs: tuple[int, ...],
    out: Path | None,
    report: Path | None,
) -> None:
    from ranker.evaluation import PerUserResults, write_per_user
    from ranker.evaluation.evaluate import ENGINE, METRIC
    from ranker.reranker import KeepOrder

    certain: dict[str, Any] = {
        "users": len(evaluation.per_user[ENGINE]),
        "users_left_out": evaluation.users_left_out,
        METRIC: evaluation.interval(ENGINE),
    }
    if not isinstance(engine.reranker, KeepOrder):
        certain["effect_of_the_cross_encoder"] = evaluation.difference()
    if out is not None:
        with appearing(out) as part:
            write_per_user(PerUserResults(evaluation.per_user, split, cutoffs), part)
        certain["per_user"] = out
    if report is not None:
        certain["report"] = report
    summary = evaluation.summary.T.rename_axis("metric").reset_index()
    output.show(summary=summary, engine=certain)
