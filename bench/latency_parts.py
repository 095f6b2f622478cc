"""What a request's time is made of: catalogue size, swaps of weights, the cache, and the machine's own limits."""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from bench.timing import Budget, Timings, elapsed, median_ratio, once, time_in_turn
from encoders.checkpoint import quiet_transformers
from ranker.reranker import Gain
from ranker.split.inputs import InputReader, newest_events
from ranker.split.model import DEEP, JointModel, JointShape, folded_first, packed, packed_width
from ranker.split.reranker import SplitReranker
from ranker.states.building import StoredRows, build_store
from ranker.states.rows import RowFormat
from ranker.states.store import StateStore
from retrieval.candidates import NO_ITEM, Candidates, Requests
from retrieval.histories import Histories

COPIED = 1 << 28  # bytes of the array whose copy measures the memory: beyond any cache
SIDE = 2048  # of the square product whose rate is what the processor can do: large enough to reach it
MEMORY_REQUESTS = 100  # after which memory is looked at
MB = 1e6


def store_sizes(
    reranker: SplitReranker, sizes: Sequence[int], candidates: int, events: int, budget: Budget
) -> list[dict[str, object]]:
    """Re-ranking time over made-up stores of these numbers of items, in turn, and what memory each took."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        runs = {}
        for size in sizes:
            before = memory()
            clock = time.perf_counter()
            store = made_up_store(Path(name) / str(size), size, reranker.inputs.store.row_format)
            seconds = time.perf_counter() - clock
            built = memory()
            runs[size] = _scoring(reranker, store, candidates, events)
            start = memory()
            for number in range(MEMORY_REQUESTS):
                runs[size](number)
            end = memory()
            row = {"items": size, "store_mb": store.bytes_per_item * size / MB, "build_s": seconds}
            row |= {f"build_{key}": built[key] - before[key] for key in built}
            rows.append(row | {f"scoring_{key}": end[key] - start[key] for key in end})
        timings = time_in_turn(runs, budget)
    smallest = timings[min(sizes)]
    return [
        row | milliseconds(timings[size]) | {"times_smallest": str(median_ratio(timings[size], smallest))}
        for row, size in zip(rows, sizes, strict=True)
    ]


def memory() -> dict[str, float]:
    """Megabytes of this process: all that is resident, and the part that belongs to no file."""
    info = psutil.Process().memory_info()
    return {"rss_mb": info.rss / MB, "private_mb": (info.rss - getattr(info, "shared", 0)) / MB}


def made_up_store(folder: Path, size: int, row_format: RowFormat) -> StateStore:
    """A store of so many items, one row each, the same random numbers in every shard."""
    block = np.random.default_rng(0).standard_normal((4096, row_format.width), np.float32).astype(np.float16)

    def read(texts: Sequence[str]) -> Iterator[StoredRows]:
        count = len(texts)
        yield StoredRows(np.arange(count), np.ones(count, np.int64), block[:count])

    return build_store(folder, [str(item) for item in range(size)], "made-up", row_format, read, shard_items=len(block))


def _scoring(
    reranker: SplitReranker, store: StateStore, candidates: int, events: int
) -> Callable[[int], Sequence[float]]:
    """A run of ``score`` on random items of a store, other ones every time."""
    size, shape = store.n_items, reranker.joint.shape
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((size, shape.factors), np.float32)
    over = SplitReranker(reranker.joint, InputReader(store, factors, shape), reranker.items, reranker.depth, Gain(1, 0))
    allowed = np.ones(size, np.bool_)

    def run(number: int) -> list[float]:
        drawn = np.random.default_rng(number).integers(0, size, candidates + events)
        past = drawn[candidates:]
        rows = np.zeros(events, np.int64)
        histories = Histories.from_rows(rows, past, np.ones(events, np.float32), np.arange(events), 1)
        scores = rng.standard_normal((1, candidates, 1 + shape.sources), np.float32)
        names = tuple(f"source {n}" for n in range(shape.sources))
        asked = Candidates(drawn[None, :candidates], scores[:, :, 0], scores[:, :, 1:], names)
        requests = Requests(histories, allowed)
        return [elapsed(lambda: over.score(requests, asked))]

    return run


def swap(reranker: SplitReranker, requests: Requests, candidates: Candidates, budget: Budget) -> dict[str, object]:
    """New weights: how long until they serve, and what requests notice of it."""
    weights = dict(reranker.joint.weights)
    score = once(lambda: reranker.score(requests, candidates))

    def serve(number: int) -> list[float]:
        prepared = reranker.joint.prepare(weights)
        clock = time.perf_counter()
        before = reranker.joint.serve(prepared)
        seconds = time.perf_counter() - clock
        del before  # here, or freeing it would be timed, too
        return [seconds]

    alone = time_in_turn(
        {"prepare": once(lambda: reranker.joint.prepare(weights)), "serve": serve, "score": score}, budget
    )
    stop = threading.Event()

    def replace_all_the_time() -> None:
        while not stop.is_set():
            reranker.joint.replace(weights)

    thread = threading.Thread(target=replace_all_the_time)
    thread.start()
    try:
        beside = time_in_turn({"score": score}, budget)["score"]
    finally:
        stop.set()
        thread.join()
    return {
        "prepare": milliseconds(alone["prepare"]),
        "serve": milliseconds(alone["serve"]) | {"longest_ms": 1e3 * float(alone["serve"].latencies.max())},
        "score_alone": milliseconds(alone["score"]) | {"longest_ms": 1e3 * float(alone["score"].latencies.max())},
        "score_beside_replace": milliseconds(beside) | {"longest_ms": 1e3 * float(beside.latencies.max())},
    }


def store_build(reranker: SplitReranker, texts: Sequence[str], checkpoint: Path, budget: Budget) -> dict[str, object]:
    """Building the items' store against one ``SentenceTransformer.encode`` of the same texts."""
    with quiet_transformers():
        peer = SentenceTransformer(str(checkpoint), device="cpu", local_files_only=True)
    items, row_format = reranker.items, reranker.inputs.store.row_format

    def build() -> None:
        with tempfile.TemporaryDirectory() as folder:
            build_store(Path(folder) / "store", texts, items.version, row_format, items.read)

    def encode() -> None:
        peer.encode(list(texts), batch_size=32, show_progress_bar=False)

    timings = time_in_turn({"build": once(build), "encode": once(encode)}, budget)
    return {
        "texts": len(texts),
        "build_s": timings["build"].median,
        "encode_s": timings["encode"].median,
        "build_over_encode": str(median_ratio(timings["build"], timings["encode"])),
    }


def cached_against_uncached(
    reranker: SplitReranker, texts: Sequence[str], asked: Sequence[tuple[Requests, Candidates]], budget: Budget
) -> dict[str, object]:
    """Scores from the store against scores from texts read at request time, kept in float32 and run in torch.

    Args:
        reranker: With one joint layer.
        texts: Of every item.
        asked: Single requests and their candidates; the first is the one that is timed.
        budget: Of each measurement.
    """
    model = reranker.joint.model()
    differences, spreads, same_top = [], [], []
    for requests, candidates in asked:
        cached = reranker.score(requests, candidates)[0]
        fresh = uncached_score(reranker, model, texts, requests, candidates)[0]
        differences.append(float(np.abs(cached - fresh).max()))
        spreads.append(float(fresh.std()))
        same_top.append(set(np.argsort(-cached)[:10]) == set(np.argsort(-fresh)[:10]))
    one = asked[0]
    timings = time_in_turn(
        {
            "cached": once(lambda: reranker.score(*one)),
            "uncached": once(lambda: uncached_score(reranker, model, texts, *one)),
        },
        budget,
    )
    return {
        "requests": len(asked),
        "largest_difference": max(differences),
        "mean_deviation_of_a_request": float(np.mean(spreads)),
        "same_top_10": float(np.mean(same_top)),
        "cached": milliseconds(timings["cached"]),
        "uncached": milliseconds(timings["uncached"]),
        "uncached_over_cached": str(median_ratio(timings["uncached"], timings["cached"])),
    }


@torch.inference_mode()
def uncached_score(
    reranker: SplitReranker, model: JointModel, texts: Sequence[str], requests: Requests, candidates: Candidates
) -> NDArray[np.float32]:
    """Logits (1, K) of one request with a single joint layer, from its items' texts."""
    whole = reranker.inputs.read(requests, candidates).tensors()
    events = newest_events(requests.histories, reranker.joint.shape.max_events)[0]
    occurring = np.unique(np.concatenate([candidates.items.ravel(), events.ravel()]))
    rows = exact_rows(reranker, [texts[item] for item in occurring if item != NO_ITEM])
    whole["rows"] = torch.cat([torch.zeros_like(rows[:1]), rows])  # in the order in which the inputs number them
    logits: NDArray[np.float32] = model(**whole).numpy()
    return logits


def exact_rows(reranker: SplitReranker, texts: Sequence[str]) -> torch.Tensor:
    """What the store keeps of texts (T, width), before it is rounded to float16."""
    items, shape = reranker.items, reranker.joint.shape
    rows = torch.empty(len(texts), packed_width(shape.layer))
    for batch in items.encoder.read(texts, shape.lower_layers):
        lengths = torch.from_numpy(np.minimum(batch.lengths, shape.max_tokens))
        states = torch.from_numpy(batch.states[:, : int(lengths.max())])
        real = torch.arange(states.shape[1]) < lengths[:, None]
        pooled = (states * real[..., None]).sum(1) / real.sum(1, keepdim=True)
        item = folded_first(items.folding, states, real)
        rows[torch.from_numpy(batch.rows)] = packed(states[:, 0], item, pooled, torch.float32)
    return rows


def flops(shape: JointShape, candidates: int, events: int) -> int:
    """Floating-point operations of one request with one joint layer, products alone, two for each multiply-add.

    With d the state's length, i the feed-forward width, f the factors, F the features, D the units that read these
    together, K candidates and M events: K · (2fd + 4d² + 4di + 4Md + 2d + 2d + 2F + 2FD + 2D), which are its own
    factors, its shifted query and the attended projection, the feed-forward part, logits and values of the events, the
    item's own value, the head and the retrieval scores; and M · (4d² + 2fd), which are the events' keys, values and
    factors.
    """
    d, i, f = shape.layer.dim, shape.layer.inner, shape.factors
    of_features = 2 * shape.features * (1 + DEEP) + 2 * DEEP
    of_candidate = 2 * f * d + 4 * d * d + 4 * d * i + 4 * events * d + 4 * d + of_features
    return candidates * of_candidate + events * (4 * d * d + 2 * f * d)


def traffic(shape: JointShape, weights: Mapping[str, torch.Tensor], candidates: int, events: int) -> int:
    """Bytes that one request cannot do without: each input read once, each weight read once, each logit written."""
    row = 2 * packed_width(shape.layer) + 4 * shape.factors
    inputs = candidates * (row + 4 * shape.features) + events * row
    return inputs + sum(4 * tensor.numel() for tensor in weights.values()) + 4 * candidates


def roofline(
    reranker: SplitReranker, requests: Requests, every: Mapping[int, Candidates], budget: Budget
) -> list[dict[str, object]]:
    """The time that the machine's own rates would allow a request, and the share of it that is reached.

    Args:
        reranker: With one joint layer.
        requests: One request.
        every: Number of candidates → its candidates.
        budget: Of each measurement.
    """
    shape, weights = reranker.joint.shape, reranker.joint.weights
    events = int(min(requests.histories.lengths[0], shape.max_events))
    source, target = np.ones(COPIED // 8), np.empty(COPIED // 8)
    square = torch.rand(SIDE, SIDE)
    runs = {"copy": once(lambda: np.copyto(target, source)), "product": once(lambda: square @ square)}
    for count, candidates in every.items():
        inputs = reranker.inputs.read(requests, candidates)
        runs[f"joint {count}"] = once(lambda inputs=inputs: reranker.joint.score(inputs))
        runs[f"score {count}"] = once(lambda asked=candidates: reranker.score(requests, asked))
    timings = time_in_turn(runs, budget)
    memory_rate = 2 * COPIED / timings["copy"].median
    product_rate = 2 * SIDE**3 / timings["product"].median
    rows: list[dict[str, object]] = []
    for count in every:
        work, moved = flops(shape, count, events), traffic(shape, weights, count, events)
        bound = max(work / product_rate, moved / memory_rate)
        rows.append(
            {
                "candidates": count, "events": events, "mflop": work / 1e6, "mb": moved / MB,
                "product_gflops": product_rate / 1e9, "copy_gb_s": memory_rate / 1e9,
                "compute_ms": 1e3 * work / product_rate, "memory_ms": 1e3 * moved / memory_rate,
                "joint_ms": 1e3 * timings[f"joint {count}"].median,
                "score_ms": 1e3 * timings[f"score {count}"].median,
                "joint_share": bound / timings[f"joint {count}"].median,
                "score_share": bound / timings[f"score {count}"].median,
            }
        )  # fmt: skip
    return rows


def milliseconds(timings: Timings) -> dict[str, object]:
    """The percentiles of a measurement."""
    return {"runs": len(timings.latencies)} | {f"p{p}_ms": 1e3 * timings.percentile(p) for p in (50, 95, 99)}
