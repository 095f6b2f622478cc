"""The joint layers: a candidate's tokens attend to themselves, and to what its user did and asked for."""

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
from ranker.feedback.events import N_KINDS
from retrieval.histories import LEVELS, LOGGED

MASKED = -1e9  # added to the logit of what is padding
DEEP = 32  # units between the retrieval scores and what they say together


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class JointShape:
    """Sizes of a joint model.

    Attributes:
        layer: Of each layer.
        lower_layers: How many of a checkpoint's layers read items alone.
        joint_layers: How many above them read candidate and context together.
        max_tokens: Tokens of an item, and of a query, that are read, the first ones.
        item_vectors: Vectors that these are averaged into where several layers are joint; None keeps them all.
        factors: Length of the collaborative vectors.
        sources: Sources whose scores of a candidate are read.
        max_events: Newest events of a user that are read.
    """

    layer: LayerShape
    lower_layers: NonNegativeInt
    joint_layers: PositiveInt
    max_tokens: PositiveInt
    item_vectors: PositiveInt | None
    factors: PositiveInt
    sources: PositiveInt
    max_events: PositiveInt

    @property
    def features(self) -> int:
        """Numbers that tell of a candidate's retrieval, see ``ranker.split.inputs.features_of``."""
        return 2 * (1 + self.sources) + 1


@dataclass(frozen=True, slots=True, eq=False)
class Folded:
    """What attention to an item's own tokens gives at some of its places, before the user is known.

    ``own`` and ``weight`` stand for all of the item's own tokens in the softmax that follows: one more key whose logit
    is ``weight`` and whose value is ``own`` gives exactly what attending to the tokens and the context together gives.
    """

    queries: Tensor  # (…, P, dim)
    own: Tensor  # (…, P, dim) attention to the item's own tokens alone
    weight: Tensor  # (…, P, heads) log of the sum of its exponentiated logits


def folded(layer: Layer, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Folded:
    """Attention of P places to their item's own N tokens.

    Args:
        layer: Says how many heads there are.
        queries: (…, P, dim).
        keys: (…, N, dim).
        values: (…, N, dim).
        bias: (…, N) 0 for a token, MASKED for padding.
    """
    asked = layer.heads(queries)
    logits = asked @ layer.heads(keys).transpose(-1, -2) * asked.shape[-1] ** -0.5 + bias[..., None, None, :]
    own = logits.softmax(dim=-1) @ layer.heads(values)
    return Folded(queries, own.transpose(-2, -3).flatten(-2), logits.logsumexp(dim=-1).transpose(-1, -2))


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

    def attend(self, item: Folded, context: Tensor, bias: Tensor) -> Tensor:
        """Attention to an item's own tokens and to the context together.

        Args:
            item: Of (U, K) items with P places each.
            context: (U, M, dim).
            bias: (U, M) 0 for what is there, MASKED for padding.

        Returns:
            (U, K, P, dim).
        """
        layer = self.layer
        users, items, places, dim = item.queries.shape
        asked = layer.heads(item.queries.reshape(users, items * places, dim))  # (U, H, KP, d)
        keys, values = layer.heads(self.context_key(context)), layer.heads(self.context_value(context))
        logits = asked @ keys.transpose(-1, -2) * asked.shape[-1] ** -0.5 + bias[:, None, None, :]
        own_logit = item.weight.reshape(users, items * places, -1).transpose(1, 2)[..., None]  # (U, H, KP, 1)
        weights = torch.cat([own_logit, logits], dim=-1).softmax(dim=-1)
        own = layer.heads(item.own.reshape(users, items * places, dim))
        read = weights[..., :1] * own + weights[..., 1:] @ values
        return read.transpose(1, 2).reshape(users, items, places, dim)

    def read_context(self, context: Tensor, bias: Tensor) -> Tensor:
        """The context as the next layer finds it: each of it attends to all of it, and to no candidate."""
        layer = self.layer
        queries, keys = layer.heads(layer.query(context)), layer.heads(self.context_key(context))
        logits = queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5 + bias[:, None, None, :]
        read = logits.softmax(dim=-1) @ layer.heads(self.context_value(context))
        return layer.finish(context, read.transpose(1, 2).flatten(-2))


class Table(nn.Embedding):
    """An embedding that draws nothing on the meta device, where torch would import its compiler to do it."""

    def reset_parameters(self) -> None:
        """Draw the table, if there is one."""
        if not self.weight.is_meta:
            super().reset_parameters()


class JointModel(nn.Module):
    """From an item's cached states, a user's events and query, and the retrieval scores to one logit per candidate.

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
        self.kind = Table(N_KINDS, dim, padding_idx=LOGGED)  # what feedback says beyond a logged event
        self.level = Table(LEVELS, dim)
        self.age = Table(shape.max_events, dim)
        self.query = nn.Parameter(torch.zeros(dim))  # what tells a query's tokens from events
        self.of_event = nn.Linear(shape.factors, dim, bias=False)
        self.of_item = nn.Linear(shape.factors, dim, bias=False)
        self.head = nn.Linear(dim, 1)
        self.wide = nn.Linear(shape.features, 1, bias=False)
        for table in (self.level.weight, self.age.weight, self.of_event.weight, self.of_item.weight):
            if not table.is_meta:
                nn.init.normal_(table, std=0.02)
        nn.init.zeros_(self.kind.weight)  # so a kind that no list holds reads as a logged event
        # Training starts from the fused order, the first feature, and from a head that adds nothing to it.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        nn.init.zeros_(self.wide.weight)
        with torch.no_grad():
            self.wide.weight[0, 0] = 1
        last = nn.Linear(DEEP, 1, bias=False)
        nn.init.zeros_(last.weight)
        self.deep = nn.Sequential(nn.Linear(shape.features, DEEP), nn.GELU(), last)

    def forward(
        self,
        rows: Tensor,
        places: Tensor,
        factors: Tensor,
        features: Tensor,
        event_places: Tensor,
        event_factors: Tensor,
        event_kinds: Tensor,
        event_levels: Tensor,
        event_bias: Tensor,
        query_states: Tensor,
        query_bias: Tensor,
    ) -> Tensor:
        """Logits (U, K) of U users' candidates.

        Args:
            rows: (R, width) float16 rows of the items that occur, see ``ranker.split.items``; the first is zeros.
            places: (U, K, L) int64 rows of each candidate; 0 is padding.
            factors: (U, K, factors) the candidates' collaborative vectors.
            features: (U, K, features) their retrieval scores and ranks; the first is the fused score.
            event_places: (U, M) int64 rows that hold the pooled states of the user's events, newest first.
            event_factors: (U, M, factors) their collaborative vectors.
            event_kinds: (U, M) int64 kind of each event, below N_KINDS.
            event_levels: (U, M) int64 level of each event's weight, below LEVELS.
            event_bias: (U, M) 0 for an event, MASKED for padding.
            query_states: (U, T, dim) float16 token states of the user's query; T may be 0.
            query_bias: (U, T) 0 for a token, MASKED for padding.
        """
        ages = torch.arange(event_levels.shape[1], device=event_levels.device)
        pooled = pooled_of(rows[event_places], self.shape)
        context = pooled.float() + self.of_event(event_factors) + self.age(ages)
        context = context + self.kind(event_kinds) + self.level(event_levels)
        context = torch.cat([context, query_states.float() + self.query], dim=1)
        bias = torch.cat([event_bias, query_bias], dim=1)
        if self.shape.joint_layers == 1:
            states = self._single(rows[places[:, :, 0]], factors, context, bias)
        else:
            states = self._several(rows, places, factors, context, bias)
        logits: Tensor = (self.head(states) + self.wide(features) + self.deep(features))[:, :, 0]
        return logits

    def _single(self, rows: Tensor, factors: Tensor, context: Tensor, context_bias: Tensor) -> Tensor:
        """The first place's states (U, K, dim) of items that were folded offline."""
        states, item = unpacked(rows[:, :, None, :], self.shape.layer)
        # The weights are multiplied first: one product of the factors' few columns for each candidate, not of dim.
        asks = self.top.layer.query.weight @ self.of_item.weight
        asked = item.queries + nn.functional.linear(factors, asks)[:, :, None, :]
        item = Folded(asked, item.own, item.weight)
        return self._top(states[:, :, 0] + self.of_item(factors), item, context, context_bias)

    def _several(self, rows: Tensor, places: Tensor, factors: Tensor, context: Tensor, context_bias: Tensor) -> Tensor:
        """The first place's states (U, K, dim) from token states.

        What works on each token by itself works on the T tokens that are there; only attention needs them padded.
        """
        users, items, length = places.shape
        real = places.flatten().nonzero()[:, 0]  # (T,) of them are tokens
        tokens = rows[places.flatten()[real]].float()
        bias = torch.where(places == 0, MASKED, 0.0)
        # 0 is a row of zeros that padding reads, so token t stands in row t + 1
        filled = (places.flatten() != 0).long()
        at = (filled.cumsum(0) * filled).reshape(users, items, length)
        first = (real % length == 0).float()[:, None]  # (T, 1) whether it is its item's first
        shifts = first * self.of_item(factors).reshape(users * items, -1)[real // length]
        for joint in cast("list[JointLayer]", list(self.lower)):
            layer = joint.layer
            queries, keys, values = (_padded(part(tokens), at) for part in (layer.query, layer.key, layer.value))
            item = folded(layer, queries, keys, values, bias)
            asked = item.queries + _padded(nn.functional.linear(shifts, layer.query.weight), at)
            attention = joint.attend(Folded(asked, item.own, item.weight), context, context_bias)
            tokens = layer.finish(tokens + shifts, attention.flatten(0, 2)[real])
            context = joint.read_context(context, context_bias)
            shifts = torch.zeros_like(shifts)
        layer = self.top.layer
        states = _padded(tokens, at[:, :, :1])
        keys, values = (_padded(part(tokens), at) for part in (layer.key, layer.value))
        item = folded(layer, layer.query(states), keys, values, bias)
        return self._top(states[:, :, 0], item, context, context_bias)

    def _top(self, states: Tensor, item: Folded, context: Tensor, context_bias: Tensor) -> Tensor:
        return self.top.layer.finish(states, self.top.attend(item, context, context_bias)[:, :, 0])


def _padded(tokens: Tensor, at: Tensor) -> Tensor:
    """Tokens (T, dim) in their places (…, L): row t of them stands where ``at`` says t + 1, zeros where it says 0."""
    return nn.functional.pad(tokens, (0, 0, 1, 0))[at]


def pooled_of(rows: Tensor, shape: JointShape) -> Tensor:
    """The pooled states (…, dim) in rows (…, width) that hold them."""
    dim = shape.layer.dim
    return rows[..., 3 * dim : 4 * dim] if shape.joint_layers == 1 else rows


def folded_first(layer: Layer, states: Tensor, real: Tensor) -> Folded:
    """Attention of texts' first places to their own tokens: states (B, N, dim), of which ``real`` (B, N) are some."""
    bias = torch.where(real, 0.0, MASKED)
    return folded(layer, layer.query(states[:, :1]), layer.key(states), layer.value(states), bias)


def packed(states: Tensor, item: Folded, pooled: Tensor, dtype: torch.dtype = torch.float16) -> Tensor:
    """An item's first state (…, dim), folded (…, 1, dim), and pooled state (…, dim) as one row.

    The weight is a logit, which float16 is too coarse for: it is kept as its rounded value and what rounding left.
    """
    coarse = item.weight.to(dtype)
    fine = item.weight - coarse.float()
    parts = [states, item.queries[..., 0, :], item.own[..., 0, :], pooled, coarse[..., 0, :], fine[..., 0, :]]
    return torch.cat([part.to(dtype) for part in parts], dim=-1)


def packed_width(shape: LayerShape) -> int:
    """Length of a packed row."""
    return 4 * shape.dim + 2 * shape.heads


def unpacked(rows: Tensor, shape: LayerShape) -> tuple[Tensor, Folded]:
    """The first state and the folded item that ``packed`` packed into rows (…, width)."""
    states, queries, own, _ = rows[..., : 4 * shape.dim].float().chunk(4, dim=-1)
    coarse, fine = rows[..., 4 * shape.dim :].float().chunk(2, dim=-1)
    return states, Folded(queries, own, coarse + fine)
