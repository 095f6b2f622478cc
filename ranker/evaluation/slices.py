"""Where a system is good: the mean of a metric over named groups of users, each with its interval.

A mean over all users hides whom it is made of: a gain among the many with long histories can be a loss to everybody
new. Groups are given as one name per user, so that any grouping will do; two that are always worth a look are made
here, by the length of the history, and by whether what users were to find is popular (the head) or not (the long tail:
Park & Tuzhilin, "The long tail of recommender systems and how to leverage it", RecSys 2008).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from encoders.errors import InputError
from ranker.evaluation.comparison import bootstrap_mean, check_confidence, check_values
from ranker.evaluation.rankings import check_popularity, once_each

if TYPE_CHECKING:
    from ranker.evaluation.questions import Questions

NEW = "new"
HEAD, BOTH, TAIL = "head", "head and tail", "tail"

Groups: TypeAlias = "pd.Categorical[str] | Sequence[str]"  # the name of each user's or list's group


def history_groups(
    lengths: NDArray[np.integer], *, bounds: Sequence[int] | None = None, quantiles: Sequence[float] = (0.5,)
) -> pd.Categorical[str]:
    """Group users by how many events they had.

    Args:
        lengths: (U,) events of each user, from 0.
        bounds: Rising lengths, from 2, with each of which a group begins.
        quantiles: Where there are no bounds: in (0, 1), of the lengths of users who had any; a longer history than that
            is in the next group. Equal lengths share a group, so there may be fewer groups, and unequal ones.

    Returns:
        (U,) ordered: ``new`` for users who had none, then ``1 to 9 events``, ``10 to 49 events`` and ``50 events and
        more`` for the bounds 10 and 50.

    Raises:
        InputError: If lengths are negative or no integers, bounds or quantiles do not fit, or no quantile divides the
            users.
    """
    if lengths.ndim != 1 or not np.issubdtype(lengths.dtype, np.integer) or (lengths < 0).any():
        raise InputError(f"lengths is {lengths.dtype} of shape {lengths.shape}: it counts events of each user, from 0.")
    if bounds is None:
        bounds = _bounds_at(lengths[lengths > 0], quantiles)
    if not len(bounds) or min(bounds) < 2 or any(high <= low for low, high in pairwise(bounds)):
        raise InputError(f"bounds are {list(bounds)}: they have to be rising lengths from 2, such as 10, 50.")
    ranges = [f"{low} to {high - 1}" if high - 1 > low else f"{low}" for low, high in pairwise([1, *bounds])]
    names = [NEW, *(f"{among} event{'' if among == '1' else 's'}" for among in ranges), f"{bounds[-1]} events and more"]
    codes = np.where(lengths == 0, 0, np.searchsorted(np.asarray(bounds), lengths, side="right") + 1)
    return pd.Categorical([names[code] for code in codes], names, ordered=True)


def _bounds_at(lengths: NDArray[np.integer], quantiles: Sequence[float]) -> list[int]:
    if not quantiles or not all(0 < quantile < 1 for quantile in quantiles):
        raise InputError(f"quantiles are {list(quantiles)}: they have to lie between 0 and 1, both excluded, e.g. 0.5.")
    found = np.floor(np.quantile(lengths, quantiles)).astype(np.int64) + 1 if len(lengths) else np.zeros(0, np.int64)
    bounds = sorted({int(bound) for bound in found if bound <= lengths.max()})
    if not bounds:
        raise InputError("No quantile divides these users into shorter and longer histories: give bounds.")
    return bounds


def popularity_groups(
    relevant: sparse.csr_array, popularity: NDArray[np.number], *, head_share: float = 0.8
) -> pd.Categorical[str]:
    """Group users by whether what was relevant to them is popular.

    Args:
        relevant: (U, I) non-zero where the item is relevant to the user; every user needs one at least.
        popularity: (I,) events of each item in the training data, not negative and not all 0.
        head_share: Share of all events, in (0, 1), which the head has: the fewest most popular items that have so
            many. Ties go to the lower item.

    Returns:
        (U,) ``head`` where all of a user's relevant items are in it, ``tail`` where none is, else ``head and tail``.

    Raises:
        InputError: If shapes or values do not fit, or a user has no relevant item.
    """
    check_popularity(popularity)
    if not popularity.any():
        raise InputError("popularity is 0 for every item, so there is no head: count the events of the training data.")
    if not 0 < head_share < 1:
        raise InputError(f"head_share is {head_share}: it has to lie between 0 and 1, both excluded, e.g. 0.8.")
    order = np.argsort(-popularity.astype(np.float64), kind="stable")
    reached = popularity[order].astype(np.float64).cumsum()
    n_head = int(np.searchsorted(reached, head_share * reached[-1])) + 1
    in_head = np.zeros(len(popularity))
    in_head[order[:n_head]] = 1
    wanted = once_each(relevant, len(popularity), "relevant")
    n_relevant, n_popular = wanted.sum(axis=1), wanted @ in_head
    if not n_relevant.all():
        raise InputError(
            f"{int((n_relevant == 0).sum()):,} of {len(n_relevant):,} users have no relevant item (first: row "
            f"{int(np.argmin(n_relevant))}): leave them out."
        )
    codes = np.where(n_popular == n_relevant, 0, np.where(n_popular > 0, 1, 2))
    names = [HEAD, BOTH, TAIL]
    return pd.Categorical([names[code] for code in codes], names, ordered=True)


def usual_groups(asked: Questions, popularity: NDArray[np.number]) -> dict[str, pd.Categorical[str]]:
    """Return the groups that are always worth a look: by the history, unless it divides nobody, and by popularity.

    Args:
        asked: The lists to group.
        popularity: (I,) events of each item in the training data.

    Returns:
        What lists are grouped by → (L,) the group of each.

    Raises:
        InputError: If `popularity` does not fit, see `popularity_groups`.
    """
    groups = {}
    with suppress(InputError):  # equal lengths are no mistake, only no two groups
        groups["length of the history"] = history_groups(asked.lengths)
    return {**groups, "popularity of what was to be found": popularity_groups(asked.relevant, popularity)}


def slice_means(
    metrics: pd.DataFrame,
    groups: Groups,
    *,
    seed: int,
    confidence: float = 0.95,
    users: NDArray[np.int64] | None = None,
) -> pd.DataFrame:
    """Return the mean of every metric over every group of users, with its bootstrap interval.

    Args:
        metrics: One row per user, the columns metrics, as `per_user_metrics` gives them; ``user_id`` is left out.
            Users of whom a metric says nothing (NaN) do not count for it.
        groups: (U,) the name of each user's group; a user in none has None or NaN.
        seed: Of the resampling; the same seed gives the same intervals.
        confidence: Of each interval, in (0, 1).
        users: (U,) whose each row is, where users have several, see `bootstrap_mean`.

    Returns:
        One row per group and metric: ``group``, ``metric``, ``mean``, ``low``, ``high``, ``n_users``, and ``n_lists``,
        the rows that count. Groups are in their order, if they are categories, else in that of their names; groups
        without users are left out. With one user the interval is NaN, and with none of whom the metric says something
        the mean is, too.

    Raises:
        InputError: If there is no group, lengths differ, a metric is infinite, or `confidence` is out of range.
    """
    check_confidence(confidence)
    if len(groups) != len(metrics):
        raise InputError(
            f"There are {len(groups):,} groups for {len(metrics):,} users: give each user the name of one."
        )
    of_rows = metrics.assign(group=groups)["group"].astype("category")
    if of_rows.isna().all():
        raise InputError("No user is in a group, so there is nothing to average.")
    of_users = np.arange(len(metrics)) if users is None else users
    measured = metrics.drop(columns="user_id", errors="ignore")
    rows = []
    for group in of_rows.cat.remove_unused_categories().cat.categories:
        within = (of_rows == group).to_numpy()
        for name, column in measured[within].items():
            known = column.notna().to_numpy()
            values, whose = column[known].to_numpy(np.float64), of_users[within][known]
            n_users = len(np.unique(whose))
            row = {"group": str(group), "metric": name, "low": np.nan, "high": np.nan}
            row |= {"n_users": n_users, "n_lists": len(values)}
            if n_users > 1:
                check_values(f"{name} of {group}", values)
                interval = bootstrap_mean(values, seed=seed, confidence=confidence, users=whose)
                row |= {"low": interval.low, "high": interval.high}
            rows.append({**row, "mean": float(values.mean()) if len(values) else np.nan})
    return pd.DataFrame(rows)[["group", "metric", "mean", "low", "high", "n_users", "n_lists"]]
