"""What users just did, into the log."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ranker.cli.arguments import Model, RefusedFile, Unit, loaded, refusals
from ranker.cli.output import Output
from ranker.cli.tables import read_feedback, with_times

if TYPE_CHECKING:
    import pandas as pd

    from ranker import Engine

ONE = "One event"


def feedback(
    ctx: typer.Context,
    model: Model,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]", help="Events: .csv, .tsv, .parquet, or .jsonl with one object a line.", show_default=False
        ),
    ] = None,
    user: Annotated[str | None, typer.Option(metavar="ID", help="Who.", rich_help_panel=ONE)] = None,
    item: Annotated[str | None, typer.Option(metavar="ID", help="Saw which item.", rich_help_panel=ONE)] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help="And did what: click, dwell, cart, purchase, like, rating, dislike, hide or skip.",
            rich_help_panel=ONE,
        ),
    ] = None,
    value: Annotated[float | None, typer.Option(help="Seconds of a dwell, or the rating.", rich_help_panel=ONE)] = None,
    refused: RefusedFile = None,
    time_unit: Unit = "s",
) -> None:
    """Record what users did; the very next recommend knows it.

    A file has event_id, user_id, item_id, kind, datetime and, where the kind needs one, value; it may have source,
    list_id and, of impressions, score, propensity and version. Another log's events (ranker log) can be read, too.
    Sending an event twice counts once. A file with an event that cannot be used is refused; with --refused such events
    go there, and the others are recorded. An event given by options happens now and gets an id of its own.

    Examples:
        ranker feedback model events.jsonl --refused refused.jsonl
        ranker feedback model --user 42 --item 50 --kind click
    """
    from encoders.errors import InputError

    output: Output = ctx.obj
    if (file is None) == (user is None and item is None and kind is None and value is None):
        raise InputError("Give either a file of events, or one event by --user, --item and --kind.")
    if file is None and None in (user, item, kind):
        raise InputError("One event needs --user, --item and --kind; --value too, if it is a dwell or a rating.")
    turned_away: list[str] = []
    with refusals(refused) as write:

        def refuse(event: str, why: str) -> None:
            turned_away.append(event)
            write(event, why)

        with loaded(model) as engine:
            if file is None:
                events = given = _one_event(engine, str(user), str(item), str(kind), value)
            else:
                known = {"user_id": engine.users.base.users, "item_id": engine.catalogue.ids}
                given = read_feedback(file, None if refused is None else refuse, known)
                events = with_times(given, time_unit)

            def refuse_row(row: int, why: str) -> None:
                (event,) = given.iloc[[row]].dropna(axis="columns").to_dict("records")
                refuse(json.dumps(event, default=str, ensure_ascii=False), why)

            new = engine.feedback(events, None if refused is None else refuse_row)
            held = len(engine.log)
    also = {} if refused is None else {"refused": len(turned_away)}
    output.show(recorded={"events": len(events), "new": new, **also, "in_the_log": held})


def _one_event(engine: Engine, user: str, item: str, kind: str, value: float | None) -> pd.DataFrame:
    import pandas as pd

    event = {
        "event_id": uuid.uuid4().hex,
        "user_id": engine.users.base.users.parse([user])[0],
        "item_id": engine.catalogue.ids.parse([item])[0],
        "kind": kind,
        "value": value,
        "datetime": pd.Timestamp.now("UTC"),
    }
    return pd.DataFrame([event])
