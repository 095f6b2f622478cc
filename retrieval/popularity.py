"""Popular candidates: the answer for a user nobody knows yet, and a prior for everybody else."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from retrieval.candidates import NO_ITEM, Candidates, Requests
from retrieval.cold_start import factors_from_texts
from retrieval.histories import Histories
from retrieval.storage import load_array

MICROSECONDS_PER_DAY = 24 * 60 * 60 * 1_000_000


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PopularityConfig:
    """Settings of the popularity source.

    Attributes:
        half_life_days: Days, back from the newest event, after which an event counts half (None: all count the same).
        per_user: A user's first positive events, so many of them, are counted (None: all). Those are what somebody new
            is likely to take, and who takes much does not speak for many.
        text_penalty: Ridge penalty of the map from texts by which items that nobody took get an expected popularity
            (``retrieval.cold_start``); None leaves it at 0.
    """

    half_life_days: Annotated[float | None, Field(gt=0)] = None
    per_user: Annotated[int | None, Field(ge=1)] = None
    text_penalty: Annotated[float | None, Field(gt=0)] = 30.0


class PopularityRetriever:
    """Items by the logarithm of how many positive events they had, the same for every user.

    Args:
        item_scores: (I,), higher is more popular.
    """

    def __init__(self, item_scores: NDArray[np.float32]) -> None:
        self.item_scores = item_scores

    @property
    def n_items(self) -> int:
        """Size of the catalogue."""
        return len(self.item_scores)

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        """Items with a score, most popular first; equal ones by position."""
        order = np.argsort(-self.item_scores, kind="stable")
        return order[self.item_scores[order] > -np.inf]

    @classmethod
    def fit(
        cls,
        histories: Histories,
        n_items: int,
        config: PopularityConfig,
        vectors: NDArray[np.float32] | None = None,
    ) -> PopularityRetriever:
        """Count the positive events of each item, newer ones more.

        Args:
            histories: Every user's.
            n_items: Size of the catalogue.
            config: The settings.
            vectors: (I, dim) the items' text vectors, which tell what to expect of items that nobody took.
        """
        liked = histories.liked()
        if config.per_user is not None:
            ends = np.minimum(liked.indptr[:-1] + config.per_user, liked.indptr[1:])
            liked = liked.up_to(np.arange(len(liked)), ends)
        counts = np.ones(len(liked.items))
        if config.half_life_days is not None and len(counts):
            counts = np.exp2((liked.times - liked.times.max()) / (config.half_life_days * MICROSECONDS_PER_DAY))
        scores = np.log1p(np.bincount(liked.items, counts, n_items)).astype(np.float32)
        if vectors is not None and config.text_penalty is not None:
            events = np.bincount(liked.items, minlength=n_items)
            scores = factors_from_texts(scores[:, None], vectors, events, config.text_penalty)[:, 0]
        return cls(scores)

    def retrieve(self, requests: Requests, k: int) -> Candidates:
        """At most ``k`` items for each request, most popular first."""
        items = np.full((len(requests), k), NO_ITEM, np.int64)
        allowed = self._order[requests.allowed[self._order]]
        place = np.full(self.n_items, NO_ITEM)
        place[allowed] = np.arange(len(allowed))
        for rows, block in requests.blocks():
            # whatever a user had, so many hold k others: nobody's list reaches further
            longest = int(block.histories.lengths.max(initial=0)) if block.exclude_seen else 0
            best = allowed[: k + longest]
            fresh = np.ones((len(block), len(best)), np.bool_)
            if block.exclude_seen:
                had = place[block.histories.items]
                among = (had != NO_ITEM) & (had < len(best))
                fresh[block.histories.rows[among], had[among]] = False
            ranks = np.cumsum(fresh, axis=1) - 1
            users, places = np.nonzero(fresh & (ranks < k))
            items[rows][users, ranks[users, places]] = best[places]
        return Candidates.of("popularity", items, self.score(requests, items))

    def score(self, requests: Requests, items: NDArray[np.int64]) -> NDArray[np.float32]:
        """The popularity of given items (U, K)."""
        return np.where(items == NO_ITEM, np.float32(-np.inf), self.item_scores[items])

    def lasting(self) -> PopularityRetriever:
        """Itself: it reads no history."""
        return self

    def save(self, folder: Path) -> None:
        """Write the scores into this empty folder."""
        np.save(folder / "item_scores.npy", self.item_scores)

    @classmethod
    def load(cls, folder: Path) -> PopularityRetriever:
        """Read what ``save`` wrote.

        Raises:
            ArtifactError: The file is missing or damaged.
        """
        return cls(load_array(folder / "item_scores.npy", np.float32, ndim=1))
