import logging

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from encoders import open_session
from encoders.errors import ArtifactError, ConfigError


@pytest.fixture
def doubling(tmp_path):
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "doubling", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "model.onnx"))
    return tmp_path / "model.onnx"


@pytest.mark.parametrize("providers", ["auto", ["CPUExecutionProvider"], []])
def test_a_session_runs_and_names_its_provider(doubling, providers):
    session = open_session(doubling, providers, threads=1)
    assert session.provider == "CPUExecutionProvider"
    assert (session.inputs, session.outputs) == (("x",), ("y",))
    np.testing.assert_array_equal(session.run({"x": np.array([1, 2], dtype=np.float32)})[0], [2, 4])


def test_its_threads_take_no_processor_between_runs(doubling):
    options = open_session(doubling).inner.get_session_options()
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"


def test_a_machine_without_cuda_is_no_reason_for_noise(doubling, capfd, caplog):
    with caplog.at_level(logging.DEBUG):
        open_session(doubling)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert [record.levelno for record in caplog.records] == [logging.DEBUG]
    assert "runs on CPUExecutionProvider" in caplog.text


def test_an_unknown_provider_is_named(doubling):
    with pytest.raises(ConfigError, match="TeapotExecutionProvider"):
        open_session(doubling, ["TeapotExecutionProvider"])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"model\.onnx is missing"):
        open_session(tmp_path / "model.onnx")


@pytest.mark.parametrize("kept", [0, 20])
def test_a_damaged_file_is_named(doubling, kept):
    doubling.write_bytes(doubling.read_bytes()[:kept])
    with pytest.raises(ArtifactError, match=r"model\.onnx is not a graph"):
        open_session(doubling)
