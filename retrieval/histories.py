"""What users did: the one form in which every source sees a user, known or new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from encoders.errors import InputError

LEVELS = 6  # of an event's weight: 0 (no sign of liking), up to 1, up to 2, up to 4, up to 8, more
MICROSECONDS = 1_000_000  # in a second
LOGGED = 0  # the kind of an event of the training log, which says how strong it was but not what


@dataclass(frozen=True, slots=True, eq=False)
class Histories:
    """The events of a batch of users, oldest first; row ``u`` is the slice ``indptr[u]:indptr[u + 1]``.

    A user is what they did: a known user, a new one, and one given only as a list of items differ in nothing
    but where these rows come from.
    """

    indptr: NDArray[np.int64]  # (U + 1,)
    items: NDArray[np.int64]  # (E,) positions in the catalogue
    weights: NDArray[np.float32]  # (E,) strength of a positive event; 0 says seen, but no sign of liking
    times: NDArray[np.int64]  # (E,) microseconds since 1970, never decreasing within a row
    kinds: NDArray[np.uint8]  # (E,) LOGGED, or what kind of feedback it was

    def __post_init__(self) -> None:
        events = self.indptr[-1] if len(self.indptr) else -1
        if not len(self.items) == len(self.weights) == len(self.times) == len(self.kinds) == events:
            raise InputError(
                f"Histories: {len(self.items)} items, {len(self.weights)} weights, {len(self.times)} times and "
                f"{len(self.kinds)} kinds do not line up with an indptr that ends at {events}: each event needs one of "
                "each."
            )

    @classmethod
    def from_rows(
        cls,
        rows: NDArray[np.int64],
        items: NDArray[np.int64],
        weights: NDArray[np.float32],
        times: NDArray[np.int64],
        n_rows: int,
        kinds: NDArray[np.uint8] | None = None,
    ) -> Histories:
        """Group loose events by their row; equal times keep the order they are given in, and no kinds mean LOGGED."""
        order = np.lexsort((times, rows))  # lexsort is stable
        indptr = np.zeros(n_rows + 1, np.int64)
        np.cumsum(np.bincount(rows, minlength=n_rows), out=indptr[1:])
        kinds = np.full(len(rows), LOGGED, np.uint8) if kinds is None else kinds[order]
        return cls(indptr, items[order], weights[order].astype(np.float32), times[order], kinds)

    @classmethod
    def empty(cls, n_rows: int) -> Histories:
        """Users who did nothing yet."""
        none = np.empty(0, np.int64)
        return cls(np.zeros(n_rows + 1, np.int64), none, np.empty(0, np.float32), none, np.empty(0, np.uint8))

    @classmethod
    def joined(cls, parts: Sequence[Histories]) -> Histories:
        """The rows of several, in their order."""
        lengths = np.concatenate([np.zeros(1, np.int64), *(part.lengths for part in parts)])
        names = ("items", "weights", "times", "kinds")
        return cls(np.cumsum(lengths), *(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many events each row has, (U,)."""
        return np.diff(self.indptr)

    @property
    def rows(self) -> NDArray[np.int64]:
        """The row of each event, (E,)."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def take(self, rows: NDArray[np.int64]) -> Histories:
        """These rows, in this order."""
        # not self.lengths[rows], which would read every user's length to answer for one
        return self._slices(self.indptr[rows], self.indptr[rows + 1] - self.indptr[rows])

    def before(self, events: NDArray[np.int64]) -> Histories:
        """One row for each of these events (positions in ``items``): what its user had done before it."""
        return self.up_to(self.rows[events], events)

    def up_to(self, rows: NDArray[np.int64], ends: NDArray[np.int64]) -> Histories:
        """These rows, each up to a position in ``items``, exclusive."""
        return self._slices(self.indptr[rows], ends - self.indptr[rows])

    def until(self, rows: NDArray[np.int64], times: NDArray[np.int64]) -> Histories:
        """One row for each of these moments (a row and a time): what that user had done before it."""
        starts, stops = self.indptr[rows], self.indptr[rows + 1]
        moments = zip(starts, stops, times, strict=True)
        lengths = [np.searchsorted(self.times[start:stop], time) for start, stop, time in moments]
        return self._slices(starts, np.array(lengths, np.int64))

    def _slices(self, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Histories:
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        events = np.repeat(starts - indptr[:-1], lengths) + np.arange(indptr[-1])
        return self._of(indptr, events)

    def _of(self, indptr: NDArray[np.int64], events: NDArray[np.int64] | NDArray[np.bool_]) -> Histories:
        return Histories(indptr, self.items[events], self.weights[events], self.times[events], self.kinds[events])

    def liked(self) -> Histories:
        """The positive events only."""
        keep = self.weights > 0
        counts = np.bincount(self.rows[keep], minlength=len(self))
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        return self._of(indptr, keep)

    def latest(self, n: int) -> Histories:
        """At most the newest ``n`` events of each row."""
        lengths = np.minimum(self.lengths, n)
        return self._slices(self.indptr[1:] - lengths, lengths)

    def without_latest(self, n: int | NDArray[np.int64]) -> Histories:
        """Each row but its newest ``n`` events; ``n`` is one number or one for each row."""
        return self._slices(self.indptr[:-1], np.maximum(self.lengths - n, 0))

    def pauses(self, now: int) -> NDArray[np.float64]:
        """Seconds from each row's newest event to a time in microseconds since 1970; NaN where there is none, (U,)."""
        pauses = np.full(len(self), np.nan)
        rows = np.flatnonzero(self.lengths)
        pauses[rows] = (now - self.times[self.indptr[rows + 1] - 1]) / MICROSECONDS
        return pauses

    def recency(self, half_life: float | None) -> NDArray[np.float32]:
        """A factor per event, 1 for a row's newest and halved every ``half_life`` events; all 1 where it is None."""
        if half_life is None:
            return np.ones(len(self.items), np.float32)
        age = np.repeat(self.indptr[1:], self.lengths) - 1 - np.arange(len(self.items))
        return np.exp2(-age / half_life).astype(np.float32)

    def matrix(self, values: NDArray[np.float32], n_items: int) -> sparse.csr_array:
        """Users × items with one value per event; repeated items add up."""
        # copied, since adding up sorts the arrays in place
        matrix = sparse.csr_array((values, self.items, self.indptr), shape=(len(self), n_items), copy=True)
        matrix.sum_duplicates()
        return matrix


def weight_levels(weights: NDArray[np.float32]) -> NDArray[np.int64]:
    """Which of LEVELS levels a weight has: 0 for 0, 1 up to 1, then one per doubling."""
    levels = 1 + np.ceil(np.log2(np.maximum(weights, 1)))
    return np.where(weights > 0, np.minimum(levels, LEVELS - 1), 0).astype(np.int64)
