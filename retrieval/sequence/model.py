"""The sequence model: a causal transformer whose inputs and outputs are the same item representations.

SASRec (Kang & McAuley, ICDM 2018) with a softmax over the catalogue as its loss (Klenitskiy & Vasilev, RecSys 2023),
and with biases for relative position and time in its attention, as in HSTU (Zhai et al., ICML 2024).
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from retrieval.histories import LEVELS, LOGGED
from retrieval.training import LoopConfig

NO_EVENT = -1  # fills a row beyond its newest event
MASKED = -1e9  # added to the logit of what may not be read
GAPS = 32  # of time between two events: up to 1 second, then one per doubling
KINDS = 32  # of feedback, at most


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class SequenceConfig:
    """Settings of the sequence source.

    Attributes:
        dim: Width of the transformer, and of an item's representation.
        layers: How many.
        heads: Of each layer's attention; they divide ``dim``.
        max_events: Newest events of a user that are read.
        dropout: Of what a layer adds to a state.
        id_dropout: Share of the items whose own embedding is left out of a training step, so that an item is known by
            its features, too: one that nobody has taken yet has nothing else.
        negatives: Items drawn for each training step, which stand for all others in the softmax; all of them are taken
            where the catalogue is no larger.
        validation_users: Users whose newest event is not learned from but says when to stop, at most a tenth of all.
        training: How it is trained; an example is a window of ``max_events`` events, moved by up to half of that each
            time.
        refit_epochs: Epochs for which a source that was fitted on part of a log goes on when it is fitted on all of it.
        refit_rate: Its learning rate then, as a share of ``training.learning_rate``.
    """

    dim: Annotated[int, Field(ge=1)] = 128
    layers: Annotated[int, Field(ge=1)] = 2
    heads: Annotated[int, Field(ge=1)] = 4
    max_events: Annotated[int, Field(ge=1)] = 100
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    id_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    negatives: Annotated[int, Field(ge=1)] = 10_000
    validation_users: Annotated[int, Field(ge=1)] = 1000
    training: LoopConfig = LoopConfig(
        epochs=12, batch_size=32, learning_rate=2e-3, averaging=0.999, evaluations_per_epoch=1, patience=4
    )
    refit_epochs: Annotated[float, Field(gt=0)] = 2
    refit_rate: Annotated[float, Field(gt=0)] = 0.25


class ItemTable(nn.Module):
    """Representations of all items: an embedding of each one's own, and a projection of its features.

    Args:
        features: (I, F) what is known of every item; the length of a row is taken out.
        dim: Of a representation.
        id_dropout: See ``SequenceConfig``.
    """

    def __init__(self, features: Tensor, dim: int, id_dropout: float) -> None:
        super().__init__()
        self.features = nn.Buffer(functional.normalize(features, dim=1), persistent=False)
        self.own = nn.Parameter(0.02 * torch.randn(len(features), dim))
        self.projection = nn.Linear(features.shape[1], dim, bias=False)
        self.id_dropout = id_dropout

    def forward(self) -> Tensor:
        """(I, dim)."""
        kept = torch.ones(len(self.own), 1, device=self.own.device)
        if self.training:
            kept = kept.bernoulli_(1 - self.id_dropout)
        table: Tensor = kept * self.own + self.projection(self.features)
        return table


class EventReader(nn.Module):
    """From events in their order to a state after each of them, which reads that event and those before it."""

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        dim = config.dim
        self.gap = _zero_embedding(GAPS, dim)
        # what feedback says beyond a logged event, so a kind that no training saw reads as one
        self.kind = _zero_embedding(KINDS, dim, nothing=LOGGED)
        self.level = _zero_embedding(LEVELS, dim)
        self.entrance = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.exit = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, representations: Tensor, places: Tensor, seconds: Tensor, kinds: Tensor, levels: Tensor
    ) -> Tensor:
        """States after each event.

        Args:
            representations: (I, dim) of all items that occur.
            places: (B, L) int64 row of each event's item, oldest first, NO_EVENT after the newest one.
            seconds: (B, L) int64 time of each event, from any start.
            kinds: (B, L) int64 kind of each event; those from KINDS on read as LOGGED.
            levels: (B, L) int64 level of each event's weight.

        Returns:
            (B, L, dim); what stands beside NO_EVENT means nothing.
        """
        length = places.shape[1]
        gaps = torch.diff(seconds, dim=1, prepend=seconds[:, :1])
        known = torch.where(kinds < KINDS, kinds, LOGGED)
        states = representations[places.clamp(min=0)]
        states = states + self.gap(gap_buckets(gaps)) + self.kind(known) + self.level(levels)
        states = self.dropout(self.entrance(states))
        steps = torch.arange(length, device=places.device)
        distances = steps[:, None] - steps
        # no event beyond a row's newest one stands before any that is read, so there is no other padding to mask
        mask = torch.where(distances < 0, MASKED, 0.0)
        buckets = gap_buckets(seconds[:, :, None] - seconds[:, None, :])
        for layer in self.layers:
            states = layer(states, distances.clamp(min=0), buckets, mask)
        read: Tensor = self.exit(states)
        return read


class _Layer(nn.Module):
    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        dim = config.dim
        self.heads = config.heads
        self.before_attention = nn.LayerNorm(dim)
        self.attention_in = nn.Linear(dim, 3 * dim)
        self.attention_out = nn.Linear(dim, dim)
        self.distance = _zero_embedding(config.max_events, config.heads)
        self.gap = _zero_embedding(GAPS, config.heads)
        self.before_dense = nn.LayerNorm(dim)
        self.dense = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, states: Tensor, distances: Tensor, buckets: Tensor, mask: Tensor) -> Tensor:
        batch, length, dim = states.shape
        parts = self.attention_in(self.before_attention(states)).view(batch, length, 3, self.heads, dim // self.heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)  # (B, H, L, dim / H) each
        bias = self.gap(buckets).permute(0, 3, 1, 2) + (self.distance(distances).permute(2, 0, 1) + mask)
        logits = queries @ keys.transpose(-1, -2) * (dim // self.heads) ** -0.5 + bias
        read = (logits.softmax(dim=-1) @ values).transpose(1, 2).reshape(batch, length, dim)
        states = states + self.dropout(self.attention_out(read))
        dense: Tensor = states + self.dropout(self.dense(self.before_dense(states)))
        return dense


def gap_buckets(seconds: Tensor) -> Tensor:
    """Which of GAPS buckets a time between events falls into; a negative one counts as none."""
    return torch.log2(seconds.clamp(min=0) + 1.0).long().clamp(max=GAPS - 1)


def _zero_embedding(count: int, dim: int, nothing: int | None = None) -> nn.Embedding:
    """One that says nothing until it has learned something, and of ``nothing`` never."""
    embedding = nn.Embedding(count, dim, padding_idx=nothing)
    nn.init.zeros_(embedding.weight)
    return embedding
