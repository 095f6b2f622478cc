"""Training: one loop for every model, on the Hugging Face Trainer; it stops early and restores the best."""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import numpy as np
import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import nn
from torch.utils.data import Dataset

from encoders.checkpoint import quiet_transformers
from encoders.errors import ExtraError

if TYPE_CHECKING:
    from transformers import EvalPrediction

Example = TypeVar("Example")


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class LoopConfig:
    """How any model is trained.

    Attributes:
        epochs: Passes over the examples at most.
        batch_size: Examples in a gradient step.
        learning_rate: Peak learning rate, after a warm-up over a tenth of the steps.
        weight_decay: AdamW's.
        averaging: What a step leaves, at most, of a moving average of the weights, which is then what is measured and
            kept (``retrieval.averaging``); None keeps the weights themselves.
        evaluations_per_epoch: How often validation NDCG@10 is measured and a checkpoint kept.
        patience: Measurements without a better one after which training stops; the best checkpoint is restored.
        report_to: Where the Hugging Face Trainer sends its curves.
        report_folder: Where they are written, for TensorBoard.
    """

    epochs: Annotated[float, Field(gt=0)] = 1.0
    batch_size: Annotated[int, Field(ge=1)] = 32
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    averaging: Annotated[float | None, Field(gt=0, lt=1)] = None
    evaluations_per_epoch: Annotated[int, Field(ge=1)] = 2
    patience: Annotated[int, Field(ge=1)] = 2
    report_to: Literal["none", "tensorboard", "wandb"] = "none"
    report_folder: str = "runs/fine-tuning"


@dataclass(frozen=True)
class TrainingReport:
    """What a fine-tuning saw and reached.

    Attributes:
        examples: What an epoch holds: labelled pairs, or lists.
        feedback: How many of them came from feedback.
        steps: Gradient steps taken before training ended.
        best_step: The step whose weights were kept.
        validation_ndcg: (step, NDCG@10 of the model's own order on the validation lists) as measured.
    """

    examples: int
    feedback: int
    steps: int
    best_step: int
    validation_ndcg: tuple[tuple[int, float], ...]


def check_tracker(config: LoopConfig) -> None:
    """Refuse a tracker that is not there before any work is done.

    Raises:
        ExtraError: The package that ``config.report_to`` names is not installed.
    """
    if config.report_to != "none" and find_spec(config.report_to) is None:
        raise ExtraError(
            f"report_to: {config.report_to} needs a package that is not installed. "
            f'Install it with: pip install "hybrid-ranker[{config.report_to}]"'
        )


def train(
    model: nn.Module,
    groups: Sequence[dict[str, Any]],
    examples: Sequence[Example],
    validation: Sequence[Example],
    collate: Callable[[list[Example]], dict[str, Any]],
    ndcg: Callable[[EvalPrediction], float],
    config: LoopConfig,
    seed: int,
    progress: bool,
    feedback: int = 0,
) -> TrainingReport:
    """Train a model in place with AdamW, a warm-up over a tenth of the steps and a linear decay.

    After each evaluation the better checkpoint is kept, and the best one is restored at the end.

    Args:
        model: Takes what ``collate`` gives and returns a loss and logits.
        groups: Its parameters with their peak rates, as torch's optimizers take them.
        examples: What to learn from.
        validation: What is measured.
        collate: A batch of examples as tensors, ``labels`` among them.
        ndcg: The measure.
        config: Settings.
        seed: Of data order and dropout.
        progress: Show a bar.
        feedback: How many examples came from feedback, for the report.
    """
    # here, since whoever loads settings or an engine would wait seconds for them
    from transformers import (
        EarlyStoppingCallback,
        PrinterCallback,
        Trainer,
        TrainingArguments,
        get_linear_schedule_with_warmup,
    )

    from retrieval.averaging import Averaging
    from retrieval.progress import Progress

    total_steps = max(1, int(config.epochs * len(examples) / config.batch_size))
    every = math.ceil(total_steps / math.ceil(config.epochs * config.evaluations_per_epoch))
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    schedule = get_linear_schedule_with_warmup(optimizer, total_steps // 10, total_steps)  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory() as folder, _generators_put_back(), quiet_transformers():
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=total_steps,
            per_device_train_batch_size=config.batch_size,
            per_device_eval_batch_size=2 * config.batch_size,
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
            use_cpu=device.type == "cpu",
            dataloader_pin_memory=device.type != "cpu",
            seed=seed,
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=_Examples(examples),
            eval_dataset=_Examples(validation),
            data_collator=collate,
            compute_metrics=lambda prediction: {"ndcg": ndcg(prediction)},
            callbacks=[EarlyStoppingCallback(config.patience), Progress(progress)],
            optimizers=(optimizer, schedule),
        )
        if config.averaging is not None:
            trainer.add_callback(Averaging(config.averaging))
        if config.report_to == "tensorboard":
            # a writer of our own, since the Trainer's would write to the folder above
            from torch.utils.tensorboard import SummaryWriter
            from transformers.integrations.integration_utils import TensorBoardCallback

            trainer.add_callback(TensorBoardCallback(SummaryWriter(config.report_folder)))  # type: ignore[no-untyped-call]
        trainer.remove_callback(PrinterCallback)  # it comes where there is no bar, and a library prints nothing
        trainer.train()
    model.eval()
    history = trainer.state.log_history
    measured = tuple((int(row["step"]), float(row["eval_ndcg"])) for row in history if "eval_ndcg" in row)
    best = max(measured, key=lambda entry: entry[1])[0]
    return TrainingReport(len(examples), feedback, int(trainer.state.global_step), best, measured)


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


class _Examples(Dataset[Example]):
    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, at: int) -> Example:
        return self._examples[at]
