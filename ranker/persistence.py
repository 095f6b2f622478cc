"""Engines on disk: which part of an engine lies in which file of a version.

config.yaml  catalogue.parquet
training.json  calibrations.json: the former is missing where the engine has none
users/       the log that the engine was fitted on: its users, how their ids are found, and their histories
encoder/     the text encoder: a Hugging Face checkpoint, or its ONNX export
fusion.json  sources/als/  sources/text/  …: a folder for each source in use
lasting.json the sources' weights in the view of lasting taste; missing where the engine has no such view
reranker/    gain.json and the cross-encoder's own files; missing where the engine has none
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from encoders import Encoder, OnnxTextEncoder, TextEncoder, is_export
from encoders.errors import ArtifactError, ConfigError, InputError
from ranker.artifact import MANIFEST, open_version, remove_others, write_version
from ranker.calibration import UNMEASURED, Calibrations
from ranker.config import EngineConfig
from ranker.engine import Engine
from ranker.feedback import EventLog, FeedbackLog
from ranker.lasting import lasting_views
from ranker.learning.versions import FOLDER, base_of, learned_of
from ranker.pair.reranker import PairReranker
from ranker.reranker import CrossEncoderReranker, Gains, KeepOrder, Reranker
from ranker.sources import load_sources, save_sources
from ranker.split.reranker import SplitReranker
from ranker.users import USERS, load_interactions, save_interactions
from retrieval.candidates import Source
from retrieval.catalogue import Catalogue
from retrieval.fusion import FusedRetriever, FusionConfig
from retrieval.ids import Ids
from retrieval.storage import load_settings, save_settings
from retrieval.training import TrainingReport

LOG = "feedback.sqlite"
CALIBRATIONS = "calibrations.json"


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Weights:
    """How a fusion weighs its sources, see ``FusedRetriever``, and the newest logged event that they were fitted on."""

    weights: Mapping[str, float]
    short: Mapping[int, Mapping[str, float]]
    until: int = 0


def save_engine(engine: Engine, root: Path) -> Path:
    """See ``Engine.save``."""

    def write(folder: Path) -> None:
        engine.config.to_yaml(folder / "config.yaml")
        engine.catalogue.frame.to_parquet(folder / "catalogue.parquet")
        if engine.training is not None:
            save_settings(engine.training, folder / "training.json")
        save_settings(engine.calibrations, folder / CALIBRATIONS)
        save_interactions(engine.users.base, _new(folder / USERS))
        engine.encoder.save(_new(folder / "encoder"))
        for name, fused in {"fusion.json": engine.retriever, "lasting.json": engine.lasting}.items():
            if fused is not None:
                save_settings(Weights(fused.weights, fused.short, engine.views.until), folder / name)
        save_sources(engine.retriever.sources, folder / "sources")
        if isinstance(engine.reranker, CrossEncoderReranker):
            gains = Gains(engine.reranker.gain, engine.reranker.query_gain)
            save_settings(gains, _new(folder / "reranker") / "gain.json")
            engine.reranker.save(folder / "reranker")

    # a site's own store of feedback stays its store
    elsewhere = isinstance(engine.log, FeedbackLog) and Path(engine.log.path).resolve() != (root / LOG).resolve()
    if elsewhere and (root / LOG).exists():
        with closing(FeedbackLog(root / LOG)) as there:  # before a version is written that could not have its log
            there.check(engine.log.read())
    version = write_version(root, write)
    # A served model is copied from the files that it was loaded from, and later saves prune those of older versions.
    if isinstance(engine.encoder, OnnxTextEncoder):
        engine.encoder = OnnxTextEncoder.load(version / "encoder")
    if isinstance(engine.reranker, CrossEncoderReranker) and engine.reranker.from_files:
        engine.reranker = _load_reranker(version / "reranker", engine.encoder, engine.catalogue, engine.config)
    engine.version, engine.folder = version.name, root
    engine.saved_views, engine.learned = engine.views, None
    if isinstance(engine.log, FeedbackLog) and elsewhere:
        before, log = engine.log, FeedbackLog(root / LOG)
        engine.intake.move_to(log)
        log.refuse_as(before)
    return version


def erase(engine: Engine, root: Path, user_ids: Ids) -> int:
    """Delete these users from an engine and from its folder, where nothing tells of them afterwards.

    A crash on the way leaves an engine that tells of none of them, in a folder that may hold an older version which
    does; erasing again ends it.

    Returns:
        How many events of the log were deleted.

    Raises:
        InputError: A user's id is of another kind than the known ones, or given twice.
        ArtifactError: The disk refused.
    """
    deleted = engine.forget(user_ids)
    save_engine(engine, root)
    remove_others(root)
    if isinstance(engine.log, FeedbackLog):
        engine.log.all_forgotten()
    return deleted


def fingerprint(engine: Engine) -> str:
    """SHA-256 of what the manifests of a saved engine's version say, those of what was learned included."""
    if engine.folder is None:
        raise InputError("This engine is not saved. Save it to a folder first.")
    learned = learned_of(engine)
    folders = [engine.folder / base_of(engine), *([] if learned is None else [engine.folder / FOLDER / learned])]
    digest = hashlib.sha256()
    for folder in folders:
        digest.update((folder / MANIFEST).read_bytes())
    return digest.hexdigest()


def load_engine(root: Path | str, log: EventLog | None = None) -> Engine:
    """Load the serving version of a saved engine, and the feedback log beside it.

    Arrays stay memory-mapped.

    Args:
        root: Its folder.
        log: A site's own store of feedback, in place of the log beside it.

    Raises:
        ArtifactError: A file is missing, damaged, or of a newer format; the message names it.
    """
    root = Path(root)
    folder = open_version(root)
    try:
        config = EngineConfig.from_yaml(folder / "config.yaml")
        catalogue = Catalogue(pd.read_parquet(folder / "catalogue.parquet"))
    except (ConfigError, pa.ArrowException, OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ArtifactError(f"{folder}: {reason}. Restore it from a backup, or fit the engine again.") from error
    training, calibrations = folder / "training.json", folder / CALIBRATIONS
    encoder = _load_encoder(folder / "encoder", config)
    retriever = _load_retriever(folder, config, len(catalogue))
    engine = Engine(
        catalogue=catalogue,
        interactions=load_interactions(folder / USERS, len(catalogue)),
        encoder=encoder,
        retriever=retriever,
        lasting=_load_lasting(folder / "lasting.json", retriever),
        reranker=_load_reranker(folder / "reranker", encoder, catalogue, config),
        config=config,
        training=load_settings(TrainingReport, training) if training.exists() else None,
        calibrations=load_settings(Calibrations, calibrations) if calibrations.exists() else UNMEASURED,
        sources_until=load_settings(Weights, folder / "fusion.json").until,
        version=folder.name,
        folder=root,
        log=FeedbackLog(root / LOG) if log is None else log,  # opened once all else could be read
    )
    engine.refresh()
    return engine


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _load_encoder(folder: Path, config: EngineConfig) -> Encoder:
    return OnnxTextEncoder.load(folder) if is_export(folder) else TextEncoder.load(folder, config.encoder)


def _load_retriever(folder: Path, config: EngineConfig, n_items: int) -> FusedRetriever:
    sources = load_sources(config.sources, folder / "sources", n_items)
    return _fused(folder / "fusion.json", sources, config.fusion)


def _load_lasting(path: Path, retriever: FusedRetriever) -> FusedRetriever | None:
    return _fused(path, lasting_views(retriever.sources), retriever.config) if path.exists() else None


def _fused(path: Path, sources: dict[str, Source], config: FusionConfig) -> FusedRetriever:
    """Sources with the weights in a file."""
    kept = load_settings(Weights, path)
    try:
        return FusedRetriever(sources, kept.weights, config, kept.short)
    except InputError as error:
        raise ArtifactError(f"{path}: {' '.join(str(error).split())} Fit the engine again.") from error


def _load_reranker(folder: Path, encoder: Encoder, catalogue: Catalogue, config: EngineConfig) -> Reranker:
    if not folder.is_dir():
        return KeepOrder()
    gains = load_settings(Gains, folder / "gain.json")
    if config.rerank.kind == "pair":
        return PairReranker.load(folder, catalogue, config.rerank.pair, gains.histories)
    if not isinstance(encoder, TextEncoder | OnnxTextEncoder):
        raise ArtifactError(f"{folder}: needs an encoder that gives token states. Save the engine again.")
    reranker = SplitReranker.load(folder, encoder, config.rerank.split.depth, gains.histories, gains.queries)
    if reranker.inputs.store.n_items != len(catalogue):
        raise ArtifactError(
            f"{folder}: holds the states of {reranker.inputs.store.n_items} items, but the catalogue has "
            f"{len(catalogue)}. Restore the folder from a backup, or fit the engine again."
        )
    return reranker
