"""Questions to a saved engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ranker.cli.arguments import FILTERS, Model, Unit, attribute_filters, listed_ids, loaded
from ranker.cli.output import Output
from ranker.cli.tables import check_writable, read_events, write_table

if TYPE_CHECKING:
    import pandas as pd

    from ranker import Engine


def recommend(
    ctx: typer.Context,
    model: Model,
    user_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[USER_ID]...", help="For whom; else for the users of --history.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Items for each user, at most.")] = 10,
    query: Annotated[str | None, typer.Option(help="A text that the items should match.")] = None,
    history: Annotated[
        Path | None,
        typer.Option(help="What these users did (user_id, item_id, …), in place of what the engine knows."),
    ] = None,
    on_unknown: Annotated[
        Literal["popular", "raise"], typer.Option(help="A user without any event gets popular items, or is an error.")
    ] = "popular",
    horizon: Annotated[
        Literal["next", "lasting", "auto"],
        typer.Option(help="What they may take now, or in the coming weeks; auto: the latter for those who come back."),
    ] = "next",
    out: Annotated[Path | None, typer.Option(help="Write the table to this .parquet, .csv or .tsv file.")] = None,
    allow: Annotated[
        list[str] | None, typer.Option(metavar="ID,…", help="Only these items.", rich_help_panel=FILTERS)
    ] = None,
    deny: Annotated[
        list[str] | None, typer.Option(metavar="ID,…", help="Not these items.", rich_help_panel=FILTERS)
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN=…",
            help="Items whose column has this value, lies in low..high, or is one of a,b. Repeat it for more.",
            rich_help_panel=FILTERS,
        ),
    ] = None,
    include_seen: Annotated[
        bool, typer.Option("--include-seen", help="Also what the user had before.", rich_help_panel=FILTERS)
    ] = False,
    time_unit: Unit = "s",
) -> None:
    """Say what users should see next.

    Example:
        ranker recommend model 42 7 -k 5 --where year=1990..1999 --query "a heist in Paris"
    """
    from encoders.errors import InputError
    from retrieval.ids import IdMap

    output: Output = ctx.obj
    if not user_ids and history is None:
        raise InputError("For whom? Give user ids after the model, or --history with what somebody did.")
    check_writable(out)
    events = None if history is None else read_events(history, time_unit)
    with loaded(model) as engine:
        known = engine.users.base.users if events is None else IdMap(events["user_id"].unique())
        found = engine.recommend(
            known.parse(user_ids) if user_ids else None,
            k,
            history=events,
            query=query,
            allow=listed_ids(engine.catalogue.ids, allow) if allow else None,
            deny=listed_ids(engine.catalogue.ids, deny) if deny else None,
            where=attribute_filters(engine.catalogue, where or ()),
            exclude_seen=not include_seen,
            on_unknown=on_unknown,
            horizon=horizon,
        )
        table = _titled(found, engine)
    if out is None:
        output.show(recommendations=table)
    else:
        write_table(table, out)
        output.show(written={"file": out, "rows": len(table)})
    if table.empty:
        output.note("No item is left: the filters exclude everything that these users have not had.")


def rank(
    ctx: typer.Context,
    model: Model,
    user_id: Annotated[str, typer.Argument(metavar="USER_ID", help="For whom.", show_default=False)],
    item_ids: Annotated[list[str], typer.Argument(metavar="ITEM_ID...", help="What to order.", show_default=False)],
    query: Annotated[str | None, typer.Option(help="A text that the items should match.")] = None,
) -> None:
    """Put given items in the order in which a user should see them.

    Example:
        ranker rank model 42 181 50 258
    """
    output: Output = ctx.obj
    with loaded(model) as engine:
        (user,) = engine.users.base.users.parse([user_id])
        found = engine.rank(user, engine.catalogue.ids.parse(item_ids), query=query)
        output.show(ranking=_titled(found, engine))


def similar(
    ctx: typer.Context,
    model: Model,
    item_ids: Annotated[list[str], typer.Argument(metavar="ITEM_ID...", help="Like which.", show_default=False)],
    k: Annotated[int, typer.Option("-k", help="Items for each.")] = 10,
) -> None:
    """Find items like these, by text and by who likes them.

    Example:
        ranker similar model 50 -k 5
    """
    output: Output = ctx.obj
    with loaded(model) as engine:
        found = engine.similar_items(engine.catalogue.ids.parse(item_ids), k)
        output.show(similar=_titled(found, engine, "similar_item_id"))


def _titled(found: pd.DataFrame, engine: Engine, column: str = "item_id") -> pd.DataFrame:
    """The table with the title of each item after its id."""
    titles = engine.catalogue.frame["title"].to_numpy()[engine.catalogue.ids.positions(found[column])]
    table = found.copy()
    table.insert(list(table.columns).index(column) + 1, "title", titles)
    return table
