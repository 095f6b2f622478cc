"""Judging an engine: its order, and that of its every part, against what users then did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
        lists: System → one row per judged list (``user_id`` and every metric): one for each user, or for each event of
            a replay. Systems are the sources by name, ``candidates`` (fused), ``cross-encoder`` (the same, re-ranked by
            the fine-tuned cross-encoder, where the engine has one) and ``engine`` (the order that is served: one of
            these two).
        coverage: System → share of the catalogue in somebody's first 10.
        users_left_out: Users of the test who could not be judged: nothing of theirs was still to be found.
        seed: Of the bootstrap.
    """

    lists: dict[str, pd.DataFrame]
    coverage: dict[str, float]
    users_left_out: int
    seed: int

    @property
    def per_user(self) -> dict[str, pd.DataFrame]:
        """System → one row per user, the mean over their lists."""
        return {
            name: table.groupby("user_id", sort=False).mean().reset_index()[[*table.columns]]
            for name, table in self.lists.items()
        }

    @property
    def summary(self) -> pd.DataFrame:
        """Means over lists, one row per system."""
        means = {name: table.drop(columns="user_id").mean() for name, table in self.lists.items()}
        return pd.DataFrame(means).T.assign(**{"coverage@10": pd.Series(self.coverage)})

    def interval(self, system: str, metric: str = METRIC) -> MeanInterval:
        """A system's mean with its bootstrap interval over users."""
        return bootstrap_mean(self.lists[system][metric].to_numpy(), seed=self.seed, users=self._users)

    def difference(
        self, before: str = CANDIDATES, after: str = CROSS_ENCODER, metric: str = METRIC
    ) -> PairedDifference:
        """What a step changed, paired by user; by default the effect of the fine-tuned cross-encoder.

        Raises:
            InputError: A system was not judged; an engine without a cross-encoder has no row of its own for one.
        """
        for name in (before, after):
            if name not in self.lists:
                raise InputError(f"No system {name!r} was judged, only {', '.join(self.lists)}.")
        return paired_bootstrap(
            self.lists[before][metric].to_numpy(),
            self.lists[after][metric].to_numpy(),
            seed=self.seed,
            users=self._users,
        )

    @property
    def _users(self) -> NDArray[np.int64]:
        """Whose each list is, as a number."""
        return pd.factorize(self.lists[ENGINE]["user_id"])[0]

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
    check_test(test, ("user_id", "item_id"), cutoffs)
    users, histories, relevant = _judged(engine, test)
    ranked = ranked_by_every_part(engine, [histories], max(cutoffs), others)
    return judgement(ranked, relevant, users, test["user_id"].nunique() - len(users), cutoffs, seed)


def ranked_by_every_part(
    engine: Engine, histories: Iterable[Histories], k: int, others: Mapping[str, Retriever]
) -> dict[str, NDArray[np.int64]]:
    """The first ``k`` items (U, k) of the whole catalogue less what was seen, by system, see `Evaluation`.

    Args:
        engine: Whose parts rank.
        histories: U rows in all, in parts that are ranked one after the other.
        k: Lists are filled up with NO_ITEM where the catalogue is smaller.
        others: Name → retriever over the same catalogue, beside the engine's own.
    """
    everything = np.ones(len(engine.catalogue), np.bool_)
    lists: dict[str, list[NDArray[np.int64]]] = {}
    retrievers = {**engine.retriever.sources, **others}
    for requests in (block for part in histories for _, block in Requests(part, everything).blocks()):
        candidates = engine.retriever.retrieve(requests, max(k, engine.config.rerank.chosen.depth))
        found = {name: retriever.retrieve(requests, k) for name, retriever in retrievers.items()}
        found[CANDIDATES] = candidates.head(k)
        served = candidates.head(k)
        if isinstance(engine.reranker, CrossEncoderReranker):
            found[CROSS_ENCODER] = engine.reranker.reordered(requests, candidates).head(k)
            served = found[CROSS_ENCODER] if engine.reranker.gain.serves else served
        found[ENGINE] = served
        for name, ranked in found.items():
            lists.setdefault(name, []).append(ranked.items)
    return {name: np.concatenate(parts) for name, parts in lists.items()}


def judgement(
    ranked: Mapping[str, NDArray[np.int64]],
    relevant: sparse.csr_array,
    users: pd.Index,
    users_left_out: int,
    cutoffs: Sequence[int],
    seed: int,
) -> Evaluation:
    """What lists are worth.

    Args:
        ranked: System → (L, k) items, best first.
        relevant: (L, I) what was to be found.
        users: (L,) whose each list is.
        users_left_out: See `Evaluation`.
        cutoffs: Ranks at which metrics are taken.
        seed: Of the bootstrap.
    """
    return Evaluation(
        lists={
            name: per_user_metrics(items, relevant, cutoffs).assign(user_id=users) for name, items in ranked.items()
        },
        coverage={name: coverage(items, relevant.shape[1], 10) for name, items in ranked.items()},
        users_left_out=users_left_out,
        seed=seed,
    )


def _judged(engine: Engine, test: pd.DataFrame) -> tuple[pd.Index, Histories, sparse.csr_array]:
    """The users who can be judged, their histories, and what is relevant to them (users × items)."""
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


def check_test(test: pd.DataFrame, columns: Sequence[str], cutoffs: Sequence[int]) -> None:
    """Raise InputError if these are not cut-offs or not a test with these columns."""
    if 10 not in cutoffs:
        raise InputError(f"cutoffs are {tuple(cutoffs)}; the summary is taken at 10, so include it.")
    if not isinstance(test, pd.DataFrame):
        raise InputError(f"test: pass a DataFrame with {' and '.join(columns)}, not a {type(test).__name__}.")
    for name in columns:
        if name not in test.columns:
            raise InputError(f"test: no column {name!r}; the columns are {', '.join(map(str, test.columns))}.")
    if test.empty:
        raise InputError("test: the table has no rows, so there is nobody to judge by.")
