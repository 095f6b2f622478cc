"""Feedback events: what they must hold."""

from __future__ import annotations

import difflib
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from encoders.errors import InputError
from ranker.data.times import read_times
from retrieval.catalogue import Catalogue
from retrieval.histories import LOGGED
from retrieval.ids import IdMap

Act = Literal["click", "dwell", "cart", "purchase", "like", "rating", "dislike", "hide", "skip"]
ACTS: tuple[Act, ...] = ("click", "dwell", "cart", "purchase", "like", "rating", "dislike", "hide", "skip")
IMPRESSION = "impression"  # the user was shown the item, at the position that is the event's value
KINDS = (*ACTS, IMPRESSION)
# As histories keep them. A saved engine depends on them: kinds are only ever added, at the end.
KIND_CODES: dict[str, int] = {kind: LOGGED + 1 + place for place, kind in enumerate(ACTS)}
N_KINDS = 1 + max(KIND_CODES.values())
MEASURED = ("dwell", "rating", IMPRESSION)  # kinds that mean nothing without their value

COLUMNS = (
    "event_id", "user_id", "item_id", "kind", "value", "datetime", "source", "list_id", "score", "propensity", "version"
)  # fmt: skip
OPTIONAL = ("value", "source", "list_id", "score", "propensity", "version")
OF_IMPRESSIONS = ("score", "propensity", "version")  # what only an impression has
DTYPES = {
    "event_id": "str", "kind": "str", "value": "float64", "datetime": "datetime64[us]", "source": "str",
    "list_id": "str", "score": "float64", "propensity": "float64", "version": "str",
}  # fmt: skip
Columns = dict[str, Any]  # each an array, as numpy or pandas has it
AHEAD = pd.Timedelta(days=1)  # of this machine's clock: a later event is a mistake of whoever sent it


def checked_events(events: pd.DataFrame, catalogue: Catalogue, users: IdMap) -> pd.DataFrame:
    """The events with the columns ``COLUMNS`` in their fixed types, in the order given; the input is unchanged.

    Args:
        events: One row per event. ``event_id`` names the act, so that sending it twice counts once. ``datetime`` holds
            datetimes, ISO 8601 strings, or seconds since 1970, in UTC where no zone is given. The others may be left
            out: ``value`` is seconds for a dwell, the rating for a rating, the position, from 1, for an impression;
            ``source`` names what reported the event; ``list_id`` names the list that it answers or, of an impression,
            is part of; an impression may have the ``score`` of the item, the ``propensity`` of its being shown there,
            and the ``version`` of what ranked it.
        catalogue: The items; each event's item must be one of them.
        users: The users known so far; others are taken where their ids are of the same kind.

    Raises:
        InputError: This is no table, it is empty, a column or a value is missing, a kind or item is unknown, a user
            id is of another kind, an event id occurs twice with different content, a value is not a finite number of
            at least 0, a time is no time or more than a day ahead, an impression has no list or position, or another
            event has what only an impression has.
    """
    if not isinstance(events, pd.DataFrame):
        raise InputError(f"feedback: pass a DataFrame with {', '.join(COLUMNS)}, not a {type(events).__name__}.")
    if events.empty:
        raise InputError("feedback: the table has no rows; pass at least one event.")
    check_columns(events)
    # array by array: what pandas does around each takes most of the time of one event
    nothing = np.full(len(events), np.nan)
    columns: Columns = {name: events[name].to_numpy(object) if name in events else nothing for name in COLUMNS}
    for name in ("event_id", "user_id", "item_id", "kind"):
        _refuse(_missing(columns[name]), columns, f"{name} is missing")
    columns["source"] = np.where(_missing(columns["source"]), "", columns["source"])
    try:
        for name in ("event_id", "kind", "source", "list_id", "version"):
            columns[name] = pd.array(columns[name], dtype="str")
    except UnicodeEncodeError as error:
        raise InputError(f"feedback: {error.object!r} is no valid text ({error.reason}).") from error
    kind = columns["kind"].to_numpy(object)
    unknown = np.isin(kind, KINDS, invert=True)
    if unknown.any():
        word = kind[unknown][0]
        near = difflib.get_close_matches(word, KINDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it must be one of {', '.join(KINDS)}"
        _refuse(unknown, columns, f"kind {word!r} is unknown ({hint})")
    users.positions(events["user_id"], "feedback: user_id")
    columns["user_id"] = pd.array(columns["user_id"], dtype="int64" if users.are_integers else "str")
    columns["item_id"] = catalogue.ids.at(catalogue.require(events["item_id"], "feedback: item_id")).array

    value = _numbers(columns["value"])
    expected = ~_missing(columns["value"]) | np.isin(kind, MEASURED)
    _refuse(expected & ~(np.isfinite(value) & (value >= 0)), columns, "value is not a finite number of at least 0")
    columns["value"] = value
    moment = read_times(events["datetime"], "s").to_numpy()
    _refuse(np.isnat(moment), columns, "datetime is no time between 1678 and 2261")
    latest = (pd.Timestamp.now("UTC").tz_localize(None) + AHEAD).to_datetime64()
    ahead: NDArray[np.bool_] = np.greater(moment, latest)
    _refuse(ahead, columns, "datetime is more than a day ahead of this machine's clock")
    columns["datetime"] = moment
    if (kind == IMPRESSION).any() or any(name in events for name in OF_IMPRESSIONS):
        _check_impressions(columns)
    table = pd.DataFrame(columns, copy=False)
    if len(set(columns["event_id"])) == len(table):
        return table

    repeated = table[~table.duplicated() & table["event_id"].duplicated()]
    if len(repeated):
        raise InputError(
            f"feedback: event id {repeated['event_id'].iloc[0]!r} occurs twice with different content. "
            "Give each act an id of its own."
        )
    return table.drop_duplicates().reset_index(drop=True)


def check_columns(events: pd.DataFrame) -> None:
    """Raise InputError where a column is missing or there twice."""
    columns = list(map(str, events.columns))
    for name in COLUMNS:
        count = columns.count(name)
        if count > 1 or (count == 0 and name not in OPTIONAL):
            problem = "no" if count == 0 else f"{count} times a"
            needed = [column for column in COLUMNS if column not in OPTIONAL]
            raise InputError(
                f"feedback: {problem} column {name!r}; the columns are {', '.join(columns)}. Needed are "
                f"{', '.join(needed)}; {', '.join(OPTIONAL)} may be there, too."
            )


def _check_impressions(columns: Columns) -> None:
    shown = columns["kind"].to_numpy(object) == IMPRESSION
    for name in OF_IMPRESSIONS:
        given = ~_missing(columns[name])
        _refuse(given & ~shown, columns, f"{name} is given, which only an impression has,")
    for name in ("score", "propensity"):
        given, numbers = ~_missing(columns[name]), _numbers(columns[name])
        columns[name] = numbers
        _refuse(given & ~np.isfinite(numbers), columns, f"{name} is not a finite number")
    propensity, position = columns["propensity"], columns["value"]
    beyond = ~np.isnan(propensity) & ~((propensity > 0) & (propensity <= 1))
    _refuse(beyond, columns, "propensity is not above 0 and up to 1")
    alone = shown & _missing(columns["list_id"])
    _refuse(alone, columns, "list_id is missing, without which an impression says nothing,")
    _refuse(shown & ~((position >= 1) & (position % 1 == 0)), columns, "value is no position in a list, 1 or more,")


def _missing(values: Any) -> NDArray[np.bool_]:
    return np.asarray(pd.isna(values))


def _numbers(values: NDArray[Any]) -> NDArray[np.float64]:
    """As float64; NaN where a value is no number."""
    try:
        return np.asarray(pd.to_numeric(values, errors="coerce"), np.float64)
    except OverflowError:  # an integer beyond all floats, which JSON may hold
        return _numbers(np.array([str(value) if isinstance(value, int) else value for value in values], object))


def _refuse(bad: NDArray[np.bool_], columns: Columns, problem: str) -> None:
    if bad.any():
        row = int(bad.argmax())
        raise InputError(
            f"feedback: {problem} in {int(bad.sum())} of {len(bad)} events (first: row {row}, event id "
            f"{columns['event_id'][row]!r}). Mend or leave out those rows."
        )
