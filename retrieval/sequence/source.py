"""Candidates that a user's events, read in their order, make likely to come next."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from encoders.errors import ArtifactError, ConfigError
from retrieval.candidates import NO_ITEM, Candidates, Requests, inner_products, rank_all
from retrieval.histories import Histories
from retrieval.sequence.model import NO_EVENT, EventReader, SequenceConfig
from retrieval.sequence.training import Events, SequenceModel, fit_sequence
from retrieval.storage import load_array, load_settings, save_settings

logger = logging.getLogger(__name__)

TABLE, BIAS, WEIGHTS, SETTINGS = "items.npy", "bias.npy", "reader.safetensors", "config.json"


class SequenceRetriever:
    """Scores every item by the state that the event reader is in after a user's newest event.

    No state is kept: it is computed from the newest events when it is asked for, so that a click counts at once.

    Args:
        table: (I, dim) representations of the items.
        bias: (I,) added to their scores.
        reader: What reads events.
        config: The settings that it was trained with.
    """

    def __init__(
        self, table: NDArray[np.float32], bias: NDArray[np.float32], reader: EventReader, config: SequenceConfig
    ) -> None:
        self.table = table
        self.bias = bias
        self.config = config
        self._reader = reader.eval().requires_grad_(False)

    @property
    def n_items(self) -> int:
        """Size of the catalogue."""
        return len(self.table)

    @classmethod
    def fit(
        cls,
        histories: Histories,
        features: Sequence[NDArray[np.float32]],
        config: SequenceConfig,
        seed: int,
        progress: bool = False,
    ) -> SequenceRetriever:
        """Train on users' events: every positive one is predicted from those before it, whatever these were.

        Args:
            histories: Every user's.
            features: (I, F) each, what is known of every item beside the order of its events: text vectors, factors.
            config: Settings.
            seed: Of everything random.
            progress: Show a bar.

        Raises:
            ConfigError: The heads do not divide the width.
            InputError: No user has three events.
            ExtraError: The package that ``config.training.report_to`` names is not installed.
        """
        if config.dim % config.heads:
            raise ConfigError(f"sequence: {config.heads} heads do not divide a dim of {config.dim}; take a divisor.")
        taken = np.bincount(histories.liked().items, minlength=len(features[0])) > 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = SequenceModel(features, taken, config, seed)
        report = fit_sequence(model, histories, config, seed, progress)
        logger.info("Sequence: %d windows, best at step %d of %d.", report.examples, report.best_step, report.steps)
        table, bias = model.representations()
        return cls(table, bias, model.reader, config)

    def states(self, histories: Histories) -> NDArray[np.float32]:
        """The state (U, dim) after each row's newest event; zeros for a row without a positive event."""
        states = np.zeros((len(histories), self.config.dim), np.float32)
        rows = np.flatnonzero(histories.liked().lengths)
        if len(rows):
            stops = histories.indptr[rows + 1]
            starts = np.maximum(histories.indptr[rows], stops - self.config.max_events)
            events = Events.of(histories, starts, stops).tensors()
            occurring, places = np.unique(events["places"], return_inverse=True)  # NO_EVENT, if any, comes first
            padded = int(occurring[0] == NO_EVENT)
            events["places"] = torch.from_numpy(places - padded)
            with torch.inference_mode():
                read = self._reader(torch.from_numpy(self.table[occurring[padded:]]), **events)
            states[rows] = read[torch.arange(len(rows)), torch.from_numpy(stops - starts - 1)].numpy()
        return states

    def retrieve(self, requests: Requests, k: int) -> Candidates:
        """At most ``k`` items for each request, best first; none for a user without a positive event."""

        def score_block(block: Requests) -> NDArray[np.float32]:
            states = self.states(block.histories)
            scores: NDArray[np.float32] = states @ self.table.T + self.bias
            scores[~states.any(axis=1)] = -np.inf
            return scores

        return rank_all("sequence", requests, k, score_block)

    def score(self, requests: Requests, items: NDArray[np.int64]) -> NDArray[np.float32]:
        """The logit of given items (U, K); -inf for a user without a positive event."""
        states = self.states(requests.histories)
        logits = inner_products(states, self.table, items) + self.bias[items]
        nothing = (items == NO_ITEM) | ~states.any(axis=1, keepdims=True)
        return np.where(nothing, np.float32(-np.inf), logits)

    def save(self, folder: Path) -> None:
        """Write weights and settings into this empty folder."""
        np.save(folder / TABLE, self.table)
        np.save(folder / BIAS, self.bias)
        save_file(self._reader.state_dict(), folder / WEIGHTS)
        save_settings(self.config, folder / SETTINGS)

    @classmethod
    def load(cls, folder: Path) -> SequenceRetriever:
        """Read what ``save`` wrote; the table stays memory-mapped.

        Raises:
            ArtifactError: A file is missing or damaged, or they do not belong together.
        """
        config = load_settings(SequenceConfig, folder / SETTINGS)
        table = load_array(folder / TABLE, np.float32, ndim=2)
        bias = load_array(folder / BIAS, np.float32, ndim=1)
        if config.dim % config.heads or table.shape != (len(bias), config.dim):
            raise ArtifactError(
                f"{folder}: a table of {table.shape}, {len(bias)} biases and settings with {config.heads} heads of a "
                f"dim of {config.dim} do not belong together. Save the engine again."
            )
        reader = EventReader(config)
        try:
            reader.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise ArtifactError(
                f"{folder / WEIGHTS}: not this reader's weights ({reason}). Save the engine again."
            ) from error
        if not all(weight.isfinite().all() for weight in reader.parameters()):
            raise ArtifactError(f"{folder / WEIGHTS}: some weights are no finite numbers. Save the engine again.")
        return cls(table, bias, reader, config)
