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
from ranker.evaluation.rankings import check_cutoffs, check_ranked, check_same_users, hits_of, once_each
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
    check_ranked(ranked, relevant.shape[1])
    check_cutoffs(cutoffs, ranked.shape[1])
    check_same_users(ranked, relevant, "relevant")
    known = once_each(relevant, relevant.shape[1], "relevant")
    n_relevant = np.diff(known.indptr)
    without = np.flatnonzero(n_relevant == 0)
    if without.size:
        raise InputError(
            f"{without.size:,} of {len(n_relevant):,} users have no relevant item (first: row {without[0]}): "
            "leave them out of ranked and relevant."
        )
    hits = hits_of(ranked[:, : max(cutoffs)], known)
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
    check_ranked(ranked, n_items)
    check_cutoffs([cutoff], ranked.shape[1])
    shown = np.unique(ranked[:, :cutoff])
    return float(np.count_nonzero(shown != NO_ITEM) / n_items)


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
