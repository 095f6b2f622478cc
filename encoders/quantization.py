"""Quantization: a fused float32 graph at the precision that is asked for.

int8 means 8-bit weights and 8-bit activations in every product with a weight matrix, and 8-bit rows in the
embedding tables; layer norms, softmax and the products inside attention stay float32. Four things keep it
close to the original (docs/quantization.md has the measurements):

- Activations get one scale per token, measured as it passes (Yao et al., ZeroQuant, 2022). ONNX Runtime's own
  dynamic quantization takes one scale over the whole batch: there, an answer depends on its batch mates.
- The output of a layer norm is centred per channel and divided by the square root of the channel's deviation
  before it is quantized; the next weights are multiplied back (Xiao et al., SmoothQuant, 2023; Wei et al.,
  Outlier Suppression+, 2023). The centre times the float weights goes to the bias, unquantized.
- The output of a GELU or a ReLU, which hardly goes below zero, gets the 8 bits above zero.
- Weights fill 8 bits as far as no two neighbours of a column exceed 128 together. AVX2 without VNNI adds
  products of neighbours in 16 bits that saturate; so bounded, 255 * 128 < 2 ** 15 never does, and every x86
  processor gives the same integers.
"""

import copy
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from encoders.calibration import Channels
from encoders.graph import MICROSOFT
from encoders.lowering import half

Precision = Literal["int8", "fp16", "fp32"]

LEVELS = 255
MIDDLE = 128  # zero point of activations that go both ways
NEIGHBOURS = 127  # bound of two neighbouring weights before rounding, which may add one
SMALLEST = np.float32(1e-12)  # a row of zeros has a scale, too
SMALL_TABLE_ROWS = 1024  # tables of positions and types are not worth two more operators
FEW_COLUMNS = 8  # a head with one label stays float32

# operators whose output has a floor, and the zero point that suits it: GELU's minimum is -0.17
FLOORS = {"BiasGelu": (0.17, 20), "Gelu": (0.17, 20), "FastGelu": (0.17, 20), "Relu": (0.0, 0)}


def at_precision(fused: onnx.ModelProto, precision: Precision, channels: Mapping[str, Channels]) -> onnx.ModelProto:
    """A graph at a precision; its inputs and outputs keep their types, and the given graph is left unchanged.

    Args:
        fused: as `graph.fuse` gives it.
        precision: fp32 is the graph itself; fp16 has half-precision weights and arithmetic, for GPUs; int8 is
            described at the top of this module.
        channels: of the outputs of layer norms, by name; int8 needs them.
    """
    if precision == "fp32":
        return fused
    if precision == "fp16":
        return half(fused)
    return Int8Graph(copy.deepcopy(fused), channels).quantize()


def neighbour_bounded(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantize columns so that neighbours (rows 2i and 2i + 1) are at most 128 together.

    Args:
        weight: (K, N).

    Returns:
        (K, N) steps and the (N,) column scales that they are multiplied with.
    """
    sizes = np.abs(weight)
    if len(sizes) % 2:
        sizes = np.concatenate([sizes, np.zeros_like(sizes[:1])])
    together = sizes[0::2] + sizes[1::2]
    scales = np.maximum(together.max(0) / NEIGHBOURS, SMALLEST).astype(np.float32)
    return np.rint(weight / scales).astype(np.int8), scales


class Int8Graph:
    """Rewrites a graph node by node, from float32 products to 8-bit ones."""

    quantize_weight = staticmethod(neighbour_bounded)

    def __init__(self, model: onnx.ModelProto, channels: Mapping[str, Channels]):
        self.model = model
        self.channels = channels
        self.floats = {tensor.name: tensor for tensor in model.graph.initializer}
        self.makers = {name: node.op_type for node in model.graph.node for name in node.output}
        self.nodes: list[onnx.NodeProto] = []
        self.added: dict[str, onnx.TensorProto] = {}

    def quantize(self) -> onnx.ModelProto:
        """Rewrite every product with a weight matrix and every lookup in a large table."""
        rewrites = {
            "MatMul": self._matmul,
            "Gemm": self._gemm,
            "Attention": self._attention,
            "Gather": self._lookup,
        }
        for node in self.model.graph.node:
            rewrite = rewrites.get(node.op_type)
            if rewrite is None or not rewrite(node, _attributes(node)):
                self.nodes.append(node)
        graph = self.model.graph
        used = {name for node in self.nodes for name in node.input}
        kept = [tensor for tensor in graph.initializer if tensor.name in used]
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend([*kept, *self.added.values()])
        return self.model

    def _matmul(self, node: onnx.NodeProto, settings: dict[str, Any]) -> bool:
        if not self._is_weight(node.input[1]):
            return False
        name = node.output[0]
        shift = self._product(node.input[0], self._array(node.input[1]), name)
        if shift.any():
            self._shift(name, shift)
        return True

    def _gemm(self, node: onnx.NodeProto, settings: dict[str, Any]) -> bool:
        plain = settings.get("alpha", 1.0) == settings.get("beta", 1.0) == 1.0 and not settings.get("transA")
        if not plain or not self._is_weight(node.input[1]) or node.input[2] not in self.floats:
            return False
        name, weight = node.output[0], self._array(node.input[1])
        shift = self._product(node.input[0], weight.T if settings.get("transB") else weight, f"{name}_product")
        bias = self._constant(f"{name}_bias", self._array(node.input[2]) + shift)
        self._emit("Add", [f"{name}_product", bias], name)
        return True

    def _attention(self, node: onnx.NodeProto, settings: dict[str, Any]) -> bool:
        """Attention with its weights inside → one 8-bit product, and attention over its three parts."""
        if not self._is_weight(node.input[1]) or any(node.input[4:]):
            return False  # with a cache or a mask of its own, it stays float32
        name = node.output[0]
        shift = self._product(node.input[0], self._array(node.input[1]), f"{name}_qkv")
        bias = self._constant(f"{name}_bias", self._array(node.input[2]) + shift)
        parts = [f"{name}_{part}" for part in ("query", "key", "value")]
        self.nodes.append(helper.make_node("Split", [f"{name}_qkv"], parts, axis=-1))
        mask = node.input[3] if len(node.input) > 3 else ""
        kept = ("num_heads", "scale", "mask_filter_value", "unidirectional")
        kept_settings = {key: settings[key] for key in kept if key in settings}
        self._emit("MultiHeadAttention", [*parts, bias, mask], name, MICROSOFT, **kept_settings)
        return True

    def _lookup(self, node: onnx.NodeProto, settings: dict[str, Any]) -> bool:
        """A table's rows as 8-bit steps, and one scale per row."""
        table, ids = node.input
        if table not in self.floats or len(self.floats[table].dims) != 2 or settings.get("axis", 0) != 0:
            return False
        rows = self._array(table)
        if len(rows) <= SMALL_TABLE_ROWS:
            return False
        name = node.output[0]
        scales = np.maximum(np.abs(rows).max(1, keepdims=True) / 127, SMALLEST)
        steps = self._constant(f"{table}_steps", np.rint(rows / scales).astype(np.int8))
        self._emit("Gather", [steps, ids], f"{name}_steps")
        self._emit("Cast", [f"{name}_steps"], f"{name}_row", to=TensorProto.FLOAT)
        self._emit("Gather", [self._constant(f"{table}_scales", scales), ids], f"{name}_scale")
        self._emit("Mul", [f"{name}_row", f"{name}_scale"], name)
        return True

    def _product(self, left: str, weight: NDArray[np.float32], name: str) -> NDArray[np.float32]:
        """Write left (…, K) @ weight (K, N), less a shift (N,) that the caller adds to a bias."""
        states = left
        shift = np.zeros(weight.shape[1], dtype=np.float32)
        if left in self.channels:
            centre = self.channels[left].mean
            root = np.sqrt(np.maximum(self.channels[left].deviation, SMALLEST))
            self._emit("Sub", [left, self._constant(f"{left}_centre", centre)], f"{name}_centred")
            self._emit("Mul", [f"{name}_centred", self._constant(f"{left}_evener", 1 / root)], f"{name}_even")
            states, shift = f"{name}_even", centre @ weight
            weight = weight * root[:, None]
        width = np.array([-1, len(weight)])
        self._emit("Reshape", [states, self._constant(f"rows_of_{len(weight)}", width)], f"{name}_rows")
        zero_point = self._row_scales(left, name)
        self._emit("Squeeze", [f"{name}_scale", self._constant("second_axis", np.array([1]))], f"{name}_scales")
        self._emit("Shape", [f"{name}_scales"], f"{name}_count")
        fill = helper.make_tensor("value", TensorProto.UINT8, [1], [zero_point])
        self._emit("ConstantOfShape", [f"{name}_count"], f"{name}_zeros", value=fill)
        self._emit("QuantizeLinear", [f"{name}_rows", f"{name}_scales", f"{name}_zeros"], f"{name}_levels", axis=0)
        steps, scales = self.quantize_weight(weight)
        operands = [
            f"{name}_levels",
            self._constant(f"{name}_weight", steps),
            self._constant("one", np.array(1, dtype=np.float32)),
            self._constant(f"{name}_weight_scales", scales),
            self._constant(f"zero_point_{zero_point}", np.array(zero_point, dtype=np.uint8)),
        ]
        self._emit("MatMulIntegerToFloat", operands, f"{name}_sums", MICROSOFT)
        self._emit("Mul", [f"{name}_sums", f"{name}_scale"], f"{name}_scaled")
        self._emit("Shape", [left], f"{name}_shape")
        ends = [self._constant("zero", np.array([0])), self._constant("minus_one", np.array([-1]))]
        self._emit("Slice", [f"{name}_shape", *ends], f"{name}_outer")
        columns = self._constant(f"width_{weight.shape[1]}", np.array([weight.shape[1]]))
        self._emit("Concat", [f"{name}_outer", columns], f"{name}_target", axis=0)
        self._emit("Reshape", [f"{name}_scaled", f"{name}_target"], name)
        return shift

    def _row_scales(self, left: str, name: str) -> int:
        """Write {name}_scale (rows, 1), the step of each row of {name}_rows; returns the zero point."""
        floor, zero_point = FLOORS.get(self.makers.get(left, ""), (0.0, MIDDLE))
        if zero_point == MIDDLE:
            self._emit("Abs", [f"{name}_rows"], f"{name}_sizes")
            top, levels = f"{name}_sizes", LEVELS - MIDDLE
        else:
            top, levels = f"{name}_rows", LEVELS - zero_point
        least = max(floor / zero_point if zero_point else 0.0, float(SMALLEST))
        self._emit("ReduceMax", [top], f"{name}_peak", axes=[1], keepdims=1)
        step = self._constant(f"step_of_{levels}", np.array(1 / levels, dtype=np.float32))
        self._emit("Mul", [f"{name}_peak", step], f"{name}_tight_scale")
        least_scale = self._constant(f"least_scale_{zero_point}", np.array(least, dtype=np.float32))
        self._emit("Max", [f"{name}_tight_scale", least_scale], f"{name}_scale")
        return zero_point

    def _shift(self, name: str, shift: NDArray[np.float32]) -> None:
        """Add a shift to the bias that follows a product, or as a step of its own where none follows."""
        readers = [node for node in self.model.graph.node if name in node.input]
        if len(readers) == 1 and readers[0].op_type in {"BiasGelu", "Add"}:
            for place, other in enumerate(readers[0].input):
                if other in self.floats and self._array(other).shape == shift.shape:
                    readers[0].input[place] = self._constant(f"{name}_bias", self._array(other) + shift)
                    return
        self.nodes[-1].output[0] = f"{name}_unshifted"
        self._emit("Add", [f"{name}_unshifted", self._constant(f"{name}_shift", shift)], name)

    def _emit(self, kind: str, inputs: list[str], output: str, domain: str = "", **settings: Any) -> None:
        name = f"int8_{len(self.nodes)}"  # operators need names of their own, unlike any tensor's
        self.nodes.append(helper.make_node(kind, inputs, [output], name=name, domain=domain, **settings))

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        name = f"int8/{name}"  # apart from whatever the graph has
        self.added.setdefault(name, numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def _array(self, name: str) -> NDArray[np.float32]:
        return np.asarray(numpy_helper.to_array(self.floats[name]))

    def _is_weight(self, name: str) -> bool:
        tensor = self.floats.get(name)
        return (
            tensor is not None
            and tensor.data_type == TensorProto.FLOAT
            and len(tensor.dims) == 2
            and min(tensor.dims) >= FEW_COLUMNS
        )


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
