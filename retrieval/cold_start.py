"""What the texts of items that nobody took yet let expect of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from retrieval.index import IndexConfig, VectorIndex

TEMPERATURE = 0.05  # difference of two cosines at which the nearer text says e times as much


def factors_from_texts(
    factors: NDArray[np.float32], vectors: NDArray[np.float32], counts: NDArray[np.int64], penalty: float
) -> NDArray[np.float32]:
    """The same factors, those of items without an event replaced by a linear map of their texts.

    The map is learned from the other items by ridge regression (Gantner et al., "Learning attribute-to-feature mappings
    for cold-start recommendations", ICDM 2010). An item counts as often as it was taken, since a factor that rests on
    few events is mostly the penalty that it was learned with.

    Args:
        factors: (I, d).
        vectors: (I, dim) text vectors, of unit length.
        counts: (I,) events of each item.
        penalty: On the map, in units of the average item. The higher, the closer a new item is to the average one.
    """
    taken = counts > 0
    if taken.all() or not taken.any():
        return factors
    weights = counts[taken] / counts[taken].mean()
    known, learned = vectors[taken].astype(np.float64), factors[taken].astype(np.float64)
    centre, mean = np.average(known, axis=0, weights=weights), np.average(learned, axis=0, weights=weights)
    weighted = (known - centre) * weights[:, None]
    gram = weighted.T @ (known - centre) + penalty * np.eye(known.shape[1])
    mapping = np.linalg.solve(gram, weighted.T @ (learned - mean))
    filled = factors.copy()
    filled[~taken] = (vectors[~taken] - centre) @ mapping + mean
    return filled


def shares_from_texts(
    vectors: NDArray[np.float32], counts: NDArray[np.int64], neighbours: int, seed: int
) -> sparse.csr_array:
    """From what is counted of the items that were taken to what is expected of all: (I, I), taken → any.

    A taken item keeps what is its own. One without an event gets a share of what the taken items with the nearest texts
    have; its shares add up to 1, and fall with the cosine.

    Args:
        vectors: (I, dim) text vectors, of unit length.
        counts: (I,) events of each item.
        neighbours: Items, at most, of which one without an event gets a share.
        seed: Of the search for them.
    """
    taken = counts > 0
    own, new = np.flatnonzero(taken), np.flatnonzero(~taken)
    shape = (len(counts), len(counts))
    if not (neighbours and len(own) and len(new)):
        return sparse.csr_array((taken[own].astype(np.float64), (own, own)), shape=shape)
    depth = min(neighbours, len(own))
    nearest, cosines = VectorIndex.build(vectors, IndexConfig(), seed).search(vectors[new], depth, taken)
    odds = np.exp((cosines - cosines.max(axis=1, keepdims=True)) / TEMPERATURE, dtype=np.float64)
    shares = odds / odds.sum(axis=1, keepdims=True)
    found = shares > 0  # an approximate search may find fewer
    values = np.concatenate([np.ones(len(own)), shares[found]])
    to = np.concatenate([own, np.broadcast_to(new[:, None], found.shape)[found]])
    return sparse.csr_array((values, (np.concatenate([own, nearest[found]]), to)), shape=shape)
