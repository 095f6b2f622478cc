"""The joint layers compute what attention over an item's own tokens and its user's events together gives."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_joint import (
    CANDIDATES,
    HISTORIES,
    TEXTS,
    fresh_model,
    input_reader,
    moved,
    normal,
    plain_join,
    plain_logit,
    plain_state,
    requests,
    run,
    states_of,
    whole_event,
)
from tiny_models import distilbert_checkpoint, roberta_checkpoint

from encoders import TextEncoder, TextEncoderConfig
from encoders.layers import LayerShape
from ranker.feedback import N_KINDS
from ranker.split.inputs import JointInputs
from ranker.split.model import MASKED, Folded, folded, packed, packed_width, pooled_of, unpacked
from retrieval.histories import LEVELS, LOGGED


@pytest.fixture(scope="module")
def encoders(checkpoint, tmp_path_factory):
    """An encoder of every family, by name."""
    config = TextEncoderConfig(max_tokens=32, batch_size=4, device="cpu")
    folders = {
        "bert": checkpoint,
        "distilbert": distilbert_checkpoint(tmp_path_factory.mktemp("distilbert")),
        "roberta": roberta_checkpoint(tmp_path_factory.mktemp("roberta")),
    }
    return {name: TextEncoder.load(folder, config) for name, folder in folders.items()}


@pytest.fixture(params=["bert", "distilbert", "roberta"])
def encoder(request, encoders):
    return encoders[request.param]


@pytest.fixture(params=[1, 2, 3])
def joint_layers(request):
    return request.param


@torch.no_grad()
def fold_of(layer, line):
    """A packed row (1, width) of an item's states (N, dim), in float32."""
    item = folded(layer, layer.query(line[:1]), layer.key(line), layer.value(line), torch.zeros(len(line)))
    parts = [line[:1], item.queries, item.own, torch.zeros_like(line[:1]), item.weight, torch.zeros_like(item.weight)]
    return torch.cat(parts, dim=1)


def unrounded(model, lines, users, width=1, queries=None):
    """Inputs of items (K, N, dim) and users' (states, factors, levels, kinds), in float32, not float16.

    Users may have queries, whose states (T, dim) may be none at all.
    """
    shape, dim = model.shape, model.shape.layer.dim
    blank = torch.zeros(1, packed_width(shape.layer) if shape.joint_layers == 1 else dim)
    rows = [fold_of(model.top.layer, line) if shape.joint_layers == 1 else line for line in lines]
    ends = np.cumsum([len(line) for line in rows])
    places = np.zeros((len(lines), max(map(len, rows))), np.int64)
    for at, line in enumerate(rows):
        places[at, : len(line)] = 1 + ends[at] - len(line) + np.arange(len(line))
    rows = [blank, *rows]
    events = max(width, *(len(user[0]) for user in users))
    event_factors = np.zeros((len(users), events, shape.factors))
    event_places, levels, kinds = np.zeros((3, len(users), events), np.int64)
    event_bias = np.full((len(users), events), MASKED)
    for at, (pooled, factors, level, kind) in enumerate(users):
        event_places[at, : len(pooled)] = sum(map(len, rows)) + np.arange(len(pooled))
        rows.append(torch.zeros(len(pooled), blank.shape[1]))
        pooled_of(rows[-1], shape)[:] = torch.as_tensor(pooled)
        event_factors[at, : len(pooled)] = factors
        levels[at, : len(pooled)], kinds[at, : len(pooled)], event_bias[at, : len(pooled)] = level, kind, 0
    queries = [np.empty((0, dim))] * len(users) if queries is None else queries
    words = max(map(len, queries))
    query_states, query_bias = np.full((len(users), words, dim), 9.0), np.full((len(users), words), MASKED)
    for at, query in enumerate(queries):
        query_states[at, : len(query)], query_bias[at, : len(query)] = query, 0
    return JointInputs(
        rows=torch.cat(rows).numpy(),
        places=places[None].repeat(len(users), 0),
        factors=normal(1, len(lines), shape.factors, seed=7).float().numpy().repeat(len(users), 0),
        features=normal(len(users), len(lines), shape.features, seed=8).float().numpy(),
        event_places=event_places,
        event_factors=event_factors.astype(np.float32),
        event_kinds=kinds,
        event_levels=levels,
        event_bias=event_bias.astype(np.float32),
        query_states=query_states.astype(np.float32),
        query_bias=query_bias.astype(np.float32),
    )


@torch.no_grad()
@pytest.mark.parametrize("places", [1, 4, 9])
def test_folding_then_joining_is_attention_over_tokens_and_context_together(encoder, places):
    joint = moved(fresh_model(encoder, 1), far=0.2).top.double()
    dim = joint.layer.shape.dim
    tokens, shift = normal(2, 3, 9, dim, seed=1), normal(2, 3, places, dim, seed=2)
    context = normal(2, 5, dim, seed=3)
    lengths, events = (9, 4, 1), (5, 2)
    bias = torch.where(torch.arange(9) < torch.tensor(lengths)[:, None], 0.0, MASKED).expand(2, 3, 9).double()
    event_bias = torch.where(torch.arange(5) < torch.tensor(events)[:, None], 0.0, MASKED).double()
    layer, first = joint.layer, tokens[:, :, :places]
    item = folded(layer, layer.query(first), layer.key(tokens), layer.value(tokens), bias)
    asked = item.queries + shift @ layer.query.weight.T
    joined = layer.finish(first + shift, joint.attend(Folded(asked, item.own, item.weight), context, event_bias))
    for user in range(2):
        for item in range(3):
            count = min(places, lengths[item])
            expected = plain_join(
                joint,
                tokens[user, item, : lengths[item]],
                shift[user, item, :count],
                context[user, : events[user]],
                count,
            )
            torch.testing.assert_close(joined[user, item, :count], expected, atol=1e-5, rtol=0)


def test_a_whole_model_is_its_layers_one_after_the_other_in_full(encoder, joint_layers):
    joint_layers = min(joint_layers, encoder.model.config.num_hidden_layers)
    model = moved(fresh_model(encoder, joint_layers))
    dim, factors = model.shape.layer.dim, model.shape.factors
    lines = [normal(count, dim, seed=count).float() for count in (7, 3, 1)]
    weights = [[1.0, 2.0, 9.0], [4.0]]
    levels = [[1, 2, LEVELS - 1], [3]]
    kinds = [[LOGGED, N_KINDS - 1, 1], [2]]
    users = [
        (normal(len(level), dim, seed=20 + at), normal(len(level), factors, seed=30 + at), level, kind)
        for at, (level, kind) in enumerate(zip(levels, kinds, strict=True))
    ]
    for lengths in ((0, 0), (2, 5), (3, 0)):
        queries = [normal(length, dim, seed=40 + length) for length in lengths]
        inputs = unrounded(model, lines, users, queries=queries)
        found = run(model, inputs)
        for user, (pooled, event_factors, _, kind) in enumerate(users):
            for item, line in enumerate(lines):
                given = (line, inputs.factors[user, item], pooled, event_factors, weights[user], kind)
                state = plain_state(model, *given, queries[user])
                np.testing.assert_allclose(found.states[user, item], state, atol=1e-5)
                logit = plain_logit(model, *given, features=inputs.features[user, item], query=queries[user])
                np.testing.assert_allclose(found.logits[user, item], logit, atol=2e-5)


@pytest.mark.parametrize("events", [1, 4])
def test_without_context_and_factors_pretrained_layers_end_at_the_checkpoints_own_state(encoder, joint_layers, events):
    count = encoder.model.config.num_hidden_layers
    joint_layers = {3: count}.get(joint_layers, joint_layers)  # the last of the three is all of them
    model = fresh_model(encoder, joint_layers)
    lines = [states_of(encoder, text, count - joint_layers) for text in TEXTS]
    nobody = (np.empty((0, model.shape.layer.dim)), np.empty((0, model.shape.factors)), np.empty(0), np.empty(0))
    inputs = unrounded(model, lines, [nobody], width=events)
    inputs = dataclasses.replace(inputs, factors=np.zeros_like(inputs.factors))
    found = run(model, inputs).states[0]
    for text, state in zip(TEXTS, found, strict=True):
        np.testing.assert_allclose(state, states_of(encoder, text, count)[0], atol=1e-5)


def test_cached_states_score_as_texts_do_in_full(encoder, joint_layers, tmp_path):
    count = encoder.model.config.num_hidden_layers
    joint_layers = min(joint_layers, count)
    fresh = fresh_model(encoder, joint_layers)
    for model in (fresh, moved_above_the_fold(fresh)):
        reader = input_reader(tmp_path / "store", encoder, model.shape, TEXTS)
        inputs = reader.read(requests(*HISTORIES), CANDIDATES)
        found = run(model, inputs)
        states = [states_of(encoder, text, count - joint_layers) for text in TEXTS]
        pooled = torch.stack([line.mean(0) for line in states])
        for user, history in enumerate(HISTORIES):
            newest = [whole_event(event) for event in history[::-1]][: model.shape.max_events]
            events = [item for item, _, _ in newest]
            weights, kinds = [weight for _, weight, _ in newest], [kind for _, _, kind in newest]
            for at, item in enumerate(CANDIDATES.items[user]):
                if item >= 0:
                    logit = plain_logit(
                        model, states[item], reader.factors[item], pooled[events], reader.factors[events], weights,
                        kinds, features=inputs.features[user, at],
                    )  # fmt: skip
                    np.testing.assert_allclose(found.logits[user, at], logit, atol=1e-3)


@torch.no_grad()
def moved_above_the_fold(model):
    """A copy with all weights moved but those through which a single joint layer's items are folded."""
    after = moved(model)
    if model.shape.joint_layers == 1:
        for name in ("query", "key", "value"):
            getattr(after.top.layer, name).load_state_dict(getattr(model.top.layer, name).state_dict())
    return after


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 1.0, 30.0]))
def test_packing_keeps_states_to_float16_and_the_weight_to_more(seed, size):
    shape = LayerShape(8, 2, 16, "gelu", 1e-12)
    states, queries, own, pooled = normal(4, 3, 1, 8, seed=seed).float()
    weight = size * normal(3, 1, 2, seed=seed + 1).float() + size
    rows = packed(states[:, 0], Folded(queries, own, weight), pooled[:, 0])
    assert rows.shape == (3, packed_width(shape))
    assert rows.dtype == torch.float16
    found_states, found = unpacked(rows[:, None], shape)
    for value, expected in ((found_states, states), (found.queries, queries), (found.own, own)):
        torch.testing.assert_close(value, expected, atol=1e-7, rtol=2**-11)
    torch.testing.assert_close(found.weight, weight, atol=1e-5, rtol=2e-7)
    torch.testing.assert_close(rows[:, 3 * 8 : 4 * 8].float(), pooled[:, 0], atol=1e-7, rtol=2**-11)
