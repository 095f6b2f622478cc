"""Training of the joint layers on labelled lists, from the cached states that they are served with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import EvalPrediction

from ranker.config import JointTrainingConfig
from ranker.lists import LabelledLists, list_ndcg
from ranker.split.inputs import InputReader, JointInputs, scores_of
from ranker.split.model import JointModel
from ranker.training import TrainingReport, check_lists, train
from retrieval.candidates import NO_ITEM


def train_joint(
    model: JointModel,
    reader: InputReader,
    lists: LabelledLists,
    validation: LabelledLists,
    config: JointTrainingConfig,
    seed: int,
    progress: bool = True,
) -> TrainingReport:
    """Teach the joint layers, in place, to tell the chosen item of a list from the others.

    Args:
        model: The joint layers.
        reader: Gives their inputs.
        lists: Lists to learn from, each of which holds its chosen item.
        validation: Lists of other users, for early stopping.
        config: Settings; ``negatives`` of a list's other candidates are drawn anew each time that it is seen.
        seed: Of negatives and data order.
        progress: Show a bar.

    Raises:
        InputError: There is nothing to train on or to validate with.
        ExtraError: The package that ``config.report_to`` names is not installed.
    """
    check_lists(len(lists), len(validation), config)
    rng = np.random.default_rng(seed)
    shown = rng.permutation(len(validation))[: config.validation_lists]
    batches = _Lists(reader, lists, validation, config.negatives, rng)
    layers = [*model.top.parameters(), *model.lower.parameters()]
    inside = {id(parameter) for parameter in layers}
    fresh = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    return train(
        _ListLoss(model, config.loss),
        [
            {"params": layers, "lr": config.learning_rate},
            {"params": fresh, "lr": config.learning_rate * config.head_rate},
        ],
        range(len(lists)),
        [-1 - int(at) for at in shown],
        batches,
        _mean_ndcg,
        config,
        seed,
        progress,
    )


class _Lists:
    """Batches of lists by their numbers; a negative number -1 - n is the n-th validation list, whole."""

    def __init__(
        self,
        reader: InputReader,
        lists: LabelledLists,
        validation: LabelledLists,
        negatives: int,
        rng: np.random.Generator,
    ) -> None:
        self._reader = reader
        self._lists = lists
        self._validation = validation
        self._negatives = negatives
        self._rng = rng
        self._features = scores_of(lists.candidates)  # standardised among all of a list, as when it is served

    def __call__(self, numbers: list[int]) -> dict[str, Any]:
        at = np.array(numbers, np.int64)
        if at[0] < 0:
            lists = self._validation.take(-1 - at)
            inputs = self._reader.read(lists.requests, lists.candidates)
            return _tensors(inputs, lists.candidates.items, lists.chosen)
        lists = self._lists.take(at)
        places = drawn_places(lists.candidates.items, lists.chosen, self._negatives, self._rng)
        taken = lists.candidates.at(places)
        inputs = self._reader.read(lists.requests, taken, np.take_along_axis(self._features[at], places[:, :, None], 1))
        return _tensors(inputs, taken.items, lists.chosen)


def drawn_places(
    items: NDArray[np.int64], chosen: NDArray[np.int64], negatives: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Places (L, 1 + n) in lists (L, K): the chosen item's first, then n others drawn without repetition.

    n is ``negatives``, or K - 1 where lists are shorter. Where a row has fewer others, empty places fill it up.
    """
    keys = rng.random(items.shape)
    keys[items == NO_ITEM] = 2
    keys[items == chosen[:, None]] = -1
    return np.argsort(keys, axis=1)[:, : 1 + negatives]


def _tensors(inputs: JointInputs, items: NDArray[np.int64], chosen: NDArray[np.int64]) -> dict[str, Any]:
    """Inputs as tensors; labels are 1 for the chosen item, 0 for others, -1 for empty places."""
    labels = np.where(items == NO_ITEM, -1, items == chosen[:, None]).astype(np.float32)
    return {"inputs": inputs.tensors(), "labels": torch.from_numpy(labels)}


class _ListLoss(nn.Module):
    """A joint model with the loss of its lists."""

    def __init__(self, model: JointModel, loss: str) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, inputs: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        """The loss and the logits (U, K) of lists with these labels."""
        logits: Tensor = self.model(**inputs)
        real = labels >= 0
        if self.loss == "softmax":
            logits = logits.masked_fill(~real, float(torch.finfo(logits.dtype).min))
            loss = nn.functional.cross_entropy(logits, (labels == 1).float())
        else:
            loss = nn.functional.binary_cross_entropy_with_logits(logits[real], labels[real])
        return {"loss": loss, "logits": logits}


def _mean_ndcg(prediction: EvalPrediction) -> float:
    labels = np.asarray(prediction.label_ids)
    logits = np.where(labels < 0, -np.inf, np.asarray(prediction.predictions))
    return float(list_ndcg(logits, labels == 1).mean())
