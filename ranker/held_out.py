"""What is held out of a log to learn from: users' newest events, all events of some, and the lists before them."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from encoders.errors import InputError
from ranker.config import EngineConfig
from ranker.lists import LabelledLists, labelled_lists
from ranker.sources import fit_sources
from retrieval.candidates import Requests
from retrieval.fusion import FusedRetriever, weigh_sources
from retrieval.histories import Histories

logger = logging.getLogger(__name__)

LEAST_LISTS = 50  # without which short histories get no weights of their own: fewer teach nothing


def held_out_lists(
    histories: Histories, vectors: NDArray[np.float32], weights: dict[str, float] | None, config: EngineConfig
) -> tuple[LabelledLists, FusedRetriever]:
    """Lists of held-out events, and what proposed them: sources that never saw these events, fused.

    Of most users the newest events are held out; of newcomers (``TrainingConfig.newcomers``) all are, and lists are
    made of their first ones.

    Args:
        histories: Every user's history.
        vectors: (I, dim) the items' vectors.
        weights: The fusion weights where they are given; None learns them on the lists.
        config: All settings.

    Raises:
        InputError: No user has two positive events.
    """
    training = config.rerank.chosen.training
    liked = histories.liked()
    rng = np.random.default_rng(config.seed)
    newcomers = rng.permutation(len(liked))[: int(training.newcomers * len(liked))]
    sizes = held_out_sizes(liked, training.holdout)
    sizes[newcomers] = 0
    events = held_out_events(histories, sizes, training.max_lists, rng)
    first = first_events(histories, newcomers, max(config.fusion.short, default=0))
    sizes[newcomers] = liked.lengths[newcomers]
    logger.info(
        "Holding out the newest events of each user, and all events of %d users: %d and %d lists to learn from.",
        len(newcomers), len(events), len(first),
    )  # fmt: skip
    sources = fit_sources(liked.without_latest(sizes), vectors, config)
    short: dict[int, dict[str, float]] = {}
    if weights is None:
        equal = FusedRetriever(sources, dict.fromkeys(sources, 1.0), config.fusion)
        weights = _learned(equal, histories, rng.permutation(events))
        known = histories.before(first).liked().lengths
        least = 1
        for fewer in sorted(config.fusion.short):
            within = first[(known >= least) & (known < fewer)]
            if len(within) >= LEAST_LISTS:
                logger.info("For users of whom %d to %d events are known:", least, fewer - 1)
                short[fewer] = _learned(equal, histories, rng.permutation(within))
            least = fewer
    fused = FusedRetriever(sources, weights, config.fusion, short)
    every = np.concatenate([events, first])
    return labelled_lists(histories, every, fused, len(vectors), config.rerank.chosen.depth), fused


def _learned(equal: FusedRetriever, histories: Histories, events: NDArray[np.int64]) -> dict[str, float]:
    """Source → weight, learned on the lists of the first of these events."""
    some = events[: equal.config.max_lists]
    requests = Requests(histories.before(some), np.ones(equal.n_items, np.bool_))
    proposed = equal.union(requests, equal.config.depth)
    return weigh_sources(proposed, proposed.items == histories.items[some, None])


def first_events(log: Histories, users: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Positive events of these users before which they had some, but fewer than ``most``: positions in ``log.items``.

    An event on an item that the user had before is passed over.
    """
    found = []
    for user in np.sort(users):
        places = np.arange(log.indptr[user], log.indptr[user + 1])
        positive = places[log.weights[places] > 0]
        found += [event for event in positive[1:most] if log.items[event] not in log.items[places[0] : event]]
    return np.array(found, np.int64)


def held_out_sizes(log: Histories, holdout: int) -> NDArray[np.int64]:
    """How many of each user's newest events to hold out, (U,): ``holdout``, but no more than half of what there is."""
    return np.minimum(holdout, log.lengths // 2)


def held_out_events(
    log: Histories, sizes: NDArray[np.int64], max_events: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """The newest positive events of each user, as positions in ``log.items``.

    An event on an item that the user had before is passed over: a seen item is never shown, so it cannot be chosen.

    Args:
        log: Every user's history.
        sizes: (U,) how many of each user, see ``held_out_sizes``; no user has fewer positive events.
        max_events: How many in all, at most; whole users are left out at random beyond that.
        rng: Chooses them.

    Raises:
        InputError: No user has two events.
    """
    users = rng.permutation(np.flatnonzero(sizes))
    users = np.sort(users[np.cumsum(sizes[users]) <= max(max_events, sizes.max(initial=0))])
    if not len(users):
        raise InputError(
            f"None of {len(log)} users has two positive events or more, so nothing can be held out to learn from. "
            "Give fusion.weights and set rerank.enabled: false."
        )
    positive = np.flatnonzero(log.weights > 0)
    ends = np.searchsorted(positive, log.indptr[users + 1])
    newest = [positive[end - sizes[user] : end] for user, end in zip(users, ends, strict=True)]
    fresh = [
        event
        for user, events in zip(users, newest, strict=True)
        for event in events
        if log.items[event] not in log.items[log.indptr[user] : event]
    ]
    return np.array(fresh, np.int64)
