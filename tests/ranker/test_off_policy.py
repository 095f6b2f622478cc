"""Off-policy estimates on a simulated bandit whose true values are known, and against sums in plain Python."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats

from encoders.errors import InputError
from ranker.evaluation import OffPolicyEstimate, doubly_robust, ips, snips

Array = NDArray[np.float64]
N_CONTEXTS, N_ACTIONS = 5, 4


@dataclass
class Bandit:
    """Clicks by context and action, logged by a soft policy; the target prefers what is clicked, at a known value."""

    sharpness: float = 5.0

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        self.clicks = rng.uniform(0.05, 0.6, (N_CONTEXTS, N_ACTIONS))
        self.shown = special.softmax(rng.normal(size=(N_CONTEXTS, N_ACTIONS)), axis=1)
        self.wanted = special.softmax(self.sharpness * self.clicks, axis=1)
        self.value = float((self.wanted * self.clicks).sum(axis=1).mean())

    def log(self, n: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
        contexts = rng.integers(N_CONTEXTS, size=n)
        actions = (rng.random((n, 1)) > self.shown[contexts].cumsum(axis=1)[:, :-1]).sum(axis=1)
        return contexts, actions, (rng.random(n) < self.clicks[contexts, actions]).astype(float)

    def estimates(self, n: int, seed: int, model: Array) -> dict[str, OffPolicyEstimate]:
        contexts, actions, rewards = self.log(n, np.random.default_rng(seed))
        logged = (rewards, self.shown[contexts, actions], self.wanted[contexts, actions])
        expected = (self.wanted * model).sum(axis=1)[contexts]
        return {
            "ips": ips(*logged),
            "snips": snips(*logged),
            "dr": doubly_robust(*logged, model[contexts, actions], expected),
        }


def test_estimates_are_unbiased_and_their_intervals_hold_the_truth_as_often_as_they_say() -> None:
    bandit, trials = Bandit(), 400
    wrong_model = np.full((N_CONTEXTS, N_ACTIONS), 0.3)  # right propensities make up for it
    found = [bandit.estimates(1_000, seed, wrong_model) for seed in range(trials)]
    for name in ("ips", "snips", "dr"):
        values = np.array([one[name].value for one in found])
        assert abs(values.mean() - bandit.value) < 4 * values.std() / math.sqrt(trials)
        held = np.mean([one[name].low <= bandit.value <= one[name].high for one in found])
        assert 0.95 - 4 * 0.011 < held < 0.95 + 4 * 0.011  # standard error of 400 trials
        widths = [(one[name].high - one[name].low) / 2 / 1.959964 for one in found]
        assert np.mean(widths) == pytest.approx(values.std(), rel=0.15)


def test_the_logging_policys_own_value_would_be_wrong() -> None:
    bandit = Bandit()
    _, _, rewards = bandit.log(100_000, np.random.default_rng(0))
    assert abs(rewards.mean() - bandit.value) > 0.02  # so that the tests above show something


def test_a_good_model_makes_doubly_robust_surer_and_a_right_one_makes_up_for_wrong_propensities() -> None:
    bandit = Bandit()
    found = bandit.estimates(20_000, 1, bandit.clicks)
    assert found["dr"].high - found["dr"].low < 0.95 * (found["ips"].high - found["ips"].low)
    contexts, actions, rewards = bandit.log(50_000, np.random.default_rng(2))
    wrong = np.sqrt(bandit.shown[contexts, actions])
    target, expected = bandit.wanted[contexts, actions], (bandit.wanted * bandit.clicks).sum(axis=1)[contexts]
    robust = doubly_robust(rewards, wrong, target, bandit.clicks[contexts, actions], expected)
    assert robust.low - 0.005 < bandit.value < robust.high + 0.005
    assert abs(ips(rewards, wrong, target).value - bandit.value) > 0.05
    assert ips(rewards, wrong, target).mean_weight < 0.8  # which tells


def by_definition(rewards: Array, weights: Array) -> tuple[float, float, float]:
    """IPS, SNIPS and Kish's sample size in plain Python."""
    products = [w * r for w, r in zip(weights, rewards, strict=True)]
    effective = sum(weights) ** 2 / sum(w * w for w in weights)
    return sum(products) / len(products), sum(products) / sum(weights), effective


@pytest.mark.parametrize("clip", [None, 1.5])
def test_estimates_equal_their_definitions(clip: float | None) -> None:
    rng = np.random.default_rng(3)
    rewards, shown, wanted = rng.normal(2, 1, 300), rng.uniform(0.1, 1, 300), rng.uniform(0, 1, 300)
    whole = wanted / shown
    used = np.minimum(whole, clip or np.inf)
    plain, normalised, effective = by_definition(rewards, used)
    by_ips, by_snips = ips(rewards, shown, wanted, clip=clip), snips(rewards, shown, wanted, clip=clip)
    assert by_ips.value == pytest.approx(plain)
    assert by_snips.value == pytest.approx(normalised)
    assert by_ips.effective_sample_size == by_snips.effective_sample_size == pytest.approx(effective)
    assert by_ips.mean_weight == pytest.approx(whole.mean())
    interval = stats.norm.interval(0.95, plain, (used * rewards).std(ddof=1) / math.sqrt(300))
    assert (by_ips.low, by_ips.high) == pytest.approx(interval)
    excess = np.maximum(whole - used, 0)
    assert by_ips.clipping_bias == pytest.approx(-(excess * rewards).mean(), abs=1e-12)
    assert by_snips.clipping_bias == pytest.approx(normalised - by_definition(rewards, whole)[1], abs=1e-12)
    model = rewards + rng.normal(size=300)
    robust = doubly_robust(rewards, shown, wanted, model, np.full(300, 2.0), clip=clip)
    assert robust.value == pytest.approx(2 + (used * (rewards - model)).mean())
    assert robust.clipping_bias == pytest.approx(-(excess * (rewards - model)).mean(), abs=1e-12)


def test_a_policys_own_log_gives_its_mean_reward() -> None:
    rewards, shown = np.array([0.0, 1.0, 1.0, 0.0, 1.0]), np.array([0.2, 0.5, 0.9, 0.4, 1.0])
    for estimate in (ips(rewards, shown, shown), snips(rewards, shown, shown)):
        assert estimate.value == pytest.approx(0.6)
        assert (estimate.effective_sample_size, estimate.mean_weight, estimate.clipping_bias) == (5, 1, 0)


def test_too_few_effective_events_are_flagged_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    rewards, shown = np.ones(1_000), np.full(1_000, 0.5)
    wanted = np.zeros(1_000)
    wanted[:8] = 1
    with caplog.at_level(logging.WARNING, "ranker"):
        found = ips(rewards, shown, wanted)
        assert found.low_overlap
        assert found.effective_sample_size == 8
        assert "IPS: 1,000 events weigh as 8.0 only" in caplog.text
        assert str(found).endswith("1,000 events that weigh as 8, too few)")
        caplog.clear()
        assert not snips(rewards, shown, wanted, min_effective_share=0.008).low_overlap
        assert not ips(rewards, shown, shown).low_overlap
        assert caplog.text == ""
    nothing = ips(rewards, shown, np.zeros(1_000))
    assert (nothing.value, nothing.effective_sample_size, nothing.low_overlap) == (0, 0, True)


def test_clipping_lowers_the_variance_and_says_by_what_it_changed_the_value() -> None:
    bandit = Bandit(sharpness=15)
    contexts, actions, rewards = bandit.log(5_000, np.random.default_rng(0))
    logged = (rewards, bandit.shown[contexts, actions], bandit.wanted[contexts, actions])
    whole, clipped = ips(*logged), ips(*logged, clip=2)
    assert clipped.high - clipped.low < whole.high - whole.low
    assert clipped.effective_sample_size > whole.effective_sample_size
    assert clipped.clipping_bias == pytest.approx(clipped.value - whole.value)
    assert clipped.clipping_bias < 0


REWARDS, HALVES = np.array([0.0, 1.0]), np.array([0.5, 0.5])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ips(REWARDS, np.array([0.0, 0.5]), HALVES),
            r"1 of 2 propensities .* \(0, 1\] \(first: 0.0 of event 0",
        ),
        (lambda: snips(REWARDS, np.array([0.5, 1.5]), HALVES), r"\(first: 1.5 of event 1"),
        (lambda: ips(REWARDS, np.array([0.5, -0.5]), HALVES), r"\(first: -0.5 of event 1"),
        (lambda: ips(REWARDS, np.array([0.5, np.nan]), HALVES), "1 of 2 values of propensities are NaN"),
        (lambda: ips(np.array([0.0, np.inf]), HALVES, HALVES), "1 of 2 values of rewards are NaN or infinite"),
        (lambda: ips(REWARDS, HALVES, np.array([0.5, 1.1])), "target goes from 0.5 to 1.1"),
        (lambda: ips(REWARDS, HALVES[:1], HALVES), r"propensities has shape \(1,\) for 2 rewards"),
        (lambda: ips(REWARDS[:1], HALVES[:1], HALVES[:1]), "two events or more"),
        (lambda: ips(REWARDS, HALVES, HALVES, clip=0), "clip is 0"),
        (lambda: ips(REWARDS, HALVES, HALVES, clip=math.nan), "clip is nan"),
        (lambda: ips(REWARDS, HALVES, HALVES, confidence=95), "confidence is 95"),
        (lambda: ips(REWARDS, HALVES, HALVES, min_effective_share=5), "min_effective_share is 5"),
        (lambda: snips(REWARDS, HALVES, np.zeros(2)), "probability 0 for every logged action"),
        (lambda: doubly_robust(REWARDS, HALVES, HALVES, HALVES[:1], HALVES), r"predicted has shape \(1,\)"),
        (lambda: doubly_robust(REWARDS, HALVES, HALVES, HALVES, HALVES * np.nan), "2 of 2 values of expected are NaN"),
    ],
)
def test_what_cannot_be_estimated_is_refused_in_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
