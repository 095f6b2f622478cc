"""What the joint layers are given: gathered item rows, the user's newest events and query, and the retrieval scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.errors import InputError
from ranker.split.model import MASKED, JointShape
from ranker.states.store import StateStore
from retrieval.candidates import NO_ITEM, Candidates, Requests
from retrieval.fusion import standardised
from retrieval.histories import Histories, weight_levels

LONG = 1000  # events of a long history


@dataclass(frozen=True, slots=True, eq=False)
class JointInputs:
    """Arrays by the names of ``JointModel.forward``'s arguments.

    For U users with K candidates, M events and T tokens of a query each; T is 0 where there is no query.
    """

    rows: NDArray[np.float16]  # (R, width) of the items that occur; the first is zeros
    places: NDArray[np.int64]  # (U, K, L) rows of each candidate; 0 is padding
    factors: NDArray[np.float32]  # (U, K, factors)
    features: NDArray[np.float32]  # (U, K, features)
    event_places: NDArray[np.int64]  # (U, M) rows with the pooled states of each event's item
    event_factors: NDArray[np.float32]  # (U, M, factors)
    event_kinds: NDArray[np.int64]  # (U, M)
    event_levels: NDArray[np.int64]  # (U, M)
    event_bias: NDArray[np.float32]  # (U, M)
    query_states: NDArray[np.float16]  # (U, T, dim)
    query_bias: NDArray[np.float32]  # (U, T)

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

        Raises:
            InputError: An item is not in the store, or the queries' states have another length than the joint layers'.
        """
        items = candidates.items
        query_states, query_bias = query_tokens(requests, self.shape)
        events, kinds, levels, event_bias = newest_events(requests.histories, self.shape.max_events)
        occurring = np.unique(np.concatenate([items.ravel(), events.ravel(), [NO_ITEM]]))  # NO_ITEM comes first
        rows, starts, counts = self._rows(occurring)
        of_items, of_events = np.searchsorted(occurring, items), np.searchsorted(occurring, events)
        return JointInputs(
            rows=rows,
            places=self._places(starts[of_items], counts[of_items]),
            factors=self._factors(items),
            features=features_of(requests, candidates) if features is None else features,
            event_places=starts[of_events],
            event_factors=self._factors(events),
            event_kinds=kinds,
            event_levels=levels,
            event_bias=event_bias,
            query_states=query_states,
            query_bias=query_bias,
        )

    def _rows(self, items: NDArray[np.int64]) -> tuple[NDArray[np.float16], NDArray[np.int64], NDArray[np.int64]]:
        """The rows (R, width) of items (N,), the first of which is NO_ITEM; where each one's begin, and how many."""
        if self.shape.joint_layers == 1:
            return self.store.gather(items), np.arange(len(items)), np.ones(len(items), np.int64)
        padded, counts = self.store.gather_ragged(items, 1 + self.shape.max_tokens)
        kept = np.arange(padded.shape[1]) < np.maximum(counts, 1)[:, None]
        return padded[kept], np.cumsum(np.maximum(counts, 1)) - np.maximum(counts, 1), counts

    def _places(self, starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows (U, K, L) of candidates that have ``counts`` rows from ``starts``, both (U, K)."""
        if self.shape.joint_layers == 1:
            return starts[:, :, None]
        tokens = np.arange(1, max(2, int(counts.max(initial=0))))  # the first row is the pooled one
        return np.where(tokens < counts[:, :, None], starts[:, :, None] + tokens, 0)

    def _factors(self, items: NDArray[np.int64]) -> NDArray[np.float32]:
        found = self.factors[items]
        found[items == NO_ITEM] = 0
        return found


def stacked(several: Sequence[JointInputs]) -> JointInputs:
    """The inputs of several batches as one, padded to the most candidates, rows, events and tokens among them."""
    offsets = np.cumsum([0, *(len(inputs.rows) for inputs in several[:-1])])
    whole = {"rows": np.concatenate([inputs.rows for inputs in several])}
    for field in fields(JointInputs)[1:]:
        arrays = [getattr(inputs, field.name) for inputs in several]
        if field.name in ("places", "event_places"):
            arrays = [np.where(array == 0, 0, array + offset) for array, offset in zip(arrays, offsets, strict=True)]
        shape = (sum(len(array) for array in arrays), *np.max([array.shape[1:] for array in arrays], axis=0))
        whole[field.name] = np.full(shape, MASKED if field.name in ("event_bias", "query_bias") else 0, arrays[0].dtype)
        start = 0
        for array in arrays:
            whole[field.name][start : start + len(array), *(slice(length) for length in array.shape[1:])] = array
            start += len(array)
    return JointInputs(**whole)


def newest_events(
    histories: Histories, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Items, kinds, levels and bias, each (U, M), of each row's newest events, newest first, NO_ITEM beyond its end.

    M is the longest row's number of events, at most ``count`` and at least 1.
    """
    newest = histories.latest(count)
    lengths = newest.lengths
    width = max(1, int(lengths.max(initial=0)))
    items = np.full((len(newest), width), NO_ITEM, np.int64)
    kinds, levels = np.zeros((2, len(newest), width), np.int64)
    ages = np.repeat(newest.indptr[1:], lengths) - 1 - np.arange(len(newest.items))
    items[newest.rows, ages] = newest.items
    kinds[newest.rows, ages] = newest.kinds
    levels[newest.rows, ages] = weight_levels(newest.weights)
    bias = np.where(np.arange(width) < lengths[:, None], 0, MASKED).astype(np.float32)
    return items, kinds, levels, bias


def query_tokens(requests: Requests, shape: JointShape) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """States (U, T, dim) and bias (U, T) of the first tokens of each request's query, zeros beyond its end.

    T is the longest query's number of tokens, at most ``shape.max_tokens``; 0 without queries, or without their states.
    """
    if requests.queries is None:
        return np.zeros((len(requests), 0, shape.layer.dim), np.float16), np.zeros((len(requests), 0), np.float32)
    states = requests.queries.states
    if states.shape[2] != shape.layer.dim:
        raise InputError(
            f"Queries' states have length {states.shape[2]}, the joint layers' {shape.layer.dim}: read queries with "
            "the encoder that read the items."
        )
    lengths = np.minimum(requests.queries.lengths, shape.max_tokens)
    width = int(lengths.max(initial=0))
    real = np.arange(width) < lengths[:, None]
    return np.where(real[:, :, None], states[:, :width], np.float16(0)), np.where(real, 0, MASKED).astype(np.float32)


def features_of(requests: Requests, candidates: Candidates) -> NDArray[np.float32]:
    """(U, K, 3 + 2 S) what retrieval says of each candidate, and of how much of its user it says so.

    The fused score and each source's, standardised among a request's candidates, and their ranks; then the logarithm of
    the history's length, about 1 at most, which tells how far to trust them. A rank is told as minus its logarithm, 0
    for the first; a source that has nothing to say of an item ranks it last.
    """
    scores = np.concatenate([candidates.scores[:, :, None], candidates.by_source], axis=2)
    order = np.argsort(-scores, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(1, scores.shape[1] + 1)[None, :, None], axis=1)
    ranks[np.isneginf(scores)] = scores.shape[1]
    lengths = np.log1p(requests.histories.liked().lengths) / np.log1p(LONG)
    known = np.broadcast_to(lengths.astype(np.float32)[:, None, None], (*candidates.items.shape, 1))
    return np.concatenate([standardised(scores), -np.log(ranks).astype(np.float32), known], axis=2)


def collaborative(item_factors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Item factors (I, d) scaled to a mean length of 1, whatever scale a source gave them."""
    length = np.linalg.norm(item_factors, axis=1).mean()
    return (item_factors / max(float(length), 1e-9)).astype(np.float32)
