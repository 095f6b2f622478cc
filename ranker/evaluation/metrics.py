"""Ranking metrics for one list per user, with binary relevance.

With R the user's relevant items, r(i) = 1 if the item at rank i (from 1) is relevant and else 0, and k the
cut-off:

    hr         1 if any r(i) = 1 with i ≤ k, else 0 (hit rate; with one relevant item it equals recall)
    recall     Σ r(i) / |R|
    precision  Σ r(i) / k, also for lists shorter than k
    ndcg       Σ r(i) / log2(i + 1), divided by the same sum for the ideal list of min(k, |R|) relevant items
    mrr        1 / the rank of the first relevant item, 0 if there is none within k (reciprocal rank)
    map        Σ r(i) · precision@i / min(k, |R|) (average precision)

All sums run over i ≤ k. Sources: Järvelin & Kekäläinen, "Cumulated gain-based evaluation of IR techniques",
ACM TOIS 20(4), 2002, with the discount 1 / log2(i + 1) of Burges et al. (ICML 2005), as in trec_eval; and
trec_eval for the others. ndcg, recall, precision and (at k = the list's length) mrr equal trec_eval's
ndcg_cut, recall, P and recip_rank. map differs on purpose: trec_eval's map_cut divides by |R|, so that even a
perfect list scores below 1 where |R| > k; here it scores 1.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from encoders.errors import InputError
from retrieval.candidates import NO_ITEM

METRICS = ("hr", "recall", "precision", "ndcg", "mrr", "map")


def per_user_metrics(
    ranked: NDArray[np.int64], relevant: sparse.csr_array, cutoffs: Sequence[int] = (5, 10, 20)
) -> pd.DataFrame:
    """Return every metric at every cut-off for every user.

    Args:
        ranked: (U, K) item indices, best first; a row that runs out is filled up with NO_ITEM. K may not be
            below the largest cut-off.
        relevant: (U, I) non-zero where the item is relevant to the user. Every user needs one at least: a
            mean over users with nothing to find says nothing, so leave them out of both arguments.
        cutoffs: Different ranks from 1 to K.

    Returns:
        One row per user in the given order, columns ``hr@5``, ``recall@5``, ``precision@5``, ``ndcg@5``,
        ``mrr@5``, ``map@5``, ``hr@10``… (float64, all in [0, 1]); the module's docstring defines them.

    Raises:
        InputError: If shapes, item indices or cut-offs do not fit, an item occurs twice in a row, an item
            follows NO_ITEM, or a user has no relevant item.
    """
    _check_ranked(ranked, relevant.shape[1])
    _check_cutoffs(cutoffs, ranked.shape[1])
    if ranked.shape[0] != relevant.shape[0]:
        raise InputError(
            f"ranked has {ranked.shape[0]:,} rows and relevant {relevant.shape[0]:,}: row u of both belongs to user u."
        )
    known = relevant.copy()
    known.sum_duplicates()
    known.eliminate_zeros()
    n_relevant = np.diff(known.indptr)
    without = np.flatnonzero(n_relevant == 0)
    if without.size:
        raise InputError(
            f"{without.size:,} of {len(n_relevant):,} users have no relevant item (first: row {without[0]}): "
            "leave them out of ranked and relevant."
        )
    hits = _hits(ranked[:, : max(cutoffs)], known)
    return pd.DataFrame(
        {f"{name}@{k}": values for k in cutoffs for name, values in _at_cutoff(hits[:, :k], n_relevant).items()}
    )


def coverage(ranked: NDArray[np.int64], n_items: int, cutoff: int) -> float:
    """Return the share of the catalogue that is in at least one user's first `cutoff` items, from 0 to 1.

    Args:
        ranked: (U, K) item indices, best first, NO_ITEM where a row has run out.
        n_items: Items in the catalogue.
        cutoff: From 1 to K.

    Raises:
        InputError: If item indices or the cut-off do not fit, an item occurs twice in a row, or one follows
            NO_ITEM.
    """
    _check_ranked(ranked, n_items)
    _check_cutoffs([cutoff], ranked.shape[1])
    shown = np.unique(ranked[:, :cutoff])
    return float(np.count_nonzero(shown != NO_ITEM) / n_items)


def _hits(ranked: NDArray[np.int64], relevant: sparse.csr_array) -> NDArray[np.bool_]:
    """Return (U, K) True where the ranked item is relevant."""
    users, places = np.nonzero(ranked != NO_ITEM)
    n_items = relevant.shape[1]
    rows, items = relevant.nonzero()
    wanted = rows.astype(np.int64) * n_items + items
    hits = np.zeros(ranked.shape, dtype=np.bool_)
    hits[users, places] = np.isin(users * n_items + ranked[users, places], wanted)
    return hits


def _at_cutoff(hits: NDArray[np.bool_], n_relevant: NDArray[np.int32]) -> dict[str, NDArray[np.float64]]:
    k = hits.shape[1]
    ranks = np.arange(1, k + 1)
    found = hits.cumsum(axis=1)
    n_found = found[:, -1]
    n_findable = np.minimum(n_relevant, k)
    discounts = 1 / np.log2(ranks + 1)
    first = hits.argmax(axis=1)
    values = (
        n_found > 0,
        n_found / n_relevant,
        n_found / k,
        (hits @ discounts) / discounts.cumsum()[n_findable - 1],
        np.where(n_found > 0, 1 / (first + 1), 0),
        (hits * found / ranks).sum(axis=1) / n_findable,
    )
    return {name: value.astype(np.float64) for name, value in zip(METRICS, values, strict=True)}


def _check_ranked(ranked: NDArray[np.int64], n_items: int) -> None:
    if ranked.ndim != 2 or not np.issubdtype(ranked.dtype, np.integer) or 0 in ranked.shape:
        raise InputError(
            f"ranked is {ranked.dtype} of shape {ranked.shape}: it has to be integers of shape "
            "(users, ranks), neither of them 0."
        )
    if ranked.min() < NO_ITEM or ranked.max() >= n_items:
        raise InputError(
            f"ranked holds items from {ranked.min()} to {ranked.max()}: with {n_items:,} items they run from "
            f"0 to {n_items - 1}, and {NO_ITEM} fills rows that ran out."
        )
    resumed = np.flatnonzero(((ranked[:, :-1] == NO_ITEM) & (ranked[:, 1:] != NO_ITEM)).any(axis=1))
    if resumed.size:
        raise InputError(
            f"{resumed.size:,} rows of ranked hold an item after NO_ITEM (first: row {resumed[0]}): move the "
            "items to the front."
        )
    ordered = np.sort(ranked, axis=1)
    twice = np.flatnonzero(((ordered[:, :-1] == ordered[:, 1:]) & (ordered[:, 1:] != NO_ITEM)).any(axis=1))
    if twice.size:
        raise InputError(
            f"{twice.size:,} rows of ranked hold an item twice (first: row {twice[0]}), which would count it twice."
        )


def _check_cutoffs(cutoffs: Sequence[int], n_ranks: int) -> None:
    if not cutoffs or len(set(cutoffs)) != len(cutoffs) or min(cutoffs) < 1 or max(cutoffs) > n_ranks:
        raise InputError(
            f"The cut-offs are {list(cutoffs)}: they have to be different ranks from 1 to {n_ranks}, the "
            "length of the ranked lists. Rank longer lists, filled up with NO_ITEM if the items run out."
        )
