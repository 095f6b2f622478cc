"""Collaborative candidates: implicit-feedback ALS whose user vectors are always folded in from the history."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from implicit.recommender_base import ModelFitError
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from scipy import sparse

from encoders.errors import ArtifactError, InputError
from retrieval.candidates import NO_ITEM, Candidates, Requests, rank_all
from retrieval.cold_start import factors_from_texts
from retrieval.histories import Histories
from retrieval.products import every_product, inner_products, one_blas_thread
from retrieval.storage import load_array, load_settings, save_settings

TOGETHER = 64  # users who are folded in at once: of near as many items each, as they are taken in that order
ONE_THREAD = 2**18  # multiplications up to which OpenBLAS leaves a product to the thread that asks for it


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class AlsConfig:
    """Settings of the ALS source.

    Attributes:
        factors: Length of a user's or item's vector.
        regularization: L2 penalty on both.
        alpha: How much an event adds to the confidence of 1 that every item has, per unit of weight.
        iterations: Passes over users and items.
        half_life: Events after which an older event counts half at fold-in (None: all count the same). Training
            always counts all the same.
        text_penalty: Ridge penalty of the map from texts to factors by which items that nobody took get theirs
            (``retrieval.cold_start``); None leaves them without, and they are never proposed.
    """

    factors: Annotated[int, Field(ge=1)] = 64
    regularization: Annotated[float, Field(gt=0)] = 10.0
    alpha: Annotated[float, Field(gt=0)] = 0.2
    iterations: Annotated[int, Field(ge=1)] = 15
    half_life: Annotated[float | None, Field(gt=0)] = 5.0
    text_penalty: Annotated[float | None, Field(gt=0)] = 30.0


class AlsRetriever:
    """Implicit-feedback matrix factorisation (Hu, Koren & Volinsky, ICDM 2008).

    No user vector is kept: a user's vector is solved for from their history when it is asked for, so that a known
    user, a new one and one whose last click is a moment old are the same case.

    Args:
        item_factors: (I, d).
        config: The settings that they were trained with.
    """

    def __init__(self, item_factors: NDArray[np.float32], config: AlsConfig) -> None:
        self.item_factors = item_factors
        self.config = config
        factors = item_factors.astype(np.float64)
        self._background = factors.T @ factors + config.regularization * np.eye(factors.shape[1])
        self._inverse = np.linalg.inv(self._background)
        self._unknown: NDArray[np.bool_] = ~np.any(item_factors, axis=1)

    @property
    def n_items(self) -> int:
        """Size of the catalogue."""
        return len(self.item_factors)

    @classmethod
    def fit(
        cls,
        histories: Histories,
        n_items: int,
        config: AlsConfig,
        seed: int,
        vectors: NDArray[np.float32] | None = None,
    ) -> AlsRetriever:
        """Train on users' positive events; an event of weight w has confidence 1 + alpha · w.

        Args:
            histories: Every user's.
            n_items: Size of the catalogue.
            config: The settings.
            seed: Of the factors to start from.
            vectors: (I, dim) the items' text vectors, from which items that nobody took get their factors.

        Raises:
            InputError: A weight is so great that the factors are no numbers.
        """
        liked = histories.liked()
        confidence = sparse.csr_matrix(liked.matrix(1 + config.alpha * liked.weights, n_items))
        with one_blas_thread():  # implicit runs its own threads; BLAS threads inside them are a slowdown
            model = AlternatingLeastSquares(
                factors=config.factors,
                regularization=config.regularization,
                alpha=1.0,  # the matrix holds confidences already
                iterations=config.iterations,
                random_state=seed,
            )
            try:
                model.fit(confidence, show_progress=False)
            except ModelFitError as error:
                raise InputError(
                    f"als: the factors are no numbers, with weights of events up to {liked.weights.max():g}. Give them "
                    "weights that are nearer to each other, or lower als.alpha."
                ) from error
        factors = np.ascontiguousarray(model.item_factors, np.float32)
        if vectors is not None and config.text_penalty is not None:
            counts = np.bincount(liked.items, minlength=n_items)
            factors = factors_from_texts(factors, vectors, counts, config.text_penalty)
        return cls(factors, config)

    def user_vectors(self, histories: Histories) -> NDArray[np.float32]:
        """Fold in: the vector (U, d) that minimises the ALS loss of each history with the item factors fixed.

        Solves ``(B + Σ (cᵢ - 1) yᵢyᵢᵀ) x = Σ cᵢ yᵢ`` with ``B = YᵀY + λI`` over a user's items, with ``cᵢ`` summed over
        repeated events and halved every ``half_life`` events. Where a user has fewer items than there are factors, a
        system of that size does: ``x = B⁻¹Yᵤᵀ (I + (C - I) Yᵤ B⁻¹ Yᵤᵀ)⁻¹ c``. A history without a positive event gives
        zeros.
        """
        liked = histories.liked()
        strength = (1 + self.config.alpha * liked.weights) * liked.recency(self.config.half_life)
        confidence = liked.matrix(strength, len(self.item_factors))
        found = np.zeros((len(liked), self.item_factors.shape[1]), np.float32)
        lengths = np.diff(confidence.indptr)
        few = np.flatnonzero((lengths > 0) & (lengths < found.shape[1]))
        few = few[np.argsort(lengths[few], kind="stable")]
        for rows in np.array_split(few, -(-len(few) // TOGETHER)) if len(few) else []:
            found[rows] = self._of_few(confidence, rows)
        for row in np.flatnonzero(lengths >= found.shape[1]):
            start, stop = confidence.indptr[row], confidence.indptr[row + 1]
            factors = self.item_factors[confidence.indices[start:stop]].astype(np.float64)
            c = confidence.data[start:stop].astype(np.float64)
            found[row] = np.linalg.solve(self._background + _weighted_gram(factors, c - 1), c @ factors)
        return found

    def _of_few(self, confidence: sparse.csr_array, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Vectors of users with fewer items than there are factors, filled up with items of no factors to the most."""
        lengths = np.diff(confidence.indptr)[rows]
        filled = np.arange(lengths.max()) < lengths[:, None]
        at = (confidence.indptr[rows][:, None] + np.arange(lengths.max()))[filled]
        c = np.zeros(filled.shape)
        c[filled] = confidence.data[at]
        factors = np.zeros((*filled.shape, self.item_factors.shape[1]))
        factors[filled] = self.item_factors[confidence.indices[at]]
        projected = factors @ self._inverse
        own = np.where(filled, c - 1, 0)[:, :, None] * (projected @ factors.transpose(0, 2, 1))
        own[:, np.arange(own.shape[1]), np.arange(own.shape[1])] += 1
        shares = np.linalg.solve(own, c[:, :, None])[:, :, 0]
        vectors: NDArray[np.float64] = (shares[:, None, :] @ projected)[:, 0]
        return vectors

    def retrieve(self, requests: Requests, k: int) -> Candidates:
        """At most ``k`` items for each request, best first; none for a user without a positive event.

        An item without a vector is never proposed: nobody took it, and its text was not given.
        """

        def score_block(block: Requests) -> NDArray[np.float32]:
            vectors = self.user_vectors(block.histories)
            scores = every_product(vectors, self.item_factors)
            scores[~vectors.any(axis=1)] = -np.inf
            scores[:, self._unknown] = -np.inf
            return scores

        return rank_all("als", requests, k, score_block)

    def score(self, requests: Requests, items: NDArray[np.int64]) -> NDArray[np.float32]:
        """The predicted preference of given items (U, K); -inf for a user or an item without a vector."""
        vectors = self.user_vectors(requests.histories)
        preferences = inner_products(vectors, self.item_factors, items)
        nothing = (items == NO_ITEM) | self._unknown[items] | ~vectors.any(axis=1, keepdims=True)
        return np.where(nothing, np.float32(-np.inf), preferences)

    def lasting(self) -> AlsRetriever:
        """The same factors, every event of a history counting the same."""
        return AlsRetriever(self.item_factors, replace(self.config, half_life=None))

    def save(self, folder: Path) -> None:
        """Write the factors and the settings into this empty folder."""
        np.save(folder / "item_factors.npy", self.item_factors)
        save_settings(self.config, folder / "config.json")

    @classmethod
    def load(cls, folder: Path) -> AlsRetriever:
        """Read what ``save`` wrote; the factors stay memory-mapped.

        Raises:
            ArtifactError: A file is missing, damaged, or the factors are not of the length that the settings say.
        """
        config = load_settings(AlsConfig, folder / "config.json")
        factors = load_array(folder / "item_factors.npy", np.float32, ndim=2)
        if factors.shape[1] != config.factors:
            raise ArtifactError(
                f"{folder / 'item_factors.npy'}: vectors of length {factors.shape[1]}, but the settings beside it "
                f"say {config.factors}. Save the engine again."
            )
        return cls(factors, config)


def _weighted_gram(factors: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """``Σ wᵢ yᵢyᵢᵀ`` of factors (n, d), a few at a time.

    The BLAS spreads a larger product over threads that wait for one another: where the cores are busy with something
    else, far longer than the product takes.
    """
    weighted = factors * weights[:, None]
    together = max(1, ONE_THREAD // factors.shape[1] ** 2)
    gram = np.zeros((factors.shape[1], factors.shape[1]))
    for start in range(0, len(factors), together):
        gram += weighted[start : start + together].T @ factors[start : start + together]
    return gram
