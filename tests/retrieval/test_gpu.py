"""Exact search on a GPU finds what exact search on the CPU does, and takes over nothing that it cannot do."""

import logging

import faiss
import numpy as np
import pytest

from retrieval.gpu import MOST, on_gpu
from retrieval.index import IndexConfig, VectorIndex

N_ITEMS = MOST + 100


@pytest.fixture(scope="module")
def vectors():
    raw = np.random.default_rng(0).normal(size=(N_ITEMS, 16)).astype(np.float32)
    return raw / np.linalg.norm(raw, axis=1, keepdims=True)


class Device:
    """What FAISS has for GPUs, on the CPU: of the index that it copied, how often it was searched."""

    def __init__(self):
        self.searches = 0

    def __call__(self, resources, device, index):
        assert device == 0
        self.index = index
        return self

    def search(self, queries, depth):
        assert depth <= MOST
        self.searches += 1
        return self.index.search(queries, depth)


class Resources:
    def setTempMemory(self, size):  # noqa: N802 - as FAISS names it
        assert 0 < size < 2**30


@pytest.fixture
def device(monkeypatch):
    """A stand-in for a GPU, where there is none: what takes it and what does not can be told without one."""
    stand_in = Device()
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", Resources, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", stand_in, raising=False)
    return stand_in


@pytest.mark.skipif(faiss.get_num_gpus() == 0, reason="needs FAISS for GPUs, and a GPU")
def test_a_gpu_finds_what_the_cpu_does(vectors):
    index = VectorIndex.build(vectors, IndexConfig(kind="flat"), seed=0)
    assert index._gpu is not None
    items, products = index.search(vectors[:50], 200, np.ones(N_ITEMS, np.bool_))
    exact = np.sort(vectors[:50] @ vectors.T, axis=1)[:, ::-1][:, :200]
    np.testing.assert_allclose(products, exact, atol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(vectors[:50] @ vectors.T, items, axis=1), exact, atol=1e-4)


def test_it_searches_all_items_and_leaves_what_it_cannot_do(vectors, device):
    index = VectorIndex.build(vectors, IndexConfig(kind="flat"), seed=0)
    every, some = np.ones(N_ITEMS, np.bool_), np.arange(N_ITEMS) % 2 == 0
    items, products = index.search(vectors[:5], 20, every)
    assert device.searches == 1
    np.testing.assert_array_equal(items[:, 0], np.arange(5))
    np.testing.assert_allclose(products, np.take_along_axis(vectors[:5] @ vectors.T, items, axis=1), atol=1e-6)
    assert some[index.search(vectors[:5], 20, some)[0]].all()  # it would not read the selector
    assert index.search(vectors[:5], MOST + 1, every)[0].shape == (5, MOST + 1)
    assert device.searches == 1


def test_an_approximate_index_stays_on_the_cpu(vectors, device):
    index = VectorIndex.build(vectors, IndexConfig(kind="ivf"), seed=0)
    assert index.report.kind == "ivf"
    searches = device.searches  # of the exact one, whose answers are the truth that recall is measured by
    index.search(vectors[:5], 20, np.ones(N_ITEMS, np.bool_))
    assert device.searches == searches


def test_a_gpu_without_memory_is_told_and_the_cpu_searches(vectors, device, monkeypatch, caplog):
    def full(resources, index, vectors):
        raise RuntimeError("cudaMalloc failed")

    monkeypatch.setattr(faiss, "index_cpu_to_gpu", full)
    with caplog.at_level(logging.WARNING):
        index = VectorIndex.build(vectors, IndexConfig(kind="flat"), seed=0)
    assert "cudaMalloc failed" in caplog.text
    assert index.search(vectors[:5], 3, np.ones(N_ITEMS, np.bool_))[0][:, 0].tolist() == [0, 1, 2, 3, 4]


def test_no_gpu_is_no_fault(vectors, monkeypatch, caplog):
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    assert on_gpu(faiss.IndexFlatIP(16)) is None
    assert not caplog.records
