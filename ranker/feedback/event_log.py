"""What a store of feedback does for an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import pandas as pd

from retrieval.ids import Ids


class Logged(NamedTuple):
    """An event as the log keeps it."""

    offset: int  # its place in the order of arrival, from 1
    event_id: str
    user_id: int | str
    item_id: int | str
    kind: str
    value: float | None
    datetime: int  # microseconds since 1970, UTC
    source: str
    list_id: str | None
    score: float | None
    propensity: float | None
    version: str | None
    received: int  # microseconds since 1970, UTC


class EventLog(Protocol):
    """Where feedback is kept: ``FeedbackLog``, or a site's own store. Safe to use from several threads."""

    path: Path | str

    def append(self, events: pd.DataFrame) -> pd.DataFrame:
        """Record checked events, the whole batch or none of it; returns those that were new, once they are durable."""
        ...

    def read(self, after: int = 0, most: int | None = None) -> pd.DataFrame:
        """Events beyond an offset, in the order of arrival: columns ``offset``, ``COLUMNS`` and ``received``."""
        ...

    def newer(self, after: int, most: int) -> Sequence[Logged]:
        """The next events beyond an offset, at most so many, in the order of arrival."""
        ...

    def of_users(self, after: Mapping[int | str, int]) -> Sequence[Logged]:
        """Events of these users, each beyond an offset of their own, in the order of arrival, all as of one moment."""
        ...

    def of_lists(self, list_ids: Sequence[str]) -> Sequence[Logged]:
        """All events of these lists, in the order of arrival."""
        ...

    def users(self) -> list[int | str]:
        """Everybody of whom there is an event, in the order of the first one."""
        ...

    def last_offset(self) -> int:
        """Of the newest event that there ever was, 0 where there was none."""
        ...

    def forget(self, user_ids: Ids) -> int:
        """Delete every event of these users for good, and remember to pass them over elsewhere; how many there were."""
        ...

    def forgotten(self) -> list[int | str]:
        """Users who were forgotten, of whom older files may still tell."""
        ...

    def erasures(self) -> int:
        """How often events were deleted; who keeps what it read lets go of it when this number changes."""
        ...

    def __len__(self) -> int: ...

    def close(self) -> None:
        """Let the store go."""
        ...
