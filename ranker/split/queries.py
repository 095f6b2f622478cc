"""Free-text queries for the joint layers: how they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from encoders import StateEncoder
from retrieval.queries import Queries


def read_queries(encoder: StateEncoder, texts: Sequence[str], lower_layers: int, max_tokens: int) -> Queries:
    """The vector and the first token states of each text, from one pass of the encoder.

    Args:
        encoder: The one that read the items.
        texts: U texts.
        lower_layers: Layers after which the states are taken.
        max_tokens: States that are kept of a text; what comes after them is in its vector alone.

    Raises:
        ConfigError: The encoder cannot give the states after so many layers.
        InputError: An entry is not a string.
    """
    batches = [
        replace(batch, states=batch.states[:, :max_tokens].astype(np.float16))
        for batch in encoder.read(texts, lower_layers)
    ]
    width = max((batch.states.shape[1] for batch in batches), default=0)
    vectors = np.zeros((len(texts), encoder.dim), np.float32)
    states = np.zeros((len(texts), width, encoder.dim), np.float16)
    lengths = np.zeros(len(texts), np.int64)
    for batch in batches:
        vectors[batch.rows] = batch.vectors
        states[batch.rows, : batch.states.shape[1]] = batch.states
        lengths[batch.rows] = np.minimum(batch.lengths, max_tokens)
    return Queries(vectors, states, lengths)
