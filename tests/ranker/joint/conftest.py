import copy

import pytest
from tiny_joint import fresh_model, moved
from tiny_served import LAYERS

from encoders import TextEncoder, TextEncoderConfig
from ranker.split.serving import OnnxJoint


@pytest.fixture(scope="session")
def encoder(checkpoint):
    return TextEncoder.load(checkpoint, TextEncoderConfig(max_tokens=32, batch_size=4, device="cpu"))


@pytest.fixture(scope="session")
def fresh(encoder):
    """Models as training starts from them, by how many layers are joint. No test may change them."""
    return {count: fresh_model(encoder, count) for count in LAYERS}


@pytest.fixture(scope="session")
def traced(fresh):
    """Each of the fresh models traced. No test may replace their weights."""
    return {count: OnnxJoint.trace(model) for count, model in fresh.items()}


@pytest.fixture(scope="session")
def models(fresh):
    """Models as after training, by how many layers are joint. No test may change them."""
    return {count: moved(model) for count, model in fresh.items()}


@pytest.fixture(params=[1, 2])
def joint_layers(request):
    return request.param


@pytest.fixture
def model(fresh, joint_layers):
    return moved(fresh[joint_layers])


@pytest.fixture
def joint(model, traced):
    """What serves the model, of the test's own."""
    joint = copy.copy(traced[model.shape.joint_layers])
    joint.replace(model.state_dict())
    return joint
