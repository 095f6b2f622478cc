"""Requests beside a learner: how long they take with and without one, and how soon what gained serves."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pandas as pd

from bench.feedback.replay import K
from bench.timing import Budget, Ratio, Timings, median_ratio, time_in_turn
from ranker import Engine
from ranker.learning.background import BackgroundLearner
from ranker.learning.config import LearningConfig
from ranker.learning.learner import Learner, Step
from ranker.learning.refit import Refitter

RATE = 20.0  # ratings a second, each with the next list of its user
ALONE, ABREAST, BEHIND = "no learner", "a learner that keeps up", "a learner with all of the log before it"
EAGER = "a learner that looks after every 10 lists whether it gained"
FITTING = "a learner that keeps up, and sources that are fitted again without a pause"
OFTEN = {"measured": 1.0, "least_lists": 10, "most_lists": 50}  # so that there are versions to be promoted


@dataclass(frozen=True, slots=True)
class Beside:
    """What was measured.

    Attributes:
        timings: Learner, or none → what a rating and its user's next list took together.
        promotion_s: Seconds from the arrival of the newest event that learned weights saw until they served.
    """

    timings: dict[str, Timings]
    promotion_s: list[float]

    def ratio(self, name: str) -> Ratio:
        """How many times as long the median is as without a learner."""
        return median_ratio(self.timings[name], self.timings[ALONE])


class Timed(Learner):
    """A learner that notes how long promoted weights took to serve."""

    promotion_s: list[float]  # shared with others

    def step(self, most: int | None = None) -> Step:
        """As the learner's."""
        step = super().step(most)
        if step.outcome == "promoted":
            (newest,) = self.engine.log.newer(self.offset - 1, 1)
            self.promotion_s.append(time.time() - newest.received / 1e6)
        return step


def beside_a_learner(engine: Engine, test: pd.DataFrame, round_s: float, seconds: float) -> Beside:
    """Time ratings and lists by turns without and with a learner in the same process.

    Args:
        engine: Is told the first half of the ratings before, for a learner to be behind with.
        test: ``user_id, item_id, weight, datetime``; the second half is told while requests are timed, over and over.
        round_s: Seconds of a round.
        seconds: Of all rounds with the same learner.
    """
    rows = test[["user_id", "item_id", "weight", "datetime"]].rename(columns={"weight": "value"})
    rows = rows.assign(kind="rating", source="beside")
    half = len(rows) // 2
    engine.feedback(rows[:half].assign(event_id=[f"before {at}" for at in range(half)]))
    coming = rows[half:].to_dict("records")
    ratings = ({**coming[at % len(coming)], "event_id": f"beside {at}"} for at in itertools.count())
    config, promotion_s = engine.config.learning, list[float]()

    def run(config: LearningConfig, after: int | None, fitting: bool = False) -> Callable[[int], list[float]]:
        def with_learner(number: int) -> list[float]:
            learner = Timed(engine, config, seed=number, after=after)
            learner.promotion_s = promotion_s
            with BackgroundLearner(learner, Refitter(engine, config) if fitting else None):
                return _round(engine, ratings, round_s)

        return with_learner

    runs = {
        ALONE: lambda _: _round(engine, ratings, round_s),
        ABREAST: run(config, None),
        BEHIND: run(config, 0),
        EAGER: run(replace(config, **OFTEN), None),
        FITTING: run(replace(config, refit_share=1e-9), None, fitting=True),
    }
    return Beside(time_in_turn(runs, Budget(seconds)), promotion_s)


def _round(engine: Engine, ratings: Iterator[dict[str, object]], round_s: float) -> list[float]:
    """Seconds of each pair of a rating and its user's next list, for so many seconds at a steady rate."""
    end, taken = time.perf_counter() + round_s, []
    while (start := time.perf_counter()) < end:
        rating = next(ratings)
        engine.feedback(pd.DataFrame([rating]))
        engine.recommend([rating["user_id"]], K)
        taken.append(time.perf_counter() - start)
        time.sleep(max(0.0, 1 / RATE - taken[-1]))
    return taken
