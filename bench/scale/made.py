"""Logs, factors and vectors of any size, with the shape of real ones: a few items that many take, and clusters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrieval.histories import Histories

STEEPNESS = 0.8  # an item's share of all events falls with its rank to this power
CLUSTER_STEEPNESS = 0.5  # a cluster's size falls with its rank to this power
SPREAD = np.float32(0.7)  # length of what sets a vector apart within its cluster; that of the centre is 1


def histories(n_users: int, n_items: int, events: int, rng: np.random.Generator) -> Histories:
    """Histories of about so many events for each user, drawn by popularity."""
    lengths = rng.geometric(1 / events, n_users)
    shares = np.arange(1, n_items + 1, dtype=np.float64) ** -STEEPNESS
    items = np.searchsorted(np.cumsum(shares / shares.sum()), rng.random(int(lengths.sum())))
    rows = np.repeat(np.arange(n_users), lengths)
    items = np.minimum(items, n_items - 1)  # of sums that fall short of 1 by rounding
    ones, times = np.ones(len(items), np.float32), np.arange(len(items))
    return Histories.from_rows(rows, items, ones, times, n_users, np.zeros(len(items), np.uint8))


def factors(n_items: int, dim: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Item factors (I, d), each dimension of less weight than the one before, as trained ones are."""
    weights = np.arange(1, dim + 1) ** -0.5
    made: NDArray[np.float32] = (rng.standard_normal((n_items, dim)) * weights).astype(np.float32)
    return made


def vectors(n_items: int, n_queries: int, dim: int, rng: np.random.Generator) -> list[NDArray[np.float32]]:
    """Unit vectors of items and of queries, (I, dim) and (Q, dim), drawn alike: clusters, a few of which are large.

    There are √I of them. Their centres, and what sets a vector apart within its cluster, lie along directions of
    falling weight, as those of texts do.
    """
    weights = (np.arange(1, dim + 1) ** -0.5).astype(np.float32)
    weights /= np.linalg.norm(weights)
    clusters = int(np.sqrt(n_items))
    centres = rng.standard_normal((clusters, dim), dtype=np.float32) * weights
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    sizes = np.arange(1, clusters + 1) ** -CLUSTER_STEEPNESS
    turned = np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)
    made = []
    for count in (n_items, n_queries):
        drawn = rng.standard_normal((count, dim), dtype=np.float32)
        drawn *= SPREAD * weights
        drawn += centres[rng.choice(clusters, count, p=sizes / sizes.sum())]
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        made.append(drawn @ turned)
    return made
