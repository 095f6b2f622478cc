"""Bound sessions: a graph run in buffers that stay where they are, its inputs padded to a bucket's sizes.

That is what CUDA graphs ask for: what was captured is replayed on the same addresses and in the same shapes.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from encoders.errors import InputError
from encoders.session import CPU, OnnxSession

MOST_SHAPES = 16  # that have buffers of their own: each holds memory, and on a GPU a captured graph, too
UNCAPTURED = -1  # the id of a graph that is neither captured nor replayed

TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


@dataclass(frozen=True, slots=True)
class Buckets:
    """What the free axes of a graph's inputs are padded to.

    Attributes:
        sizes: of each axis by its name in the graph, ascending; an axis that is not named keeps its length.
        fill: what an input's padding holds; 0 where it is not named.
    """

    sizes: Mapping[str, tuple[int, ...]]
    fill: Mapping[str, float] = field(default_factory=dict)

    def hold(self, lengths: Mapping[str, int]) -> bool:
        """Whether no axis is longer than its largest size."""
        return all(length <= self.sizes[axis][-1] for axis, length in lengths.items() if axis in self.sizes)

    def padded(self, lengths: Mapping[str, int]) -> dict[str, int]:
        """The smallest sizes that hold these lengths."""
        return {
            axis: next(size for size in self.sizes.get(axis, (length,)) if size >= length)
            for axis, length in lengths.items()
        }


class BoundSession(OnnxSession):
    """Runs like the session that it is made of; requests of one bucket share its buffers.

    All runs are made by one thread of its own: the buffers are nobody else's, and ONNX Runtime keeps what it captured
    per thread. What no bucket holds, and what comes in a new shape once MOST_SHAPES have buffers, is run unpadded.

    Args:
        session: opened on CPU, CUDA or TensorRT.
        buckets: what its inputs are padded to; its answers must not depend on padding.
    """

    def __init__(self, session: OnnxSession, buckets: Buckets):
        super().__init__(session.inner, session.path)
        self.buckets = buckets
        self._axes = {value.name: axes_of(value) for value in self.inner.get_inputs()}
        self._buffers: dict[tuple[int, ...], _Buffers] = {}
        self._runner = ThreadPoolExecutor(1, thread_name_prefix="bound session")

    def run(self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> list[NDArray[np.float32]]:
        """Compute these outputs, or every one in the order of `outputs`; they are the caller's own.

        Raises:
            InputError: two inputs disagree on the length of an axis.
        """
        lengths = self._lengths(feeds)
        return self._runner.submit(self._run, feeds, lengths, outputs).result()

    def _lengths(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, int]:
        lengths: dict[str, int] = {}
        for name, axes in self._axes.items():
            for axis, length in zip(axes, feeds[name].shape, strict=True):
                if isinstance(axis, str) and lengths.setdefault(axis, length) != length:
                    raise InputError(
                        f"Input {name} has {length} {axis} where another has {lengths[axis]}: give all inputs of one "
                        "run the same."
                    )
        return lengths

    def _run(
        self, feeds: Mapping[str, NDArray[Any]], lengths: dict[str, int], outputs: Sequence[str] | None
    ) -> list[NDArray[np.float32]]:
        if not self.buckets.hold(lengths):
            return self._run_unpadded(feeds, outputs)
        sizes = self.buckets.padded(lengths)
        key = tuple(sizes.values())  # the order of the axes is that of the graph
        if key not in self._buffers:
            if len(self._buffers) == MOST_SHAPES:
                return self._run_unpadded(feeds, outputs)
            self._buffers[key] = _Buffers(self, sizes, graph_id=len(self._buffers) + 1)
        found = self._buffers[key].run(feeds, lengths)
        return [found[name] for name in (self.outputs if outputs is None else outputs)]

    def _run_unpadded(
        self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None
    ) -> list[NDArray[np.float32]]:
        return self.inner.run(outputs, dict(feeds), _options(UNCAPTURED))  # type: ignore[no-any-return]


class _Buffers:
    """The inputs and outputs of one bucket, bound to the session once."""

    def __init__(self, session: BoundSession, sizes: Mapping[str, int], graph_id: int):
        self.inner = session.inner
        self.device = "cpu" if session.provider == CPU else "cuda"
        self.fill = session.buckets.fill
        self.options = _options(graph_id)
        self.staged: dict[str, NDArray[Any]] = {}
        for value in self.inner.get_inputs():
            shape = [sizes[axis] if isinstance(axis, str) else axis for axis in axes_of(value)]
            self.staged[value.name] = np.full(shape, self.fill.get(value.name, 0), TYPES[value.type])
        # one run tells the outputs' sizes, of which a graph may not name all
        answers = self.inner.run(None, self.staged, _options(UNCAPTURED))
        self.axes = {value.name: axes_of(value) for value in self.inner.get_outputs()}
        self.inputs = {name: self._value(array) for name, array in self.staged.items()}
        self.outputs = {name: self._value(array) for name, array in zip(self.axes, answers, strict=True)}
        self.binding = self.inner.io_binding()
        for name, value in self.inputs.items():
            self.binding.bind_ortvalue_input(name, value)
        for name, value in self.outputs.items():
            self.binding.bind_ortvalue_output(name, value)

    def _value(self, array: NDArray[Any]) -> onnxruntime.OrtValue:
        """Memory on the device; on CPU the array's own."""
        return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self.device, 0)

    def run(self, feeds: Mapping[str, NDArray[Any]], lengths: Mapping[str, int]) -> dict[str, NDArray[np.float32]]:
        for name, staged in self.staged.items():
            staged[...] = self.fill.get(name, 0)
            staged[tuple(slice(length) for length in feeds[name].shape)] = feeds[name]
            if self.device != "cpu":
                self.inputs[name].update_inplace(staged)
        self.inner.run_with_iobinding(self.binding, self.options)
        self.binding.synchronize_outputs()
        found = {}
        for name, axes in self.axes.items():
            cut = tuple(slice(lengths.get(axis)) if isinstance(axis, str) else slice(None) for axis in axes)
            found[name] = self.outputs[name].numpy()[cut].copy()
        return found


def axes_of(value: Any) -> list[int | str]:
    """The axes of a graph's input or output: the length of one that is fixed, a name for one that is free."""
    return [axis if isinstance(axis, int | str) else f"{value.name} {at}" for at, axis in enumerate(value.shape)]


def _options(graph_id: int) -> onnxruntime.RunOptions:
    options = onnxruntime.RunOptions()
    options.log_severity_level = 3
    options.add_run_config_entry("gpu_graph_id", str(graph_id))
    return options
