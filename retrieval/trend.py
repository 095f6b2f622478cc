"""Candidates that are popular of late."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.candidates import NO_ITEM, Candidates, Requests
from retrieval.histories import Histories
from retrieval.popularity import PopularityConfig, PopularityRetriever


class TrendRetriever:
    """Popularity with a short half-life, for users of whom something is known.

    To a user without a positive event it says nothing: what is popular of all time serves them better, and one source
    of popularity could not have a half-life for each of the two.

    Args:
        recent: The popularity of late.
    """

    def __init__(self, recent: PopularityRetriever) -> None:
        self.recent = recent

    @property
    def n_items(self) -> int:
        """Size of the catalogue."""
        return self.recent.n_items

    @classmethod
    def fit(
        cls, histories: Histories, n_items: int, config: PopularityConfig, vectors: NDArray[np.float32] | None = None
    ) -> TrendRetriever:
        """Count as ``PopularityRetriever.fit`` does."""
        return cls(PopularityRetriever.fit(histories, n_items, config, vectors))

    def retrieve(self, requests: Requests, k: int) -> Candidates:
        """At most ``k`` items for each request, most popular first; none for a user without a positive event."""
        items = self.recent.retrieve(requests, k).items
        items[_strangers(requests)] = NO_ITEM
        return Candidates.of("trend", items, self.score(requests, items))

    def score(self, requests: Requests, items: NDArray[np.int64]) -> NDArray[np.float32]:
        """The popularity of given items (U, K); -inf for a user without a positive event."""
        return np.where(_strangers(requests)[:, None], np.float32(-np.inf), self.recent.score(requests, items))

    def lasting(self) -> TrendRetriever:
        """Itself: it reads no history."""
        return self

    def save(self, folder: Path) -> None:
        """Write the scores into this empty folder."""
        self.recent.save(folder)

    @classmethod
    def load(cls, folder: Path) -> TrendRetriever:
        """Read what ``save`` wrote.

        Raises:
            ArtifactError: The file is missing or damaged.
        """
        return cls(PopularityRetriever.load(folder))


def _strangers(requests: Requests) -> NDArray[np.bool_]:
    """Whether nothing is known of a request's user, (U,)."""
    strangers: NDArray[np.bool_] = requests.histories.liked().lengths == 0
    return strangers
