"""Fine-tuning of the pair cross-encoder on labelled lists: binary cross-entropy on the Hugging Face Trainer."""

from __future__ import annotations

import logging
import math
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations.integration_utils import TensorBoardCallback

from encoders import PairCrossEncoder
from encoders.checkpoint import quiet_transformers
from encoders.errors import ExtraError, InputError
from ranker.config import TrainingConfig
from ranker.labels import LabelledEvents
from ranker.lists import LabelledLists, list_ndcg
from ranker.reranker import PairTexts
from retrieval.candidates import NO_ITEM

logger = logging.getLogger(__name__)

Pair = tuple[str, str]
Example = tuple[Pair, float]


@dataclass(frozen=True)
class TrainingReport:
    """What a fine-tuning saw and reached.

    Attributes:
        pairs: Labelled pairs in an epoch.
        feedback: How many of them came from feedback.
        steps: Gradient steps taken before training ended.
        best_step: The step whose weights were kept.
        validation_ndcg: (step, NDCG@10 of the cross-encoder's own order on the validation lists) as measured.
    """

    pairs: int
    feedback: int
    steps: int
    best_step: int
    validation_ndcg: tuple[tuple[int, float], ...]


def fine_tune(
    cross_encoder: PairCrossEncoder,
    texts: PairTexts,
    train: LabelledLists,
    labelled: LabelledEvents,
    validation: LabelledLists,
    config: TrainingConfig,
    seed: int,
    progress: bool = True,
) -> TrainingReport:
    """Teach a cross-encoder, in place, to tell the chosen item of a list from the others.

    Binary cross-entropy over (context, item) pairs (Nogueira & Cho, "Passage Re-ranking with BERT", 2019). Every
    training list gives one pair with label 1 (the chosen item) and ``config.negatives`` with label 0 (others from its
    candidates); every labelled event gives one more. After each evaluation the better checkpoint is kept, and the best
    one is restored at the end.

    Args:
        cross_encoder: The model; its word embeddings stay as they are.
        texts: Builds its inputs.
        train: Lists to learn from.
        labelled: Feedback to learn from beside them.
        validation: Lists of other users that hold their chosen item, for early stopping.
        config: Settings.
        seed: Of negatives, data order and dropout.
        progress: Show a bar.

    Raises:
        InputError: There is nothing to train on or to validate with.
        ExtraError: The package that ``config.report_to`` names is not installed.
    """
    if config.report_to != "none" and find_spec(config.report_to) is None:
        raise ExtraError(
            f"report_to: {config.report_to} needs a package that is not installed. "
            f'Install it with: pip install "hybrid-ranker[{config.report_to}]"'
        )
    if not len(train) or not len(validation):
        raise InputError(
            f"Fine-tuning has {len(train)} training and {len(validation)} validation lists; it needs both. More users "
            "with a longer history give more lists; rerank.enabled: false does without."
        )
    rng = np.random.default_rng(seed)
    shown = validation.take(rng.permutation(len(validation))[: config.validation_lists])
    depth = shown.candidates.items.shape[1]
    examples = _training_pairs(train, texts, config.negatives, rng)
    told = _labelled_pairs(labelled, texts)
    examples += told
    total_steps = max(1, int(config.epochs * len(examples) / config.batch_size))
    every = math.ceil(total_steps / math.ceil(config.epochs * config.evaluations_per_epoch))
    model = cross_encoder.model
    model.config.problem_type = "multi_label_classification"  # transformers' name for binary cross-entropy
    words = model.get_input_embeddings()
    words.requires_grad_(False)  # a few thousand pairs teach no words, and the table is most of an optimizer step
    with tempfile.TemporaryDirectory() as folder, _generators_put_back(), quiet_transformers():
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=total_steps,
            per_device_train_batch_size=config.batch_size,
            per_device_eval_batch_size=2 * config.batch_size,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            warmup_steps=total_steps // 10,
            eval_strategy="steps",
            eval_steps=every,
            save_strategy="steps",
            save_steps=every,
            save_total_limit=1,
            save_only_model=True,
            load_best_model_at_end=True,
            metric_for_best_model="ndcg",
            greater_is_better=True,
            remove_unused_columns=False,
            label_names=["labels"],
            report_to="wandb" if config.report_to == "wandb" else "none",
            logging_strategy="no" if config.report_to == "none" else "steps",
            logging_steps=10,
            disable_tqdm=True,  # its bar prints dictionaries of figures between the lines
            use_cpu=model.device.type == "cpu",
            dataloader_pin_memory=model.device.type != "cpu",
            seed=seed,
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=_Pairs(examples),
            eval_dataset=_Pairs(_list_pairs(shown, texts)),
            data_collator=_Collator(cross_encoder),
            compute_metrics=lambda prediction: {"ndcg": _mean_ndcg(prediction, depth)},
            callbacks=[EarlyStoppingCallback(config.patience), _Progress(progress)],
        )
        if (
            config.report_to == "tensorboard"
        ):  # a writer of our own, since the Trainer's would write to the folder above
            from torch.utils.tensorboard import SummaryWriter

            trainer.add_callback(TensorBoardCallback(SummaryWriter(config.report_folder)))  # type: ignore[no-untyped-call]
        trainer.remove_callback(PrinterCallback)  # it comes where there is no bar, and a library prints nothing
        trainer.train()
    words.requires_grad_(True)
    model.eval()
    history = trainer.state.log_history
    measured = tuple((int(row["step"]), float(row["eval_ndcg"])) for row in history if "eval_ndcg" in row)
    best = max(measured, key=lambda entry: entry[1])[0]
    return TrainingReport(len(examples), len(told), int(trainer.state.global_step), best, measured)


class _Progress(TrainerCallback):
    """One bar over the steps, and a note of each evaluation."""

    def __init__(self, shown: bool) -> None:
        self._bar = tqdm(desc="fine-tuning", unit="step", disable=None if shown else True)

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self._bar.reset(state.max_steps)

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self._bar.update()

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        logger.info("Step %d: NDCG@10 on validation %.4f.", state.global_step, kwargs["metrics"]["eval_ndcg"])

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self._bar.close()


@contextmanager
def _generators_put_back() -> Iterator[None]:
    """The Trainer seeds the generators of the whole process; the caller's own draws go on as if it had not."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


class _Pairs(Dataset[Example]):
    def __init__(self, examples: list[Example]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, at: int) -> Example:
        return self._examples[at]


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
