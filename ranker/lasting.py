"""The view of lasting taste: the same sources, weighed by what users came back for after an instant."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ranker.config import EngineConfig
from ranker.sources import LASTING, fit_sources
from retrieval.candidates import Requests, Source, TasteSource
from retrieval.fusion import FusedRetriever, weigh_sources
from retrieval.histories import Histories

logger = logging.getLogger(__name__)


def lasting_views(sources: Mapping[str, Source]) -> dict[str, Source]:
    """Sources as they see lasting taste, without those that know nothing of it."""
    return {name: source.lasting() for name, source in sources.items() if isinstance(source, TasteSource)}


def fit_lasting(
    sources: Mapping[str, Source],
    histories: Histories,
    vectors: NDArray[np.float32],
    given: Mapping[str, float] | None,
    config: EngineConfig,
) -> FusedRetriever | None:
    """The lasting view of sources; None where they have none, or where it is switched off.

    Args:
        sources: Name → source, as they serve.
        histories: What they were fitted on.
        vectors: (I, dim) the items' text vectors.
        given: Source → weight; None learns them.
        config: All settings.
    """
    views = lasting_views(sources)
    if not (config.lasting.enabled and views):
        return None
    weights = learn_lasting_weights(histories, vectors, config) if given is None else given
    return FusedRetriever(views, {name: weights[name] for name in views}, config.fusion)


def learn_lasting_weights(histories: Histories, vectors: NDArray[np.float32], config: EngineConfig) -> dict[str, float]:
    """Weights of lasting views, learned from what users did after an instant, on sources that know nothing of it.

    Every user with positive events before the instant and, after it, with some on items that were new to them makes one
    list. All of these items are its positives, each as much as its events weigh.

    Args:
        histories: Every user's.
        vectors: (I, dim) the items' text vectors.
        config: All settings; ``config.lasting`` says where the instant lies.

    Returns:
        Source → weight; all 1 where too few users came back.
    """
    names = tuple(name for name in config.sources if name in LASTING)
    n_items = len(vectors)
    before, later = cut(histories, config.lasting.share, n_items)
    users = np.flatnonzero((before.liked().lengths > 0) & (np.diff(later.indptr) > 0))
    if len(users) < config.lasting.least_users:
        logger.info("Only %d users came back for new items: the sources of lasting taste weigh the same.", len(users))
        return dict.fromkeys(names, 1.0)
    users = np.random.default_rng(config.seed).permutation(users)[: config.lasting.max_lists]
    sources = fit_sources(before, vectors, replace(config, sources=names))
    equal = FusedRetriever(lasting_views(sources), dict.fromkeys(names, 1.0), config.fusion)
    requests = Requests(before.take(users), np.ones(n_items, np.bool_))
    candidates = equal.union(requests, config.fusion.depth)
    rows = np.repeat(users, candidates.items.shape[1])
    gains = np.asarray(later[rows, candidates.items.ravel()]).reshape(candidates.items.shape)
    logger.info("Weighing lasting taste by what %d users came back for.", len(users))
    return weigh_sources(candidates, gains)


def cut(histories: Histories, share: float, n_items: int) -> tuple[Histories, sparse.csr_array]:
    """Histories up to an instant, and the weights (U, I) of items that users took after it and had not had before.

    Args:
        histories: Every user's.
        share: Newest share of all events, those at the instant included.
        n_items: I.
    """
    times = np.sort(histories.times)
    instant = times[int(len(times) * (1 - share))] if len(times) else 0
    before = histories.until(np.arange(len(histories)), np.full(len(histories), instant))
    later = (histories.times >= instant) & (histories.weights > 0)
    taken = histories.matrix(np.where(later, histories.weights, 0), n_items)
    seen = before.matrix(np.ones(len(before.items), np.float32), n_items)
    new = sparse.csr_array(taken - taken.multiply(seen > 0))
    new.eliminate_zeros()
    return before, new
