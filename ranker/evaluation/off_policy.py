"""What another policy would have earned, from what a logging policy showed and what users then did.

A log of a bandit has, for each of N events, the reward r of the one action that was taken (an item that was shown), the
probability μ with which the logging policy took it, and the probability π with which the target policy would have. With
importance weights w = π / μ, each policy's value is its expected reward per event:

    IPS     mean of w r (Horvitz & Thompson, JASA 47(260), 1952): unbiased, of large variance where policies differ
    SNIPS   Σ w r / Σ w (Swaminathan & Joachims, "The self-normalized estimator for counterfactual learning", NeurIPS
            2015): a bias that vanishes as 1 / N, for less variance; it does not depend on where rewards have their zero
    DR      mean of q(π) + w (r - q(a)) (Dudík, Langford & Li, "Doubly robust policy evaluation and learning", ICML
            2011), q(a) being a reward model's prediction for the logged action and q(π) its mean under the target
            policy: unbiased where propensities are right or the model is, and of less variance the better the model

They hold where μ is above 0 for whatever the target policy may do, and where μ is what was really drawn with; a mean
weight far from 1 says that one of the two is not so. Clipping weights at c (Ionides, "Truncated importance sampling",
JCGS 17(2), 2008) trades variance for a bias of -E[(w - c)⁺ r] for IPS, and of -E[(w - c)⁺ (r - q(a))] for DR.

Intervals are normal, for SNIPS by the delta method: good where many events carry the weight, and too narrow where few
do. So each estimate comes with Kish's effective sample size (Σ w)² / Σ w² ("Survey Sampling", 1965): so many equally
weighted events would tell as much.
"""

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from encoders.errors import InputError
from ranker.evaluation.comparison import check_confidence

logger = logging.getLogger(__name__)

Values = NDArray[np.floating]
MIN_EFFECTIVE_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class OffPolicyEstimate:
    """A target policy's value as a log tells it.

    Attributes:
        value: Expected reward per event.
        low: Lower end of the confidence interval of `value`.
        high: Upper end.
        confidence: Of the interval, in (0, 1).
        n_events: Logged events.
        effective_sample_size: Kish's, of the weights as they were used, from 0 to `n_events`.
        low_overlap: Whether that is too small a share of the events, so that neither value nor interval is to be
            trusted.
        mean_weight: Of the weights before clipping; 1 is expected.
        clipping_bias: By how much clipping changed `value`: an estimate of its bias for IPS and DR; 0 without clipping.
    """

    value: float
    low: float
    high: float
    confidence: float
    n_events: int
    effective_sample_size: float
    low_overlap: bool
    mean_weight: float
    clipping_bias: float

    def __str__(self) -> str:
        interval = f"{self.confidence:.0%}: {self.low:.4f} to {self.high:.4f}"
        return (
            f"{self.value:.4f} ({interval}; {self.n_events:,} events that weigh as {self.effective_sample_size:,.0f}"
            f"{', too few' if self.low_overlap else ''})"
        )


def ips(
    rewards: Values,
    propensities: Values,
    target: Values,
    *,
    clip: float | None = None,
    confidence: float = 0.95,
    min_effective_share: float = MIN_EFFECTIVE_SHARE,
) -> OffPolicyEstimate:
    """Estimate the target policy's value by inverse propensity scoring.

    Args:
        rewards: (N,) of the logged actions, finite.
        propensities: (N,) probability with which the logging policy took each, in (0, 1].
        target: (N,) probability with which the target policy would have, in [0, 1].
        clip: Weights above it count as it; None clips nothing. See the module's docstring for the bias.
        confidence: Of the interval, in (0, 1).
        min_effective_share: Effective sample size, as a share of the events, below which there is a warning in the
            log, and `low_overlap` in the result.

    Raises:
        InputError: If shapes or values do not fit, or there are fewer than two events.
    """
    weights = _Weights.of(rewards, propensities, target, clip, confidence, min_effective_share)
    return _mean_estimate("IPS", weights.used * rewards, weights.whole * rewards, weights)


def snips(
    rewards: Values,
    propensities: Values,
    target: Values,
    *,
    clip: float | None = None,
    confidence: float = 0.95,
    min_effective_share: float = MIN_EFFECTIVE_SHARE,
) -> OffPolicyEstimate:
    """Estimate the target policy's value by self-normalised inverse propensity scoring.

    Args:
        rewards: (N,) of the logged actions, finite.
        propensities: (N,) probability with which the logging policy took each, in (0, 1].
        target: (N,) probability with which the target policy would have, in [0, 1].
        clip: As for `ips`.
        confidence: As for `ips`.
        min_effective_share: As for `ips`.

    Returns:
        The estimate; its value lies between the smallest and the largest reward.

    Raises:
        InputError: As `ips`, and if the target policy would have taken none of the logged actions.
    """
    weights = _Weights.of(rewards, propensities, target, clip, confidence, min_effective_share)
    total = weights.used.sum()
    if not total:
        raise InputError(
            "The target policy has probability 0 for every logged action, so the log says nothing of it: log with a "
            "policy that tries what the target would do."
        )
    value = float(weights.used @ rewards / total)
    # the delta method of a ratio of means; the residuals' weighted mean is 0
    error = float(np.sqrt((weights.used**2 * (rewards - value) ** 2).sum()) / total)
    return weights.estimate("SNIPS", value, error, float(weights.whole @ rewards / weights.whole.sum()))


def doubly_robust(
    rewards: Values,
    propensities: Values,
    target: Values,
    predicted: Values,
    expected: Values,
    *,
    clip: float | None = None,
    confidence: float = 0.95,
    min_effective_share: float = MIN_EFFECTIVE_SHARE,
) -> OffPolicyEstimate:
    """Estimate the target policy's value by a reward model, corrected where the log shows it wrong.

    Args:
        rewards: (N,) of the logged actions, finite.
        propensities: (N,) probability with which the logging policy took each, in (0, 1].
        target: (N,) probability with which the target policy would have, in [0, 1].
        predicted: (N,) the reward model's prediction for each logged action. It must not have been fitted on these
            very events, or the correction is too small.
        expected: (N,) its mean over all actions, each weighted by the target policy's probability in that event.
        clip: As for `ips`.
        confidence: As for `ips`.
        min_effective_share: As for `ips`.

    Raises:
        InputError: As `ips`.
    """
    weights = _Weights.of(rewards, propensities, target, clip, confidence, min_effective_share)
    for name, values in {"predicted": predicted, "expected": expected}.items():
        _check(name, values, len(rewards))
    residuals = rewards - predicted
    return _mean_estimate("DR", expected + weights.used * residuals, expected + weights.whole * residuals, weights)


@dataclass(frozen=True, slots=True)
class _Weights:
    """Importance weights (N,) before and after clipping, and how estimates from them are told."""

    whole: NDArray[np.float64]
    used: NDArray[np.float64]
    confidence: float
    min_effective_share: float

    @classmethod
    def of(
        cls,
        rewards: Values,
        propensities: Values,
        target: Values,
        clip: float | None,
        confidence: float,
        min_effective_share: float,
    ) -> "_Weights":
        if rewards.ndim != 1 or len(rewards) < 2:
            raise InputError(f"rewards has shape {rewards.shape}: it needs one reward for each of two events or more.")
        for name, values in {"rewards": rewards, "propensities": propensities, "target": target}.items():
            _check(name, values, len(rewards))
        unusable = np.flatnonzero((propensities <= 0) | (propensities > 1))
        if unusable.size:
            raise InputError(
                f"{unusable.size:,} of {len(propensities):,} propensities are not in (0, 1] (first: "
                f"{propensities[unusable[0]]} of event {unusable[0]}): what was taken had a chance, so log it."
            )
        if target.min() < 0 or target.max() > 1:
            raise InputError(f"target goes from {target.min()} to {target.max()}: probabilities are from 0 to 1.")
        if clip is not None and not clip > 0:
            raise InputError(f"clip is {clip}: weights can be clipped at a number above 0, or not at all by None.")
        if not 0 <= min_effective_share <= 1:
            raise InputError(f"min_effective_share is {min_effective_share}: it has to be a share, from 0 to 1.")
        check_confidence(confidence)
        whole = target.astype(np.float64) / propensities
        return cls(whole, whole if clip is None else np.minimum(whole, clip), confidence, min_effective_share)

    def estimate(self, name: str, value: float, error: float, unclipped: float) -> OffPolicyEstimate:
        """The result, and a warning where too few events carry it."""
        n, squares = len(self.used), float((self.used**2).sum())
        effective = float(self.used.sum()) ** 2 / squares if squares else 0.0
        low_overlap = effective < self.min_effective_share * n
        if low_overlap:
            logger.warning(
                "%s: %s events weigh as %.1f only, since the policies differ so much; neither the value nor its "
                "interval is to be trusted. Clip the weights, or log with a policy that is closer to the target.",
                name,
                f"{n:,}",
                effective,
            )
        half = float(stats.norm.ppf((1 + self.confidence) / 2)) * error
        return OffPolicyEstimate(
            value=value,
            low=value - half,
            high=value + half,
            confidence=self.confidence,
            n_events=n,
            effective_sample_size=effective,
            low_overlap=low_overlap,
            mean_weight=float(self.whole.mean()),
            clipping_bias=value - unclipped,
        )


def _mean_estimate(
    name: str, terms: NDArray[np.float64], unclipped: NDArray[np.float64], weights: _Weights
) -> OffPolicyEstimate:
    error = float(terms.std(ddof=1) / np.sqrt(len(terms)))
    return weights.estimate(name, float(terms.mean()), error, float(unclipped.mean()))


def _check(name: str, values: Values, n_events: int) -> None:
    if values.shape != (n_events,):
        raise InputError(f"{name} has shape {values.shape} for {n_events:,} rewards: each event needs one.")
    n_unusable = int((~np.isfinite(values)).sum())
    if n_unusable:
        raise InputError(
            f"{n_unusable:,} of {n_events:,} values of {name} are NaN or infinite: leave those events out."
        )
