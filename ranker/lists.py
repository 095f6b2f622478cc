"""Labelled lists: what a user would have been shown, and which of it they then chose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.errors import InputError
from retrieval.candidates import Candidates, Requests
from retrieval.fusion import FusedRetriever
from retrieval.histories import Histories


@dataclass(frozen=True, slots=True, eq=False)
class LabelledLists:
    """Candidate lists of past moments; row ``l`` of each part belongs to one moment of one user."""

    users: NDArray[np.int64]  # (L,) row of the user in the log
    requests: Requests  # L, each history as it was just before
    candidates: Candidates  # (L, K), in fused order
    chosen: NDArray[np.int64]  # (L,) the item that the user then took

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: NDArray[np.int64]) -> LabelledLists:
        """These lists, in this order."""
        parts = self.candidates
        candidates = Candidates(parts.items[rows], parts.scores[rows], parts.by_source[rows], parts.sources)
        return LabelledLists(self.users[rows], self.requests.take(rows), candidates, self.chosen[rows])

    def containing_choice(self, depth: int) -> LabelledLists:
        """The lists whose first ``depth`` candidates hold the chosen item, cut to that depth."""
        found = (self.candidates.items[:, :depth] == self.chosen[:, None]).any(axis=1)
        lists = self.take(np.flatnonzero(found))
        return LabelledLists(lists.users, lists.requests, lists.candidates.head(depth), lists.chosen)

    def split_by_user(self, fraction: float, rng: np.random.Generator) -> tuple[LabelledLists, LabelledLists]:
        """Two parts without a user in common, the second with about this fraction of the users."""
        users = np.unique(self.users)
        second = rng.permutation(users)[: max(1, round(fraction * len(users)))]
        in_second = np.isin(self.users, second)
        return self.take(np.flatnonzero(~in_second)), self.take(np.flatnonzero(in_second))


def held_out_events(
    log: Histories, holdout: int, max_events: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """The newest ``holdout`` positive events of each user who has more than that, as positions in ``log.items``.

    An event on an item that the user had before is passed over: a seen item is never shown, so it cannot be chosen.

    Args:
        log: Every user's history, positive events only.
        holdout: Events of each user.
        max_events: How many in all, at most; whole users are left out at random beyond that.
        rng: Chooses them.

    Raises:
        InputError: No user has more than ``holdout`` events.
    """
    eligible = rng.permutation(np.flatnonzero(log.lengths > holdout))[: max(1, max_events // holdout)]
    if not len(eligible):
        raise InputError(
            f"None of {len(log)} users has more than {holdout} positive events, so nothing can be held out to learn "
            "from. Lower rerank.training.holdout, or set fusion.weights and rerank.enabled: false."
        )
    eligible.sort()
    events = (log.indptr[eligible + 1][:, None] - np.arange(holdout, 0, -1)).ravel()
    repeated = [log.items[event] in log.items[log.indptr[row] : event] for event, row in zip(
        events, np.repeat(eligible, holdout), strict=True
    )]
    return events[~np.array(repeated, np.bool_)]


def labelled_lists(log: Histories, events: NDArray[np.int64], retriever: FusedRetriever, n_items: int) -> LabelledLists:
    """The candidates that each event's user would have been shown just before it.

    ``retriever`` must not have been trained on the events, or its scores give the answers away.
    """
    requests = Requests(log.before(events), np.ones(n_items, np.bool_))
    candidates = retriever.union(requests, retriever.config.depth)
    return LabelledLists(log.rows[events], requests, candidates, log.items[events])
