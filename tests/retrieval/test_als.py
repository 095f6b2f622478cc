import numpy as np
import pytest
from implicit.cpu.als import AlternatingLeastSquares
from scipy import sparse
from threadpoolctl import threadpool_limits

from encoders.errors import InputError
from retrieval.als import AlsConfig, AlsRetriever
from retrieval.histories import Histories


@pytest.fixture(scope="module")
def als(histories):
    return AlsRetriever.fit(histories, 60, AlsConfig(6, 0.3, 0.7, 3, half_life=None), seed=1)


def dense_solve(als: AlsRetriever, items, confidences):
    """The least squares problem of Hu et al. over the whole catalogue, item by item, in float64."""
    factors = als.item_factors.astype(np.float64)
    confidence, preference = np.ones(len(factors)), np.zeros(len(factors))
    for item, c in zip(items, confidences, strict=True):
        confidence[item] = c if preference[item] == 0 else confidence[item] + c
        preference[item] = 1
    root = np.sqrt(confidence)[:, None]
    penalty = np.sqrt(als.config.regularization) * np.eye(factors.shape[1])
    left = np.vstack([root * factors, penalty])
    right = np.concatenate([root[:, 0] * preference, np.zeros(factors.shape[1])])
    return np.linalg.lstsq(left, right, rcond=None)[0]


def test_fold_in_equals_a_dense_solve(als, histories):
    vectors = als.user_vectors(histories)
    liked = histories.liked()
    for row in range(len(histories)):
        events = slice(liked.indptr[row], liked.indptr[row + 1])
        expected = dense_solve(als, liked.items[events], 1 + als.config.alpha * liked.weights[events])
        np.testing.assert_allclose(vectors[row], expected, atol=1e-4)


def test_fold_in_of_a_changed_history_with_recency_equals_a_dense_solve(als):
    recent = AlsRetriever(als.item_factors, AlsConfig(factors=6, alpha=0.7, regularization=0.3, half_life=2.0))
    items, weights = np.array([4, 9, 4, 30]), np.array([1.0, 3.0, 2.0, 5.0], np.float32)
    history = Histories.from_rows(np.zeros(4, np.int64), items, weights, np.arange(4), 1)
    confidences = (1 + 0.7 * weights) * 0.5 ** (np.array([3, 2, 1, 0]) / 2)
    np.testing.assert_allclose(recent.user_vectors(history)[0], dense_solve(recent, items, confidences), atol=1e-4)


@pytest.mark.parametrize("n_items", [32, 64, 65, 200, 512])
def test_fold_in_of_a_long_history_equals_a_dense_solve(n_items):
    rng = np.random.default_rng(n_items)
    als = AlsRetriever(rng.normal(size=(600, 32)).astype(np.float32), AlsConfig(factors=32, half_life=None))
    items, weights = rng.permutation(600)[:n_items], rng.uniform(1, 5, n_items).astype(np.float32)
    history = Histories.from_rows(np.zeros(n_items, np.int64), items, weights, np.arange(n_items), 1)
    expected = dense_solve(als, items, 1 + als.config.alpha * weights)
    np.testing.assert_allclose(als.user_vectors(history)[0], expected, atol=1e-4)


def test_weights_that_no_factors_fit_are_told():
    rng = np.random.default_rng(0)
    weights = rng.choice([1, 1e36], 200).astype(np.float32)
    histories = Histories.from_rows(rng.integers(0, 20, 200), rng.integers(0, 30, 200), weights, np.arange(200), 20)
    with pytest.raises(InputError, match="als: the factors are no numbers, with weights of events up to"):
        AlsRetriever.fit(histories, 30, AlsConfig(factors=6), seed=0)


def test_training_equals_implicit_on_the_same_confidences(als, histories):
    liked = histories.liked()
    confidence = sparse.csr_matrix(liked.matrix(1 + np.float32(0.7) * liked.weights, 60))
    with threadpool_limits(1, "blas"):
        peer = AlternatingLeastSquares(factors=6, regularization=0.3, alpha=1.0, iterations=3, random_state=1)
        peer.fit(confidence, show_progress=False)
    np.testing.assert_allclose(als.item_factors, peer.item_factors, atol=1e-5)


def test_fold_in_of_a_training_history_is_near_the_trained_user_vector(histories):
    config = AlsConfig(6, iterations=60, half_life=None)
    als = AlsRetriever.fit(histories, 60, config, seed=0)
    again = AlsRetriever.fit(histories, 60, AlsConfig(6, iterations=61, half_life=None), seed=0)
    first, second = als.user_vectors(histories), again.user_vectors(histories)
    np.testing.assert_allclose(first @ als.item_factors.T, second @ again.item_factors.T, atol=0.02)


def test_a_newer_event_weighs_more_with_a_half_life(als):
    recent = AlsRetriever(als.item_factors, AlsConfig(factors=6, alpha=0.7, regularization=0.3, half_life=1.0))
    one = Histories.from_rows(np.zeros(2, np.int64), np.array([4, 9]), np.ones(2, np.float32), np.arange(2), 1)
    other = Histories.from_rows(np.zeros(2, np.int64), np.array([9, 4]), np.ones(2, np.float32), np.arange(2), 1)
    newest_last, newest_first = recent.user_vectors(one)[0], recent.user_vectors(other)[0]
    assert newest_last @ als.item_factors[9] > newest_first @ als.item_factors[9]
    assert not np.allclose(newest_last, newest_first)
