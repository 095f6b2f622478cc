"""Popularity: what is counted, and to whom it is told."""

import numpy as np
import pytest
from sources import N_ITEMS

from retrieval.candidates import NO_ITEM, Requests, rank_all
from retrieval.histories import Histories
from retrieval.popularity import MICROSECONDS_PER_DAY, PopularityConfig, PopularityRetriever
from retrieval.trend import TrendRetriever


@pytest.fixture
def log() -> Histories:
    """Two users: four events on the days 0 to 3, the first no sign of liking, and two on the days 0 and 4."""
    rows, items = np.array([0, 0, 0, 0, 1, 1]), np.array([5, 1, 2, 1, 1, 2])
    weights = np.array([0, 1, 1, 1, 1, 1], np.float32)
    return Histories.from_rows(rows, items, weights, np.array([0, 1, 2, 3, 0, 4]) * MICROSECONDS_PER_DAY, 2)


def counted(log: Histories, config: PopularityConfig) -> list[float]:
    return np.expm1(PopularityRetriever.fit(log, 6, config).item_scores).round(4).tolist()


def test_every_sign_of_liking_counts(log):
    assert counted(log, PopularityConfig()) == [0, 3, 2, 0, 0, 0]


def test_an_older_event_counts_half_after_each_half_life(log):
    assert counted(log, PopularityConfig(half_life_days=1)) == [0, round(1 / 2 + 1 / 8 + 1 / 16, 4), 1.25, 0, 0, 0]


def test_only_so_many_of_a_users_first_signs_of_liking_count(log):
    assert counted(log, PopularityConfig(per_user=1)) == [0, 2, 0, 0, 0, 0]
    assert counted(log, PopularityConfig(per_user=2)) == [0, 2, 2, 0, 0, 0]
    assert counted(log, PopularityConfig(per_user=9)) == counted(log, PopularityConfig())


@pytest.mark.parametrize("k", [1, 7, 30])
@pytest.mark.parametrize("exclude_seen", [True, False])
def test_the_best_are_those_of_all_scores_laid_out(k, exclude_seen):
    rng = np.random.default_rng(k)
    lengths = np.array([0, 1, 29, 30, 5, 12])
    rows, items = np.repeat(np.arange(6), lengths), np.concatenate([rng.permutation(30)[:n] for n in lengths])
    log = Histories.from_rows(rows, items, np.ones(len(rows), np.float32), np.arange(len(rows)), 6)
    scores = rng.integers(0, 5, 30).astype(np.float32)
    scores[3:5] = -np.inf
    requests = Requests(log, rng.random(30) < 0.8, exclude_seen)
    found = PopularityRetriever(scores).retrieve(requests, k)
    expected = rank_all("popularity", requests, k, lambda block: np.tile(scores, (len(block), 1)))
    assert np.array_equal(found.items, expected.items)
    assert np.array_equal(found.scores, expected.scores)


def test_a_trend_is_told_to_those_who_liked_something_and_to_nobody_else(histories, requests_):
    config = PopularityConfig(half_life_days=1e-4)
    trend, recent = (kind.fit(histories, N_ITEMS, config) for kind in (TrendRetriever, PopularityRetriever))
    known = histories.liked().lengths > 0
    items, expected = (source.retrieve(requests_, 9).items for source in (trend, recent))
    assert (items[known] == expected[known]).all()
    assert (items[~known] == NO_ITEM).all()
    assert np.isneginf(trend.score(requests_, expected)[~known]).all()
