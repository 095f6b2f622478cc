"""The FAISS index over item vectors, its kind chosen by catalogue size and kept only if its recall holds."""

from __future__ import annotations

import logging
from typing import Annotated, Literal

import faiss
import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

logger = logging.getLogger(__name__)

IndexKind = Literal["flat", "hnsw", "ivf"]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class IndexConfig:
    """Settings of the vector index.

    Attributes:
        kind: "flat" (exact), "hnsw", "ivf", or "auto": flat below ``hnsw_from`` items, HNSW from there,
            IVF from ``ivf_from`` items (HNSW's links would weigh more than the vectors are worth).
        hnsw_from: Catalogue size from which an exact scan is too slow for a request.
        ivf_from: Catalogue size from which HNSW takes too much memory and build time.
        min_recall: Recall@10 against the exact answer that an approximate index must reach on held-out queries;
            its search effort is doubled until it does.
        threads: Threads that build the index. More than one makes an HNSW graph differ from build to build.
    """

    kind: Literal["auto", "flat", "hnsw", "ivf"] = "auto"
    hnsw_from: Annotated[int, Field(ge=1)] = 50_000
    ivf_from: Annotated[int, Field(ge=1)] = 2_000_000
    min_recall: Annotated[float, Field(gt=0, le=1)] = 0.98
    threads: Annotated[int, Field(ge=1)] = 1


@dataclass(frozen=True)
class IndexReport:
    """What was built: its kind, the recall@10 measured on ``queries`` held-out queries, and its search effort.

    ``effort`` is HNSW's efSearch or IVF's nprobe; 0 for an exact index.
    """

    kind: IndexKind
    recall: float
    queries: int
    effort: int


HNSW_LINKS = 32
RECALL_QUERIES = 256
LEAST_EFFORT = 8


def build_index(vectors: NDArray[np.float32], config: IndexConfig, seed: int) -> tuple[faiss.Index, IndexReport]:
    """Build an inner-product index over unit vectors (I, dim).

    Returns:
        The index and what was measured. An approximate index that cannot reach ``min_recall`` at any effort is
        replaced by the exact one, with a warning that holds the figures.
    """
    n_items, dim = vectors.shape
    kind = _kind(n_items, config)
    exact = faiss.IndexFlatIP(dim)
    exact.add(vectors)
    if kind == "flat":
        return exact, IndexReport("flat", 1.0, 0, 0)

    index = _hnsw(dim) if kind == "hnsw" else _ivf(vectors)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(config.threads)
    try:
        index.add(vectors)
    finally:
        faiss.omp_set_num_threads(threads)

    queries = _held_out_queries(vectors, np.random.default_rng(seed))
    k = min(10, n_items)
    truth = exact.search(queries, k)[1]
    most = n_items if kind == "hnsw" else index.nlist
    recall, effort = 0.0, 0
    while recall < config.min_recall and effort < most:
        effort = min(most, max(LEAST_EFFORT, 2 * effort))
        _set_effort(index, kind, effort)
        found = index.search(queries, k)[1]
        recall = float(np.mean([np.isin(t, f).mean() for t, f in zip(truth, found, strict=True)]))
    if recall < config.min_recall:
        logger.warning(
            "The %s index over %d items reached recall@10 %.4f, below the %.4f asked for; an exact one is used.",
            kind, n_items, recall, config.min_recall,
        )  # fmt: skip
        return exact, IndexReport("flat", 1.0, 0, 0)
    return index, IndexReport(kind, recall, len(queries), effort)


def _kind(n_items: int, config: IndexConfig) -> IndexKind:
    if config.kind != "auto":
        return config.kind
    if n_items >= config.ivf_from:
        return "ivf"
    return "hnsw" if n_items >= config.hnsw_from else "flat"


def _hnsw(dim: int) -> faiss.Index:
    return faiss.IndexHNSWFlat(dim, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)


def _ivf(vectors: NDArray[np.float32]) -> faiss.Index:
    n_items, dim = vectors.shape
    lists = max(1, int(4 * np.sqrt(n_items)))  # the FAISS wiki's guideline: 4·√n to 16·√n
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, min(lists, n_items), faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    return index


def _set_effort(index: faiss.Index, kind: IndexKind, effort: int) -> None:
    if kind == "hnsw":
        index.hnsw.efSearch = effort
    else:
        index.nprobe = effort


def _held_out_queries(vectors: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Means of random pairs of items: like a user's profile, and no vector that the index holds."""
    pairs = rng.integers(len(vectors), size=(RECALL_QUERIES, 2))
    means = vectors[pairs].mean(axis=1)
    queries: NDArray[np.float32] = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return queries
