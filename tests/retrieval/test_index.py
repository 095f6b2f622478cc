import logging

import faiss
import numpy as np
import pytest

from encoders.errors import ArtifactError
from retrieval.candidates import NO_ITEM
from retrieval.index import LEAST_ITEMS, NARROW, IndexConfig, VectorIndex

APPROXIMATE = ["hnsw", "ivf"]


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Clustered unit vectors, as texts give."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(30, 16))
    raw = (centres[rng.integers(30, size=3000)] + 0.5 * rng.normal(size=(3000, 16))).astype(np.float32)
    return raw / np.linalg.norm(raw, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def queries(vectors) -> np.ndarray:
    """Others than an index is tuned with."""
    return vectors[::17] + 0.05 * np.random.default_rng(1).normal(size=vectors[::17].shape).astype(np.float32)


@pytest.fixture(scope="module", params=["flat", *APPROXIMATE])
def index(request, vectors) -> VectorIndex:
    return VectorIndex.build(vectors, IndexConfig(kind=request.param, min_recall=0.95), seed=0)


def recall(index: VectorIndex, queries: np.ndarray, depth: int, allowed: np.ndarray) -> float:
    products = queries @ index.vectors.T
    products[:, ~allowed] = -np.inf
    truth = np.argsort(-products, axis=1)[:, :depth]
    found = index.search(queries, depth, allowed)[0]
    return float(np.mean([np.isin(t, f).mean() for t, f in zip(truth, found, strict=True)]))


@pytest.mark.parametrize(("n", "kind"), [(999, "flat"), (1000, "ivf")])
def test_the_kind_follows_the_catalogue_size(vectors, n, kind):
    assert VectorIndex.build(vectors[:n], IndexConfig(approximate_from=1000), seed=0).report.kind == kind


@pytest.mark.parametrize("share", [1.0, 0.3, NARROW / 2])
def test_an_index_reaches_its_recall_against_brute_force(index, queries, share):
    allowed = np.random.default_rng(2).random(len(index.vectors)) < share
    assert index.report.recall >= 0.95
    assert recall(index, queries, 200 if share > NARROW else 20, allowed) >= 0.93


def test_a_search_leaves_the_number_of_threads_as_it_was(index, queries):
    before, every = faiss.omp_get_max_threads(), np.ones(len(index.vectors), np.bool_)
    for count in (0, 1, 2):
        assert index.search(queries[:count], 7, every)[0].shape == (count, 7)
        assert faiss.omp_get_max_threads() == before


def test_what_is_found_has_its_exact_product_and_comes_best_first(index, queries):
    allowed = np.arange(len(index.vectors)) % 3 > 0
    items, products = index.search(queries, 50, allowed)
    assert allowed[items].all()
    np.testing.assert_allclose(products, np.take_along_axis(queries @ index.vectors.T, items, axis=1), atol=1e-5)
    assert (np.diff(products, axis=1) <= 0).all()
    assert all(len(set(row)) == 50 for row in items.tolist())


@pytest.mark.parametrize("kind", ["flat", *APPROXIMATE])
@pytest.mark.parametrize("share", [1.0, 0.3, NARROW / 2])
def test_a_batch_is_its_rows_one_by_one(vectors, queries, kind, share):
    twins = np.concatenate([vectors[:1000]] * 3)  # of which the last places take one and not another
    index = VectorIndex.build(twins, IndexConfig(kind=kind, min_recall=0.9), seed=0)
    assert index.report.kind == kind
    allowed = np.random.default_rng(2).random(len(twins)) < share
    for depth in (10, 50):
        batch = index.search(queries, depth, allowed)
        one_by_one = [index.search(query[None], depth, allowed) for query in queries]
        for found, alone in zip(batch, zip(*one_by_one, strict=True), strict=True):
            np.testing.assert_array_equal(found, np.concatenate(alone))


@pytest.mark.parametrize("share", [0.1, NARROW / 2])
def test_a_row_that_runs_out_is_filled_up(index, queries, share):
    allowed = np.arange(len(index.vectors)) < share * len(index.vectors)
    count = int(allowed.sum())
    items, products = index.search(queries, count + 50, allowed)
    assert ((items >= 0).sum(axis=1) <= count).all()
    assert (items[:, -50:] == NO_ITEM).all()
    assert (np.isneginf(products) == (items == NO_ITEM)).all()


def test_what_is_too_small_to_learn_codes_from_is_searched_exactly(vectors):
    assert VectorIndex.build(vectors[: LEAST_ITEMS - 1], IndexConfig(kind="ivf"), seed=0).report.kind == "flat"


def test_an_index_that_cannot_reach_its_recall_is_replaced_by_the_exact_one(vectors, caplog):
    noise = np.random.default_rng(0).normal(size=(2000, 64)).astype(np.float32)  # codes tell such items badly apart
    with caplog.at_level(logging.WARNING):
        index = VectorIndex.build(noise, IndexConfig(kind="ivf", min_recall=1.0), seed=0)
    assert index.report.kind == "flat"
    assert "reached recall@200 0." in caplog.text


def test_more_recall_is_paid_for_with_more_effort(vectors):
    low = VectorIndex.build(vectors, IndexConfig(kind="ivf", min_recall=0.5), seed=0).report
    high = VectorIndex.build(vectors, IndexConfig(kind="ivf", min_recall=0.99), seed=0).report
    assert high.effort > low.effort


def test_a_saved_index_finds_the_same(index, queries, tmp_path):
    index.save(tmp_path)
    loaded = VectorIndex.load(tmp_path)
    every = np.ones(len(index.vectors), np.bool_)
    assert loaded.report == index.report
    for found, expected in zip(loaded.search(queries, 50, every), index.search(queries, 50, every), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_an_index_of_another_kind_is_refused(vectors, tmp_path):
    VectorIndex.build(vectors[:700], IndexConfig(kind="ivf"), seed=0).save(tmp_path)
    faiss.write_index(faiss.IndexHNSWFlat(16, 32, faiss.METRIC_INNER_PRODUCT), str(tmp_path / "index.faiss"))
    told = r"IndexHNSWFlat over 0 vectors of length 16, but beside it are \(700, 16\) and a report of 'ivf'"
    with pytest.raises(ArtifactError, match=told):
        VectorIndex.load(tmp_path)


def test_building_leaves_the_callers_threads_alone(vectors):
    before = faiss.omp_get_max_threads()
    VectorIndex.build(vectors[:500], IndexConfig(kind="hnsw"), seed=0)
    assert faiss.omp_get_max_threads() == before
