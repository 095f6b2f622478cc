"""Exports: the engine's two transformers as quantized ONNX, each judged on the site's own texts and rankings."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from encoders import (
    ExportReport,
    OnnxPairCrossEncoder,
    OnnxTextEncoder,
    PairCrossEncoder,
    TextEncoder,
    export_pair_cross_encoder,
    export_text_encoder,
)
from encoders.errors import InputError, TaskError
from ranker.engine import Engine
from ranker.pair.reranker import PairReranker
from ranker.persistence import load_engine, save_engine
from ranker.split.reranker import SplitReranker
from ranker.successors import successor
from ranker.tasks import ranking_task, retrieval_task
from retrieval.text import TextRetriever

logger = logging.getLogger(__name__)


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

    What serves from ONNX already, as the split cross-encoder and the encoder that it was trained on do, is kept.

    Raises:
        ExportError: No precision passed; the message holds the figures. Nothing is written then.
        ArtifactError: The folder holds something else, or the disk refused.
        InputError: The log is too thin to judge an export on, or tells nothing of it. Nothing is written then.
    """
    histories = engine.users.histories(engine.users.ids).liked()
    rng = np.random.default_rng(engine.config.seed)
    reports: dict[str, ExportReport] = {}
    views, reranker = engine.views, engine.reranker
    with tempfile.TemporaryDirectory() as temporary:
        encoder = engine.encoder
        if isinstance(encoder, TextEncoder):
            logger.info("Exporting the text encoder.")
            target = Path(temporary) / "encoder"
            task = retrieval_task(histories, engine.catalogue, rng)
            lower = reranker.items.shape.lower_layers if isinstance(reranker, SplitReranker) else None
            with _judged_on_the_log("text encoder"):
                export_text_encoder(encoder, task, target, engine.config.export, lower)
            encoder = OnnxTextEncoder.load(target)
            if "text" in views.next.sources:
                vectors = encoder.encode(engine.catalogue.texts, progress=True)
                text = TextRetriever.fit(vectors, engine.config.text, engine.config.seed)
                views = views.over({"text": text}, views.until)
            if isinstance(reranker, SplitReranker):
                reranker = reranker.read_by(encoder, engine.catalogue.texts, Path(temporary) / "states")
        if isinstance(encoder, OnnxTextEncoder):
            reports["encoder"] = encoder.manifest.report
        if isinstance(reranker, PairReranker) and isinstance(reranker.cross_encoder, PairCrossEncoder):
            logger.info("Exporting the cross-encoder.")
            target = Path(temporary) / "cross_encoder"
            lists = ranking_task(histories, engine.retriever, reranker, rng)
            with _judged_on_the_log("cross-encoder"):
                export_pair_cross_encoder(reranker.cross_encoder, lists, target, engine.config.export)
            served = OnnxPairCrossEncoder.load(target)
            reranker = PairReranker(served, reranker.texts, reranker.depth, reranker.blend, reranker.gain)
        if isinstance(reranker, PairReranker) and isinstance(reranker.cross_encoder, OnnxPairCrossEncoder):
            reports["cross_encoder"] = reranker.cross_encoder.manifest.report
        # the gate keeps scores near what their calibration was fitted on
        exported = successor(engine, engine.catalogue, encoder, views, reranker)
        save_engine(exported, Path(folder))
    engine = load_engine(folder)
    logger.info(
        "Serving %s.",
        ", ".join(f"the {part.replace('_', '-')} in {report.chosen}" for part, report in reports.items()),
    )
    return EngineExport(engine, reports)


@contextmanager
def _judged_on_the_log(part: str) -> Iterator[None]:
    """A task that tells nothing of a model was made from the log here: its caller can only change the log."""
    try:
        yield
    except TaskError as error:
        raise InputError(
            f"No export of the {part} can be judged: on this log the {part} itself finds nothing of what users took "
            "next, and an export that nothing vouches for is not served. Serve the engine as it is, or export again "
            "when items' texts say what they are and more feedback has come."
        ) from error
