"""Training of the joint layers on labelled lists, from the cached states that they are served with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ranker.config import JointTrainingConfig
from ranker.lists import LabelledLists, Lessons, check_lists, drawn_places, list_ndcg
from ranker.split.distillation import NOTHING_TAUGHT, TeacherScores, distilled
from ranker.split.inputs import InputReader, JointInputs, features_of, stacked
from ranker.split.model import JointModel
from retrieval.candidates import NO_ITEM
from retrieval.training import TrainingReport, check_tracker, train

if TYPE_CHECKING:
    from transformers import EvalPrediction


def train_joint(
    model: JointModel,
    reader: InputReader,
    lessons: Lessons,
    validation: LabelledLists,
    config: JointTrainingConfig,
    seed: int,
    progress: bool = True,
    taught: TeacherScores = NOTHING_TAUGHT,
) -> TrainingReport:
    """Teach the joint layers, in place, to tell the chosen item of a list from the others.

    Args:
        model: The joint layers.
        reader: Gives their inputs.
        lessons: Lists to learn from.
        validation: Lists of other users, for early stopping.
        config: Settings; ``negatives`` of a list's other candidates are drawn anew each time that it is seen, but
            for lists that a teacher scored.
        seed: Of negatives and data order.
        progress: Show a bar.
        taught: A teacher's scores of some of the lists that were taken.

    Raises:
        InputError: There is nothing to train on or to validate with.
        ExtraError: The package that ``config.report_to`` names is not installed.
    """
    groups = joint_groups(model, config)
    return train_lists(model, groups, reader, lessons, validation, config, seed, progress, taught)


def joint_groups(model: JointModel, config: JointTrainingConfig) -> list[dict[str, Any]]:
    """The weights of joint layers with their peak rates, as torch's optimizers take them."""
    layers = [*model.top.parameters(), *model.lower.parameters()]
    inside = {id(parameter) for parameter in layers}
    fresh = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    return [
        {"params": layers, "lr": config.learning_rate},
        {"params": fresh, "lr": config.learning_rate * config.head_rate},
    ]


def train_lists(
    model: nn.Module,
    groups: list[dict[str, Any]],
    reader: InputReader,
    lessons: Lessons,
    validation: LabelledLists,
    config: JointTrainingConfig,
    seed: int,
    progress: bool,
    taught: TeacherScores = NOTHING_TAUGHT,
) -> TrainingReport:
    """Teach any model that makes logits of what a reader gives, in place; the rest is as ``train_joint`` says.

    ``groups`` are the parameters to be trained with their peak rates.
    """
    check_lists(len(lessons.taken), len(validation))
    check_tracker(config)
    rng = np.random.default_rng(seed)
    shown = rng.permutation(len(validation))[: config.validation_lists]
    batches = _Lists(reader, lessons, validation, taught, config.negatives, rng)
    return train(
        _ListLoss(model, config.loss, config.distillation),
        groups,
        range(len(lessons)),
        [-1 - int(at) for at in shown],
        batches,
        _mean_ndcg,
        config,
        seed,
        progress,
        feedback=len(lessons.refused),
    )


class _Lists:
    """Batches of lists by their numbers, part after part, the refused ones last.

    A negative number -1 - n is the n-th validation list, which is read whole.
    """

    def __init__(
        self,
        reader: InputReader,
        lessons: Lessons,
        validation: LabelledLists,
        taught: TeacherScores,
        negatives: int,
        rng: np.random.Generator,
    ) -> None:
        self._reader = reader
        # scores are standardised among all of a list, as when it is served
        self._parts = [
            (part, features_of(part.requests, part.candidates), scores)
            for part, scores in zip(lessons.parts, (taught, NOTHING_TAUGHT, NOTHING_TAUGHT), strict=True)
        ]
        self._ends = np.cumsum([len(part) for part in lessons.parts])
        self._validation = validation
        self._negatives = negatives
        self._rng = rng

    def __call__(self, numbers: list[int]) -> dict[str, Any]:
        at = np.array(numbers, np.int64)
        if at[0] < 0:
            lists = self._validation.take(-1 - at)
            inputs = self._reader.read(lists.requests, lists.candidates)
            labels = list_labels(lists.candidates.items, lists.chosen)
            return _tensors(inputs, labels, np.full_like(labels, -np.inf), np.zeros(len(at), np.bool_))
        owners = np.searchsorted(self._ends, at, side="right")
        groups = [at[owners == n] - (self._ends[n] - len(part)) for n, (part, _, _) in enumerate(self._parts)]
        drawn = [self._drawn(*part, rows) for part, rows in zip(self._parts, groups, strict=True) if len(rows)]
        width = max(labels.shape[1] for _, labels, _ in drawn)
        labels = np.concatenate([_widened(labels, width, -1) for _, labels, _ in drawn])
        teacher = np.concatenate([_widened(scores, width, -np.inf) for _, _, scores in drawn])
        refused = np.arange(len(at)) >= len(at) - len(groups[-1])
        return _tensors(stacked([inputs for inputs, _, _ in drawn]), labels, teacher, refused)

    def _drawn(
        self, lists: LabelledLists, features: NDArray[np.float32], taught: TeacherScores, rows: NDArray[np.int64]
    ) -> tuple[JointInputs, NDArray[np.float32], NDArray[np.float32]]:
        """Inputs, labels and the teacher's scores of these lists, each cut to its chosen item and some others."""
        lists = lists.take(rows)
        places = drawn_places(lists.candidates.items, lists.chosen, self._negatives, self._rng)
        teacher = taught.put(rows, places)
        taken = lists.candidates.at(places)
        inputs = self._reader.read(lists.requests, taken, np.take_along_axis(features[rows], places[:, :, None], 1))
        return inputs, list_labels(taken.items, lists.chosen), teacher


def list_labels(items: NDArray[np.int64], chosen: NDArray[np.int64]) -> NDArray[np.float32]:
    """Labels of lists (L, K): 1 for the chosen item, 0 for others, -1 for empty places."""
    return np.where(items == NO_ITEM, -1, items == chosen[:, None]).astype(np.float32)


def _widened(values: NDArray[np.float32], width: int, empty: float) -> NDArray[np.float32]:
    """Values (L, K) of lists' places with empty places after them, (L, width)."""
    return np.pad(values, ((0, 0), (0, width - values.shape[1])), constant_values=empty)


def _tensors(
    inputs: JointInputs, labels: NDArray[np.float32], teacher: NDArray[np.float32], refused: NDArray[np.bool_]
) -> dict[str, Any]:
    return {
        "inputs": inputs.tensors(),
        "labels": torch.from_numpy(labels),
        "teacher": torch.from_numpy(teacher),
        "refused": torch.from_numpy(refused),
    }


class _ListLoss(nn.Module):
    """A joint model with the loss of its lists."""

    def __init__(self, model: nn.Module, loss: Literal["softmax", "bce"], distillation: float) -> None:
        super().__init__()
        self.model = model
        self.loss = LIST_LOSSES[loss]
        self.distillation = distillation

    def forward(self, inputs: dict[str, Tensor], labels: Tensor, teacher: Tensor, refused: Tensor) -> dict[str, Tensor]:
        """The loss and the logits (U, K) of lists with these labels and teacher's scores (U, K), some refused (U,)."""
        logits: Tensor = self.model(**inputs)
        losses = distilled(self.loss(logits, labels, refused), logits, teacher, self.distillation)
        return {"loss": losses.mean(), "logits": logits}


def softmax_loss(logits: Tensor, labels: Tensor, refused: Tensor) -> Tensor:
    """Negative log-likelihood of each list, whose chosen item is drawn by a softmax over the list, or is not.

    A list that was taken gives -log p of its chosen item, a refused one -log(1 - p): unlikelihood (Welleck et al.,
    "Neural Text Generation with Unlikelihood Training", ICLR 2020).

    Args:
        logits: (U, K).
        labels: (U, K) 1 for the chosen item, 0 for others, -1 for empty places.
        refused: (U,) which lists.

    Returns:
        (U,).
    """
    log_shares = logits.masked_fill(labels < 0, float(torch.finfo(logits.dtype).min)).log_softmax(dim=1)
    log_share = log_shares[labels == 1]
    # log(1 - p) as the sum over the others, which stays exact where p is close to 1
    others = log_shares.masked_fill(labels != 0, float(torch.finfo(logits.dtype).min)).logsumexp(dim=1)
    return -torch.where(refused, others, log_share)


def bce_loss(logits: Tensor, labels: Tensor, refused: Tensor) -> Tensor:
    """Mean binary cross-entropy of each list's items, (U,).

    The chosen item is a 1, others are 0; of a refused list its chosen item alone counts, as a 0.

    Args:
        logits: (U, K).
        labels: (U, K) 1 for the chosen item, 0 for others, -1 for empty places.
        refused: (U,) which lists.
    """
    told = torch.where(refused[:, None], labels == 1, labels >= 0)
    targets = torch.where(refused[:, None], torch.zeros_like(labels), labels).clamp(min=0)
    losses = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return torch.where(told, losses, 0).sum(dim=1) / told.sum(dim=1)


LIST_LOSSES = {"softmax": softmax_loss, "bce": bce_loss}


def _mean_ndcg(prediction: EvalPrediction) -> float:
    labels = np.asarray(prediction.label_ids)
    logits = np.where(labels < 0, -np.inf, np.asarray(prediction.predictions))
    return float(list_ndcg(logits, labels == 1).mean())
