"""Candidate sources of every kind, made from the same histories and vectors."""

import numpy as np

from retrieval.als import AlsConfig, AlsRetriever
from retrieval.ease import EaseConfig, EaseRetriever
from retrieval.fusion import FusedRetriever, FusionConfig
from retrieval.histories import Histories
from retrieval.index import IndexConfig
from retrieval.neighbours import NeighbourConfig, NeighbourRetriever
from retrieval.popularity import PopularityConfig, PopularityRetriever
from retrieval.sequence import SequenceConfig, SequenceRetriever
from retrieval.text import TextConfig, TextRetriever
from retrieval.training import LoopConfig
from retrieval.transitions import TransitionConfig, TransitionRetriever
from retrieval.trend import TrendRetriever

N_ITEMS = 60
NEW = np.array([3, 17])  # items that nobody took, in the histories called without
ITEM_ITEM = ["ease", "ease-recent", "neighbours", "neighbours-recent", "transitions", "transitions-recent"]
TEXT = ["text", "text-hnsw"]
SOURCES = ["als", "als-recent", *ITEM_ITEM, "sequence", *TEXT, "popularity", "trend", "fused", "fused-rrf"]


def build(name: str, histories: Histories, vectors: np.ndarray):
    als = AlsConfig(factors=6, iterations=3, half_life=None)
    text = lambda kind: TextConfig(index=IndexConfig(kind=kind, min_recall=0.9))  # noqa: E731
    match name:
        case "als":
            return AlsRetriever.fit(histories, N_ITEMS, als, seed=0)
        case "als-recent":
            return AlsRetriever.fit(histories, N_ITEMS, AlsConfig(factors=6, iterations=3, half_life=2.0), seed=0)
        case "ease":
            return EaseRetriever.fit(histories, N_ITEMS, EaseConfig(half_life=None, regularization=5.0))
        case "ease-recent":
            config = EaseConfig(half_life=2.0, weighted=True, regularization=5.0)
            return EaseRetriever.fit(histories, N_ITEMS, config)
        case "neighbours":
            return NeighbourRetriever.fit(histories, N_ITEMS, NeighbourConfig(half_life=None, similarity="cosine"))
        case "neighbours-recent":
            config = NeighbourConfig(half_life=2.0, weighted=True, similarity="bm25", shrinkage=1.0)
            return NeighbourRetriever.fit(histories, N_ITEMS, config)
        case "transitions":
            return TransitionRetriever.fit(histories, N_ITEMS, TransitionConfig(half_life=None))
        case "transitions-recent":
            return TransitionRetriever.fit(histories, N_ITEMS, TransitionConfig(half_life=2.0, weighted=True))
        case "text":
            return TextRetriever.fit(vectors, text("flat"), seed=0)
        case "text-hnsw":
            return TextRetriever.fit(vectors, text("hnsw"), seed=0)
        case "sequence":
            loop = LoopConfig(epochs=2, batch_size=8, learning_rate=1e-2, evaluations_per_epoch=1)
            sequence = SequenceConfig(dim=8, heads=2, max_events=6, training=loop)
            return SequenceRetriever.fit(histories, vectors, sequence, seed=0)
        case "popularity":
            return PopularityRetriever.fit(histories, N_ITEMS, PopularityConfig())
        case "trend":
            return TrendRetriever.fit(histories, N_ITEMS, PopularityConfig(half_life_days=1e-4))
    sources = {part: build(part, histories, vectors) for part in ("als", "text", "popularity")}
    method = "rrf" if name == "fused-rrf" else "weighted"
    return FusedRetriever(sources, {"als": 1.0, "text": 0.5, "popularity": 0.25}, FusionConfig(method, depth=20))
