"""Feedback events: what they must hold, and what each kind says about the item."""

from __future__ import annotations

import difflib
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from encoders.errors import InputError
from ranker.data.times import read_times
from retrieval.catalogue import Catalogue
from retrieval.histories import LOGGED
from retrieval.ids import IdMap

Kind = Literal["click", "dwell", "cart", "purchase", "like", "rating", "dislike", "hide", "skip"]
KINDS: tuple[Kind, ...] = ("click", "dwell", "cart", "purchase", "like", "rating", "dislike", "hide", "skip")
# As histories keep them. A saved engine depends on them: kinds are only ever added, at the end.
KIND_CODES: dict[str, int] = {kind: LOGGED + 1 + place for place, kind in enumerate(KINDS)}
N_KINDS = 1 + max(KIND_CODES.values())
MEASURED: tuple[Kind, ...] = ("dwell", "rating")  # kinds that mean nothing without their value
COLUMNS = ("event_id", "user_id", "item_id", "kind", "value", "datetime")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class FeedbackPolicy:
    """What an event says: a positive one has a weight like an interaction's; a negative one has weight 0.

    Attributes:
        click: Weight of a click.
        dwell: Weight of a dwell of at least ``dwell_seconds``; a shorter one is negative.
        cart: Weight of an item put into the cart.
        purchase: Weight of a purchase.
        like: Weight of an explicit like.
        dwell_seconds: Seconds from which a dwell is positive.
        rating_from: Rating from which an event of kind "rating" is positive, with the rating as its weight; a lower
            one is negative.

    The kinds "dislike", "hide" and "skip" are always negative. Every kind but "skip" marks the item as seen, so that
    it is not recommended to that user again; a skipped item may return.
    """

    click: Annotated[float, Field(gt=0)] = 1.0
    dwell: Annotated[float, Field(gt=0)] = 1.0
    cart: Annotated[float, Field(gt=0)] = 2.0
    purchase: Annotated[float, Field(gt=0)] = 4.0
    like: Annotated[float, Field(gt=0)] = 4.0
    dwell_seconds: Annotated[float, Field(ge=0)] = 10.0
    rating_from: Annotated[float, Field(gt=0)] = 4.0

    def weights(self, events: pd.DataFrame) -> NDArray[np.float32]:
        """The weight of each event, 0 for a negative one."""
        kind, value = events["kind"], events["value"].to_numpy(np.float64)
        weights = kind.map(
            {"click": self.click, "cart": self.cart, "purchase": self.purchase, "like": self.like}
        ).to_numpy(np.float64, na_value=0.0)
        weights = np.where((kind == "dwell") & (value >= self.dwell_seconds), self.dwell, weights)
        weights = np.where((kind == "rating") & (value >= self.rating_from), value, weights)
        return weights.astype(np.float32)


def kind_codes(events: pd.DataFrame) -> NDArray[np.uint8]:
    """The kind of each checked event as histories keep it, (E,)."""
    return np.array([KIND_CODES[kind] for kind in events["kind"]], np.uint8)


def checked_events(events: pd.DataFrame, catalogue: Catalogue, users: IdMap) -> pd.DataFrame:
    """The events with the columns ``COLUMNS`` in their fixed types, in the order given; the input is unchanged.

    Args:
        events: One row per event. ``event_id`` names the act, so that sending it twice counts once; ``value`` (NaN
            where the kind has none; the column may be missing) is seconds for a dwell, the rating for a rating;
            ``datetime`` holds datetimes, ISO 8601 strings, or seconds since 1970, in UTC where no zone is given.
        catalogue: The items; each event's item must be one of them.
        users: The users known so far; others are taken where their ids are of the same kind.

    Raises:
        InputError: This is no table, it is empty, a column or a value is missing, a kind or item is unknown, a user
            id is of another kind, an event id occurs twice with different content, a value is not a finite number of
            at least 0, or a time is no time.
    """
    if not isinstance(events, pd.DataFrame):
        raise InputError(f"feedback: pass a DataFrame with {', '.join(COLUMNS)}, not a {type(events).__name__}.")
    if events.empty:
        raise InputError("feedback: the table has no rows; pass at least one event.")
    columns = list(map(str, events.columns))
    for name in COLUMNS:
        if columns.count(name) != 1 and not (name == "value" and name not in columns):
            problem = "no" if name not in columns else f"{columns.count(name)} times a"
            raise InputError(
                f"feedback: {problem} column {name!r}; the columns are {', '.join(columns)}. "
                f"Needed are {', '.join(COLUMNS)}."
            )
    table = pd.DataFrame({name: events.get(name, np.nan) for name in COLUMNS}).reset_index(drop=True)
    for name in ("event_id", "user_id", "item_id", "kind"):
        _refuse(table[name].isna(), table, f"{name} is missing")
    try:
        table = table.astype({"event_id": "str", "kind": "str"})
    except UnicodeEncodeError as error:
        raise InputError(f"feedback: {error.object!r} is no valid text ({error.reason}).") from error
    unknown = ~table["kind"].isin(KINDS)
    if unknown.any():
        word = table["kind"][unknown].iloc[0]
        near = difflib.get_close_matches(word, KINDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it must be one of {', '.join(KINDS)}"
        _refuse(unknown, table, f"kind {word!r} is unknown ({hint})")
    users.positions(table["user_id"], "feedback: user_id")
    table["user_id"] = table["user_id"].astype("int64" if users.are_integers else "str")
    table["item_id"] = catalogue.ids.at(catalogue.require(table["item_id"], "feedback: item_id"))

    value = pd.to_numeric(table["value"], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    given = table["value"].notna() | table["kind"].isin(MEASURED)
    table["value"] = value
    _refuse(given & ~(np.isfinite(value) & (value >= 0)), table, "value is not a finite number of at least 0")
    table["datetime"] = read_times(table["datetime"], "s")
    _refuse(table["datetime"].isna(), table, "datetime is no time between 1678 and 2261")

    repeated = table[~table.duplicated() & table["event_id"].duplicated()]
    if len(repeated):
        raise InputError(
            f"feedback: event id {repeated['event_id'].iloc[0]!r} occurs twice with different content. "
            "Give each act an id of its own."
        )
    return table.drop_duplicates().reset_index(drop=True)


def _refuse(bad: pd.Series, table: pd.DataFrame, problem: str) -> None:
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise InputError(
            f"feedback: {problem} in {int(bad.sum())} of {len(table)} events (first: row {row}, event id "
            f"{table['event_id'].iloc[row]!r}). Nothing was recorded; mend or leave out those rows."
        )
