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
from retrieval.catalogue import Catalogue
from retrieval.interactions import microseconds

Kind = Literal["click", "dwell", "cart", "purchase", "like", "rating", "dislike", "hide", "skip"]
KINDS: tuple[Kind, ...] = ("click", "dwell", "cart", "purchase", "like", "rating", "dislike", "hide", "skip")
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


def checked_events(events: pd.DataFrame, catalogue: Catalogue) -> pd.DataFrame:
    """The events with the columns ``COLUMNS`` in their fixed types, in the order given; the input is unchanged.

    Args:
        events: One row per event. ``event_id`` names the act, so that sending it twice counts once; ``value`` (NaN
            where the kind has none; the column may be missing) is seconds for a dwell, the rating for a rating.
        catalogue: The items; each event's item must be one of them.

    Raises:
        InputError: The table is empty, a column or a value is missing, a kind or item is unknown, an event id occurs
            twice with different content, a value is not a finite number of at least 0, or a time is no time.
    """
    if events.empty:
        raise InputError("feedback: the table has no rows; pass at least one event.")
    missing = [name for name in COLUMNS if name not in events.columns and name != "value"]
    if missing:
        raise InputError(
            f"feedback: no column {missing[0]!r}; the columns are {', '.join(map(str, events.columns))}. "
            f"Needed are {', '.join(COLUMNS)}."
        )
    table = pd.DataFrame({name: events.get(name, np.nan) for name in COLUMNS})
    for name in ("event_id", "user_id", "item_id", "kind"):
        _refuse(table[name].isna(), table, f"{name} is missing")
    table["event_id"] = table["event_id"].astype(str)
    unknown = ~table["kind"].isin(KINDS)
    if unknown.any():
        word = str(table["kind"][unknown].iloc[0])
        near = difflib.get_close_matches(word, KINDS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        _refuse(unknown, table, f"kind is not one of {', '.join(KINDS)}{hint}")
    catalogue.require(table["item_id"], "feedback")

    value = pd.to_numeric(table["value"], errors="coerce").to_numpy(np.float64)
    given = table["value"].notna() | table["kind"].isin(MEASURED)
    table["value"] = value
    _refuse(given & ~(np.isfinite(value) & (value >= 0)), table, "value is not a finite number of at least 0")
    times = pd.to_datetime(events["datetime"], errors="coerce", utc=True)
    _refuse(times.isna().reset_index(drop=True), table.reset_index(drop=True), "datetime is not a time")
    table["datetime"] = microseconds(times).astype("datetime64[us]")

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
