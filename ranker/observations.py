"""What an engine counts and times while it serves, for Prometheus and for ``Engine.status``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
LAGS = (0.1, 1, 10, 60, 600, 3600, 86400, 604800)  # seconds from an act to its arrival


class Observations:
    """Counters, gauges and histograms of one engine, in a registry of its own.

    Attributes:
        registry: Hand it to ``prometheus_client.generate_latest`` or ``start_http_server``.
        events: Events of feedback by outcome: "new", "duplicate" (its id was known), "refused" (with its whole batch).
        acts: What new events came to: "act", "repeated" (another report of an act), "overruled" (acts that lost their
            weight to a newer verdict), "out of order" (older than what was known of the user).
        lists: Lists that were logged as shown.
        lag: Seconds from an act to its arrival.
        seconds: Of the stages of an answer ("retrieve", "rerank"), of "feedback", of a learner's "step" and the
            "gradient" step in it, and of fitting sources again ("refit").
        learned: Steps of a learner by their outcome: "learned", "promoted", "dropped", "rolled back".
        refits: Sources that were fitted again, by what became of them: "served", "kept" (as they were).
        ndcg: NDCG@10 on the newest measured lists, of the weights "serving" and of the saved engine's, "frozen".
        offset: Of the newest event that a learner has taken.
    """

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.events = Counter("ranker_events", "Events of feedback.", ["outcome"], registry=registry)
        self.acts = Counter("ranker_acts", "What new events came to.", ["outcome"], registry=registry)
        self.lists = Counter("ranker_lists", "Lists logged as shown.", registry=registry)
        self.lag = Histogram("ranker_event_lag_seconds", "From act to arrival.", registry=registry, buckets=LAGS)
        self.seconds = Histogram("ranker_seconds", "Of a stage.", ["stage"], registry=registry, buckets=SECONDS)
        self.learned = Counter("ranker_learner_steps", "Steps of a learner.", ["outcome"], registry=registry)
        self.refits = Counter("ranker_refits", "Sources fitted again.", ["outcome"], registry=registry)
        self.ndcg = Gauge("ranker_ndcg_at_10", "On the newest measured lists.", ["weights"], registry=registry)
        self.offset = Gauge("ranker_learner_offset", "Of the newest event that a learner took.", registry=registry)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Time a stage that ends without an error."""
        start = time.perf_counter()
        yield
        self.seconds.labels(stage).observe(time.perf_counter() - start)

    def snapshot(self) -> dict[str, Any]:
        """Every count, sum and gauge by its name, and by its label where it has one."""
        found: dict[str, Any] = {}
        for metric in self.registry.collect():
            for sample in metric.samples:
                if sample.name.endswith(("_bucket", "_created")):
                    continue
                if sample.labels:
                    found.setdefault(sample.name, {})["/".join(sample.labels.values())] = sample.value
                else:
                    found[sample.name] = sample.value
        return found
