"""What the texts of items that nobody took let expect of them."""

import numpy as np
import pytest
from sources import N_ITEMS, NEW

from retrieval.als import AlsConfig, AlsRetriever
from retrieval.candidates import Requests
from retrieval.cold_start import TEMPERATURE, factors_from_texts, shares_from_texts
from retrieval.popularity import PopularityConfig, PopularityRetriever
from retrieval.transitions import TransitionConfig, TransitionRetriever


def test_a_linear_dependence_on_texts_is_found_and_items_that_were_taken_keep_their_factors():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 5)).astype(np.float32)
    factors = (vectors @ rng.normal(size=(5, 3)) + 2).astype(np.float32)
    counts = rng.integers(1, 9, 200)
    counts[::10] = 0
    known = np.where(counts[:, None] > 0, factors, 0)
    filled = factors_from_texts(known, vectors, counts, penalty=1e-6)
    np.testing.assert_allclose(filled, factors, atol=1e-4)
    np.testing.assert_array_equal(filled[counts > 0], known[counts > 0])
    assert not known[counts == 0].any()  # its input is left as it was


def test_the_map_is_ridge_regression_in_which_an_item_counts_as_often_as_it_was_taken():
    rng = np.random.default_rng(1)
    vectors, factors = rng.normal(size=(30, 4)), rng.normal(size=(30, 2))
    counts = rng.integers(1, 6, 30)
    counts[-1] = 0
    repeated = np.repeat(np.arange(29), counts[:29])  # the same regression, an event at a time
    centre, mean = vectors[repeated].mean(axis=0), factors[repeated].mean(axis=0)
    x = np.vstack([vectors[repeated] - centre, np.sqrt(3.0 * counts[:29].mean()) * np.eye(4)])
    y = np.vstack([factors[repeated] - mean, np.zeros((4, 2))])
    expected = (vectors[-1] - centre) @ np.linalg.lstsq(x, y, rcond=None)[0] + mean
    filled = factors_from_texts(factors.astype(np.float32), vectors.astype(np.float32), counts, penalty=3.0)
    np.testing.assert_allclose(filled[-1], expected, atol=1e-5)


def test_the_higher_the_penalty_the_closer_a_new_item_is_to_the_average_event():
    rng = np.random.default_rng(2)
    vectors, factors = rng.normal(size=(40, 4)).astype(np.float32), rng.normal(size=(40, 2)).astype(np.float32)
    counts = np.arange(40)
    average = np.average(factors, axis=0, weights=counts)
    far = [np.linalg.norm(factors_from_texts(factors, vectors, counts, p)[0] - average) for p in (0.1, 10.0, 1e9)]
    assert far[0] > far[1] > far[2]
    assert far[2] < 1e-5


@pytest.mark.parametrize("counts", [np.zeros(4, np.int64), np.ones(4, np.int64)])
def test_where_nothing_or_everything_was_taken_factors_stay_as_they_are(counts):
    factors = np.arange(8, dtype=np.float32).reshape(4, 2)
    assert factors_from_texts(factors, np.eye(4, dtype=np.float32), counts, 1.0) is factors


@pytest.mark.parametrize("given", [True, False])
def test_als_proposes_new_items_where_their_texts_are_given(without, vectors, given):
    config = AlsConfig(factors=6, iterations=3, text_penalty=1.0)
    als = AlsRetriever.fit(without, N_ITEMS, config, 0, vectors if given else None)
    everything = Requests(without, np.ones(N_ITEMS, np.bool_))
    assert np.isin(als.retrieve(everything, N_ITEMS).items, NEW).any() == given
    scores = als.score(everything, np.tile(NEW, (len(without), 1)))
    assert np.isfinite(scores[without.liked().lengths > 0]).all() == given


def test_als_and_popularity_can_be_told_to_leave_new_items_out(without, vectors):
    als = AlsRetriever.fit(without, N_ITEMS, AlsConfig(factors=6, text_penalty=None), 0, vectors)
    popularity = PopularityRetriever.fit(without, N_ITEMS, PopularityConfig(text_penalty=None), vectors)
    assert not als.item_factors[NEW].any()
    assert not popularity.item_scores[NEW].any()


def test_new_items_are_expected_to_be_as_popular_as_what_is_like_them(without, vectors):
    popularity = PopularityRetriever.fit(without, N_ITEMS, PopularityConfig(), vectors)
    counted = PopularityRetriever.fit(without, N_ITEMS, PopularityConfig(text_penalty=None))
    others = np.setdiff1d(np.arange(N_ITEMS), NEW)
    np.testing.assert_array_equal(popularity.item_scores[others], counted.item_scores[others])
    assert ((popularity.item_scores[NEW] > 0) & (popularity.item_scores[NEW] < counted.item_scores.max())).all()


def test_shares_of_a_new_item_are_those_of_the_nearest_taken_ones_and_add_up_to_one():
    angles = np.array([0.0, 0.1, 0.3, 2.0, 0.05])  # the last item is new, and so is the one before it
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    shares = shares_from_texts(vectors, np.array([1, 5, 2, 0, 0]), 2, seed=0).toarray()
    np.testing.assert_array_equal(shares[:, :3], np.eye(5)[:, :3])
    assert shares[3:].sum() == 0  # a new item has nothing to give
    np.testing.assert_allclose(shares[:, 3:].sum(axis=0), 1)
    np.testing.assert_allclose(shares[:, 4], [0.5, 0.5, 0, 0, 0], atol=1e-6)
    odds = np.exp((np.cos(1.7) - np.cos(1.9)) / TEMPERATURE)  # of the item at .3 against that at .1
    assert shares[2, 3] == pytest.approx(odds / (1 + odds), rel=1e-4)


@pytest.mark.parametrize(("counts", "neighbours"), [([0, 0, 0], 2), ([1, 2, 3], 2), ([1, 0, 3], 0)])
def test_where_there_is_nobody_to_share_with_items_keep_their_own(counts, neighbours):
    shares = shares_from_texts(np.eye(3, dtype=np.float32), np.array(counts), neighbours, seed=0).toarray()
    np.testing.assert_array_equal(shares, np.diag(np.array(counts) > 0))


def test_a_new_item_follows_and_is_followed_as_its_twin_by_text_is(without, vectors):
    twins = vectors.copy()
    old = np.array([5, 30])
    twins[NEW] = vectors[old]
    config = TransitionConfig(neighbours=N_ITEMS, text_neighbours=1, shrinkage=1.0)
    counted = TransitionRetriever.fit(without, N_ITEMS, config).weights.toarray()
    weights = TransitionRetriever.fit(without, N_ITEMS, config, 0, twins).weights.toarray()
    assert not counted[:, NEW].any()
    others = np.setdiff1d(np.arange(N_ITEMS), [*NEW, *old])
    assert counted[others][:, old].any()
    np.testing.assert_allclose(weights[others][:, NEW], counted[others][:, old], rtol=1e-6)
    np.testing.assert_allclose(weights[NEW][:, others], counted[old][:, others], rtol=1e-6)
    taken = np.setdiff1d(np.arange(N_ITEMS), NEW)
    np.testing.assert_allclose(weights[np.ix_(taken, taken)], counted[np.ix_(taken, taken)], rtol=1e-6)


@pytest.mark.parametrize("text_neighbours", [0, 5])
def test_transitions_propose_new_items_unless_told_not_to(without, vectors, text_neighbours):
    config = TransitionConfig(text_neighbours=text_neighbours)
    transitions = TransitionRetriever.fit(without, N_ITEMS, config, 0, vectors)
    everything = Requests(without, np.ones(N_ITEMS, np.bool_))
    assert np.isin(transitions.retrieve(everything, N_ITEMS).items, NEW).any() == (text_neighbours > 0)
    scores = transitions.score(everything, np.tile(NEW, (len(without), 1)))
    assert np.isfinite(scores[without.liked().lengths > 0]).all() == (text_neighbours > 0)
