"""What a joint model makes of a user and a query counts, and what stands beside them in a batch does not."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_joint import (
    CANDIDATES,
    HISTORIES,
    TEXTS,
    asking,
    candidates,
    fresh_model,
    input_reader,
    joint_shape,
    normal,
    requests,
    run,
)

from encoders.layers import top_layers
from ranker.split.inputs import JointInputs
from ranker.split.items import ItemReader
from ranker.split.model import MASKED, JointModel


@pytest.fixture(params=[1, 2, 3])
def joint_layers(request):
    return request.param


@pytest.fixture
def reader(encoder, joint_layers, tmp_path):
    """Inputs from a store of TEXTS, as so many joint layers read them."""
    return input_reader(tmp_path / "store", encoder, fresh_model(encoder, joint_layers).shape, TEXTS)


def padded(inputs, rows=0, events=0, items=0, words=0):
    """The inputs with so much more padding, of a kind that would show if it were read."""
    changed = {}
    for field in dataclasses.fields(inputs):
        array = getattr(inputs, field.name)
        if field.name == "rows":
            widths = [(0, 3)]
        elif field.name.startswith("event"):
            widths = [(0, 0), (0, events)]
        elif field.name.startswith("query"):
            widths = [(0, 0), (0, words)]
        else:
            widths = [(0, 0), (0, items), *([(0, rows)] if field.name == "places" else [])]
        filling = {"event_bias": MASKED, "query_bias": MASKED, "places": 0}.get(field.name, 3)
        widths += [(0, 0)] * (array.ndim - len(widths))
        changed[field.name] = np.pad(array, widths, constant_values=filling)
    return JointInputs(**changed)


def test_padding_changes_nothing(reader, model):
    alone, shown = requests((3, 5), (2,)), candidates([5, 9, 11], [1, 0, 3])
    rows = 3 if model.shape.joint_layers > 1 else 0  # with one joint layer an item is one row
    several = {"events": 1, "items": 1, "rows": rows, "words": 2}
    for asked in (alone, asking(alone, normal(4, 32, seed=1), normal(2, 32, seed=2))):
        inputs = reader.read(asked, shown)
        before = run(model, inputs).logits
        for more in ({"events": 4}, {"items": 2}, {"rows": rows}, {"words": 3}, several):
            after = run(model, padded(inputs, **more)).logits
            np.testing.assert_allclose(after[:, : before.shape[1]], before, atol=1e-5)
            assert np.isfinite(after).all()


def test_a_masked_query_changes_nothing(reader, model):
    asked, shown = requests((3, 5), ()), candidates([5, 9, 11], [1, 0, 3])
    without = reader.read(asked, shown)
    assert without.query_states.shape == (2, 0, 32)
    masked = reader.read(asking(asked, normal(4, 32, seed=1), normal(3, 32, seed=2)), shown)
    masked = dataclasses.replace(masked, query_bias=np.full_like(masked.query_bias, MASKED))
    np.testing.assert_allclose(run(model, masked).logits, run(model, without).logits, atol=1e-5)


def test_what_a_query_says_counts_with_and_without_events(reader, model):
    shown = candidates([5, 9, 11])
    for history in ((3, 5), ()):
        asked = requests(history)
        several = [asked, *(asking(asked, normal(3, 32, seed=seed)) for seed in (1, 2))]
        found = [run(model, reader.read(one, shown)).states for one in several]
        for at, states in enumerate(found):
            assert all(np.abs(states - other).max() > 1e-3 for other in found[:at])


def test_a_query_of_the_same_states_as_an_event_is_told_from_it(reader, model):
    shown, states = candidates([5, 9, 11]), normal(1, 32, seed=1)
    asked = reader.read(asking(requests((3,)), states), shown)
    before = run(model, asked).states
    model.query.data += 1
    assert np.abs(run(model, asked).states - before).max() > 1e-3


def test_a_batch_equals_its_rows_one_by_one(reader, model):
    users = requests(*HISTORIES)
    for batch in (users, asking(users, *(normal(count, 32, seed=count) for count in (2, 5, 1)))):
        whole = run(model, reader.read(batch, CANDIDATES)).logits
        for row in range(len(batch)):
            known = int((CANDIDATES.items[row] >= 0).sum())
            alone = reader.read(batch.take(np.array([row])), CANDIDATES.take(np.array([row])).head(known))
            np.testing.assert_allclose(run(model, alone).logits[0], whole[row, :known], atol=1e-5)


def test_candidates_in_another_order_get_the_same_logits(reader, model):
    asked, before = requests((3, 5, 7)), candidates([5, 9, 11, 2, 0])
    order = np.array([[4, 2, 0, 1, 3]])
    logits = run(model, reader.read(asked, before)).logits
    other = run(model, reader.read(asked, before.at(order))).logits
    np.testing.assert_allclose(other, np.take_along_axis(logits, order, 1), atol=1e-5)


def test_what_a_user_did_and_in_which_order_counts(reader, model):
    shown = candidates([5, 9, 11])
    histories = ((3, 7), (7, 3), (3, 7, 7), (3, (7, 8.0)), (3, (7, 3.0)), (3, 8))
    found = [run(model, reader.read(requests(history), shown)).states for history in histories]
    for at, states in enumerate(found):
        assert all(np.abs(states - other).max() > 1e-3 for other in found[:at])


def test_an_untrained_model_scores_by_the_fused_score_alone(encoder, joint_layers, reader):
    inputs = reader.read(requests(*HISTORIES), CANDIDATES)
    logits = run(fresh_model(encoder, joint_layers), inputs).logits
    np.testing.assert_array_equal(logits, inputs.features[:, :, 0])
    for row, items in enumerate(CANDIDATES.items):
        known = items >= 0
        assert np.argsort(-logits[row, known], kind="stable").tolist() == list(range(known.sum()))


def test_training_the_model_leaves_the_layer_that_items_are_folded_through(encoder, joint_layers):
    layers = top_layers(encoder.model, joint_layers)
    model = JointModel(joint_shape(encoder, joint_layers), layers)
    items = ItemReader(encoder, model.shape, layers[0])
    before = items.version
    assert all(weight.requires_grad for weight in model.parameters())
    with torch.no_grad():
        for weight in model.parameters():
            weight += 1
    assert items.version == before
