"""The interaction log: who did what, when, as one history per user."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from encoders.errors import InputError
from retrieval.catalogue import Catalogue
from retrieval.histories import Histories
from retrieval.ids import IdMap, Ids

COLUMNS = ("user_id", "item_id", "weight", "datetime")


@dataclass(frozen=True, slots=True, eq=False)
class Interactions:
    """Users and their histories; row ``u`` of the histories belongs to ``users.ids[u]``."""

    users: IdMap
    histories: Histories

    @classmethod
    def from_frame(
        cls, frame: pd.DataFrame, catalogue: Catalogue, users: Ids | None = None, name: str = "interactions"
    ) -> Interactions:
        """Group a table of ``user_id, item_id, weight, datetime`` by user.

        Args:
            frame: One row per event. Equal times keep the order of the rows. A weight of 0 says that the user had the
                item, and nothing of liking it.
            catalogue: The items; each event's item must be one of them.
            users: The users to have a row each, in this order (default: those of the table, in order of first event).
            name: What messages call the table.

        Raises:
            InputError: A column is missing, a value is missing or not finite, a weight is negative, an item is
                unknown, or a user of the table is not among ``users``.
        """
        missing = [column for column in COLUMNS if column not in frame.columns]
        if missing:
            raise InputError(
                f"{name}: no column {missing[0]!r}; the columns are {', '.join(map(str, frame.columns))}. "
                f"Needed are {', '.join(COLUMNS)}."
            )
        if frame.empty and users is None:
            raise InputError(f"{name}: the table has no rows, so there is nothing to learn from.")
        with np.errstate(over="ignore"):  # too large for float32 is infinite, and refused as such
            weights = pd.to_numeric(frame["weight"], errors="coerce").to_numpy(np.float64, na_value=np.nan)
            weights = weights.astype(np.float32)
        bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
        if len(bad):
            first = frame["weight"].tolist()[bad[0]]  # as Python's own number, which reads as one
            raise InputError(
                f"{name}: {len(bad)} of {len(frame)} weights are not finite numbers of at least 0 (first: "
                f"{first!r} in row {bad[0]}). Leave those rows out; had and not liked is 0."
            )
        for column in ("user_id", "datetime"):
            if frame[column].isna().any():
                row = int(frame[column].isna().to_numpy().argmax())
                raise InputError(f"{name}: {column} is missing in row {row}. Fill it in or leave the row out.")
        if not pd.api.types.is_datetime64_any_dtype(frame["datetime"]):
            raise InputError(
                f"{name}: column 'datetime' holds {frame['datetime'].dtype}, not datetimes. "
                "Convert it, or read the file with ranker.data.read_interactions."
            )
        items = catalogue.require(frame["item_id"], name)
        id_map = IdMap(pd.unique(frame["user_id"]) if users is None else users)
        rows = id_map.positions(frame["user_id"], f"{name}: user_id")
        if (rows < 0).any():
            stranger = frame["user_id"].tolist()[int((rows < 0).argmax())]
            raise InputError(f"{name}: user {stranger!r} is not among the {len(id_map)} users asked for.")
        times = microseconds(frame["datetime"])
        return cls(id_map, Histories.from_rows(rows, items, weights, times, len(id_map)))


def microseconds(times: pd.Series) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Datetimes as microseconds since 1970, UTC."""
    if times.dt.tz is not None:
        times = times.dt.tz_convert("UTC").dt.tz_localize(None)
    return times.to_numpy("datetime64[us]").astype(np.int64)
