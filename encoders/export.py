"""Exports: torch to ONNX at the lowest precision that passes the gate, whole or not at all."""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import onnx
import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from encoders.batching import TextTokenizer, TokenBatch
from encoders.calibration import measure_channels
from encoders.checkpoint import file_sha256
from encoders.errors import ArtifactError, ExportError, InputError
from encoders.gate import RankingGate, RetrievalGate, Verdict
from encoders.graph import PairLogit, PooledStates, PooledText, fuse, trace
from encoders.pair import PairCrossEncoder
from encoders.quantization import Precision, at_precision
from encoders.report import ExportReport, PrecisionReport
from encoders.served import (
    LOGIT,
    MANIFEST,
    MODEL,
    STATES,
    TOKENIZER,
    VECTOR,
    ExportManifest,
    Kind,
    OnnxPairCrossEncoder,
    OnnxTextEncoder,
    write_manifest,
)
from encoders.session import OnnxSession, open_session
from encoders.tasks import RankingTask, RetrievalTask
from encoders.text import TextEncoder

logger = logging.getLogger(__name__)

T = TypeVar("T")

CALIBRATION_ROWS = 512  # texts or pairs on which the channels are measured for int8


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ExportConfig:
    """Settings of an export.

    Attributes:
        precisions: tried in this order, the first that passes is kept; "auto" is int8 then fp32 on CPU, fp16
            then fp32 where CUDA is present.
        k: cut-off of recall and NDCG on a retrieval task.
        tolerance: largest accepted loss of a metric, as a share of the original's value.
        seed: of the bootstrap.
    """

    precisions: Literal["auto"] | Annotated[tuple[Precision, ...], Field(min_length=1)] = "auto"
    k: Annotated[int, Field(ge=1)] = 10
    tolerance: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.01
    seed: int = 0

    @property
    def order(self) -> tuple[Precision, ...]:
        """The precisions to try on this machine."""
        if self.precisions != "auto":
            return self.precisions
        return ("fp16", "fp32") if torch.cuda.is_available() else ("int8", "fp32")


DEFAULTS = ExportConfig()


def export_text_encoder(
    encoder: TextEncoder,
    task: RetrievalTask,
    folder: str | Path,
    config: ExportConfig = DEFAULTS,
    lower_layers: int | None = None,
) -> ExportReport:
    """Export a text encoder to a folder that `OnnxTextEncoder.load` reads.

    Args:
        encoder: the original; it is left unchanged.
        task: real texts of the catalogue, on which the export is judged.
        folder: written whole or not at all; an earlier export there is replaced.
        config: the settings.
        lower_layers: layers after which the graph gives token states too, for `OnnxTextEncoder.read`; None leaves
            them out.

    Returns:
        The report, which is also in the folder.

    Raises:
        ConfigError: the model has fewer layers.
        ExportError: every precision lost more than the tolerance.
        InputError: the folder holds something else, or the task cannot judge this encoder.
    """
    gate = RetrievalGate(encoder, task, config.k, config.tolerance, config.seed)

    def judge(session: OnnxSession, manifest: ExportManifest) -> Verdict:
        return gate.judge(OnnxTextEncoder(session, encoder.tokens, manifest))

    with _replaced(Path(folder)) as draft:
        inputs = ("input_ids", "attention_mask")
        if lower_layers is None:
            trace(PooledText(encoder.model, encoder.pooling), inputs, {VECTOR: 1}, draft / "traced")
        else:
            encoder.check_layers(lower_layers)
            module = PooledStates(encoder.model, encoder.pooling, lower_layers)
            trace(module, inputs, {VECTOR: 1, STATES: 2}, draft / "traced")
        fused = fuse(draft / "traced", encoder.model.config)
        sample = encoder.tokens.text_batches(_sample(task.documents))
        shape = _Shape("text_encoder", encoder.dim, lower_layers)
        return _export(fused, shape, encoder.tokens, sample, judge, draft, config)


def export_pair_cross_encoder(
    cross_encoder: PairCrossEncoder,
    task: RankingTask,
    folder: str | Path,
    config: ExportConfig = DEFAULTS,
) -> ExportReport:
    """Export a pair cross-encoder to a folder that `OnnxPairCrossEncoder.load` reads.

    Args:
        cross_encoder: the original; it is left unchanged.
        task: real lists of pairs, on which the export is judged.
        folder: written whole or not at all; an earlier export there is replaced.
        config: the settings.

    Returns:
        The report, which is also in the folder.

    Raises:
        ExportError: every precision lost more than the tolerance.
        InputError: the folder holds something else, or the task cannot judge this cross-encoder.
    """
    gate = RankingGate(cross_encoder, task, config.tolerance, config.seed)

    def judge(session: OnnxSession, manifest: ExportManifest) -> Verdict:
        return gate.judge(OnnxPairCrossEncoder(session, cross_encoder.tokens, manifest))

    with _replaced(Path(folder)) as draft:
        trace(PairLogit(cross_encoder.model), cross_encoder.inputs, {LOGIT: 1}, draft / "traced")
        fused = fuse(draft / "traced", cross_encoder.model.config)
        sample = cross_encoder.tokens.pair_batches(_sample(task.pairs))
        shape = _Shape("pair_cross_encoder", 1, None)
        return _export(fused, shape, cross_encoder.tokens, sample, judge, draft, config)


@dataclass(frozen=True)
class _Shape:
    kind: Kind
    dim: int
    lower_layers: int | None


def _export(
    fused: onnx.ModelProto,
    shape: _Shape,
    tokens: TextTokenizer,
    sample: Iterable[TokenBatch],
    judge: Callable[[OnnxSession, ExportManifest], Verdict],
    draft: Path,
    config: ExportConfig,
) -> ExportReport:
    (draft / "traced").unlink()
    tokens.save(str(draft / TOKENIZER))
    channels = measure_channels(fused, sample) if "int8" in config.order else {}
    full_size = fused.ByteSize()
    tried: list[PrecisionReport] = []
    for precision in config.order:
        path = draft / MODEL
        onnx.save(at_precision(fused, precision, channels), str(path))

        def manifest(report: ExportReport, path: Path = path) -> ExportManifest:
            hashes = {name: file_sha256(draft / name) for name in (MODEL, TOKENIZER)}
            limits = (tokens.max_tokens, tokens.batch_size, tokens.pad_id)
            return ExportManifest(shape.kind, shape.dim, *limits, report, hashes, shape.lower_layers)

        unjudged = ExportReport(precision, config.tolerance, ())
        verdict = judge(open_session(path), manifest(unjudged))
        size = path.stat().st_size
        tried.append(
            PrecisionReport(precision, verdict.passed, verdict.changes, verdict.agreement, size, size / full_size)
        )
        logger.debug("%s", tried[-1])
        if verdict.passed:
            report = ExportReport(precision, config.tolerance, tuple(tried))
            write_manifest(draft, manifest(report))
            return report
    figures = "; ".join(" ".join(str(row).split()) for row in tried)
    raise ExportError(
        f"No precision kept within {config.tolerance:.1%} of the original: {figures}. "
        "Allow fp32, raise the tolerance, or judge on more queries."
    )


def _sample(rows: Sequence[T]) -> Sequence[T]:
    """At most CALIBRATION_ROWS rows, evenly spaced."""
    return rows[:: -(-len(rows) // CALIBRATION_ROWS)]


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """A draft folder beside `folder` that takes its place once the block ends well."""
    if folder.exists() and not (folder / MANIFEST).is_file() and (folder.is_file() or any(folder.iterdir())):
        raise InputError(f"{folder} holds something that is no export: pass a new or an empty folder.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise ArtifactError(f"{folder}: cannot be made ({error.strerror}). Choose another folder.") from error
    try:
        yield draft
        draft.chmod(0o755)  # mkdtemp makes a folder that only its owner can read
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
            os.replace(folder, old)
            os.replace(draft, folder)
            shutil.rmtree(old)
        else:
            os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
