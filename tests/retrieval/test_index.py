import faiss
import numpy as np
import pytest

from retrieval.index import IndexConfig, build_index


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Clustered unit vectors, as texts give."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(30, 16))
    raw = (centres[rng.integers(30, size=3000)] + 0.5 * rng.normal(size=(3000, 16))).astype(np.float32)
    return raw / np.linalg.norm(raw, axis=1, keepdims=True)


@pytest.mark.parametrize(("n", "kind"), [(99, "flat"), (100, "hnsw"), (999, "hnsw"), (1000, "ivf")])
def test_the_kind_follows_the_catalogue_size(vectors, n, kind):
    report = build_index(vectors[:n], IndexConfig(hnsw_from=100, ivf_from=1000), seed=0)[1]
    assert report.kind == kind


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_an_approximate_index_reaches_its_recall_against_brute_force(vectors, kind):
    index, report = build_index(vectors, IndexConfig(kind=kind, min_recall=0.95), seed=0)
    queries = vectors[::17] + 0.05 * np.random.default_rng(1).normal(size=vectors[::17].shape).astype(np.float32)
    truth = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    found = index.search(queries, 10)[1]
    recall = np.mean([np.isin(t, f).mean() for t, f in zip(truth, found, strict=True)])
    assert report.recall >= 0.95
    assert recall >= 0.93  # measured on other queries than the index was tuned with


def test_an_exact_index_is_brute_force(vectors):
    index, report = build_index(vectors, IndexConfig(), seed=0)
    found = index.search(vectors[:50], 5)[1]
    np.testing.assert_array_equal(found, np.argsort(-(vectors[:50] @ vectors.T), axis=1, kind="stable")[:, :5])
    assert (report.kind, report.recall) == ("flat", 1.0)


def test_more_recall_is_paid_for_with_more_effort(vectors):
    low = build_index(vectors, IndexConfig(kind="ivf", min_recall=0.5), seed=0)[1]
    high = build_index(vectors, IndexConfig(kind="ivf", min_recall=0.999), seed=0)[1]
    assert high.effort > low.effort


def test_building_leaves_the_callers_threads_alone(vectors):
    before = faiss.omp_get_max_threads()
    build_index(vectors[:500], IndexConfig(kind="hnsw"), seed=0)
    assert faiss.omp_get_max_threads() == before
