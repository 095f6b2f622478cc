"""What a learner remembers: lists that it learned from, as small as they can be kept, sampled evenly across time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranker.learning.lessons import Lessons
from retrieval.candidates import NO_ITEM, Candidates, Requests
from retrieval.histories import Histories


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A list to learn from; its chosen item comes first."""

    key: tuple[int | str, int]  # the user and the item: a newer word about it takes the place of an older one
    past: Histories  # one row, no longer than is read
    items: NDArray[np.int64]  # (n,)
    features: NDArray[np.float32]  # (n, features)
    refused: bool
    weight: float


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Lists of a gradient step, as ``InputReader.read`` takes them, each with its chosen item first."""

    requests: Requests
    candidates: Candidates  # (L, n)
    features: NDArray[np.float32]  # (L, n, features)
    labels: NDArray[np.float32]  # (L, n) 1 for the chosen item, 0 for others, -1 for empty places
    refused: NDArray[np.bool_]  # (L,)
    weights: NDArray[np.float32]  # (L,)


class Memory:
    """An even sample of all lists that were ever added (Vitter, "Random Sampling with a Reservoir", ACM TOMS 1985).

    Args:
        most: How many are kept at most.
        rng: Chooses them.
    """

    def __init__(self, most: int, rng: np.random.Generator) -> None:
        self.most = most
        self._rng = rng
        self._kept: list[Kept] = []
        self._places: dict[tuple[int | str, int], int] = {}
        self._seen = 0

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, lists: Sequence[Kept]) -> None:
        """Remember these, in place of what was remembered of the same user and item."""
        for each in lists:
            place = self._places.get(each.key)
            if place is None:
                self._seen += 1
                place = len(self._kept) if len(self._kept) < self.most else int(self._rng.integers(self._seen))
                if place >= self.most:
                    continue
            if place < len(self._kept):
                del self._places[self._kept[place].key]
                self._kept[place] = each
            else:
                self._kept.append(each)
            self._places[each.key] = place

    def forget(self, user_ids: Sequence[int | str], known: Iterable[object]) -> None:
        """Let the lists of these users go, and of all who are not known any more."""
        stay = set(known) - set(user_ids)
        self._kept = [each for each in self._kept if each.key[0] in stay]
        self._places = {each.key: place for place, each in enumerate(self._kept)}

    def sample(self, count: int) -> list[Kept]:
        """So many, or as many as there are, drawn without repetition."""
        places = self._rng.permutation(len(self._kept))[:count]
        return [self._kept[place] for place in places.tolist()]


def kept(lessons: Lessons, max_events: int) -> list[Kept]:
    """Lessons as they are remembered: no more of a history than ``max_events``, no more of a list than its places."""
    candidates = lessons.candidates.at(lessons.places)
    features = np.take_along_axis(lessons.features, lessons.places[:, :, None], axis=1)
    past = lessons.requests.histories.latest(max_events)
    return [
        Kept(
            (user, int(lessons.chosen[row])), past.take(np.array([row])), candidates.items[row], features[row],
            bool(lessons.refused[row]), float(lessons.weights[row]),
        )
        for row, user in enumerate(lessons.users)
    ]  # fmt: skip


def batch(lists: Sequence[Kept], n_items: int) -> Batch:
    """Lists as one batch, padded to the longest."""
    width = max(len(each.items) for each in lists)
    items = np.full((len(lists), width), NO_ITEM, np.int64)
    features = np.zeros((len(lists), width, lists[0].features.shape[1]), np.float32)
    for row, each in enumerate(lists):
        items[row, : len(each.items)] = each.items
        features[row, : len(each.items)] = each.features
    labels = np.where(items == NO_ITEM, -1, 0).astype(np.float32)
    labels[:, 0] = 1
    nothing = np.zeros((*items.shape, 0), np.float32)  # the features say what the sources do
    return Batch(
        Requests(Histories.joined([each.past for each in lists]), np.ones(n_items, np.bool_)),
        Candidates(items, np.zeros(items.shape, np.float32), nothing, ()),
        features,
        labels,
        np.array([each.refused for each in lists], np.bool_),
        np.array([each.weight for each in lists], np.float32),
    )
