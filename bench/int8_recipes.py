"""int8 recipes: the library's own, its ablations, and ONNX Runtime's, all from one fused graph."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime import quantization as ort_quantization

from encoders import TextEncoder
from encoders.calibration import measure_channels
from encoders.quantization import Int8Graph, at_precision

CHOSEN = "int8 (ours)"
FP32 = "ONNX fp32"


class SevenBitWeights(Int8Graph):
    """The other way to keep AVX2 from saturating: every weight within 7 bits."""

    @staticmethod
    def quantize_weight(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """Columns within 63 steps of zero."""
        return _by_column(weight, 63)


class EightBitWeights(Int8Graph):
    """Every weight within 8 bits; AVX2 saturates on it, VNNI does not."""

    @staticmethod
    def quantize_weight(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """Columns within 127 steps of zero."""
        return _by_column(weight, 127)


class FloatProducts(Int8Graph):
    """8 bits in the file alone: ONNX Runtime unfolds the weights when the session opens."""

    def _product(self, left: str, weight: NDArray[np.float32], name: str) -> NDArray[np.float32]:
        steps, scales = _by_column(weight, 127)
        to_float = {"to": onnx.TensorProto.FLOAT}
        self._emit("Cast", [self._constant(f"{name}_weight", steps)], f"{name}_steps", **to_float)
        self._emit("Mul", [f"{name}_steps", self._constant(f"{name}_scales", scales)], f"{name}_float")
        self._emit("MatMul", [left, f"{name}_float"], name)
        return np.zeros(weight.shape[1], dtype=np.float32)


def recipes(fused: Path, encoder: TextEncoder, calibration: list[str]) -> dict[str, Callable[[Path], None]]:
    """What is compared, by name; each writes its ONNX file to a path."""
    graph = onnx.load(str(fused))
    channels = measure_channels(graph, encoder.tokens.text_batches(calibration))
    float_tensors = {"DefaultTensorType": onnx.TensorProto.FLOAT}

    def dynamic(per_channel: bool, reduce_range: bool, unsigned: bool = False) -> Callable[[Path], None]:
        kind = ort_quantization.QuantType.QUInt8 if unsigned else ort_quantization.QuantType.QInt8
        return lambda path: ort_quantization.quantize_dynamic(
            fused, path, per_channel=per_channel, reduce_range=reduce_range, weight_type=kind,
            extra_options=float_tensors,
        )  # fmt: skip

    def save(build: Callable[[], onnx.ModelProto]) -> Callable[[Path], None]:
        return lambda path: onnx.save(build(), str(path))

    def copy() -> onnx.ModelProto:
        return onnx.load(str(fused))

    return {
        FP32: save(lambda: graph),
        CHOSEN: save(lambda: at_precision(graph, "int8", channels)),
        "ours, channels not evened": save(lambda: at_precision(graph, "int8", {})),
        "ours, 7-bit weights": save(lambda: SevenBitWeights(copy(), channels).quantize()),
        "ours, 8-bit weights (AVX2 saturates)": save(lambda: EightBitWeights(copy(), channels).quantize()),
        "dynamic, per tensor": dynamic(per_channel=False, reduce_range=False),
        "dynamic, per channel": dynamic(per_channel=True, reduce_range=False),
        "dynamic, per channel, 7-bit weights": dynamic(per_channel=True, reduce_range=True),
        "dynamic, per channel, U8U8": dynamic(per_channel=True, reduce_range=False, unsigned=True),
        "8-bit weights, float products": save(lambda: FloatProducts(copy(), channels).quantize()),
    }


def _by_column(weight: NDArray[np.float32], steps: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    scales = np.maximum(np.abs(weight).max(0) / steps, 1e-12).astype(np.float32)
    return np.rint(weight / scales).astype(np.int8), scales
