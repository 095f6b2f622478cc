"""Fitting the split cross-encoder: the items' states, the joint layers trained on them, and what they gain."""

from __future__ import annotations

import logging

import numpy as np
import torch
from numpy.typing import NDArray

from encoders import StateEncoder, TextEncoder
from encoders.errors import ConfigError
from encoders.layers import check_cut, top_layers
from ranker.config import RerankConfig, SplitConfig
from ranker.lists import NOBODY, LabelledLists, Lessons, check_lists
from ranker.pair.reranker import PairTexts
from ranker.reranker import NO_GAIN, Judged
from ranker.split.distillation import NOTHING_TAUGHT, load_teacher, teacher_scores
from ranker.split.inputs import InputReader
from ranker.split.items import ItemReader
from ranker.split.model import JointModel, JointShape
from ranker.split.reranker import SplitReranker
from ranker.split.serving import OnnxJoint
from ranker.split.training import train_joint
from ranker.states.building import build_store
from ranker.temporary import remove_with, temporary_folder
from retrieval.catalogue import Catalogue
from retrieval.training import TrainingReport, check_tracker

logger = logging.getLogger(__name__)


def lower_layers(encoder: TextEncoder, config: SplitConfig) -> int:
    """How many of an encoder's layers read items alone.

    Raises:
        ConfigError: Its kind of transformer cannot be cut, or it has fewer layers than shall be joint.
    """
    check_cut(encoder.model, config.joint_layers)
    return int(encoder.model.config.num_hidden_layers) - config.joint_layers


def check_split(encoder: TextEncoder, rerank: RerankConfig) -> None:
    """Refuse settings that do not suit the checkpoints before any work is done.

    Raises:
        ArtifactError: The teacher's checkpoint cannot be found or read.
        ConfigError: The encoder cannot be cut as asked for, has fewer lower layers than shall be tuned, or the teacher
            cannot teach.
    """
    lower, unfrozen = lower_layers(encoder, rerank.split), rerank.split.unfreezing.layers
    if unfrozen > lower:
        raise ConfigError(
            f"rerank.split.unfreezing.layers is {unfrozen}, but {lower} layers lie below the "
            f"{rerank.split.joint_layers} joint ones: take 0 to {lower}."
        )
    if rerank.split.training.teacher is not None:
        load_teacher(rerank.split.training.teacher, rerank.pair.model)


def fit_split(
    lessons: Lessons,
    catalogue: Catalogue,
    original: TextEncoder,
    encoder: StateEncoder,
    factors: NDArray[np.float32],
    rerank: RerankConfig,
    seed: int,
    progress: bool,
    seen: NDArray[np.int64] = NOBODY,
) -> tuple[SplitReranker, TrainingReport, Judged]:
    """A re-ranker whose joint layers are trained on some users' lists, and the others' lists, which measure its gain.

    Args:
        lessons: Labelled lists. Of the users whose lists measure the gain, those with queries measure a gain of their
            own, and refused ones are left out.
        catalogue: The items.
        original: The encoder that the joint layers are cut from.
        encoder: The one that serves: the original, or its export. Training reads the states that it makes.
        factors: (I, d) collaborative vectors of the items, from a source that did not see the lists' choices.
        rerank: Settings; those of the pair cross-encoder say how a teacher reads.
        seed: Of everything random.
        progress: Show bars.
        seen: Users on whose lists the encoder was tuned; none of theirs measures the gain.

    Raises:
        ArtifactError: The teacher's checkpoint cannot be found or read.
        ConfigError: The encoder's kind of transformer cannot be cut, or has fewer layers than asked for; or the teacher
            cannot teach.
        InputError: There are too few lists, or training diverged.
    """
    config, teacher = rerank.split, rerank.split.training.teacher
    taken, queried, refused = lessons.parts
    taken = taken.containing_choice(config.depth)
    train, validation = taken.split_by_user(config.training.validation_fraction, np.random.default_rng(seed), seen)
    refused = refused.take(np.flatnonzero(~np.isin(refused.users, validation.users)))
    asked = np.isin(queried.users, validation.users)
    queried, validation_queried = (queried.take(np.flatnonzero(part)) for part in (~asked, asked))
    check_lists(len(train), len(validation))  # before every item is read
    check_tracker(config.training)
    taught = NOTHING_TAUGHT
    if teacher is not None:
        texts = PairTexts(catalogue.titles, catalogue.texts, rerank.pair.context_items)
        scorer = load_teacher(teacher, rerank.pair.model)
        taught = teacher_scores(scorer, texts, train, config.training, seed, progress)
        logger.info("The teacher %s scored %d of %d lists.", teacher, len(taught.rows), len(train))
    model = untrained_joint(original, taken, factors, config, seed)
    items = ItemReader(encoder, model.shape, top_layers(original.model, config.joint_layers)[0])
    with temporary_folder("states-") as folder:
        row_format = items.row_format(config.states)
        store = build_store(folder, catalogue.texts, items.version, row_format, items.read, progress=progress)
        inputs = InputReader(store, factors, model.shape)
        logger.info(
            "Training %d joint layers: %d lists that were taken, %d with a query, %d refused.",
            config.joint_layers, len(train), len(queried), len(refused),
        )  # fmt: skip
        learned = Lessons(train, queried, refused)
        report = train_joint(model, inputs, learned, validation, config.training, seed, progress, taught)
        reranker = SplitReranker(OnnxJoint.trace(model), inputs, items, config.depth, NO_GAIN)
        judged = judged_on(reranker, validation)
        reranker.gain = reranker.saved_gain = judged.gain
        reranker.query_gain = judged_on(reranker, validation_queried).gain
        remove_with(reranker, folder)
    return reranker, report, judged


def untrained_joint(
    encoder: TextEncoder, lists: LabelledLists, factors: NDArray[np.float32], config: SplitConfig, seed: int
) -> JointModel:
    """Joint layers as training starts from them: an encoder's upper layers.

    Args:
        encoder: It stays as it is.
        lists: Tell how many sources score a candidate.
        factors: (I, d) collaborative vectors.
        config: Settings.
        seed: Of the weights that are new.

    Raises:
        ConfigError: The encoder cannot be cut as asked for.
    """
    layers = top_layers(encoder.model, config.joint_layers)
    shape = JointShape(
        layer=layers[0].shape,
        lower_layers=lower_layers(encoder, config),
        joint_layers=config.joint_layers,
        max_tokens=config.max_tokens,
        item_vectors=config.item_vectors,
        factors=factors.shape[1],
        sources=lists.candidates.by_source.shape[2],
        max_events=config.events,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return JointModel(shape, layers)


def judged_on(reranker: SplitReranker, lists: LabelledLists, block: int = 256) -> Judged:
    """How it scores lists, a block at a time."""
    parts = [lists.take(np.arange(start, min(start + block, len(lists)))) for start in range(0, len(lists), block)]
    scores = [reranker.score(part.requests, part.candidates) for part in parts]
    return Judged(lists, np.concatenate([lists.candidates.scores[:0], *scores]))
