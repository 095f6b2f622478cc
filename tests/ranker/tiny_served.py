"""Inputs of any size for what serves a joint model, and weights that tell which of them served."""

import numpy as np
import torch
from hypothesis import strategies as st
from tiny_joint import run

from ranker.feedback import N_KINDS
from ranker.split.inputs import JointInputs
from ranker.split.model import MASKED, packed_width
from retrieval.histories import LEVELS

LAYERS = (1, 2, 3)


def inputs_for(shape, users=2, items=5, events=4, tokens=6, words=3, seed=0):
    """Any numbers, of which a random part is padding."""
    rng = np.random.default_rng(seed)

    def normal(*sizes, dtype=np.float32):
        return rng.normal(size=sizes).astype(dtype)

    one = shape.joint_layers == 1
    lengths = rng.integers(0, 2 if one else tokens + 1, (users, items, 1))
    numbers = rng.integers(1, 12, (users, items, 1 if one else tokens))
    return JointInputs(
        rows=normal(12, packed_width(shape.layer) if one else 32, dtype=np.float16),
        places=np.where(np.arange(numbers.shape[2]) < lengths, numbers, 0),
        factors=normal(users, items, shape.factors),
        features=normal(users, items, shape.features),
        event_places=rng.integers(0, 12, (users, events)),
        event_factors=normal(users, events, shape.factors),
        event_kinds=rng.integers(0, N_KINDS, (users, events)),
        event_levels=rng.integers(0, LEVELS, (users, events)),
        event_bias=np.where(rng.random((users, events)) < 0.7, 0, MASKED).astype(np.float32),
        query_states=normal(users, words, 32, dtype=np.float16),
        query_bias=np.where(rng.random((users, words)) < 0.7, 0, MASKED).astype(np.float32),
    )


def assert_serves(joint, model, tolerance=1e-4):
    """The torch model's own logits."""
    for seed in range(3):
        inputs = inputs_for(model.shape, seed=seed)
        found = joint.score(inputs)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, run(model, inputs).logits, atol=tolerance)


SIZES = {
    "users": st.integers(1, 4),
    "items": st.integers(1, 9),
    "events": st.integers(1, 6),
    "tokens": st.integers(2, 9),
    "words": st.integers(0, 5),
}


def altered(weights, how):
    """The weights with one thing wrong, and the pattern that says so."""
    name = "top.layer.attended.weight"
    weights = {key: weight.clone() for key, weight in weights.items()}
    if how in ("nan", "infinite"):
        weights[name][0, 3] = float({"nan": "nan", "infinite": "-inf"}[how])
        return weights, rf"{name} holds 1 values that are no finite numbers"
    if how == "missing":
        del weights[name]
    elif how == "unknown":
        weights["top.layer.attended.wight"], name = weights[name], "top.layer.attended.wight"
    elif how == "other shape":
        weights[name] = weights[name][:-1]
    elif how == "other kind":
        weights[name] = weights[name].double()
    return weights, rf"1 weights are missing, unknown or of another .*{name}"


@torch.no_grad()
def version(model, number):
    """Weights with which every logit is twice this number, half of it from each of two weights."""
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    weights["head.weight"].zero_()
    weights["head.bias"][...] = number
    for name in ("wide.weight", "deep.2.weight"):
        weights[name].zero_()
    weights["wide.weight"][0, 0] = number
    return weights
