"""The states that the lower layers leave, and the layers above them taken apart: together they are the checkpoint."""

import copy

import numpy as np
import pytest
import torch
from tiny_models import catalogue, exported
from transformers.activations import ACT2FN

from encoders import OnnxTextEncoder
from encoders.errors import ConfigError, InputError
from encoders.layers import ACTIVATIONS, layer_shape, top_layers

FAMILIES = ("bert", "distilbert", "roberta")
TEXTS = catalogue(11)


@pytest.fixture(params=FAMILIES)
def encoder(request, cuttable):
    return cuttable[request.param]


def ragged(encoder, texts, lower_layers):
    """Every text's states without padding, in the order of the texts."""
    found = {}
    for batch in encoder.read(texts, lower_layers):
        for line, row in enumerate(batch.rows.tolist()):
            found[row] = batch.states[line, : batch.lengths[line]]
    return [found[row] for row in range(len(texts))]


def whole(encoder, text):
    """The checkpoint's own states of one text after every layer, (layers + 1) × (1, L, dim)."""
    (batch,) = encoder.tokens.text_batches([text])
    ids, mask = torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask)
    with torch.no_grad():
        return encoder.model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states


def test_states_are_the_checkpoints_own_after_so_many_layers(encoder):
    for lower_layers in range(encoder.model.config.num_hidden_layers + 1):
        for text, states in zip(TEXTS, ragged(encoder, TEXTS, lower_layers), strict=True):
            np.testing.assert_allclose(states, whole(encoder, text)[lower_layers][0], atol=1e-5)


def test_reading_gives_the_vectors_of_encoding(encoder):
    vectors = np.empty((len(TEXTS), encoder.dim), np.float32)
    for batch in encoder.read(TEXTS, 1):
        vectors[batch.rows] = batch.vectors
    np.testing.assert_allclose(vectors, encoder.encode(TEXTS), atol=1e-6)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("int8", 0.2)])
def test_an_export_with_states_reads_as_its_original_does(encoder, precision, tolerance, tmp_path):
    served = exported(encoder, tmp_path / "export", precision, lower_layers=1)
    for one, other in zip(ragged(encoder, TEXTS, 1), ragged(served, TEXTS, 1), strict=True):
        assert np.abs(one - other).mean() < tolerance * np.abs(one).mean()
    plain = exported(encoder, tmp_path / "plain", precision)
    np.testing.assert_allclose(served.encode(TEXTS), plain.encode(TEXTS), atol=1e-6)
    served.save(tmp_path)
    again = OnnxTextEncoder.load(tmp_path)
    for one, other in zip(ragged(served, TEXTS, 1), ragged(again, TEXTS, 1), strict=True):
        np.testing.assert_array_equal(one, other)


def test_layers_that_are_not_there_are_named(encoder, tmp_path):
    count = encoder.model.config.num_hidden_layers
    with pytest.raises(ConfigError, match=f"lower_layers is {count + 1}, but the checkpoint has {count} layers"):
        list(encoder.read(TEXTS, count + 1))
    with pytest.raises(ConfigError, match=f"joint_layers is {count + 1}; the checkpoint has {count} layers"):
        top_layers(encoder.model, count + 1)
    with pytest.raises(ConfigError, match="has 3 layers" if count == 3 else "has 2 layers"):
        exported(encoder, tmp_path / "export", "fp32", lower_layers=9)
    assert not (tmp_path / "export").exists()
    served = exported(encoder, tmp_path / "export", "fp32", lower_layers=1)
    with pytest.raises(ConfigError, match="gives the states after 1 layers, not those after 2"):
        list(served.read(TEXTS, 2))
    plain = exported(encoder, tmp_path / "plain", "fp32")
    with pytest.raises(ConfigError, match=r"gives no token states.*export the encoder again with lower_layers=1"):
        list(plain.read(TEXTS, 1))


def test_a_missing_text_is_named(encoder):
    with pytest.raises(InputError, match="Text 1 is None, not a string"):
        list(encoder.read(["cat", None], 1))


def test_a_family_that_cannot_be_cut_is_named(encoders):
    with pytest.raises(ConfigError, match=r"A gpt2 cannot be cut.*bert.*distilbert"):
        layer_shape(encoders["gpt2"].model)


def test_an_activation_that_no_layer_has_is_named(encoder):
    model = copy.deepcopy(encoder.model)
    setattr(model.config, "activation" if model.config.model_type == "distilbert" else "hidden_act", "quick_gelu")
    with pytest.raises(ConfigError, match=r"activation quick_gelu cannot be cut.*gelu, .*relu.*pair cross-encoder"):
        layer_shape(model)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_that_transformers_means_by_these_names(name):
    at = torch.linspace(-6, 6, 1001)
    torch.testing.assert_close(ACTIVATIONS[name]()(at), ACT2FN[name](at), rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_the_top_layers_carry_lower_states_to_the_checkpoints_last(encoder):
    count = encoder.model.config.num_hidden_layers
    for text in TEXTS[:4]:
        expected = whole(encoder, text)
        states = expected[count - 2]
        for layer in top_layers(encoder.model, 2):
            queries, keys, values = (layer.heads(part(states)) for part in (layer.query, layer.key, layer.value))
            weights = (queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5).softmax(-1)
            states = layer.finish(states, (weights @ values).transpose(-2, -3).flatten(-2))
        torch.testing.assert_close(states, expected[-1], atol=1e-5, rtol=1e-5)


def test_the_layers_are_copies(encoder):
    (layer,) = top_layers(encoder.model, 1)
    before = encoder.encode(TEXTS)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    np.testing.assert_array_equal(encoder.encode(TEXTS), before)
