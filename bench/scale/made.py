"""Logs and factors of any size, with the shape of real ones: a few items that many take, and tastes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrieval.histories import Histories

STEEPNESS = 0.8  # an item's share of all events falls with its rank to this power


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
