"""Training of the sequence model: every event of every user is predicted from those before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from encoders.errors import InputError
from retrieval.histories import MICROSECONDS, Histories, weight_levels
from retrieval.sequence.loss import softmax_loss
from retrieval.sequence.model import NO_EVENT, EventReader, ItemTable, SequenceConfig
from retrieval.training import TrainingReport, check_tracker, train

if TYPE_CHECKING:
    from transformers import EvalPrediction

NO_TARGET = -100  # what came next is not learned: there was nothing, or it was no sign of liking

Window = tuple[int, int, int]  # first and last position, exclusive, of what is read; and what follows, or NO_TARGET


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """Events of several users as the event reader takes them, each (B, L), oldest first."""

    places: NDArray[np.int64]
    seconds: NDArray[np.int64]
    kinds: NDArray[np.int64]
    levels: NDArray[np.int64]

    @classmethod
    def of(cls, histories: Histories, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> Events:
        """The events from ``starts`` to ``stops``, exclusive: positions in ``histories.items``, none of them empty."""
        lengths = stops - starts
        steps = np.arange(int(lengths.max(initial=1)))
        there = steps < lengths[:, None]
        # beyond its end a row repeats its newest event, so that times stay in order
        at = starts[:, None] + np.minimum(steps, lengths[:, None] - 1)
        times = histories.times[at]
        return cls(
            np.where(there, histories.items[at], NO_EVENT),
            (times - times[:, :1]) // MICROSECONDS,
            histories.kinds[at].astype(np.int64),
            weight_levels(histories.weights[at]),
        )

    def tensors(self) -> dict[str, Tensor]:
        """By the names of the event reader's arguments."""
        return {name: torch.from_numpy(getattr(self, name)) for name in ("places", "seconds", "kinds", "levels")}


class SequenceModel(nn.Module):
    """What is trained: representations of the items, and the transformer that reads events made of them.

    Args:
        features: (I, F) what is known of every item.
        taken: (I,) whether anybody took it. Items that nobody did are never negatives, or the model would learn that
            they are never taken: they are what their features say, and as likely as the mean of all others.
        config: Settings.
        seed: Of the negatives.
    """

    def __init__(
        self, features: NDArray[np.float32], taken: NDArray[np.bool_], config: SequenceConfig, seed: int
    ) -> None:
        super().__init__()
        self.items = ItemTable(torch.from_numpy(features), config.dim, config.id_dropout)
        self.bias = nn.Parameter(torch.zeros(len(taken)))
        self.taken = torch.from_numpy(taken)
        self.items.own.data[~self.taken] = 0
        self.reader = EventReader(config)
        self.negatives = config.negatives
        self._generator = torch.Generator().manual_seed(seed)

    def forward(
        self,
        places: Tensor,
        seconds: Tensor,
        kinds: Tensor,
        levels: Tensor,
        labels: Tensor,
        seen: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The loss of what came next.

        Args:
            places: (B, L) as the event reader takes them, and so the next three.
            seconds: (B, L).
            kinds: (B, L).
            levels: (B, L).
            labels: (B, L) the item after each event, or NO_TARGET; with ``seen``, (B, 1) the one after the newest.
            seen: (B, S) items that may not come next, the first repeated to fill a row; without it, the loss alone.

        Returns:
            ``loss``; with ``seen``, also ``logits`` (B, 1), which hold the rank of each label among all items not seen.
        """
        table = self.items()
        states = self.reader(table, places, seconds, kinds, levels)
        if seen is None:
            kept = labels != NO_TARGET
            return {
                "loss": softmax_loss(states[kept], table, self.bias, labels[kept], self._drawn(), int(self.taken.sum()))
            }
        newest = (places != NO_EVENT).sum(dim=1) - 1
        scores = states[torch.arange(len(states)), newest] @ table.T + self.bias
        loss = nn.functional.cross_entropy(scores, labels[:, 0])
        own = scores.gather(1, labels)
        scores.scatter_(1, seen, -torch.inf)
        return {"loss": loss, "logits": (scores >= own).sum(dim=1, keepdim=True).clamp(min=1)}

    def representations(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Table (I, dim) and bias (I,) to score by, and the projection (dim, F) of what is known of an item."""
        self.eval()
        with torch.no_grad():
            bias = torch.where(self.taken, self.bias, self.bias[self.taken].mean())
            return self.items().numpy(), bias.numpy(), self.items.projection.weight.numpy()

    def _drawn(self) -> Tensor:
        known = torch.nonzero(self.taken)[:, 0]
        if self.negatives < len(known):
            known = known[torch.randperm(len(known), generator=self._generator)[: self.negatives]]
        return known.to(self.bias.device)


def fit_sequence(
    model: SequenceModel, histories: Histories, config: SequenceConfig, seed: int, progress: bool
) -> TrainingReport:
    """Train a model in place; some users' newest event, which is not learned from, says when to stop.

    Raises:
        InputError: No user has three events, so there is nothing to learn and to measure by.
        ExtraError: The package that ``config.training.report_to`` names is not installed.
    """
    check_tracker(config.training)
    rng = np.random.default_rng(seed)
    long_enough = np.flatnonzero((histories.lengths >= 3) & (histories.weights[histories.indptr[1:] - 1] > 0))
    if not len(long_enough):
        raise InputError(
            f"The source sequence: none of {len(histories)} users has three events of which the newest is positive, so "
            "there is nothing to learn an order from. Leave sequence out of sources."
        )
    count = min(config.validation_users, max(1, len(histories) // 10))
    measured = rng.permutation(long_enough)[:count]
    held_out = np.zeros(len(histories), np.int64)
    held_out[measured] = 1
    stops = histories.indptr[1:] - held_out
    examples = windows(histories, stops, config.max_events)
    ends = histories.indptr[measured + 1] - 1
    starts = np.maximum(histories.indptr[measured], ends - config.max_events)
    validation = list(zip(starts.tolist(), ends.tolist(), histories.items[ends].tolist(), strict=True))
    collator = _Collator(histories, stops, config.max_events, rng)
    plain = [weight for weight in model.parameters() if weight.ndim == 1]  # gains and biases
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    rate = {"lr": config.training.learning_rate}
    return train(
        model,
        [{"params": decayed, **rate}, {"params": plain, "weight_decay": 0.0, **rate}],
        examples,
        validation,
        collator,
        _mean_ndcg,
        config.training,
        seed,
        progress,
    )


def windows(histories: Histories, stops: NDArray[np.int64], max_events: int) -> list[Window]:
    """Windows of at most ``max_events`` events and the one after; each event but a row's first comes next in one.

    Args:
        histories: Every user's.
        stops: (U,) where each row ends, exclusive: its newest events may be left out.
        max_events: In a window.
    """
    found = []
    for first, stop in zip(histories.indptr[:-1].tolist(), stops.tolist(), strict=True):
        while stop - first >= 2:
            start = max(first, stop - 1 - max_events)
            found.append((start, stop - 1, NO_TARGET))
            stop = start + 1
    return found


class _Collator:
    """Makes batches of windows; of those that say what follows, to be measured by.

    A window to learn from is moved at random within its row, so that an event is not always read after the same ones.
    """

    def __init__(
        self, histories: Histories, stops: NDArray[np.int64], max_events: int, rng: np.random.Generator
    ) -> None:
        self._histories = histories
        self._rows = histories.rows
        self._stops = stops
        self._max_events = max_events
        self._rng = rng

    def __call__(self, examples: list[Window]) -> dict[str, Tensor]:
        starts, stops, following = np.array(examples, np.int64).T
        if following[0] == NO_TARGET:
            starts, stops = self._moved(starts)
            batch = Events.of(self._histories, starts, stops).tensors()
            return batch | {"labels": self._next(batch["places"], starts)}
        batch = Events.of(self._histories, starts, stops).tensors()
        firsts = self._histories.indptr[self._rows[starts]]
        lengths = stops - firsts
        steps = np.arange(lengths.max())
        seen = self._histories.items[firsts[:, None] + np.where(steps < lengths[:, None], steps, 0)]
        return batch | {"labels": torch.from_numpy(following[:, None]), "seen": torch.from_numpy(seen)}

    def _moved(self, starts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Windows near these, by up to half their length, as long as their rows allow."""
        rows = self._rows[starts]
        firsts, ends = self._histories.indptr[rows], self._stops[rows] - 1
        half = self._max_events // 2
        near = starts + self._rng.integers(-half, half, len(starts), endpoint=True)
        moved = np.clip(near, firsts, np.maximum(firsts, ends - self._max_events))
        return moved, np.minimum(moved + self._max_events, ends)

    def _next(self, places: Tensor, starts: NDArray[np.int64]) -> Tensor:
        at = np.minimum(starts[:, None] + 1 + np.arange(places.shape[1]), len(self._histories.items) - 1)
        learned = (places.numpy() != NO_EVENT) & (self._histories.weights[at] > 0)
        return torch.from_numpy(np.where(learned, self._histories.items[at], NO_TARGET))


def _mean_ndcg(prediction: EvalPrediction) -> float:
    ranks = np.asarray(prediction.predictions)[:, 0]
    return float(np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0).mean())
