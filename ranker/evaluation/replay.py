"""Prequential replay: each later event is first predicted from all before it, then revealed.

Test, then reveal (Dawid, "Statistical theory: the prequential approach", JRSS A 147(2), 1984; for recommenders Vinagre,
Jorge & Gama, "Evaluation of recommender systems in streaming environments", 2014): what an engine is asked in
production, where a list follows the last click.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from encoders.errors import InputError
from ranker.evaluation.evaluate import Evaluation, check_test, judgement, ranked_by_every_part
from retrieval.candidates import Retriever
from retrieval.histories import Histories
from retrieval.ids import UNKNOWN, IdMap
from retrieval.interactions import microseconds

if TYPE_CHECKING:
    from ranker.engine import Engine

EVENTS_AT_ONCE = 1024  # whose histories are held at once


def replay(
    engine: Engine,
    test: pd.DataFrame,
    *,
    relevant: Sequence[bool] | NDArray[np.bool_] | None = None,
    others: Mapping[str, Retriever] = MappingProxyType({}),
    cutoffs: Sequence[int] = (5, 10, 20),
    seed: int = 0,
) -> Evaluation:
    """Rank the whole catalogue, less what its user had seen, before each event of the test, then reveal the event.

    Whatever an engine makes of a user's history when asked (fold-in, neighbours of the last click, the state of a
    sequence) knows every earlier event of the test. What was trained stays as it was. An event is judged where its item
    is in the catalogue and new to its user; every other one is revealed alone.

    Args:
        engine: Fitted on events that hold none of the test's.
        test: ``user_id, item_id, weight, datetime``, in the order in which events of equal times are revealed.
        relevant: Which rows of the test are judged at all, such as those with a high rating; None: all of them.
        others: Name → retriever over the same catalogue, to be judged beside the engine's own.
        cutoffs: Ranks at which metrics are taken; 10 must be among them.
        seed: Of the bootstrap, which resamples users.

    Raises:
        InputError: A column is missing, 10 is no cut-off, an event is earlier than what the engine knows of its user,
            or fewer than two users have an event that can be judged.
    """
    check_test(test, ("user_id", "item_id", "weight", "datetime"), cutoffs)
    chosen = np.ones(len(test), np.bool_) if relevant is None else np.asarray(relevant, np.bool_)
    if len(chosen) != len(test):
        raise InputError(f"relevant has {len(chosen):,} entries for {len(test):,} rows of test: give one for each.")
    users = IdMap(pd.unique(test["user_id"]))
    items = engine.catalogue.ids.positions(test["item_id"], "test: item_id")
    known = items != UNKNOWN  # an item that is not in the catalogue can be neither found nor read
    log, judged = _revealed(
        engine.users.histories(list(users.ids)),
        users.positions(test["user_id"])[known],
        items[known],
        test["weight"].to_numpy(np.float32)[known],
        microseconds(test["datetime"])[known],
        chosen[known],
    )
    rows = log.rows[judged]
    if len(np.unique(rows)) < 2:
        raise InputError(
            f"test: {len(np.unique(rows))} of {len(users)} users have an event to judge, on an item that is in the "
            "catalogue and new to them; at least two are needed. Was the engine fitted on the test's own events?"
        )
    parts = np.array_split(judged, -(-len(judged) // EVENTS_AT_ONCE))
    ranked = ranked_by_every_part(engine, map(log.before, parts), max(cutoffs), others)
    targets = sparse.csr_array(
        (np.ones(len(judged), np.bool_), log.items[judged], np.arange(len(judged) + 1)),
        shape=(len(judged), len(engine.catalogue)),
    )
    return judgement(ranked, targets, users.at(rows), len(users) - len(np.unique(rows)), cutoffs, seed)


def _revealed(
    before: Histories,
    rows: NDArray[np.int64],
    items: NDArray[np.int64],
    weights: NDArray[np.float32],
    times: NDArray[np.int64],
    chosen: NDArray[np.bool_],
) -> tuple[Histories, NDArray[np.int64]]:
    """Histories with the test's events at their ends, and which of these are judged: positions in ``items``."""
    newest = np.full(len(before), np.iinfo(np.int64).min)
    filled = before.lengths > 0
    newest[filled] = before.times[before.indptr[1:][filled] - 1]
    early = np.flatnonzero(times < newest[rows])
    if len(early):
        raise InputError(
            f"test: {len(early):,} of {len(times):,} events are earlier than the newest one that the engine knows of "
            "their user. Replay what came later: fit on the earlier part of ranker.evaluation.global_temporal."
        )
    log = Histories.from_rows(
        np.concatenate([before.rows, rows]),
        np.concatenate([before.items, items]),
        np.concatenate([before.weights, weights]),
        np.concatenate([before.times, times]),
        len(before),
        np.concatenate([before.kinds, np.zeros(len(rows), np.uint8)]),
    )
    # the same order as that of the log: by row and time, equal times as given
    order = np.lexsort((np.concatenate([before.times, times]), np.concatenate([before.rows, rows])))
    asked = np.concatenate([np.zeros(len(before.items), np.bool_), chosen])[order]
    again = pd.DataFrame({"row": log.rows, "item": log.items}).duplicated().to_numpy()
    return log, np.flatnonzero(asked & ~again)
