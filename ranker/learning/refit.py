"""Sources between two fits: fitted again by what the log tells since, and served unless they find less."""

from __future__ import annotations

import logging
from collections import Counter, deque
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ranker.engine import Engine
from ranker.feedback.event_log import Logged
from ranker.feedback.events import IMPRESSION
from ranker.learning.config import LearningConfig
from ranker.learning.lessons import LessonMaker, Taken
from ranker.learning.versions import Learned, base_of, serve_sources, versions_of
from ranker.reranker import NO_GAIN, Gain
from ranker.sources import STANDING, fit_sources, text_vectors
from ranker.split.reranker import SplitReranker
from ranker.users import LoggedActs, UserHistories
from retrieval.candidates import Source
from retrieval.fusion import FusedRetriever

logger = logging.getLogger(__name__)

K = 10
AT_ONCE = 10_000  # events that are read together

Outcome = Literal["nothing", "kept", "served"]


@dataclass(frozen=True, slots=True)
class Refit:
    """Sources that were fitted again.

    Attributes:
        sources: Name → source, as they shall serve; without those that stay as they are.
        until: Offset of the newest event that they know.
        lists: Lists on which they were judged.
        gain: What they gained there.
    """

    sources: dict[str, Source]
    until: int
    lists: int
    gain: Gain


class Refitter:
    """Fits an engine's sources again as its log grows: so items that arrive, and changing taste, reach them early.

    A request reads its user's newest events as it is, but what sources know of *items* (who takes them, after what, how
    often) is of the last fit. Once new events are a share of the fit's, sources are fitted on all but the newest events
    of the log, and both these and those that serve rank the whole catalogue before each of these events. Unless the new
    ones lost more than one standard error of NDCG@10, sources are fitted on everything, serve, and are kept as a
    learned version: of two that the lists cannot tell apart, the one that knows more items serves. What is slow to
    train or reads no events (``ranker.sources.STANDING``) stays, and so do the fusion's weights, the encoder and the
    cross-encoder. One thread at a time.

    Args:
        engine: Whose sources they are.
        config: Settings; with ``refit_share`` None nothing is ever done.
    """

    def __init__(self, engine: Engine, config: LearningConfig) -> None:
        self.engine = engine
        self.config = config
        self.counts: Counter[str] = Counter()
        self._maker = LessonMaker(engine, config)
        self._read = min(engine.views.until, engine.log.last_offset())
        self._new = 0
        self._newest: deque[Logged] = deque(maxlen=config.refit_lists)

    def step(self) -> Outcome:
        """Fit again if enough events came, and let it serve unless it lost.

        Raises:
            ArtifactError: The log cannot be read, or the version not be written. What served goes on then.
        """
        if not self.due():
            return "nothing"
        found = self.fit()
        if found is None:
            return "kept"
        self.serve(found)
        return "served"

    def due(self) -> bool:
        """Whether enough events came since the sources were fitted."""
        if self.config.refit_share is None:
            return False
        while events := self.engine.log.newer(self._read, AT_ONCE):
            told = [event for event in events if event.kind != IMPRESSION]
            self._new += len(told)
            self._newest += told
            self._read = events[-1].offset
        return self._new >= max(2, self.config.refit_share * len(self.engine.users.base.histories.items))

    def fit(self) -> Refit | None:
        """Sources fitted on everything; None where those that knew all but the newest events lost on these."""
        with self.engine.observations.timed("refit"):
            newest = list(self._newest)[-(self._new // 2) :]
            taken = self._maker.taken(newest)
            gain = self._gain(taken, self._fitted(newest[0].offset - 1)) if taken.users else NO_GAIN
            lost = gain.mean < -gain.error
            outcome = "kept" if lost else "served"
            self.counts[outcome] += 1
            self.engine.observations.refits.labels(outcome).inc()
            logger.info(
                "Sources fitted again gain %+.4f (standard error %.4f) NDCG@10 on the newest %d lists: they %s.",
                gain.mean, gain.error, len(taken.users), "do not serve" if lost else "serve",
            )  # fmt: skip
            until = self.engine.log.last_offset()
            sources = None if lost else self._fitted(until)
        self._new = 0  # the next look is after as many events again, whatever came of this one
        return None if sources is None else Refit(sources, until, len(taken.users), gain)

    def pass_over(self) -> None:
        """After an error: wait for as many events again."""
        self._new = 0

    def serve(self, refit: Refit) -> None:
        """Let sources serve, once they are kept as a version where the engine has a folder.

        Raises:
            ArtifactError: The disk refused. What served goes on then.
        """
        engine, before = self.engine, self.engine.learned
        offset, reranker = (0, None) if before is None else (before.offset, before.reranker)
        facts = Learned(
            base_of(engine), offset, refit.until, refit.lists, refit.gain.mean, refit.gain.error, "refitted", reranker
        )
        name = f"refitted at {refit.until}"
        if engine.folder is not None:
            joint = engine.reranker.joint if isinstance(engine.reranker, SplitReranker) else None
            weights = {} if joint is None else joint.weights
            name = versions_of(engine, engine.folder).write(weights, facts, refit.sources)
        serve_sources(engine, refit.sources, name, facts)

    def _fitted(self, until: int) -> dict[str, Source]:
        """The sources, fitted on the base and the log up to an offset."""
        engine = self.engine
        acts = LoggedActs(engine.log, engine.config.feedback, engine.catalogue.ids, until=until)
        known = UserHistories(engine.users.base, acts).merged()
        standing: dict[str, Source] = {
            name: source for name, source in engine.retriever.sources.items() if name in STANDING
        }
        with threadpool_limits(1, "openmp"):  # requests have the other cores
            fitted = fit_sources(known.histories, self._vectors, engine.config, standing=standing)
        return {name: source for name, source in fitted.items() if name not in STANDING}

    @cached_property
    def _vectors(self) -> NDArray[np.float32]:
        """(I, dim) the items' text vectors."""
        return text_vectors(self.engine.retriever.sources, self.engine.encoder, self.engine.catalogue.texts)

    def _gain(self, taken: Taken, sources: dict[str, Source]) -> Gain:
        """What sources add to the NDCG@10 of the order that is served; no user counts for more than a share."""
        most = max(2, int(self.config.user_share * len(taken.users)))
        taken = taken.take(np.flatnonzero(pd.Series(taken.users).groupby(taken.users).cumcount() < most))
        serving = self.engine.views
        gains = self._ndcg(taken, serving.over(sources, 0).next) - self._ndcg(taken, serving.next)
        return Gain(float(gains.mean()), float(gains.std() / np.sqrt(len(gains))))

    def _ndcg(self, taken: Taken, retriever: FusedRetriever) -> NDArray[np.float64]:
        """NDCG@10 of what would be served, over the whole catalogue, (L,)."""
        depth = max(K, self.engine.config.rerank.chosen.depth)
        found = np.zeros(len(taken.users))
        for rows, block in taken.requests.blocks():
            ranked = self.engine.reranker.rerank(block, retriever.retrieve(block, depth))
            lists, places = np.nonzero(ranked.items[:, :K] == taken.items[rows, None])
            found[np.arange(len(found))[rows][lists]] = 1 / np.log2(2 + places)
        return found
