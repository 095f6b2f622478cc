"""Bootstrap intervals: reproducible, right as often as they say, and calm where nothing varies."""

import math

import numpy as np
import pytest

from encoders.errors import InputError
from ranker.evaluation import bootstrap_mean, paired_bootstrap


def test_the_interval_agrees_with_the_normal_one_on_many_users() -> None:
    values = np.random.default_rng(0).random(5_000)
    found = bootstrap_mean(values, seed=1)
    half = 1.959964 * values.std() / math.sqrt(len(values))
    assert found.mean == values.mean()
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05 * half)


def test_the_interval_holds_the_true_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    intervals = [bootstrap_mean(rng.random(60), seed=rng, confidence=0.8) for _ in range(150)]
    share = np.mean([interval.low <= 0.5 <= interval.high for interval in intervals])
    assert 0.7 < share < 0.9  # three standard errors of 150 trials


def test_pairing_takes_out_how_easy_users_are() -> None:
    rng = np.random.default_rng(0)
    before = rng.random(500)  # users differ a lot
    after = before + 0.01 + rng.normal(0, 0.01, 500)  # the change is small and steady
    paired = paired_bootstrap(before, after, seed=1)
    assert 0 < paired.low < paired.difference < paired.high
    assert paired.difference == pytest.approx(paired.mean_after - paired.mean_before)
    assert paired.relative == pytest.approx(paired.difference / before.mean())
    assert bootstrap_mean(after, seed=1).low < before.mean()  # unpaired, nothing would be seen


def test_swapping_the_systems_mirrors_the_interval() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.random(200), rng.random(200)
    there, back = paired_bootstrap(before, after, seed=3), paired_bootstrap(after, before, seed=3)
    assert (back.low, back.difference, back.high) == pytest.approx((-there.high, -there.difference, -there.low))


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(0).random(100)
    assert bootstrap_mean(values, seed=5) == bootstrap_mean(values, seed=5)
    assert bootstrap_mean(values, seed=5) != bootstrap_mean(values, seed=6)


@pytest.mark.parametrize("change", [0.0, 0.25])
def test_equal_differences_give_one_point_without_a_warning(change: float) -> None:
    before = np.array([0.0, 0.5, 0.25, 1.0])
    found = paired_bootstrap(before, before + change, seed=0)
    assert (found.low, found.difference, found.high) == (change, change, change)


def test_the_relative_difference_to_nothing_is_not_a_number() -> None:
    assert math.isnan(paired_bootstrap(np.zeros(3), np.ones(3), seed=0).relative)


def test_results_read_as_one_line() -> None:
    before, after = np.array([0.1, 0.2, 0.3]), np.array([0.2, 0.3, 0.4])
    assert str(paired_bootstrap(before, after - 0.0, seed=0)).startswith("0.2000 → 0.3000: +0.1000 (+50.0%; 95%: ")
    assert str(bootstrap_mean(np.ones(3), seed=0)) == "1.0000 (95%: 1.0000 to 1.0000; 3 users)"


def test_what_cannot_be_compared_is_refused_with_a_reason() -> None:
    values = np.array([0.1, 0.2, 0.3])
    with pytest.raises(InputError, match="before has 3 users and after 2"):
        paired_bootstrap(values, values[:2], seed=0)
    with pytest.raises(InputError, match="1 of 3 values of after are NaN"):
        paired_bootstrap(values, np.array([0.1, np.nan, 0.2]), seed=0)
    with pytest.raises(InputError, match="confidence is 95"):
        bootstrap_mean(values, seed=0, confidence=95)
    with pytest.raises(InputError, match="two users or more"):
        bootstrap_mean(values[:1], seed=0)


def test_values_of_one_user_are_resampled_together() -> None:
    rng = np.random.default_rng(3)
    means, counts = rng.random(40), rng.integers(1, 9, 40)
    users, values = np.repeat(np.arange(40), counts), np.repeat(means, counts)
    found = bootstrap_mean(values, seed=0, users=rng.permutation(40)[users])
    assert found.n_users == 40
    assert found.mean == pytest.approx(values.mean())
    drawn = [np.concatenate([values[users == user] for user in rng.integers(0, 40, 40)]).mean() for _ in range(2000)]
    assert [found.low, found.high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.015)
    independent = bootstrap_mean(values, seed=0)
    assert found.high - found.low > 1.5 * (independent.high - independent.low)
    paired = paired_bootstrap(values, values + np.repeat(rng.normal(0.1, 0.05, 40), counts), seed=0, users=users)
    assert paired.low > 0
    assert paired.n_users == 40
    with pytest.raises(InputError, match="one user's"):
        bootstrap_mean(values, seed=0, users=np.zeros(len(values), np.int64))
