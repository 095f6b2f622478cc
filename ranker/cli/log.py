"""What a saved engine's feedback log holds: written to a file, and cleared."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from ranker.cli.arguments import Model, loaded
from ranker.cli.output import Output
from ranker.cli.tables import appearing, check_writable

AT_ONCE = 50_000  # events in memory


def log(
    ctx: typer.Context,
    model: Model,
    out: Annotated[Path, typer.Option(help="The .parquet file to write.", show_default=False)],
    after: Annotated[int, typer.Option(min=0, help="Only events after this offset.")] = 0,
) -> None:
    """Write the events of the feedback log, in the order of their arrival; ranker feedback reads them back.

    Example:
        ranker log model --out events.parquet
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    output: Output = ctx.obj
    check_writable(out, (".parquet",))
    written = 0
    with loaded(model) as engine:
        ids = (("user_id", engine.users.base.users), ("item_id", engine.catalogue.ids))
        types = {name: "int64" if own.are_integers else "str" for name, own in ids}
        held = engine.log.read(after, 0).astype(types)
        schema = pa.Schema.from_pandas(held, preserve_index=False)
        with appearing(out) as part, pq.ParquetWriter(part, schema, compression="zstd") as writer:
            while len(held := engine.log.read(after, AT_ONCE)):
                writer.write_table(pa.Table.from_pandas(held.astype(types), schema, preserve_index=False))
                after = int(held["offset"].iloc[-1])
                written += len(held)
    output.show(written={"file": out, "events": written, "last_offset": after})


def compact(
    ctx: typer.Context,
    model: Model,
    before: Annotated[
        str, typer.Option(metavar="DATETIME", help="Keep events from this time on (UTC).", show_default=False)
    ],
) -> None:
    """Drop old events from the feedback log, and give their room back to the disk.

    Fit the engine on them first (ranker fit --feedback): what is dropped is known no more. Older events are refused
    from then on, since the log could not tell whether it had them already.

    Example:
        ranker compact model --before 2026-01-01
    """
    import pandas as pd

    from encoders.errors import ArtifactError, InputError
    from ranker.data.times import read_times
    from ranker.feedback import FeedbackLog
    from ranker.persistence import LOG

    output: Output = ctx.obj
    (moment,) = read_times(pd.Series([before]), "s")
    if pd.isna(moment):
        raise InputError(f"--before {before!r}: is no time. Write it as 2026-01-31 or 2026-01-31T18:00:00.")
    if not (model / LOG).exists():
        raise ArtifactError(f"{model / LOG}: there is no feedback log. Check the path.")
    with closing(FeedbackLog(model / LOG)) as kept:
        output.show(log={"dropped": kept.compact(moment), "kept": len(kept)})


def forget(
    ctx: typer.Context,
    model: Model,
    user_ids: Annotated[list[str], typer.Argument(metavar="USER_ID...", help="Whom.", show_default=False)],
) -> None:
    """Delete all that is known of some users: their events, and every saved version that tells of them.

    The engine is saved anew without them, and older versions are removed. What the sources have learned from everybody
    together stays until the next fit.

    Example:
        ranker forget model 42
    """
    from ranker.persistence import erase

    output: Output = ctx.obj
    with loaded(model) as engine:
        deleted = erase(engine, model, engine.users.base.users.parse(user_ids))
        output.show(forgotten={"users": len(user_ids), "events": deleted, "version": engine.version})
