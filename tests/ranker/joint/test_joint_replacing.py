"""New weights serve at once and whole, and those that cannot serve leave the old ones to go on."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tiny_joint import fresh_model, moved
from tiny_served import altered, assert_serves, inputs_for, version

from encoders.errors import InputError
from ranker.split.serving import OnnxJoint


def test_new_weights_serve_like_a_fresh_trace_of_the_new_model(fresh, traced, joint_layers):
    """From weights of which many are equal, as a checkpoint's copies are, to weights of which none are."""
    joint = copy.copy(traced[joint_layers])
    assert_serves(joint, fresh[joint_layers])
    model = moved(fresh[joint_layers])
    joint.replace(model.state_dict())
    inputs = inputs_for(model.shape, seed=9)
    np.testing.assert_allclose(joint.score(inputs), OnnxJoint.trace(model).score(inputs), atol=1e-6)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 1  # what serves is no view of what was given
    assert_serves(joint, moved(fresh[joint_layers]))
    joint.replace(fresh[joint_layers].state_dict())
    assert_serves(joint, fresh[joint_layers])


@pytest.mark.parametrize("how", ["nan", "infinite", "missing", "unknown", "other shape", "other kind"])
def test_weights_that_cannot_serve_are_refused_and_the_old_ones_go_on(joint, model, how):
    weights, pattern = altered(moved(model, 7).state_dict(), how)
    with pytest.raises(InputError, match=pattern) as caught:
        joint.replace(weights)
    assert "\n" not in str(caught.value)
    assert_serves(joint, model)
    assert all(torch.equal(weight, joint.weights[name]) for name, weight in model.state_dict().items())


def test_the_weights_of_another_shape_are_refused(joint, encoder, joint_layers):
    for other in (fresh_model(encoder, joint_layers, sources=3), fresh_model(encoder, joint_layers % 3 + 1)):
        with pytest.raises(InputError, match="They belong to a model of other settings"):
            joint.replace(other.state_dict())


def test_what_is_prepared_serves_from_its_swap_on_whatever_becomes_of_the_weights(fresh, traced):
    model, joint = fresh[1], copy.copy(traced[1])
    inputs = inputs_for(model.shape)
    inputs.features[..., 0] = 1
    joint.replace(version(model, 1.0))
    weights = version(model, 2.0)
    prepared = joint.prepare(weights)
    weights["head.bias"][...] = 9
    assert (joint.score(inputs) == 2).all()
    before = joint.serve(prepared)
    assert (joint.score(inputs) == 4).all()
    assert joint.weights["head.bias"] == 2
    assert joint.serve(before) is prepared
    assert (joint.score(inputs) == 2).all()


def test_what_was_prepared_for_another_shape_is_refused(fresh, traced):
    one, two = copy.copy(traced[1]), traced[2]
    inputs = inputs_for(fresh[1].shape)
    expected = one.score(inputs)
    with pytest.raises(InputError, match="prepared for JointShape"):
        one.serve(two.prepare(fresh[2].state_dict()))
    np.testing.assert_array_equal(one.score(inputs), expected)


def test_concurrent_readers_see_one_version_or_another_and_never_a_mixture(fresh, traced):
    model, joint = fresh[1], copy.copy(traced[1])
    numbers = [3.0**power for power in range(12)]  # no sum of two different ones is twice a third
    allowed = {2 * number for number in numbers}
    joint.replace(version(model, numbers[0]))
    stop = threading.Event()

    def read(seed):
        seen, inputs = set(), inputs_for(model.shape, users=3, items=7, seed=seed)
        inputs.features[..., 0] = 1
        while not stop.is_set():
            answer = np.unique(joint.score(inputs))
            assert len(answer) == 1
            seen.add(float(answer[0]))
        return seen

    ones = inputs_for(model.shape)
    ones.features[..., 0] = 1
    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read, seed) for seed in range(2)]
        try:
            for number in numbers:
                joint.replace(version(model, number))
                assert (joint.score(ones) == 2 * number).all()  # from the first request after it
        finally:
            stop.set()
        seen = [reader.result() for reader in readers]
    assert set.union(*seen) <= allowed
    assert len(set.union(*seen)) > 1


def test_a_refused_replacement_is_never_seen_by_concurrent_readers(fresh, traced):
    model, joint = fresh[1], copy.copy(traced[1])
    joint.replace(version(model, 3.0))
    inputs = inputs_for(model.shape)
    inputs.features[..., 0] = 1
    bad, _ = altered(version(model, 9.0), "nan")
    stop = threading.Event()

    def read():
        seen = set()
        while not stop.is_set():
            seen |= set(joint.score(inputs).ravel().tolist())
        return seen

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for _ in range(20):
                with pytest.raises(InputError):
                    joint.replace(bad)
        finally:
            stop.set()
        assert set.union(*(reader.result() for reader in readers)) == {6.0}
