"""Timing in turn: runs of several systems mixed evenly, so that a busy machine slows them alike, and their ratios."""

import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from tqdm import tqdm

N_RESAMPLES = 9_999
LEAST_RUNS = 3
MOST_RUNS = 500
PAUSE = 0.005  # seconds before each run: ONNX Runtime's threads go on spinning for a while after a run of their session

Key = TypeVar("Key", bound=Hashable)
Case = TypeVar("Case")
Run = Callable[[int], Sequence[float]]  # run number → seconds of each of its requests


@dataclass(frozen=True)
class Budget:
    """How long each system is timed.

    Attributes:
        seconds: For a system, at most, beyond its least runs.
        least: Runs at least, however long they take.
        most: Runs at most, however quick they are.
    """

    seconds: float
    least: int = LEAST_RUNS
    most: int = MOST_RUNS

    def runs(self, seconds: float) -> int:
        """How many runs of so many seconds fit."""
        return int(np.clip(self.seconds / seconds, self.least, self.most))


@dataclass(frozen=True, slots=True, eq=False)
class Timings:
    """What was measured of a system."""

    latencies: NDArray[np.float64]  # (N,) seconds of each request
    walls: NDArray[np.float64]  # (R,) seconds of each run, of one or more requests at once or one after another

    @property
    def median(self) -> float:
        """Seconds."""
        return float(np.median(self.latencies))

    @property
    def per_second(self) -> float:
        """Requests per second over all runs."""
        return len(self.latencies) / float(self.walls.sum())

    def percentile(self, percent: float) -> float:
        """Seconds; NaN where fewer than one request is expected beyond it."""
        enough = len(self.latencies) * (100 - percent) >= 100
        return float(np.percentile(self.latencies, percent)) if enough else float("nan")


@dataclass(frozen=True)
class Ratio:
    """A ratio and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.low:.3g}–{self.high:.3g})"


def time_in_turn(runs: Mapping[Key, Run], budget: Budget, seed: int = 0) -> dict[Key, Timings]:
    """Time every system by turns.

    Each is run to warm up, which also tells how many runs its budget holds. Then the runs of every system are spread
    over the whole measurement, evenly but for a random part of the distance between two of them.

    Args:
        runs: System → what one run of it does.
        budget: Of each system.
        seed: Of the order.
    """
    rng = np.random.default_rng(seed)
    turns = []
    for place, run in enumerate(runs.values()):
        count = budget.runs(_warm(run))
        turns += [((number + rng.random()) / count, place, number) for number in range(count)]
    latencies: list[list[float]] = [[] for _ in runs]
    walls: list[list[float]] = [[] for _ in runs]
    every = list(runs.values())
    for _, place, number in tqdm(sorted(turns), unit="run", disable=None):
        time.sleep(PAUSE)
        start = time.perf_counter()
        latencies[place] += every[place](number)
        walls[place].append(time.perf_counter() - start)
    return {key: Timings(np.array(latencies[at]), np.array(walls[at])) for at, key in enumerate(runs)}


def elapsed(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def once(call: Callable[[], object]) -> Run:
    """A run of one call that is the same every time."""
    return lambda number: [elapsed(call)]


@contextmanager
def callers(count: int, calls_each: int) -> Iterator[Callable[[Callable[[Case], object], Sequence[Case]], Run]]:
    """Gives what turns a call over cases into a run by so many threads, each of which makes so many calls in a row."""
    with ThreadPoolExecutor(count) as pool:

        def runner(call: Callable[[Case], object], cases: Sequence[Case]) -> Run:
            def caller(number: int) -> list[float]:
                places = range(number * calls_each, (number + 1) * calls_each)
                return [elapsed(lambda at=at: call(cases[at % len(cases)])) for at in places]

            def alone(number: int) -> list[float]:
                return caller(number)

            def together(number: int) -> list[float]:
                parts = pool.map(caller, range(number * count, (number + 1) * count))
                return [seconds for part in parts for seconds in part]

            return alone if count == 1 else together

        yield runner


def median_ratio(before: Timings, after: Timings, seed: int = 0) -> Ratio:
    """How many times the median latency of the second is contained in the first's."""
    value = before.median / after.median
    found = stats.bootstrap(
        (before.latencies, after.latencies),
        lambda a, b, axis: np.median(a, axis=axis) / np.median(b, axis=axis),
        n_resamples=N_RESAMPLES,
        batch=1000,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return Ratio(value, float(found.confidence_interval.low), float(found.confidence_interval.high))


def _warm(run: Run) -> float:
    """Seconds of a run, of the second one where the first was short: it may have prepared things."""
    first = elapsed(lambda: run(0))
    return elapsed(lambda: run(0)) if first < 1 else first
