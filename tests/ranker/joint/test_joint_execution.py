"""However the joint layers are run, their answers are the torch model's, and new weights serve at once."""

import copy
import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_graphs import run_exactly
from tiny_joint import TEXTS, fresh_model, input_reader, item_reader, moved, run
from tiny_served import LAYERS, SIZES, inputs_for, version

from encoders import open_session
from encoders.binding import BoundSession
from encoders.errors import ConfigError
from encoders.execution import EXECUTIONS, Execution, Workload, open_execution, usable
from encoders.lowering import half
from encoders.session import CPU, CUDA
from ranker.reranker import Gain
from ranker.split.inputs import JointInputs, stacked
from ranker.split.model import MASKED
from ranker.split.reranker import SplitReranker
from ranker.split.serving import OnnxJoint
from ranker.split.workload import buckets, sample_inputs

PLAIN, BOUND = Execution("plain", CPU), Execution("bound", CPU, captured=True)
TEAPOT = Execution("teapot", "TeapotExecutionProvider")


@pytest.fixture(scope="module")
def graphs(models):
    """Their graphs, weights included."""
    joints = {count: OnnxJoint.trace(model) for count, model in models.items()}
    return {count: joint._filled(joint.weights) for count, joint in joints.items()}


@pytest.fixture(scope="module")
def bound(models, graphs):
    """Sessions on buffers that all examples share."""
    sessions = {count: open_session(graph.SerializeToString(), [CPU], threads=1) for count, graph in graphs.items()}
    return {count: BoundSession(session, buckets(models[count].shape)) for count, session in sessions.items()}


@pytest.fixture
def joint(models):
    """What serves the model with one joint layer, of the test's own."""
    return OnnxJoint.trace(models[1])


def feed_of(session, inputs):
    return {name: getattr(inputs, name) for name in session.inputs}


def assert_alike(found, model, inputs, tolerance):
    """The torch model's logits of every candidate; where nothing but padding is read, any number will do."""
    there = inputs.places[:, :, 0] != 0
    np.testing.assert_allclose(found[there], run(model, inputs).logits[there], atol=tolerance)


def samples(model, **sizes):
    return [inputs_for(model.shape, **sizes, seed=seed) for seed in range(3)]


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(LAYERS), st.integers(0, 999), st.fixed_dictionaries(SIZES))
def test_padding_to_a_bucket_changes_no_logit(models, bound, joint_layers, seed, sizes):
    inputs = inputs_for(models[joint_layers].shape, **sizes, seed=seed)
    session = bound[joint_layers]
    (found,) = session.run(feed_of(session, inputs))
    assert found.shape == (sizes["users"], sizes["items"])
    assert np.isfinite(found).all()
    assert_alike(found, models[joint_layers], inputs, 1e-4)


def test_padding_is_what_stacking_pads_with(models):
    """Of every input: what a smaller request is filled up with beside a larger one."""
    for count in LAYERS:
        shape = models[count].shape
        small = inputs_for(shape, users=1, items=1, events=1, tokens=2)
        whole = stacked([small, inputs_for(shape, users=1, items=4, events=5, tokens=7)])
        fill = buckets(shape).fill
        for field in dataclasses.fields(JointInputs)[1:]:
            array, own = getattr(whole, field.name)[0], getattr(small, field.name)[0]
            padding = np.ones(array.shape, np.bool_)
            padding[tuple(slice(length) for length in own.shape)] = False
            assert (array[padding] == np.float32(fill.get(field.name, 0))).all()
    assert fill["event_bias"] == MASKED


def test_events_are_never_padded_beyond_those_that_have_an_age(models):
    for model in models.values():
        assert buckets(model.shape).sizes["events"][-1] == model.shape.max_events


@pytest.mark.parametrize("joint_layers", LAYERS)
def test_half_precision_orders_a_user_without_any_event(models, graphs, joint_layers):
    inputs = inputs_for(models[joint_layers].shape, seed=3)
    inputs.event_bias[0] = MASKED
    names = [value.name for value in graphs[joint_layers].graph.input]
    (found,) = run_exactly(half(graphs[joint_layers]), {name: getattr(inputs, name) for name in names})
    assert np.isfinite(found).all()
    assert_alike(found, models[joint_layers], inputs, 0.02)


def test_only_a_single_joint_layer_can_be_captured(models, graphs):
    for count, graph in graphs.items():
        session = open_session(graph.SerializeToString(), [CPU])
        shape = models[count].shape
        workload = Workload([feed_of(session, inputs_for(shape))], buckets(shape))
        if count == 1:
            assert isinstance(open_execution(graph, BOUND, workload), BoundSession)
        else:
            with pytest.raises(ConfigError, match="NonZero, which cannot be captured"):
                open_execution(graph, BOUND, workload)


@pytest.mark.parametrize("executions", [(BOUND,), (PLAIN, BOUND), (BOUND, PLAIN, TEAPOT)])
def test_whichever_is_chosen_serves_the_model_and_whatever_replaces_it(joint, models, executions):
    choice = joint.choose(samples(models[1]), executions)
    assert choice.measured == (len(executions) > 1)
    for model in (models[1], moved(models[1], 5), models[1]):
        joint.replace(model.state_dict())
        for inputs in samples(model, users=3, items=7):
            assert_alike(joint.score(inputs), model, inputs, 1e-4)
    assert isinstance(joint._serving.session, BoundSession) == (choice.measured and choice.execution == "bound")


def test_where_only_one_can_run_the_session_that_serves_stays(joint, models):
    before = joint._serving
    choice = joint.choose(samples(models[1]), (PLAIN, TEAPOT))
    assert joint._serving is before
    assert (choice.execution, choice.measured) == ("plain", False)


def test_what_none_can_run_leaves_the_session_that_serves(joint, models):
    before = joint._serving
    with pytest.raises(ConfigError, match="No execution can run this graph"):
        joint.choose(samples(models[1]), (TEAPOT,))
    assert joint._serving is before


def test_weights_replaced_while_requests_run_in_buffers_are_never_mixed(joint, models):
    joint = copy.copy(joint)
    numbers = [3.0**power for power in range(8)]
    joint.replace(version(models[1], numbers[0]))
    workload = Workload((), buckets(joint.shape))
    joint._open = lambda graph: open_execution(graph, BOUND, workload)
    joint.replace(version(models[1], numbers[0]))
    stop = threading.Event()

    def read(seed):
        seen, inputs = set(), inputs_for(models[1].shape, users=3, items=7, seed=seed)
        inputs.features[..., 0] = 1
        while not stop.is_set():
            answer = np.unique(joint.score(inputs))
            assert len(answer) == 1
            seen.add(float(answer[0]))
        return seen

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read, seed) for seed in range(2)]
        try:
            for number in numbers:
                joint.replace(version(models[1], number))
        finally:
            stop.set()
        seen = set.union(*(reader.result() for reader in readers))
    assert seen <= {2 * number for number in numbers}


@pytest.mark.parametrize("joint_layers", [1, 2])
def test_samples_are_requests_of_full_size(encoder, tmp_path, joint_layers):
    reader = input_reader(tmp_path / "store", encoder, fresh_model(encoder, joint_layers).shape, TEXTS)
    found = sample_inputs(reader, depth=5)
    assert len(found) > 1
    for inputs in found:
        assert inputs.places.shape[1] == 5
        assert inputs.event_places.shape[1] == reader.shape.max_events
        assert inputs.event_places.all()
        assert inputs.places[:, :, 0].all()
        assert inputs.features.shape[2] == reader.shape.features
        # the best candidate comes first
        assert (np.diff(inputs.features[:, :, 0]) <= 0).all()
    assert sample_inputs(reader, depth=99)[0].places.shape[1] == len(TEXTS)


def test_a_loaded_reranker_serves_as_before(encoder, models, tmp_path):
    shape = models[1].shape
    reader = input_reader(tmp_path / "store", encoder, shape, TEXTS)
    saved = SplitReranker(OnnxJoint.trace(models[1]), reader, item_reader(encoder, shape), 5, Gain(1.0, 0.1))
    (tmp_path / "saved").mkdir()
    saved.save(tmp_path / "saved")
    loaded = SplitReranker.load(tmp_path / "saved", encoder, 5, saved.gain)
    if len(usable()) == 1:
        assert type(loaded.joint._serving.session) is type(saved.joint._serving.session)
    for inputs in sample_inputs(reader, depth=5):
        np.testing.assert_allclose(loaded.joint.score(inputs), saved.joint.score(inputs), atol=0.02)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("execution", [one for one in EXECUTIONS if one.provider == CUDA], ids=lambda one: one.name)
def test_cuda_serves_as_the_cpu(joint, models, execution):
    cpu = EXECUTIONS[0]
    choice = joint.choose(samples(models[1]), (cpu, execution))
    assert not choice.measurements[1].obstacle
    workload = Workload(
        [feed_of(joint._serving.session, inputs) for inputs in samples(models[1])], buckets(joint.shape)
    )
    joint._open = lambda graph: open_execution(graph, execution, workload)
    for model in (models[1], moved(models[1], 5)):
        joint.replace(model.state_dict())
        for inputs in [*samples(model, users=3, items=7), *samples(model, users=1, items=40)] * 2:
            assert_alike(joint.score(inputs), model, inputs, 0.02)
