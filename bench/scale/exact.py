"""ALS candidates of many users: this library beside implicit's own batch recommendation, on the same factors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from bench.scale.made import factors, histories
from bench.timing import Budget, Ratio, Timings, elapsed, median_ratio, time_in_turn
from retrieval.als import AlsConfig, AlsRetriever
from retrieval.candidates import Requests

OURS, STORED, FOLDED = "this library", "implicit, stored user factors", "implicit, user factors from histories"
EVENTS = 20  # of a user, on average


@dataclass(frozen=True, slots=True)
class Exact:
    """What was measured.

    Attributes:
        timings: (Who, threads) → seconds of a batch of users.
        batch: Users in a batch.
        shared: Share of implicit's candidates that are this library's, given the same user factors.
        largest: Largest difference between the k scores of a user, best first, relative to the best.
    """

    timings: dict[tuple[str, int], Timings]
    batch: int
    shared: float
    largest: float

    def ratio(self, peer: str, threads: int) -> Ratio:
        """How many times as many users a second this library answers for."""
        return median_ratio(self.timings[peer, threads], self.timings[OURS, threads])


def exact(n_users: int, n_items: int, dim: int, k: int, batch: int, threads: tuple[int, ...], budget: Budget) -> Exact:
    """Measure the time of batches of users, in turn."""
    rng = np.random.default_rng(0)
    known = histories(n_users, n_items, EVENTS, rng)
    # every event counts the same, since implicit knows no other way
    source = AlsRetriever(factors(n_items, dim, rng), AlsConfig(factors=dim, half_life=None))
    allowed = np.ones(n_items, np.bool_)
    counted = sparse.csr_matrix(known.matrix(np.ones(len(known.items), np.float32), n_items))
    confidence = sparse.csr_matrix(known.matrix(1 + source.config.alpha * known.weights, n_items))
    users = np.concatenate([source.user_vectors(known.take(rows)) for rows in _parts(n_users, batch)])

    def ours(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        found = source.retrieve(Requests(known.take(rows), allowed), k)
        return found.items, found.scores

    def theirs(threads: int, folded: bool) -> Callable[[NDArray[np.int64]], tuple[NDArray[np.int64], NDArray]]:
        model = AlternatingLeastSquares(
            factors=dim, regularization=source.config.regularization, alpha=1.0, num_threads=threads
        )
        model.item_factors, model.user_factors = source.item_factors, users
        given = confidence if folded else counted
        return lambda rows: model.recommend(rows, given[rows], N=k, recalculate_user=folded)

    runs = {}
    with ThreadPoolExecutor(max(threads)) as pool, threadpool_limits(1):  # as generation does: a core for each block

        def spread(count: int) -> Callable[[NDArray[np.int64]], object]:
            return lambda rows: list(pool.map(ours, np.array_split(rows, count)))

        for count in threads:
            systems = {OURS: spread(count), STORED: theirs(count, False), FOLDED: theirs(count, True)}
            for name, call in systems.items():
                runs[name, count] = _timed(call, n_users, batch)
        timings = time_in_turn(runs, budget)
        rows = np.arange(min(batch, n_users))
        (own, own_scores), (peer, peer_scores) = ours(rows), theirs(1, False)(rows)
    shared = np.mean([np.isin(peer[row], own[row]).mean() for row in range(len(rows))])
    largest = np.abs(own_scores - peer_scores).max(axis=1) / np.abs(own_scores[:, 0])
    return Exact(timings, batch, float(shared), float(largest.max()))


def _parts(n_users: int, batch: int) -> Iterator[NDArray[np.int64]]:
    return (np.arange(start, min(start + batch, n_users)) for start in range(0, n_users, batch))


def _timed(call: Callable[[NDArray[np.int64]], object], n_users: int, batch: int) -> Callable[[int], list[float]]:
    """Each run takes the next batch of users."""
    batches = list(_parts(n_users, batch))
    return lambda number: [elapsed(lambda: call(batches[number % len(batches)]))]
