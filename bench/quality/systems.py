"""The systems that answer: the engine with each of its parts, and the peers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

import ranker
from bench.peers import inside
from bench.peers.outside import ranked_outside
from bench.quality.protocols import ProtocolName, Task
from ranker.evaluation.evaluate import AUTO, CANDIDATES, CROSS_ENCODER, ENGINE, LASTING, ranked_by_every_part
from ranker.lasting import lasting_views
from ranker.reranker import CrossEncoderReranker
from retrieval.candidates import NO_ITEM, Candidates, Requests, Retriever
from retrieval.fusion import FusedRetriever, FusionConfig
from retrieval.histories import Histories

K = 50  # items of a list
TIMED = 200  # lists by which the time of one is taken
RRF = "reciprocal rank fusion"
FROZEN = "engine, without feedback"
TOLD_LATER = "engine, told of the films after its fit"
SERVED: dict[ProtocolName, str] = {"loo": ENGINE, "temporal": LASTING, "prequential": ENGINE, "cold": LASTING}
LIKED_FROM = "liked_from"  # in any system's settings: stars from which a rating is a sign of liking to it


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a system answered.

    Attributes:
        items: (L, K) positions in the catalogue, best first, NO_ITEM at the end.
        fit_s: Seconds of fitting it, or of an update of what was fitted; None for a part of an engine, which is not
            fitted by itself.
        list_ms: Milliseconds of a list on one core, many at once.
    """

    items: NDArray[np.int64]
    fit_s: float | None
    list_ms: float


def engine_answer(task: Task, settings: Mapping[str, Any], seed: int) -> Answer:
    """What an engine answers as a whole; see ``engine_answers``."""
    task, settings = reading(task, settings)
    engine, fit_s = fitted(task, settings, seed)
    items = np.concatenate([listed(engine, task.protocol, requests).items for requests in task.asked.requests()])
    few = Requests(task.asked.histories(slice(TIMED)), np.ones(len(task.catalogue), np.bool_))
    with one_core():
        seconds = _seconds(lambda: listed(engine, task.protocol, few))
    engine.log.close()
    return Answer(items, fit_s, 1000 * seconds / len(few))


def engine_answers(task: Task, settings: Mapping[str, Any], seed: int) -> dict[str, Answer]:
    """What an engine and each of its parts answer.

    Args:
        task: The questions.
        settings: The engine's, as ``EngineConfig.to_dict`` gives them, and ``LIKED_FROM``.
        seed: Of everything random.
    """
    task, settings = reading(task, settings)
    engine, fit_s = fitted(task, settings, seed)
    sources = engine.retriever.sources
    others: dict[str, Retriever] = {
        **{f"{name}, lasting": view for name, view in lasting_views(sources).items()},
        RRF: FusedRetriever(sources, dict.fromkeys(sources, 1.0), FusionConfig(method="rrf")),
    }
    ranked = ranked_by_every_part(engine, task.asked, K, others)
    with one_core():
        times = list_times(engine, task, others)
    times[AUTO] = times[ENGINE]
    answers = {name: Answer(items, fit_s if name == ENGINE else None, times[name]) for name, items in ranked.items()}
    if task.protocol == "prequential":
        answers[FROZEN] = Answer(without_feedback(engine, task), None, answers[ENGINE].list_ms)
    engine.log.close()
    if task.protocol == "cold":
        answers[TOLD_LATER] = Answer(*told_later(task, settings, seed), answers[LASTING].list_ms)
    return answers


def fitted(task: Task, settings: Mapping[str, Any], seed: int) -> tuple[ranker.Engine, float]:
    """An engine with these settings, and the seconds of its fit."""
    clock = time.perf_counter()
    engine = ranker.fit(task.train, task.items, ranker.EngineConfig.from_dict({**settings, "seed": seed}))
    return engine, time.perf_counter() - clock


def listed(engine: ranker.Engine, protocol: ProtocolName, requests: Requests) -> Candidates:
    """What an engine serves where this protocol asks."""
    if SERVED[protocol] == LASTING and engine.lasting is not None:
        return engine.lasting.retrieve(requests, K)
    depth = max(K, engine.config.rerank.chosen.depth)
    return engine.reranker.rerank(requests, engine.retriever.retrieve(requests, depth)).head(K)


def reading(task: Task, settings: Mapping[str, Any]) -> tuple[Task, dict[str, Any]]:
    """The task as a system with these settings reads it, and the settings of the system itself."""
    own = dict(settings)
    least = own.pop(LIKED_FROM, None)
    return (task if least is None else task.liked_from(least)), own


def told_later(task: Task, settings: Mapping[str, Any], seed: int) -> tuple[NDArray[np.int64], float]:
    """The lists of an engine that knew no film that nobody rated until after its fit, and the seconds of being told.

    Args:
        task: The questions, one of each user.
        settings: The engine's.
        seed: Of everything random.
    """
    rated = task.items["item_id"].isin(task.train["item_id"])
    engine, _ = fitted(replace(task, items=task.items[rated]), settings, seed)
    clock = time.perf_counter()
    updated = ranker.update_items(engine, task.items[~rated])
    update_s = time.perf_counter() - clock
    found = updated.recommend(list(task.asked.users), K, horizon="lasting")
    updated.log.close()
    items = np.full((len(task.asked), K), NO_ITEM, np.int64)
    rows = pd.Index(task.asked.users).get_indexer(found["user_id"])
    items[rows, found["rank"] - 1] = task.catalogue.ids.positions(found["item_id"])
    return items, update_s


def list_times(engine: ranker.Engine, task: Task, others: Mapping[str, Retriever]) -> dict[str, float]:
    """Milliseconds of a list by system, from the first lists that are asked for."""
    everything = np.ones(len(task.catalogue), np.bool_)
    requests = Requests(task.asked.histories(slice(TIMED)), everything)
    depth = max(K, engine.config.rerank.chosen.depth)
    calls: dict[str, Callable[[], object]] = {
        name: lambda retriever=retriever: retriever.retrieve(requests, K)
        for name, retriever in {**engine.retriever.sources, **others, LASTING: engine.lasting}.items()
        if retriever is not None
    }
    calls[CANDIDATES] = lambda: engine.retriever.retrieve(requests, K)
    calls[ENGINE] = lambda: engine.reranker.rerank(requests, engine.retriever.retrieve(requests, depth))
    reranker = engine.reranker
    if isinstance(reranker, CrossEncoderReranker):  # what it takes, whether its order is served or not
        calls[CROSS_ENCODER] = lambda: reranker.reordered(requests, engine.retriever.retrieve(requests, depth))
    return {name: 1000 * _seconds(call) / len(requests) for name, call in calls.items()}


def _seconds(call: Callable[[], object]) -> float:
    clock = time.perf_counter()
    call()
    return time.perf_counter() - clock


def without_feedback(engine: ranker.Engine, task: Task) -> NDArray[np.int64]:
    """The lists of an engine that is told no event of the test; what was seen meanwhile is left out still."""
    asked = task.asked
    users = asked.users.unique()
    most = int(np.max(asked.histories().lengths - task.before.histories(list(asked.users)).lengths))
    frozen = engine.recommend(list(users), min(K + most, len(task.catalogue)))
    lists = {user: task.catalogue.ids.positions(items) for user, items in frozen.groupby("user_id")["item_id"]}
    items = np.full((len(asked), K), NO_ITEM, np.int64)
    for at, user in enumerate(asked.users):
        history = asked.histories(slice(at, at + 1))
        left = lists[user][~np.isin(lists[user], history.items)][:K]
        items[at, : len(left)] = left
    return items


def peer_answer(name: str, settings: Mapping[str, Any], task: Task, seed: int) -> Answer:
    """What a peer answers; whom it can say nothing to gets the most popular films."""
    task, settings = reading(task, settings)
    read = task.asked.histories()
    # a peer leaves out what it reads, which are the liked items alone: it gives some more, for the others to be dropped
    k = min(K + int((read.lengths - read.liked().lengths).max()), len(task.catalogue))
    if name in inside.MODELS:
        found = inside.ranked_inside(name, settings, task.log, task.rows, read, len(task.catalogue), k, seed)
    else:
        found = ranked_outside(name, settings, task.log, read, k, seed)
    items = with_popular(unseen(found.items, read), task)
    return Answer(items, found.fit_s, 1000 * found.rank_s / len(read))


def unseen(items: NDArray[np.int64], read: Histories) -> NDArray[np.int64]:
    """The first K of each list (L, k) that its history does not hold."""
    left = np.full((len(items), K), NO_ITEM, np.int64)
    for row, listed in enumerate(items):
        fresh = listed[(listed != NO_ITEM) & ~np.isin(listed, read.items[read.indptr[row] : read.indptr[row + 1]])][:K]
        left[row, : len(fresh)] = fresh
    return left


def with_popular(items: NDArray[np.int64], task: Task) -> NDArray[np.int64]:
    """Lists of which the empty ones hold the most popular items that their users did not have."""
    items = items.copy()
    liked = task.log.liked()
    popular = np.argsort(-np.bincount(liked.items, minlength=len(task.catalogue)), kind="stable")
    for at in np.flatnonzero((items == NO_ITEM).all(axis=1)):
        had = task.asked.histories(slice(int(at), int(at) + 1)).items
        items[at] = popular[~np.isin(popular, had)][:K]
    return items


@contextmanager
def one_core() -> Iterator[None]:
    """One thread for numerical libraries and torch while it lasts; sessions of ONNX Runtime keep theirs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)
