"""Files of a store: written whole or not at all, and mapped into memory only at the size that they should have."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass

from encoders.errors import ArtifactError
from ranker.states.rows import RowFormat
from retrieval.storage import sync

FORMAT = 1
TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.tmp")

Scalar = TypeVar("Scalar", bound=np.generic)


def write_file(folder: Path, name: str, content: bytes) -> None:
    """Write a file whole, in place of one of this name.

    Raises:
        ArtifactError: The disk refused; the file that was there is untouched.
    """

    def write(file: BinaryIO) -> str:
        with disk_refusals(folder):
            file.write(content)
        return name

    write_whole(folder, write)


def write_whole(folder: Path, write: Callable[[BinaryIO], str]) -> Path:
    """Let ``write`` fill a temporary file and name it."""
    temporary = folder / f".{uuid.uuid4().hex}.tmp"
    with disk_refusals(folder):
        file = temporary.open("wb")
    try:
        target = folder / write(file)
        with disk_refusals(folder):
            file.flush()
            os.fsync(file.fileno())
            file.close()
            temporary.replace(target)
            sync(folder)
    except BaseException:
        with suppress(OSError):  # it flushes once more where the disk was full
            file.close()
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    return target


def check_format(path: Path, content: bytes) -> None:
    """Refuse JSON that says it is of another format, whatever else it holds.

    Raises:
        ArtifactError: It does.
        ValidationError: It names no format.
    """
    number = TypeAdapter(_Numbered).validate_json(content).format
    if number != FORMAT:
        raise ArtifactError(
            f"{path}: format {number}, but this library reads format {FORMAT}. Install the hybrid-ranker version that "
            "wrote it, or build the store in another folder."
        )


@dataclass(frozen=True, config=ConfigDict(extra="ignore"))
class _Numbered:
    format: int


def check_maker(folder: Path, found: tuple[str, RowFormat], wanted: tuple[str, RowFormat]) -> None:
    """Refuse a folder whose rows are of another version or format.

    Raises:
        ArtifactError: They are.
    """
    if found != wanted:
        raise ArtifactError(
            f"{folder}: holds states of version {found[0]} and {found[1]}, but the encoder makes version "
            f"{wanted[0]} and {wanted[1]}: name another folder, or delete this one and build the store again."
        )


def map_file(path: Path, size: int, dtype: np.dtype[Scalar], offset: int, shape: tuple[int, ...]) -> NDArray[Scalar]:
    """Memory-map an array in a file of exactly ``size`` bytes.

    Raises:
        ArtifactError: The file is missing, unreadable or of another size.
    """
    try:
        found = path.stat().st_size
        if found != size:
            problem = f"truncated: {found:,} of {size:,}" if found < size else f"{found:,} instead of {size:,}"
            raise ArtifactError(f"{path}: {problem} bytes; build the store again.")
        return np.asarray(np.memmap(path, dtype, "r", offset, shape))
    except (OSError, ValueError) as error:
        if isinstance(error, ArtifactError):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise ArtifactError(f"{path}: cannot be read ({reason}); build the store again.") from error


@contextmanager
def disk_refusals(folder: Path) -> Iterator[None]:
    """Say in a line what the disk refused.

    Raises:
        ArtifactError: It did.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(
            f"{folder}: the store was not written ({error.strerror or error}); one that was there before is untouched. "
            "Make room or name another folder, and go on: shards that are whole are kept."
        ) from error
