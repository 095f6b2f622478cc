"""A learner beside requests makes way for them."""

import itertools
import time

import numpy as np
import pytest

from ranker.learning.background import REST, BackgroundLearner
from ranker.learning.config import LearningConfig
from ranker.learning.learner import Learner, Step

TOOK = 0.05


class Busy(Learner):
    """Always behind; each step takes as long."""

    def step(self, most=None):
        self.began.append(time.perf_counter())
        time.sleep(TOOK)
        return Step(1, 0, 0, "learned")


@pytest.mark.parametrize("asked", [False, True])
def test_it_pauses_while_requests_come_and_only_then(split_engine, asked):
    learner = Busy(split_engine, LearningConfig())
    learner.began = []
    with BackgroundLearner(learner):
        end = time.perf_counter() + 1.5
        while time.perf_counter() < end:
            if asked:
                split_engine.recommend([100], 5)
            time.sleep(0.002)
    apart = np.median([after - before for before, after in itertools.pairwise(learner.began)])
    assert (apart > 0.9 * (1 + REST) * TOOK) == asked
