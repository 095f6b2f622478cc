"""The learner: the log's newest events judge weights, then teach them; what gained serves."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.errors import ConfigError
from ranker.engine import Engine
from ranker.learning.comparison import Trial, Watch
from ranker.learning.config import LearningConfig
from ranker.learning.lessons import LessonMaker, Lessons
from ranker.learning.memory import Kept, Memory, batch, kept
from ranker.learning.versions import Learned, base_of, learned_of, serve_weights, versions_of
from ranker.lists import list_ndcg
from ranker.reranker import Gain
from ranker.split.reranker import SplitReranker
from ranker.split.serving import OnnxJoint
from ranker.split.training import LIST_LOSSES, joint_groups
from retrieval.candidates import NO_ITEM

logger = logging.getLogger(__name__)

RECENT = 1000  # lists of which one user's are a bounded share
USUAL, LEAST_USUAL = 200, 20  # newest steps whose losses say what is usual, and how many it takes to say it

Weights = dict[str, torch.Tensor]
Outcome = Literal["learned", "promoted", "dropped", "rolled back", "nothing"]


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did.

    Attributes:
        events: Events of the log that were taken.
        lists: Lists that were learned from.
        measured: Lists on which weights were compared.
        outcome: What became of the weights.
    """

    events: int
    lists: int
    measured: int
    outcome: Outcome


class Learner:
    """Teaches an engine's joint layers by the feedback in its log.

    Each step takes the next events in the order of their arrival. First the lists that they answer judge three sets of
    weights: those that serve, those that are being learned, and those of the saved engine. Then the learned ones take a
    gradient step on them and on older lists. They serve once they have gained (``Trial``); where what serves falls
    behind the saved engine (``Watch``), its weights serve again. A step whose loss or gradient is no finite number, or
    whose new lists' loss is far above the usual, is not taken. One thread at a time.

    Args:
        engine: Its re-ranker is a split cross-encoder.
        config: Settings.
        seed: Of what is measured and remembered.
        after: Offset of the log after which to begin; None: at its end.

    Raises:
        ConfigError: The engine has no split cross-encoder, which alone can learn while it serves.
    """

    def __init__(self, engine: Engine, config: LearningConfig, seed: int = 0, after: int | None = None) -> None:
        if not isinstance(engine.reranker, SplitReranker):
            raise ConfigError(
                "Online learning needs a split cross-encoder, and this engine has none. Fit one with rerank.enabled: "
                "true and rerank.kind: split."
            )
        self.engine = engine
        self.config = config
        self.offset = engine.log.last_offset() if after is None else after
        self.counts: Counter[str] = Counter()
        self.watch = Watch(config)
        self.trial = Trial(config)
        self._rng = np.random.default_rng(seed)
        self._maker = LessonMaker(engine, config)
        self._memory = Memory(config.memory_lists, self._rng)
        self._recent: deque[int | str] = deque()
        self._lists_of: Counter[int | str] = Counter()
        self._losses: deque[float] = deque(maxlen=USUAL)
        self._tried = self.offset
        self._erasures = engine.log.erasures()
        training = engine.config.rerank.split.training
        self._loss = LIST_LOSSES[training.loss]
        self._begin()

    def step(self, most: int | None = None) -> Step:
        """Learn from the next events, at most so many (None: a batch's lists).

        Raises:
            ArtifactError: The log cannot be read, or a version not be written.
        """
        with self.engine.observations.timed("step"):
            return self._step(self.config.batch_lists if most is None else most)

    def _step(self, most: int) -> Step:
        self._tried = self.offset
        erasures = self.engine.log.erasures()
        if erasures != self._erasures:
            self._memory.forget(self.engine.log.forgotten(), self.engine.users.ids)
            self._erasures = erasures
        events = self.engine.log.newer(self.offset, most)
        if not events:
            return Step(0, 0, 0, "nothing")
        if self._joint.weights is not self._serving:  # a save, or a return to another version
            self._begin()
        lessons = self._admitted(self._maker.make(events))
        self.offset = events[-1].offset
        self.counts["events"] += len(events)
        self.counts.update(lessons.passed_over)
        measured = self._measure(lessons)
        outcome = self._decide()
        new = kept(lessons, self._joint.shape.max_events)
        old = self._memory.sample(round(self.config.replayed * len(new)))
        if new:
            with self.engine.observations.timed("gradient"):
                taken = self._train(new, old)
            if taken:
                self._memory.add(new)
        self.counts["lists"] += len(new)
        self.counts["replayed lists"] += len(old)
        self._observe(outcome)
        return Step(len(events), len(new), measured, outcome)

    def pass_over(self) -> None:
        """Leave out the next step's events, if the failed step has not left them behind already."""
        if self.offset == self._tried:
            events = self.engine.log.newer(self.offset, self.config.batch_lists)
            self.offset = events[-1].offset if events else self.offset
            self.counts["passed over after an error"] += len(events)

    @property
    def _split(self) -> SplitReranker:
        return cast("SplitReranker", self.engine.reranker)  # a save puts another in its place

    @property
    def _joint(self) -> OnnxJoint:
        return self._split.joint

    def _begin(self) -> None:
        """Learn from the weights that serve."""
        joint = self._joint
        self.trial = Trial(self.config)
        self._serving = joint.weights
        self._frozen = joint.prepare(joint.saved)
        self._model = joint.model()
        training = self.engine.config.rerank.split.training
        groups = joint_groups(self._model, training)
        for group, factor in zip(groups, (1.0, self.config.head_rate), strict=True):
            group["lr"] = self.config.learning_rate * factor
        self._optimizer = torch.optim.AdamW(groups, weight_decay=0.0)

    def _admitted(self, lessons: Lessons) -> Lessons:
        """The lessons less those of a user who has more than a share of the newest ones: one must not teach for all."""
        most = max(2, int(self.config.user_share * RECENT))
        rows = []
        for row, user in enumerate(lessons.users):
            if self._lists_of[user] >= most:
                self.counts["beyond a user's share"] += 1
                continue
            rows.append(row)
            self._recent.append(user)
            self._lists_of[user] += 1
            if len(self._recent) > RECENT:
                self._lists_of[self._recent.popleft()] -= 1
        return lessons.take(np.array(rows, np.int64))

    def _measure(self, lessons: Lessons) -> int:
        """Compare the weights on some of the lists that were taken, before they are learned from."""
        drawn = self._rng.random(len(lessons)) < self.config.measured
        some = lessons.take(np.flatnonzero(drawn & lessons.within & ~lessons.refused))
        if len(some):
            split = self._split
            inputs = split.inputs.read(some.requests, some.candidates, some.features)
            with torch.inference_mode():
                learned = _ndcg(some, self._model(**inputs.tensors()).numpy())
            # where the cross-encoder does not serve, what does is the fused order
            fused = _ndcg(some, some.candidates.scores)
            serving = _ndcg(some, self._joint.score(inputs)) if split.gain.serves else fused
            if self._joint.weights is self._joint.saved and split.gain.serves == split.saved_gain.serves:
                frozen = serving
            else:
                frozen = _ndcg(some, self._frozen.score(inputs)) if split.saved_gain.serves else fused
            self.trial.add(serving, learned)
            self.watch.add(serving, frozen)
        return len(some)

    def _decide(self) -> Outcome:
        if self.watch.has_lost():
            self.counts["rollbacks"] += 1
            logger.warning(
                "What serves is at %.4f NDCG@10 on the newest lists, the saved engine's weights at %.4f: they serve "
                "again.", self.watch.serving, self.watch.frozen,
            )  # fmt: skip
            self._serve(self._joint.saved, "rolled back")
            self.watch = Watch(self.config)
            self._begin()
            return "rolled back"
        verdict = self.trial.verdict()
        if verdict == "promote":
            self.counts["promotions"] += 1
            self._serve(self._model.state_dict(), "promoted")
            self._serving = self._joint.weights
            self.trial = Trial(self.config)
            return "promoted"
        if verdict == "drop":
            self.counts["drops"] += 1
            self._begin()
            return "dropped"
        return "learned"

    def _observe(self, outcome: Outcome) -> None:
        seen = self.engine.observations
        seen.learned.labels(outcome).inc()
        seen.offset.set(self.offset)
        for name in ("serving", "frozen"):
            seen.ndcg.labels(name).set(getattr(self.watch, name))

    def _serve(self, weights: Weights, why: Literal["promoted", "rolled back"]) -> None:
        """Let weights serve, once they are kept on disk where the engine is."""
        engine, trial = self.engine, self.trial
        name = f"learned at {self.offset}"
        gain = Gain(trial.gain, trial.error) if why == "promoted" else None
        until = engine.views.until
        facts = Learned(base_of(engine), self.offset, until, trial.lists, trial.gain, trial.error, why, gain)
        if engine.folder is not None:
            sources = engine.views.refitted(engine.saved_views)
            name = versions_of(engine, engine.folder).write(weights, facts, sources, learned_of(engine))
        serve_weights(engine, weights, name, facts)

    def _train(self, new: Sequence[Kept], old: Sequence[Kept]) -> bool:
        """One gradient step, unless something in it is no finite number or far from usual; whether it was taken."""
        given = batch([*new, *old], len(self.engine.catalogue))
        inputs = self._split.inputs.read(given.requests, given.candidates, given.features)
        logits = self._model(**inputs.tensors())
        losses = self._loss(logits, torch.from_numpy(given.labels), torch.from_numpy(given.refused))
        weights = torch.from_numpy(given.weights)
        loss = (losses * weights).sum() / weights.sum().clamp(min=1e-9)
        if self._is_odd(float(losses[: len(new)].detach().mean())):
            self.counts["steps in quarantine"] += 1
            return False
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [weight for group in self._optimizer.param_groups for weight in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.config.largest_gradient)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            self.counts["steps not taken"] += 1
            logger.warning("A step's loss is %s and its gradient's norm %s: it is not taken.", loss.item(), norm.item())
            return False
        self._optimizer.step()
        self._pull()
        self.counts["steps"] += 1
        return True

    def _is_odd(self, loss: float) -> bool:
        """Whether the loss of new lists is far above that of others; odd ones count for what is usual, too."""
        usual = np.array(self._losses)
        self._losses.append(loss)
        if len(usual) < LEAST_USUAL or not np.isfinite(loss):
            return False
        return bool(loss > usual.mean() + self.config.quarantine * max(float(usual.std()), 1e-6))

    @torch.no_grad()
    def _pull(self) -> None:
        """Decay toward the saved engine's weights (L2-SP: Li et al., ICML 2018), as AdamW's is toward zero."""
        rates = {id(weight): group["lr"] for group in self._optimizer.param_groups for weight in group["params"]}
        for name, weight in self._model.named_parameters():
            if id(weight) in rates:
                weight.lerp_(self._frozen.weights[name], self.config.anchor * rates[id(weight)])


def _ndcg(lessons: Lessons, scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """NDCG@10 of the candidates by these scores, which users without any positive event are not ordered by."""
    items = lessons.candidates.items
    silent = lessons.requests.histories.liked().lengths == 0
    scores = np.where(silent[:, None], lessons.candidates.scores, scores)
    return list_ndcg(np.where(items == NO_ITEM, -np.inf, scores), items == lessons.chosen[:, None])


def resumed(engine: Engine) -> int:
    """The offset after which a learner of a saved engine goes on: of the newest event that learned weights saw."""
    return 0 if engine.folder is None else versions_of(engine, engine.folder).newest_offset()
