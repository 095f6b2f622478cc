"""Labelled lists: what a user would have been shown, and which of it they then chose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.errors import InputError
from ranker.feedback.labels import LabelledEvents
from retrieval.candidates import NO_ITEM, Candidates, Requests
from retrieval.fusion import FusedRetriever
from retrieval.histories import Histories

NOBODY = np.zeros(0, np.int64)  # no user


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
        return LabelledLists(self.users[rows], self.requests.take(rows), self.candidates.take(rows), self.chosen[rows])

    @property
    def is_chosen(self) -> NDArray[np.bool_]:
        """(L, K) whether a candidate is its list's chosen item."""
        chosen: NDArray[np.bool_] = self.candidates.items == self.chosen[:, None]
        return chosen

    def containing_choice(self, depth: int) -> LabelledLists:
        """The lists whose first ``depth`` candidates hold the chosen item, cut to that depth."""
        found = self.is_chosen[:, :depth].any(axis=1)
        lists = self.take(np.flatnonzero(found))
        return LabelledLists(lists.users, lists.requests, lists.candidates.head(depth), lists.chosen)

    def split_by_user(
        self, fraction: float, rng: np.random.Generator, seen: NDArray[np.int64] = NOBODY
    ) -> tuple[LabelledLists, LabelledLists]:
        """Two parts without a user in common, the second with about this fraction of the users, none of them seen."""
        users = np.unique(self.users)
        second = rng.permutation(np.setdiff1d(users, seen))[: max(1, round(fraction * len(users)))]
        in_second = np.isin(self.users, second)
        return self.take(np.flatnonzero(~in_second)), self.take(np.flatnonzero(in_second))


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """All that joint layers learn from; each list holds its chosen item."""

    taken: LabelledLists  # the user took the chosen item
    queried: LabelledLists  # the same, after a free-text query
    refused: LabelledLists  # the user did not want the chosen item

    @classmethod
    def of(cls, taken: LabelledLists) -> Lessons:
        """Lists without any with a query and without any refused one."""
        nothing = taken.take(NOBODY)
        return cls(taken, nothing, nothing)

    @property
    def parts(self) -> tuple[LabelledLists, LabelledLists, LabelledLists]:
        """The three, in this order."""
        return self.taken, self.queried, self.refused

    def __len__(self) -> int:
        return sum(map(len, self.parts))


def check_lists(train: int, validation: int) -> None:
    """Refuse what could not be trained before any work is done.

    Raises:
        InputError: There is nothing to train on or to validate with.
    """
    if not train or not validation:
        raise InputError(
            f"Fine-tuning has {train} training and {validation} validation lists; it needs both. More users "
            "with a longer history give more lists; rerank.enabled: false does without."
        )


def list_ndcg(scores: NDArray[np.float32], chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """NDCG@10 of lists (L, K) with one chosen place each: 1 / log2(1 + its rank), 0 beyond rank 10; (L,).

    Ties count against the chosen place, and so does a score that is no number.
    """
    own = scores[chosen][:, None]
    rank = (~(scores < own)).sum(axis=1)
    gains: NDArray[np.float64] = np.where(rank <= 10, 1 / np.log2(1 + rank), 0)
    return gains


def drawn_places(
    items: NDArray[np.int64], chosen: NDArray[np.int64], negatives: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Places (L, 1 + n) in lists (L, K): the chosen item's first, then n others drawn without repetition.

    n is ``negatives``, or K - 1 where lists are shorter. Where a row has fewer others, empty places fill it up.
    """
    keys = rng.random(items.shape)
    keys[items == NO_ITEM] = 2
    keys[items == chosen[:, None]] = -1
    return np.argsort(keys, axis=1)[:, : 1 + negatives]


def labelled_lists(
    log: Histories, events: NDArray[np.int64], retriever: FusedRetriever, n_items: int, depth: int = 0
) -> LabelledLists:
    """The first candidates of each event's user just before it: as many as one source proposes, or ``depth``, if more.

    ``retriever`` must not have been trained on the events, or its scores give the answers away.
    """
    requests = Requests(log.before(events), np.ones(n_items, np.bool_))
    # in blocks, since what all sources propose is several times what is kept
    blocks = [block for _, block in requests.blocks()] or [requests]
    parts = [retriever.retrieve(block, max(depth, retriever.config.depth)) for block in blocks]
    return LabelledLists(log.rows[events], requests, Candidates.joined(parts), log.items[events])


def refused_lists(refused: LabelledEvents, retriever: FusedRetriever, depth: int) -> LabelledLists:
    """The candidates that users would have been shown when they refused an item; ``chosen`` is the refused one.

    Args:
        refused: Negative events.
        retriever: Proposes the candidates.
        depth: How many of them; the last one gives its place to the refused item where that is not among them. A list
            of nothing else is left out.
    """
    items = retriever.union(refused.requests, depth).head(depth).items.copy()
    missed = ~(items == refused.items[:, None]).any(axis=1)
    items[missed, -1] = refused.items[missed]
    lists = LabelledLists(refused.users, refused.requests, retriever.arrange(refused.requests, items), refused.items)
    return lists.take(np.flatnonzero((items != NO_ITEM).sum(axis=1) > 1))
