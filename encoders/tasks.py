"""Tasks: real texts with known relevance, on which an exported model is compared with its original."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from encoders.errors import InputError

NDCG_CUTOFF = 10
BLOCK_ROWS = 512  # queries scored at once: bounds the score matrix


@dataclass(frozen=True, slots=True, eq=False)
class RetrievalTask:
    """Queries, documents, and which documents each query should find.

    A document whose text equals the query's is neither relevant nor in the way: it is not counted.

    Attributes:
        queries: Q texts.
        documents: D texts.
        relevant: (Q, D) boolean CSR.

    Raises:
        InputError: the shapes do not line up, or a query has no relevant document.
    """

    queries: tuple[str, ...]
    documents: tuple[str, ...]
    relevant: sparse.csr_array
    same_text: sparse.csr_array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        shape = (len(self.queries), len(self.documents))
        if self.relevant.shape != shape:
            raise InputError(
                f"RetrievalTask: relevant is {self.relevant.shape}, but there are {shape[0]} queries and "
                f"{shape[1]} documents: it needs one row per query and one column per document."
            )
        if not self.queries:
            raise InputError("RetrievalTask: there are no queries, so nothing can be judged.")
        places: dict[str, list[int]] = {}
        for column, text in enumerate(self.documents):
            places.setdefault(text, []).append(column)
        hits = [places.get(text, []) for text in self.queries]
        pointers = np.cumsum([0, *(len(columns) for columns in hits)])
        columns = np.array([column for row in hits for column in row], dtype=np.int64)
        same = sparse.csr_array((np.ones(len(columns), dtype=bool), columns, pointers), shape=shape)
        relevant = self.relevant.astype(bool)
        counted = sparse.csr_array(relevant.astype(np.int8) - relevant.multiply(same).astype(np.int8))
        counted.eliminate_zeros()
        counted.sort_indices()
        empty = np.flatnonzero(np.diff(counted.indptr) == 0)
        if len(empty):
            raise InputError(
                f"RetrievalTask: {len(empty)} of {shape[0]} queries have no relevant document with another "
                f"text (query {empty[0]} the first): leave them out."
            )
        object.__setattr__(self, "relevant", counted)
        object.__setattr__(self, "same_text", same)

    def search(self, queries: NDArray[np.float32], documents: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """Find each query's k nearest documents by inner product, best first; a tie goes to the lower place.

        Args:
            queries: (Q, dim) vectors.
            documents: (D, dim) vectors.
            k: how many; at most D.

        Returns:
            (Q, k) places of documents, those with the query's own text left out.
        """
        found = np.empty((len(queries), k), dtype=np.int64)
        for start in range(0, len(queries), BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, len(queries))
            scores = queries[start:stop] @ documents.T
            own = self.same_text[start:stop].tocoo()
            scores[own.row, own.col] = -np.inf
            found[start:stop] = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return found

    def recall(self, found: NDArray[np.int64]) -> NDArray[np.float64]:
        """Share of each query's relevant documents among its found ones, of those that could fit: (Q,)."""
        totals = np.diff(self.relevant.indptr)
        return np.asarray(self._gains(found).sum(1) / np.minimum(totals, found.shape[1]))

    def ndcg(self, found: NDArray[np.int64]) -> NDArray[np.float64]:
        """NDCG of each query's found documents with binary gains (Järvelin and Kekäläinen, 2002): (Q,)."""
        return _ndcg(self._gains(found), np.diff(self.relevant.indptr))

    def _gains(self, found: NDArray[np.int64]) -> NDArray[np.float64]:
        rows = np.repeat(np.arange(len(found)), found.shape[1])
        return np.asarray(self.relevant[rows, found.ravel()], dtype=np.float64).reshape(found.shape)


@dataclass(frozen=True, slots=True, eq=False)
class RankingTask:
    """Lists of text pairs to be ranked, and which pairs of each list are relevant.

    Attributes:
        lists: N lists of (first text, second text) pairs.
        relevant: N boolean arrays, one entry per pair of the list.

    Raises:
        InputError: the lengths do not line up, or a list has no relevant pair or only one pair.
    """

    lists: tuple[tuple[tuple[str, str], ...], ...]
    relevant: tuple[NDArray[np.bool_], ...]

    def __post_init__(self) -> None:
        if len(self.lists) != len(self.relevant) or not self.lists:
            raise InputError(
                f"RankingTask: {len(self.lists)} lists and {len(self.relevant)} arrays of relevance: "
                "each list needs one."
            )
        for place, (pairs, relevant) in enumerate(zip(self.lists, self.relevant, strict=True)):
            if relevant.shape != (len(pairs),):
                raise InputError(
                    f"RankingTask: list {place} has {len(pairs)} pairs but relevance of shape {relevant.shape}."
                )
            if len(pairs) < 2 or not relevant.any():
                raise InputError(
                    f"RankingTask: list {place} has {len(pairs)} pairs, {int(relevant.sum())} of them "
                    "relevant; it needs two pairs and one relevant: leave it out."
                )

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """All pairs, list after list."""
        return [pair for pairs in self.lists for pair in pairs]

    def split(self, scores: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Cut scores of `pairs` into one array per list."""
        return np.split(scores, np.cumsum([len(pairs) for pairs in self.lists])[:-1])

    def ndcg(self, scores: NDArray[np.float32]) -> NDArray[np.float64]:
        """NDCG@10 of each list when it is sorted by score; a tie goes to the lower place.

        Args:
            scores: of `pairs`.

        Returns:
            (N,) values.
        """
        values = []
        for relevant, list_scores in zip(self.relevant, self.split(scores), strict=True):
            order = np.argsort(-list_scores, kind="stable")[:NDCG_CUTOFF]
            gains = relevant[order].astype(np.float64)[None]
            values.append(_ndcg(gains, np.array([relevant.sum()]))[0])
        return np.array(values)


def _ndcg(gains: NDArray[np.float64], totals: NDArray[np.int64]) -> NDArray[np.float64]:
    discounts = 1 / np.log2(np.arange(2, gains.shape[1] + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(totals, gains.shape[1])]
    return np.asarray(gains @ discounts / ideal)
