"""Judgement: shares of the right mean, and words that say no more than the intervals do."""

import numpy as np
import pytest

from bench.judging import FUSED, full_model, quality, quantization_losses, row_losses, smallest_sufficient
from bench.variants import every_variant

USERS = 400


@pytest.fixture
def users():
    return np.random.default_rng(0).random(USERS)


def ndcg_of(users, **losses):
    """Each variant loses a share of the full model's NDCG, by name with underlines."""
    return {name.replace("_", " "): users * (1 - loss) for name, loss in losses.items()}


def test_differences_are_shares_of_the_mean_that_is_compared_with(users) -> None:
    variants = every_variant([2, 3])[:2]
    noise = np.random.default_rng(1).normal(0, 0.05, USERS)
    ndcg = {FUSED: users * 0.5, "split 2": users + noise, "split 3": users}
    fused, two, three = quality([{"variant": "split 2"}, {"variant": "split 3"}], ndcg, full_model(variants).name)
    assert (three["vs_full"], three["vs_full_low"], three["vs_full_high"]) == (0, 0, 0)
    assert two["vs_full"] == pytest.approx(noise.mean() / users.mean())
    error = noise.std() / np.sqrt(USERS) / users.mean()
    assert two["vs_full_high"] - two["vs_full_low"] == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert fused["vs_full"] == pytest.approx(-0.5)
    assert three["vs_fused"] == pytest.approx(1)
    assert (two["ndcg"], two["users"]) == (pytest.approx((users + noise).mean()), USERS)


def test_the_full_model_has_the_most_layers_and_every_token() -> None:
    assert full_model(every_variant([1, 2])).name == "split 2"
    assert full_model(every_variant([1])).name == "split 1"


def test_the_smallest_that_loses_little_enough_is_named(users) -> None:
    variants = [v for v in every_variant([1, 2, 6]) if v.usual]
    losses = {"split 1": 0.02, "split 2, 4 vectors": 0.009, "split 2, 8 vectors": 0.0, "split 2": 0.0, "split 6": 0.0}
    words = smallest_sufficient(variants, {name: users * (1 - loss) for name, loss in losses.items()})
    assert "the full model, split 6, is split 2, 4 vectors: -0.90% (" in words
    assert "excludes a loss of more than 1%" in words


def test_a_wide_interval_is_not_said_to_exclude_the_loss(users) -> None:
    noise = np.random.default_rng(1).normal(0, 0.2, USERS)
    words = smallest_sufficient(every_variant([2, 3])[:2], {"split 2": users + noise - noise.mean(), "split 3": users})
    assert "is split 2: " in words
    assert "does not exclude a loss of more than 1%" in words


def test_a_better_smaller_model_is_sufficient(users) -> None:
    words = smallest_sufficient(every_variant([3, 4]), ndcg_of(users, split_3=-0.3, split_4=0))
    assert "is split 3: +30.00%" in words


def test_it_is_said_where_no_smaller_model_is_sufficient(users) -> None:
    words = smallest_sufficient(every_variant([3, 4]), ndcg_of(users, split_3=0.3, split_4=0))
    assert words.startswith("Every smaller dial loses more than 1%")
    assert smallest_sufficient(every_variant([4]), {"split 4": users}).startswith("There is no smaller variant")


def test_the_loss_of_quantization_is_told_with_and_without_training(users) -> None:
    ndcg = {"split 1, float32 states": users, "split 1, int8 after training": users * 0.9, "split 1": users * 0.99}
    after, learned, won_back = quantization_losses(every_variant([1]), ndcg)
    assert "-10.00% (" in after
    assert "-1.00% (" in learned
    assert "+10.00% (" in won_back


def test_nothing_is_told_of_precisions_that_were_not_tried(users) -> None:
    assert quantization_losses(every_variant([2])[:1], {"split 2": users}) == []


def test_int8_rows_are_compared_with_float16_ones_of_the_same_dial(users) -> None:
    ndcg = ndcg_of(users, split_1=0.0, split_2=0.3)
    ndcg |= {"split 1, int8 rows": users * 0.97}
    ndcg |= {"split 2, 8 vectors": users * 0.5, "split 2, 8 vectors, int8 rows": users * 0.5}
    one, two = row_losses([variant for variant in every_variant([1, 2]) if variant.name in ndcg], ndcg)
    assert one.startswith("split 1, int8 rows, against float16 rows: -3.00% (")
    assert two.startswith("split 2, 8 vectors, int8 rows, against float16 rows: +0.00% (")
    assert row_losses(every_variant([3]), ndcg) == []
