"""What serves is saved and loaded alike, and a file that is damaged or of another model is named."""

import dataclasses
import json
import shutil

import numpy as np
import onnx
import pytest
from safetensors.torch import save_file
from tiny_joint import fresh_model, moved
from tiny_served import altered, assert_serves, inputs_for

from encoders.errors import ArtifactError
from ranker.split.serving import GRAPH, SHAPE, WEIGHTS, OnnxJoint


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
        ("joint_layers", 0), ("joint_layers", -1), ("max_events", 0), ("factors", -5), ("sources", 0),
        ("lower_layers", -1), ("max_tokens", 0), ("joint_layers", "many"), ("depth", 3), ("layer", {}),
        ("layer", {"dim": -1}), ("layer", {"heads": 0}), ("layer", {"heads": 5}), ("layer", {"activation": "none"}),
        ("layer", {"epsilon": -1.0}), ("layer", {"inner": 0}), ("layer", {"dim": 2**40}), ("factors", 2**62),
        ("sources", 2**80),
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


@pytest.mark.parametrize("changes", [{"joint_layers": 2}, {"sources": 3}, {"factors": 6}, {"max_events": 5}])
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
