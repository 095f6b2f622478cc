"""A replay of ratings through an engine's public interface: a list before each, then the rating into the log."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from tqdm import tqdm

from bench.feedback.poison import Event, Poison
from bench.quality.systems import one_core
from encoders.errors import InputError
from ranker import Engine
from ranker.learning.learner import Learner
from ranker.learning.refit import Refitter

K = 10
STATIC, LIVE = "told nothing", "told of each rating"
LEARNING, REFITTING = "and weights learn", "and sources are fitted again"  # each does what those before it do
LIKED = 4.0  # stars from which a rating is judged


@dataclass
class Replayed:
    """What a replay measured; row ``l`` of each list belongs to one judged rating.

    Attributes:
        ndcg: System → NDCG@10.
        users: Whose it is.
        items: What was to be found.
        at: Its place among all replayed ratings.
        state_s: Seconds of each update of a user's state before a list, which the list would begin with else.
        recommend_s: Seconds of each list of the live engine.
        feedback_s: Seconds of each rating's way into the log.
        pair_s: Seconds of a rating's way into the log, the update, and the next list of the same user.
        step_s: Seconds of each learning step of ``LEARNING``.
        gradient_s: Seconds of their gradient steps alone, without the making of lessons and the measuring of weights.
        lists: Lists that were learned from in each.
        refit_s: Seconds of each time that ``REFITTING`` fitted its sources again, or tried to.
        refused: Events that the engine refused.
    """

    ndcg: dict[str, list[float]]
    users: list[object] = field(default_factory=list)
    items: list[object] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    state_s: list[float] = field(default_factory=list)
    recommend_s: list[float] = field(default_factory=list)
    feedback_s: list[float] = field(default_factory=list)
    pair_s: list[float] = field(default_factory=list)
    step_s: list[float] = field(default_factory=list)
    gradient_s: float = 0.0
    lists: list[int] = field(default_factory=list)
    refit_s: list[float] = field(default_factory=list)
    refused: int = 0


class Static:
    """The lists of an engine that is told nothing; what a user rated meanwhile is left out still."""

    def __init__(self, engine: Engine, test: pd.DataFrame) -> None:
        most = int(test["user_id"].value_counts().max())
        users = test["user_id"].unique().tolist()
        found = engine.recommend(users, min(K + most, len(engine.catalogue)))
        self._lists = {user: items.tolist() for user, items in found.groupby("user_id")["item_id"]}

    def list_for(self, user: object, rated: set[object]) -> list[object]:
        """The first items that were not rated meanwhile."""
        fresh: Iterator[object] = (item for item in self._lists[user] if item not in rated)
        return [item for item, _ in zip(fresh, range(K), strict=False)]


def replayed(
    live: Engine,
    learners: Mapping[str, Learner],
    refitter: Refitter | None,
    test: pd.DataFrame,
    batch: int,
    poison: Poison | None = None,
) -> Replayed:
    """Rank before each rating of ``LIKED`` or more whose film is known and new to its user; then tell the rating.

    Args:
        live: It never learns.
        learners: Of ``LEARNING`` and ``REFITTING``, each with the same engine of its own; the former's has the log of
            ``live``. Empty where nothing is to learn beside.
        refitter: Of the latter's engine; None where nothing is to learn beside.
        test: ``user_id, item_id, weight, datetime`` in the order of the replay.
        batch: Ratings after which the learners step.
        poison: Changes what arrives; what is judged stays as it is.
    """
    static = Static(live, test)
    rated = {user: set(live.catalogue.ids.at(live.users.histories([user]).items)) for user in test["user_id"].unique()}
    before = {user: set(items) for user, items in rated.items()}
    found = Replayed(ndcg={name: [] for name in (STATIC, LIVE, *learners)})
    told_at: dict[object, float] = {}
    rows = test[["user_id", "item_id", "weight", "datetime"]].itertuples(index=False)
    for at, (user, item, weight, moment) in enumerate(tqdm(rows, total=len(test), desc="ratings", disable=None)):
        if weight >= LIKED and item not in rated[user]:
            clock = time.perf_counter()
            live.users.histories([user])
            updated = time.perf_counter()
            shown = live.recommend([user], K)["item_id"].tolist()
            done = time.perf_counter()
            found.state_s.append(updated - clock)
            found.recommend_s.append(done - updated)
            if user in told_at:
                found.pair_s.append(done - clock + told_at[user])
            found.users.append(user)
            found.items.append(item)
            found.at.append(at)
            lists = {STATIC: static.list_for(user, rated[user] - before[user]), LIVE: shown}
            for name, learner in learners.items():
                # until something learned serves both are the same engine
                learned = learner.engine.version != live.version
                lists[name] = learner.engine.recommend([user], K)["item_id"].tolist() if learned else shown
            for name, listed in lists.items():
                found.ndcg[name].append(1 / np.log2(2 + listed.index(item)) if item in listed else 0.0)
        event: Event = {
            "event_id": f"rating {at}", "user_id": user, "item_id": item, "kind": "rating", "value": weight,
            "datetime": moment, "source": "replay",
        }  # fmt: skip
        events = [event] if poison is None else poison.events(event)
        clock = time.perf_counter()
        found.refused += _told(live, events)
        told_at[user] = time.perf_counter() - clock
        found.feedback_s.append(told_at[user])
        if refitter is not None:
            _told(refitter.engine, events)
        rated[user].add(item)
        if refitter is not None and (at + 1) % batch == 0:
            with one_core():
                _step(found, learners, refitter, batch * (1 if poison is None else 2))
    return found


def _told(engine: Engine, events: list[Event]) -> int:
    """Tell an engine each event by itself; how many it refused."""
    refused = 0
    for event in events:
        try:
            engine.feedback(pd.DataFrame([event]))
        except InputError:
            refused += 1
    return refused


def _step(found: Replayed, learners: Mapping[str, Learner], refitter: Refitter, most: int) -> None:
    for name, learner in learners.items():
        clock = time.perf_counter()
        step = learner.step(most)
        if name == LEARNING:
            found.step_s.append(time.perf_counter() - clock)
            found.lists.append(step.lists)
    clock = time.perf_counter()
    if refitter.step() != "nothing":
        found.refit_s.append(time.perf_counter() - clock)
