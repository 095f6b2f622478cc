"""ALS candidates of many users: this library beside implicit's own batch recommendation, on the same factors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from bench.scale.made import factors, histories
from bench.scale.part import Asked, Told
from bench.timing import Budget, Ratio, Timings, elapsed, median_ratio, time_in_turn
from retrieval.als import AlsConfig, AlsRetriever
from retrieval.candidates import Requests
from retrieval.histories import Histories

OURS, STORED, FOLDED = "this library", "implicit, stored user factors", "implicit, user factors from histories"
EVENTS = 20  # of a user, on average


@dataclass(frozen=True, slots=True)
class Exact:
    """What was measured.

    Attributes:
        timings: (Who, cores) → seconds of a batch of users.
        batch: Users in a batch.
        shared: Share of implicit's candidates that are this library's, given the same user factors.
        largest: Largest difference between the k scores of a user, best first, relative to the best.
    """

    timings: dict[tuple[str, int], Timings]
    batch: int
    shared: float
    largest: float

    def ratio(self, peer: str, cores: int) -> Ratio:
        """How many times as many users a second this library answers for."""
        return median_ratio(self.timings[peer, cores], self.timings[OURS, cores])


def measured(asked: Asked) -> Told:
    """Candidates a second, beside implicit's."""
    n_users, n_items, dim = (2_000, 3_000, 16) if asked.tiny else (100_000, 100_000, 128)
    k, batch = (20, 500) if asked.tiny else (200, 2_048)
    found = exact(n_users, n_items, dim, k, batch, (1, 2), asked.budget)
    rows = [
        {
            "cores": cores, "system": name, "batches": len(timings.latencies),
            "users a second": batch / timings.median,
            "this library against it": str(found.ratio(name, cores)) if name != OURS else "",
        }
        for (name, cores), timings in found.timings.items()
    ]  # fmt: skip
    protocol = (
        f"{n_users:,} users × {n_items:,} items, {dim} factors, {k} candidates, batches of {batch:,} users; "
        f"of {STORED}, {found.shared:.2%} of the candidates are the same, and no score differs by more than "
        f"{found.largest:.1e} of the best."
    )
    sizes = {"users": n_users, "items": n_items, "factors": dim, "k": k, "batch": batch}
    about = {**sizes, "shared": found.shared, "largest difference": found.largest}
    return Told("ALS candidates", protocol, rows, about)


def exact(n_users: int, n_items: int, dim: int, k: int, batch: int, cores: tuple[int, ...], budget: Budget) -> Exact:
    """Measure the time of batches of users, in turn."""
    rng = np.random.default_rng(0)
    known = histories(n_users, n_items, EVENTS, rng)
    # every event counts the same, since implicit knows no other way
    source = AlsRetriever(factors(n_items, dim, rng), AlsConfig(factors=dim, half_life=None))
    counted = sparse.csr_matrix(known.matrix(np.ones(len(known.items), np.float32), n_items))
    confidence = sparse.csr_matrix(known.matrix(1 + source.config.alpha * known.weights, n_items))
    users = np.concatenate([source.user_vectors(known.take(rows)) for rows in _parts(n_users, batch)])

    def theirs(threads: int, folded: bool) -> Callable[[NDArray[np.int64]], tuple[NDArray[np.int64], NDArray]]:
        model = AlternatingLeastSquares(
            factors=dim, regularization=source.config.regularization, alpha=1.0, num_threads=threads
        )
        model.item_factors, model.user_factors = source.item_factors, users
        given = confidence if folded else counted
        return lambda rows: model.recommend(rows, given[rows], N=k, recalculate_user=folded)

    runs = {}
    # as generation does it: a process for each core, whose answers stay where they are
    with threadpool_limits(1), ProcessPoolExecutor(max(cores), get_context("fork"), _begin, (source, known, k)) as pool:

        def spread(count: int) -> Callable[[NDArray[np.int64]], object]:
            return lambda rows: list(pool.map(_answer, np.array_split(rows, count)))

        for count in cores:
            systems = {OURS: spread(count), STORED: theirs(count, False), FOLDED: theirs(count, True)}
            for name, call in systems.items():
                runs[name, count] = _timed(call, n_users, batch)
        timings = time_in_turn(runs, budget)
        rows = np.arange(min(batch, n_users))
        own = source.retrieve(Requests(known.take(rows), np.ones(n_items, np.bool_)), k)
        peer, peer_scores = theirs(1, False)(rows)
    shared = np.mean([np.isin(peer[row], own.items[row]).mean() for row in range(len(rows))])
    largest = np.abs(own.scores - peer_scores).max(axis=1) / np.abs(own.scores[:, 0])
    return Exact(timings, batch, float(shared), float(largest.max()))


_task: tuple[AlsRetriever, Histories, int]  # of a process


def _begin(source: AlsRetriever, known: Histories, k: int) -> None:
    global _task
    _task = source, known, k


def _answer(rows: NDArray[np.int64]) -> None:
    source, known, k = _task
    source.retrieve(Requests(known.take(rows), np.ones(source.n_items, np.bool_)), k)


def _parts(n_users: int, batch: int) -> Iterator[NDArray[np.int64]]:
    return (np.arange(start, min(start + batch, n_users)) for start in range(0, n_users, batch))


def _timed(call: Callable[[NDArray[np.int64]], object], n_users: int, batch: int) -> Callable[[int], list[float]]:
    """Each run takes the next batch of users."""
    batches = list(_parts(n_users, batch))
    return lambda number: [elapsed(lambda: call(batches[number % len(batches)]))]
