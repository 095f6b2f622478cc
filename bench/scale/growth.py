"""How time and memory of each stage grow with the site: a stage at a time, each size in a process of its own."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil

import ranker
from bench.plots import growths
from bench.scale.engines import of_films
from bench.scale.made import factors, histories, vectors
from bench.scale.part import MEGABYTE, Asked, Told
from ranker.split.reranker import SplitReranker
from ranker.states.building import build_store
from retrieval.als import AlsConfig, AlsRetriever
from retrieval.candidates import Requests
from retrieval.index import IndexConfig, VectorIndex

EVENTS = 20  # of a user, on average
DIM = 64  # ALS factors, as by default
TEXT_DIM = 384
K = 200
QUERIES = 1024  # users or queries whose candidates are found

TINY_SIZES = (700, 900)

Work = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of generation, or of what it needs.

    Attributes:
        name: What it is called.
        axis: What grows.
        sizes: How far.
        prepare: Size, and an engine's folder → what is timed.
    """

    name: str
    axis: str
    sizes: tuple[int, ...]
    prepare: Callable[[int, Path], Work]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a stage took at a size.

    Attributes:
        size: How many users, items, texts or lists.
        seconds: From start to end.
        memory: Bytes by which the process grew, at most.
    """

    size: int
    seconds: float
    memory: int


def fit_als(n_users: int, engine: Path) -> Work:
    """One pass over the users and one over 100,000 items."""
    known = histories(n_users, 100_000, EVENTS, np.random.default_rng(0))
    return lambda: AlsRetriever.fit(known, 100_000, AlsConfig(factors=DIM, iterations=1, text_penalty=None), seed=0)


def als_candidates(n_items: int, engine: Path) -> Work:
    """Exact, for 1,024 users."""
    rng = np.random.default_rng(0)
    source = AlsRetriever(factors(n_items, DIM, rng), AlsConfig(factors=DIM))
    requests = Requests(histories(QUERIES, n_items, EVENTS, rng), np.ones(n_items, np.bool_))
    return lambda: source.retrieve(requests, K)


def build_index(n_items: int, engine: Path) -> Work:
    """Of lists of codes."""
    items = vectors(n_items, 1, TEXT_DIM, np.random.default_rng(0))[0]
    return lambda: VectorIndex.build(items, IndexConfig(kind="ivf"), seed=0)


def search_index(n_items: int, engine: Path) -> Work:
    """At recall .98, for 1,024 queries."""
    items, queries = vectors(n_items, QUERIES, TEXT_DIM, np.random.default_rng(0))
    index = VectorIndex.build(items, IndexConfig(kind="ivf"), seed=0)
    return lambda: index.search(queries, K, np.ones(n_items, np.bool_))


def encode(n_texts: int, engine: Path) -> Work:
    """Titles and genres into vectors."""
    encoder, texts = ranker.load(engine).encoder, _texts(n_texts, engine)
    return lambda: encoder.encode(texts)


def store(n_texts: int, engine: Path) -> Work:
    """What the joint layers read of an item, on disk, encoding included."""
    reranker, texts = ranker.load(engine).reranker, _texts(n_texts, engine)
    assert isinstance(reranker, SplitReranker)
    items, folder = reranker.items, tempfile.mkdtemp(dir=engine.parent)
    return lambda: build_store(Path(folder), texts, items.version, reranker.inputs.store.row_format, items.read)


def rerank(n_lists: int, engine: Path) -> Work:
    """Joint layers over 100 candidates for each of so many users."""
    loaded = ranker.load(engine)
    users = loaded.users.histories(list(loaded.users.ids[:n_lists]))
    requests = Requests(users, np.ones(len(loaded.catalogue), np.bool_))
    found = loaded.retriever.retrieve(requests, 100)
    return lambda: loaded.reranker.score(requests, found)


STAGES = (
    Stage("ALS, one iteration", "users", (10_000, 100_000, 1_000_000), fit_als),
    Stage("encoding texts", "texts", (1_000, 4_000, 16_000), encode),
    Stage("store of item states", "texts", (1_000, 4_000, 16_000), store),
    Stage("index of text vectors", "items", (10_000, 100_000, 1_000_000), build_index),
    Stage("ALS candidates of 1,024 users", "items", (10_000, 100_000, 1_000_000), als_candidates),
    Stage("text candidates of 1,024 queries", "items", (10_000, 100_000, 1_000_000), search_index),
    Stage("re-ranking lists of 100", "lists", (64, 256, 940), rerank),
)


def measured(asked: Asked) -> Told:
    """Time and memory of each stage, by size."""
    found = growth(asked.folder, asked.data, asked.tiny)
    rows = [
        {
            "stage": stage.name, "sizes": " · ".join(f"{cost.size:,}" for cost in costs) + f" {stage.axis}",
            "seconds": " · ".join(f"{cost.seconds:.3g}" for cost in costs),
            "grows with the power": exponent(costs),
            "memory, MB": " · ".join(f"{cost.memory / MEGABYTE:.3g}" for cost in costs),
        }
        for stage, costs in ((stage, found[stage.name]) for stage in STAGES)
    ]  # fmt: skip
    protocol = (
        "Each size in a process of its own, on all cores but for the index, which is built on one. Users have "
        f"{EVENTS} events on average. Memory is by how much the process grew at most."
    )
    curves = {name: [(cost.size, cost.seconds) for cost in costs] for name, costs in found.items()}
    growths(curves, "seconds", asked.out / "growth.svg")
    return Told("Growth", protocol, rows, {"found": {name: list(map(asdict, each)) for name, each in found.items()}})


def growth(folder: Path, data: Path, tiny: bool) -> Mapping[str, list[Cost]]:
    """Measure each stage at each of its sizes.

    Args:
        folder: An empty one, for an engine and its stores.
        data: Where the data set is kept.
        tiny: At two small sizes, in this process, with a small transformer, to try the path.
    """
    engine = folder / "engine"
    of_films(folder, data, tiny).save(engine)
    found: dict[str, list[Cost]] = {}
    for stage in STAGES:
        for size in TINY_SIZES if tiny else stage.sizes:
            if tiny:
                cost = _cost(stage, size, engine)
            else:
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                    cost = process.submit(_cost, stage, size, engine).result()
            found.setdefault(stage.name, []).append(cost)
    return found


def exponent(costs: Sequence[Cost]) -> float:
    """The power of the size with which time grows: the slope of a line through their logarithms."""
    return float(np.polyfit(np.log([each.size for each in costs]), np.log([each.seconds for each in costs]), 1)[0])


def _cost(stage: Stage, size: int, engine: Path) -> Cost:
    work = stage.prepare(size, engine)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the largest size so far is forgotten
    before = psutil.Process().memory_info().rss
    clock = time.perf_counter()
    work()
    seconds = time.perf_counter() - clock
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return Cost(size, seconds, int(status.split("VmHWM:")[1].split()[0]) * 1024 - before)


def _texts(count: int, engine: Path) -> list[str]:
    """Different texts of the usual length: those of the engine's films, with a number where they come again."""
    films = ranker.load(engine).catalogue.texts
    return [films[at % len(films)] + (f" {at // len(films)}" if at >= len(films) else "") for at in range(count)]
