"""Settings that suit a log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ranker.cli.arguments import (
    Columns,
    ConfigFile,
    Fast,
    Holdout,
    HowToSplit,
    InteractionsFile,
    ItemColumns,
    ItemsFile,
    LeastWeight,
    LikedFrom,
    OnBadRows,
    Seed,
    TestFraction,
    Unit,
    shares,
)
from ranker.cli.fit import read_config, read_log
from ranker.cli.output import Output
from ranker.cli.tables import appearing, check_writable, write_table

STUDY = "The study"


def tune(
    ctx: typer.Context,
    interactions: InteractionsFile,
    items: ItemsFile,
    space: Annotated[
        Path,
        typer.Option(
            metavar="SPACE.yaml",
            help="What to search: als.factors: {low: 16, high: 128, log: true}, or {choices: […]}.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="TUNED.yaml",
            help="Write the best settings here, whole, for ranker fit --config; the trials beside it, .csv and .svg.",
            show_default=False,
        ),
    ],
    trials: Annotated[
        int,
        typer.Option(min=1, help="Ended trials of the whole study, earlier ones included.", rich_help_panel=STUDY),
    ] = 50,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="Begin no trial after so long.", rich_help_panel=STUDY),
    ] = None,
    metric: Annotated[
        str, typer.Option(metavar="NAME@K", help="What to maximise, of the order served.", rich_help_panel=STUDY)
    ] = "ndcg@10",
    rungs: Annotated[
        str,
        typer.Option(
            metavar="SHARE,…",
            help="Shares of the users to measure a trial on one after the other; it is pruned where it does worse "
            "than most. 1 alone never prunes.",
            rich_help_panel=STUDY,
        ),
    ] = "0.25,1",
    storage: Annotated[
        Path | None,
        typer.Option(
            metavar="STUDY.sqlite", help="Keep the study here, to go on after an interrupt.", rich_help_panel=STUDY
        ),
    ] = None,
    study: Annotated[str, typer.Option(help="Its name in the storage.", rich_help_panel=STUDY)] = "tune",
    split: HowToSplit = "global-temporal",
    holdout: Holdout = 1,
    test_fraction: TestFraction = 0.1,
    least_weight: LeastWeight = 0,
    config: ConfigFile = None,
    seed: Seed = None,
    fast: Fast = False,
    columns: Columns = None,
    item_columns: ItemColumns = None,
    time_unit: Unit = "s",
    on_bad_rows: OnBadRows = "raise",
    liked_from: LikedFrom = 0,
) -> None:
    """Search the settings that rank best on the later part of a log.

    Give the training data alone: the split is made within it, and what is tuned on
    is a test no longer. What will judge the result must not be among INTERACTIONS.

    Example:
        ranker tune log.csv films.csv --space space.yaml --out tuned.yaml --storage study.sqlite
    """
    from ranker.evaluation import Backtest
    from ranker.tuning import SearchSpace, draw
    from ranker.tuning import tune as search

    output: Output = ctx.obj
    table, plot = (out.with_name(f"{out.stem}-trials{suffix}") for suffix in (".csv", ".svg"))
    check_writable(out, (".yaml", ".yml"))
    searched = SearchSpace.from_yaml(space, read_config(config, seed, fast))
    levels = shares(rungs)
    log, catalogue, _ = read_log(output, interactions, items, columns, item_columns, time_unit, on_bad_rows, liked_from)
    found = search(
        log,
        catalogue,
        searched,
        backtest=Backtest(split, holdout, test_fraction, least_weight),
        metric=metric,
        rungs=levels,
        trials=trials,
        timeout=timeout,
        storage=storage,
        study=study,
        progress=output.shows_progress,
    )
    write_table(found.trials, table)
    with appearing(plot) as part:
        draw(found).savefig(part, format="svg")
    with appearing(out) as part:
        found.config.to_yaml(part)
    facts = {
        found.metric: found.value,
        "trial": found.best,
        "trials": found.trials["state"].value_counts().to_dict(),
        "written": [out, table, plot],
    }
    settings = found.settings
    if not output.as_json:  # numbers in full: a rounded one would be another setting
        settings["chosen"] = [value if isinstance(value, str) else json.dumps(value) for value in settings["chosen"]]
    output.show(settings=settings, tuned=facts)
