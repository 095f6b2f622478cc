"""Who did what, up to this moment: the training log and every event since."""

from __future__ import annotations

import threading
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from encoders.errors import ArtifactError, InputError
from ranker.feedback import N_KINDS, FeedbackPolicy, kind_codes
from retrieval.histories import Histories
from retrieval.ids import UNKNOWN, IdMap, Ids
from retrieval.interactions import Interactions, microseconds
from retrieval.storage import load_array

Event = tuple[int, float, int, int]  # item position, weight, microseconds, kind


class UserHistories:
    """Histories that grow: a fixed base from the training log, and newer events laid over it.

    Safe to read and to extend from several threads; a reader sees a whole batch of new events or none of it.

    Args:
        base: The training log.
    """

    def __init__(self, base: Interactions) -> None:
        self.base = base
        self._newcomers: dict[object, int] = {}  # id → row after the base's rows
        self._recent: defaultdict[int, list[Event]] = defaultdict(list)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.base.users) + len(self._newcomers)

    @property
    def ids(self) -> list[object]:
        """Every user's id, newcomers last."""
        with self._lock:
            return [*self.base.users.ids, *self._newcomers]

    def rows(self, user_ids: Ids) -> NDArray[np.int64]:
        """Each user's row, UNKNOWN for a user without any event.

        Raises:
            InputError: An id is of another kind (integer, string) than the known ones.
        """
        with self._lock:
            return self._rows(user_ids)

    def histories(self, user_ids: Ids) -> Histories:
        """The history of each user, empty for a user without any event.

        Raises:
            InputError: An id is of another kind (integer, string) than the known ones.
        """
        with self._lock:  # one hold for both, or a newcomer's first batch could be seen in part
            rows = self._rows(user_ids)
            recent = {at: list(self._recent[row]) for at, row in enumerate(rows.tolist()) if row in self._recent}
        in_base = np.flatnonzero((rows != UNKNOWN) & (rows < len(self.base.users)))
        old = self.base.histories.take(rows[in_base])
        new_rows = np.repeat(np.fromiter(recent, np.int64), [len(events) for events in recent.values()])
        new = [event for events in recent.values() for event in events]
        return Histories.from_rows(
            np.concatenate([in_base[old.rows], new_rows]),
            np.concatenate([old.items, np.array([item for item, _, _, _ in new], np.int64)]),
            np.concatenate([old.weights, np.array([weight for _, weight, _, _ in new], np.float32)]),
            np.concatenate([old.times, np.array([time for _, _, time, _ in new], np.int64)]),
            len(rows),
            np.concatenate([old.kinds, np.array([kind for _, _, _, kind in new], np.uint8)]),
        )

    def extend(
        self,
        user_ids: Ids,
        items: NDArray[np.int64],
        weights: NDArray[np.float32],
        times: NDArray[np.int64],
        kinds: NDArray[np.uint8],
    ) -> None:
        """Add events (one of each argument per event); they show in the next ``histories``.

        An event that the base holds already (same user, item and time: an engine fitted on what an older one logged) is
        not laid over it again.

        Raises:
            InputError: A user id is of another kind than the known ones. Nothing is added then.
        """
        positions = self.base.users.positions(user_ids, "user_ids")
        with self._lock:
            events = zip(items.tolist(), weights.tolist(), times.tolist(), kinds.tolist(), strict=True)
            for user_id, row, event in zip(user_ids, positions.tolist(), events, strict=True):
                if row == UNKNOWN:
                    row = self._newcomers.setdefault(user_id, len(self.base.users) + len(self._newcomers))
                elif self._in_base(row, event):
                    continue
                self._recent[row].append(event)

    def take_in(self, events: pd.DataFrame, items: NDArray[np.int64], policy: FeedbackPolicy) -> None:
        """Add checked feedback events on these items (positions) by their policy's weights; skips leave no trace."""
        marking = (events["kind"] != "skip").to_numpy()  # a skipped item may return
        events = events[marking]
        self.extend(
            events["user_id"].tolist(),
            items[marking],
            policy.weights(events),
            microseconds(events["datetime"]),
            kind_codes(events),
        )

    def merged(self) -> Interactions:
        """Base and newer events as one log."""
        ids = self.ids
        return Interactions(IdMap(ids), self.histories(ids))

    def _in_base(self, row: int, event: Event) -> bool:
        base, (item, _, time, _) = self.base.histories, event
        had = slice(base.indptr[row], base.indptr[row + 1])
        return bool(((base.items[had] == item) & (base.times[had] == time)).any())

    def _rows(self, user_ids: Ids) -> NDArray[np.int64]:
        listed = list(user_ids)
        rows = self.base.users.positions(listed, "user_ids")
        for at in np.flatnonzero(rows == UNKNOWN):
            rows[at] = self._newcomers.get(listed[at], UNKNOWN)
        return rows

    def save(self, folder: Path) -> None:
        """Write the base into this empty folder; newer events are the feedback log's to keep."""
        self.base.users.save(folder / "users.parquet")
        for name in ("indptr", "items", "weights", "times", "kinds"):
            np.save(folder / f"{name}.npy", getattr(self.base.histories, name))

    @classmethod
    def load(cls, folder: Path, n_items: int) -> UserHistories:
        """Read what ``save`` wrote; the arrays stay memory-mapped.

        Raises:
            ArtifactError: A file is missing or damaged, or the files do not belong together.
        """
        users = IdMap.load(folder / "users.parquet")
        indptr = load_array(folder / "indptr.npy", np.int64, ndim=1)
        items = load_array(folder / "items.npy", np.int64, ndim=1)
        weights = load_array(folder / "weights.npy", np.float32, ndim=1)
        times = load_array(folder / "times.npy", np.int64, ndim=1)
        kinds = load_array(folder / "kinds.npy", np.uint8, ndim=1)
        out_of_range = len(items) and (items.min() < 0 or items.max() >= n_items)
        unknown_kind = len(kinds) and kinds.max() >= N_KINDS
        ordered = len(indptr) == len(users) + 1 and indptr[0] == 0 and (np.diff(indptr) >= 0).all()
        if not ordered or out_of_range or unknown_kind:
            raise ArtifactError(
                f"{folder}: users, histories and catalogue do not belong together. Save the engine again."
            )
        try:
            histories = Histories(indptr, items, weights, times, kinds)
        except InputError as error:
            raise ArtifactError(f"{folder}: {error}") from error
        return cls(Interactions(users, histories))
