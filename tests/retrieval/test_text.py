import numpy as np
import pytest

from retrieval.candidates import NO_ITEM, Requests
from retrieval.histories import Histories
from retrieval.index import IndexConfig
from retrieval.queries import Queries
from retrieval.text import TextConfig, TextRetriever


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    raw = np.random.default_rng(0).normal(size=(3000, 16)).astype(np.float32)
    return raw / np.linalg.norm(raw, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
@pytest.mark.parametrize("n_allowed", [0, 1, 12, 140])
def test_a_narrow_filter_loses_nothing_in_any_index(vectors, kind, n_allowed):
    source = TextRetriever.fit(vectors, TextConfig(index=IndexConfig(kind=kind, min_recall=0.9)), seed=0)
    rng = np.random.default_rng(1)
    allowed = np.zeros(len(vectors), np.bool_)
    allowed[rng.permutation(len(vectors))[:n_allowed]] = True
    queries = vectors[:20] + np.float32(0.05)
    requests = Requests(Histories.empty(20), allowed, queries=Queries.without_states(queries))
    exact = queries @ vectors.T
    exact[:, ~allowed] = -np.inf
    truth = np.argsort(-exact, axis=1, kind="stable")[:, :10]
    truth[:, n_allowed:] = NO_ITEM
    np.testing.assert_array_equal(source.retrieve(requests, 10).items, truth)


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
@pytest.mark.parametrize("k", [1, 7, 40])
def test_what_a_user_is_given_does_not_depend_on_the_longest_history_beside_it(vectors, kind, k):
    twins = np.concatenate([vectors[:1000]] * 3)
    source = TextRetriever.fit(twins, TextConfig(index=IndexConfig(kind=kind, min_recall=0.9)), seed=0)
    assert source.index.report.kind == kind
    lengths = np.append(np.arange(1, 24), 300)
    items = np.random.default_rng(1).integers(len(twins), size=lengths.sum())
    rows = np.repeat(np.arange(len(lengths)), lengths)
    histories = Histories.from_rows(rows, items, np.ones(len(items), np.float32), np.arange(len(items)), len(lengths))
    requests = Requests(histories, np.ones(len(twins), np.bool_))
    batch = source.retrieve(requests, k)
    assert (batch.items != NO_ITEM).all()
    for row in range(len(requests)):
        alone = source.retrieve(requests.take(np.array([row])), k)
        np.testing.assert_array_equal(batch.items[row], alone.items[0])
        np.testing.assert_array_equal(batch.scores[row], alone.scores[0])
