"""What is held out to learn from: users of whom nothing is known, and what their first events teach."""

from dataclasses import replace

import numpy as np
import pytest

from ranker import EngineConfig
from ranker.held_out import LEAST_LISTS, first_events, held_out_lists
from retrieval.fusion import FusionConfig
from retrieval.histories import Histories

N_ITEMS, USERS, EVENTS = 60, 120, 12


@pytest.fixture(scope="module")
def log() -> Histories:
    """Whoever comes takes one of three popular items first, which says nothing, and then keeps to one of two halves."""
    rng = np.random.default_rng(0)
    items = []
    for user in range(USERS):
        half = 3 + 28 * (user % 2) + rng.permutation(28)[: EVENTS - 3]
        items.append(np.concatenate([rng.permutation(3), half]))
    rows = np.repeat(np.arange(USERS), EVENTS)
    times = np.tile(np.arange(EVENTS), USERS) * 86_400_000_000
    return Histories.from_rows(rows, np.concatenate(items), np.ones(len(rows), np.float32), times, USERS)


def config(newcomers: float, short: tuple[int, ...] = (3, 6), **fusion: object) -> EngineConfig:
    settings = EngineConfig.from_dict(
        {"sources": ["als", "popularity"], "als": {"factors": 4, "regularization": 1.0, "alpha": 1.0}}
    )
    training = replace(settings.rerank.split.training, newcomers=newcomers)
    split = replace(settings.rerank.split, training=training, depth=20)
    return replace(
        settings, rerank=replace(settings.rerank, split=split), fusion=FusionConfig(short=short, depth=30, **fusion)
    )


VECTORS = np.eye(N_ITEMS, dtype=np.float32)


def test_first_events_are_new_signs_of_liking_that_few_came_before():
    weights = np.array([1, 1, 0, 1, 1, 1, 1, 1, 1], np.float32)
    items = np.array([4, 5, 6, 4, 7, 8, 1, 2, 3])
    histories = Histories.from_rows(np.array([0] * 6 + [1] * 3), items, weights, np.arange(9), 2)
    assert first_events(histories, np.array([0]), 4).tolist() == [1, 4]  # the one between is on an item had before
    assert first_events(histories, np.array([1, 0]), 3).tolist() == [1, 7, 8]
    assert first_events(histories, np.array([1]), 0).tolist() == []


def test_sources_see_nothing_of_newcomers_and_all_but_the_newest_events_of_others(log, monkeypatch):
    fitted = []

    def spied(histories, *others):
        fitted.append(histories)
        return fit_sources(histories, *others)

    from ranker.sources import fit_sources

    monkeypatch.setattr("ranker.held_out.fit_sources", spied)
    lists, _ = held_out_lists(log, VECTORS, None, config(0.25))
    (seen,) = fitted
    strangers = np.flatnonzero(seen.lengths == 0)
    assert len(strangers) == USERS // 4
    assert (np.delete(seen.lengths, strangers) == EVENTS - 5).all()
    of_strangers = np.isin(lists.users, strangers)
    known = lists.requests.histories.lengths
    assert sorted(set(known[of_strangers].tolist())) == [1, 2, 3, 4, 5]
    assert (known[~of_strangers] >= EVENTS - 5).all()
    for at in np.flatnonzero(of_strangers):
        assert lists.chosen[at] == log.items[log.indptr[lists.users[at]] + known[at]]


def test_what_is_popular_weighs_more_where_little_is_known(log):
    _, fused = held_out_lists(log, VECTORS, None, config(0.5))
    assert list(fused.short) == [6, 3]

    def share(weights):
        return weights["popularity"] / sum(weights.values())

    assert share(fused.short[3]) > share(fused.weights)


def test_too_few_lists_of_newcomers_change_no_weights(log):
    few = LEAST_LISTS // 5 / USERS
    lists, fused = held_out_lists(log, VECTORS, None, config(few, (3,)))
    assert 0 < (lists.requests.histories.lengths < 3).sum() < LEAST_LISTS
    assert fused.short == {}


def test_given_weights_are_every_histories(log):
    _, fused = held_out_lists(log, VECTORS, {"als": 1.0, "popularity": 0.5}, config(0.5))
    assert fused.weights == {"als": 1.0, "popularity": 0.5}
    assert fused.short == {}


def test_without_newcomers_only_newest_events_are_held_out(log):
    lists, fused = held_out_lists(log, VECTORS, None, config(0))
    assert (lists.requests.histories.lengths >= EVENTS - 5).all()
    assert fused.short == {}
