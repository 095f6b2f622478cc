"""The joint layers as an ONNX graph whose weights keep their names."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import fields
from pathlib import Path

import numpy as np
import onnx
import torch

from encoders.graph import OPSET
from encoders.layers import Layer
from ranker.split.inputs import JointInputs
from ranker.split.model import JointModel, JointShape, packed_width

LOGITS = "logits"  # name of the graph's only output


def traced(shape: JointShape) -> onnx.ModelProto:
    """The graph of a model over any numbers of users, candidates, rows, events and words; its constants are empty."""
    axes = {
        "rows": ("rows",),
        "places": ("users", "items", "tokens"),
        "factors": ("users", "items"),
        "features": ("users", "items"),
        "event_places": ("users", "events"),
        "event_factors": ("users", "events"),
        "event_kinds": ("users", "events"),
        "event_levels": ("users", "events"),
        "event_bias": ("users", "events"),
        "query_states": ("users", "words"),
        "query_bias": ("users", "words"),
        LOGITS: ("users", "items"),
    }
    example = _example(shape)
    model = _distinct(shape)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter announces its own retirement
        path = Path(folder) / "joint.onnx"
        torch.onnx.export(
            model,
            tuple(example.tensors().values()),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=[field.name for field in fields(JointInputs)],
            output_names=[LOGITS],
            dynamic_axes={name: dict(enumerate(names)) for name, names in axes.items()},
            do_constant_folding=False,  # so that every weight keeps its name
        )
        graph = onnx.load(str(path))
    for constant in graph.graph.initializer:
        constant.ClearField("raw_data")
    return graph


def _distinct(shape: JointShape) -> JointModel:
    """A model no two weights of which are equal: the exporter makes one constant of those that are.

    Weights that start as copies, as those of the context do, would else be one for ever.
    """
    model = empty_model(shape).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(generator=generator)
    return model.eval()


def _example(shape: JointShape) -> JointInputs:
    users, items, events, words = 2, 3, min(4, shape.max_events), 3
    tokens = 1 if shape.joint_layers == 1 else 5
    width = packed_width(shape.layer) if shape.joint_layers == 1 else shape.layer.dim
    places = 1 + np.arange(users * items * tokens).reshape(users, items, tokens)
    return JointInputs(
        rows=np.zeros((1 + places.size, width), np.float16),
        places=places,
        factors=np.zeros((users, items, shape.factors), np.float32),
        features=np.zeros((users, items, shape.features), np.float32),
        event_places=np.ones((users, events), np.int64),
        event_factors=np.zeros((users, events, shape.factors), np.float32),
        event_kinds=np.zeros((users, events), np.int64),
        event_levels=np.zeros((users, events), np.int64),
        event_bias=np.zeros((users, events), np.float32),
        query_states=np.zeros((users, words, shape.layer.dim), np.float16),
        query_bias=np.zeros((users, words), np.float32),
    )


def empty_model(shape: JointShape) -> JointModel:
    """A model without memory, for the names and shapes of its weights: the sizes may be anything a file says."""
    with torch.device("meta"):
        return JointModel(shape, [Layer(shape.layer) for _ in range(shape.joint_layers)])
