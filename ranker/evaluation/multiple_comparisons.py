"""Many systems against one baseline over the same users: differences, p-values, and what many tests do to them.

The test is Fisher's randomization test for paired values: if the two systems were the same, each user's difference
could as well have had the other sign. Smucker, Allan & Carterette ("A comparison of statistical significance tests for
information retrieval evaluation", CIKM 2007) find it in agreement with the bootstrap and the t-test, and advise against
Wilcoxon's signed ranks and the sign test, which ask about something else than the mean.

Among twenty systems that are all the same, one is expected to be below .05. So p-values are corrected for their number,
by Holm's step-down ("A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6(2),
1979), which holds however the tests depend on each other.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from encoders.errors import InputError
from ranker.evaluation.comparison import N_RESAMPLES, VALUES_PER_BATCH, check_values, paired_bootstrap
from ranker.evaluation.results import PerUserResults

logger = logging.getLogger(__name__)

Labels = dict[str, str]


def sign_flip_test(differences: NDArray[np.float64], *, seed: int | np.random.Generator) -> float:
    """Return the two-sided p-value of the randomization test that the mean difference is 0.

    Args:
        differences: (U,) one system's metric less the other's for every user, finite.
        seed: Of the signs that are drawn. Where all their 2^U combinations are no more than 9,999, all are tried
            and nothing is drawn.

    Returns:
        In (0, 1]: the share of sign combinations whose mean is as far from 0 or further, the observed one included,
        so that drawn ones give no less than 1 / 10,000.

    Raises:
        InputError: If there are fewer than two users, or differences are not finite.
    """
    check_values("differences", differences)
    found = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",  # of one sample: its signs
        vectorized=True,
        n_resamples=N_RESAMPLES,
        batch=max(1, VALUES_PER_BATCH // len(differences)),
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Holm's adjusted p-values.

    Rejecting where they are at most α keeps the chance of even one false rejection among all tests at α or below,
    however the tests depend on each other.

    Args:
        p_values: (T,) of all tests that were made, not only of those worth telling, in [0, 1].

    Returns:
        (T,) in the given order, never below `p_values`.

    Raises:
        InputError: If a p-value is outside [0, 1] or not a number.
    """
    if p_values.ndim != 1 or not ((p_values >= 0) & (p_values <= 1)).all():
        raise InputError(f"p_values are {p_values}: they have to be one row of numbers from 0 to 1.")
    order = np.argsort(p_values, kind="stable")
    n_left = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * n_left), 1)
    return adjusted


def compare_systems(
    values: Mapping[str, NDArray[np.float64]], baseline: str, *, seed: int, confidence: float = 0.95
) -> pd.DataFrame:
    """Compare one metric of several systems with a baseline's over the same users.

    Args:
        values: System → (U,) the metric of every user, finite, users in the same order for all.
        baseline: One of them; every other is compared with it.
        seed: Of the resampling; the same seed gives the same table.
        confidence: Of the intervals, in (0, 1); each is for itself, not corrected for their number.

    Returns:
        One row per other system: ``system``, the fields of `PairedDifference` (``mean_before`` is the baseline's),
        ``p_value`` (see `sign_flip_test`), and ``p_holm``, corrected for all rows.

    Raises:
        InputError: If the baseline or others are missing, lengths differ, there are fewer than two users, or values are
            not finite.
    """
    if baseline not in values:
        raise InputError(f"No system {baseline!r} was measured, only {', '.join(values)}.")
    others = [name for name in values if name != baseline]
    if not others:
        raise InputError(f"{baseline!r} is the only system: there is nothing to compare it with.")
    for name in values:
        check_values(name, values[name])
    return tested([({"system": name}, values[baseline], values[name]) for name in others], seed, confidence)


def compare_results(
    before: PerUserResults,
    after: PerUserResults,
    *,
    metrics: Sequence[str] = ("ndcg@10",),
    systems: Sequence[str] | None = None,
    common: bool = False,
    seed: int = 0,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Compare the same systems in two sets of results, user by user.

    Args:
        before: Results of the systems as they were.
        after: Results of the systems as they are, on the same split.
        metrics: What to compare them by.
        systems: Which; by default all that both have.
        common: Whether users who have a value in one set alone are left out, instead of refused.
        seed: Of the resampling; the same seed gives the same table.
        confidence: Of the intervals, in (0, 1); each is for itself, not corrected for their number.

    Returns:
        One row per system and metric: ``system``, ``metric``, the fields of `PairedDifference`, ``p_value`` (see
        `sign_flip_test`), and ``p_holm``, corrected for all rows.

    Raises:
        InputError: If a system or a metric is missing, users differ, or there are fewer than two.
    """
    if before.split != after.split:
        logger.warning("The first results are of %s, the second of %s: not the same test.", before.split, after.split)
    if systems is None:
        systems = [name for name in before.per_user if name in after.per_user]
    if not systems:
        raise InputError(
            f"No system is in both results: the first has {', '.join(before.per_user)}, the second "
            f"{', '.join(after.per_user)}."
        )
    for place, results in {"first": before, "second": after}.items():
        for kind, wanted, there in (("system", systems, results.per_user), ("metric", metrics, results.metrics)):
            absent = [name for name in wanted if name not in there]
            if absent:
                raise InputError(f"The {place} results have no {kind} {absent[0]!r}, only {', '.join(there)}.")
    pairs = [
        ({"system": system, "metric": metric}, *_of_the_same_users(before, after, system, metric, common))
        for system in dict.fromkeys(systems)
        for metric in dict.fromkeys(metrics)
    ]
    return tested(pairs, seed, confidence)


def _of_the_same_users(
    before: PerUserResults, after: PerUserResults, system: str, metric: str, common: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The metric before and after of every user who has it in both, ordered by user."""
    first, second = (
        results.per_user[system].set_index("user_id")[metric].dropna().sort_index() for results in (before, after)
    )
    shared = first.index.intersection(second.index)
    if len(shared) < 2 or (not common and len(shared) < max(len(first), len(second))):
        remedy = "compare those alone by common=True (--common)" if len(shared) > 1 else "measure the same users twice"
        raise InputError(
            f"{metric} of {system!r} is known of {len(first):,} users in the first results and of {len(second):,} in "
            f"the second, {len(shared):,} of them in common: a paired comparison needs the same users, so {remedy}."
        )
    return first.loc[shared].to_numpy(), second.loc[shared].to_numpy()


def tested(
    pairs: Sequence[tuple[Labels, NDArray[np.float64], NDArray[np.float64]]], seed: int, confidence: float
) -> pd.DataFrame:
    """Return a row for each pair: its labels, `PairedDifference`, ``p_value``, and ``p_holm`` over all rows.

    Args:
        pairs: Labels, and the metric of every user (U,) before and after; one pair's users may differ from another's.
        seed: Of all resampling.
        confidence: Of the intervals.
    """
    rows = [
        {
            **labels,
            **asdict(paired_bootstrap(before, after, seed=seed, confidence=confidence)),
            "p_value": sign_flip_test(after - before, seed=seed),
        }
        for labels, before, after in pairs
    ]
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table["p_value"].to_numpy()))
