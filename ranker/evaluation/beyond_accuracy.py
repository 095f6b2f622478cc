"""What a list is beside right: novel, diverse, serendipitous, calibrated, no more popular than the user's taste.

All are taken of a user's list cut at k, L being its items (fewer than k where it has run out):

    novelty           mean of -log2 p(i) over L in bits, p(i) being the share of users who had item i: the mean
                      self-information (Zhou et al., "Solving the apparent diversity-accuracy dilemma of
                      recommender systems", PNAS 107(10), 2010)
    diversity         mean of 1 - cosine over the pairs of L (intra-list diversity: Ziegler et al., "Improving
                      recommendation lists through topic diversification", WWW 2005)
    serendipity       items of L that are relevant and not in the list of a primitive recommender, divided by k
                      (Ge, Delgado-Battenfeld & Jannach, "Beyond accuracy: evaluating recommender systems by
                      coverage and serendipity", RecSys 2010)
    popularity_lift   mean popularity of L / mean popularity of the user's history - 1 (Abdollahpouri et al., "The
                      connection between popularity bias, calibration, and fairness in recommendation", RecSys 2020,
                      whose groups of users are single users here)
    miscalibration    KL(p || (1 - α) q + α p) in nats, p and q being the distributions of attributes (genres) in the
                      user's history and in L (Steck, "Calibrated recommendations", RecSys 2018); 0 is calibrated

Each function returns a table like `per_user_metrics`: one row per user, a column ``name@k`` for each cut-off,
float64, NaN where the user's list or history leaves the metric undefined.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse, special

from encoders.errors import InputError
from ranker.evaluation.rankings import (
    check_cutoffs,
    check_popularity,
    check_ranked,
    check_same_users,
    hits_of,
    once_each,
)
from retrieval.candidates import NO_ITEM

Cutoffs = Sequence[int]
BLOCK_VALUES = 4_000_000  # bounds memory: 32 MB per array of one value for each user, rank and dimension


def novelty(
    ranked: NDArray[np.int64], popularity: NDArray[np.int64], n_users: int, cutoffs: Cutoffs = (5, 10, 20)
) -> pd.DataFrame:
    """Return the mean self-information of each user's list, from 0 to log2 `n_users` bits.

    Args:
        ranked: (U, K) item indices, best first, NO_ITEM where a row has run out.
        popularity: (I,) users of the training data who had each item, from 0 to `n_users`. An item that nobody
            had counts as had by one, since the data cannot tell how much rarer it is.
        n_users: Users of the training data.
        cutoffs: Different ranks from 1 to K.

    Returns:
        ``novelty@k``, NaN for an empty list.

    Raises:
        InputError: If lists or cut-offs do not fit (see `per_user_metrics`), or a popularity is out of range.
    """
    check_popularity(popularity)
    if n_users < 1 or popularity.max() > n_users:
        raise InputError(
            f"popularity goes up to {popularity.max():,} and n_users is {n_users:,}: it counts users, so no item has "
            "more. Count each user once per item."
        )
    bits = np.log2(n_users / np.maximum(popularity, 1))
    return _at_cutoffs("novelty", ranked, len(popularity), cutoffs, lambda k: _mean_of_items(ranked[:, :k], bits))


def diversity(ranked: NDArray[np.int64], vectors: NDArray[np.floating], cutoffs: Cutoffs = (5, 10, 20)) -> pd.DataFrame:
    """Return the mean of 1 - cosine over all pairs of items in each user's list, from 0 to 2.

    Args:
        ranked: (U, K) item indices, best first, NO_ITEM where a row has run out.
        vectors: (I, d) what items are compared by, such as their text vectors, of any length above 0.
        cutoffs: Different ranks from 1 to K.

    Returns:
        ``diversity@k``, NaN for a list of fewer than two items.

    Raises:
        InputError: If lists or cut-offs do not fit (see `per_user_metrics`), or a vector is not finite or zero.
    """
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise InputError(f"vectors has shape {vectors.shape}: it needs one row per item, so (items, dimensions).")
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    unusable = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
    if unusable.size:
        raise InputError(
            f"{unusable.size:,} of {len(vectors):,} vectors are zero or not finite (first: item {unusable[0]}), and "
            "have no cosine: give those items a vector, or leave them out of the lists and of vectors."
        )
    # a row of zeros at the end is what NO_ITEM (-1) takes
    units = np.vstack([vectors / norms, np.zeros((1, vectors.shape[1]))])

    def at(k: int) -> NDArray[np.float64]:
        n = (ranked[:, :k] != NO_ITEM).sum(axis=1)
        # the squared sum of unit vectors is their number plus twice the cosines of all pairs
        squared = np.empty(len(ranked))
        for block in _blocks(len(ranked), k * vectors.shape[1]):
            squared[block] = (units[ranked[block, :k]].sum(axis=1) ** 2).sum(axis=1)
        return np.clip(1 - _divided(squared - n, n * (n - 1)), 0, 2)  # rounding leaves the range by little

    return _at_cutoffs("diversity", ranked, len(vectors), cutoffs, at)


def serendipity(
    ranked: NDArray[np.int64],
    relevant: sparse.csr_array,
    primitive: NDArray[np.int64],
    cutoffs: Cutoffs = (5, 10, 20),
) -> pd.DataFrame:
    """Return the share of each user's first k ranks with an item that is relevant and was not to be expected.

    Args:
        ranked: (U, K) item indices, best first, NO_ITEM where a row has run out.
        relevant: (U, I) non-zero where the item is relevant to the user.
        primitive: (U, P) what was to be expected: the list of a primitive recommender, such as the most popular
            items, filled up with NO_ITEM. All of it counts at every cut-off.
        cutoffs: Different ranks from 1 to K.

    Returns:
        ``serendipity@k``, in [0, 1] and at most the precision@k; 0 for an empty list.

    Raises:
        InputError: If shapes, lists or cut-offs do not fit, see `per_user_metrics`.
    """
    n_items = relevant.shape[1]
    check_ranked(ranked, n_items)
    check_same_users(ranked, relevant, "relevant")
    check_ranked(primitive, n_items, "primitive")
    expected = _as_matrix(primitive, n_items)
    check_same_users(ranked, expected, "primitive")
    surprising = hits_of(ranked, relevant) & ~hits_of(ranked, expected)
    return _at_cutoffs("serendipity", ranked, n_items, cutoffs, lambda k: surprising[:, :k].mean(axis=1))


def popularity_lift(
    ranked: NDArray[np.int64],
    popularity: NDArray[np.int64],
    histories: sparse.csr_array,
    cutoffs: Cutoffs = (5, 10, 20),
) -> pd.DataFrame:
    """Return by how much each user's list is more popular than what the user had.

    Args:
        ranked: (U, K) item indices, best first, NO_ITEM where a row has run out.
        popularity: (I,) users who had each item, or any non-negative multiple of that.
        histories: (U, I) non-zero where the user had the item; each counts once.
        cutoffs: Different ranks from 1 to K.

    Returns:
        ``popularity_lift@k``: 0 as popular, 1 twice as popular, -0.5 half. NaN if the list or the history is empty, or
        the history's mean popularity is 0. Its mean over users is a mean of ratios, not the ratio of group means.

    Raises:
        InputError: If shapes, lists or cut-offs do not fit (see `per_user_metrics`), or a popularity is negative or not
            finite.
    """
    check_popularity(popularity)
    check_same_users(ranked, histories, "histories")
    had = once_each(histories, len(popularity), "histories")
    usual = _divided(had @ popularity.astype(np.float64), had.sum(axis=1))

    def at(k: int) -> NDArray[np.float64]:
        return _divided(_mean_of_items(ranked[:, :k], popularity), usual) - 1

    return _at_cutoffs("popularity_lift", ranked, len(popularity), cutoffs, at)


def miscalibration(
    ranked: NDArray[np.int64],
    histories: sparse.csr_array,
    attributes: NDArray[np.number] | sparse.csr_array,
    cutoffs: Cutoffs = (5, 10, 20),
    *,
    alpha: float = 0.01,
) -> pd.DataFrame:
    """Return how far the attributes of each user's list are from those of the user's history.

    Args:
        ranked: (U, K) item indices, best first, NO_ITEM where a row has run out.
        histories: (U, I) non-zero where the user had the item; each counts once.
        attributes: (I, G) how much of each attribute an item has, such as 1 for each of its genres; not negative. An
            item's row is divided by its sum; items without any attribute are left out of lists and histories.
        cutoffs: Different ranks from 1 to K.
        alpha: Share of the history's distribution that is mixed into the list's, so that a genre which the list lacks
            costs much, and not infinitely much; in (0, 1).

    Returns:
        ``miscalibration@k``, from 0 (the same distribution) to log(1 / `alpha`) (nothing in common), 4.6 by default.
        NaN if no item of the list, or none of the history, has an attribute.

    Raises:
        InputError: If shapes, lists, cut-offs or `alpha` do not fit, or an attribute is negative or not finite.
    """
    if not 0 < alpha < 1:
        raise InputError(f"alpha is {alpha}: it has to lie between 0 and 1, both excluded, e.g. 0.01.")
    if attributes.ndim != 2:
        raise InputError(f"attributes has shape {attributes.shape}: it needs one row per item, so (items, attributes).")
    shares = sparse.csr_array(attributes).astype(np.float64)
    if not np.isfinite(shares.data).all() or (shares.data < 0).any():
        raise InputError("attributes holds values that are negative or not finite: say how much of each an item has.")
    totals = shares.sum(axis=1)
    shares = sparse.csr_array(shares.multiply(1 / np.where(totals > 0, totals, 1)[:, None]))
    n_items, n_attributes = shares.shape
    check_ranked(ranked, n_items)
    check_same_users(ranked, histories, "histories")
    had = once_each(histories, n_items, "histories")

    def at(k: int) -> NDArray[np.float64]:
        found = np.empty(len(ranked))
        for block in _blocks(len(ranked), n_attributes):
            p = _distributions(had[block], shares)
            q = _distributions(_as_matrix(ranked[block, :k], n_items), shares)
            found[block] = special.rel_entr(p, (1 - alpha) * q + alpha * p).sum(axis=1)
        return np.maximum(found, 0)  # rounding takes equal distributions below by little

    return _at_cutoffs("miscalibration", ranked, n_items, cutoffs, at)


def _at_cutoffs(
    name: str,
    ranked: NDArray[np.int64],
    n_items: int,
    cutoffs: Cutoffs,
    metric: Callable[[int], NDArray[np.float64]],
) -> pd.DataFrame:
    check_ranked(ranked, n_items)
    check_cutoffs(cutoffs, ranked.shape[1])
    return pd.DataFrame({f"{name}@{k}": metric(k) for k in cutoffs})


def _mean_of_items(ranked: NDArray[np.int64], values: NDArray[np.number]) -> NDArray[np.float64]:
    """Return (U,) the mean value (I,) of each row's items, NaN for an empty row."""
    there = ranked != NO_ITEM
    return _divided(np.where(there, values[ranked], 0).sum(axis=1), there.sum(axis=1))


def _divided(numerator: NDArray[np.number], denominator: NDArray[np.number]) -> NDArray[np.float64]:
    """Return the quotient in float64, NaN where the denominator is 0."""
    found = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=found, where=denominator != 0)
    return found


def _distributions(of_users: sparse.csr_array, shares: sparse.csr_array) -> NDArray[np.float64]:
    """Return (U, G) the distribution of attributes in each row's items, NaN where none has any."""
    summed = (of_users @ shares).toarray()
    return _divided(summed, np.broadcast_to(summed.sum(axis=1, keepdims=True), summed.shape))


def _as_matrix(ranked: NDArray[np.int64], n_items: int) -> sparse.csr_array:
    rows, places = np.nonzero(ranked != NO_ITEM)
    return sparse.csr_array((np.ones(len(rows)), (rows, ranked[rows, places])), shape=(len(ranked), n_items))


def _blocks(n_users: int, values_per_user: int) -> Iterator[slice]:
    size = max(1, BLOCK_VALUES // values_per_user)
    return (slice(start, start + size) for start in range(0, n_users, size))
