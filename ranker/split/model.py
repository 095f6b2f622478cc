"""The joint layers: a candidate's tokens attend to themselves and to what its user did."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from pydantic import ConfigDict, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor, nn

from encoders.layers import Layer, LayerShape

MASKED = -1e9  # added to the logit of an event that is padding


LEVELS = 6  # of an event's weight: none, up to 1, up to 2, up to 4, up to 8, more


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class JointShape:
    """Sizes of a joint model.

    Attributes:
        layer: Of each layer.
        lower_layers: How many of a checkpoint's layers read items alone.
        joint_layers: How many above them read candidate and context together.
        max_tokens: Tokens of an item that are kept, the first ones.
        factors: Length of the collaborative vectors.
        features: Retrieval scores of a candidate.
        max_events: Newest events of a user that are read.
    """

    layer: LayerShape
    lower_layers: NonNegativeInt
    joint_layers: PositiveInt
    max_tokens: PositiveInt
    factors: PositiveInt
    features: PositiveInt
    max_events: PositiveInt


@dataclass(frozen=True, slots=True, eq=False)
class Folded:
    """What attention to an item's own tokens gives at some of its places, before the user is known.

    ``own`` and ``weight`` stand for all of the item's own tokens in the softmax that follows: one more key whose logit
    is ``weight`` and whose value is ``own`` gives exactly what attending to the tokens and the context together gives.
    """

    states: Tensor  # (…, P, dim) the places' states, as they enter the layer
    queries: Tensor  # (…, P, dim)
    own: Tensor  # (…, P, dim) attention to the item's own tokens alone
    weight: Tensor  # (…, P, heads) log of the sum of its exponentiated logits


class JointLayer(nn.Module):
    """A pretrained layer whose attention also reaches a context.

    Args:
        layer: Its weights; the context gets copies of its key and value projections.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer
        self.context_key = copy.deepcopy(layer.key)
        self.context_value = copy.deepcopy(layer.value)

    def fold(self, tokens: Tensor, bias: Tensor, places: int) -> Folded:
        """Attention of an item's first ``places`` tokens to all of its own.

        Args:
            tokens: (…, N, dim).
            bias: (…, N) 0 for a token, MASKED for padding.
            places: How many.
        """
        return fold(self.layer, tokens, bias, places)

    def join(self, folded: Folded, shift: Tensor, context: Tensor, bias: Tensor) -> Tensor:
        """Attention to an item's own tokens and to the context, and the rest of the layer.

        Args:
            folded: Of (U, K) items.
            shift: (U, K, P, dim) added to the places' states, and through them to what they ask the context.
            context: (U, M, dim).
            bias: (U, M).

        Returns:
            (U, K, P, dim) states.
        """
        layer = self.layer
        users, items, places, dim = folded.states.shape
        queries = folded.queries + nn.functional.linear(shift, layer.query.weight)
        asked = layer.heads(queries.reshape(users, items * places, dim))  # (U, H, KP, d)
        keys, values = layer.heads(self.context_key(context)), layer.heads(self.context_value(context))
        logits = asked @ keys.transpose(-1, -2) * asked.shape[-1] ** -0.5 + bias[:, None, None, :]
        own_logit = folded.weight.reshape(users, items * places, -1).transpose(1, 2)[..., None]  # (U, H, KP, 1)
        weights = torch.cat([own_logit, logits], dim=-1).softmax(dim=-1)
        own = layer.heads(folded.own.reshape(users, items * places, dim))
        read = weights[..., :1] * own + weights[..., 1:] @ values
        attention = read.transpose(1, 2).reshape(users, items, places, dim)
        return layer.finish(folded.states + shift, attention)

    def read_context(self, context: Tensor, bias: Tensor) -> Tensor:
        """The context as the next layer finds it: every event attends to all of them, and to no candidate."""
        layer = self.layer
        queries, keys = layer.heads(layer.query(context)), layer.heads(self.context_key(context))
        logits = queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5 + bias[:, None, None, :]
        read = logits.softmax(dim=-1) @ layer.heads(self.context_value(context))
        return layer.finish(context, read.transpose(1, 2).flatten(-2))


def fold(layer: Layer, tokens: Tensor, bias: Tensor, places: int) -> Folded:
    """See ``JointLayer.fold``."""
    states = tokens[..., :places, :]
    queries = layer.query(states)
    logits = layer.heads(queries) @ layer.heads(layer.key(tokens)).transpose(-1, -2)
    logits = logits * layer.heads(queries).shape[-1] ** -0.5 + bias[..., None, None, :]
    own = logits.softmax(dim=-1) @ layer.heads(layer.value(tokens))
    weight = logits.logsumexp(dim=-1)
    return Folded(states, queries, own.transpose(-2, -3).flatten(-2), weight.transpose(-1, -2))


class JointModel(nn.Module):
    """From an item's cached states, a user's events and the retrieval scores to one logit per candidate.

    The last layer computes the candidate's first position only. With one joint layer that leaves nothing of the item's
    own tokens to compute: their part of the attention is folded once, offline (``ranker.split.items``).

    Args:
        shape: Its sizes.
        layers: The pretrained layers to start from, lowest first.
    """

    def __init__(self, shape: JointShape, layers: Sequence[Layer]) -> None:
        super().__init__()
        self.shape = shape
        dim = shape.layer.dim
        self.top = JointLayer(layers[-1])  # computes the first position only
        self.lower = nn.ModuleList(JointLayer(layer) for layer in layers[:-1])
        self.level = nn.Embedding(LEVELS, dim)
        self.age = nn.Embedding(shape.max_events, dim)
        self.of_event = nn.Linear(shape.factors, dim, bias=False)
        self.of_item = nn.Linear(shape.factors, dim, bias=False)
        self.head = nn.Linear(dim, 1)
        self.wide = nn.Linear(shape.features, 1, bias=False)
        for table in (self.level.weight, self.age.weight, self.of_event.weight, self.of_item.weight):
            nn.init.normal_(table, std=0.02)
        # Training starts from the fused order, the first feature, and from a head that adds nothing to it.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        nn.init.zeros_(self.wide.weight)
        with torch.no_grad():
            self.wide.weight[0, 0] = 1

    def forward(
        self,
        rows: Tensor,
        row_bias: Tensor,
        factors: Tensor,
        features: Tensor,
        event_states: Tensor,
        event_factors: Tensor,
        event_levels: Tensor,
        event_bias: Tensor,
    ) -> Tensor:
        """Logits (U, K) of U users' candidates.

        Args:
            rows: (U, K, L, width) float16 rows of the store, see ``ranker.split.items``.
            row_bias: (U, K, L) 0 for a row, MASKED for padding.
            factors: (U, K, factors) the candidates' collaborative vectors.
            features: (U, K, features) their retrieval scores, standardised; the first is the fused one.
            event_states: (U, M, dim) float16 pooled states of the items of the user's events, newest first.
            event_factors: (U, M, factors) their collaborative vectors.
            event_levels: (U, M) int64 level of each event's weight, below LEVELS.
            event_bias: (U, M) 0 for an event, MASKED for padding.
        """
        ages = torch.arange(event_levels.shape[1], device=event_levels.device)
        context = event_states.float() + self.of_event(event_factors) + self.level(event_levels) + self.age(ages)
        shift = self.of_item(factors)[:, :, None, :]  # of the first position alone
        if self.shape.joint_layers == 1:
            states = self.top.join(unpacked(rows, self.shape.layer), shift, context, event_bias)
        else:
            states = self._deep(rows[:, :, 1:].float(), row_bias[:, :, 1:], shift, context, event_bias)
        logits: Tensor = (self.head(states[:, :, 0]) + self.wide(features))[:, :, 0]
        return logits

    def _deep(self, tokens: Tensor, bias: Tensor, shift: Tensor, context: Tensor, event_bias: Tensor) -> Tensor:
        shift = nn.functional.pad(shift, (0, 0, 0, tokens.shape[2] - 1))
        for layer in cast("list[JointLayer]", list(self.lower)):
            tokens = layer.join(layer.fold(tokens, bias, tokens.shape[2]), shift, context, event_bias)
            context = layer.read_context(context, event_bias)
            shift = torch.zeros_like(shift)
        return self.top.join(self.top.fold(tokens, bias, 1), shift[:, :, :1], context, event_bias)


def packed(folded: Folded, pooled: Tensor) -> Tensor:
    """A folded item (…, 1, dim) and its pooled state (…, dim) as one float16 row (…, 4 · dim + 2 · heads).

    The weight is a logit, which float16 is too coarse for: it is kept as its rounded value and what rounding left.
    """
    coarse = folded.weight.half()
    fine = (folded.weight - coarse.float()).half()
    parts = [folded.states.half(), folded.queries.half(), folded.own.half(), pooled[..., None, :].half(), coarse, fine]
    return torch.cat(parts, dim=-1).squeeze(-2)


def packed_width(shape: LayerShape) -> int:
    """Length of a packed row."""
    return 4 * shape.dim + 2 * shape.heads


def unpacked(rows: Tensor, shape: LayerShape) -> Folded:
    """What ``packed`` packed; the pooled state is the context's business."""
    dim = shape.dim
    states, queries, own, _ = rows[..., : 4 * dim].float().chunk(4, dim=-1)
    coarse, fine = rows[..., 4 * dim :].float().chunk(2, dim=-1)
    return Folded(states, queries, own, coarse + fine)
