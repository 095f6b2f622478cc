"""Re-ranking: what re-orders candidates, and when it is worth asking."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from encoders import Encoder
from ranker.lists import LabelledLists, list_ndcg
from retrieval.candidates import NO_ITEM, Candidates, Requests
from retrieval.queries import Queries


class Reranker(Protocol):
    """Re-orders candidates; it never adds or drops one, and it never learns while it ranks."""

    @property
    def serves(self) -> bool:
        """Whether requests without a query are answered in its order, or in the fused one."""
        ...

    def rerank(self, requests: Requests, candidates: Candidates) -> Candidates:
        """The same candidates under new scores, best first."""
        ...

    def read_queries(self, texts: Sequence[str], encoder: Encoder) -> Queries:
        """Queries as retrieval and this re-ranker need them, read by the encoder that read the items."""
        ...


class KeepOrder:
    """The re-ranker of an engine without a cross-encoder: the fused order stands."""

    @property
    def serves(self) -> bool:
        """Never."""
        return False

    def rerank(self, requests: Requests, candidates: Candidates) -> Candidates:
        """The candidates as they are."""
        return candidates

    def read_queries(self, texts: Sequence[str], encoder: Encoder) -> Queries:
        """The queries' vectors alone."""
        return Queries.without_states(encoder.encode(texts))


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


NO_GAIN = Gain(0, 0)  # of what was not measured: it does not serve


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Gains:
    """What re-ranking added to the two kinds of requests.

    Attributes:
        histories: To requests without a query, which have the user's history alone.
        queries: To requests with a free-text query.
    """

    histories: Gain
    queries: Gain


def measured_gain(before: NDArray[np.float32], after: NDArray[np.float32], lists: LabelledLists) -> Gain:
    """The gain of scores ``after`` over scores ``before``, both (L, K) of the lists' candidates."""
    chosen = lists.is_chosen
    empty = lists.candidates.items == NO_ITEM
    old, new = (list_ndcg(np.where(empty, -np.inf, scores), chosen) for scores in (before, after))
    gains = new - old
    return Gain(float(gains.mean()), float(gains.std() / np.sqrt(len(gains))))


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Lists that a re-ranker was not trained on, and how it scores them."""

    lists: LabelledLists  # L, cut to what it scores; each holds its choice
    scores: NDArray[np.float32]  # (L, K) of the lists' candidates; whatever stands beside NO_ITEM is passed over

    @property
    def gain(self) -> Gain:
        """What its order gains over the fused one; no lists tell of no gain."""
        return measured_gain(self.lists.candidates.scores, self.scores, self.lists) if len(self.lists) else NO_GAIN


class CrossEncoderReranker(ABC):
    """Re-orders the first ``depth`` candidates of each request; the rest follow in their fused order.

    Args:
        depth: How many it scores.
        gain: What that was worth; where it does not serve, the fused order stands and nothing is scored. What is
            learned later may come to serve, and ``saved_gain`` stays what it was.
        query_gain: The same of requests with a free-text query.
    """

    def __init__(self, depth: int, gain: Gain, query_gain: Gain = NO_GAIN) -> None:
        self.depth = depth
        self.gain = self.saved_gain = gain
        self.query_gain = query_gain

    @property
    def serves(self) -> bool:
        """Whether it gained enough, as far as is known now."""
        return self.gain.serves

    @property
    @abstractmethod
    def from_files(self) -> bool:
        """Whether it serves from files that it was loaded from, so that a save must let it go on from the new ones."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write all but the gains into this empty folder."""

    @abstractmethod
    def score(self, requests: Requests, candidates: Candidates) -> NDArray[np.float32]:
        """Scores (U, K) that compare within a request; whatever stands beside NO_ITEM is passed over."""

    def rerank(self, requests: Requests, candidates: Candidates) -> Candidates:
        """The candidates in their new order where that serves requests like these, else as they are."""
        gain = self.gain if requests.queries is None else self.query_gain
        return self.reordered(requests, candidates) if gain.serves else candidates

    def read_queries(self, texts: Sequence[str], encoder: Encoder) -> Queries:
        """The queries' vectors alone: token states are for a re-ranker that reads them."""
        return Queries.without_states(encoder.encode(texts))

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
