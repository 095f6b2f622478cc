"""What serves in ONNX Runtime is the torch model, at every moment with the whole of one version of its weights."""

import copy
import dataclasses
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from tiny_joint import fresh_model, moved, run

from encoders import TextEncoder, TextEncoderConfig
from encoders.errors import ArtifactError, InputError
from ranker.feedback import N_KINDS
from ranker.split.inputs import JointInputs
from ranker.split.model import MASKED, packed_width
from ranker.split.serving import GRAPH, SHAPE, WEIGHTS, OnnxJoint
from retrieval.histories import LEVELS

LAYERS = (1, 2, 3)


@pytest.fixture(scope="module")
def encoder(checkpoint):
    return TextEncoder.load(checkpoint, TextEncoderConfig(max_tokens=32, batch_size=4, device="cpu"))


@pytest.fixture(scope="module")
def fresh(encoder):
    """Models as training starts from them, by how many layers are joint. No test may change them."""
    return {count: fresh_model(encoder, count) for count in LAYERS}


@pytest.fixture(scope="module")
def traced(fresh):
    """Each of the fresh models traced. No test may replace their weights."""
    return {count: OnnxJoint.trace(model) for count, model in fresh.items()}


@pytest.fixture(scope="module")
def served_of_moved(fresh):
    """Models as after training, and what serves them."""
    models = {count: moved(model) for count, model in fresh.items()}
    return {count: (model, OnnxJoint.trace(model)) for count, model in models.items()}


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


@pytest.mark.parametrize("how", ["nan", "infinite", "missing", "unknown", "other shape", "other kind"])
def test_weights_that_cannot_serve_are_refused_and_the_old_ones_go_on(joint, model, how):
    weights, pattern = altered(moved(model, 7).state_dict(), how)
    with pytest.raises(InputError, match=pattern) as caught:
        joint.replace(weights)
    assert "\n" not in str(caught.value)
    assert_serves(joint, model)
    assert all(torch.equal(weight, joint.weights[name]) for name, weight in model.state_dict().items())


def test_a_model_that_has_diverged_is_not_traced(model):
    weights, pattern = altered(model.state_dict(), "nan")
    model.load_state_dict(weights)
    with pytest.raises(InputError, match=pattern):
        OnnxJoint.trace(model)


def test_the_weights_of_another_shape_are_refused(joint, encoder, joint_layers):
    for other in (fresh_model(encoder, joint_layers, features=4), fresh_model(encoder, joint_layers % 3 + 1)):
        with pytest.raises(InputError, match="They belong to a model of other settings"):
            joint.replace(other.state_dict())


@torch.no_grad()
def version(model, number):
    """Weights with which every logit is twice this number, half of it from each of two weights."""
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    weights["head.weight"].zero_()
    weights["head.bias"][...] = number
    weights["wide.weight"].zero_()
    weights["wide.weight"][0, 0] = number
    return weights


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


def test_what_is_saved_serves_alike_once_loaded(joint, model, tmp_path):
    joint.replace(moved(model, 5).state_dict())
    joint.save(tmp_path)
    loaded = OnnxJoint.load(tmp_path)
    assert dataclasses.asdict(loaded.shape) == dataclasses.asdict(joint.shape)
    for seed in range(3):
        inputs = inputs_for(model.shape, seed=seed)
        np.testing.assert_array_equal(loaded.score(inputs), joint.score(inputs))
    loaded.replace(moved(model, 6).state_dict())
    assert_serves(loaded, moved(model, 6))
    assert_serves(joint, moved(model, 5))
    shutil.rmtree(tmp_path)
    assert_serves(loaded, moved(model, 6))  # nothing of it stays in the files


def test_weights_are_on_disk_once(joint, tmp_path):
    joint.save(tmp_path)
    weights = sum(weight.nbytes for weight in joint.weights.values())
    assert (tmp_path / WEIGHTS).stat().st_size >= weights
    assert not any(constant.raw_data for constant in onnx.load(tmp_path / GRAPH).graph.initializer)


def spoil(path, how):
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "noise": b"\xff" * len(content)}[how])


@pytest.mark.parametrize("name", [SHAPE, WEIGHTS, GRAPH])
@pytest.mark.parametrize("how", ["missing", "a folder", "empty", "cut", "noise"])
def test_a_damaged_file_is_an_error_that_names_it(traced, tmp_path, name, how):
    traced[1].save(tmp_path)
    spoil(tmp_path / name, how)
    with pytest.raises(ArtifactError, match=name) as caught:
        OnnxJoint.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("joint_layers", 0), ("joint_layers", -1), ("max_events", 0), ("factors", -5), ("features", 0),
        ("lower_layers", -1), ("max_tokens", 0), ("joint_layers", "many"), ("depth", 3), ("layer", {}),
        ("layer", {"dim": -1}), ("layer", {"heads": 0}), ("layer", {"heads": 5}), ("layer", {"activation": "none"}),
        ("layer", {"epsilon": -1.0}), ("layer", {"inner": 0}),
    ],
)  # fmt: skip
def test_sizes_that_no_model_has_are_an_error_that_names_the_file(traced, tmp_path, key, value):
    traced[1].save(tmp_path)
    settings_before = json.loads((tmp_path / SHAPE).read_text())
    if isinstance(value, dict):
        value = settings_before["layer"] | value if value else value
    (tmp_path / SHAPE).write_text(json.dumps(settings_before | {key: value}))
    with pytest.raises(ArtifactError, match=SHAPE) as caught:
        OnnxJoint.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changes", [{"joint_layers": 2}, {"features": 4}, {"factors": 6}, {"max_events": 5}])
def test_a_file_of_another_model_is_an_error(encoder, traced, tmp_path, changes):
    other = tmp_path / "other"
    other.mkdir()
    OnnxJoint.trace(fresh_model(encoder, **({"joint_layers": 1} | changes))).save(other)
    for name in (SHAPE, WEIGHTS, GRAPH):
        folder = tmp_path / name
        folder.mkdir()
        traced[1].save(folder)
        shutil.copyfile(other / name, folder / name)
        with pytest.raises(ArtifactError, match="|".join((SHAPE, WEIGHTS, GRAPH))) as caught:
            OnnxJoint.load(folder)
        assert "\n" not in str(caught.value)


def test_a_graph_that_is_none_of_ours_is_an_error(traced, tmp_path):
    traced[1].save(tmp_path)
    value = onnx.helper.make_tensor_value_info("rows", onnx.TensorProto.FLOAT, ["users"])
    out = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["users"])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["rows"], ["logits"])], "neg", [value], [out])
    onnx.save(onnx.helper.make_model(graph), str(tmp_path / GRAPH))
    with pytest.raises(ArtifactError, match=GRAPH) as caught:
        OnnxJoint.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("how", ["nan", "missing", "other kind"])
def test_saved_weights_that_cannot_serve_are_an_error_that_names_the_file(traced, tmp_path, how):
    traced[1].save(tmp_path)
    weights, pattern = altered(traced[1].weights, how)
    save_file(weights, tmp_path / WEIGHTS)
    with pytest.raises(ArtifactError, match=f"{WEIGHTS}.*{pattern}"):
        OnnxJoint.load(tmp_path)


def test_a_model_of_the_largest_sizes_needs_no_memory_to_be_refused(traced, tmp_path):
    traced[1].save(tmp_path)
    before = json.loads((tmp_path / SHAPE).read_text())
    before["layer"] |= {"dim": 2**20, "inner": 2**22}
    (tmp_path / SHAPE).write_text(json.dumps(before))
    with pytest.raises(ArtifactError, match="is the graph of another model"):
        OnnxJoint.load(tmp_path)
