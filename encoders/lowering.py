"""Lowered graphs: a float32 graph in half precision, or with static 8-bit products, as GPUs run them."""

import copy
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.quant_utils import add_pre_process_metadata
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

# What masks write is bounded here: half precision ends at 65504, and two masks may be added, or a mask and a logit.
# Beyond its end is -inf, and a softmax over nothing but -inf is no number.
LARGEST = 3e4
PRODUCTS = ["MatMul", "Gemm"]


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph with half-precision weights and arithmetic; its inputs and outputs keep their types.

    Args:
        model: a float32 graph; it is left unchanged.
    """
    lowered = onnx.shape_inference.infer_shapes(_bounded(model))  # the conversion has to know what is float32
    converted = OnnxModel(
        convert_float_to_float16(lowered, max_finite_val=LARGEST, keep_io_types=True, disable_shape_infer=True)
    )
    converted.topological_sort()  # the conversion puts the casts of inputs last
    ordered: onnx.ModelProto = converted.model
    return ordered


def static_int8(model: onnx.ModelProto, feeds: Iterable[Mapping[str, NDArray[Any]]]) -> onnx.ModelProto:
    """A graph whose products with a weight matrix are 8-bit, as pairs of QuantizeLinear and DequantizeLinear.

    TensorRT reads symmetric pairs only, one for each reader of a tensor, and weights in float32 with a pair behind.

    Args:
        model: a float32 graph; it is left unchanged.
        feeds: real requests, over which the range of every activation is measured.
    """
    prepared = _folded(model)
    weights = {constant.name for constant in prepared.graph.initializer}
    products = [node for node in prepared.graph.node if node.op_type in PRODUCTS and node.input[1] in weights]
    for number, node in enumerate(products):
        node.name = node.name or f"int8_{number}"  # nodes are told apart by their names
    add_pre_process_metadata(prepared)  # or it warns on the root logger, and so configures the logging of its caller
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quantized.onnx"
        quantize_static(
            prepared,
            path,
            _Feeds(feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=PRODUCTS,
            nodes_to_quantize=[node.name for node in products],
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "AddQDQPairToWeight": True,
                "DedicatedQDQPair": True,
                "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
                "OpTypesToExcludeOutputQuantization": PRODUCTS,
            },
        )
        return onnx.load(str(path))


class _Feeds(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Iterable[Mapping[str, NDArray[Any]]]):
        self.rest: Iterator[Mapping[str, NDArray[Any]]] = iter(feeds)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """The next request, None after the last: the contract of the base class."""
        feed = next(self.rest, None)
        return None if feed is None else dict(feed)


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which no weight is transposed on its way into a product."""
    folded = copy.deepcopy(model)
    graph = folded.graph
    weights = {constant.name: constant for constant in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type == "Transpose" and node.input[0] in weights:
            axes = [axis for attribute in node.attribute for axis in attribute.ints]
            turned = np.transpose(numpy_helper.to_array(weights[node.input[0]]), axes or None)
            weights[node.output[0]] = numpy_helper.from_array(np.ascontiguousarray(turned), node.output[0])
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constant for name, constant in weights.items() if name in used)
    return folded


def _bounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every float32 input passes a Clip first."""
    bounded = copy.deepcopy(model)
    graph = bounded.graph
    names = [value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.FLOAT]
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name in names:
                node.input[place] = f"{name}_bounded"
    if names:
        for limit, value in (("half_least", -LARGEST), ("half_most", LARGEST)):
            graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), limit))
    clips = [
        helper.make_node("Clip", [name, "half_least", "half_most"], [f"{name}_bounded"], name=f"{name}_bound")
        for name in names
    ]
    nodes = [*clips, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return bounded
