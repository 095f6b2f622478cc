"""Distillation: joint layers learn a list's order from a pair cross-encoder, which read user and item in full."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders import PairCrossEncoder, PairCrossEncoderConfig, PairScorer
from encoders.errors import ConfigError
from ranker.config import JointTrainingConfig
from ranker.lists import LabelledLists, drawn_places
from ranker.pair.reranker import PairTexts
from retrieval.candidates import NO_ITEM


@dataclass(frozen=True, slots=True, eq=False)
class TeacherScores:
    """A teacher's logits of some lists' chosen items and some others, which stay the same whenever a list is seen."""

    rows: NDArray[np.int64]  # (T,) numbers of the lists, rising
    places: NDArray[np.int64]  # (T, N) places in each list; the chosen item's first
    logits: NDArray[np.float32]  # (T, N) -inf where a place is empty

    def put(self, rows: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.float32]:
        """Put the teacher's places over those drawn (L, N) for lists that it scored, in place.

        Returns:
            (L, N) its logits; -inf in empty places and in every place of a list that it did not score.
        """
        logits = np.full(places.shape, -np.inf, np.float32)
        scored = np.isin(rows, self.rows)
        at = np.searchsorted(self.rows, rows[scored])
        places[scored], logits[scored] = self.places[at], self.logits[at]
        return logits


NOTHING_TAUGHT = TeacherScores(np.zeros(0, np.int64), np.zeros((0, 1), np.int64), np.zeros((0, 1), np.float32))


def load_teacher(checkpoint: str, config: PairCrossEncoderConfig) -> PairCrossEncoder:
    """A ready-made pair cross-encoder.

    Raises:
        ArtifactError: There is no such checkpoint, or it is damaged.
        ConfigError: It cannot score pairs, or has no head that learned to: one made here would teach noise.
    """
    teacher = PairCrossEncoder.load(checkpoint, config)
    made_as = teacher.model.config.architectures or ()
    if not any(name.endswith("ForSequenceClassification") for name in made_as):
        raise ConfigError(
            f"teacher: {checkpoint} ({', '.join(made_as) or 'of no named kind'}) has no head that scores pairs. Pass a "
            "cross-encoder, or the cross_encoder folder of an engine saved with rerank.kind: pair."
        )
    return teacher


def teacher_scores(
    teacher: PairScorer,
    texts: PairTexts,
    lists: LabelledLists,
    config: JointTrainingConfig,
    seed: int,
    progress: bool,
) -> TeacherScores:
    """What a teacher says of ``teacher_lists`` lists of users who had liked something, drawn once.

    Args:
        teacher: Scores pairs.
        texts: Builds them.
        lists: Lists to learn from, each of which holds its chosen item.
        config: Settings; each list is cut to its chosen item and ``negatives`` others.
        seed: Of lists and negatives.
        progress: Show a bar.

    Raises:
        ConfigError: A score is no finite number.
    """
    rng = np.random.default_rng(seed)
    read = np.flatnonzero(lists.requests.histories.liked().lengths)  # without a context there is nothing to read
    rows = np.sort(rng.permutation(read)[: config.teacher_lists])
    lists = lists.take(rows)
    places = drawn_places(lists.candidates.items, lists.chosen, config.negatives, rng)
    items = lists.candidates.at(places).items
    known = items != NO_ITEM
    pairs = [
        pair
        for context, of_list, there in zip(texts.contexts(lists.requests), items, known, strict=True)
        for pair in texts.pairs(context, of_list[there])
    ]
    logits = np.full(items.shape, -np.inf, np.float32)
    logits[known] = teacher.score(pairs, progress=progress)
    wrong = int((~np.isfinite(logits[known])).sum())
    if wrong:
        raise ConfigError(
            f"teacher: {wrong} of its {len(pairs)} scores are no finite numbers. Pass another checkpoint."
        )
    return TeacherScores(rows, places, logits)


def distilled(losses: Tensor, logits: Tensor, teacher: Tensor, weight: float) -> Tensor:
    """The losses (U,) of lists, of which those that a teacher scored learn from it, too.

    Args:
        losses: (U,) by the labels; where a teacher scored they have the share 1 - ``weight``.
        logits: (U, K).
        teacher: (U, K) its logits; -inf in empty places and in every place of a list that it did not score.
        weight: Share of the teacher's term.
    """
    taught = teacher.isfinite().any(dim=1).nonzero()[:, 0]
    mixed = (1 - weight) * losses[taught] + weight * teacher_loss(logits[taught], teacher[taught])
    return losses.index_put((taught,), mixed)


def teacher_loss(logits: Tensor, teacher: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the softmax over each list's logits from the one over its teacher's, (U,).

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, at temperature 1, with a list's candidates as
    the classes: shares of a list are what the labels speak of, too, and the teacher's offset drops out of them.

    Args:
        logits: (U, K).
        teacher: (U, K) -inf in empty places.
    """
    lowest = float(torch.finfo(logits.dtype).min)
    empty = teacher == -torch.inf
    told, said = (scores.masked_fill(empty, lowest).log_softmax(dim=1) for scores in (teacher, logits))
    return (told.exp() * (told - said)).sum(dim=1)
