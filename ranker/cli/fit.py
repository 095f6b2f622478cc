"""Data in, an engine out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ranker.cli.arguments import (
    Columns,
    ConfigFile,
    Fast,
    InteractionsFile,
    ItemColumns,
    ItemsFile,
    LikedFrom,
    Model,
    OnBadRows,
    Seed,
    Unit,
    column_names,
    loaded,
)
from ranker.cli.info import engine_facts
from ranker.cli.output import Output
from ranker.cli.tables import read_feedback, with_times

if TYPE_CHECKING:
    import pandas as pd

    from ranker import EngineConfig
    from ranker.data import ValidationReport


def data(
    ctx: typer.Context,
    name: Annotated[
        Literal["ml-100k", "ml-1m"], typer.Argument(metavar="NAME", help="ml-100k or ml-1m.", show_default=False)
    ],
    folder: Annotated[Path, typer.Option(help="Where data sets are kept.")] = Path("data"),
) -> None:
    """Fetch MovieLens, to try things out with.

    Example:
        ranker data ml-100k
    """
    from ranker.data import load_movielens

    output: Output = ctx.obj
    found = load_movielens(name, folder)
    output.show(files={"interactions": found.interactions, "items": found.items})


def fit(
    ctx: typer.Context,
    interactions: InteractionsFile,
    items: ItemsFile,
    out: Annotated[Path, typer.Option(metavar="MODEL", help="Folder to save the engine in.", show_default=False)],
    config: ConfigFile = None,
    seed: Seed = None,
    fast: Fast = False,
    columns: Columns = None,
    item_columns: ItemColumns = None,
    time_unit: Unit = "s",
    on_bad_rows: OnBadRows = "raise",
    liked_from: LikedFrom = 0,
    feedback: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Learn from feedback, too: events as for ranker feedback, or a saved engine whose log holds them.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Fit an engine on a log and a catalogue, and save it.

    The interactions need user_id, item_id and datetime, and may have a weight.
    The items need item_id and text, and may have a title and any other columns to filter by.

    Example:
        ranker fit log.csv films.csv --out model --columns user_id=visitor --item-columns text=title+genres
    """
    import ranker
    from ranker.artifact import check_target
    from ranker.data import check_items_known

    output: Output = ctx.obj
    settings = read_config(config, seed, fast)
    check_target(out)
    log, catalogue, reports = read_log(
        output, interactions, items, columns, item_columns, time_unit, on_bad_rows, liked_from
    )
    events = None
    if feedback is not None:
        events = _events(feedback, time_unit)
        if len(events):
            events, known = check_items_known(events, catalogue, on_bad_rows=on_bad_rows, name="feedback")
            reports.append(known)
            output.note(str(known))
    engine = ranker.fit(log, catalogue, settings, feedback=events, progress=output.shows_progress)
    version = engine.save(out)
    facts = {"saved": version, **engine_facts(engine)}
    engine.log.close()
    output.show(engine=facts, **({"validation": [report.to_dict() for report in reports]} if output.as_json else {}))


def update(
    ctx: typer.Context,
    model: Model,
    items: ItemsFile,
    item_columns: ItemColumns = None,
    on_bad_rows: OnBadRows = "raise",
) -> None:
    """Let a saved engine know items that came, and items whose text or attributes changed.

    The items need the columns of those that the engine was fitted on. What is left out stays as it is.
    The sources are fitted again on everything that was logged; a whole fit takes many times as long.

    Example:
        ranker update model new-films.csv
    """
    import ranker
    from ranker.data import read_items

    output: Output = ctx.obj
    table, report = read_items(items, column_names(item_columns), on_bad_rows=on_bad_rows)
    output.note(str(report))
    with loaded(model) as engine:
        before = len(engine.catalogue)
        updated = ranker.update_items(engine, table, progress=output.shows_progress)
        version = updated.save(model)
    new = len(updated.catalogue) - before
    output.show(saved=version, items={"new": new, "others": len(table) - new, "all": len(updated.catalogue)})


def _events(path: Path, time_unit: Any) -> pd.DataFrame:
    """What a file of events holds, or the log of a saved engine."""
    from encoders.errors import InputError
    from ranker.feedback.events import check_columns
    from ranker.feedback.log import FeedbackLog
    from ranker.persistence import LOG

    if not path.is_dir():
        events = with_times(read_feedback(path, None), time_unit)
        check_columns(events)
        return events
    if not (path / LOG).exists():
        raise InputError(f"--feedback {path}: holds no {LOG}. Give a saved engine's folder, or a file of events.")
    told = FeedbackLog(path / LOG)
    try:
        return told.read()
    finally:
        told.close()


def read_config(path: Path | None, seed: int | None, fast: bool) -> EngineConfig:
    """The settings of a file (or the defaults) under what the command line says."""
    from ranker import EngineConfig

    tree = (EngineConfig() if path is None else EngineConfig.from_yaml(path)).to_dict()
    if seed is not None:
        tree["seed"] = seed
    if fast:
        tree["rerank"]["enabled"] = False
    return EngineConfig.from_dict(tree)


def read_log(
    output: Output,
    interactions: Path,
    items: Path,
    columns: list[str] | None,
    item_columns: list[str] | None,
    time_unit: Any,
    on_bad_rows: Any,
    liked_from: float,
) -> tuple[pd.DataFrame, pd.DataFrame, list[ValidationReport]]:
    """Read the two files, say what was found in them, and make sure that they belong together."""
    from encoders.errors import InputError
    from ranker.data import check_items_known, read_interactions, read_items

    names = column_names(columns)
    several = [name for name, theirs in names.items() if not isinstance(theirs, str)]
    if several:
        raise InputError(f"--columns joins columns to make {several[0]!r}; only the text of an item may be joined.")
    renamed = {name: str(theirs) for name, theirs in names.items()}
    log, log_report = read_interactions(
        interactions, renamed, time_unit=time_unit, on_bad_rows=on_bad_rows, liked_from=liked_from
    )
    catalogue, items_report = read_items(items, column_names(item_columns), on_bad_rows=on_bad_rows)
    log, known_report = check_items_known(log, catalogue, on_bad_rows=on_bad_rows)
    reports = [log_report, items_report, known_report]
    for report in reports:
        output.note(str(report))
    return log, catalogue, reports
