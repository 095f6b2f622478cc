"""What metrics take: ranked lists, NO_ITEM once one has run out, and sparse matrices of users and items."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from encoders.errors import InputError
from retrieval.candidates import NO_ITEM


def hits_of(ranked: NDArray[np.int64], relevant: sparse.csr_array) -> NDArray[np.bool_]:
    """Return (U, K) True where an item of `ranked` (U, K) is non-zero in its user's row of `relevant` (U, I)."""
    users, places = np.nonzero(ranked != NO_ITEM)
    n_items = relevant.shape[1]
    rows, items = relevant.nonzero()
    wanted = rows.astype(np.int64) * n_items + items
    hits = np.zeros(ranked.shape, dtype=np.bool_)
    hits[users, places] = np.isin(users * n_items + ranked[users, places], wanted)
    return hits


def once_each(of_users: sparse.csr_array, n_items: int, name: str) -> sparse.csr_array:
    """Return the matrix `name` (U, I) with 1 wherever it is non-zero; InputError if it has not a column per item."""
    if of_users.shape[1] != n_items:
        raise InputError(f"{name} has {of_users.shape[1]:,} columns for {n_items:,} items: give each item one.")
    ones = of_users.astype(np.float64)  # a copy
    ones.sum_duplicates()
    ones.eliminate_zeros()
    ones.data[:] = 1
    return ones


def check_ranked(ranked: NDArray[np.int64], n_items: int, name: str = "ranked") -> None:
    """Raise InputError if the argument `name` (U, K) holds no rankings of `n_items` items, filled up with NO_ITEM."""
    if ranked.ndim != 2 or not np.issubdtype(ranked.dtype, np.integer) or 0 in ranked.shape:
        raise InputError(
            f"{name} is {ranked.dtype} of shape {ranked.shape}: it has to be integers of shape "
            "(users, ranks), neither of them 0."
        )
    if ranked.min() < NO_ITEM or ranked.max() >= n_items:
        raise InputError(
            f"{name} holds items from {ranked.min()} to {ranked.max()}: with {n_items:,} items they run from "
            f"0 to {n_items - 1}, and {NO_ITEM} fills rows that ran out."
        )
    resumed = np.flatnonzero(((ranked[:, :-1] == NO_ITEM) & (ranked[:, 1:] != NO_ITEM)).any(axis=1))
    if resumed.size:
        raise InputError(
            f"{resumed.size:,} rows of {name} hold an item after NO_ITEM (first: row {resumed[0]}): move the "
            "items to the front."
        )
    ordered = np.sort(ranked, axis=1)
    twice = np.flatnonzero(((ordered[:, :-1] == ordered[:, 1:]) & (ordered[:, 1:] != NO_ITEM)).any(axis=1))
    if twice.size:
        raise InputError(
            f"{twice.size:,} rows of {name} hold an item twice (first: row {twice[0]}), which would count it twice."
        )


def check_cutoffs(cutoffs: Sequence[int], n_ranks: int) -> None:
    """Raise InputError if the cut-offs are not different ranks from 1 to `n_ranks`."""
    whole = all(isinstance(k, (int, np.integer)) for k in cutoffs)
    if not cutoffs or not whole or len(set(cutoffs)) != len(cutoffs) or min(cutoffs) < 1 or max(cutoffs) > n_ranks:
        raise InputError(
            f"The cut-offs are {list(cutoffs)}: they have to be different ranks from 1 to {n_ranks}, the "
            "length of the ranked lists. Rank longer lists, filled up with NO_ITEM if the items run out."
        )


def check_same_users(ranked: NDArray[np.int64], of_users: sparse.csr_array, name: str) -> None:
    """Raise InputError if the matrix `name` (U, I) has not a row for each of the lists (U, K)."""
    if ranked.shape[0] != of_users.shape[0]:
        raise InputError(
            f"ranked has {ranked.shape[0]:,} rows and {name} {of_users.shape[0]:,}: row u of both belongs to user u."
        )


def check_popularity(popularity: NDArray[np.number]) -> None:
    """Raise InputError if `popularity` (I,) is not a finite number from 0 for each item."""
    if popularity.ndim != 1 or not len(popularity):
        raise InputError(f"popularity has shape {popularity.shape}: it needs one number for each item.")
    if not np.isfinite(popularity).all() or popularity.min() < 0:
        raise InputError("popularity holds values that are negative or not finite: it counts what each item had.")
