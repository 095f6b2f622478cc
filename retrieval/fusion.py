"""Fusion: the candidates of several sources, scored by every source, in one order."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from scipy import optimize

from encoders.errors import InputError
from retrieval.candidates import NO_ITEM, Candidates, Requests, Source

logger = logging.getLogger(__name__)

SEARCH = "text"  # the source that answers free-text queries


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class FusionConfig:
    """Settings of the fusion.

    Attributes:
        method: "weighted" adds up each source's scores, standardised within the request's candidates; "rrf" adds up
            reciprocal ranks.
        weights: Source → weight, at least 0. None learns them (see ``learn_weights``) on events that the sources were
            not trained on; reciprocal ranks all weigh 1 then.
        short: Where weights are learned, histories of fewer positive events than one of these numbers get weights of
            their own: what somebody's first clicks say is little beside what is popular. Empty, they are like others.
        max_lists: Lists that weights are learned on at most, a random sample; all that is proposed for them is held in
            memory with every source's score.
        depth: Candidates that each source proposes.
        rank_constant: The k of reciprocal rank fusion, score = Σ weight / (k + rank).
        query_weight: Where a request carries a free-text query: weight of the text source, as a multiple of all the
            others' together.
    """

    method: Literal["weighted", "rrf"] = "weighted"
    weights: Mapping[str, float] | None = None
    short: tuple[Annotated[int, Field(ge=2)], ...] = (5, 10)
    max_lists: Annotated[int, Field(ge=1)] = 5_000
    depth: Annotated[int, Field(ge=1)] = 200
    rank_constant: Annotated[float, Field(gt=0)] = 60.0
    query_weight: Annotated[float, Field(gt=0)] = 2.0


class FusedRetriever:
    """Several sources as one: the union of their candidates, each scored by all of them.

    Args:
        sources: Name → source; the order of names is the order of ``Candidates.by_source``.
        weights: Weight of each source, at least 0.
        config: Method and depth.
        short: Number → the sources' weights for requests of fewer positive events; the lowest number counts.

    Where requests carry a free-text query, only the source named ``SEARCH`` proposes, and the others help to order
    what it found. A request on which no source of positive weight has anything to say is ordered by the others,
    equally: without this, a user without a past would get items in no order where popularity has learned weight 0.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        weights: Mapping[str, float],
        config: FusionConfig,
        short: Mapping[int, Mapping[str, float]] = MappingProxyType({}),
    ) -> None:
        for given in (weights, *short.values()):
            if set(given) != set(sources) or not all(weight >= 0 for weight in given.values()):
                raise InputError(
                    f"Fusion weights {dict(given)} must give each source ({', '.join(sources)}) one weight of at "
                    "least 0."
                )
        self.sources = dict(sources)
        self.weights = {name: float(weights[name]) for name in self.sources}
        self.short = {
            fewer: {name: float(short[fewer][name]) for name in self.sources} for fewer in sorted(short, reverse=True)
        }
        self.config = config

    @property
    def n_items(self) -> int:
        """Size of the catalogue."""
        return next(iter(self.sources.values())).n_items

    def over(self, sources: Mapping[str, Source]) -> FusedRetriever:
        """The same fusion over other sources of the same names."""
        return FusedRetriever(sources, self.weights, self.config, self.short)

    def retrieve(self, requests: Requests, k: int) -> Candidates:
        """At most ``k`` items for each request, best first."""
        return self.union(requests, k).head(k)

    def union(self, requests: Requests, k: int) -> Candidates:
        """Everything that a source proposed at depth ``max(k, config.depth)``, in fused order."""
        depth = max(k, self.config.depth)
        self._check_query(requests)
        proposing = [SEARCH] if requests.queries is not None else list(self.sources)
        proposed = [self.sources[name].retrieve(requests, depth).items for name in proposing]
        items = _distinct(np.concatenate(proposed, axis=1))
        if items.shape[1] < k:
            items = np.pad(items, ((0, 0), (0, k - items.shape[1])), constant_values=NO_ITEM)
        return self.arrange(requests, items)

    def arrange(self, requests: Requests, items: NDArray[np.int64]) -> Candidates:
        """Given items (U, K) in fused order."""
        self._check_query(requests)
        by_source = np.stack([source.score(requests, items) for source in self.sources.values()], axis=2)
        unordered = Candidates(items, np.zeros(items.shape, np.float32), by_source, tuple(self.sources))
        return unordered.reordered(self._fuse(requests, items, by_source))

    def score(self, requests: Requests, items: NDArray[np.int64]) -> NDArray[np.float32]:
        """The fused score of given items (U, K), comparable within a row and this set of items only."""
        by_source = np.stack([source.score(requests, items) for source in self.sources.values()], axis=2)
        return np.where(items == NO_ITEM, np.float32(-np.inf), self._fuse(requests, items, by_source))

    def _check_query(self, requests: Requests) -> None:
        if requests.queries is not None and SEARCH not in self.sources:
            raise InputError(
                f"query: needs the source {SEARCH!r}, but this engine has {', '.join(self.sources)}. Leave the query "
                "out, or fit an engine with that source."
            )

    def _fuse(
        self, requests: Requests, items: NDArray[np.int64], by_source: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        weights = np.tile(np.array(list(self.weights.values()), np.float32), (len(items), 1))
        lengths = requests.histories.liked().lengths
        for fewer, own in self.short.items():
            weights[lengths < fewer] = list(own.values())
        if requests.queries is not None:
            place = list(self.sources).index(SEARCH)
            others = weights.sum(axis=1) - weights[:, place]
            weights[:, place] = self.config.query_weight * np.where(others > 0, others, 1)
        # Where every source of any weight is silent, as for a user without a past, the others decide.
        heard = np.isfinite(by_source).any(axis=1)
        weights[~(heard & (weights > 0)).any(axis=1)] = 1
        if self.config.method == "weighted":
            fused: NDArray[np.float32] = np.einsum("uks,us->uk", standardised(by_source), weights)
            return fused
        order = np.lexsort((np.broadcast_to(items[:, :, None], by_source.shape), -by_source), axis=1)
        ranks = np.empty_like(order)
        np.put_along_axis(ranks, order, np.arange(1, order.shape[1] + 1)[None, :, None], axis=1)
        reciprocal = np.where(np.isneginf(by_source), 0, 1 / (self.config.rank_constant + ranks))
        summed: NDArray[np.float32] = np.einsum("uks,us->uk", reciprocal, weights).astype(np.float32)
        return summed


def standardised(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores (U, K, S) with mean 0 and deviation 1 within each request and source.

    A score of minus infinity (the source has nothing to say) becomes 0, and so does every score of a source that
    scores all of a request's items the same.
    """
    known = np.isfinite(scores)
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    centred = np.where(known, scores, 0).astype(np.float64)
    centred -= centred.sum(axis=1, keepdims=True) / count
    centred[~known] = 0
    deviation = np.sqrt((centred**2).sum(axis=1, keepdims=True) / count)
    floor = 1e-6  # below it the differences are rounding
    scaled: NDArray[np.float64] = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > floor)
    return scaled.astype(np.float32)


def weigh_sources(proposed: Candidates, gains: NDArray[np.floating] | NDArray[np.bool_]) -> dict[str, float]:
    """Source → weight, learned from lists of candidates (``learn_weights``).

    Args:
        proposed: L lists.
        gains: (L, K) how much of a list's likelihood each candidate answers for.

    Returns:
        Weights of at least 0. All 1, with a warning, where no source ranks what was taken above the rest.
    """
    learned = learn_weights(standardised(proposed.by_source), proposed.items, gains)
    if not learned.any():
        logger.warning(
            "On %d lists no source puts what users took above what they did not, so all sources weigh the same. The "
            "log may be too small for its settings: lower als.regularization or als.factors, or give fusion.weights.",
            len(proposed),
        )
        learned = np.ones_like(learned)
    weights = dict(zip(proposed.sources, learned.tolist(), strict=True))
    told = ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items())
    logger.info("Weights learned on %d lists: %s.", len(proposed), told)
    return weights


def learn_weights(
    features: NDArray[np.float32],
    items: NDArray[np.int64],
    gains: NDArray[np.floating] | NDArray[np.bool_],
    penalty: float = 0.01,
) -> NDArray[np.float64]:
    """Non-negative weights that put what was taken of each list first (listwise softmax; Cao et al., ICML 2007).

    Args:
        features: (L, K, S) standardised scores.
        items: (L, K) the items they belong to, NO_ITEM beyond a list's end.
        gains: (L, K) how much of a list's likelihood each item answers for: 0 for what was not taken. A list counts as
            one, however much was taken of it; one of which nothing was teaches nothing.
        penalty: L2 penalty on the weights, per list.

    Returns:
        (S,) weights of at least 0. All 1 where nothing was taken of any list.
    """
    taken = np.where(items == NO_ITEM, 0, gains).astype(np.float64)
    taught = taken.any(axis=1)
    if not taught.any():
        return np.ones(features.shape[2])
    x = features[taught].astype(np.float64)
    valid = items[taught] != NO_ITEM
    shares = taken[taught] / taken[taught].sum(axis=1, keepdims=True)
    target = np.einsum("lk,lks->ls", shares, x)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = np.where(valid, x @ weights, -np.inf)
        peak = logits.max(axis=1, keepdims=True)
        odds = np.exp(logits - peak)
        total = odds.sum(axis=1, keepdims=True)
        expected = np.einsum("lk,lks->ls", odds / total, x)
        value = (np.log(total) + peak)[:, 0] - target @ weights
        gradient = (expected - target).mean(axis=0) + 2 * penalty * weights
        return float(value.mean() + penalty * weights @ weights), gradient

    start = np.full(x.shape[2], 0.5)
    solution = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(start))
    return np.asarray(solution.x)


def _distinct(items: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each row's distinct items in ascending order, NO_ITEM at the end, as narrow as the longest row."""
    ordered = np.sort(np.where(items == NO_ITEM, np.iinfo(np.int64).max, items), axis=1)
    ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = np.iinfo(np.int64).max
    ordered.sort(axis=1)
    ordered[ordered == np.iinfo(np.int64).max] = NO_ITEM
    return ordered[:, : max(1, int((ordered != NO_ITEM).sum(axis=1).max(initial=0)))]
