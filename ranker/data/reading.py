"""Interactions and items from files or DataFrames, in the one form that everything else expects."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from encoders.errors import InputError
from ranker.data.ids import read_ids, settle_ids
from ranker.data.table import Source, check_columns, check_mapping, read_table, source_name
from ranker.data.times import PER_SECOND, TimeUnit, read_times
from ranker.data.validation import OnBadRows, RowChecks, ValidationReport

INTERACTION_COLUMNS = ("user_id", "item_id", "weight", "datetime")
ITEM_COLUMNS = ("item_id", "title", "text")


def read_interactions(
    source: Source,
    columns: Mapping[str, str] | None = None,
    *,
    time_unit: TimeUnit = "s",
    on_bad_rows: OnBadRows = "raise",
    liked_from: float = 0,
) -> tuple[pd.DataFrame, ValidationReport]:
    """Read a log of what users did.

    Ids may be integers or strings and are kept as they are; a column that mixes kinds becomes strings, and
    the report says so. Rows that repeat an earlier one's user, item and datetime are left out and counted.
    Columns other than the four are left out. A weight says how strong a sign of liking an event is; one of 0 says that
    the user had the item, which is not recommended to them again, and nothing of liking it.

    Args:
        source: ``.csv``, ``.tsv`` or ``.parquet`` file, or a DataFrame, which is left unchanged.
        columns: The library's names to the table's, where they differ: ``{"user_id": "visitorid"}``.
        time_unit: Unit of datetimes that are numbers: time since 1970 in ``s``, ``ms``, ``us`` or ``ns``.
            Other datetimes are datetimes or ISO 8601 strings; time zones are converted, and none means UTC.
        on_bad_rows: ``raise`` to refuse a table with bad rows, ``drop`` to leave them out. Bad rows lack an
            id, have a datetime that cannot be read or lies outside 1678 to 2261, or a weight that is not a
            finite number of at least 0.
        liked_from: Lesser weights become 0: with ratings from 1 to 5, say, 4 makes the others no sign of liking.

    Returns:
        ``user_id`` and ``item_id`` (int64 or str), ``weight`` (float32; 1 where the table has no such column)
        and ``datetime`` (datetime64[us], UTC without a zone), sorted by datetime, the source's order kept
        inside ties; and what was found.

    Raises:
        InputError: If the file cannot be read, a column is missing, rows are bad and refused, or none is
            left; or if `liked_from` is no number, or leaves no sign of liking.
    """
    if time_unit not in PER_SECOND:
        raise InputError(f"time_unit is {time_unit!r}: it takes {', '.join(PER_SECOND)}.")
    if not np.isfinite(liked_from):
        raise InputError(f"liked_from is {liked_from}: give a number; 0 leaves every weight as it is.")
    names = {name: name for name in INTERACTION_COLUMNS} | dict(columns or {})
    check_mapping(names, INTERACTION_COLUMNS)
    table = read_table(source, ids=[names["user_id"], names["item_id"]])
    weighted = "weight" in (columns or {}) or "weight" in table.columns
    needed = [name for name in INTERACTION_COLUMNS if name != "weight" or weighted]
    check_columns(table, [names[name] for name in needed], source)
    raw = pd.DataFrame({name: table[names[name]] for name in needed})
    checks = RowChecks(source_name(source), len(raw), on_bad_rows)

    frame = pd.DataFrame(
        {
            "user_id": _checked_ids(raw["user_id"], "user_id", checks),
            "item_id": _checked_ids(raw["item_id"], "item_id", checks),
            "weight": _weights(raw["weight"]) if weighted else np.ones(len(raw), dtype=np.float32),
            "datetime": read_times(raw["datetime"], time_unit),
        }
    )
    checks.refuse(
        "unreadable_time",
        frame["datetime"].isna().to_numpy(),
        ["datetime"],
        f"datetimes that are neither ISO 8601 nor unix time in {time_unit!r} between 1678 and 2261",
        raw["datetime"],
    )
    if weighted:
        usable = np.isfinite(frame["weight"]) & (frame["weight"] >= 0)
        what = "weights that are not finite numbers of at least 0"
        checks.refuse("bad_weight", ~usable.to_numpy(), ["weight"], what, raw["weight"])
    event = ["user_id", "item_id", "datetime"]
    repeated = _repeats(frame[event], checks.kept)
    checks.leave_out("duplicate_row", repeated, event, "repeats of a user, item and datetime, left out")
    frame["weight"] = frame["weight"].where(frame["weight"] >= liked_from, 0)
    unliked = checks.kept & (frame["weight"] == 0).to_numpy()
    checks.note("no_liking", unliked, ["weight"], "events that are no sign of liking (weight 0)")
    report = checks.settle()

    frame = frame[checks.kept].sort_values("datetime", kind="stable", ignore_index=True)
    if not frame["weight"].any():
        raise InputError(
            f"{source_name(source)}: all {len(frame):,} events have weight 0, so nothing says what anybody liked. Give "
            "signs of liking a weight above 0, and lower liked_from (--liked-from) if it is above every weight."
        )
    return frame.assign(user_id=settle_ids(frame["user_id"]), item_id=settle_ids(frame["item_id"])), report


def read_items(
    source: Source,
    columns: Mapping[str, str | Sequence[str]] | None = None,
    *,
    on_bad_rows: OnBadRows = "raise",
) -> tuple[pd.DataFrame, ValidationReport]:
    """Read a catalogue.

    Ids are read as in `read_interactions`. Rows that repeat an earlier one in every column are left out and
    counted; rows that share an id and differ are bad.

    Args:
        source: ``.csv``, ``.tsv`` or ``.parquet`` file, or a DataFrame, which is left unchanged.
        columns: The library's names to the table's, where they differ: ``{"item_id": "sku"}``. ``text`` alone
            may name several, which are joined into sentences where they are not empty:
            ``{"text": ["title", "genres"]}``. Columns of a text file that are read as text stay strings.
        on_bad_rows: ``raise`` to refuse a table with bad rows, ``drop`` to leave them out. Bad rows lack an
            id or a text, or give an item that an earlier row gives differently.

    Returns:
        ``item_id`` (int64 or str), ``title`` (str; the text where there is none), ``text`` (str, what the
        encoder reads), then the table's other columns unchanged, in the source's order; and what was found.

    Raises:
        InputError: If the file cannot be read, a column is missing, rows are bad and refused, or none is
            left.
    """
    names = {name: name for name in ITEM_COLUMNS} | dict(columns or {})
    check_mapping(names, ITEM_COLUMNS)
    item, title, text = (_column_names(names[name], name) for name in ITEM_COLUMNS)
    table = read_table(source, ids=item, texts=[*title, *text])
    titled = "title" in (columns or {}) or "title" in table.columns
    check_columns(table, [*item, *text, *(title if titled else ())], source)
    checks = RowChecks(source_name(source), len(table), on_bad_rows)

    texts = _sentences([_strings(table[part]) for part in text])
    titles = _strings(table[title[0]]) if titled else texts
    frame = pd.DataFrame(
        {
            "item_id": _checked_ids(table[item[0]], "item_id", checks),
            "title": titles.mask(titles == "", texts),
            "text": texts,
        }
    )
    empty = (texts == "").to_numpy(dtype=np.bool_)
    checks.refuse("missing_text", empty, ["text"], "items without a text", frame["item_id"])
    # A column that stands under another name now is not kept twice; one of several that make the text is.
    renamed = {*item, *title, *(text if len(text) == 1 else ()), *ITEM_COLUMNS}
    frame = frame.join(table[[name for name in table.columns if name not in renamed]])

    shared = checks.kept & frame["item_id"].duplicated(keep=False).to_numpy()
    identical = _repeats(frame, shared)
    checks.leave_out("duplicate_row", identical, ["item_id"], "repeated rows, left out", frame["item_id"])
    different = _repeats(frame[["item_id"]], checks.kept)
    what = "rows that give an item of an earlier row differently"
    checks.refuse("duplicate_item", different, ["item_id"], what, frame["item_id"])
    report = checks.settle()

    frame = frame[checks.kept].reset_index(drop=True)
    return frame.assign(item_id=settle_ids(frame["item_id"])), report


def _checked_ids(values: pd.Series, name: str, checks: RowChecks) -> pd.Series:
    column = read_ids(values)
    checks.refuse("missing_id", column.missing, [name], f"rows without a {name}")
    what = f"{name} values turned into strings, as not all are integers of 64 bits"
    checks.note("mixed_ids", column.converted, [name], what, values)
    return column.ids


def _weights(values: pd.Series) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # too large for float32 is infinite, and refused as such
        numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        return numbers.astype(np.float32)


def _column_names(names: str | Sequence[str], of: str) -> tuple[str, ...]:
    several = (names,) if isinstance(names, str) else tuple(names)
    if not several or (len(several) > 1 and of != "text"):
        raise InputError(
            f"columns maps {of!r} to {len(several)} columns ({', '.join(several)}): name one, "
            "or for 'text' one or more."
        )
    return several


def _strings(values: pd.Series) -> pd.Series:
    return values.astype("str").fillna("").str.strip()


def _sentences(parts: Sequence[pd.Series]) -> pd.Series:
    """Join the columns of a text, each ending where the next begins."""
    joined = parts[0]
    for part in parts[1:]:
        stop = np.where(joined.str.endswith((".", "!", "?")), " ", ". ")
        both = joined + pd.Series(stop, index=joined.index, dtype="str") + part
        joined = both.mask(part == "", joined).mask(joined == "", part)
    return joined


def _repeats(rows: pd.DataFrame, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return (rows,) True where a row of those `among` equals an earlier one of them."""
    repeated = np.zeros(len(rows), dtype=np.bool_)
    chosen = rows[among]
    objects = [name for name, kind in chosen.dtypes.items() if kind == "object"]  # lists, say, which have no hash
    repeated[among] = chosen.astype(dict.fromkeys(objects, "str")).duplicated().to_numpy()
    return repeated
