"""Between what callers pass and get and what parts read and give: queries read once, answers as tables."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from encoders import Encoder
from ranker.arguments import Horizon, query_texts
from ranker.calibration import predicted
from ranker.exploration import explored
from ranker.reranker import Reranker
from retrieval.candidates import NO_ITEM, Requests
from retrieval.ids import IdMap, Ids
from retrieval.queries import Queries

if TYPE_CHECKING:
    from ranker.engine import Engine

Best: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]


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


def read_queries(query: str | Sequence[str], n_users: int, reranker: Reranker, encoder: Encoder) -> Queries:
    """A query for each user, each text read once.

    Raises:
        InputError: There is not one text for all, or one for each, or one is empty.
    """
    texts = query_texts(query, n_users)
    places = {text: place for place, text in enumerate(sorted(set(texts)))}
    queries = reranker.read_queries(list(places), encoder)
    return queries.take(np.array([places[text] for text in texts], np.int64))


def best_of(engine: Engine, requests: Requests, k: int, horizon: Horizon, names: Sequence[str] | None) -> Best:
    """What an engine answers: items, scores, probabilities, and propensities or NaN, each (U, k), best first.

    Args:
        engine: Whose parts answer.
        requests: What is asked.
        k: Items for each request.
        horizon: See ``Engine.recommend``.
        names: Ids of the lists, which may be drawn then; None where they are not logged.
    """
    if horizon == "auto":
        return _by_pause(engine, requests, k, names)
    if horizon == "lasting" and engine.lasting is not None:
        found, calibration = engine.lasting.retrieve(requests, k), None
    else:
        depth = engine.config.rerank.chosen.depth
        with engine.observations.timed("retrieve"):
            found = engine.retriever.retrieve(requests, max(k, depth))
        with engine.observations.timed("rerank"):
            found = engine.reranker.rerank(requests, found)
        # with more candidates than were measured standardised together, scores have another scale
        calibration = engine.calibration if k <= max(depth, engine.config.fusion.depth) else None
    probabilities = predicted(calibration, requests, found)
    propensities = np.full_like(probabilities, np.nan)
    if names is not None and engine.config.exploration.temperature:
        drawn = explored(found, engine.config.exploration.temperature, names)
        found, propensities = drawn.candidates, drawn.propensities
        probabilities = np.take_along_axis(probabilities, drawn.places, axis=1)
    return found.items[:, :k], found.scores[:, :k], probabilities[:, :k], propensities[:, :k]


def _by_pause(engine: Engine, requests: Requests, k: int, names: Sequence[str] | None) -> Best:
    """What ``best_of`` answers to each request, by the horizon that the time since its user's newest event asks for."""
    pauses = requests.histories.pauses(time.time_ns() // 1000)
    comes_back = (pauses >= engine.config.lasting.pause_seconds) & (requests.queries is None)
    parts: dict[Horizon, NDArray[np.int64]] = {
        "lasting": np.flatnonzero(comes_back),
        "next": np.flatnonzero(~comes_back),
    }
    answers = [
        best_of(engine, requests.take(rows), k, horizon, None if names is None else [names[row] for row in rows])
        for horizon, rows in parts.items()
        if len(rows)
    ]
    order = np.argsort(np.concatenate(list(parts.values())))
    items, scores, probabilities, propensities = (np.concatenate(part)[order] for part in zip(*answers, strict=True))
    return items, scores, probabilities, propensities
