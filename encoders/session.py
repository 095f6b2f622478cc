"""ONNX Runtime sessions: the best provider that really works here, without noise about the others."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from encoders.errors import ArtifactError, ConfigError, first_line

logger = logging.getLogger(__name__)

IN_MEMORY = Path("graph in memory")  # what a session without a file calls its path
TENSORRT, CUDA, CPU = "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"

Provider: TypeAlias = str | tuple[str, Mapping[str, str]]  # its name, or its name and its options


class OnnxSession:
    """A graph loaded from `path`; `provider` names the execution provider that runs it, on so many `threads`."""

    def __init__(self, session: onnxruntime.InferenceSession, path: Path):
        self.inner = session
        self.path = path
        self.provider: str = session.get_providers()[0]
        self.threads: int = session.get_session_options().intra_op_num_threads
        self.inputs: tuple[str, ...] = tuple(value.name for value in session.get_inputs())
        self.outputs: tuple[str, ...] = tuple(value.name for value in session.get_outputs())

    def run(self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> list[NDArray[np.float32]]:
        """Compute these outputs, or every one in the order of `outputs`."""
        return self.inner.run(outputs, dict(feeds))  # type: ignore[no-any-return]


def open_session(
    source: Path | bytes,
    providers: Literal["auto"] | Sequence[Provider] = "auto",
    threads: int | None = None,
    unsaturated: bool = False,
) -> OnnxSession:
    """Open an ONNX graph.

    Args:
        source: the .onnx file, or its content.
        providers: execution providers in the order of preference; "auto" is CUDA where a device is present,
            then CPU. CPU always takes the operators that the others lack.
        threads: threads within one operator; None means as many as torch uses, so that a process which keeps torch to
            one core (`torch.set_num_threads`, `OMP_NUM_THREADS`) keeps its sessions there, too.
        unsaturated: sum up 8-bit products more slowly where the processor's own way, AVX2 without VNNI, saturates in
            16 bits; needless for weights that are bounded so that none does (`encoders.quantization`).

    Returns:
        The session; `provider` says which one it got.

    Raises:
        ArtifactError: the file is missing or is no ONNX graph that this ONNX Runtime can run.
        ConfigError: a named provider is not part of this ONNX Runtime.
    """
    path = source if isinstance(source, Path) else IN_MEMORY
    if isinstance(source, Path) and not path.is_file():
        raise ArtifactError(f"{path} is missing: export the model again, or pass the folder that holds it.")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings are about node placement, which no caller can act on
    # threads wait actively during a run; after it they would take the processor from whatever is computed next
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if unsaturated:
        options.add_session_config_entry("session.x64quantprecision", "1")
    options.intra_op_num_threads = torch.get_num_threads() if threads is None else threads
    wanted = _providers(providers)
    # on CPU the fused operator is several times slower than the addition and the layer norm that it replaces
    unwanted = ["SkipLayerNormFusion"] if wanted == [CPU] else []
    try:
        loaded = onnxruntime.InferenceSession(
            source if isinstance(source, bytes) else str(path),
            options,
            wanted,
            disabled_optimizers=unwanted,
            enable_fallback=providers == "auto",  # what was asked for by name runs there, or says why it cannot
        )
        session = OnnxSession(loaded, path)
    except Exception as error:  # ONNX Runtime's error classes share no base but Exception
        raise ArtifactError(f"{path} is not a graph that ONNX Runtime can run: {first_line(error)}") from error
    logger.debug("%s runs on %s", path, session.provider)
    return session


def _providers(providers: Literal["auto"] | Sequence[Provider]) -> list[str | tuple[str, dict[str, str]]]:
    available = onnxruntime.get_available_providers()
    if providers == "auto":
        # asking for CUDA without a device prints errors from native code, so torch is asked first
        named: dict[str, dict[str, str]] = {CUDA: {}} if torch.cuda.is_available() and CUDA in available else {}
    else:
        named = {name: dict(options) for name, options in map(_with_options, providers) if name != CPU}
        unknown = [name for name in named if name not in available]
        if unknown:
            raise ConfigError(f"Execution providers {unknown} are not in this ONNX Runtime; it has {available}.")
    if named.keys() & {CUDA, TENSORRT}:
        onnxruntime.preload_dlls()  # finds the CUDA and cuDNN libraries that came with torch
    return [*((name, options) if options else name for name, options in named.items()), CPU]


def _with_options(provider: Provider) -> tuple[str, Mapping[str, str]]:
    return (provider, {}) if isinstance(provider, str) else provider
