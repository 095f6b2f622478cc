"""Text candidates: FAISS search over item text vectors, by what a user liked or by a free-text query."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from encoders.errors import InputError
from retrieval.candidates import NO_ITEM, Candidates, Requests
from retrieval.index import IndexConfig, VectorIndex
from retrieval.products import inner_products
from retrieval.storage import load_settings, save_settings


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TextConfig:
    """Settings of the text source.

    Attributes:
        half_life: Events after which an older event counts half in a user's profile (None: all count the same).
        index: Settings of the vector index.
    """

    half_life: Annotated[float | None, Field(gt=0)] = 1.0
    index: IndexConfig = IndexConfig()


class TextRetriever:
    """Nearest items to a request's query vector, or else to the recency-weighted mean of its liked items' vectors.

    Args:
        index: Of the items' text vectors.
        config: The settings that it was built with.
    """

    def __init__(self, index: VectorIndex, config: TextConfig) -> None:
        self.index = index
        self.config = config

    @property
    def vectors(self) -> NDArray[np.float32]:
        """Unit vectors (I, dim) of the items' texts."""
        return self.index.vectors

    @property
    def n_items(self) -> int:
        """Size of the catalogue."""
        return len(self.vectors)

    @classmethod
    def fit(cls, vectors: NDArray[np.float32], config: TextConfig, seed: int) -> TextRetriever:
        """Build the index over unit vectors (I, dim)."""
        return cls(VectorIndex.build(vectors, config.index, seed), config)

    def request_vectors(self, requests: Requests) -> NDArray[np.float32]:
        """What each request is searched with, (U, dim): its query, else its profile; zeros where it has neither."""
        if requests.queries is not None:
            queries = requests.queries.vectors
            if queries.shape[1] != self.vectors.shape[1]:
                raise InputError(
                    f"Query vectors have length {queries.shape[1]}, item vectors {self.vectors.shape[1]}: "
                    "encode queries with the encoder that read the items."
                )
            return queries
        liked = requests.histories.liked()
        weights = liked.matrix(liked.weights * liked.recency(self.config.half_life), len(self.vectors))
        profiles = np.asarray(weights @ self.vectors, np.float32)
        norms = np.linalg.norm(profiles, axis=1, keepdims=True)
        units: NDArray[np.float32] = np.divide(profiles, norms, out=np.zeros_like(profiles), where=norms > 0)
        return units

    def retrieve(self, requests: Requests, k: int) -> Candidates:
        """At most ``k`` items for each request, nearest first; none without a query or a positive event."""
        items = np.full((len(requests), k), NO_ITEM, np.int64)
        scores = np.full((len(requests), k), -np.inf, np.float32)
        for rows, block in requests.blocks():
            items[rows], scores[rows] = self._search(block, k)
        return Candidates.of("text", items, scores)

    def _search(self, requests: Requests, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        vectors = self.request_vectors(requests)
        depths = self._depths(requests, k)
        found = np.full((len(requests), depths.max(initial=0)), NO_ITEM, np.int64)
        scores = np.full(found.shape, -np.inf, np.float32)
        for depth in np.unique(depths):
            rows = np.flatnonzero(depths == depth)
            found[rows, :depth], scores[rows, :depth] = self.index.search(vectors[rows], int(depth), requests.allowed)
        scores[~vectors.any(axis=1)] = -np.inf
        if requests.exclude_seen:
            histories = requests.histories
            for row in range(len(requests)):
                events = histories.items[histories.indptr[row] : histories.indptr[row + 1]]
                scores[row, np.isin(found[row], events)] = -np.inf
        found = np.where(np.isneginf(scores), NO_ITEM, found)
        order = np.lexsort((found, -scores), axis=1)[:, :k]
        pad = ((0, 0), (0, k - order.shape[1]))
        return (
            np.pad(np.take_along_axis(found, order, axis=1), pad, constant_values=NO_ITEM),
            np.pad(np.take_along_axis(scores, order, axis=1), pad, constant_values=-np.inf),
        )

    def _depths(self, requests: Requests, k: int) -> NDArray[np.int64]:
        """How many items to search for, (U,), so that k are left when what was seen is taken out.

        By powers of two, for few searches; never by the longest history of a batch, since an approximate index finds
        others when it is asked for more.
        """
        if not requests.exclude_seen:
            return np.full(len(requests), min(k, self.n_items))
        seen = np.exp2(np.ceil(np.log2(np.maximum(requests.histories.lengths, 1)))).astype(np.int64)
        return np.minimum(k + seen, self.n_items)

    def score(self, requests: Requests, items: NDArray[np.int64]) -> NDArray[np.float32]:
        """The cosine of given items (U, K); -inf for a request without a query or a positive event."""
        vectors = self.request_vectors(requests)
        cosines = inner_products(vectors, self.vectors, items)
        nothing = (items == NO_ITEM) | ~vectors.any(axis=1, keepdims=True)
        return np.where(nothing, np.float32(-np.inf), cosines)

    def lasting(self) -> TextRetriever:
        """The same index, every event counting the same in a profile."""
        return TextRetriever(self.index, replace(self.config, half_life=None))

    def save(self, folder: Path) -> None:
        """Write the settings and the index."""
        save_settings(self.config, folder / "config.json")
        self.index.save(folder)

    @classmethod
    def load(cls, folder: Path) -> TextRetriever:
        """Read what ``save`` wrote; the vectors stay memory-mapped.

        Raises:
            ArtifactError: A file is missing or damaged, or index and vectors do not belong together.
        """
        return cls(VectorIndex.load(folder), load_settings(TextConfig, folder / "config.json"))
