"""Factors for items that nobody took yet: what their texts let expect."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
