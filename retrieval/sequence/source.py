"""Candidates that a user's events, read in their order, make likely to come next."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from encoders.errors import ArtifactError, ConfigError, InputError
from retrieval.candidates import NO_ITEM, Candidates, Requests, rank_all
from retrieval.histories import Histories
from retrieval.products import every_product, inner_products
from retrieval.sequence.model import NO_EVENT, EventReader, SequenceConfig
from retrieval.sequence.training import Events, SequenceModel, fit_sequence
from retrieval.storage import load_array, load_settings, save_settings

logger = logging.getLogger(__name__)

TABLE, BIAS, PROJECTION = "items.npy", "bias.npy", "projection.npy"
WEIGHTS, SETTINGS = "reader.safetensors", "config.json"


class SequenceRetriever:
    """Scores every item by the state that the event reader is in after a user's newest event.

    No user's state is kept: it is computed from the newest events when it is asked for, so that a click counts at once.
    Only those of the requests that were answered last are, since a fusion asks for candidates and then for scores.

    Args:
        table: (I, dim) representations of the items.
        bias: (I,) added to their scores.
        projection: (dim, F) of what is known of an item, which is all that a new one is represented by.
        reader: What reads events.
        config: The settings that it was trained with.
        model: What was trained, to go on from; it is not saved.
    """

    def __init__(
        self,
        table: NDArray[np.float32],
        bias: NDArray[np.float32],
        projection: NDArray[np.float32],
        reader: EventReader,
        config: SequenceConfig,
        model: SequenceModel | None = None,
    ) -> None:
        self.table = table
        self.bias = bias
        self.projection = projection
        self.config = config
        self.model = model
        self._reader = reader.eval().requires_grad_(False)
        self._last: tuple[Histories, NDArray[np.float32]] | None = None  # one assignment, so threads may share it

    @property
    def n_items(self) -> int:
        """Size of the catalogue."""
        return len(self.table)

    @classmethod
    def fit(
        cls,
        histories: Histories,
        features: NDArray[np.float32],
        config: SequenceConfig,
        seed: int,
        progress: bool = False,
    ) -> SequenceRetriever:
        """Train on users' events: every positive one is predicted from those before it, whatever these were.

        Args:
            histories: Every user's.
            features: (I, F) what is known of every item but its events: text vectors. What was learned from the same
                events, such as factors of ALS, tells what comes next while training, and misleads afterwards.
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
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = SequenceModel(features, _taken(histories, len(features)), config, seed)
        return cls._trained(model, histories, config, config, seed, progress)

    def refit(self, histories: Histories, seed: int, progress: bool = False) -> SequenceRetriever:
        """A source that goes on from this one on a log that holds more events, with the features that this one has.

        Args:
            histories: Every user's, over the same catalogue.
            seed: Of everything random.
            progress: Show a bar.

        Raises:
            InputError: No user has three events, or this source was loaded, so that what was trained is gone.
        """
        if self.model is None:
            raise InputError("The source sequence was loaded: what it was trained with is not kept. Fit it anew.")
        model = copy.deepcopy(self.model).requires_grad_(True)
        model.taken = torch.from_numpy(_taken(histories, self.n_items))
        training = replace(
            self.config.training,
            epochs=self.config.refit_epochs,
            learning_rate=self.config.refit_rate * self.config.training.learning_rate,
        )
        return self._trained(model, histories, self.config, replace(self.config, training=training), seed, progress)

    @classmethod
    def _trained(
        cls,
        model: SequenceModel,
        histories: Histories,
        config: SequenceConfig,
        now: SequenceConfig,
        seed: int,
        progress: bool,
    ) -> SequenceRetriever:
        """A source from this model, trained in place by the settings ``now``; it keeps ``config``."""
        report = fit_sequence(model, histories, now, seed, progress)
        logger.info("Sequence: %d windows, best at step %d of %d.", report.examples, report.best_step, report.steps)
        return cls(*model.representations(), model.reader, config, model)

    def over(self, features: NDArray[np.float32]) -> SequenceRetriever:
        """The same source over a catalogue that has grown.

        Args:
            features: (I + n, F) what is known of every item; of the last n, which are new, it is read.
        """
        new = features[self.n_items :]
        units = new / np.maximum(np.linalg.norm(new, axis=1, keepdims=True), 1e-12)
        table = np.concatenate([self.table, units @ self.projection.T])
        bias = np.concatenate([self.bias, np.full(len(new), self.bias.mean())])
        return SequenceRetriever(table, bias, self.projection, self._reader, self.config)

    def states(self, histories: Histories) -> NDArray[np.float32]:
        """The state (U, dim) after each row's newest event; zeros for a row without a positive event."""
        last = self._last
        if last is None or last[0] is not histories:
            last = self._last = (histories, self._read(histories))
        return last[1]

    def _read(self, histories: Histories) -> NDArray[np.float32]:
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
            scores = every_product(states, self.table)
            scores += self.bias
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
        np.save(folder / PROJECTION, self.projection)
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
        projection = load_array(folder / PROJECTION, np.float32, ndim=2)
        of_dim = table.shape == (len(bias), config.dim) and len(projection) == config.dim
        if config.dim % config.heads or not of_dim:
            raise ArtifactError(
                f"{folder}: a table of {table.shape}, {len(bias)} biases, a projection of {projection.shape} and "
                f"settings with {config.heads} heads of a dim of {config.dim} do not belong together. Save the engine "
                "again."
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
        return cls(table, bias, projection, reader, config)


def _taken(histories: Histories, n_items: int) -> NDArray[np.bool_]:
    """Which items anybody liked, (I,)."""
    taken: NDArray[np.bool_] = np.bincount(histories.liked().items, minlength=n_items) > 0
    return taken
