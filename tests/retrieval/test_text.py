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
