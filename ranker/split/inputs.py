"""What the joint layers are given: gathered item rows, the user's newest events, and the retrieval scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray

from ranker.split.model import LEVELS, MASKED, JointShape
from ranker.states.store import StateStore
from retrieval.candidates import NO_ITEM, Candidates, Requests
from retrieval.fusion import standardised
from retrieval.histories import Histories


@dataclass(frozen=True, slots=True, eq=False)
class JointInputs:
    """Arrays by the names of ``JointModel.forward``'s arguments, for U users with K candidates and M events each."""

    rows: NDArray[np.float16]  # (U, K, L, width)
    row_bias: NDArray[np.float32]  # (U, K, L)
    factors: NDArray[np.float32]  # (U, K, factors)
    features: NDArray[np.float32]  # (U, K, features)
    event_states: NDArray[np.float16]  # (U, M, dim)
    event_factors: NDArray[np.float32]  # (U, M, factors)
    event_levels: NDArray[np.int64]  # (U, M)
    event_bias: NDArray[np.float32]  # (U, M)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The same as tensors, without a copy."""
        return {field.name: torch.from_numpy(getattr(self, field.name)) for field in fields(self)}


class InputReader:
    """Gathers inputs from the store.

    Args:
        store: Rows of every item.
        factors: (I, factors) collaborative vectors, the ones that the joint layers were trained with.
        shape: Of the joint layers.
    """

    def __init__(self, store: StateStore, factors: NDArray[np.float32], shape: JointShape) -> None:
        self.store = store
        self.factors = factors
        self.shape = shape

    def over(self, store: StateStore) -> InputReader:
        """The same over another store of the same items."""
        return InputReader(store, self.factors, self.shape)

    def read(
        self, requests: Requests, candidates: Candidates, features: NDArray[np.float32] | None = None
    ) -> JointInputs:
        """The inputs of these candidates (U, K); NO_ITEM gives zeros, which the caller passes over.

        Args:
            requests: U requests.
            candidates: Theirs.
            features: (U, K, features) where the candidates are some of those among which their scores are standardised.
        """
        items = candidates.items
        rows, row_bias = self._rows(items)
        events, levels, event_bias = newest_events(requests.histories, self.shape.max_events)
        return JointInputs(
            rows=rows,
            row_bias=row_bias,
            factors=self._factors(items),
            features=scores_of(candidates) if features is None else features,
            event_states=self._pooled(events),
            event_factors=self._factors(events),
            event_levels=levels,
            event_bias=event_bias,
        )

    def _rows(self, items: NDArray[np.int64]) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
        if self.shape.joint_layers == 1:
            return self.store.gather(items)[:, :, None, :], np.zeros((*items.shape, 1), np.float32)
        rows, counts = self.store.gather_ragged(items, 1 + self.shape.max_tokens)
        # An absent item has no row at all; its first place counts as one, for a softmax over nothing is no number.
        missing = max(0, 2 - rows.shape[2])  # where all are absent
        rows = np.pad(rows, ((0, 0), (0, 0), (0, missing), (0, 0))) if missing else rows
        places = np.arange(rows.shape[2])
        bias = np.where(places < np.maximum(counts, 2)[..., None], 0, MASKED).astype(np.float32)
        return rows, bias

    def _pooled(self, items: NDArray[np.int64]) -> NDArray[np.float16]:
        if self.shape.joint_layers == 1:
            dim = self.shape.layer.dim
            return np.ascontiguousarray(self.store.gather(items)[..., 3 * dim : 4 * dim])
        return self.store.gather_ragged(items, 1)[0][:, :, 0]

    def _factors(self, items: NDArray[np.int64]) -> NDArray[np.float32]:
        found = self.factors[items]
        found[items == NO_ITEM] = 0
        return found


def stacked(several: Sequence[JointInputs]) -> JointInputs:
    """The inputs of several batches as one, padded to the most candidates, rows and events among them."""
    whole = {}
    for field in fields(JointInputs):
        arrays = [getattr(inputs, field.name) for inputs in several]
        shape = (sum(len(array) for array in arrays), *np.max([array.shape[1:] for array in arrays], axis=0))
        whole[field.name] = np.full(shape, MASKED if field.name.endswith("bias") else 0, arrays[0].dtype)
        start = 0
        for array in arrays:
            whole[field.name][start : start + len(array), *(slice(length) for length in array.shape[1:])] = array
            start += len(array)
    return JointInputs(**whole)


def newest_events(histories: Histories, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Items, levels and bias, each (U, M), of each row's newest events, newest first, NO_ITEM beyond a row's end.

    M is the longest row's number of events, at most ``count`` and at least 1.
    """
    newest = histories.latest(count)
    lengths = newest.lengths
    width = max(1, int(lengths.max(initial=0)))
    items = np.full((len(newest), width), NO_ITEM, np.int64)
    levels = np.zeros((len(newest), width), np.int64)
    ages = np.repeat(newest.indptr[1:], lengths) - 1 - np.arange(len(newest.items))
    items[newest.rows, ages] = newest.items
    levels[newest.rows, ages] = weight_levels(newest.weights)
    bias = np.where(np.arange(width) < lengths[:, None], 0, MASKED).astype(np.float32)
    return items, levels, bias


def weight_levels(weights: NDArray[np.float32]) -> NDArray[np.int64]:
    """Which of LEVELS levels a weight has: 0 for none, as of a negative event, then one per doubling from 1."""
    doublings = np.ceil(np.log2(np.maximum(weights, 1)))
    return np.where(weights > 0, 1 + np.clip(doublings, 0, LEVELS - 2), 0).astype(np.int64)


def scores_of(candidates: Candidates) -> NDArray[np.float32]:
    """(U, K, 1 + S) the fused score and each source's, standardised among a request's candidates."""
    return standardised(np.concatenate([candidates.scores[:, :, None], candidates.by_source], axis=2))


def collaborative(item_factors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Item factors (I, d) scaled to a mean length of 1, whatever scale a source gave them."""
    length = np.linalg.norm(item_factors, axis=1).mean()
    return (item_factors / max(float(length), 1e-9)).astype(np.float32)
