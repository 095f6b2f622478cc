"""How good predicted probabilities of feedback are: their order, and whether they can be taken at their word.

With labels y of 0 and 1 and predicted probabilities p, over E events:

    AUC       the chance that an event with feedback is predicted higher than one without, ties counting half: the
              area under the ROC curve as Mann & Whitney's U (Hanley & McNeil, Radiology 143(1), 1982)
    log loss  mean of -log of the probability of what happened, in nats
    Brier     mean of (p - y)² (Brier, Monthly Weather Review 78(1), 1950)
    ECE       mean over bins of equal mass, weighted by their events, of |mean p - mean y| (expected calibration error:
              Naeini, Cooper & Hauskrecht, AAAI 2015; bins of equal mass instead of equal width as in Nguyen & O'Connor,
              EMNLP 2015, so that rare events are not all in one)

AUC sees the order alone, ECE the calibration alone, and log loss and Brier both at once.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from encoders.errors import InputError

Labels = NDArray[np.integer] | NDArray[np.bool_]


def auc(labels: Labels, probabilities: NDArray[np.floating]) -> float:
    """Return the area under the ROC curve, from 0 to 1; 0.5 is chance.

    Args:
        labels: (E,) 1 where there was feedback, else 0; both have to occur.
        probabilities: (E,) as predicted, in [0, 1].

    Raises:
        InputError: If shapes, labels or probabilities do not fit, or all labels are the same.
    """
    positive = _checked(labels, probabilities)
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        raise InputError(
            f"All {len(positive):,} labels are {int(n_positive > 0)}, and an AUC compares 1 with 0: give events of "
            "both kinds, or take log_loss, which needs no two."
        )
    ranks = stats.rankdata(probabilities)  # ties get the mean of their ranks, and so count half
    u = float(ranks[positive].sum()) - n_positive * (n_positive + 1) / 2
    return u / n_positive / n_negative


def log_loss(labels: Labels, probabilities: NDArray[np.floating]) -> float:
    """Return the mean negative log likelihood of what happened, in nats; log 2 is what 0.5 for everything gets.

    Args:
        labels: (E,) 1 where there was feedback, else 0.
        probabilities: (E,) as predicted, in [0, 1]. What is within the rounding error of their type of 0 or 1 counts as
            that far from it: a wrong certainty costs 36 nats in float64 and 16 in float32, not infinitely many.

    Raises:
        InputError: If shapes, labels or probabilities do not fit.
    """
    positive = _checked(labels, probabilities)
    least = np.finfo(probabilities.dtype).eps
    p = np.clip(probabilities, least, 1 - least).astype(np.float64)
    return float(-np.where(positive, np.log(p), special.log1p(-p)).mean())


def brier_score(labels: Labels, probabilities: NDArray[np.floating]) -> float:
    """Return the mean squared error of the probabilities, from 0 to 1; 0.25 is what 0.5 for everything gets.

    Args:
        labels: (E,) 1 where there was feedback, else 0.
        probabilities: (E,) as predicted, in [0, 1].

    Raises:
        InputError: If shapes, labels or probabilities do not fit.
    """
    positive = _checked(labels, probabilities)
    return float(((probabilities.astype(np.float64) - positive) ** 2).mean())


def expected_calibration_error(labels: Labels, probabilities: NDArray[np.floating], *, n_bins: int = 10) -> float:
    """Return by how much predicted and observed rates differ within bins of equal mass, from 0 to 1.

    Noise alone keeps it above 0, by more the fewer events there are in a bin.

    Args:
        labels: (E,) 1 where there was feedback, else 0.
        probabilities: (E,) as predicted, in [0, 1].
        n_bins: Bins, from 1 to E. Equal probabilities share a bin, so that the result depends on no order of events;
            bins are of equal mass as far as that allows.

    Raises:
        InputError: If shapes, labels, probabilities or `n_bins` do not fit.
    """
    positive = _checked(labels, probabilities)
    n = len(positive)
    if not 1 <= n_bins <= n:
        raise InputError(f"n_bins is {n_bins}: it has to be from 1 to {n:,}, the number of events.")
    bins = ((stats.rankdata(probabilities) - 0.5) * n_bins / n).astype(np.int64)
    gaps = np.bincount(bins, weights=probabilities.astype(np.float64) - positive, minlength=n_bins)
    return float(np.abs(gaps).sum() / n)


def _checked(labels: Labels, probabilities: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return (E,) whether each label is 1."""
    if labels.ndim != 1 or labels.shape != probabilities.shape or not len(labels):
        raise InputError(
            f"labels has shape {labels.shape} and probabilities {probabilities.shape}: each event needs one of both, "
            "and there has to be an event."
        )
    if not np.isin(labels, (0, 1)).all():
        odd = labels[~np.isin(labels, (0, 1))][0]
        raise InputError(f"labels holds {odd}: a label is 1 where there was feedback and 0 where there was none.")
    if not np.issubdtype(probabilities.dtype, np.floating):
        raise InputError(f"probabilities is {probabilities.dtype}: it has to be of floating point numbers.")
    outside = ~((probabilities >= 0) & (probabilities <= 1))
    if outside.any():
        raise InputError(
            f"{int(outside.sum()):,} of {len(labels):,} probabilities are outside [0, 1] or not numbers (first: "
            f"{probabilities[outside][0]}): pass logits through a sigmoid first."
        )
    return labels.astype(np.bool_)
