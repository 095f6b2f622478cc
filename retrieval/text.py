"""Text candidates: FAISS search over item text vectors, by what a user liked or by a free-text query."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import faiss
import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from encoders.errors import ArtifactError, InputError
from retrieval.candidates import NO_ITEM, Candidates, Requests, inner_products, top_k
from retrieval.index import IndexConfig, IndexReport, build_index
from retrieval.storage import load_array, load_settings, save_settings

# Share of the catalogue below which the allowed items are compared one by one: an approximate index walks past so
# many others that it returns few of them (a fifth, of 20 in 20,000), and an exact one spends its time on the others.
NARROW = 0.05


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
        vectors: Unit vectors (I, dim) of the items' texts.
        index: A FAISS index over the same vectors.
        report: What was measured when the index was built.
        config: The settings that it was built with.
    """

    def __init__(
        self, vectors: NDArray[np.float32], index: faiss.Index, report: IndexReport, config: TextConfig
    ) -> None:
        self.vectors = vectors
        self.index = index
        self.report = report
        self.config = config

    @property
    def n_items(self) -> int:
        """Size of the catalogue."""
        return len(self.vectors)

    @classmethod
    def fit(cls, vectors: NDArray[np.float32], config: TextConfig, seed: int) -> TextRetriever:
        """Build the index over unit vectors (I, dim)."""
        index, report = build_index(vectors, config.index, seed)
        return cls(vectors, index, report, config)

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
        seen = int(requests.histories.lengths.max(initial=0)) if requests.exclude_seen else 0
        depth = min(k + seen, len(self.vectors))  # so that k are left when what was seen is taken out
        distances, found = self._nearest(vectors, depth, requests.allowed)
        scores = np.where(found == NO_ITEM, -np.inf, distances).astype(np.float32)
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

    def _nearest(
        self, vectors: NDArray[np.float32], depth: int, allowed: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Inner products and items (U, depth), within the allowed ones, at the index's own effort."""
        if allowed.all():
            return self.index.search(vectors, depth)  # type: ignore[no-any-return]
        if allowed.mean() < NARROW:
            within = np.flatnonzero(allowed)
            places, products = top_k(vectors @ self.vectors[within].T, depth)
            return products, np.where(places == NO_ITEM, NO_ITEM, within[places] if len(within) else NO_ITEM)
        selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        # FAISS sets the effort back to its default where a selector comes without one
        if self.report.kind == "hnsw":
            parameters = faiss.SearchParametersHNSW(sel=selector, efSearch=self.index.hnsw.efSearch)
        elif self.report.kind == "ivf":
            parameters = faiss.SearchParametersIVF(sel=selector, nprobe=self.index.nprobe)
        else:
            parameters = faiss.SearchParameters(sel=selector)
        return self.index.search(vectors, depth, params=parameters)  # type: ignore[no-any-return]

    def score(self, requests: Requests, items: NDArray[np.int64]) -> NDArray[np.float32]:
        """The cosine of given items (U, K); -inf for a request without a query or a positive event."""
        vectors = self.request_vectors(requests)
        cosines = inner_products(vectors, self.vectors, items)
        nothing = (items == NO_ITEM) | ~vectors.any(axis=1, keepdims=True)
        return np.where(nothing, np.float32(-np.inf), cosines)

    def lasting(self) -> TextRetriever:
        """The same index, every event counting the same in a profile."""
        return TextRetriever(self.vectors, self.index, self.report, replace(self.config, half_life=None))

    def save(self, folder: Path) -> None:
        """Write the vectors, the settings, and the index where it is more than the vectors themselves."""
        np.save(folder / "vectors.npy", self.vectors)
        save_settings(self.config, folder / "config.json")
        save_settings(self.report, folder / "index.json")
        if self.report.kind != "flat":
            faiss.write_index(self.index, str(folder / "index.faiss"))

    @classmethod
    def load(cls, folder: Path) -> TextRetriever:
        """Read what ``save`` wrote; the vectors stay memory-mapped.

        Raises:
            ArtifactError: A file is missing or damaged, or index and vectors do not belong together.
        """
        config = load_settings(TextConfig, folder / "config.json")
        report = load_settings(IndexReport, folder / "index.json")
        vectors = load_array(folder / "vectors.npy", np.float32, ndim=2)
        if report.kind == "flat":
            index: faiss.Index = faiss.IndexFlatIP(vectors.shape[1])
            index.add(np.ascontiguousarray(vectors))
        else:
            try:
                index = faiss.read_index(str(folder / "index.faiss"))
            except RuntimeError as error:
                raise ArtifactError(f"{folder / 'index.faiss'}: not a readable index ({error}).") from error
        if (index.ntotal, index.d) != vectors.shape:
            raise ArtifactError(
                f"{folder / 'index.faiss'}: an index over {index.ntotal} vectors of length {index.d}, but the vectors "
                f"beside it are {vectors.shape}. Save the engine again."
            )
        return cls(vectors, index, report, config)
