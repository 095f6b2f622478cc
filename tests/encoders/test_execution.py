"""Each execution runs a graph, or says in one sentence why it cannot."""

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import helper
from small_graphs import FLOAT, attention, attention_feed, model

from encoders import open_session
from encoders.binding import BoundSession, Buckets
from encoders.errors import ConfigError
from encoders.execution import EXECUTIONS, QUICKLY_OPENED, Execution, Workload, _profile, open_execution, usable
from encoders.session import CPU, CUDA, TENSORRT

BUCKETS = Buckets({"users": (1, 4), "items": (4, 8), "rows": (8, 16), "events": (6,)}, {"mask": -1e9})
BY_NAME = {execution.name: execution for execution in EXECUTIONS}
FEEDS = [attention_feed(2, 5, 7, 4, seed=seed) for seed in range(4)]
SHARE = {"given": 2e-3, "half": 0.01, "int8": 0.1}  # of its largest value by which an output may differ


@pytest.fixture
def workload(tmp_path):
    return Workload(FEEDS, BUCKETS, tmp_path / "engines")


def assert_answers(session, precision):
    plain = open_session(attention().SerializeToString(), [CPU], threads=1)
    # int8 is calibrated to what it was shown, and TensorRT's profile ends with the largest bucket
    others = [] if precision == "int8" else [attention_feed(1, 2)]
    others += [attention_feed(5, 9)] if session.provider != TENSORRT and others else []
    share = SHARE[precision]
    for _ in range(3):  # the first run of a bucket captures, the next ones replay
        for feed in [*FEEDS, *others]:
            for one, other in zip(session.run(feed), plain.run(feed), strict=True):
                assert np.abs(one - other).max() <= share * np.abs(other).max()


def test_names_are_unique_and_the_cpu_comes_first():
    assert len(BY_NAME) == len(EXECUTIONS)
    assert EXECUTIONS[0] == Execution("cpu", CPU)
    assert not any(execution.provider == TENSORRT for execution in QUICKLY_OPENED)


@pytest.mark.parametrize("execution", EXECUTIONS, ids=lambda execution: execution.name)
def test_an_execution_is_usable_or_says_why_not_in_a_sentence(execution, workload):
    obstacle = execution.obstacle()
    assert (execution in usable()) == (obstacle == "")
    if obstacle:
        assert obstacle.endswith(".")
        assert "\n" not in obstacle
        with pytest.raises(ConfigError, match=execution.name):
            open_execution(attention(), execution, workload)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_only_the_cpu_is_usable_and_the_others_name_the_device_or_the_provider():
    assert usable() == [BY_NAME["cpu"]]
    for execution in EXECUTIONS[1:]:
        known = execution.provider in onnxruntime.get_available_providers()
        assert ("no CUDA device" if known else f"no {execution.provider}") in execution.obstacle()


def test_an_unknown_provider_is_an_obstacle():
    assert "no TeapotExecutionProvider" in Execution("teapot", "TeapotExecutionProvider").obstacle()


@pytest.mark.parametrize("precision", ["given", "half", "int8"])
@pytest.mark.parametrize("captured", [False, True])
def test_the_cpu_runs_every_precision_plain_and_in_buffers(precision, captured, workload, tmp_path):
    session = open_execution(
        attention(), Execution("tried", CPU, precision, captured), workload, tmp_path / "model.onnx", threads=1
    )
    assert isinstance(session, BoundSession) == captured
    assert (session.provider, session.path) == (CPU, tmp_path / "model.onnx")
    assert_answers(session, precision)


def test_a_graph_whose_shapes_hang_on_values_is_not_captured(workload):
    node = helper.make_node("NonZero", ["x"], ["y"])
    graph = model([node], [("x", FLOAT, ["n"])], [("y", 7, [1, "found"])])
    with pytest.raises(ConfigError, match="The graph has NonZero, which cannot be captured"):
        open_execution(graph, Execution("tried", CPU, captured=True), workload)


def test_a_profile_names_every_free_axis_of_every_input(workload):
    assert _profile(attention(), workload) == {
        "trt_profile_min_shapes": "rows:1x8,places:1x1,events:1x1x8,mask:1x1",
        "trt_profile_opt_shapes": "rows:8x8,places:4x8,events:4x6x8,mask:4x6",
        "trt_profile_max_shapes": "rows:16x8,places:4x8,events:4x6x8,mask:4x6",
    }


def test_an_axis_without_a_bucket_is_profiled_to_the_longest_request():
    feeds = [attention_feed(events=events) for events in (2, 5, 3)]
    profile = _profile(attention(), Workload(feeds, Buckets({})))
    assert profile["trt_profile_max_shapes"].endswith("mask:2x5")
    assert profile["trt_profile_opt_shapes"].endswith("mask:2x2")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", [execution.name for execution in EXECUTIONS if execution.provider == CUDA])
def test_cuda_answers_as_the_cpu(name, workload):
    assert_answers(open_execution(attention(), BY_NAME[name], workload), BY_NAME[name].precision)


@pytest.mark.skipif(
    bool(BY_NAME["tensorrt-half"].obstacle()), reason=f"needs TensorRT: {BY_NAME['tensorrt-half'].obstacle()}"
)
@pytest.mark.parametrize("name", ["tensorrt-half", "tensorrt-int8"])
def test_tensorrt_answers_as_the_cpu(name, workload):
    session = open_execution(attention(), BY_NAME[name], workload)
    assert_answers(session, "int8" if BY_NAME[name].precision == "int8" else "half")
    assert any(workload.engines.rglob("*.engine"))
