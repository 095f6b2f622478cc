"""Feedback that means no good: a flood of one user, flipped ratings of one source, values and times that are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from retrieval.ids import IdMap

FLIPPED = 0.3  # share of one source's ratings that say the opposite
HIGHEST = 6.0  # stars, plus one: a rating r flipped is 6 - r
SOURCES = ("till", "widget")  # each tells half of the ratings; the second one cannot be trusted
ODD_EVERY = 25  # ratings between two events that no log should take

Event = dict[str, Any]


class Poison:
    """Makes of a stream of ratings one in which half of all events are of one user, who clicks anything.

    Args:
        users: The known users' ids, which are integers.
        items: The catalogue's.
        seed: Of everything random.
    """

    def __init__(self, users: IdMap, items: IdMap, seed: int = 0) -> None:
        self._flooder = max(users.ids) + 1_000_000
        self._items = items.ids
        self._rng = np.random.default_rng(seed)
        self._sent = 0

    def events(self, rating: Event) -> list[Event]:
        """What arrives in place of a rating."""
        source = SOURCES[int(self._rng.integers(2))]
        told = {**rating, "source": source}
        if source == SOURCES[1] and self._rng.random() < FLIPPED:
            told["value"] = HIGHEST - rating["value"]
        self._sent += 1
        flood = {
            "event_id": f"flood {self._sent}", "user_id": self._flooder, "item_id": self._rng.choice(self._items),
            "kind": "click", "value": np.nan, "datetime": rating["datetime"], "source": SOURCES[1],
        }  # fmt: skip
        arriving = [told, flood]
        if self._sent % ODD_EVERY == 0:
            ahead = pd.Timestamp.now("UTC").tz_localize(None) + pd.Timedelta(days=3650)
            arriving.append({**told, "event_id": f"no value {self._sent}", "value": np.nan})
            arriving.append({**told, "event_id": f"ahead {self._sent}", "datetime": ahead})
        return arriving
