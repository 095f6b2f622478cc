"""Arrays and settings on disk: memory-mapped ``.npy`` and JSON, read back as the untrusted input they are."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from scipy import sparse

from encoders.errors import ArtifactError

Settings = TypeVar("Settings")
Scalar = TypeVar("Scalar", bound=np.generic)


def load_array(path: Path, dtype: type[Scalar], ndim: int) -> NDArray[Scalar]:
    """A memory-mapped array of the expected kind.

    Raises:
        ArtifactError: The file is missing, is no array, or has another type or number of dimensions.
    """
    try:
        # as a plain array, whose rows are taken in a fraction of the time
        array: NDArray[Scalar] = np.lib.format.open_memmap(path, mode="r").view(np.ndarray)
    except Exception as error:  # numpy evaluates a header, and raises whatever comes of it
        raise ArtifactError(f"{path}: not a readable array ({error}). Save the engine again.") from error
    if array.dtype != dtype or array.ndim != ndim:
        raise ArtifactError(
            f"{path}: expected {ndim} dimensions of {np.dtype(dtype)}, found {array.ndim} of {array.dtype}. "
            "It belongs to something else; save the engine again."
        )
    return array


def save_weights(weights: sparse.csr_array, folder: Path) -> None:
    """Write sparse weights (I, I) as three arrays into this folder."""
    np.save(folder / "indptr.npy", weights.indptr.astype(np.int64))
    np.save(folder / "indices.npy", weights.indices.astype(np.int32))
    np.save(folder / "data.npy", weights.data.astype(np.float32))


def load_weights(folder: Path) -> sparse.csr_array:
    """Read what ``save_weights`` wrote; the weights stay memory-mapped.

    Raises:
        ArtifactError: A file is missing or damaged, or they are not the rows of one square matrix of weights above 0.
    """
    indptr = load_array(folder / "indptr.npy", np.int64, ndim=1)
    indices = load_array(folder / "indices.npy", np.int32, ndim=1)
    data = load_array(folder / "data.npy", np.float32, ndim=1)
    n_items = len(indptr) - 1
    if n_items < 0 or indptr[0] != 0 or (np.diff(indptr) < 0).any() or indptr[-1] != len(indices):
        raise ArtifactError(
            f"{folder / 'indptr.npy'}: does not cut the {len(indices)} entries of indices.npy into rows. "
            "Save the engine again."
        )
    if len(data) != len(indices):
        raise ArtifactError(
            f"{folder / 'data.npy'}: {len(data)} weights for the {len(indices)} entries of indices.npy. "
            "Save the engine again."
        )
    if len(indices) and not (indices.min() >= 0 and indices.max() < n_items):
        raise ArtifactError(
            f"{folder / 'indices.npy'}: names items outside the catalogue of {n_items}. Save the engine again."
        )
    if len(data) and not (data.min() > 0 and data.max() < np.inf):  # a NaN passes neither
        raise ArtifactError(
            f"{folder / 'data.npy'}: holds weights that are not finite and above 0. Save the engine again."
        )
    return sparse.csr_array((data, indices, indptr), shape=(n_items, n_items))


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


def replace_text(path: Path, text: str) -> None:
    """Write a small file so that a crash at any instant leaves the old content or the new one."""
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def replace_settings(settings: object, path: Path) -> None:
    """The same with settings as ``save_settings`` writes them."""
    with replacing(path) as temporary:
        save_settings(settings, temporary)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside this one to write to, which takes its place once all is on disk, or leaves nothing behind."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)
