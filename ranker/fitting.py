"""Fitting: from a log and a catalogue to a whole engine, without letting any part see what it is judged on."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from encoders import OnnxTextEncoder, StateEncoder, TextEncoder, export_text_encoder
from encoders.errors import ConfigError, TaskError
from encoders.gate import RetrievalGate
from ranker.calibration import UNMEASURED, Calibrations, fit_calibration
from ranker.config import EngineConfig
from ranker.engine import Engine
from ranker.feedback import IN_MEMORY, FeedbackLog, checked_events
from ranker.feedback.labels import LabelledEvents, labelled_events
from ranker.held_out import held_out_lists
from ranker.lasting import fit_lasting
from ranker.lists import NOBODY, LabelledLists, Lessons, refused_lists
from ranker.pair.training import fit_pair
from ranker.reranker import NO_GAIN, CrossEncoderReranker, Judged, KeepOrder, Reranker
from ranker.sources import fit_sources
from ranker.split.fitting import check_split, fit_split, lower_layers
from ranker.split.inputs import collaborative
from ranker.split.queries import known_item_lists
from ranker.split.unfreezing import unfreeze
from ranker.tasks import retrieval_task
from ranker.temporary import remove_with, temporary_folder
from ranker.users import LoggedActs, UserHistories
from retrieval.als import AlsRetriever
from retrieval.candidates import Source
from retrieval.catalogue import Catalogue
from retrieval.ease import check_size
from retrieval.fusion import FusedRetriever
from retrieval.histories import Histories
from retrieval.interactions import Interactions
from retrieval.training import TrainingReport

logger = logging.getLogger(__name__)

NOTHING_FOUND = "Text search finds nothing of what users took next (do the items' texts say what they are?), so"


def fit(
    interactions: pd.DataFrame,
    items: pd.DataFrame,
    config: EngineConfig = EngineConfig(),
    *,
    feedback: pd.DataFrame | None = None,
    progress: bool = True,
) -> Engine:
    """Fit an engine.

    Each user's newest ``holdout`` events (of the re-ranker's training settings) are set aside, and all events of some
    users. Sources trained on the rest propose the lists that these users would have seen; from them the fusion weights
    are learned, the cross-encoder is fine-tuned, and, on lists of users that it did not see, it is decided whether it
    serves, and what the scores that are served mean as probabilities (``ranker.calibration``). The weights of the
    lasting view are learned in the same way from the newest part of the whole log (``config.lasting``). At last the
    sources are trained on everything.

    Args:
        interactions: ``user_id, item_id, weight, datetime``, one row per event; ``ranker.data.read_interactions``
            reads and checks a file. Unchanged.
        items: ``item_id, title, text`` and any attributes, one row per item. Unchanged.
        config: All settings.
        feedback: What users did since, as ``Engine.feedback`` takes it (``Engine.log.read()`` gives what an engine
            was told). All of it becomes part of the log, and ``config.feedback`` labels it 1 or 0. A pair
            cross-encoder is fine-tuned on each event; a split one on the newest positive ones, as on any of the log,
            and on each negative one as an item that should have lost its list. Unchanged.
        progress: Show progress bars where the output is a terminal.

    Raises:
        InputError: The tables cannot be used as they are; the message says where.
        ConfigError: A checkpoint does not suit its task, or the settings contradict each other.
        ArtifactError: A checkpoint cannot be found or read.
        ExtraError: A default checkpoint or a tracker is not installed.
    """
    catalogue = Catalogue(items)
    if "ease" in config.sources:
        check_size(len(catalogue), config.ease)
    log = Interactions.from_frame(interactions, catalogue)
    told = FeedbackLog(IN_MEMORY)
    if feedback is not None and len(feedback):
        told.append(checked_events(feedback, catalogue, log.users))
        log = UserHistories(log, LoggedActs(told, config.feedback, catalogue.ids)).merged()
    events = told.read()
    original = TextEncoder.load(config.checkpoint, config.encoder)
    if config.rerank.enabled and config.rerank.kind == "split":
        check_split(original, config.rerank)
    weights = given = _given_weights(config)
    original, seen = tuned_encoder(original, log.histories, catalogue, weights, config, progress)
    encoder = serving_encoder(original, log.histories, catalogue, config)
    logger.info("Encoding %d item texts.", len(catalogue))
    vectors = encoder.encode(catalogue.texts, progress=progress)

    reranker: Reranker = KeepOrder()
    training: TrainingReport | None = None
    calibrations = UNMEASURED
    earlier: Mapping[str, Source] = {}
    short: Mapping[int, Mapping[str, float]] = {}
    if config.rerank.enabled or weights is None:
        lists, proposer = held_out_lists(log.histories, vectors, weights, config)
        weights, short, earlier = proposer.weights, proposer.short, proposer.sources
        depth = config.rerank.chosen.depth
        judged: Judged | None = None
        if config.rerank.enabled:
            labelled = labelled_events(
                events, log, catalogue, config.feedback, config.rerank.chosen.training.max_feedback
            )
            reranker, training, judged = fit_reranker(
                lists, labelled, proposer, catalogue, original, encoder, config, progress, seen
            )
        calibrations = Calibrations(
            fit_calibration(lists, depth, None, config.seed, seen),
            None if judged is None else fit_calibration(lists, depth, judged, config.seed, seen),
        )
    logger.info("Fitting the sources on all %d events.", len(log.histories.items))
    sources = fit_sources(log.histories, vectors, config, progress, earlier)
    return Engine(
        catalogue=catalogue,
        interactions=log,
        encoder=encoder,
        retriever=FusedRetriever(sources, weights, config.fusion, short),
        lasting=fit_lasting(sources, log.histories, vectors, given, config),
        reranker=reranker,
        log=FeedbackLog(IN_MEMORY),
        config=config,
        training=training,
        calibrations=calibrations,
    )


def fit_reranker(
    lists: LabelledLists,
    labelled: LabelledEvents,
    proposer: FusedRetriever,
    catalogue: Catalogue,
    original: TextEncoder,
    encoder: StateEncoder,
    config: EngineConfig,
    progress: bool,
    seen: NDArray[np.int64],
) -> tuple[CrossEncoderReranker, TrainingReport, Judged]:
    """The cross-encoder that the settings ask for, and lists of the users whom it was judged on, not trained on.

    Args:
        lists: All held-out lists.
        labelled: Feedback to learn from, too.
        proposer: What proposed the lists.
        catalogue: The items.
        original: The encoder in torch.
        encoder: The one that serves.
        config: All settings.
        progress: Show bars.
        seen: Users on whose lists the encoder was tuned.

    Raises:
        ArtifactError: A checkpoint cannot be found or read.
        ConfigError: A checkpoint does not suit its task.
        InputError: There are too few lists, or training diverged.
    """
    rerank = config.rerank
    reranker: CrossEncoderReranker
    if rerank.kind == "split":
        refused = refused_lists(labelled.negative(), proposer, rerank.split.depth)
        lower = lower_layers(original, rerank.split)
        queried = known_item_lists(lists, proposer, encoder, lower, catalogue, rerank.split, config.seed)
        lessons = Lessons(lists, queried, refused)
        factors = collaborative_factors(proposer, len(catalogue))
        reranker, training, judged = fit_split(
            lessons, catalogue, original, encoder, factors, rerank, config.seed, progress, seen
        )
    else:
        reranker, training, judged = fit_pair(lists, labelled, catalogue, rerank.pair, config.seed, progress)
    for kind, gain in {"without": reranker.gain, "with": reranker.query_gain}.items():
        if gain is not NO_GAIN:
            logger.info(
                "On validation lists %s a query the cross-encoder adds %+.4f (standard error %.4f) to NDCG@10: its "
                "order %s.", kind, gain.mean, gain.error, "is served" if gain.serves else "is not served",
            )  # fmt: skip
    return reranker, training, judged


def tuned_encoder(
    original: TextEncoder,
    histories: Histories,
    catalogue: Catalogue,
    weights: dict[str, float] | None,
    config: EngineConfig,
    progress: bool,
) -> tuple[TextEncoder, NDArray[np.int64]]:
    """The encoder with lower layers tuned, and the users on whose lists that was done.

    Its top layers stay as they were over other states, and its vectors are searched, too. So it is judged by what it
    finds in the histories of all other users; where it lost more than ``config.export.tolerance`` of that, it is
    dropped with a warning, and the original goes on, tuned on nobody.

    Raises:
        InputError: The log is too thin to tune on, or to judge on.
    """
    split = config.rerank.split
    if not (config.rerank.enabled and config.rerank.kind == "split" and split.unfreezing.layers):
        return original, NOBODY
    logger.info("Encoding %d item texts with the encoder as it is.", len(catalogue))
    vectors = original.encode(catalogue.texts, progress=progress)
    lists, proposer = held_out_lists(histories, vectors, weights, config)
    factors = collaborative_factors(proposer, len(catalogue))
    tuned, seen = unfreeze(original, lists, catalogue.texts, factors, split, config.seed, progress)
    others = histories.take(np.setdiff1d(np.arange(len(histories)), seen))
    task = retrieval_task(others.liked(), catalogue, np.random.default_rng(config.seed))
    gate = RetrievalGate(original, task, config.export.k, config.export.tolerance, config.export.seed)
    try:
        verdict = gate.judge(tuned)
    except TaskError:
        logger.warning("%s the tuned encoder cannot be judged, and the encoder stays as it was.", NOTHING_FOUND)
        return original, NOBODY
    figures = ", ".join(f"{change.name} {change.original:.4f} → {change.exported:.4f}" for change in verdict.changes)
    if verdict.passed:
        logger.info("The tuned encoder searches as well as before: %s.", figures)
        return tuned, seen
    logger.warning(
        "The tuned encoder loses more than %.1f %% at text search (%s), so the encoder stays as it was. Lower "
        "rerank.split.unfreezing.learning_rate or .layers, or raise export.tolerance.",
        100 * config.export.tolerance, figures,
    )  # fmt: skip
    return original, NOBODY


def serving_encoder(
    original: TextEncoder, histories: Histories, catalogue: Catalogue, config: EngineConfig
) -> StateEncoder:
    """The encoder that will serve: what is trained on its states is trained on the export's, where it is exported.

    Raises:
        ConfigError: The encoder cannot be cut as ``config.rerank`` says.
        ExportError: No precision of ``config.export`` was good enough.
        InputError: The log is too thin to judge an export on.
    """
    rerank = config.rerank
    if not rerank.enabled or rerank.kind != "split":
        return original
    layers = lower_layers(original, rerank.split)  # what cannot be cut is refused, exported or not
    if not rerank.split.quantized:
        return original
    task = retrieval_task(histories.liked(), catalogue, np.random.default_rng(config.seed))
    logger.info("Exporting the text encoder.")
    with temporary_folder("encoder-") as folder:
        try:
            export_text_encoder(original, task, folder, config.export, layers)
        except TaskError:
            logger.warning("%s no export of the encoder can be judged, and it serves as it is.", NOTHING_FOUND)
            return original
        encoder = OnnxTextEncoder.load(folder)
        remove_with(encoder, folder)
    return encoder


def _given_weights(config: EngineConfig) -> dict[str, float] | None:
    """The weights that need no learning; None where they are to be learned."""
    if config.fusion.weights is not None:
        if set(config.fusion.weights) != set(config.sources):
            raise ConfigError(
                f"fusion.weights names {', '.join(config.fusion.weights) or 'nothing'}, but the sources are "
                f"{', '.join(config.sources)}: give each source one weight, or leave fusion.weights out to learn them."
            )
        return dict(config.fusion.weights)
    return dict.fromkeys(config.sources, 1.0) if config.fusion.method == "rrf" else None


def collaborative_factors(retriever: FusedRetriever, n_items: int) -> NDArray[np.float32]:
    """The item factors (I, d) of the ALS source, at one scale; one zero for each item where there is no such source."""
    als = retriever.sources.get("als")
    if isinstance(als, AlsRetriever):
        return collaborative(als.item_factors)
    return np.zeros((n_items, 1), np.float32)
