"""Candidates of many users, into a folder for somebody else's serving."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ranker.cli.arguments import Model
from ranker.cli.output import Output


def candidates(
    ctx: typer.Context,
    model: Model,
    out: Annotated[
        str,
        typer.Option(metavar="FOLDER", help="Where the Parquet files go; with Spark any address that it can write to."),
    ],
    users: Annotated[
        str, typer.Option(metavar="all|FILE", help="For whom: everybody, or user_id of a .parquet, .csv or .tsv file.")
    ] = "all",
    k: Annotated[int, typer.Option("-k", "--k", help="Candidates for each user, at most.")] = 200,
    rerank: Annotated[bool, typer.Option("--rerank", help="Let the cross-encoder order the first of them.")] = False,
    horizon: Annotated[
        Literal["next", "lasting"], typer.Option(help="What they may take now, or in the coming weeks.")
    ] = "next",
    workers: Annotated[
        int | None, typer.Option(help="Processes, a core each; else as many as there are cores.", show_default=False)
    ] = None,
    users_per_shard: Annotated[int, typer.Option(help="Users in each file but the last.")] = 5_000,
    engine: Annotated[
        Literal["local", "spark"], typer.Option(help="By processes of this machine, or by a cluster of Spark.")
    ] = "local",
    master: Annotated[
        str | None,
        typer.Option(help="Of Spark: local[2], spark://host:7077, …; else as it is configured.", show_default=False),
    ] = None,
) -> None:
    """Write the candidates of many users, with every source's score, into Parquet files.

    A file is there whole or not at all. A run that was interrupted goes on when it is started again with the same, and
    ends with the same bytes. Feedback that comes meanwhile is for the next run, into another folder. By Spark the rows
    are the same, and their files are as Spark writes them (extra spark; workers and users-per-shard say nothing then).

    Examples:
        ranker candidates model --users all -k 200 --out candidates
        ranker candidates model --engine spark --master spark://host:7077 --out s3a://shop/candidates
    """
    from ranker.offline import generate

    output: Output = ctx.obj
    user_ids = None if users == "all" else _user_ids(Path(users))
    if engine == "spark":
        _by_spark(model, out, user_ids, k, rerank, horizon, master, output)
        return
    manifest = generate(
        model,
        out,
        user_ids,
        k,
        rerank=rerank,
        horizon=horizon,
        workers=workers,
        users_per_shard=users_per_shard,
        progress=output.shows_progress,
    )
    plan = manifest.plan
    told = {"users": plan.users, "rows": manifest.rows, "files": len(manifest.shards), "version": plan.version}
    output.show(written={"folder": out, **told})


def _by_spark(
    model: Path,
    out: str,
    user_ids: list[object] | None,
    k: int,
    rerank: bool,
    horizon: Literal["next", "lasting"],
    master: str | None,
    output: Output,
) -> None:
    from ranker.cli.arguments import loaded
    from ranker.spark import candidates as found
    from ranker.spark import session, write

    with loaded(model) as engine, session(master, "ranker candidates") as spark:
        rows = write(found(spark, engine, user_ids, k, rerank=rerank, horizon=horizon), out)
        output.show(written={"folder": out, "rows": rows, "version": engine.version})


def _user_ids(path: Path) -> list[object]:
    from encoders.errors import InputError
    from ranker.data.table import read_table

    table = read_table(path, ids=("user_id",))
    if "user_id" not in table:
        raise InputError(f"{path}: no column 'user_id'; the columns are {', '.join(map(str, table.columns))}.")
    return table["user_id"].tolist()
