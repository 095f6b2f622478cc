"""Re-ranking: the cross-encoder reads a user's recent items and a candidate together, and re-orders the best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from encoders import PairScorer
from retrieval.candidates import NO_ITEM, Candidates, Requests
from retrieval.fusion import standardised


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
class Blend:
    """How the two opinions on a request's best candidates are added up, each standardised among them.

    Attributes:
        fused: Weight of the fused retrieval score.
        cross_encoder: Weight of the cross-encoder's logit.
        gain: What the blend added to the mean NDCG@10 of the validation lists it was learned on.
        error: Standard error of that gain.
        serves: Whether the blend's order is served; else the fused order stands and no pair is scored.
    """

    fused: Annotated[float, Field(ge=0)] = 1.0
    cross_encoder: Annotated[float, Field(ge=0)] = 1.0
    gain: float = 0.0
    error: Annotated[float, Field(ge=0)] = 0.0
    serves: bool = True


class PairTexts:
    """What the cross-encoder reads: a user's newest liked titles, and an item's text.

    Args:
        titles: Title of each item.
        texts: Text of each item.
        context_items: Titles of a user at most.
    """

    def __init__(self, titles: Sequence[str], texts: Sequence[str], context_items: int) -> None:
        self.titles = titles
        self.texts = texts
        self.context_items = context_items

    def contexts(self, requests: Requests) -> list[str]:
        """One text per request, newest title first; empty where nothing is liked yet."""
        recent = requests.histories.liked().latest(self.context_items)
        contexts = []
        for row in range(len(requests)):
            events = recent.items[recent.indptr[row] : recent.indptr[row + 1]][::-1]
            contexts.append("; ".join(self.titles[item] for item in events))
        return contexts

    def pairs(self, context: str, items: NDArray[np.int64]) -> list[tuple[str, str]]:
        """The context with each item."""
        return [(context, self.texts[item]) for item in items]


class PairReranker:
    """Re-orders the first ``depth`` candidates by a blend of their fused score and the cross-encoder's logit.

    Args:
        cross_encoder: Scores (context, item text) pairs.
        texts: Builds them.
        depth: Candidates of each request that are scored; the rest follow in their fused order.
        blend: Weights of the two scores.
    """

    def __init__(self, cross_encoder: PairScorer, texts: PairTexts, depth: int, blend: Blend) -> None:
        self.cross_encoder = cross_encoder
        self.texts = texts
        self.depth = depth
        self.blend = blend

    def logits(self, requests: Requests, items: NDArray[np.int64]) -> NDArray[np.float32]:
        """The cross-encoder's logit of given items (U, K); -inf beside NO_ITEM and where there is no context."""
        logits = np.full(items.shape, -np.inf, np.float32)
        for row, context in enumerate(self.texts.contexts(requests)):
            known = items[row] != NO_ITEM
            if context and known.any():
                logits[row, known] = self.cross_encoder.score(self.texts.pairs(context, items[row, known]))
        return logits

    def opinions(self, requests: Requests, candidates: Candidates) -> NDArray[np.float32]:
        """The two scores (U, K, 2) that the blend weighs: the fused one and the cross-encoder's."""
        return np.stack([candidates.scores, self.logits(requests, candidates.items)], axis=2)

    def rerank(self, requests: Requests, candidates: Candidates) -> Candidates:
        """The candidates in blended order where the blend serves, else as they are.

        Requests with a free-text query keep their order: the cross-encoder learned what users take next, not what
        answers a query.
        """
        if requests.queries is not None or not self.blend.serves:
            return candidates
        return self.blended(requests, candidates)

    def blended(self, requests: Requests, candidates: Candidates) -> Candidates:
        """The same candidates, the first ``depth`` of each request in blended order.

        Where the cross-encoder has nothing to read, or its logits are all the same, the fused order stands.
        """
        head = candidates.head(self.depth)
        fused, logits = np.moveaxis(standardised(self.opinions(requests, head)), 2, 0)
        blended = self.blend.fused * fused + self.blend.cross_encoder * logits
        blended = np.where((blended != 0).any(axis=1, keepdims=True), blended, fused).astype(np.float32)
        known = candidates.items != NO_ITEM
        # What was not scored keeps its distances, shifted to end below the last that was.
        lowest = np.where(known[:, : self.depth], blended, 0).min(axis=1, keepdims=True)
        scores = np.where(known, candidates.scores, 0)
        scores[:, self.depth :] += lowest - 1 - scores[:, self.depth : self.depth + 1]
        scores[:, : self.depth] = blended
        return candidates.reordered(scores)
