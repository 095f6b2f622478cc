import numpy as np
import pandas as pd
import pytest

from retrieval.als import AlsConfig, AlsRetriever
from retrieval.candidates import Requests
from retrieval.catalogue import Catalogue
from retrieval.fusion import FusedRetriever, FusionConfig
from retrieval.histories import Histories
from retrieval.index import IndexConfig
from retrieval.popularity import PopularityConfig, PopularityRetriever
from retrieval.text import TextConfig, TextRetriever

N_USERS, N_ITEMS, DIM = 40, 60, 8


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    genres = [["comedy"], ["drama", "war"], ["comedy", "drama"]]
    return Catalogue(
        pd.DataFrame(
            {
                "item_id": [f"i{n}" for n in range(N_ITEMS)],
                "title": [f"Title {n}" for n in range(N_ITEMS)],
                "text": [f"Title {n}. A text." for n in range(N_ITEMS)],
                "year": [1960 + n for n in range(N_ITEMS)],
                "genres": [genres[n % 3] for n in range(N_ITEMS)],
            }
        )
    )


@pytest.fixture(scope="session")
def histories() -> Histories:
    """Users with 0 to 12 events; the first has none, the second has seen events only."""
    rng = np.random.default_rng(7)
    lengths = np.concatenate([[0, 3], rng.integers(1, 13, N_USERS - 2)])
    rows = np.repeat(np.arange(N_USERS), lengths)
    items = rng.integers(0, N_ITEMS, len(rows))
    weights = rng.choice([1.0, 2.0, 5.0], len(rows)).astype(np.float32)
    weights[rows == 1] = 0
    return Histories.from_rows(rows, items, weights, rng.integers(0, 50, len(rows)), N_USERS)


@pytest.fixture(scope="session")
def requests_(histories: Histories) -> Requests:
    allowed = np.ones(N_ITEMS, np.bool_)
    allowed[[3, 17]] = False
    return Requests(histories, allowed)


@pytest.fixture(scope="session")
def vectors() -> np.ndarray:
    raw = np.random.default_rng(3).normal(size=(N_ITEMS, DIM)).astype(np.float32)
    return raw / np.linalg.norm(raw, axis=1, keepdims=True)


SOURCES = ["als", "als-recent", "text", "text-hnsw", "text-ivf", "popularity", "fused", "fused-rrf"]


def build(name: str, histories: Histories, vectors: np.ndarray):
    als = AlsConfig(factors=6, iterations=3, half_life=None)
    text = lambda kind: TextConfig(index=IndexConfig(kind=kind, min_recall=0.9))  # noqa: E731
    match name:
        case "als":
            return AlsRetriever.fit(histories, N_ITEMS, als, seed=0)
        case "als-recent":
            return AlsRetriever.fit(histories, N_ITEMS, AlsConfig(factors=6, iterations=3, half_life=2.0), seed=0)
        case "text":
            return TextRetriever.fit(vectors, text("flat"), seed=0)
        case "text-hnsw":
            return TextRetriever.fit(vectors, text("hnsw"), seed=0)
        case "text-ivf":
            return TextRetriever.fit(vectors, text("ivf"), seed=0)
        case "popularity":
            return PopularityRetriever.fit(histories, N_ITEMS, PopularityConfig())
    sources = {part: build(part, histories, vectors) for part in ("als", "text", "popularity")}
    method = "rrf" if name == "fused-rrf" else "weighted"
    return FusedRetriever(sources, {"als": 1.0, "text": 0.5, "popularity": 0.25}, FusionConfig(method, depth=20))


@pytest.fixture(scope="session", params=SOURCES)
def source(request, histories, vectors):
    return build(request.param, histories, vectors)
