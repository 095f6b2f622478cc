"""Judging an engine: its order, and that of its every part, against what users then did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from encoders.errors import InputError
from ranker.evaluation.comparison import MeanInterval, PairedDifference, bootstrap_mean, paired_bootstrap
from ranker.evaluation.metrics import coverage, per_user_metrics
from ranker.evaluation.multiple_comparisons import compare_systems
from ranker.reranker import CrossEncoderReranker
from retrieval.candidates import Requests, Retriever
from retrieval.histories import Histories
from retrieval.ids import UNKNOWN, IdMap

if TYPE_CHECKING:
    from ranker.engine import Engine

CANDIDATES = "candidates"  # the fused order, before re-ranking
CROSS_ENCODER = "cross-encoder"  # the same candidates re-ranked, whether that order is served or not
ENGINE = "engine"  # the order that is served
METRIC = "ndcg@10"


@dataclass(frozen=True)
class Evaluation:
    """How well each part of an engine ranked the whole catalogue for the same users.

    Attributes:
        per_user: System → one row per user (``user_id`` and every metric); systems are the sources by name,
            ``candidates`` (fused), ``cross-encoder`` (the same, re-ranked by the fine-tuned cross-encoder, where the
            engine has one) and ``engine`` (the order that is served: one of these two).
        coverage: System → share of the catalogue in somebody's first 10.
        users_left_out: Users of the test who could not be judged: nothing of theirs was still to be found.
        seed: Of the bootstrap.
    """

    per_user: dict[str, pd.DataFrame]
    coverage: dict[str, float]
    users_left_out: int
    seed: int

    @property
    def summary(self) -> pd.DataFrame:
        """Means over users, one row per system."""
        means = {name: table.drop(columns="user_id").mean() for name, table in self.per_user.items()}
        return pd.DataFrame(means).T.assign(**{"coverage@10": pd.Series(self.coverage)})

    def interval(self, system: str, metric: str = METRIC) -> MeanInterval:
        """A system's mean with its bootstrap interval over users."""
        return bootstrap_mean(self.per_user[system][metric].to_numpy(), seed=self.seed)

    def difference(
        self, before: str = CANDIDATES, after: str = CROSS_ENCODER, metric: str = METRIC
    ) -> PairedDifference:
        """What a step changed, paired by user; by default the effect of the fine-tuned cross-encoder.

        Raises:
            InputError: A system was not judged; an engine without a cross-encoder has no row of its own for one.
        """
        for name in (before, after):
            if name not in self.per_user:
                raise InputError(f"No system {name!r} was judged, only {', '.join(self.per_user)}.")
        return paired_bootstrap(
            self.per_user[before][metric].to_numpy(), self.per_user[after][metric].to_numpy(), seed=self.seed
        )

    def comparisons(self, baseline: str = CANDIDATES, metric: str = METRIC) -> pd.DataFrame:
        """Every other system against one, paired by user, with p-values for so many tests: see `compare_systems`.

        Raises:
            InputError: The baseline was not judged.
        """
        values = {name: table[metric].to_numpy() for name, table in self.per_user.items()}
        return compare_systems(values, baseline, seed=self.seed)


def evaluate(
    engine: Engine,
    test: pd.DataFrame,
    *,
    others: Mapping[str, Retriever] = MappingProxyType({}),
    cutoffs: Sequence[int] = (5, 10, 20),
    seed: int = 0,
) -> Evaluation:
    """Rank the whole catalogue, less what they had seen, for every user of the test.

    Args:
        engine: Fitted on events that hold none of the test's.
        test: ``user_id, item_id``: what users did afterwards; every row is relevant.
        others: Name → retriever over the same catalogue, to be judged beside the engine's own.
        cutoffs: Ranks at which metrics are taken; 10 must be among them.
        seed: Of the bootstrap.

    Raises:
        InputError: A column is missing, 10 is no cut-off, or no user can be judged.
    """
    if 10 not in cutoffs:
        raise InputError(f"cutoffs are {tuple(cutoffs)}; the summary is taken at 10, so include it.")
    users, histories, relevant = _judged(engine, test)
    everything = np.ones(len(engine.catalogue), np.bool_)
    k = max(cutoffs)  # lists are filled up with NO_ITEM where the catalogue is smaller
    lists: dict[str, list[NDArray[np.int64]]] = {}
    for _, requests in Requests(histories, everything).blocks():
        candidates = engine.retriever.retrieve(requests, max(k, engine.config.rerank.chosen.depth))
        retrievers = {**engine.retriever.sources, **others}
        found = {name: retriever.retrieve(requests, k) for name, retriever in retrievers.items()}
        found[CANDIDATES] = candidates.head(k)
        served = candidates.head(k)
        if isinstance(engine.reranker, CrossEncoderReranker):
            found[CROSS_ENCODER] = engine.reranker.reordered(requests, candidates).head(k)
            served = found[CROSS_ENCODER] if engine.reranker.gain.serves else served
        found[ENGINE] = served
        for name, ranked in found.items():
            lists.setdefault(name, []).append(ranked.items)
    ranked_items = {name: np.concatenate(parts) for name, parts in lists.items()}
    return Evaluation(
        per_user={
            name: per_user_metrics(items, relevant, cutoffs).assign(user_id=users)
            for name, items in ranked_items.items()
        },
        coverage={name: coverage(items, len(engine.catalogue), 10) for name, items in ranked_items.items()},
        users_left_out=test["user_id"].nunique() - len(users),
        seed=seed,
    )


def _judged(engine: Engine, test: pd.DataFrame) -> tuple[pd.Index, Histories, sparse.csr_array]:
    """The users who can be judged, their histories, and what is relevant to them (users × items)."""
    if not isinstance(test, pd.DataFrame):
        raise InputError(f"test: pass a DataFrame with user_id and item_id, not a {type(test).__name__}.")
    for name in ("user_id", "item_id"):
        if name not in test.columns:
            raise InputError(f"test: no column {name!r}; the columns are {', '.join(map(str, test.columns))}.")
    if test.empty:
        raise InputError("test: the table has no rows, so there is nobody to judge by.")
    users = IdMap(pd.unique(test["user_id"]))
    histories = engine.users.histories(list(users.ids))
    shape = (len(users), len(engine.catalogue))
    items = engine.catalogue.ids.positions(test["item_id"], "test: item_id")
    known = items != UNKNOWN  # an item that is not in the catalogue cannot be found by any system
    rows = users.positions(test["user_id"])[known]
    relevant = sparse.csr_array((np.ones(len(rows), np.int8), (rows, items[known])), shape=shape)
    seen = histories.matrix(np.ones(len(histories.items), np.float32), len(engine.catalogue))
    relevant = sparse.csr_array(relevant - relevant.multiply(seen > 0)).astype(np.bool_)
    relevant.eliminate_zeros()
    judged = np.flatnonzero(np.diff(relevant.indptr))
    if len(judged) < 2:
        raise InputError(
            f"test: {len(judged)} of {len(users)} users have an item that is in the catalogue and new to them; at "
            "least two are needed. Was the engine fitted on the test's own events?"
        )
    return users.at(judged), histories.take(judged), relevant[judged]
