"""Arrays and settings on disk: memory-mapped ``.npy`` and JSON, read back as the untrusted input they are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from encoders.errors import ArtifactError

Settings = TypeVar("Settings")
Scalar = TypeVar("Scalar", bound=np.generic)


def load_array(path: Path, dtype: type[Scalar], ndim: int) -> NDArray[Scalar]:
    """A memory-mapped array of the expected kind.

    Raises:
        ArtifactError: The file is missing, is no array, or has another type or number of dimensions.
    """
    try:
        array: NDArray[Scalar] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ArtifactError(f"{path}: not a readable array ({error}). Save the engine again.") from error
    if array.dtype != dtype or array.ndim != ndim:
        raise ArtifactError(
            f"{path}: expected {ndim} dimensions of {np.dtype(dtype)}, found {array.ndim} of {array.dtype}. "
            "It belongs to something else; save the engine again."
        )
    return array


def save_settings(settings: object, path: Path) -> None:
    """Write a settings dataclass as JSON."""
    path.write_bytes(TypeAdapter(type(settings)).dump_json(settings, indent=2) + b"\n")


def load_settings(kind: type[Settings], path: Path) -> Settings:
    """Read what ``save_settings`` wrote.

    Raises:
        ArtifactError: The file is missing or does not hold these settings.
    """
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = str(error).replace("\n", " ")
        raise ArtifactError(f"{path}: not the settings of {kind.__name__} ({reason}).") from error


def sync(path: Path) -> None:
    """Flush a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
