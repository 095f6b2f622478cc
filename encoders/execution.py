"""Executions: the ways in which a graph can be run, each with the reason where this machine does not allow it."""

import hashlib
import importlib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from encoders.binding import BoundSession, Buckets, axes_of
from encoders.errors import ConfigError
from encoders.lowering import half, static_int8
from encoders.session import CPU, CUDA, IN_MEMORY, TENSORRT, OnnxSession, Provider, open_session

ENGINES = Path(os.path.expanduser("~/.cache/hybrid-ranker/tensorrt"))  # Path.home needs a home

# What they give has as many entries as the values say, so the host has to wait for it; a captured graph cannot.
UNCAPTURABLE = {"NonZero", "Compress", "Unique", "NonMaxSuppression", "If", "Loop", "Scan"}


@dataclass(frozen=True, slots=True)
class Execution:
    """A way to run a graph.

    Attributes:
        name: unique among EXECUTIONS.
        provider: the execution provider of ONNX Runtime.
        precision: "given" is the graph as it is, "half" and "int8" as `encoders.lowering` makes them.
        captured: whether a run is captured as a CUDA graph, once per bucket, and replayed from then on. On CPU
            it is run in the same buffers, and nothing is captured.
    """

    name: str
    provider: str
    precision: Literal["given", "half", "int8"] = "given"
    captured: bool = False

    def obstacle(self) -> str:
        """Why this machine cannot run it, in one sentence; empty where it can."""
        if self.provider not in onnxruntime.get_available_providers():
            return f"This ONNX Runtime has no {self.provider}."
        if self.provider == CPU:
            return ""
        if not torch.cuda.is_available():
            return f"There is no CUDA device that this PyTorch ({torch.__version__}) can use."
        if self.provider == TENSORRT and importlib.util.find_spec("tensorrt") is None:
            return "The package tensorrt is missing; install the major version that ONNX Runtime was built with."
        return ""


# TensorRT is given float32 graphs: it decides itself, operator by operator, where half precision pays.
EXECUTIONS = (
    Execution("cpu", CPU),
    Execution("cuda", CUDA),
    Execution("cuda-half", CUDA, "half"),
    Execution("cuda-graph", CUDA, captured=True),
    Execution("cuda-half-graph", CUDA, "half", captured=True),
    Execution("tensorrt-half", TENSORRT),
    Execution("tensorrt-int8", TENSORRT, "int8"),
)
# TensorRT builds an engine for every version of the weights, which takes from seconds to minutes.
QUICKLY_OPENED = tuple(execution for execution in EXECUTIONS if execution.provider != TENSORRT)


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """What a graph is run on.

    Attributes:
        feeds: real requests, by the names of the inputs; executions are measured and calibrated on them.
        buckets: what requests are padded to where shapes have to be fixed.
        engines: folder of the engines that TensorRT has built.
    """

    feeds: Sequence[Mapping[str, NDArray[Any]]]
    buckets: Buckets
    engines: Path = ENGINES


def usable(executions: Sequence[Execution] = EXECUTIONS) -> list[Execution]:
    """Those that this machine can run."""
    return [execution for execution in executions if not execution.obstacle()]


def open_execution(
    model: onnx.ModelProto,
    execution: Execution,
    workload: Workload,
    path: Path = IN_MEMORY,
    threads: int | None = None,
) -> OnnxSession:
    """Open a graph to be run in this way.

    Args:
        model: the graph; it is left unchanged.
        execution: the way.
        workload: what it will be run on.
        path: the file that the graph came from.
        threads: as for `open_session`.

    Raises:
        ArtifactError: ONNX Runtime cannot run the graph in this way.
        ConfigError: this machine cannot, or the graph cannot be captured.
    """
    obstacle = execution.obstacle()
    if not obstacle and execution.captured:
        kinds = sorted({node.op_type for node in model.graph.node} & UNCAPTURABLE)
        obstacle = f"The graph has {', '.join(kinds)}, which cannot be captured." if kinds else ""
    if obstacle:
        raise ConfigError(f"{execution.name}: {obstacle}")
    if execution.precision == "half":
        model = half(model)
    elif execution.precision == "int8":
        model = static_int8(model, workload.feeds)
    content = model.SerializeToString()
    provider = _provider(execution, model, content, workload)
    session = open_session(content, [provider], threads, unsaturated=execution.precision == "int8")
    session.path = path
    if session.provider != execution.provider:
        raise ConfigError(
            f"{execution.name}: ONNX Runtime fell back from {execution.provider} to {session.provider}: install the "
            "libraries that it was built with."
        )
    fixed = execution.captured or execution.provider == TENSORRT
    return BoundSession(session, workload.buckets) if fixed else session


def _provider(execution: Execution, model: onnx.ModelProto, content: bytes, workload: Workload) -> Provider:
    """The provider and its options, spelled as each parses them: CUDA reads 1, TensorRT nothing but True."""
    if execution.provider == CUDA and execution.captured:
        return CUDA, {"enable_cuda_graph": "1"}
    if execution.provider != TENSORRT:
        return execution.provider
    importlib.import_module("tensorrt")  # loads the libraries that ONNX Runtime then finds by their names
    # TensorRT finds an engine by the names in its graph, which say nothing of the weights: hence a folder per content.
    folder = workload.engines / hashlib.sha256(content).hexdigest()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return TENSORRT, {
        "trt_fp16_enable": "True",
        "trt_int8_enable": str(execution.precision == "int8"),
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(folder),
        **_profile(model, workload),
    }


def _profile(model: onnx.ModelProto, workload: Workload) -> dict[str, str]:
    """The shapes that an engine is built for, from 1 on each free axis to its largest bucket."""
    session = open_session(model.SerializeToString(), [CPU])
    shapes = {value.name: axes_of(value) for value in session.inner.get_inputs()}
    lengths = [_lengths(shapes, feed) for feed in workload.feeds]
    sizes = workload.buckets.sizes
    most = {axis: sizes.get(axis, (max(found[axis] for found in lengths),))[-1] for axis in lengths[0]}
    profile = {
        "trt_profile_min_shapes": dict.fromkeys(most, 1),
        "trt_profile_opt_shapes": workload.buckets.padded(lengths[0]),
        "trt_profile_max_shapes": most,
    }
    return {option: _spelled(shapes, chosen) for option, chosen in profile.items()}


def _lengths(shapes: Mapping[str, Sequence[int | str]], feed: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """The length of each free axis in a request."""
    return {
        axis: length
        for name, axes in shapes.items()
        for axis, length in zip(axes, feed[name].shape, strict=True)
        if isinstance(axis, str)
    }


def _spelled(shapes: Mapping[str, Sequence[int | str]], sizes: Mapping[str, int]) -> str:
    """Shapes of the inputs that have a free axis, as name:1x2x3,name:4x5."""
    return ",".join(
        f"{name}:{'x'.join(str(sizes[axis] if isinstance(axis, str) else axis) for axis in axes)}"
        for name, axes in shapes.items()
        if any(isinstance(axis, str) for axis in axes)
    )
