"""Answers as tables: from arrays of positions to one row per item, with the ids that users know."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from retrieval.candidates import NO_ITEM, Candidates
from retrieval.ids import IdMap, Ids


def answer_table(
    user_ids: Ids,
    item_ids: IdMap,
    items: NDArray[np.int64],
    scores: NDArray[np.float32],
    more: Mapping[str, NDArray[np.floating]] = MappingProxyType({}),
) -> pd.DataFrame:
    """A row for each item of each list, list by list.

    Args:
        user_ids: (U,) whose each list is.
        item_ids: The ids of all items.
        items: (U, K) positions of items, best first; NO_ITEM gets no row.
        scores: (U, K).
        more: Name → (U, K), what else is said of each item.

    Returns:
        ``user_id, item_id, score, rank``, the rank counting from 1, and a column for each of ``more``.
    """
    rows, ranks = np.nonzero(items != NO_ITEM)
    return pd.DataFrame(
        {
            "user_id": pd.Index(user_ids).take(rows),
            "item_id": item_ids.at(items[rows, ranks]),
            "score": scores[rows, ranks],
            "rank": ranks + 1,
            **{name: values[rows, ranks] for name, values in more.items()},
        }
    )


def scores_by_source(found: Candidates) -> dict[str, NDArray[np.float32]]:
    """Each source's own scores (U, K), missing (NaN) where it has none."""
    scores = np.where(np.isfinite(found.by_source), found.by_source, np.float32(np.nan))
    return {name: scores[:, :, at] for at, name in enumerate(found.sources)}
