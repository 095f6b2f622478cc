"""What is timed: requests of several kinds, and the systems that answer them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.latency_engines import Dial, with_newest
from bench.latency_peers import INT8_PAIR, Scorer
from bench.timing import Budget, Timings, callers, time_in_turn
from ranker.engine import Engine
from ranker.pair.reranker import PairTexts
from ranker.split.reranker import SplitReranker
from retrieval.candidates import Candidates, Requests

WHOLE_CALL = ", Engine.rank"  # ends the name of an engine's whole call
CALLS_EACH = 4  # of each of several callers, in one run


@dataclass(frozen=True)
class Plan:
    """What is varied, one factor at a time around the centre, and how large everything is.

    Attributes:
        candidates: Of a request; the second is the centre.
        events: Of a user; the third is the centre.
        callers: At once; the first is the centre.
        stores: Items of made-up stores.
        cases: Different requests.
        trained_lists: Lists that the rate of training is measured on.
    """

    candidates: tuple[int, ...] = (10, 100, 1000)
    events: tuple[int, ...] = (0, 10, 20, 50)
    callers: tuple[int, ...] = (1, 8)
    stores: tuple[int, ...] = (10_000, 100_000)
    cases: int = 16
    trained_lists: int = 6400

    @property
    def centre(self) -> "Condition":
        """What every other condition differs from in one factor."""
        return Condition(self.candidates[1], self.events[2], self.callers[0])

    @property
    def conditions(self) -> list["Condition"]:
        """The centre, then each factor's other values."""
        centre = self.centre
        varied = [
            *(Condition(count, centre.events, centre.callers) for count in self.candidates),
            *(Condition(centre.candidates, count, centre.callers) for count in self.events),
            *(Condition(centre.candidates, centre.events, count) for count in self.callers),
        ]
        return list(dict.fromkeys([centre, *varied]))


@dataclass(frozen=True)
class Condition:
    """What a request is like."""

    candidates: int
    events: int
    callers: int


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One request, in the form that each system takes."""

    events: int
    user: Any
    item_ids: list[Any]
    requests: Requests
    candidates: Candidates
    pairs: list[tuple[str, str]]


@dataclass(frozen=True)
class System:
    """Something that is timed.

    Attributes:
        call: Answers a case.
        variant: What its quality is known under.
        concurrent: Whether several callers ask it at once, too.
    """

    call: Callable[[Case], object]
    variant: str
    concurrent: bool = False


def every_system(
    dial: Dial, served: Mapping[str, SplitReranker], scorers: Mapping[str, Scorer], plan: Plan
) -> dict[str, System]:
    """What is timed, by name."""
    systems = {
        name: System(lambda case, score=score: score(case.pairs), name, concurrent=name == INT8_PAIR)
        for name, score in scorers.items()
    }
    for name, reranker in served.items():
        engines = {events: with_newest(dial.site, reranker, events) for events in plan.events}

        def rank(case: Case, engines: Mapping[int, Any] = engines) -> object:
            return engines[case.events].rank(case.user, case.item_ids)

        def score(case: Case, reranker: SplitReranker = reranker) -> object:
            return reranker.score(case.requests, case.candidates)

        systems[f"{name}{WHOLE_CALL}"] = System(rank, name, concurrent=name == dial.one)
        systems[f"{name}, score"] = System(score, name, concurrent=name == dial.one)
    return systems


def build_cases(site: Engine, condition: Condition, plan: Plan) -> list[Case]:
    """Random items for random users who did enough; their histories are cut to the newest events."""
    rng = np.random.default_rng(0)
    log, catalogue = site.users.base, site.catalogue
    long_enough = np.flatnonzero(log.histories.lengths >= max(plan.events))
    histories = log.histories.latest(condition.events)
    everything = np.ones(len(catalogue), np.bool_)
    texts = PairTexts(catalogue.titles, catalogue.texts, condition.events)
    cases = []
    for row in rng.permutation(long_enough)[: plan.cases]:
        items = rng.permutation(len(catalogue))[: condition.candidates]
        requests = Requests(histories.take(np.array([row])), everything, exclude_seen=False)
        cases.append(
            Case(
                condition.events,
                log.users.ids[row],
                catalogue.ids.at(items).tolist(),
                requests,
                site.retriever.arrange(requests, items[None]),
                texts.pairs(texts.contexts(requests)[0], items),
            )
        )
    return cases


def time_systems(
    systems: Mapping[str, System], cases: Mapping[Condition, Sequence[Case]], budget: Budget
) -> dict[tuple[Condition, str], Timings]:
    """Time all systems under all conditions, those of equally many callers in turn."""
    timings: dict[tuple[Condition, str], Timings] = {}
    for count in sorted({condition.callers for condition in cases}):
        with callers(count, CALLS_EACH if count > 1 else 1) as runner:
            runs = {
                (condition, name): runner(system.call, cases[condition])
                for condition in cases
                for name, system in systems.items()
                if condition.callers == count and (count == 1 or system.concurrent)
            }
            timings |= time_in_turn(runs, budget)
    return timings
