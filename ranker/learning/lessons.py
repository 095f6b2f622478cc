"""Lessons: from events of the log to the lists that they answer, as they would be served, each with its label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranker.engine import Engine
from ranker.feedback.event_log import Logged
from ranker.feedback.events import IMPRESSION, KIND_CODES
from ranker.learning.config import LearningConfig
from ranker.split.inputs import features_of
from retrieval.candidates import NO_ITEM, Candidates, Requests
from retrieval.histories import Histories
from retrieval.ids import UNKNOWN


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """Lists that events answer; row ``l`` of each part belongs to one event.

    Attributes:
        users: (L,) ids.
        requests: Each history as it was just before the event.
        candidates: (L, K) what would be re-ranked, the chosen item and what was shown with it among them.
        features: (L, K, features) what retrieval says of them, see ``features_of``.
        chosen: (L,) the item that the event is about.
        refused: (L,) whether the user did not want it.
        weights: (L,) how much the event says.
        within: (L,) whether the chosen item is among what would be re-ranked by itself, and was not put there.
        places: (L, n) candidates to learn from: the chosen item's first, then what was shown and passed over, then
            others drawn at random.
        passed_over: Why other events teach nothing, and how many.
    """

    users: list[int | str]
    requests: Requests
    candidates: Candidates
    features: NDArray[np.float32]
    chosen: NDArray[np.int64]
    refused: NDArray[np.bool_]
    weights: NDArray[np.float32]
    within: NDArray[np.bool_]
    places: NDArray[np.int64]
    passed_over: Counter[str]

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: NDArray[np.int64]) -> Lessons:
        """These lessons, in this order."""
        return Lessons(
            [self.users[row] for row in rows.tolist()], self.requests.take(rows), self.candidates.take(rows),
            self.features[rows], self.chosen[rows], self.refused[rows], self.weights[rows], self.within[rows],
            self.places[rows],
            self.passed_over,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """What users took; row ``l`` of each part belongs to one event."""

    users: list[int | str]
    requests: Requests  # each history as it was just before
    items: NDArray[np.int64]  # (L,)

    def take(self, rows: NDArray[np.int64]) -> Taken:
        """These, in this order."""
        return Taken([self.users[row] for row in rows.tolist()], self.requests.take(rows), self.items[rows])


@dataclass(frozen=True, slots=True)
class _Answer:
    """An event that teaches, and what it answers."""

    user: int | str
    item: int  # position
    time: int
    kind: int
    weight: float  # 0 of a refusal
    shown: dict[int, int]  # item → position in the list, of what was passed over
    offset: int


class LessonMaker:
    """Makes lessons of logged events by stated rules.

    An event teaches that its item was wanted where the policy gives it a weight and no newer verdict has taken it, and
    that the item was refused where it has none. Of several reports of an act one teaches. An item that the user had
    before teaches nothing, since it would not be shown; nor does one that is not among what would be re-ranked, unless
    the event names the list that showed it.

    Args:
        engine: It proposes candidates, and knows what users did.
        config: Settings.
    """

    def __init__(self, engine: Engine, config: LearningConfig) -> None:
        self._engine = engine
        self._config = config
        self._depth = engine.config.rerank.chosen.depth

    def make(self, events: Sequence[Logged]) -> Lessons:
        """The lessons of these events of the engine's log, in their order.

        Raises:
            ArtifactError: The log cannot be read.
        """
        passed_over: Counter[str] = Counter()
        answers, before, chosen = self._asked(events, passed_over)
        return self._lists(answers, before, chosen, passed_over)

    def taken(self, events: Sequence[Logged]) -> Taken:
        """What of these events of the engine's log users took, and had not had before, in their order.

        Raises:
            ArtifactError: The log cannot be read.
        """
        answers, before, chosen = self._asked(events, Counter())
        rows = np.flatnonzero([answer.weight > 0 for answer in answers])
        users = [answers[row].user for row in rows.tolist()]
        return Taken(users, Requests(before.take(rows), self._everything), chosen[rows])

    @property
    def _everything(self) -> NDArray[np.bool_]:
        return np.ones(len(self._engine.catalogue), np.bool_)

    def _asked(
        self, events: Sequence[Logged], passed_over: Counter[str]
    ) -> tuple[list[_Answer], Histories, NDArray[np.int64]]:
        """What events answer on items that their users had not had, the histories before them, and these items."""
        answers = self._answers(events, passed_over)
        histories = self._engine.users.histories([answer.user for answer in answers])
        before = _just_before(histories, answers)
        chosen = np.array([answer.item for answer in answers], np.int64)
        had = np.zeros(len(answers), np.bool_)
        had[before.rows[before.items == np.repeat(chosen, before.lengths)]] = True
        passed_over["had before"] += int(had.sum())
        new = np.flatnonzero(~had)
        return [answers[row] for row in new.tolist()], before.take(new), chosen[new]

    def _answers(self, events: Sequence[Logged], passed_over: Counter[str]) -> list[_Answer]:
        policy, users = self._engine.config.feedback, self._engine.users
        told = [event for event in events if event.kind != IMPRESSION]
        kinds = users.base.users.of_kind([event.user_id for event in told])
        told = [event for event, ours in zip(told, kinds, strict=True) if ours]
        items = self._engine.catalogue.ids.find([event.item_id for event in told])
        who = list(dict.fromkeys(event.user_id for event in told))
        standing: dict[tuple[int | str, int, int, int], float] = {}
        for user_id, acts in zip(who, users.acts(who), strict=True):
            columns = (acts.items.tolist(), acts.times.tolist(), acts.kinds.tolist(), acts.weights.tolist())
            standing |= {(user_id, *act): weight for *act, weight in zip(*columns, strict=True)}
        shown = self._shown([event.list_id for event in told if event.list_id is not None])
        answers = []
        for event, item in zip(told, items.tolist(), strict=True):
            says = policy.weight(event.kind, event.value)
            weight = 0.0 if event.kind == "skip" else standing.pop(
                (event.user_id, item, event.datetime, KIND_CODES[event.kind]), None
            )  # fmt: skip
            if item == UNKNOWN:
                passed_over["unknown item"] += 1
            elif weight is None:
                passed_over["repeated"] += 1
            elif says > 0 and weight == 0:
                passed_over["overruled"] += 1
            else:
                around = shown.get(event.list_id or "", {})
                code = KIND_CODES[event.kind]
                answers.append(_Answer(event.user_id, item, event.datetime, code, weight, around, event.offset))
        return answers

    def _shown(self, list_ids: Sequence[str]) -> dict[str, dict[int, int]]:
        """List → the items that were passed over, and where they stood."""
        events = self._engine.log.of_lists(list_ids)
        items = self._engine.catalogue.ids.find([event.item_id for event in events])
        placed: dict[str, dict[int, int]] = {}
        wanted: dict[str, set[int]] = {}
        for event, item in zip(events, items.tolist(), strict=True):
            name = str(event.list_id)
            if event.kind == IMPRESSION and item != UNKNOWN:
                placed.setdefault(name, {})[item] = int(event.value or 0)
            elif event.kind != IMPRESSION:
                wanted.setdefault(name, set()).add(item)
        passed = {}
        for name, places in placed.items():
            acted = wanted.get(name, set())
            last = max((places[item] for item in acted if item in places), default=0) + self._config.examined
            passed[name] = {item: place for item, place in places.items() if place <= last and item not in acted}
        return passed

    def _lists(
        self,
        answers: Sequence[_Answer],
        before: Histories,
        chosen: NDArray[np.int64],
        passed_over: Counter[str],
    ) -> Lessons:
        requests = Requests(before, self._everything)
        union = self._engine.retriever.union(requests, self._depth)
        within = (union.items[:, : self._depth] == chosen[:, None]).any(axis=1)
        told_of = np.array([bool(answer.shown) or answer.weight == 0 for answer in answers], np.bool_)
        proposed = within | (told_of & (union.items == chosen[:, None]).any(axis=1))
        passed_over["not proposed"] += int((~proposed).sum())
        kept = np.flatnonzero(proposed)
        within, chosen = within[kept], chosen[kept]
        requests, union = requests.take(kept), union.take(kept)
        told = [answers[row] for row in kept.tolist()]
        is_chosen = union.items == chosen[:, None]
        shown = np.zeros(union.items.shape, np.bool_)
        for at, answer in enumerate(told):
            shown[at] = np.isin(union.items[at], list(answer.shown))
        # the last candidates make room for what would not be among the first, and is needed
        rank = np.where(is_chosen | shown, -1, np.arange(union.items.shape[1]))
        first = np.sort(np.argsort(rank, axis=1, kind="stable")[:, : self._depth], axis=1)
        candidates = union.at(first)
        is_chosen, shown = (np.take_along_axis(part, first, axis=1) for part in (is_chosen, shown))
        order = np.zeros(first.shape)
        for at, answer in enumerate(told):
            order[at] = np.random.default_rng(answer.offset).random(first.shape[1])
        order = np.where(candidates.items == NO_ITEM, 2, np.where(is_chosen, -2, np.where(shown, -1, order)))
        weights = np.array([answer.weight or self._config.refusal for answer in told], np.float32)
        return Lessons(
            users=[answer.user for answer in told],
            requests=requests,
            candidates=candidates,
            features=features_of(requests, candidates),
            chosen=chosen,
            refused=np.array([answer.weight == 0 for answer in told], np.bool_),
            weights=weights,
            within=within,
            places=np.argsort(order, axis=1, kind="stable")[:, : self._config.list_size],
            passed_over=passed_over,
        )


def _just_before(histories: Histories, answers: Sequence[_Answer]) -> Histories:
    """Each history up to the event that is its row's answer, which is told apart from others of the same time.

    A refusal is about the list in which its item should not have been: the history ends before the first event on it. A
    skip leaves no event: the history ends at its time then.
    """
    columns = [(answer.item, answer.time, answer.kind, answer.weight == 0) for answer in answers]
    moments = np.array(columns, np.int64).reshape(-1, 4)
    items, times, kinds, refused = np.repeat(moments, histories.lengths, axis=0).T
    earlier = np.bincount(histories.rows[histories.times < times], minlength=len(histories))
    ends = histories.indptr[:-1] + earlier
    exact = (histories.times == times) & (histories.kinds == kinds)
    at = np.flatnonzero((histories.items == items) & (exact | (refused == 1)))
    rows, first = np.unique(histories.rows[at], return_index=True)
    ends[rows] = at[first]
    return histories.up_to(np.arange(len(histories)), ends)
