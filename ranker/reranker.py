"""Re-ranking: what re-orders candidates, and when it is worth asking."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from ranker.lists import LabelledLists, list_ndcg
from retrieval.candidates import NO_ITEM, Candidates, Requests


class Reranker(Protocol):
    """Re-orders candidates; it never adds or drops one, and it never learns while it ranks."""

    def rerank(self, requests: Requests, candidates: Candidates) -> Candidates:
        """The same candidates under new scores, best first."""
        ...


class KeepOrder:
    """The re-ranker of an engine without a cross-encoder: the fused order stands."""

    def rerank(self, requests: Requests, candidates: Candidates) -> Candidates:
        """The candidates as they are."""
        return candidates


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Gain:
    """What re-ranking added to the NDCG@10 of lists that it was not trained on.

    Attributes:
        mean: Mean gain over the lists.
        error: Its standard error.
    """

    mean: float
    error: Annotated[float, Field(ge=0)]

    @property
    def serves(self) -> bool:
        """Whether re-ranking is worth asking: it gains more than one standard error.

        The rule of one standard error (Breiman et al., "Classification and Regression Trees", 1984): of two models that
        the lists cannot tell apart, the simpler one, which here also saves its time at every request.
        """
        return self.mean > self.error


def measured_gain(before: NDArray[np.float32], after: NDArray[np.float32], lists: LabelledLists) -> Gain:
    """The gain of scores ``after`` over scores ``before``, both (L, K) of the lists' candidates."""
    chosen = lists.candidates.items == lists.chosen[:, None]
    empty = lists.candidates.items == NO_ITEM
    old, new = (list_ndcg(np.where(empty, -np.inf, scores), chosen) for scores in (before, after))
    gains = new - old
    return Gain(float(gains.mean()), float(gains.std() / np.sqrt(len(gains))))


class CrossEncoderReranker(ABC):
    """Re-orders the first ``depth`` candidates of each request; the rest follow in their fused order.

    Args:
        depth: How many it scores.
        gain: What that was worth; where it does not serve, the fused order stands and nothing is scored.
    """

    def __init__(self, depth: int, gain: Gain) -> None:
        self.depth = depth
        self.gain = gain

    @property
    @abstractmethod
    def from_files(self) -> bool:
        """Whether it serves from files that it was loaded from, so that a save must let it go on from the new ones."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write all but the gain into this empty folder."""

    @abstractmethod
    def score(self, requests: Requests, candidates: Candidates) -> NDArray[np.float32]:
        """Scores (U, K) that compare within a request; whatever stands beside NO_ITEM is passed over."""

    def rerank(self, requests: Requests, candidates: Candidates) -> Candidates:
        """The candidates in their new order where that serves, else as they are.

        Requests with a free-text query keep their order: the cross-encoder learned what users take next, not what
        answers a query.
        """
        if requests.queries is not None or not self.gain.serves:
            return candidates
        return self.reordered(requests, candidates)

    def reordered(self, requests: Requests, candidates: Candidates) -> Candidates:
        """The candidates in their new order, whether it serves or not."""
        known = candidates.items != NO_ITEM
        head = np.where(known[:, : self.depth], self.score(requests, candidates.head(self.depth)), 0)
        # What was not scored keeps its distances, shifted to end below the last that was.
        lowest = head.min(axis=1, keepdims=True)
        scores = np.where(known, candidates.scores, 0)
        scores[:, self.depth :] += lowest - 1 - scores[:, self.depth : self.depth + 1]
        scores[:, : self.depth] = head
        return candidates.reordered(scores)
