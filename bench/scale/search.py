"""Search of a large catalogue's vectors: the approximate indices beside the exact one."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from bench.scale.made import vectors
from bench.scale.part import MEGABYTE, Asked, Told
from bench.timing import Budget, Ratio, Timings, elapsed, median_ratio, time_in_turn
from retrieval.index import IndexConfig, IndexKind, IndexReport, VectorIndex

EXACT = "flat"
BATCH = 256
DEPTH = 200


@dataclass(frozen=True, slots=True)
class Searched:
    """What was measured of an index.

    Attributes:
        report: What the library measured when it built the index.
        seconds: Of building, on one core.
        size: Bytes of the index on disk, beside the vectors.
        recall: Of the exact answer's 200 items, on queries that had no part in building.
        batch: Seconds of a batch of queries, on one core.
        single: Seconds of a query alone.
        batch_ratio: How many times as long the exact index takes for a batch.
        single_ratio: The same of a query alone.
    """

    report: IndexReport
    seconds: float
    size: int
    recall: float
    batch: float
    single: float
    batch_ratio: Ratio
    single_ratio: Ratio


def measured(asked: Asked) -> Told:
    """Approximate search beside exact search."""
    # a graph over a million vectors is left out, whose building takes longest
    kinds: dict[int, tuple[IndexKind, ...]] = {100_000: ("ivf", "hnsw"), 1_000_000: ("ivf",)}
    if asked.tiny:
        kinds = {3_000: ("ivf", "hnsw")}
    dim = 32 if asked.tiny else 384
    found = {n_items: search(n_items, dim, each, asked.budget) for n_items, each in kinds.items()}
    rows = [
        {
            "items": n_items, "index": kind, f"recall@{DEPTH}": each.recall, "effort": each.report.effort,
            "batch, ms a query": 1e3 * each.batch / BATCH,
            "exact takes": str(each.batch_ratio) if kind != EXACT else "",
            "alone, ms": 1e3 * each.single,
            "exact alone takes": str(each.single_ratio) if kind != EXACT else "",
            "build, s": each.seconds, "file, MB": each.size / MEGABYTE,
        }
        for n_items, indices in found.items() for kind, each in indices.items()
    ]  # fmt: skip
    protocol = (
        f"The {DEPTH} nearest of {dim}-dimensional clustered vectors, one core, in batches of {BATCH} queries and one "
        "at a time, and how many times as long the exact index takes. The queries had no part in building: the effort "
        "was chosen on others."
    )
    plain = {n_items: {kind: asdict(each) for kind, each in indices.items()} for n_items, indices in found.items()}
    return Told("Approximate search", protocol, rows, {"dim": dim, "found": plain})


def search(n_items: int, dim: int, kinds: tuple[IndexKind, ...], budget: Budget) -> dict[str, Searched]:
    """Measure each kind of index, the exact one first, in turn, on one core."""
    items, queries = vectors(n_items, 4 * BATCH, dim, np.random.default_rng(0))
    every = np.ones(n_items, np.bool_)
    faiss.omp_set_num_threads(1)
    built, seconds = {}, {}
    for kind in (EXACT, *kinds):
        start = time.perf_counter()
        built[kind] = VectorIndex.build(items, IndexConfig(kind=kind), seed=0)
        seconds[kind] = time.perf_counter() - start

    def timed(kind: str, size: int) -> Callable[[int], list[float]]:
        def run(number: int) -> list[float]:
            start = number * size % len(queries)
            return [elapsed(lambda: built[kind].search(queries[start : start + size], DEPTH, every))]

        return run

    timings = time_in_turn({(kind, size): timed(kind, size) for kind in built for size in (BATCH, 1)}, budget)
    truth = built[EXACT].search(queries, DEPTH, every)[0]
    return {
        kind: Searched(
            report=index.report, seconds=seconds[kind], size=_size(index),
            recall=_recall(truth, index.search(queries, DEPTH, every)[0]),
            batch=timings[kind, BATCH].median, single=timings[kind, 1].median,
            batch_ratio=_against(timings, kind, BATCH), single_ratio=_against(timings, kind, 1),
        )
        for kind, index in built.items()
    }  # fmt: skip


def _against(timings: dict[tuple[str, int], Timings], kind: str, size: int) -> Ratio:
    return median_ratio(timings[EXACT, size], timings[kind, size])


def _recall(truth: NDArray[np.int64], found: NDArray[np.int64]) -> float:
    return float(np.mean([np.isin(t, f).mean() for t, f in zip(truth, found, strict=True)]))


def _size(index: VectorIndex) -> int:
    with tempfile.TemporaryDirectory() as folder:
        index.save(Path(folder))
        return sum(path.stat().st_size for path in Path(folder).glob("*.faiss"))
