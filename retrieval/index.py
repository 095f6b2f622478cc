"""The FAISS index over item vectors: exact while that is quick, and approximate only as far as its recall holds."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import faiss
import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from encoders.errors import ArtifactError
from retrieval.candidates import NO_ITEM, top_k
from retrieval.gpu import MOST, on_gpu
from retrieval.products import every_product, inner_products
from retrieval.storage import load_array, load_settings, save_settings

logger = logging.getLogger(__name__)

IndexKind = Literal["flat", "hnsw", "ivf"]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class IndexConfig:
    """Settings of the vector index.

    Attributes:
        kind: "flat" (exact); "ivf" (lists of 4-bit codes, whose best items are scored again from their vectors); "hnsw"
            (a graph, which takes longer to build and more memory); or "auto": flat below ``approximate_from`` items,
            IVF from there.
        approximate_from: Catalogue size from which an exact scan is too slow for a request.
        min_recall: Recall@200 against the exact answer that an approximate index must reach on held-out queries;
            its search effort is doubled until it does.
        threads: Threads that build the index. More than one makes an HNSW graph differ from build to build.
    """

    kind: Literal["auto", "flat", "hnsw", "ivf"] = "auto"
    approximate_from: Annotated[int, Field(ge=1)] = 50_000
    min_recall: Annotated[float, Field(gt=0, le=1)] = 0.98
    threads: Annotated[int, Field(ge=1)] = 1


@dataclass(frozen=True)
class IndexReport:
    """What was built: its kind, the recall@200 measured on ``queries`` held-out queries, and its search effort.

    ``effort`` is HNSW's efSearch or IVF's nprobe; 0 for an exact index.
    """

    kind: IndexKind
    recall: float
    queries: int
    effort: int


CLASSES = {"hnsw": faiss.IndexHNSWFlat, "ivf": faiss.IndexIVFPQFastScan}
RECALL_AT = 200  # as many candidates as a list is made from
RECALL_QUERIES = 256
LEAST_EFFORT = 8
LEAST_ITEMS = 16 * 39  # of so many, FAISS says, the 16 values of a code are well learned
HNSW_LINKS = 32
CODED_DIMS = 2  # dimensions that share a code of 4 bits
RESCORED = 4  # items that are scored again for each that is asked for: the order of the codes is a rough one
TIES = 16  # items beyond those asked for that other kinds score again: products of many queries at once are rounded
# Points for each centre, and rounds, of k-means: a fraction of FAISS's time; effort wins back what recall that costs
CENTRE_POINTS, CENTRE_ROUNDS = 64, 10
# Share of the catalogue below which the allowed items are compared one by one: an approximate index walks past so
# many others that it returns few of them (a fifth, of 20 in 20,000), and an exact one spends its time on the others.
NARROW = 0.05

# Number of queries from which FAISS searches exactly by matrix products. FAISS 1.15 raised its default from 20 to
# 128,000, which costs 256 queries over 100,000 vectors twelve times the time.
faiss.cvar.distance_compute_blas_threshold = 20


class VectorIndex:
    """The items whose vectors have the largest inner products with a query.

    Args:
        vectors: Unit vectors (I, dim).
        index: A FAISS index over them.
        report: What was measured when it was built.
    """

    def __init__(self, vectors: NDArray[np.float32], index: faiss.Index, report: IndexReport) -> None:
        self.vectors = vectors
        self.report = report
        self._index = index
        self._gpu = on_gpu(index) if report.kind == "flat" else None

    @classmethod
    def build(cls, vectors: NDArray[np.float32], config: IndexConfig, seed: int) -> VectorIndex:
        """Build the index over unit vectors (I, dim).

        Fewer than 624 items are too few for codes, and are searched exactly. An approximate index that cannot reach
        ``min_recall`` at any effort is replaced by the exact one, with a warning that holds the figures.
        """
        exact = cls(vectors, _flat(vectors), IndexReport("flat", 1.0, 0, 0))
        kind = config.kind
        if kind == "auto":
            kind = "ivf" if len(vectors) >= config.approximate_from else "flat"
        if kind == "flat" or (kind == "ivf" and len(vectors) < LEAST_ITEMS):
            return exact

        with _threads(config.threads):
            index = _hnsw(vectors) if kind == "hnsw" else _ivf(vectors)
        queries = _held_out_queries(vectors, np.random.default_rng(seed))
        depth, every = min(RECALL_AT, len(vectors)), np.ones(len(vectors), np.bool_)
        truth = exact.search(queries, depth, every)[0]
        recall, effort = 0.0, 0
        while recall < config.min_recall and effort < _most(index):
            effort = min(_most(index), max(LEAST_EFFORT, 2 * effort))
            built = cls(vectors, index, IndexReport(kind, recall, len(queries), effort))
            found = built.search(queries, depth, every)[0]
            recall = float(np.mean([np.isin(t, f).mean() for t, f in zip(truth, found, strict=True)]))
        if recall < config.min_recall:
            logger.warning(
                "The %s index over %d items reached recall@%d %.4f, below the %.4f asked for; an exact one is used.",
                kind, len(vectors), RECALL_AT, recall, config.min_recall,
            )  # fmt: skip
            return exact
        return cls(vectors, index, IndexReport(kind, recall, len(queries), effort))

    def search(
        self, queries: NDArray[np.float32], depth: int, allowed: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The nearest items to each query (U, dim) among the allowed ones (I,).

        More are found than asked for, and scored again each by itself: what a query gets does not depend on the others,
        but for which ones of many equal items are found where they end the list.

        Returns:
            Items, and their inner products with the query, both (U, depth), best first and the lower item first among
            equals; NO_ITEM and -inf where a row runs out.
        """
        wanted = RESCORED * depth if self.report.kind == "ivf" else depth + TIES
        items = self._nearest(queries, min(wanted, len(self.vectors)), allowed)
        products = inner_products(queries, self.vectors, items)
        products[items == NO_ITEM] = -np.inf
        order = np.lexsort((items, -products), axis=1)[:, :depth]
        return np.take_along_axis(items, order, axis=1), np.take_along_axis(products, order, axis=1)

    def _nearest(self, queries: NDArray[np.float32], depth: int, allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Items (U, depth), in no certain order."""
        share = float(allowed.mean())
        if share < NARROW:
            within = np.append(np.flatnonzero(allowed), NO_ITEM)  # the last one is what NO_ITEM, -1, stands at
            return np.take(within, top_k(every_product(queries, self.vectors[within[:-1]]), depth)[0])
        if self._gpu is not None and share == 1 and depth <= MOST:
            return self._gpu.search(queries, depth)
        # on no more threads than queries: waking others takes ten times a small search
        with _threads(max(1, min(len(queries), faiss.omp_get_max_threads()))):
            items: NDArray[np.int64] = self._index.search(queries, depth, params=self._parameters(allowed, share))[1]
        return items

    def _parameters(self, allowed: NDArray[np.bool_], share: float) -> faiss.SearchParameters:
        """Of a search among the allowed items: the fewer they are, the more of the others are passed by."""
        every = share == 1
        selector = None if every else faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        if self.report.kind == "flat":
            return faiss.SearchParameters(sel=selector)
        effort = self.report.effort if every else min(_most(self._index), int(np.ceil(self.report.effort / share)))
        if self.report.kind == "hnsw":
            return faiss.SearchParametersHNSW(sel=selector, efSearch=effort)
        return faiss.SearchParametersIVF(sel=selector, nprobe=effort)

    def save(self, folder: Path) -> None:
        """Write the vectors, the report, and the index where it is more than the vectors themselves."""
        np.save(folder / "vectors.npy", self.vectors)
        save_settings(self.report, folder / "index.json")
        if self.report.kind != "flat":
            faiss.write_index(self._index, str(folder / "index.faiss"))

    @classmethod
    def load(cls, folder: Path) -> VectorIndex:
        """Read what ``save`` wrote; the vectors stay memory-mapped.

        Raises:
            ArtifactError: A file is missing or damaged, or index and vectors do not belong together.
        """
        report = load_settings(IndexReport, folder / "index.json")
        vectors = load_array(folder / "vectors.npy", np.float32, ndim=2)
        if report.kind == "flat":
            return cls(vectors, _flat(vectors), report)
        path = folder / "index.faiss"
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise ArtifactError(f"{path}: not a readable index ({error}).") from error
        fits = (index.ntotal, index.d) == vectors.shape and isinstance(index, CLASSES[report.kind])
        if not fits or report.effort < 1:
            raise ArtifactError(
                f"{path}: a {type(index).__name__} over {index.ntotal} vectors of length {index.d}, but "
                f"beside it are {vectors.shape} and a report of {report.kind!r} at effort {report.effort}. Save the "
                "engine again."
            )
        return cls(vectors, index, report)


def _flat(vectors: NDArray[np.float32]) -> faiss.Index:
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors))
    return index


def _hnsw(vectors: NDArray[np.float32]) -> faiss.Index:
    index = faiss.IndexHNSWFlat(vectors.shape[1], HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
    index.add(vectors)
    return index


def _ivf(vectors: NDArray[np.float32]) -> faiss.Index:
    n_items, dim = vectors.shape
    # the FAISS wiki's guideline is 4·√n to 16·√n
    lists = max(1, min(int(4 * np.sqrt(n_items)), n_items // CENTRE_POINTS))
    codes = dim // CODED_DIMS if dim % CODED_DIMS == 0 else dim
    index = faiss.IndexIVFPQFastScan(faiss.IndexFlatIP(dim), dim, lists, codes, 4, faiss.METRIC_INNER_PRODUCT)
    index.cp.max_points_per_centroid, index.cp.niter = CENTRE_POINTS, CENTRE_ROUNDS
    index.train(vectors)
    index.add(vectors)
    return index


def _most(index: faiss.Index) -> int:
    """The effort above which there is no more to be found."""
    return int(index.nlist if isinstance(index, faiss.IndexIVF) else index.ntotal)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """So many threads for FAISS."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _held_out_queries(vectors: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Means of random pairs of items: like a user's profile, and no vector that the index holds."""
    pairs = rng.integers(len(vectors), size=(RECALL_QUERIES, 2))
    means = vectors[pairs].mean(axis=1)
    queries: NDArray[np.float32] = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return queries
