"""Candidates, the requests that ask for them, and the contract of whatever answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from encoders.errors import InputError
from retrieval.histories import Histories
from retrieval.queries import Queries

NO_ITEM = -1  # fills a row that ran out of candidates, as FAISS does

BLOCK_SCORES = 1 << 25  # scores held at once while ranking the whole catalogue: 128 MiB of float32
BLOCK_ROWS = 1024  # and users at once, however small the catalogue
TOP_SCORES = 1 << 17  # among which the best are sought at once: half a MiB, which a core's cache holds
GROUPS = 4  # of scores for each of the best that are sought; a group has as many scores at least
LEAST = np.finfo(np.float32).min


@dataclass(frozen=True, slots=True, eq=False)
class Requests:
    """What a batch of users asks for; row ``u`` of every array belongs to one user."""

    histories: Histories  # U rows
    allowed: NDArray[np.bool_]  # (I,) items that may be returned at all
    exclude_seen: bool = True  # leave out the items of a row's own history
    queries: Queries | None = None  # U free-text queries

    def __post_init__(self) -> None:
        if self.queries is not None and len(self.queries) != len(self.histories):
            raise InputError(
                f"Requests: {len(self.queries)} queries for {len(self.histories)} users; give one query to each."
            )

    def __len__(self) -> int:
        return len(self.histories)

    def take(self, rows: NDArray[np.int64]) -> Requests:
        """These rows, in this order."""
        queries = None if self.queries is None else self.queries.take(rows)
        return Requests(self.histories.take(rows), self.allowed, self.exclude_seen, queries)

    def blocks(self) -> Iterator[tuple[slice, Requests]]:
        """The requests in blocks of bounded memory."""
        size = min(BLOCK_ROWS, max(1, BLOCK_SCORES // max(1, len(self.allowed))))
        if 0 < len(self) <= size:
            yield slice(0, len(self)), self
            return
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            yield slice(start, stop), self.take(np.arange(start, stop))

    def bar(self, scores: NDArray[np.float32]) -> None:
        """Set the scores (U, I) of items that may not be returned to minus infinity, in place."""
        scores[:, ~self.allowed] = -np.inf
        if self.exclude_seen:
            scores[self.histories.rows, self.histories.items] = -np.inf


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Candidate items of a batch of requests; row ``u`` of every array belongs to request ``u``."""

    items: NDArray[np.int64]  # (U, K) best first, NO_ITEM once a row runs out
    scores: NDArray[np.float32]  # (U, K) comparable within one row only, -inf beside NO_ITEM
    by_source: NDArray[np.float32]  # (U, K, S) every source's own score of each item, -inf where it has none
    sources: tuple[str, ...]  # (S,) the sources' names

    def __post_init__(self) -> None:
        if self.items.shape != self.scores.shape or self.by_source.shape != (
            *self.items.shape,
            len(self.sources),
        ):
            raise InputError(
                f"Candidates: items {self.items.shape}, scores {self.scores.shape} and by_source "
                f"{self.by_source.shape} of {len(self.sources)} sources do not line up: each item needs one score "
                "and one from each source. Pad short rows with NO_ITEM and -inf."
            )

    @classmethod
    def of(cls, source: str, items: NDArray[np.int64], scores: NDArray[np.float32]) -> Candidates:
        """The candidates of a single source."""
        return cls(items, scores, scores[:, :, None], (source,))

    @classmethod
    def joined(cls, parts: Sequence[Candidates]) -> Candidates:
        """Candidates of several batches, all of the same width and sources, as one."""
        return cls(
            np.concatenate([part.items for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.by_source for part in parts]),
            parts[0].sources,
        )

    def __len__(self) -> int:
        return len(self.items)

    def take(self, rows: NDArray[np.int64]) -> Candidates:
        """These rows, in this order."""
        return Candidates(self.items[rows], self.scores[rows], self.by_source[rows], self.sources)

    def head(self, k: int) -> Candidates:
        """The best ``k`` of each row."""
        return Candidates(self.items[:, :k], self.scores[:, :k], self.by_source[:, :k], self.sources)

    def at(self, places: NDArray[np.int64]) -> Candidates:
        """The candidates at these places (U, k) of their rows, in this order."""
        return Candidates(
            np.take_along_axis(self.items, places, axis=1),
            np.take_along_axis(self.scores, places, axis=1),
            np.take_along_axis(self.by_source, places[:, :, None], axis=1),
            self.sources,
        )

    def reordered(self, scores: NDArray[np.float32]) -> Candidates:
        """The same items under new scores (U, K), best first; equal scores put the lower item first."""
        scores = np.where(self.items == NO_ITEM, -np.inf, scores).astype(np.float32)
        order = np.lexsort((self.items, -scores), axis=1)
        return Candidates(self.items, scores, self.by_source, self.sources).at(order)


class Retriever(Protocol):
    """A source of candidates. A batch equals its rows one by one, and inputs are left unchanged."""

    @property
    def n_items(self) -> int:
        """Size of the catalogue that it covers."""
        ...

    def retrieve(self, requests: Requests, k: int) -> Candidates:
        """At most ``k`` items for each request, best first."""
        ...

    def score(self, requests: Requests, items: NDArray[np.int64]) -> NDArray[np.float32]:
        """This source's score of given items (U, K); -inf where it has nothing to say, and beside NO_ITEM."""
        ...


class Source(Retriever, Protocol):
    """A retriever that is trained and kept on disk."""

    def save(self, folder: Path) -> None:
        """Write what was trained into this empty folder."""
        ...


@runtime_checkable
class TasteSource(Source, Protocol):
    """A source that can tell what users come back for, and not only what comes next."""

    def lasting(self) -> Source:
        """The same source as it tells that best: where it knows of taste, every event of a history counts the same."""
        ...


def rank_all(
    source: str, requests: Requests, k: int, score_block: Callable[[Requests], NDArray[np.float32]]
) -> Candidates:
    """Candidates of a source that scores the whole catalogue, a block of requests at a time.

    Args:
        source: The source's name.
        requests: U requests.
        k: How many items each request gets at most.
        score_block: Scores (U, I) of every item for a block of requests, in an array that may be changed.
    """
    items = np.full((len(requests), k), NO_ITEM, np.int64)
    scores = np.full((len(requests), k), -np.inf, np.float32)
    for rows, block in requests.blocks():
        block_scores = score_block(block)
        block.bar(block_scores)
        items[rows], scores[rows] = top_k(block_scores, k)
    return Candidates.of(source, items, scores)


def top_k(scores: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The best ``k`` columns of each row of ``scores`` (U, I): positions and scores, both (U, k).

    Equal scores put the lower position first; columns of minus infinity are never returned (NO_ITEM, -inf).
    """
    items = np.full((len(scores), k), NO_ITEM, np.int64)
    best = np.full((len(scores), k), -np.inf, np.float32)
    step = max(1, TOP_SCORES // max(1, scores.shape[1]))
    for start in range(0, len(scores), step):
        part = scores[start : start + step]
        reached = np.flatnonzero(part >= _reached_by(part, k))  # flat, for which NumPy has a quicker way
        rows, places = np.divmod(reached, scores.shape[1])
        known = part.ravel()[reached]
        order = np.lexsort((-known, rows))
        ranks = np.arange(len(rows)) - np.searchsorted(rows, np.arange(len(part)))[rows]
        kept = ranks < k
        at, ranks, order = start + rows[kept], ranks[kept], order[kept]
        items[at, ranks], best[at, ranks] = places[order], known[order]
    return items, best


def _reached_by(scores: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """Of each row (U, I) a score that at least ``k`` reach, if so many are above minus infinity, and hardly more do.

    Of disjoint groups, several times k, the k best maxima are k scores of different items; the least of these is found
    in a quarter of the time that it takes to partition all scores.
    """
    n_rows, n_items = scores.shape
    groups = GROUPS * k
    if not 0 < k < n_items:
        return np.full((n_rows, 1), LEAST)
    if n_items < GROUPS * groups:
        maxima = scores.copy()
    else:
        maxima = scores[:, : n_items // groups * groups].reshape(n_rows, -1, groups).max(axis=1)
    maxima.partition(maxima.shape[1] - k, axis=1)
    reached: NDArray[np.float32] = np.maximum(maxima[:, -k, None], LEAST)
    return reached
