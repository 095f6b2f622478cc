"""Choosing by measurement: the fastest way to run a graph among those that answer like the CPU does."""

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import onnx
import scipy
from numpy.typing import NDArray

from encoders.errors import ConfigError, first_line
from encoders.execution import EXECUTIONS, Execution, Workload, open_execution, usable
from encoders.session import CPU, OnnxSession

logger = logging.getLogger(__name__)

ROUNDS = 20  # timed runs of each request

Answers: TypeAlias = Sequence[NDArray[Any]]  # every output for one request
Agreement: TypeAlias = Callable[[Answers, Answers], bool]  # of the CPU's answers and another's


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was found out about one execution; milliseconds and difference are None where it was not measured.

    Attributes:
        execution: its name.
        obstacle: why it cannot be chosen; empty where it can.
        opening_ms: what opening cost, which new weights cost again.
        median_ms: of a request.
        difference: the largest one between its outputs and those of the CPU.
        chosen: whether it is the one.
    """

    execution: str
    obstacle: str
    opening_ms: float | None = None
    median_ms: float | None = None
    difference: float | None = None
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """The execution that was chosen, and what was found out about each; `dataclasses.asdict` makes it JSON."""

    execution: str
    measurements: tuple[Measurement, ...]

    @property
    def measured(self) -> bool:
        """Whether there was anything to choose between."""
        return any(measurement.median_ms is not None for measurement in self.measurements)


def within(tolerance: float) -> Agreement:
    """Every output differs by at most this share of the largest value in it."""

    def agree(expected: Answers, found: Answers) -> bool:
        return all(
            _difference([one], [other]) <= tolerance * float(np.abs(one).max(initial=0))
            for one, other in zip(expected, found, strict=True)
        )

    return agree


def same_order(tau: float) -> Agreement:
    """The rows (U, K) of the first output are ordered alike: Kendall's tau-b is this on average, or more."""

    def agree(expected: Answers, found: Answers) -> bool:
        pairs = zip(np.atleast_2d(expected[0]), np.atleast_2d(found[0]), strict=True)
        # where the CPU ties throughout, no order is wrong; where only the other does, tau is no number
        taus = [
            float(np.nan_to_num(scipy.stats.kendalltau(one, other).statistic)) if np.ptp(one) else 1.0
            for one, other in pairs
        ]
        return float(np.mean(taus)) >= tau

    return agree


def choose(
    model: onnx.ModelProto,
    workload: Workload,
    agree: Agreement,
    executions: Sequence[Execution] = EXECUTIONS,
    threads: int | None = None,
) -> Choice:
    """Measure every execution that this machine can run, and choose the fastest that agrees with the CPU.

    Where it can run only one, that one is chosen and nothing is measured.

    Args:
        model: the graph; it is left unchanged.
        workload: requests to measure on.
        agree: says whether answers are as good as the CPU's; those that are not finite never are.
        executions: to choose among.
        threads: as for `open_session`.

    Raises:
        ConfigError: this machine can run none of them, or none agrees.
    """
    possible = usable(executions)
    found = [Measurement(execution.name, execution.obstacle()) for execution in executions]
    if len(possible) > 1:
        reference = open_execution(model, Execution("reference", CPU), workload, threads=threads)
        expected = [reference.run(feed) for feed in workload.feeds]
        found = [
            _measured(model, execution, workload, expected, agree, threads) if execution in possible else measurement
            for execution, measurement in zip(executions, found, strict=True)
        ]
    able = [measurement for measurement in found if not measurement.obstacle]
    if not able:
        reasons = " ".join(f"{measurement.execution}: {measurement.obstacle}" for measurement in found)
        raise ConfigError(f"No execution can run this graph here. {reasons} Allow cpu, too.")
    best = min(able, key=lambda measurement: measurement.median_ms or 0.0)
    rows = tuple(replace(measurement, chosen=measurement is best) for measurement in found)
    for row in rows:
        logger.debug("%s", row)
    return Choice(best.execution, rows)


def _measured(
    model: onnx.ModelProto,
    execution: Execution,
    workload: Workload,
    expected: Sequence[Answers],
    agree: Agreement,
    threads: int | None,
) -> Measurement:
    try:
        start = time.perf_counter()
        session = open_execution(model, execution, workload, threads=threads)
        answers = [session.run(feed) for feed in workload.feeds]  # also builds, captures and warms up
        opening_ms = 1e3 * (time.perf_counter() - start)
        median_ms = _median_ms(session, workload)
    except Exception as error:  # ONNX Runtime's error classes share no base, and what a device does is not foreseen
        return Measurement(execution.name, first_line(error))
    if not all(np.isfinite(output).all() for answer in answers for output in answer):
        return Measurement(execution.name, "Its answers are not finite.", opening_ms, median_ms)
    difference = max(_difference(one, other) for one, other in zip(expected, answers, strict=True))
    alike = all(agree(one, other) for one, other in zip(expected, answers, strict=True))
    obstacle = "" if alike else "Its answers do not agree with the CPU's."
    return Measurement(execution.name, obstacle, opening_ms, median_ms, difference)


def _median_ms(session: OnnxSession, workload: Workload) -> float:
    times = []
    for _ in range(ROUNDS):
        for feed in workload.feeds:
            start = time.perf_counter()
            session.run(feed)
            times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def _difference(expected: Answers, found: Answers) -> float:
    return max(
        float(np.abs(one.astype(np.float64) - other).max(initial=0)) for one, other in zip(expected, found, strict=True)
    )
