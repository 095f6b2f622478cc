"""Between what callers pass and get and what parts read and give: queries read once, answers as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from encoders import Encoder
from ranker.arguments import check_known, query_texts
from ranker.reranker import Reranker
from ranker.users import UserHistories
from retrieval.candidates import NO_ITEM, Candidates, Requests
from retrieval.fusion import FusedRetriever
from retrieval.ids import IdMap, Ids
from retrieval.queries import Queries

BLOCK_USERS = 1024  # in a table of candidates: those of a block, with every source's score, stay in memory


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


def candidate_tables(
    retriever: FusedRetriever, users: UserHistories, user_ids: Sequence[Any], item_ids: IdMap, k: int
) -> Iterator[pd.DataFrame]:
    """At most ``k`` candidates of each user, a block of users at a time; see ``Engine.candidates``.

    Raises:
        InputError: A user of the block is unknown.
    """
    everything = np.ones(len(item_ids), np.bool_)
    for start in range(0, len(user_ids), BLOCK_USERS):
        ids = user_ids[start : start + BLOCK_USERS]
        histories = users.histories(ids)
        check_known(ids, histories.lengths)
        found = retriever.retrieve(Requests(histories, everything), k)
        yield answer_table(ids, item_ids, found.items, found.scores, scores_by_source(found))


def read_queries(query: str | Sequence[str], n_users: int, reranker: Reranker, encoder: Encoder) -> Queries:
    """A query for each user, each text read once.

    Raises:
        InputError: There is not one text for all, or one for each, or one is empty.
    """
    texts = query_texts(query, n_users)
    places = {text: place for place, text in enumerate(sorted(set(texts)))}
    queries = reranker.read_queries(list(places), encoder)
    return queries.take(np.array([places[text] for text in texts], np.int64))
