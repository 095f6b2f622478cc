"""A learner beside requests makes way for them."""

import itertools
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from ranker.learning.background import REST, BackgroundLearner
from ranker.learning.config import LearningConfig
from ranker.learning.learner import Learner, Step
from ranker.learning.refit import Refitter

TOOK = 0.05


class Busy(Learner):
    """Always behind; each step takes as long."""

    def step(self, most=None):
        self.began.append(time.perf_counter())
        time.sleep(TOOK)
        return Step(1, 0, 0, "learned")


class Watching(Learner):
    """Notes how many threads the BLAS has during a step."""

    def step(self, most=None):
        self.seen.append(blas_threads())
        return Step(0, 0, 0, "learned")


def blas_threads():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


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


@pytest.mark.parametrize("refits", [False, True])
def test_its_products_leave_the_other_cores_to_requests(split_engine, refits):
    learner = Watching(split_engine, LearningConfig())
    learner.seen = []
    before = blas_threads()
    with BackgroundLearner(learner, Refitter(split_engine, LearningConfig()) if refits else None):
        while not learner.seen:
            time.sleep(0.01)
    assert learner.seen[0] == {1}
    assert blas_threads() == before
