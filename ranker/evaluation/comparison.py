"""How sure a difference between two systems is: the bootstrap over users.

The percentile bootstrap of the mean (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter
13). Users are resampled, since they are what is independent; both systems are scored on the same users, so it
is the differences per user that are resampled, which takes out how easy each user is (Sakai, "Evaluating
evaluation metrics based on the bootstrap", SIGIR 2006).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from encoders.errors import InputError

N_RESAMPLES = 9_999
VALUES_PER_BATCH = 4_000_000  # bounds memory: 32 MB per array of resampled values


@dataclass(frozen=True, slots=True)
class MeanInterval:
    """A mean over users and its confidence interval from `low` to `high`."""

    mean: float
    low: float
    high: float
    confidence: float
    n_users: int

    def __str__(self) -> str:
        interval = f"{self.confidence:.0%}: {self.low:.4f} to {self.high:.4f}"
        return f"{self.mean:.4f} ({interval}; {self.n_users:,} users)"


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """A metric before and after a change, over the same users.

    Attributes:
        mean_before: Mean over users before.
        mean_after: Mean over users after.
        difference: `mean_after` - `mean_before`.
        low: Lower end of the confidence interval of `difference`; above 0, the change is an improvement.
        high: Upper end; below 0, the change is a loss.
        relative: `difference` / `mean_before`; NaN where that is 0.
        confidence: Of the interval, in (0, 1).
        n_users: Users compared.
    """

    mean_before: float
    mean_after: float
    difference: float
    low: float
    high: float
    relative: float
    confidence: float
    n_users: int

    def __str__(self) -> str:
        return (
            f"{self.mean_before:.4f} → {self.mean_after:.4f}: {self.difference:+.4f} ({self.relative:+.1%}; "
            f"{self.confidence:.0%}: {self.low:+.4f} to {self.high:+.4f}; {self.n_users:,} users)"
        )


def bootstrap_mean(
    values: NDArray[np.float64],
    *,
    seed: int | np.random.Generator,
    confidence: float = 0.95,
    users: NDArray[np.int64] | None = None,
) -> MeanInterval:
    """Return the mean of one metric with its confidence interval over users.

    Args:
        values: (V,) the metric of every user, or of every list, finite.
        seed: Of the resampling; the same seed gives the same interval.
        confidence: Of the interval, in (0, 1).
        users: (V,) whose each value is, where users have several: the mean is over values, and users are resampled
            with all of theirs, since one user's lists are not independent. None: one value for each user.

    Raises:
        InputError: If there are fewer than two users, values are not finite, or `confidence` is out of range.
    """
    check_values("values", values)
    check_confidence(confidence)
    low, high = _interval_of_mean(values, users, seed, confidence)
    return MeanInterval(float(values.mean()), low, high, confidence, _count(values, users))


def paired_bootstrap(
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    *,
    seed: int | np.random.Generator,
    confidence: float = 0.95,
    users: NDArray[np.int64] | None = None,
) -> PairedDifference:
    """Compare one metric of two systems over the same users.

    Args:
        before: (V,) the metric of every user, or of every list, under the first system, finite.
        after: (V,) the same under the second, in the same order.
        seed: Of the resampling; the same seed gives the same interval.
        confidence: Of the interval, in (0, 1).
        users: (V,) whose each value is, where users have several, see `bootstrap_mean`.

    Returns:
        The means and the difference with its interval, which is one point if every user's difference is the
        same.

    Raises:
        InputError: If the lengths differ, there are fewer than two users, values are not finite, or
            `confidence` is out of range.
    """
    check_values("before", before)
    check_values("after", after)
    check_confidence(confidence)
    if before.shape != after.shape:
        raise InputError(
            f"before has {len(before):,} users and after {len(after):,}: a paired comparison needs the same "
            "users in the same order."
        )
    low, high = _interval_of_mean(after - before, users, seed, confidence)
    mean_before, mean_after = float(before.mean()), float(after.mean())
    difference = float((after - before).mean())
    relative = difference / mean_before if mean_before else float("nan")
    return PairedDifference(mean_before, mean_after, difference, low, high, relative, confidence, _count(before, users))


def _count(values: NDArray[np.float64], users: NDArray[np.int64] | None) -> int:
    return len(values) if users is None else len(np.unique(users))


def _interval_of_mean(
    values: NDArray[np.float64],
    users: NDArray[np.int64] | None,
    seed: int | np.random.Generator,
    confidence: float,
) -> tuple[float, float]:
    if np.ptp(values) == 0:  # every resample is the same, which scipy answers with NaN and a warning
        return float(values[0]), float(values[0])
    # A user weighs as much as the values they have, so a mean over values is a ratio of two means over users.
    of_user = np.arange(len(values)) if users is None else np.unique(users, return_inverse=True)[1]
    counts = np.bincount(of_user).astype(np.float64)
    if len(counts) < 2:
        raise InputError(f"All {len(values):,} values are one user's: an interval over users needs two or more.")
    # The percentile interval, since the corrections of BCa take time quadratic in the users.
    found = stats.bootstrap(
        (np.bincount(of_user, values), counts),
        lambda sums, counts, axis: sums.sum(axis=axis) / counts.sum(axis=axis),
        n_resamples=N_RESAMPLES,
        batch=max(1, VALUES_PER_BATCH // len(counts)),
        vectorized=True,
        paired=True,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def check_values(name: str, values: NDArray[np.float64]) -> None:
    """Raise InputError if the argument `name` is not one finite value for each of two users or more."""
    if values.ndim != 1 or len(values) < 2:
        raise InputError(f"{name} has shape {values.shape}: it needs one value for each of two users or more.")
    n_unusable = int((~np.isfinite(values)).sum())
    if n_unusable:
        raise InputError(
            f"{n_unusable:,} of {len(values):,} values of {name} are NaN or infinite: leave those users out."
        )


def check_confidence(confidence: float) -> None:
    """Raise InputError if `confidence` is not in (0, 1)."""
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}: it has to lie between 0 and 1, e.g. 0.95.")
