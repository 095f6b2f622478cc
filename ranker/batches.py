"""Candidates of many users as Arrow batches, in the one schema in which they are kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from encoders.errors import InputError
from ranker.arguments import View, check_horizon, check_k, check_known, listed
from ranker.users import UserHistories
from retrieval.candidates import NO_ITEM, Candidates, Requests
from retrieval.ids import IdMap, Ids

if TYPE_CHECKING:
    from ranker.engine import Engine

BLOCK_USERS = 1024  # in a batch: their candidates, with every source's score, stay in memory


def check_candidates(engine: Engine, k: int, rerank: bool, horizon: View) -> None:
    """Raise InputError unless an engine has such candidates."""
    check_k(k, len(engine.catalogue), len(engine.catalogue))
    check_horizon(horizon, engine.lasting is not None, among=View)
    if rerank and horizon == "lasting":
        raise InputError(
            "rerank, but horizon = 'lasting': the cross-encoder learned what comes next. Ask for one of the two."
        )


def schema_of(engine: Engine, horizon: View) -> pa.Schema:
    """``user_id, item_id, score, rank``, and the own score of each source of a view, null where it has none."""
    fields = [
        pa.field("user_id", _type_of(engine.users.base.users), nullable=False),
        pa.field("item_id", _type_of(engine.catalogue.ids), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
    ]
    return pa.schema([*fields, *(pa.field(name, pa.float32()) for name in engine.views.of(horizon).sources)])


def candidate_batches(
    engine: Engine, user_ids: Ids | None, k: int | None, rerank: bool, horizon: View, users: UserHistories
) -> Iterator[pa.RecordBatch]:
    """The candidates of these users by what they did; see ``Engine.candidates``."""
    n_items = len(engine.catalogue)
    most = min(engine.config.fusion.depth, n_items) if k is None else k
    check_candidates(engine, most, rerank, horizon)
    ids = users.ids if user_ids is None else listed(user_ids)

    def batches() -> Iterator[pa.RecordBatch]:
        schema, retriever = schema_of(engine, horizon), engine.views.of(horizon)
        everything = np.ones(n_items, np.bool_)
        for start in range(0, len(ids), BLOCK_USERS):
            block = ids[start : start + BLOCK_USERS]
            histories = users.histories(block)
            check_known(block, histories.lengths)
            requests = Requests(histories, everything)
            found = retriever.retrieve(requests, most)
            if rerank:
                found = engine.reranker.rerank(requests, found)
            yield _batch(block, engine.catalogue.ids, found, schema)

    return batches()


def _batch(user_ids: Sequence[object], item_ids: IdMap, found: Candidates, schema: pa.Schema) -> pa.RecordBatch:
    rows, places = np.nonzero(found.items != NO_ITEM)
    sources = found.by_source[rows, places]
    columns = [
        pa.array(user_ids, schema.field("user_id").type).take(pa.array(rows)),
        pa.array(item_ids.at(found.items[rows, places]), schema.field("item_id").type),
        pa.array(found.scores[rows, places]),
        pa.array((places + 1).astype(np.int32)),
        *(pa.array(column, mask=~np.isfinite(column)) for column in np.ascontiguousarray(sources.T)),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _type_of(ids: IdMap) -> pa.DataType:
    return pa.int64() if ids.are_integers else pa.string()
