"""Calibration: how the channels of a graph's layer norms lie on real texts."""

import copy
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from encoders.batching import TokenBatch
from encoders.session import CPU, open_session


@dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """Mean and standard deviation of each channel of a tensor of token states."""

    mean: NDArray[np.float32]  # (H,)
    deviation: NDArray[np.float32]  # (H,)


def measure_channels(fused: onnx.ModelProto, batches: Iterable[TokenBatch]) -> Mapping[str, Channels]:
    """Run a float32 graph and measure the output of every layer norm over all tokens, padding left out.

    Args:
        fused: as `graph.fuse` gives it.
        batches: a few hundred real texts or pairs.

    Returns:
        Channels by the name of the tensor.
    """
    names = [node.output[0] for node in fused.graph.node if node.op_type == "LayerNormalization"]
    opened = copy.deepcopy(fused)
    del opened.graph.output[:]
    opened.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "opened.onnx"
        onnx.save(opened, str(path))
        session = open_session(path, [CPU])
    count = 0
    sums = {name: np.zeros(1) for name in names}
    squares = {name: np.zeros(1) for name in names}
    for batch in batches:
        real = batch.attention_mask.astype(bool)
        count += int(real.sum())
        for name, states in zip(names, session.run(batch.named(session.inputs)), strict=True):
            tokens = states[real].astype(np.float64)
            sums[name] = sums[name] + tokens.sum(0)
            squares[name] = squares[name] + (tokens**2).sum(0)
    channels = {}
    for name in names:
        mean = sums[name] / count
        deviation = np.sqrt(np.maximum(squares[name] / count - mean**2, 0.0))
        channels[name] = Channels(mean.astype(np.float32), deviation.astype(np.float32))
    return channels
