"""Quantization: a fused float32 graph at the precision that is asked for.

int8 here means 8-bit weights and 8-bit activations in every product with a weight matrix, and 8-bit rows in
the embedding tables; layer norms, softmax and the products inside attention stay float32.
Activations are quantized symmetrically with one scale per token, measured as it passes (Yao et al.,
ZeroQuant, 2022), where ONNX Runtime's own dynamic quantization takes one scale over the whole batch: there, an answer
depends on the texts that happen to share its batch. Nothing is calibrated, so nothing can drift.
"""

import copy
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

Precision = Literal["int8", "fp16", "fp32"]

MICROSOFT = "com.microsoft"
ZERO_POINT = 128  # of uint8 activations, which the fastest x86 kernels take against int8 weights
ACTIVATION_STEPS = 127  # either side of zero
WEIGHT_STEPS = 63  # 7 bits: two products of 8 by 7 bits never saturate the 16-bit sums of AVX2's vpmaddubsw
TABLE_STEPS = 127
SMALL_TABLE_ROWS = 1024  # position and type tables are not worth two more operators


def at_precision(fused: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
    """A copy of a fused graph at a precision; its inputs and outputs keep their types.

    Args:
        fused: as `graph.fuse` gives it.
        precision: fp32 is the graph itself; fp16 has half-precision weights and arithmetic, for GPUs; int8 is
            described at the top of this module.
    """
    if precision == "fp32":
        return fused
    model = copy.deepcopy(fused)
    if precision == "fp16":
        converted: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True, disable_shape_infer=True)
        return converted
    return Int8Graph(model).quantize()


class Int8Graph:
    """Rewrites a graph node by node, from float products to 8-bit ones."""

    def __init__(self, model: onnx.ModelProto):
        self.model = model
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.added: dict[str, onnx.TensorProto] = {}

    def quantize(self) -> onnx.ModelProto:
        """Rewrite every product with a weight matrix and every lookup in a large table."""
        for node in self.model.graph.node:
            if node.op_type == "MatMul" and self._is_matrix(node.input[1]):
                self._product(node.input[0], self._array(node.input[1]), node.output[0], node.output[0])
            elif node.op_type == "Gemm" and self._is_plain_gemm(node):
                self._gemm(node)
            elif node.op_type == "Attention" and self._is_matrix(node.input[1]):
                self._attention(node)
            elif node.op_type == "Gather" and self._is_table(node):
                self._lookup(node)
            else:
                self.nodes.append(node)
        graph = self.model.graph
        used = {name for node in self.nodes for name in node.input}
        kept = [tensor for tensor in graph.initializer if tensor.name in used]
        del graph.node[:], graph.initializer[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend([*kept, *self.added.values()])
        del graph.value_info[:]
        if not any(entry.domain == MICROSOFT for entry in self.model.opset_import):
            self.model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
        return self.model

    def _product(self, left: str, weight: NDArray[np.float32], output: str, name: str) -> None:
        """Left (…, K) @ weight (K, N) with one scale per row of left and one per column of weight."""
        steps, scales = _quantize(weight, WEIGHT_STEPS, axis=0)
        rows = self._add("Reshape", [left, self._constant("rows_shape", np.array([-1, len(weight)]))], name, "rows")
        sizes = self._add("Abs", [rows], name, "abs")
        peak = self._add("ReduceMax", [sizes], name, "peak", axes=[1], keepdims=1)
        floor = self._constant("peak_floor", np.array(1e-12, dtype=np.float32))  # a row of zeros has a scale, too
        peak = self._add("Max", [peak, floor], name, "safe_peak")
        step = self._constant("activation_step", np.array(1 / ACTIVATION_STEPS, dtype=np.float32))
        scale = self._add("Mul", [peak, step], name, "scale")
        flat = self._add("Squeeze", [scale, self._constant("axis_1", np.array([1]))], name, "flat_scale")
        count = self._add("Shape", [flat], name, "count")
        zero_points = self._add(
            "ConstantOfShape", [count], name, "zero_points",
            value=helper.make_tensor("value", onnx.TensorProto.UINT8, [1], [ZERO_POINT]),
        )  # fmt: skip
        levels = self._add("QuantizeLinear", [rows, flat, zero_points], name, "levels", axis=0)
        product = self._add(
            "MatMulIntegerToFloat",
            [
                levels,
                self._constant(f"{name}_weight", steps),
                self._constant("unit_scale", np.array(1.0, dtype=np.float32)),
                self._constant(f"{name}_weight_scale", scales),
                self._constant("zero_point", np.array(ZERO_POINT, dtype=np.uint8)),
            ],
            name,
            "product",
            domain=MICROSOFT,
        )
        scaled = self._add("Mul", [product, scale], name, "scaled")
        shape = self._add("Shape", [left], name, "shape")
        ends = [self._constant(f"index_{at}", np.array([at])) for at in (0, -1)]
        outer = self._add("Slice", [shape, *ends], name, "outer")
        width = self._constant(f"width_{weight.shape[1]}", np.array([weight.shape[1]]))
        target = self._add("Concat", [outer, width], name, "target", axis=0)
        self.nodes.append(helper.make_node("Reshape", [scaled, target], [output], name=f"{name}_reshaped"))

    def _gemm(self, node: onnx.NodeProto) -> None:
        settings = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
        weight = self._array(node.input[1])
        product = f"{node.output[0]}_unbiased"
        self._product(node.input[0], weight.T if settings.get("transB") else weight, product, node.output[0])
        self.nodes.append(helper.make_node("Add", [product, node.input[2]], [node.output[0]]))

    def _attention(self, node: onnx.NodeProto) -> None:
        """Attention with its weights inside → one 8-bit product, and attention over its three parts."""
        settings = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
        name = node.output[0]
        self._product(node.input[0], self._array(node.input[1]), f"{name}_qkv", f"{name}_qkv")
        parts = [f"{name}_{part}" for part in ("query", "key", "value")]
        self.nodes.append(helper.make_node("Split", [f"{name}_qkv"], parts, axis=-1))
        mask = node.input[3] if len(node.input) > 3 else ""
        kept = {key: settings[key] for key in ("num_heads", "scale", "mask_filter_value") if key in settings}
        if settings.get("unidirectional"):
            kept["unidirectional"] = 1
        self.nodes.append(
            helper.make_node("MultiHeadAttention", [*parts, node.input[2], mask], [name], domain=MICROSOFT, **kept)
        )

    def _lookup(self, node: onnx.NodeProto) -> None:
        """A table's rows as 8-bit steps, and one scale per row."""
        name = node.output[0]
        steps, scales = _quantize(self._array(node.input[0]), TABLE_STEPS, axis=1)
        table = self._constant(f"{node.input[0]}_steps", steps)
        column = self._constant(f"{node.input[0]}_scales", scales[:, None])
        row = self._add("Cast", [self._add("Gather", [table, node.input[1]], name, "steps")], name, "row", to=1)
        scale = self._add("Gather", [column, node.input[1]], name, "scale")
        self.nodes.append(helper.make_node("Mul", [row, scale], [name]))

    def _add(self, kind: str, inputs: list[str], name: str, part: str, domain: str = "", **settings: Any) -> str:
        output = f"{name}_{part}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, domain=domain, **settings))
        return output

    def _constant(self, name: str, value: NDArray[np.generic]) -> str:
        if name == "rows_shape":
            name = f"rows_shape_{value[-1]}"
        self.added.setdefault(name, numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def _array(self, name: str) -> NDArray[np.float32]:
        return np.asarray(numpy_helper.to_array(self.constants[name]))

    def _is_matrix(self, name: str) -> bool:
        tensor = self.constants.get(name)
        return tensor is not None and len(tensor.dims) == 2 and tensor.data_type == onnx.TensorProto.FLOAT

    def _is_table(self, node: onnx.NodeProto) -> bool:
        return self._is_matrix(node.input[0]) and self.constants[node.input[0]].dims[0] > SMALL_TABLE_ROWS

    def _is_plain_gemm(self, node: onnx.NodeProto) -> bool:
        settings = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
        plain = settings.get("alpha", 1.0) == settings.get("beta", 1.0) == 1.0 and not settings.get("transA")
        return bool(plain and self._is_matrix(node.input[1]) and len(node.input) == 3)


def _quantize(matrix: NDArray[np.float32], steps: int, axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric steps and the scales of the other axis, each from its largest entry."""
    scales = np.maximum(np.abs(matrix).max(axis=axis), 1e-12).astype(np.float32) / np.float32(steps)
    spread = np.expand_dims(scales, axis)
    return np.clip(np.rint(matrix / spread), -steps, steps).astype(np.int8), scales
