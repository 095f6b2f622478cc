"""Fine-tuning of the pair cross-encoder: binary cross-entropy over (context, item) pairs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from encoders import PairCrossEncoder
from ranker.config import PairConfig, TrainingConfig
from ranker.feedback.labels import LabelledEvents
from ranker.lists import LabelledLists, check_lists, list_ndcg
from ranker.pair.reranker import Blend, PairReranker, PairTexts
from ranker.reranker import Gain, Judged, measured_gain
from retrieval.candidates import NO_ITEM
from retrieval.catalogue import Catalogue
from retrieval.fusion import learn_weights, standardised
from retrieval.training import TrainingReport, check_tracker, train

if TYPE_CHECKING:
    from transformers import EvalPrediction

logger = logging.getLogger(__name__)

Pair = tuple[str, str]
Example = tuple[Pair, float]


def fit_pair(
    lists: LabelledLists,
    labelled: LabelledEvents,
    catalogue: Catalogue,
    config: PairConfig,
    seed: int,
    progress: bool,
) -> tuple[PairReranker, TrainingReport, Judged]:
    """A re-ranker, its cross-encoder fine-tuned on some users' lists, its blend learned on the others', and these."""
    cross_encoder = PairCrossEncoder.load(config.checkpoint, config.model, seed)
    texts = PairTexts(catalogue.titles, catalogue.texts, config.context_items)
    # Only the first candidates are ever re-ranked, so it is among them that it has to tell the chosen one.
    train, validation = lists.containing_choice(config.depth).split_by_user(
        config.training.validation_fraction, np.random.default_rng(seed)
    )
    labelled = labelled.of_others(validation.users)
    logger.info("Fine-tuning the cross-encoder on %d lists and %d feedback events.", len(train), len(labelled))
    report = fine_tune(cross_encoder, texts, train, labelled, validation, config.training, seed, progress)
    asked = PairReranker(cross_encoder, texts, config.depth, Blend(), Gain(0, 0))
    opinions = asked.opinions(validation.requests, validation.candidates)
    blend, gain = learned_blend(opinions, validation)
    reranker = PairReranker(cross_encoder, texts, config.depth, blend, gain)
    return reranker, report, Judged(validation, reranker.blended(opinions))


def learned_blend(opinions: NDArray[np.float32], lists: LabelledLists) -> tuple[Blend, Gain]:
    """The weights of two opinions (L, K, 2) on the lists' candidates, and what the blend gains over the first."""
    standard = standardised(opinions)
    weights = learn_weights(standard, lists.candidates.items, lists.is_chosen)
    gain = measured_gain(standard[:, :, 0], (standard @ weights).astype(np.float32), lists)
    return Blend(float(weights[0]), float(weights[1])), gain


def fine_tune(
    cross_encoder: PairCrossEncoder,
    texts: PairTexts,
    lists: LabelledLists,
    labelled: LabelledEvents,
    validation: LabelledLists,
    config: TrainingConfig,
    seed: int,
    progress: bool = True,
) -> TrainingReport:
    """Teach a cross-encoder, in place, to tell the chosen item of a list from the others.

    Binary cross-entropy over (context, item) pairs (Nogueira & Cho, "Passage Re-ranking with BERT", 2019). Every
    training list gives one pair with label 1 (the chosen item) and ``config.negatives`` with label 0 (others from its
    candidates); every labelled event gives one more.

    Args:
        cross_encoder: The model; its word embeddings stay as they are.
        texts: Builds its inputs.
        lists: Lists to learn from.
        labelled: Feedback to learn from beside them.
        validation: Lists of other users that hold their chosen item, for early stopping.
        config: Settings.
        seed: Of negatives, data order and dropout.
        progress: Show a bar.

    Raises:
        InputError: There is nothing to train on or to validate with.
        ExtraError: The package that ``config.report_to`` names is not installed.
    """
    check_lists(len(lists), len(validation))
    check_tracker(config)
    rng = np.random.default_rng(seed)
    shown = validation.take(rng.permutation(len(validation))[: config.validation_lists])
    depth = shown.candidates.items.shape[1]
    told = _labelled_pairs(labelled, texts)
    examples = _training_pairs(lists, texts, config.negatives, rng) + told
    model = cross_encoder.model
    model.config.problem_type = "multi_label_classification"  # transformers' name for binary cross-entropy
    words = model.get_input_embeddings()
    words.requires_grad_(False)  # a few thousand pairs teach no words, and the table is most of an optimizer step
    try:
        return train(
            model,
            [{"params": [p for p in model.parameters() if p.requires_grad], "lr": config.learning_rate}],
            examples,
            _list_pairs(shown, texts),
            _Collator(cross_encoder),
            lambda prediction: _mean_ndcg(prediction, depth),
            config,
            seed,
            progress,
            len(told),
        )
    finally:
        words.requires_grad_(True)


class _Collator:
    """Batches pairs with the cross-encoder's own tokens, so that training and serving read the same."""

    def __init__(self, cross_encoder: PairCrossEncoder) -> None:
        self._cross_encoder = cross_encoder

    def __call__(self, examples: list[Example]) -> dict[str, torch.Tensor]:
        batch = self._cross_encoder.tokens.pair_batch([pair for pair, _ in examples])
        arrays = batch.named(self._cross_encoder.inputs)
        labels = torch.tensor([[label] for _, label in examples], dtype=torch.float32)
        return {**{name: torch.from_numpy(array) for name, array in arrays.items()}, "labels": labels}


def _training_pairs(lists: LabelledLists, texts: PairTexts, negatives: int, rng: np.random.Generator) -> list[Example]:
    examples: list[Example] = []
    contexts = texts.contexts(lists.requests)
    for items, chosen, context in zip(lists.candidates.items, lists.chosen, contexts, strict=True):
        others = items[(items != chosen) & (items != NO_ITEM)]
        drawn = rng.permutation(others)[:negatives]
        examples += [(pair, 1.0) for pair in texts.pairs(context, np.array([chosen]))]
        examples += [(pair, 0.0) for pair in texts.pairs(context, drawn)]
    return examples


def _labelled_pairs(labelled: LabelledEvents, texts: PairTexts) -> list[Example]:
    """A pair for each event of a user who had liked something before: without a context nothing is ever scored."""
    contexts = texts.contexts(labelled.requests)
    events = zip(labelled.items, labelled.labels.tolist(), contexts, strict=True)
    return [
        (pair, label) for item, label, context in events if context for pair in texts.pairs(context, np.array([item]))
    ]


def _list_pairs(lists: LabelledLists, texts: PairTexts) -> list[Example]:
    """Every candidate of every list; a list's empty places repeat its first candidate with the label -1."""
    examples: list[Example] = []
    contexts = texts.contexts(lists.requests)
    for items, chosen, context in zip(lists.candidates.items, lists.chosen, contexts, strict=True):
        filled = np.where(items == NO_ITEM, items[0], items)
        labels = np.where(items == NO_ITEM, -1.0, items == chosen)
        examples += list(zip(texts.pairs(context, filled), labels.tolist(), strict=True))
    return examples


def _mean_ndcg(prediction: EvalPrediction, depth: int) -> float:
    labels = np.asarray(prediction.label_ids).reshape(-1, depth)
    logits = np.where(labels < 0, -np.inf, np.asarray(prediction.predictions).reshape(-1, depth))
    return float(list_ndcg(logits, labels == 1).mean())
