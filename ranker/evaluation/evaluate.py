"""Judging an engine: its order, and that of its every part, against what users then did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from encoders.errors import InputError
from ranker.evaluation.comparison import MeanInterval, PairedDifference, bootstrap_mean, paired_bootstrap
from ranker.evaluation.metrics import coverage, per_user_metrics
from ranker.evaluation.multiple_comparisons import compare_systems
from ranker.evaluation.questions import Questions, asked_before_each, asked_once
from ranker.evaluation.rankings import check_cutoffs
from ranker.evaluation.slices import Groups, slice_means
from ranker.reranker import CrossEncoderReranker
from retrieval.candidates import Retriever

if TYPE_CHECKING:
    from ranker.engine import Engine

CANDIDATES = "candidates"  # the fused order, before re-ranking
CROSS_ENCODER = "cross-encoder"  # the same candidates re-ranked, whether that order is served or not
LASTING = "lasting"  # the order of the view of lasting taste, which is not re-ranked
ENGINE = "engine"  # the order that is served
AUTO = "auto"  # the same, but for users who come back that of lasting taste
METRIC = "ndcg@10"


@dataclass(frozen=True)
class Evaluation:
    """How well each part of an engine ranked the whole catalogue for the same users.

    Attributes:
        lists: System → one row per judged list (``user_id`` and every metric): one for each user, or for each event of
            a replay. Systems are the sources by name, ``candidates`` (fused), ``cross-encoder`` (the same, re-ranked by
            the fine-tuned cross-encoder, where the engine has one), ``lasting`` (the order of the view of lasting
            taste, where it has one), ``engine`` (the order that is served where what comes next is asked for: one of
            the two first) and ``auto`` (in a replay: that or the lasting one, by how long ago a user's last event was).
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
        return pd.factorize(next(iter(self.lists.values()))["user_id"])[0]

    def comparisons(self, baseline: str = CANDIDATES, metric: str = METRIC) -> pd.DataFrame:
        """Every other system against one, paired by user, with p-values for so many tests: see `compare_systems`.

        Raises:
            InputError: The baseline was not judged.
        """
        values = {name: table[metric].to_numpy() for name, table in self.per_user.items()}
        return compare_systems(values, baseline, seed=self.seed)

    def sliced(self, groups: Groups, metric: str = METRIC) -> pd.DataFrame:
        """Every system's mean over each group of lists, with its bootstrap interval over users.

        Args:
            groups: (L,) the name of each list's group; a list in none has None or NaN.
            metric: Which.

        Returns:
            One row per system and group: ``system``, then as `slice_means` gives it.

        Raises:
            InputError: There is no group, or not one for each list.
        """
        means = [
            slice_means(table[[metric]], groups, seed=self.seed, users=self._users).assign(system=name)
            for name, table in self.lists.items()
        ]
        return pd.concat(means, ignore_index=True)[["system", *means[0].columns.drop("system")]]


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
    return judged(engine, asked_once(engine.users, engine.catalogue, test), others=others, cutoffs=cutoffs, seed=seed)


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
    sequence) knows every earlier event of the test. What was trained stays as it was.

    Args:
        engine: Fitted on events that hold none of the test's.
        test: ``user_id, item_id, weight, datetime``, in the order in which events of equal times are revealed.
        relevant: Which rows of the test are judged at all, such as those with a high rating; None: all of a weight
            above 0 whose item is in the catalogue and new to its user.
        others: Name → retriever over the same catalogue, to be judged beside the engine's own.
        cutoffs: Ranks at which metrics are taken; 10 must be among them.
        seed: Of the bootstrap, which resamples users.

    Raises:
        InputError: A column is missing, 10 is no cut-off, an event is earlier than what the engine knows of its user,
            or fewer than two users have an event that can be judged.
    """
    asked = asked_before_each(engine.users, engine.catalogue, test, relevant)
    return judged(engine, asked, others=others, cutoffs=cutoffs, seed=seed)


def judged(
    engine: Engine,
    asked: Questions,
    *,
    others: Mapping[str, Retriever] = MappingProxyType({}),
    cutoffs: Sequence[int] = (5, 10, 20),
    seed: int = 0,
) -> Evaluation:
    """What an engine and its parts are worth by their answers to these questions.

    Args:
        engine: It knows nothing of what is to be found.
        asked: The questions.
        others: Name → retriever over the same catalogue, to be judged beside the engine's own.
        cutoffs: Ranks at which metrics are taken; 10 must be among them.
        seed: Of the bootstrap.

    Raises:
        InputError: 10 is no cut-off, or the cut-offs do not fit the catalogue.
    """
    check_summarised(cutoffs)
    return judgement(ranked_by_every_part(engine, asked, max(cutoffs), others), asked, cutoffs, seed)


def check_summarised(cutoffs: Sequence[int]) -> None:
    """Raise InputError if the cut-offs are not different ranks, 10 among them."""
    check_cutoffs(cutoffs, max(cutoffs, default=0))
    if 10 not in cutoffs:
        raise InputError(f"cutoffs are {tuple(cutoffs)}; the summary is taken at 10, so include it.")


def ranked_by_every_part(
    engine: Engine, asked: Questions, k: int, others: Mapping[str, Retriever] = MappingProxyType({})
) -> dict[str, NDArray[np.int64]]:
    """The first ``k`` items (L, k) of the whole catalogue less what was seen, by system, see `Evaluation`.

    Args:
        engine: Whose parts rank.
        asked: What for.
        k: Lists are filled up with NO_ITEM where the catalogue is smaller.
        others: Name → retriever over the same catalogue, beside the engine's own.
    """
    blocks: dict[str, list[NDArray[np.int64]]] = {}
    retrievers: dict[str, Retriever] = {**engine.retriever.sources, **others}
    if engine.lasting is not None:
        retrievers[LASTING] = engine.lasting
    for requests in asked.requests():
        candidates = engine.retriever.retrieve(requests, max(k, engine.config.rerank.chosen.depth))
        found = {name: retriever.retrieve(requests, k) for name, retriever in retrievers.items()}
        found[CANDIDATES] = candidates.head(k)
        served = candidates.head(k)
        if isinstance(engine.reranker, CrossEncoderReranker):
            found[CROSS_ENCODER] = engine.reranker.reordered(requests, candidates).head(k)
            served = found[CROSS_ENCODER] if engine.reranker.gain.serves else served
        found[ENGINE] = served
        for name, ranked in found.items():
            blocks.setdefault(name, []).append(ranked.items)
    lists = {name: np.concatenate(parts) for name, parts in blocks.items()}
    if asked.pauses is not None and engine.lasting is not None:
        comes_back = asked.pauses >= engine.config.lasting.pause_seconds
        lists[AUTO] = np.where(comes_back[:, None], lists[LASTING], lists[ENGINE])
    return lists


def judgement(
    ranked: Mapping[str, NDArray[np.int64]], asked: Questions, cutoffs: Sequence[int], seed: int
) -> Evaluation:
    """What lists are worth.

    Args:
        ranked: System → (L, k) items, best first.
        asked: What they answer.
        cutoffs: Ranks at which metrics are taken; 10 must be among them.
        seed: Of the bootstrap.

    Raises:
        InputError: The cut-offs do not fit the lists, see `per_user_metrics`.
    """
    return Evaluation(
        lists={
            name: per_user_metrics(items, asked.relevant, cutoffs).assign(user_id=asked.users)
            for name, items in ranked.items()
        },
        coverage={name: coverage(items, asked.relevant.shape[1], 10) for name, items in ranked.items()},
        users_left_out=asked.users_left_out,
        seed=seed,
    )
