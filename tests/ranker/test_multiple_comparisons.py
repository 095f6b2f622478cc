"""Tests of many systems: exact where that can be counted, honest about chance, and corrected for their number."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from encoders.errors import InputError
from ranker.evaluation import compare_systems, holm, paired_bootstrap, sign_flip_test


def test_a_few_users_get_the_exact_p_value() -> None:
    differences = np.array([0.5, 0.25, -0.125, 0.375, 0.0, 0.25])
    observed = abs(differences.mean())
    means = [abs(np.mean(differences * signs)) for signs in itertools.product([-1, 1], repeat=6)]
    exact = np.mean([value >= observed - 1e-12 for value in means])
    assert sign_flip_test(differences, seed=0) == pytest.approx(exact)
    assert sign_flip_test(differences, seed=1) == sign_flip_test(-differences, seed=2)


def test_many_users_get_what_the_t_test_says() -> None:
    differences = np.random.default_rng(0).normal(0.15, 1, 400)
    expected = stats.ttest_1samp(differences, 0).pvalue
    assert 0.02 < expected < 0.2
    assert sign_flip_test(differences, seed=0) == pytest.approx(expected, abs=0.01)


def test_equal_systems_are_found_different_as_rarely_as_promised() -> None:
    rng = np.random.default_rng(0)
    p_values = [sign_flip_test(rng.exponential(size=11) - rng.exponential(size=11), seed=rng) for _ in range(300)]
    assert np.mean(np.array(p_values) <= 0.1) < 0.1 + 3 * np.sqrt(0.1 * 0.9 / 300)
    assert stats.kstest(p_values, "uniform").pvalue > 0.001


def test_no_difference_at_all_is_no_evidence_and_a_sure_one_is_never_zero() -> None:
    assert sign_flip_test(np.zeros(50), seed=0) == 1
    assert 0 < sign_flip_test(np.ones(50), seed=0) <= 2 / 10_000


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.sampled_from([0.01, 0.05, 0.3]))
def test_holm_rejects_what_the_step_down_rejects(p_values: list[float], alpha: float) -> None:
    left, rejected = list(range(len(p_values))), set()
    while left:
        smallest = min(left, key=p_values.__getitem__)
        if p_values[smallest] * len(left) > alpha:
            break
        rejected.add(smallest)
        left.remove(smallest)
    adjusted = holm(np.array(p_values))
    assert set(np.flatnonzero(adjusted <= alpha)) == rejected
    assert ((adjusted >= p_values) & (adjusted <= 1)).all()


def test_holm_by_pencil() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.5])).tolist() == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm(np.array([])).tolist() == []


def test_a_table_has_each_system_against_the_baseline_over_the_same_users() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(300)
    values = {"same": base + rng.normal(0, 0.1, 300), "base": base, "better": base + rng.normal(0.05, 0.1, 300)}
    table = compare_systems(values, "base", seed=4).set_index("system")
    assert list(table.index) == ["same", "better"]
    for name, row in table.iterrows():
        paired = paired_bootstrap(base, values[str(name)], seed=4)
        assert (row["difference"], row["low"], row["high"]) == (paired.difference, paired.low, paired.high)
        assert (row["mean_before"], row["mean_after"]) == (base.mean(), values[str(name)].mean())
        assert row["n_users"] == 300
    np.testing.assert_array_equal(table["p_holm"], holm(table["p_value"].to_numpy()))
    assert table.loc["better", "p_holm"] < 0.001 < 0.05 < table.loc["same", "p_holm"]
    assert table.loc["better", "low"] > 0


def test_the_same_seed_gives_the_same_table() -> None:
    values = {name: np.random.default_rng(seed).random(50) for seed, name in enumerate("abc")}
    first, second = (compare_systems(values, "a", seed=1, confidence=0.8) for _ in range(2))
    assert first.equals(second)
    assert (first["confidence"] == 0.8).all()


def test_what_cannot_be_compared_is_refused_with_a_reason() -> None:
    values = {"a": np.array([0.1, 0.2, 0.3]), "b": np.array([0.1, np.nan, 0.3])}
    with pytest.raises(InputError, match="No system 'c' was measured, only a, b"):
        compare_systems(values, "c", seed=0)
    with pytest.raises(InputError, match="1 of 3 values of b are NaN"):
        compare_systems(values, "a", seed=0)
    with pytest.raises(InputError, match="'a' is the only system"):
        compare_systems({"a": values["a"]}, "a", seed=0)
    with pytest.raises(InputError, match="before has 3 users and after 2"):
        compare_systems({"a": values["a"], "b": values["a"][:2]}, "a", seed=0)
    with pytest.raises(InputError, match="two users or more"):
        sign_flip_test(np.array([0.1]), seed=0)
    for wrong in (np.array([1.1]), np.array([-0.1]), np.array([np.nan]), np.array([[0.1]])):
        with pytest.raises(InputError, match="from 0 to 1"):
            holm(wrong)
