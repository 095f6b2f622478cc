from dataclasses import replace

import numpy as np
import pytest
from item_item_oracle import anybody, asked, events_of

from encoders.errors import ArtifactError, ConfigError
from retrieval import ease as module
from retrieval.ease import EaseConfig, EaseRetriever
from retrieval.item_item import BLOCK_ITEMS

N_ITEMS = 60
CONFIG = EaseConfig(half_life=None, regularization=5.0)


def liked_matrix(histories) -> np.ndarray:
    matrix = np.zeros((len(histories), N_ITEMS))
    for row in range(len(histories)):
        for item, _, _ in events_of(histories, row):
            matrix[row, item] = 1
    return matrix


def test_each_item_is_the_ridge_regression_on_all_the_others(histories):
    weights = EaseRetriever.fit(histories, N_ITEMS, CONFIG).weights
    users = liked_matrix(histories)
    for item in range(N_ITEMS):
        others = np.delete(np.arange(N_ITEMS), item)
        left = np.vstack([users[:, others], np.sqrt(5.0) * np.eye(len(others))])
        right = np.concatenate([users[:, item], np.zeros(len(others))])
        np.testing.assert_allclose(weights[others, item], np.linalg.lstsq(left, right, rcond=None)[0], atol=1e-5)
    assert weights.dtype == np.float32
    assert not weights.diagonal().any()


def test_a_catalogue_of_several_blocks_is_solved_as_one():
    n_items = BLOCK_ITEMS + 30
    rng = np.random.default_rng(4)
    likes = [rng.choice(n_items, 40, replace=False).tolist() for _ in range(50)]
    users = np.zeros((50, n_items))
    for row, items in enumerate(likes):
        users[row, items] = 1
    inverse = np.linalg.inv(users.T @ users + 5.0 * np.eye(n_items))
    expected = -inverse / inverse.diagonal()
    np.fill_diagonal(expected, 0)
    weights = EaseRetriever.fit(anybody(*likes), n_items, CONFIG).weights
    np.testing.assert_allclose(weights, expected, atol=1e-6)


def test_the_inverse_takes_the_place_of_its_matrix():
    matrix = np.array([[4.0, 1.0], [1.0, 3.0]])
    inverse = module._inverse(matrix)
    assert np.shares_memory(matrix, inverse)
    np.testing.assert_allclose(inverse, np.array([[3, -1], [-1, 4]]) / 11)


def test_training_counts_a_repeated_item_once_and_scoring_adds_it_up():
    once, often = anybody([1, 2], [2, 3]), anybody([1, 1, 2], [2, 3, 2, 3])
    source = EaseRetriever.fit(once, N_ITEMS, CONFIG)
    np.testing.assert_array_equal(EaseRetriever.fit(often, N_ITEMS, CONFIG).weights, source.weights)
    two = source.score(asked(anybody([1, 1]), N_ITEMS), np.array([[2]]))
    np.testing.assert_allclose(two, 2 * source.weights[1, 2])


def test_a_stronger_event_says_more_only_when_asked_to(histories):
    source = EaseRetriever.fit(histories, N_ITEMS, CONFIG)
    row = int(np.flatnonzero((histories.weights > 1) & (histories.rows > 1))[0])
    history = histories.take(histories.rows[[row]])
    every = np.arange(N_ITEMS)[None]
    doubled = type(history)(history.indptr, history.items, 2 * history.weights, history.times, history.kinds)
    plain = source.score(asked(history, N_ITEMS), every)
    np.testing.assert_array_equal(source.score(asked(doubled, N_ITEMS), every), plain)
    weighted = EaseRetriever(source.weights, replace(CONFIG, weighted=True))
    heavier = weighted.score(asked(history, N_ITEMS), every)
    assert not np.allclose(heavier, plain)
    np.testing.assert_allclose(weighted.score(asked(doubled, N_ITEMS), every), 2 * heavier, rtol=1e-6)


def test_a_catalogue_beyond_the_limit_is_refused_with_what_it_would_take():
    with pytest.raises(ConfigError, match=r"max_items = 59, but the catalogue has 60 items, .* GiB .* 'neighbours'"):
        EaseRetriever.fit(anybody([1, 2]), N_ITEMS, replace(CONFIG, max_items=59))
    with pytest.raises(ConfigError, match=r"30000 items, whose weights take 10\.1 GiB"):
        EaseRetriever.fit(anybody([1, 2]), 30_000, CONFIG)


def test_next_to_no_regularization_is_refused_where_items_are_alike():
    with pytest.raises(ConfigError, match=r"ease\.regularization = 1e-30 is too small"):
        EaseRetriever.fit(anybody([1, 2], [1, 2], [1, 2]), N_ITEMS, replace(CONFIG, regularization=1e-30))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda weights: weights[:-1], "59 × 60 weights"),
        (lambda weights: weights[None], "expected 2 dimensions"),
        (lambda weights: weights.astype(np.float64), "found 2 of float64"),
        (lambda weights: np.where(weights == weights.max(), np.float32(np.nan), weights), "not finite"),
        (lambda weights: np.where(weights == weights.max(), np.float32(np.inf), weights), "not finite"),
    ],
)
def test_damaged_weights_are_refused(damage, reason, histories, tmp_path):
    EaseRetriever.fit(histories, N_ITEMS, CONFIG).save(tmp_path)
    path = tmp_path / "weights.npy"
    np.save(path, damage(np.load(path)))
    with pytest.raises(ArtifactError, match=f"weights.npy: .*{reason}"):
        EaseRetriever.load(tmp_path)
