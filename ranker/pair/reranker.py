"""Re-ranking by pairs: the cross-encoder reads a user's recent titles and a candidate's text together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from encoders import OnnxPairCrossEncoder, PairCrossEncoder, PairScorer, is_export
from ranker.config import PairConfig
from ranker.reranker import CrossEncoderReranker, Gain
from retrieval.candidates import NO_ITEM, Candidates, Requests
from retrieval.catalogue import Catalogue
from retrieval.fusion import standardised
from retrieval.storage import load_settings, save_settings

BLEND, CROSS_ENCODER = "blend.json", "cross_encoder"


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Blend:
    """How the two opinions on a request's best candidates are added up, each standardised among them.

    Attributes:
        fused: Weight of the fused retrieval score.
        cross_encoder: Weight of the cross-encoder's logit.
    """

    fused: Annotated[float, Field(ge=0)] = 1.0
    cross_encoder: Annotated[float, Field(ge=0)] = 1.0


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


class PairReranker(CrossEncoderReranker):
    """Re-orders candidates by a blend of their fused score and the cross-encoder's logit.

    Args:
        cross_encoder: Scores (context, item text) pairs.
        texts: Builds them.
        depth: Candidates of each request that are scored.
        blend: Weights of the two scores.
        gain: What the blend was worth.
    """

    def __init__(self, cross_encoder: PairScorer, texts: PairTexts, depth: int, blend: Blend, gain: Gain) -> None:
        super().__init__(depth, gain)
        self.cross_encoder = cross_encoder
        self.texts = texts
        self.blend = blend

    @property
    def from_files(self) -> bool:
        """Whether the cross-encoder is an export."""
        return isinstance(self.cross_encoder, OnnxPairCrossEncoder)

    def save(self, folder: Path) -> None:
        """Write the blend and the cross-encoder."""
        save_settings(self.blend, folder / BLEND)
        (folder / CROSS_ENCODER).mkdir()
        self.cross_encoder.save(folder / CROSS_ENCODER)

    @classmethod
    def load(cls, folder: Path, catalogue: Catalogue, config: PairConfig, gain: Gain) -> PairReranker:
        """Read what ``save`` wrote.

        Raises:
            ArtifactError: A file is missing or damaged.
        """
        weights = folder / CROSS_ENCODER
        cross_encoder: PairScorer = (
            OnnxPairCrossEncoder.load(weights) if is_export(weights) else PairCrossEncoder.load(weights, config.model)
        )
        texts = PairTexts(catalogue.titles, catalogue.texts, config.context_items)
        return cls(cross_encoder, texts, config.depth, load_settings(Blend, folder / BLEND), gain)

    def over(self, titles: Sequence[str], texts: Sequence[str]) -> PairReranker:
        """The same cross-encoder over another catalogue, of these titles and texts."""
        read = PairTexts(titles, texts, self.texts.context_items)
        return PairReranker(self.cross_encoder, read, self.depth, self.blend, self.gain)

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

    def score(self, requests: Requests, candidates: Candidates) -> NDArray[np.float32]:
        """The blend of the candidates' opinions; where it is the same for all of them, their fused score."""
        return self.blended(self.opinions(requests, candidates))

    def blended(self, opinions: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores (U, K) of opinions (U, K, 2), see ``score``."""
        fused, logits = np.moveaxis(standardised(opinions), 2, 0)
        blended = self.blend.fused * fused + self.blend.cross_encoder * logits
        scores: NDArray[np.float32] = np.where((blended != 0).any(axis=1, keepdims=True), blended, fused)
        return scores.astype(np.float32)
