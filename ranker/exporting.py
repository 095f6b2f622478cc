"""Exports: the engine's two transformers as quantized ONNX, each judged on the site's own texts and rankings."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from encoders import (
    ExportReport,
    OnnxPairCrossEncoder,
    OnnxTextEncoder,
    PairCrossEncoder,
    RankingTask,
    RetrievalTask,
    TextEncoder,
    export_pair_cross_encoder,
    export_text_encoder,
)
from encoders.errors import ConfigError, InputError
from ranker.engine import Engine
from ranker.persistence import load_engine, save_engine
from ranker.reranker import PairReranker
from ranker.users import UserHistories
from retrieval.candidates import Requests
from retrieval.catalogue import Catalogue
from retrieval.histories import Histories
from retrieval.text import TextRetriever

logger = logging.getLogger(__name__)

MAX_DOCUMENTS = 20_000  # item texts that the gate searches
MAX_QUERIES = 1_000
MAX_LISTS = 100


@dataclass(frozen=True)
class EngineExport:
    """What an export made: the engine that serves from it, and the gates' figures by part."""

    engine: Engine
    reports: dict[str, ExportReport]

    @property
    def gates(self) -> pd.DataFrame:
        """One row per part, tried precision and metric: what it was, what it became, and whether that passed."""
        return pd.DataFrame(
            [
                {
                    "part": part,
                    "precision": tried.precision,
                    "passed": tried.passed,
                    "metric": change.name,
                    "original": change.original,
                    "exported": change.exported,
                    "loss": change.loss,
                    "loss_low": change.low,
                    "loss_high": change.high,
                    "megabytes": tried.bytes / 1e6,
                }
                for part, report in self.reports.items()
                for tried in report.tried
                for change in tried.changes
            ]
        )


def export(engine: Engine, folder: Path | str) -> EngineExport:
    """Write the engine, its transformers as ONNX, as a new version of ``folder``, and load it.

    Each transformer gets the first precision of ``config.export`` that its gate lets pass: the text encoder is judged
    by how well an item's text finds what its users took next, the cross-encoder by its order of real candidate lists.
    Items are encoded anew with the exported encoder, so that items and queries are read by the same model.

    Raises:
        ConfigError: The engine serves from ONNX already.
        ExportError: No precision passed; the message holds the figures. Nothing is written then.
        ArtifactError: The folder holds something else, or the disk refused.
        InputError: The log is too thin to judge an export on.
    """
    if not isinstance(engine.encoder, TextEncoder):
        raise ConfigError("This engine serves from ONNX already; export the one that was fitted.")
    histories = engine.users.histories(engine.users.ids).liked()
    rng = np.random.default_rng(engine.config.seed)
    reports = {}
    retriever, reranker = engine.retriever, engine.reranker
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(temporary) / "encoder"
        logger.info("Exporting the text encoder.")
        task = retrieval_task(histories, engine.catalogue, rng)
        reports["encoder"] = export_text_encoder(engine.encoder, task, target, engine.config.export)
        encoder = OnnxTextEncoder.load(target)
        if "text" in retriever.sources:
            vectors = encoder.encode(engine.catalogue.texts, progress=True)
            text = TextRetriever.fit(vectors, engine.config.text, engine.config.seed)
            retriever = retriever.replacing("text", text)
        if isinstance(reranker, PairReranker) and isinstance(reranker.cross_encoder, PairCrossEncoder):
            logger.info("Exporting the cross-encoder.")
            target = Path(temporary) / "cross_encoder"
            lists = ranking_task(histories, engine, reranker, rng)
            reports["cross_encoder"] = export_pair_cross_encoder(
                reranker.cross_encoder, lists, target, engine.config.export
            )
            served = OnnxPairCrossEncoder.load(target)
            reranker = PairReranker(served, reranker.texts, reranker.depth, reranker.blend)
        exported = Engine(
            catalogue=engine.catalogue,
            users=UserHistories(engine.users.base),  # an engine lays the log's events over it
            encoder=encoder,
            retriever=retriever,
            reranker=reranker,
            log=engine.log,
            config=engine.config,
            training=engine.training,
        )
        save_engine(exported, Path(folder))
    engine = load_engine(folder)
    logger.info(
        "Serving %s.",
        ", ".join(f"the {part.replace('_', '-')} in {report.chosen}" for part, report in reports.items()),
    )
    return EngineExport(engine, reports)


def retrieval_task(histories: Histories, catalogue: Catalogue, rng: np.random.Generator) -> RetrievalTask:
    """Real queries for the text encoder: items that users took, each with what its users took next.

    Raises:
        InputError: No user has two events.
    """
    followed = np.flatnonzero(np.diff(histories.rows) == 0)  # events with a later one in the same row
    if not len(followed):
        raise InputError("No user has two positive events, so no export of the text encoder can be judged. Add events.")
    items = np.arange(len(catalogue))
    if len(items) > MAX_DOCUMENTS:
        items = np.sort(rng.permutation(items)[:MAX_DOCUMENTS])
    position = np.full(len(catalogue), -1)
    position[items] = np.arange(len(items))
    query, answer = position[histories.items[followed]], position[histories.items[followed + 1]]
    same_text = pd.factorize(np.array(catalogue.texts, dtype=object))[0]
    other = same_text[histories.items[followed]] != same_text[histories.items[followed + 1]]
    kept = (query >= 0) & (answer >= 0) & other
    matrix = sparse.csr_array(
        (np.ones(kept.sum(), np.bool_), (query[kept], answer[kept])), shape=(len(items), len(items))
    )
    matrix.sum_duplicates()
    asked = rng.permutation(np.flatnonzero(np.diff(matrix.indptr)))[:MAX_QUERIES]
    if not len(asked):
        raise InputError("No two items follow each other in the log, so no export of the text encoder can be judged.")
    texts = catalogue.texts
    return RetrievalTask(
        queries=tuple(texts[items[row]] for row in asked),
        documents=tuple(texts[item] for item in items),
        relevant=matrix[asked],
    )


def ranking_task(histories: Histories, engine: Engine, reranker: PairReranker, rng: np.random.Generator) -> RankingTask:
    """Real rankings for the cross-encoder: users' candidates before their newest event, which is the relevant item."""
    rows = np.sort(rng.permutation(np.flatnonzero(histories.lengths > 1))[:MAX_LISTS])
    newest = histories.indptr[rows + 1] - 1
    chosen = histories.items[newest]
    requests = Requests(histories.before(newest), np.ones(len(engine.catalogue), np.bool_))
    items = engine.retriever.retrieve(requests, max(2, reranker.depth)).items
    missed = ~(items == chosen[:, None]).any(axis=1)
    items[missed, -1] = chosen[missed]  # the last place goes to the chosen item where the sources missed it
    lists, relevant = [], []
    for context, row, item in zip(reranker.texts.contexts(requests), items, chosen, strict=True):
        known = row[row >= 0]
        lists.append(tuple(reranker.texts.pairs(context, known)))
        relevant.append(known == item)
    return RankingTask(tuple(lists), tuple(relevant))
