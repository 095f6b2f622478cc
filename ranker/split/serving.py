"""The joint layers in ONNX Runtime, with weights that can change while requests run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from encoders import OnnxSession, open_session
from encoders.choosing import Choice, choose, same_order
from encoders.errors import ArtifactError, InputError
from encoders.execution import QUICKLY_OPENED, Execution, Workload, open_execution
from encoders.layers import Layer
from ranker.split.inputs import JointInputs
from ranker.split.model import JointModel, JointShape
from ranker.split.tracing import LOGITS, empty_model, traced
from ranker.split.workload import buckets
from retrieval.storage import load_settings, save_settings

SHAPE, WEIGHTS, GRAPH = "joint.json", "joint.safetensors", "joint.onnx"
LEAST_TAU = 0.98  # of the order that another execution gives candidates, against the CPU's


@dataclass(frozen=True, slots=True, eq=False)
class PreparedWeights:
    """Weights and what runs them; requests take the whole of it at once."""

    shape: JointShape
    weights: dict[str, torch.Tensor]
    session: OnnxSession

    def score(self, inputs: JointInputs) -> NDArray[np.float32]:
        """Logits (U, K)."""
        return self.session.run({name: getattr(inputs, name) for name in self.session.inputs})[0]


class OnnxJoint:
    """Scores candidates with the joint layers; ``serve`` swaps their weights without stopping requests.

    Of three ways to take new weights (bound as inputs, initializers changed in place, a second session built aside),
    the third is used: weights stay constants, which ONNX Runtime packs once for its products, and a request runs
    wholly on the old session or on the new one.

    Args:
        shape: Of the joint layers.
        graph: The traced graph; its constants have the names of the model's weights.
        weights: The weights to start with; they stay known as ``saved``.

    Raises:
        InputError: A weight is not finite, or the weights are not those of this shape.
    """

    def __init__(self, shape: JointShape, graph: onnx.ModelProto, weights: dict[str, torch.Tensor]) -> None:
        self.shape = shape
        self._graph = graph
        self._expected = _described(empty_model(shape).state_dict())
        self._changing = threading.Lock()  # held by who changes what serves, not by requests
        self._open: Callable[[onnx.ModelProto], OnnxSession] = _opened
        self.saved = weights
        self._serving = self._prepared(weights)

    @classmethod
    def trace(cls, model: JointModel) -> OnnxJoint:
        """Trace a model; it is left as it is.

        Raises:
            InputError: A weight is not finite.
        """
        return cls(model.shape, traced(model.shape), _copied(model.state_dict()))

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """The weights that serve, by their names in ``JointModel``; not to be changed."""
        return self._serving.weights

    def model(self) -> JointModel:
        """A torch model with the weights that serve, to train on."""
        layers = [Layer.blank(self.shape.layer) for _ in range(self.shape.joint_layers)]
        with torch.random.fork_rng(devices=[]):
            model = JointModel(self.shape, layers)
        model.load_state_dict(self.weights)
        return model.eval()

    def score(self, inputs: JointInputs) -> NDArray[np.float32]:
        """Logits (U, K)."""
        return self._serving.score(inputs)

    def prepare(self, weights: dict[str, torch.Tensor]) -> PreparedWeights:
        """Make weights ready for ``serve``, beside those that serve; this is what takes the time.

        Args:
            weights: By their names in ``JointModel``; copied.

        Raises:
            InputError: A weight is not finite, or the weights are not those of this shape.
        """
        return self._prepared(_copied(weights))

    def serve(self, prepared: PreparedWeights) -> PreparedWeights:
        """Let what ``prepare`` made serve, by one assignment. Requests that are running end on the old weights.

        Returns:
            What served until now: to serve again, or to let go of, which takes as long as freeing its memory does.

        Raises:
            InputError: It was prepared for joint layers of another shape. The old weights go on serving.
        """
        if prepared.shape != self.shape:
            raise InputError(
                f"Joint layers: weights were prepared for {prepared.shape}, but {self.shape} serves. Prepare them with "
                "the joint layers that they shall serve in."
            )
        with self._changing:
            before, self._serving = self._serving, prepared
        return before

    def replace(self, weights: dict[str, torch.Tensor]) -> None:
        """Prepare other weights and let them serve.

        Raises:
            InputError: As ``prepare``. The old weights go on serving.
        """
        self.serve(self.prepare(weights))

    def choose(self, samples: Sequence[JointInputs], executions: Sequence[Execution] = QUICKLY_OPENED) -> Choice:
        """Let the fastest execution serve that orders candidates as the CPU does; ``prepare`` keeps to it.

        Where this machine can run only one of them, nothing is measured and nothing changes.

        Args:
            samples: Requests like those to come.
            executions: To choose among. TensorRT's take long to open, and ``prepare`` opens every time.

        Raises:
            ConfigError: This machine can run none of them, or none agrees with the CPU.
        """
        with self._changing:
            weights = self._serving.weights
            graph = self._filled(weights)
            names = [value.name for value in graph.graph.input]
            feeds = [{name: getattr(inputs, name) for name in names} for inputs in samples]
            workload = Workload(feeds, buckets(self.shape))
            choice = choose(graph, workload, same_order(LEAST_TAU), executions)
            if choice.measured:
                chosen = next(execution for execution in executions if execution.name == choice.execution)
                self._open = partial(open_execution, execution=chosen, workload=workload)
                self._serving = PreparedWeights(self.shape, weights, self._open(graph))
        return choice

    def _prepared(self, weights: dict[str, torch.Tensor]) -> PreparedWeights:
        expected = self._expected
        given = _described(weights)
        if given != expected:
            odd = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
            raise InputError(
                f"Joint layers: {len(odd)} weights are missing, unknown or of another shape or type ({odd[0]} the "
                "first). They belong to a model of other settings."
            )
        for name, tensor in weights.items():
            if not tensor.isfinite().all():
                raise InputError(
                    f"Joint layers: {name} holds {int((~tensor.isfinite()).sum())} values that are no finite numbers. "
                    "They are refused; train again at a lower learning rate."
                )
        return PreparedWeights(self.shape, weights, self._open(self._filled(weights)))

    def _filled(self, weights: dict[str, torch.Tensor]) -> onnx.ModelProto:
        """The graph with these weights for constants."""
        graph = onnx.ModelProto()
        graph.CopyFrom(self._graph)
        for constant in graph.graph.initializer:
            if constant.name in weights:
                constant.CopyFrom(numpy_helper.from_array(weights[constant.name].numpy(), constant.name))
        return graph

    def save(self, folder: Path) -> None:
        """Write shape, weights and graph into this folder."""
        serving = self._serving
        save_settings(self.shape, folder / SHAPE)
        save_file(serving.weights, folder / WEIGHTS)
        onnx.save(self._graph, str(folder / GRAPH))

    @classmethod
    def load(cls, folder: Path) -> OnnxJoint:
        """Read what ``save`` wrote.

        Raises:
            ArtifactError: A file is missing or damaged, or the files do not belong together.
        """
        shape = load_settings(JointShape, folder / SHAPE)
        try:
            weights = load_file(folder / WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise ArtifactError(f"{folder / WEIGHTS}: cannot be read ({error}). Save the engine again.") from error
        graph = _read_graph(folder / GRAPH, shape)
        try:
            return cls(shape, graph, weights)
        except InputError as error:
            raise ArtifactError(f"{folder / WEIGHTS}: {error}") from error
        except ArtifactError as error:
            raise ArtifactError(f"{folder / GRAPH}: cannot be run ({error}). Save the engine again.") from error


def _opened(graph: onnx.ModelProto) -> OnnxSession:
    return open_session(graph.SerializeToString())


def _read_graph(path: Path, shape: JointShape) -> onnx.ModelProto:
    """The graph in a file, whose constants must be those of this shape.

    Raises:
        ArtifactError: It is missing, damaged or another model's.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's error classes are not part of its interface
        raise ArtifactError(f"{path}: is no ONNX graph. Save the engine again.") from error
    try:
        expected = {name: tuple(tensor.shape) for name, tensor in empty_model(shape).state_dict().items()}
    except (RuntimeError, TypeError, OverflowError) as error:
        raise ArtifactError(f"{path}: no graph has the sizes that {SHAPE} describes. Save the engine again.") from error
    if shape.joint_layers == 1:  # what items were folded through is not computed again
        for name in ("query.bias", "key.weight", "key.bias", "value.weight", "value.bias"):
            del expected[f"top.layer.{name}"]
    constants = {constant.name: tuple(constant.dims) for constant in model.graph.initializer}
    inputs = {value.name for value in model.graph.input}
    outputs = [value.name for value in model.graph.output]
    if constants != expected or not inputs <= {field.name for field in fields(JointInputs)} or outputs != [LOGITS]:
        raise ArtifactError(f"{path}: is the graph of another model than {SHAPE} describes. Save the engine again.")
    return model


def _described(weights: dict[str, torch.Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in weights.items()}


def _copied(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
