"""Joint models over tiny checkpoints, their inputs, and the same model written out once more, plainly."""

import copy
import dataclasses
from types import SimpleNamespace

import numpy as np
import torch
from tiny_models import catalogue
from torch.nn import functional as F

from encoders.layers import layer_shape, top_layers
from ranker.feedback import KIND_CODES
from ranker.split.inputs import InputReader
from ranker.split.items import ItemReader
from ranker.split.model import JointModel, JointShape
from ranker.states.building import build_store
from retrieval.candidates import NO_ITEM, Candidates, Requests
from retrieval.histories import LOGGED, Histories, weight_levels
from retrieval.queries import Queries

FACTORS, SOURCES, EVENTS = 5, 2, 6
TEXTS = catalogue(12)
HISTORIES = ((3, (5, 2.0, KIND_CODES["cart"]), (7, 0.0, KIND_CODES["hide"])), (0, 1, 2, 4, 6, 8, 10, 11), (9,))


def joint_shape(encoder, joint_layers, **changes):
    sizes = {
        "layer": layer_shape(encoder.model),
        "lower_layers": encoder.model.config.num_hidden_layers - joint_layers,
        "joint_layers": joint_layers,
        "max_tokens": 32,
        "item_vectors": None,
        "factors": FACTORS,
        "sources": SOURCES,
        "max_events": EVENTS,
    }
    return JointShape(**(sizes | changes))


def fresh_model(encoder, joint_layers, seed=0, **changes):
    """A model as training starts from it."""
    shape = joint_shape(encoder, joint_layers, **changes)
    torch.manual_seed(seed)
    return JointModel(shape, top_layers(encoder.model, joint_layers)).eval()


@torch.no_grad()
def moved(model, seed=1, far=0.05):
    """A copy with every weight somewhere else, as after training; the head, which was zero, a little further."""
    model, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        weight += (2 * far if name.startswith(("head", "wide", "deep")) else far) * torch.randn(
            weight.shape, generator=generator
        )
    return model


def item_reader(encoder, shape):
    return ItemReader(encoder, shape, top_layers(encoder.model, shape.joint_layers)[0])


def item_factors(count, length=FACTORS, seed=0):
    return np.random.default_rng(seed).normal(size=(count, length)).astype(np.float32)


def input_reader(folder, encoder, shape, texts, kind="float16"):
    items = item_reader(encoder, shape)
    store = build_store(folder, texts, items.version, items.row_format(kind), items.read)
    return InputReader(store, item_factors(len(texts), shape.factors), shape)


def whole_event(event):
    """(item, weight, kind) of an event that may leave out its kind, or both."""
    given = event if isinstance(event, tuple) else (event,)
    return (*given, *(1.0, LOGGED)[len(given) - 1 :])


def requests(*histories, n_items=1000):
    """Requests of users with these events, oldest first."""
    events = [whole_event(event) for history in histories for event in history]
    rows = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    items = np.array([item for item, _, _ in events], np.int64)
    weights = np.array([weight for _, weight, _ in events], np.float32)
    kinds = np.array([kind for _, _, kind in events], np.uint8)
    table = Histories.from_rows(rows, items, weights, np.arange(len(events)), len(histories), kinds)
    return Requests(table, np.ones(n_items, np.bool_))


def asking(asked, *lines):
    """The same requests with queries whose token states are these lines (T, dim), padded to the longest."""
    lengths = np.array([len(line) for line in lines])
    states = np.full((len(lines), lengths.max(), len(lines[0][0])), np.float16(9))
    for row, line in enumerate(lines):
        states[row, : len(line)] = line
    return dataclasses.replace(asked, queries=Queries(states[:, 0].astype(np.float32), states, lengths))


def candidates(*rows, width=0, seed=0, sources=SOURCES):
    """Candidates with falling scores, padded to the longest row or to the width."""
    rng = np.random.default_rng(seed)
    shape = (len(rows), max(width, *map(len, rows)))
    items = np.full(shape, NO_ITEM)
    scores = np.full(shape, -np.inf, np.float32)
    by_source = np.full((*shape, sources), -np.inf, np.float32)
    for at, row in enumerate(rows):
        items[at, : len(row)] = row
        scores[at, : len(row)] = np.sort(rng.normal(size=len(row)))[::-1]
        by_source[at, : len(row)] = rng.normal(size=(len(row), sources))
    return Candidates(items, scores, by_source, tuple("abcdefgh"[:sources]))


CANDIDATES = candidates([5, 9, 11, 2], [1, 0, 3, 4, 7], [8, 6])


def normal(*shape, seed=0, scale=1.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(scale=scale, size=shape))


def attend(layer, asked, keys, values):
    """Attention of each row of ``asked``, its logits given for keys that may be asked in different ways."""
    dim, heads = layer.shape.dim, layer.shape.heads
    size = dim // heads
    read = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        logits = torch.cat([query[:, part] @ key[:, part].T for query, key in zip(asked, keys, strict=True)], dim=1)
        read.append((logits / size**0.5).softmax(dim=1) @ torch.cat([value[:, part] for value in values]))
    return torch.cat(read, dim=1)


def finished(layer, states, attention):
    def norm(states, part):
        return F.layer_norm(states, (layer.shape.dim,), part.weight, part.bias, layer.shape.epsilon)

    def linear(states, part):
        return states @ part.weight.T + part.bias

    states = norm(states + linear(attention, layer.attended), layer.attended_norm)
    return norm(states + linear(F.gelu(linear(states, layer.widen)), layer.narrow), layer.norm)


def plain_join(joint, tokens, shift, context, places):
    """One joint layer for one item: its first places (P, dim) once they attend to [tokens; context]."""
    layer = joint.layer
    states = tokens[:places]
    queries = states @ layer.query.weight.T + layer.query.bias
    shifted = (states + shift) @ layer.query.weight.T + layer.query.bias
    attention = attend(
        layer,
        (queries, shifted),
        (layer.key(tokens), joint.context_key(context)),
        (layer.value(tokens), joint.context_value(context)),
    )
    return finished(layer, states + shift, attention)


@torch.no_grad()
def plain_state(model, tokens, factors, event_states, event_factors, weights, kinds, query=None):
    """What the top of a model makes of one item for one user, in float64 and without padding, masks or folding.

    Args:
        model: The joint model.
        tokens: (N, dim) what the lower layers make of the item.
        factors: (factors,) the item's.
        event_states: (M, dim) pooled states of the user's events, newest first.
        event_factors: (M, factors).
        weights: (M,) of the events.
        kinds: (M,) of the events.
        query: (T, dim) what the lower layers make of the user's query, where there is one.
    """
    model = copy.deepcopy(model).double()
    tokens, factors, event_states, event_factors = (
        torch.as_tensor(array, dtype=torch.float64) for array in (tokens, factors, event_states, event_factors)
    )
    levels = torch.from_numpy(weight_levels(np.asarray(weights, np.float32)))
    context = event_states + event_factors @ model.of_event.weight.T
    context = context + model.level.weight[levels] + model.age.weight[: len(levels)]
    context = context + model.kind.weight[torch.as_tensor(kinds, dtype=torch.int64)]
    if query is not None:
        context = torch.cat([context, torch.as_tensor(query, dtype=torch.float64) + model.query])
    shift = torch.zeros_like(tokens)
    shift[0] = model.of_item.weight @ factors
    for joint in model.lower:
        tokens = plain_join(joint, tokens, shift, context, len(tokens))
        asked = context @ joint.layer.query.weight.T + joint.layer.query.bias
        read = attend(joint.layer, (asked,), (joint.context_key(context),), (joint.context_value(context),))
        context = finished(joint.layer, context, read)
        shift = torch.zeros_like(tokens)
    return plain_join(model.top, tokens, shift[:1], context, 1)[0]


@torch.no_grad()
def plain_logit(model, *item_and_user, features, query=None):
    state = plain_state(model, *item_and_user, query)
    head, wide, (first, _, last) = model.head, model.wide, model.deep
    told = torch.as_tensor(features)
    deep = torch.nn.functional.gelu(told @ first.weight.T + first.bias) @ last.weight[0]
    return float(state @ head.weight[0].double() + head.bias[0] + told @ wide.weight[0] + deep)


@torch.no_grad()
def states_of(encoder, text, after):
    """The checkpoint's own states (N, dim) of a text after so many layers."""
    (batch,) = encoder.tokens.text_batches([text])
    ids, mask = torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask)
    return encoder.model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[after][0]


@torch.no_grad()
def run(model, inputs):
    """The model's logits (U, K) and the states (U, K, dim) at its top."""
    tops = []
    hook = model.head.register_forward_pre_hook(lambda _, given: tops.append(given[0]))
    logits = model(**inputs.tensors())
    hook.remove()
    return SimpleNamespace(logits=logits.numpy(), states=tops[0].numpy())
