"""Encoding a catalogue: the exported encoder beside sentence-transformers, on the same texts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bench.scale.part import Asked, Told
from bench.sites import small_checkpoint
from bench.timing import Budget, Ratio, Timings, elapsed, median_ratio, time_in_turn
from encoders import DEFAULT_CHECKPOINT, ExportReport, OnnxTextEncoder, TextEncoder, export_text_encoder
from ranker.data import load_movielens
from ranker.data.movielens import MovieLensName
from ranker.tasks import retrieval_task
from retrieval.catalogue import Catalogue
from retrieval.interactions import Interactions

OURS, PEER = "this library", "sentence-transformers"
PEER_BATCHES = (32, 128)  # its default, and a larger one
JOINED = 6  # films whose texts make a long one, on average


@dataclass(frozen=True, slots=True)
class Encoded:
    """What was measured.

    Attributes:
        timings: (Kind of texts, who) → seconds of a run over all texts.
        texts: Kind of texts → how many, and their mean number of tokens.
        report: What the export lost.
    """

    timings: dict[tuple[str, str], Timings]
    texts: dict[str, tuple[int, float]]
    report: ExportReport

    def ratio(self, kind: str, peer: str) -> Ratio:
        """How many times as many texts a second this library encodes."""
        return median_ratio(self.timings[kind, peer], self.timings[kind, OURS])


def measured(asked: Asked) -> Told:
    """Texts a second, beside sentence-transformers."""
    name, count = ("ml-100k", 64) if asked.tiny else ("ml-1m", 3_072)
    checkpoint = small_checkpoint(asked.folder / "checkpoint") if asked.tiny else DEFAULT_CHECKPOINT
    found = encoding(asked.folder, name, asked.data, checkpoint, count, asked.budget)
    rows = [
        {
            "texts": kind, "tokens, mean": found.texts[kind][1], "system": name,
            "texts a second": found.texts[kind][0] / timings.median,
            "this library against it": str(found.ratio(kind, name)) if name != OURS else "",
        }
        for (kind, name), timings in found.timings.items()
    ]  # fmt: skip
    protocol = f"all-MiniLM-L6-v2, on all cores, all texts in each run. The export: {found.report}"
    return Told("Encoding a catalogue", protocol, rows, {"report": asdict(found.report)})


def encoding(folder: Path, name: MovieLensName, data: Path, checkpoint: str, count: int, budget: Budget) -> Encoded:
    """Encode so many texts of two lengths by each, in turn, on all cores.

    Args:
        folder: An empty one, for the export.
        name: The data set whose texts are read.
        data: Where it is kept.
        checkpoint: Of the encoder.
        count: Short texts; of long ones there are a quarter.
        budget: Of each.
    """
    from sentence_transformers import SentenceTransformer

    logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
    paths = load_movielens(name, data)
    catalogue = Catalogue(pd.read_parquet(paths.items))
    log = Interactions.from_frame(pd.read_parquet(paths.interactions), catalogue)
    original = TextEncoder.load(checkpoint)
    task = retrieval_task(log.histories.liked(), catalogue, np.random.default_rng(0))
    report = export_text_encoder(original, task, folder / "encoder")
    encoder = OnnxTextEncoder.load(folder / "encoder")
    peer = SentenceTransformer(original.model.config._name_or_path, device="cpu")
    kinds = {"titles and genres": catalogue.texts[:count], "descriptions": _joined(catalogue.texts, count // 4)}
    systems = {OURS: encoder.encode}
    for size in PEER_BATCHES:
        systems[f"{PEER}, batches of {size}"] = lambda texts, size=size: peer.encode(texts, batch_size=size)
    runs = {
        (kind, name): lambda number, texts=texts, call=call: [elapsed(lambda: call(texts))]
        for kind, texts in kinds.items()
        for name, call in systems.items()
    }
    with torch.inference_mode():
        timings = time_in_turn(runs, budget)
    return Encoded(timings, {kind: (len(texts), _tokens(encoder, texts)) for kind, texts in kinds.items()}, report)


def _joined(texts: Sequence[str], count: int) -> list[str]:
    """Texts as long as descriptions are: several films' one after another."""
    rng = np.random.default_rng(0)
    return [
        " ".join(texts[at] for at in rng.integers(len(texts), size=rng.geometric(1 / JOINED))) for _ in range(count)
    ]


def _tokens(encoder: OnnxTextEncoder, texts: Sequence[str]) -> float:
    return float(np.mean(np.concatenate([each.attention_mask.sum(1) for each in encoder.tokens.text_batches(texts)])))
