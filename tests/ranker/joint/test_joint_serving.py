"""What serves in ONNX Runtime is the torch model, which it leaves as it is."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_joint import run
from tiny_served import LAYERS, SIZES, altered, assert_serves, inputs_for

from encoders.errors import InputError
from ranker.split.serving import OnnxJoint


@pytest.fixture(scope="module")
def served_of_moved(models):
    """Models as after training, and what serves them."""
    return {count: (model, OnnxJoint.trace(model)) for count, model in models.items()}


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(LAYERS), st.integers(0, 999), st.fixed_dictionaries(SIZES))
def test_it_scores_as_the_torch_model_at_any_size(served_of_moved, joint_layers, seed, sizes):
    model, joint = served_of_moved[joint_layers]
    inputs = inputs_for(model.shape, **sizes, seed=seed)
    found = joint.score(inputs)
    assert found.shape == (sizes["users"], sizes["items"])
    np.testing.assert_allclose(found, run(model, inputs).logits, atol=1e-4)


def test_tracing_leaves_the_model_and_the_generators_as_they_are(model):
    model.train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    state = torch.get_rng_state()
    joint = OnnxJoint.trace(model)
    joint.model()
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(weight.requires_grad for weight in model.parameters())
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name])
    with torch.no_grad():
        for weight in model.parameters():
            weight += 1  # and what serves is no view of it
    assert all(torch.equal(weight, before[name]) for name, weight in joint.weights.items())


def test_the_model_that_serves_can_be_had_in_torch_to_train_on(joint, model):
    again = joint.model()
    assert not again.training
    assert all(weight.requires_grad for weight in again.parameters())
    inputs = inputs_for(model.shape)
    np.testing.assert_array_equal(run(again, inputs).logits, run(model, inputs).logits)
    with torch.no_grad():
        for weight in again.parameters():
            weight += 1
    assert_serves(joint, model)


def test_a_model_that_has_diverged_is_not_traced(model):
    weights, pattern = altered(model.state_dict(), "nan")
    model.load_state_dict(weights)
    with pytest.raises(InputError, match=pattern):
        OnnxJoint.trace(model)
