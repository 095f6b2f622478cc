"""When learned weights serve, and when the saved ones do again."""

import numpy as np

from ranker.learning.comparison import Trial, Watch
from ranker.learning.config import LearningConfig

CONFIG = LearningConfig(least_lists=100, most_lists=400, window_lists=200, margin=0.01)


def verdicts(gains, size=25):
    trial, found = Trial(CONFIG), []
    for start in range(0, len(gains), size):
        part = np.asarray(gains[start : start + size], np.float64)
        trial.add(np.zeros_like(part), part)
        found.append(trial.verdict())
    return found


def test_a_clear_gain_is_promoted_at_the_first_look_and_a_clear_loss_dropped():
    noise = np.random.default_rng(0).normal(0, 0.1, 100)
    assert verdicts(noise + 0.1) == ["wait"] * 3 + ["promote"]
    assert verdicts(noise - 0.1) == ["wait"] * 3 + ["drop"]


def test_no_gain_is_dropped_in_the_end():
    assert verdicts([0.1, -0.1] * 250) == (["wait"] * 15 + ["drop"] + ["wait"] * 3 + ["drop"])
    assert verdicts([0.0] * 400)[-1] == "drop"


def test_chance_alone_seldom_promotes():
    rng = np.random.default_rng(1)
    promoted = sum("promote" in verdicts(rng.normal(0, 0.3, 400)) for _ in range(400))
    assert promoted / 400 < 0.4  # four looks at one standard error


def test_what_falls_behind_the_saved_weights_has_lost_and_what_may_be_chance_has_not():
    rng = np.random.default_rng(2)

    def lost(loss, count, spread=0.05):
        watch = Watch(CONFIG)
        frozen = rng.random(count)
        watch.add(frozen - rng.normal(loss, spread, count), frozen)
        return watch.has_lost()

    assert lost(0.05, 200)
    assert not lost(0.05, 99)  # too few to say
    assert not lost(0.005, 200, 0.001)  # surely below, but by less than the margin
    assert not lost(0.02, 200, 0.5)  # by more than the margin, but that may be chance
    assert not lost(-0.05, 200)


def test_only_the_newest_lists_are_watched():
    watch = Watch(CONFIG)
    watch.add(np.zeros(200), np.ones(200))
    assert watch.has_lost()
    watch.add(np.ones(200), np.ones(200))
    assert not watch.has_lost()
    assert (watch.serving, watch.frozen) == (1, 1)
