import numpy as np
import pandas as pd
import pytest
from sources import N_ITEMS, NEW, SOURCES, build

from retrieval.candidates import Requests
from retrieval.catalogue import Catalogue
from retrieval.histories import Histories

N_USERS, DIM = 40, 8


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
def without(histories) -> Histories:
    """The same, but that nobody took two of the items."""
    kept = ~np.isin(histories.items, NEW)
    rows, items, weights = histories.rows[kept], histories.items[kept], histories.weights[kept]
    return Histories.from_rows(rows, items, weights, histories.times[kept], len(histories))


@pytest.fixture(scope="session")
def requests_(histories: Histories) -> Requests:
    allowed = np.ones(N_ITEMS, np.bool_)
    allowed[[3, 17]] = False
    return Requests(histories, allowed)


@pytest.fixture(scope="session")
def vectors() -> np.ndarray:
    raw = np.random.default_rng(3).normal(size=(N_ITEMS, DIM)).astype(np.float32)
    return raw / np.linalg.norm(raw, axis=1, keepdims=True)


@pytest.fixture(scope="session", params=SOURCES)
def source(request, histories, vectors):
    return build(request.param, histories, vectors)
