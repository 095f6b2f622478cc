"""Peers of the library ``implicit``, which run in this process."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from implicit.cpu.bpr import BayesianPersonalizedRanking
from implicit.nearest_neighbours import BM25Recommender, CosineRecommender, TFIDFRecommender
from implicit.utils import ParameterWarning
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from bench.peers.ranked import Ranked
from retrieval.candidates import NO_ITEM
from retrieval.histories import Histories
from retrieval.ids import UNKNOWN

NEIGHBOURS = {"cosine": CosineRecommender, "tf-idf": TFIDFRecommender, "bm25": BM25Recommender}
Found = tuple[NDArray[np.int32], NDArray[np.float32]]  # items and scores


def als(train: sparse.csr_matrix, settings: Mapping[str, Any], seed: int) -> Callable[..., Found]:
    """Alternating least squares, which folds in whatever history is asked for."""
    model = AlternatingLeastSquares(**settings, random_state=seed)
    model.fit(train, show_progress=False)

    def rank(rows: NDArray[np.int64], histories: sparse.csr_matrix, k: int) -> Found:
        model.num_threads = 1
        found: Found = model.recommend(np.arange(histories.shape[0]), histories, N=k, recalculate_user=True)
        return found

    return rank


def bpr(train: sparse.csr_matrix, settings: Mapping[str, Any], seed: int) -> Callable[..., Found]:
    """Bayesian personalised ranking, which knows only the users that it was trained on, as they were then."""
    model = BayesianPersonalizedRanking(**settings, random_state=seed)
    model.fit(train, show_progress=False)

    def rank(rows: NDArray[np.int64], histories: sparse.csr_matrix, k: int) -> Found:
        model.num_threads = 1
        items = np.full((len(rows), k), NO_ITEM, np.int32)
        scores = np.full((len(rows), k), -np.inf, np.float32)
        known = np.flatnonzero(rows != UNKNOWN)
        items[known], scores[known] = model.recommend(rows[known], histories[known], N=k)
        return items, scores

    return rank


def neighbours(train: sparse.csr_matrix, settings: Mapping[str, Any], seed: int) -> Callable[..., Found]:
    """Item-item neighbours, summed over whatever history is asked for."""
    chosen = dict(settings)
    model = NEIGHBOURS[chosen.pop("similarity")](**chosen)
    model.fit(train, show_progress=False)

    def rank(rows: NDArray[np.int64], histories: sparse.csr_matrix, k: int) -> Found:
        items, scores = model.recommend(np.arange(histories.shape[0]), histories, N=k)
        return items, np.where(scores > 0, scores, -np.inf)  # zeros fill a list that has fewer neighbours

    return rank


MODELS = {"implicit ALS": als, "implicit BPR": bpr, "implicit item-kNN": neighbours}
WEIGHTED = {"implicit ALS"}  # they take how much an event weighs; the others take each item once


def ranked_inside(
    model: str,
    settings: Mapping[str, Any],
    train: Histories,
    rows: NDArray[np.int64],
    asked: Histories,
    n_items: int,
    k: int,
    seed: int,
) -> Ranked:
    """Fit a peer on a log and rank by other histories what they do not hold.

    Args:
        model: Its name, a key of ``MODELS``.
        settings: Of the model.
        train: Every user's history; positive events alone are given to it.
        rows: (L,) the user of each list, UNKNOWN for one who is not in train.
        asked: L histories to rank by.
        n_items: Size of the catalogue.
        k: Items for each.
        seed: Of everything random.
    """
    learned, read = (_matrix(histories, n_items, model in WEIGHTED) for histories in (train, asked))
    with threadpool_limits(1, "blas"), warnings.catch_warnings():  # implicit has threads of its own
        warnings.simplefilter("ignore", ParameterWarning)  # it converts what it made itself, and says so
        clock = time.perf_counter()
        rank = MODELS[model](learned, settings, seed)
        fit_s = time.perf_counter() - clock
        clock = time.perf_counter()
        with threadpool_limits(1):
            items, scores = rank(rows, read, k)
        rank_s = time.perf_counter() - clock
    empty = ~np.isfinite(scores) | (scores <= -np.finfo(np.float32).max) | (read.getnnz(axis=1) == 0)[:, None]
    return Ranked(np.where(empty, NO_ITEM, items).astype(np.int64), fit_s, rank_s)


def _matrix(histories: Histories, n_items: int, weighted: bool) -> sparse.csr_matrix:
    liked = histories.liked()
    values = liked.weights if weighted else np.ones(len(liked.items), np.float32)
    matrix = liked.matrix(values, n_items)
    if not weighted:
        matrix.data[:] = 1
    return sparse.csr_matrix(matrix)
