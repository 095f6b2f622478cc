"""An item's rows depend on its text, the encoder and the cut alone, and their version says when they would differ."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_joint import fresh_model, item_reader, joint_shape, states_of
from tiny_models import catalogue, exported

from encoders import TextEncoder, TextEncoderConfig
from encoders.errors import ArtifactError, ConfigError, InputError
from encoders.layers import layer_shape, top_layers
from ranker.split.items import ItemReader
from ranker.split.model import folded, packed
from ranker.states.building import build_store

TEXTS = catalogue(11)


def load(checkpoint, **changes):
    return TextEncoder.load(checkpoint, TextEncoderConfig(**({"max_tokens": 32, "batch_size": 4} | changes)))


@pytest.fixture(scope="module")
def encoder(checkpoint):
    return load(checkpoint)


@pytest.fixture(params=[1, 2])
def joint_layers(request):
    return request.param


@pytest.fixture
def items(encoder, joint_layers):
    return item_reader(encoder, joint_shape(encoder, joint_layers))


def rows_of(items, texts):
    """The rows of every text, in the order of the texts."""
    found = {}
    for batch in items.read(texts):
        ends = np.cumsum(batch.counts)
        for place, end, count in zip(batch.places.tolist(), ends, batch.counts, strict=True):
            assert place not in found
            found[place] = batch.rows[end - count : end]
    return [found[place] for place in range(len(texts))]


@torch.no_grad()
def expected_rows(items, text):
    """The rows of a text, from the checkpoint's states of this text alone."""
    shape, encoder = items.shape, items.encoder
    states = states_of(encoder, text, shape.lower_layers)[: shape.max_tokens]
    pooled = states.mean(0)
    if shape.joint_layers > 1:
        return torch.cat([pooled[None], states]).half().numpy()
    (folding,) = top_layers(encoder.model, 1)
    query, keys, values = folding.query(states[:1]), folding.key(states), folding.value(states)
    return packed(states[0], folded(folding, query, keys, values, torch.zeros(len(states))), pooled)[None].numpy()


def assert_near(one, other):
    """Equal but for sums in another order, which may round to the next float16."""
    assert one.shape == other.shape
    assert one.dtype == other.dtype == np.float16
    dim = 32
    parts = [slice(0, 4 * dim)] if one.shape[1] > dim else [slice(None)]
    for part in parts:
        np.testing.assert_allclose(one[:, part], other[:, part], atol=1e-3, rtol=2e-3)
    if one.shape[1] > dim:
        coarse, fine = (rows[:, 4 * dim :].astype(np.float64).reshape(-1, 2, 4).sum(1) for rows in (one, other))
        np.testing.assert_allclose(coarse, fine, atol=2e-5)  # the weight, whatever its two halves are


@pytest.mark.parametrize("max_tokens", [1, 5, 32])
def test_rows_are_what_the_checkpoint_makes_of_each_text_alone(encoder, joint_layers, max_tokens):
    items = item_reader(encoder, joint_shape(encoder, joint_layers, max_tokens=max_tokens))
    found = rows_of(items, TEXTS)
    for text, rows in zip(TEXTS, found, strict=True):
        assert_near(rows, expected_rows(items, text))
        assert rows.shape[1] == items.width
        assert len(rows) == (1 if joint_layers == 1 else 1 + min(max_tokens, len(states_of(encoder, text, 0))))
    assert any(len(states_of(encoder, text, 0)) > 5 for text in TEXTS)


@settings(deadline=None, max_examples=20)
@given(st.permutations(TEXTS), st.integers(1, len(TEXTS)), st.sampled_from([1, 2]))
def test_rows_do_not_depend_on_what_else_is_read(encoder, texts, count, joint_layers):
    items = item_reader(encoder, joint_shape(encoder, joint_layers, max_tokens=9))
    for text, rows in zip(texts[:count], rows_of(items, texts[:count]), strict=True):
        assert_near(rows, expected_rows(items, text))


def test_texts_of_any_kind_get_finite_rows(items):
    for rows in rows_of(items, ["", " ", "cat " * 99, "\ud800", "猫"]):
        assert np.isfinite(rows).all()


def test_no_texts_give_no_rows(items):
    assert list(items.read([])) == []


def test_a_missing_text_is_an_error(items):
    with pytest.raises(InputError, match="Text 1 is None"):
        list(items.read(["cat", None]))


@torch.no_grad()
def test_the_version_changes_with_all_that_rows_depend_on(checkpoint, encoder, joint_layers):
    shape = joint_shape(encoder, joint_layers)
    heavier = load(checkpoint)
    next(heavier.model.encoder.layer[0].parameters())[0] += 0.01
    versions = {
        "as it is": item_reader(encoder, shape).version,
        "weights of the encoder": item_reader(heavier, shape).version,
        "tokens that the encoder reads": item_reader(load(checkpoint, max_tokens=8), shape).version,
        "tokens that are kept": item_reader(encoder, dataclasses.replace(shape, max_tokens=31)).version,
        "cut": item_reader(encoder, joint_shape(encoder, 3 - joint_layers)).version,
        "lower layers": item_reader(encoder, dataclasses.replace(shape, lower_layers=0)).version,
    }
    if joint_layers == 1:
        items = item_reader(encoder, shape)
        items.folding.key.weight[0, 0] += 0.01
        versions["folding"] = items.version
    assert len(set(versions.values())) == len(versions)


@torch.no_grad()
def test_the_version_changes_with_nothing_else(checkpoint, encoder, joint_layers):
    shape = joint_shape(encoder, joint_layers)
    before = item_reader(encoder, shape).version
    assert item_reader(load(checkpoint), shape).version == before
    assert item_reader(load(checkpoint, batch_size=2), shape).version == before
    for changes in ({"factors": 9}, {"sources": 9}, {"max_events": 9}):
        assert item_reader(encoder, dataclasses.replace(shape, **changes)).version == before
    if joint_layers > 1:  # nothing is folded then
        items = item_reader(encoder, shape)
        items.folding.key.weight[0, 0] += 0.01
        assert items.version == before


def test_the_version_stays_while_the_encoder_is_used_and_saved(checkpoint, joint_layers, tmp_path):
    encoder = load(checkpoint)
    items = item_reader(encoder, joint_shape(encoder, joint_layers))
    before = items.version
    encoder.encode(["cat " * 99])
    assert items.version == before
    rows_of(items, TEXTS)
    assert items.version == before
    list(encoder.tokens.pair_batches([("cat", "dog")]))
    assert items.version == before
    encoder.tokenizer("cat", truncation=True, max_length=3, padding="max_length")
    assert items.version == before
    encoder.save(tmp_path)
    assert item_reader(load(tmp_path), items.shape).version == before


def test_an_exported_encoder_is_read_like_its_original(encoder, items, tmp_path):
    served = exported(encoder, tmp_path / "export", "fp32", lower_layers=items.shape.lower_layers)
    other = items.read_by(served)
    assert other.version != items.version
    for one, rows in zip(rows_of(other, TEXTS), rows_of(items, TEXTS), strict=True):
        assert_near(one, rows)
    before = other.version
    served.encode(["cat " * 99])
    assert other.version == before
    (tmp_path / "copy").mkdir()
    served.save(tmp_path / "copy")
    assert items.read_by(type(served).load(tmp_path / "copy")).version == before


def test_an_export_without_these_states_is_refused(encoder, items, tmp_path):
    served = exported(encoder, tmp_path / "export", "fp32", lower_layers=0)
    with pytest.raises(ConfigError, match="gives the states after 0 layers"):
        rows_of(items.read_by(served), TEXTS)


def test_rows_make_a_store(items, tmp_path):
    store = build_store(tmp_path / "store", TEXTS, items.version, items.row_format("float16"), items.read)
    places = np.arange(len(TEXTS))
    rows, counts = store.gather_ragged(places, 99)
    for place, expected in enumerate(rows_of(items, TEXTS)):
        assert_near(rows[place, : counts[place]], expected)


def test_a_saved_reader_has_the_same_version_and_rows(encoder, items, tmp_path):
    items.save(tmp_path / "folding")
    again = ItemReader.load(tmp_path / "folding", encoder, items.shape)
    assert again.version == items.version
    for one, other in zip(rows_of(again, TEXTS), rows_of(items, TEXTS), strict=True):
        np.testing.assert_array_equal(one, other)


def test_reading_and_loading_draw_no_random_numbers(encoder, items, tmp_path):
    items.save(tmp_path / "folding")
    state = torch.get_rng_state()
    rows_of(items, TEXTS)
    ItemReader.load(tmp_path / "folding", encoder, items.shape)
    top_layers(encoder.model, 2)
    assert torch.equal(torch.get_rng_state(), state)


def spoilt(path, how):
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes(b"\xff" * 8 + content[8:])


@pytest.mark.parametrize("how", ["missing", "empty", "cut", "overwritten"])
def test_a_damaged_layer_is_an_error_that_names_the_file(encoder, items, tmp_path, how):
    items.save(tmp_path / "folding")
    spoilt(tmp_path / "folding", how)
    with pytest.raises(ArtifactError, match="folding: is no layer of this model") as caught:
        ItemReader.load(tmp_path / "folding", encoder, items.shape)
    assert "\n" not in str(caught.value)


def test_a_layer_of_other_sizes_is_an_error(encoder, items, tmp_path):
    items.save(tmp_path / "folding")
    wider = dataclasses.replace(layer_shape(encoder.model), inner=128)
    with pytest.raises(ArtifactError, match="folding: is no layer of this model") as caught:
        ItemReader.load(tmp_path / "folding", encoder, dataclasses.replace(items.shape, layer=wider))
    assert "\n" not in str(caught.value)


def test_the_encoder_is_left_as_it_is(encoder, items):
    before = encoder.encode(TEXTS)
    assert fresh_model(encoder, 1).shape.layer == items.folding.shape
    rows_of(items, TEXTS)
    assert all(weight.requires_grad for weight in encoder.model.parameters())
    np.testing.assert_array_equal(encoder.encode(TEXTS), before)
