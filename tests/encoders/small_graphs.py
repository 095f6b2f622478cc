"""Small float32 graphs with free axes, requests for them, and a run that is true to their types."""

import warnings

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def model(nodes, inputs, outputs, constants=()):
    """A graph of nodes; inputs and outputs are (name, type, axes), constants (name, array)."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def attention(dim=8, seed=0):
    """Rows of a table, chosen by place, attend to the events that are not masked: logits (users, items), and states."""
    rng = np.random.default_rng(seed)
    sizes = {"key_turned": (dim, dim), "widen": (dim, 4 * dim), "narrow": (4 * dim, dim), "head": (dim, 1)}
    weights = [(name, rng.normal(size=size, scale=size[0] ** -0.5).astype(np.float32)) for name, size in sizes.items()]
    nodes = [
        helper.make_node("Gather", ["rows", "places"], ["asked"]),
        helper.make_node("Transpose", ["key_turned"], ["key"]),
        helper.make_node("MatMul", ["events", "key"], ["keys"], name="keys"),
        helper.make_node("Transpose", ["keys"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["asked", "turned"], ["scores"], name="scores"),
        helper.make_node("Unsqueeze", ["mask", "one"], ["bias"]),
        helper.make_node("Add", ["scores", "bias"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["weights"], axis=-1),
        helper.make_node("MatMul", ["weights", "events"], ["read"], name="read"),
        helper.make_node("Add", ["asked", "read"], ["states"]),
        helper.make_node("MatMul", ["states", "widen"], ["wide"], name="wide"),
        helper.make_node("Relu", ["wide"], ["lifted"]),
        helper.make_node("MatMul", ["lifted", "narrow"], ["narrowed"], name="narrowed"),
        helper.make_node("MatMul", ["narrowed", "head"], ["column"], name="column"),
        helper.make_node("Squeeze", ["column", "two"], ["logits"]),
    ]
    inputs = [
        ("rows", FLOAT, ["rows", dim]),
        ("places", INT64, ["users", "items"]),
        ("events", FLOAT, ["users", "events", dim]),
        ("mask", FLOAT, ["users", "events"]),
    ]
    # the second output names an axis that no input has, as the exporter does where it does not know better
    outputs = [("logits", FLOAT, ["users", "items"]), ("states", FLOAT, ["users", "items", "width"])]
    constants = [*weights, ("one", np.array([1])), ("two", np.array([2]))]
    return model(nodes, inputs, outputs, constants)


def attention_feed(users=2, items=3, rows=5, events=4, dim=8, seed=0):
    """A request of these sizes; each user's first event is read, the others half the time."""
    rng = np.random.default_rng(seed)
    mask = np.where(rng.random((users, events)) < 0.5, 0, -1e9).astype(np.float32)
    mask[:, 0] = 0
    return {
        "rows": rng.normal(size=(rows, dim)).astype(np.float32),
        "places": rng.integers(0, rows, (users, items)),
        "events": rng.normal(size=(users, events, dim)).astype(np.float32),
        "mask": mask,
    }


def run_exactly(graph, feed):
    """Every output, by numpy: ONNX Runtime on CPU computes in float32 what a graph has in half precision."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "overflow encountered", RuntimeWarning)
        return ReferenceEvaluator(graph).run(None, dict(feed))
