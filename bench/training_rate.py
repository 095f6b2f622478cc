"""How fast joint layers train: lists per second from cached states, on made-up lists of real users and items."""

import time
from typing import Any, cast

import numpy as np

from ranker.config import JointTrainingConfig
from ranker.engine import Engine
from ranker.lists import LabelledLists, Lessons
from ranker.split.reranker import SplitReranker
from ranker.split.training import train_joint
from retrieval.candidates import Candidates, Requests

NEGATIVES = 31  # so a list has 32 candidates
LARGE = 100_000  # lists, for which the time is extrapolated
VALIDATION = 32  # lists, scored once


def training_rate(engine: Engine, lists: int) -> dict[str, Any]:
    """Train a copy of an engine's joint layers for one epoch of so many lists.

    The clock holds everything that training does but the items' reading: gathering, gradient steps, the validation.
    """
    reranker = cast(SplitReranker, engine.reranker)
    drawn = random_lists(engine, lists + VALIDATION)
    train, validation = drawn.take(np.arange(lists)), drawn.take(np.arange(lists, lists + VALIDATION))
    config = JointTrainingConfig(negatives=NEGATIVES, epochs=1, validation_lists=VALIDATION)
    model = reranker.joint.model()
    clock = time.perf_counter()
    report = train_joint(model, reranker.inputs, Lessons.of(train), validation, config, 0, progress=False)
    seconds = time.perf_counter() - clock
    return {
        "lists": lists,
        "candidates": 1 + NEGATIVES,
        "events": reranker.joint.shape.max_events,
        "steps": report.steps,
        "seconds": seconds,
        "lists_per_s": lists / seconds,
        f"minutes_for_{LARGE}": LARGE / lists * seconds / 60,
    }


def random_lists(engine: Engine, count: int) -> LabelledLists:
    """Lists of random items, any of which may be the chosen one, for random users with all of their history."""
    rng = np.random.default_rng(0)
    histories, size = engine.users.base.histories, len(engine.catalogue)
    users = rng.choice(np.flatnonzero(histories.lengths), count)
    items = np.stack([rng.choice(size, 1 + NEGATIVES, replace=False) for _ in range(count)])
    scores = np.sort(rng.standard_normal(items.shape, np.float32), axis=1)[:, ::-1]
    sources = tuple(engine.retriever.sources)
    by_source = rng.standard_normal((*items.shape, len(sources)), np.float32)
    requests = Requests(histories.take(users), np.ones(size, np.bool_))
    return LabelledLists(users, requests, Candidates(items, scores, by_source, sources), items[:, 0])
