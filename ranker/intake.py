"""Where events enter: checked, logged, and known from then on."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from encoders.errors import InputError
from ranker.data.times import US_PER_SECOND
from ranker.feedback import EventLog, FeedbackPolicy, checked_events
from ranker.feedback.acts import Acts
from ranker.feedback.events import IMPRESSION, check_columns
from ranker.feedback.impressions import impressions
from ranker.observations import Observations
from ranker.users import LoggedActs, UserHistories
from retrieval.catalogue import Catalogue
from retrieval.ids import IdMap, Ids
from retrieval.interactions import Interactions, microseconds

Refuse = Callable[[int, str], None]  # the row of an event that cannot be used, from 0, and why


class Intake:
    """A log of feedback, and what users did by it and by the log of the fit.

    Args:
        interactions: The log of the fit.
        log: Where feedback is kept.
        catalogue: The items.
        policy: What each kind of event says.
        observations: Counts what arrives.
        newer: Whom a newer version of the saved engine knows, see ``UserHistories``.
    """

    def __init__(
        self,
        interactions: Interactions,
        log: EventLog,
        catalogue: Catalogue,
        policy: FeedbackPolicy,
        observations: Observations,
        newer: Callable[[], IdMap | None] = lambda: None,
    ) -> None:
        self._users = UserHistories(interactions, newer=newer)
        self._process = os.getpid()
        self._catalogue = catalogue
        self._policy = policy
        self._observations = observations
        self._changed = threading.Condition()  # guards the next two
        self._recording = 0  # calls that are at it
        self._moving = False  # whether they have to wait
        self.use_log(log)

    @property
    def users(self) -> UserHistories:
        """What everybody did, up to now.

        Raises:
            InputError: This process is a fork of the one that made the engine. The threads of the models did not come
                along, and without them a question may never be answered.
        """
        if os.getpid() != self._process:
            raise InputError(
                f"This engine is of process {self._process}, of which this one ({os.getpid()}) is a fork, and the "
                "threads of its models did not come along. Call ranker.load in each process, and in none that forks "
                "afterwards: a model's files share memory."
            )
        return self._users

    def use_log(self, log: EventLog) -> None:
        """Know what this log holds, in place of the log so far, and keep feedback there from now on."""
        logged = LoggedActs(log, self._policy, self._catalogue.ids)
        self._users = self._users.over(logged)
        self.log = log

    def take(self, events: pd.DataFrame, refuse: Refuse | None = None) -> int:
        """Record feedback; see ``Engine.feedback``."""
        refused = self._observations.events.labels("refused")
        with self._observations.timed("feedback"):
            if refuse is None or not isinstance(events, pd.DataFrame) or events.empty:
                try:
                    return self._taken(events)
                except InputError as error:
                    refused.inc(len(events) if isinstance(events, pd.DataFrame) else 1)
                    raise InputError(f"{error} Nothing was recorded.") from error
            check_columns(events)
            new, parts = 0, [(0, len(events))]
            while parts:  # what holds an event that cannot be used is halved until that one is alone
                start, stop = parts.pop()
                try:
                    new += self._taken(events.iloc[start:stop])
                except InputError as error:
                    if stop - start > 1:
                        middle = (start + stop) // 2
                        parts += [(middle, stop), (start, middle)]
                    else:
                        refused.inc()
                        refuse(start, str(error))
            return new

    def _taken(self, events: pd.DataFrame) -> int:
        """Record events, all or none; how many were new."""
        counts = self._observations.events
        checked = checked_events(events, self._catalogue, self.users.base.users)
        pairs = zip(checked["user_id"].tolist(), checked["kind"].tolist(), strict=True)
        who = list(dict.fromkeys(user for user, kind in pairs if kind != IMPRESSION))
        before = self.users.acts(who)
        new = self.record(checked)
        counts.labels("new").inc(len(new))
        counts.labels("duplicate").inc(len(checked) - len(new))
        self._count(new, before, self.users.acts(who))
        return len(new)

    def show(self, table: pd.DataFrame, names: dict[Any, str], version: str) -> None:
        """Record lists as shown; see ``ranker.feedback.impressions``."""
        self.record(impressions(table, names, version))
        self._observations.lists.inc(len(names))

    def record(self, events: pd.DataFrame) -> pd.DataFrame:
        """Append checked events to the log; those that were new."""
        with self._changed:
            self._changed.wait_for(lambda: not self._moving)
            self._recording += 1
        try:
            return self.log.append(events)
        finally:
            with self._changed:
                self._recording -= 1
                self._changed.notify_all()

    def move_to(self, log: EventLog) -> None:
        """Go on with another log that also holds what this one does, in its order, and forgets whom this one forgot.

        Raises:
            InputError: The logs hold an event of the same id with different content. Nothing changes then.
            ArtifactError: The log cannot be written. Nothing changes then.
        """
        copied = self.log.last_offset()
        log.append(self.log.read())
        with self._changed:
            self._moving = True
            self._changed.wait_for(lambda: not self._recording)
        try:
            if gone := self.log.forgotten():
                log.forget(gone)
                copied = 0  # what they did since is not forgotten: recording it again does no harm
            log.append(self.log.read(copied))
            self.use_log(log)
        finally:
            with self._changed:
                self._moving = False
                self._changed.notify_all()

    def forget(self, user_ids: Ids) -> int:
        """Delete users; see ``Engine.forget``."""
        self.users.base.users.positions(user_ids, "forget: user_ids")
        return self.log.forget(user_ids)

    def _count(self, new: pd.DataFrame, before: list[Acts], after: list[Acts]) -> None:
        outcomes = self._observations.acts
        outcomes.labels("act").inc(max(0, sum(map(len, after)) - sum(map(len, before))))
        for name in ("repeated", "overruled"):
            grown = sum(getattr(acts, name) for acts in after) - sum(getattr(acts, name) for acts in before)
            outcomes.labels(name).inc(max(0, grown))
        late = 0
        for earlier, later in zip(before, after, strict=True):
            if len(earlier):
                added = np.setdiff1d(later.times, earlier.times)
                late += int((added < earlier.times[-1]).sum())
        outcomes.labels("out of order").inc(late)
        now = time.time()
        for moment in microseconds(new["datetime"]).tolist():
            self._observations.lag.observe(max(0.0, now - moment / US_PER_SECOND))
