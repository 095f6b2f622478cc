"""Labelled events: what users were shown or did, as 1 or 0, with what each had done before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ranker.feedback.events import IMPRESSION
from ranker.feedback.policy import FeedbackPolicy
from retrieval.candidates import Requests
from retrieval.catalogue import Catalogue
from retrieval.ids import UNKNOWN
from retrieval.interactions import Interactions, microseconds


@dataclass(frozen=True, slots=True, eq=False)
class LabelledEvents:
    """Feedback to learn from; row ``e`` of each part belongs to one event."""

    users: NDArray[np.int64]  # (E,) row of the user in the log
    requests: Requests  # E, each history as it was just before
    items: NDArray[np.int64]  # (E,)
    labels: NDArray[np.float32]  # (E,) 1 for a positive event, 0 for a negative one

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: NDArray[np.int64]) -> LabelledEvents:
        """These events, in this order."""
        return LabelledEvents(self.users[rows], self.requests.take(rows), self.items[rows], self.labels[rows])

    def negative(self) -> LabelledEvents:
        """The negative events."""
        return self.take(np.flatnonzero(self.labels == 0))

    def of_others(self, users: NDArray[np.int64]) -> LabelledEvents:
        """The events of all but these users."""
        return self.take(np.flatnonzero(~np.isin(self.users, users)))


def labelled_events(
    feedback: pd.DataFrame, log: Interactions, catalogue: Catalogue, policy: FeedbackPolicy, max_events: int
) -> LabelledEvents:
    """Label feedback by its policy.

    Args:
        feedback: Checked events, see ``ranker.feedback.checked_events``.
        log: Everybody's histories, the feedback included; an event of a user who is not there is left out.
        catalogue: The items.
        policy: What each kind says.
        max_events: The newest so many are taken.
    """
    feedback = feedback[feedback["kind"] != IMPRESSION]
    users = log.users.positions(feedback["user_id"], "feedback: user_id")
    times = microseconds(feedback["datetime"])
    known = np.flatnonzero(users != UNKNOWN)
    newest = known[np.argsort(times[known], kind="stable")][max(0, len(known) - max_events) :]
    users, times = users[newest], times[newest]
    requests = Requests(log.histories.until(users, times), np.ones(len(catalogue), np.bool_))
    items = catalogue.ids.positions(feedback["item_id"].iloc[newest])
    labels = (policy.weights(feedback.iloc[newest]) > 0).astype(np.float32)
    return LabelledEvents(users, requests, items, labels)
