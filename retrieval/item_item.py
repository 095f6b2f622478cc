"""What sources that weigh items against items share: what a user's past items say of all the others, added up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from scipy import sparse

from retrieval.candidates import NO_ITEM, Candidates, Requests, rank_all
from retrieval.histories import Histories

ItemWeights: TypeAlias = NDArray[np.float32] | sparse.csr_array

BLOCK_ITEMS = 1024  # rows of an item-item matrix that are made at once


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ItemItemConfig:
    """How a history is read; every item-item source has these settings.

    Attributes:
        half_life: Newer events after which an event counts half when a user is scored (None: all count the same).
            Training counts all the same.
        weighted: Let a stronger event say more: an event counts as much as it weighs, not 1.
    """

    half_life: Annotated[float | None, Field(gt=0)] = 5.0
    weighted: bool = False


class ItemItemRetriever:
    """Scores ``x W``: x is a user's recency-weighted row of items, W holds what each item says of the others.

    Nothing is kept of users, so an event counts in the request after it. An item that occurs repeatedly in a history
    adds up.

    Args:
        weights: (I, I), row → column, the diagonal zero. Sparse ones are positive, and what they leave out is 0.
        config: How a history is read.
    """

    name: ClassVar[str]

    def __init__(self, weights: ItemWeights, config: ItemItemConfig) -> None:
        self.weights = weights
        self._reading = config
        self._untaken: NDArray[np.bool_] | None = None
        if isinstance(weights, sparse.csr_array):
            leads_nowhere = np.diff(weights.indptr) == 0
            self._untaken = leads_nowhere & (np.bincount(weights.indices, minlength=weights.shape[0]) == 0)

    @property
    def n_items(self) -> int:
        """Size of the catalogue."""
        return int(self.weights.shape[0])

    def retrieve(self, requests: Requests, k: int) -> Candidates:
        """At most ``k`` items for each request, best first; none for a user without a positive event.

        Sparse weights propose only what they reach from the user's items: a score of 0 is no reason to propose one.
        """

        def score_block(block: Requests) -> NDArray[np.float32]:
            scores = self._scores(block.histories)
            if sparse.issparse(self.weights):
                scores[scores <= 0] = -np.inf
            return scores

        return rank_all(self.name, requests, k, score_block)

    def score(self, requests: Requests, items: NDArray[np.int64]) -> NDArray[np.float32]:
        """The score of given items (U, K); -inf for a user without a positive event, and for items nobody took.

        An item that sparse weights do not reach has score 0, not -inf: to be no neighbour of anything in the history
        counts against it. Of an item without any weight nothing is known, so nothing is said.
        """
        scores = np.empty(items.shape, np.float32)
        for rows, block in requests.blocks():
            scores[rows] = self._scores(block.histories, items[rows])
        return np.where(items == NO_ITEM, np.float32(-np.inf), scores)

    def _scores(self, histories: Histories, items: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """The score of given items (U, K), or of all (U, I); a row of -inf where a history has no positive event."""
        liked = histories.liked()
        strength = liked.recency(self._reading.half_life)
        if self._reading.weighted:
            strength = strength * liked.weights
        product = liked.matrix(strength, self.n_items) @ self.weights
        scores: NDArray[np.float32] = product.toarray() if sparse.issparse(product) else product
        if items is not None:
            scores = np.take_along_axis(scores, items, axis=1)
        scores[liked.lengths == 0] = -np.inf
        if self._untaken is None:  # of all weights, which may be too many to read, a 0 says that none leads there
            scores[scores == 0] = -np.inf
        else:
            np.copyto(scores, -np.inf, where=self._untaken if items is None else self._untaken[items])
        return scores


def binary(histories: Histories, n_items: int) -> sparse.csr_array:
    """Users × items, float64: 1 where a user liked an item, however often."""
    liked = histories.liked()
    matrix = liked.matrix(np.ones(len(liked.items), np.float32), n_items).astype(np.float64)
    matrix.data[:] = 1
    return matrix


def shrunk(count: NDArray[np.float64], shrinkage: float) -> NDArray[np.float64]:
    """How much a similarity that rests on ``count`` observations is worth, 0 to 1 (Bell & Koren, ICDM 2007)."""
    return count / (count + shrinkage)


def strongest_by_block(
    n_items: int, neighbours: int, block_weights: Callable[[slice], sparse.csr_array]
) -> sparse.csr_array:
    """The strongest weights of each item, (I, I) with at most ``neighbours`` in a row, all above 0, no diagonal.

    Args:
        n_items: I.
        neighbours: Weights that each row keeps at most; of equal ones, those of lower items.
        block_weights: The rows of a slice of items, (B, I). They may hold what is not kept, and only one block is held
            at a time.
    """
    kept = []
    for start in range(0, n_items, BLOCK_ITEMS):
        rows = slice(start, min(start + BLOCK_ITEMS, n_items))
        kept.append(_strongest(block_weights(rows), start, neighbours))
    stacked = sparse.vstack(kept, format="csr") if kept else sparse.csr_array((0, 0))
    weights: sparse.csr_array = sparse.csr_array(stacked).astype(np.float32)
    return weights


def _strongest(block: sparse.csr_array, start: int, neighbours: int) -> sparse.csr_array:
    block.sort_indices()
    # as float32, in which they are kept, so that what rounds to 0 goes
    values = block.data.astype(np.float32)
    rows = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
    keep = (values > 0) & (block.indices != rows + start)
    values, columns, rows = values[keep], block.indices[keep], rows[keep]
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(rows, minlength=block.shape[0]))])
    keep = np.ones(len(values), np.bool_)
    for row in np.flatnonzero(np.diff(indptr) > neighbours):
        of_row = slice(indptr[row], indptr[row + 1])
        keep[indptr[row] + np.argsort(-values[of_row], kind="stable")[neighbours:]] = False
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(keep)])[indptr]
    return sparse.csr_array((values[keep], columns[keep], indptr), shape=block.shape)
