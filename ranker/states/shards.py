"""Shards: immutable files of rows, each with the keys of the texts that the rows were made from.

    header    JSON, padded with spaces to HEADER bytes
    rows      (R, bytes of a row); see `ranker.states.rows`
    keys      (T, 16) bytes: the hash of each text
    counts    (T,) int64: rows of each text, one text after another

Numbers are little-endian. A shard bears the hash of its content as its name and appears whole or not at all: it is
written under a temporary name, synced, and renamed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, NonNegativeInt, PositiveInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from encoders.errors import ArtifactError, InputError
from ranker.states.files import check_format, check_maker, disk_refusals, map_file, write_whole
from ranker.states.rows import RowFormat, RowKind

HEADER = 4096  # a page, so that the rows begin on one
KEY = np.dtype("S16")
BYTE = np.dtype("u1")
COUNT = np.dtype("<i8")
SHARD = re.compile(r"shard-[0-9a-f]{32}\.bin")

logger = logging.getLogger(__name__)

Part = tuple[NDArray[np.bytes_], NDArray[np.int64], NDArray[np.uint8]]  # (B,) keys, (B,) counts, their encoded rows


class DamagedShardError(ArtifactError):
    """A shard is not whole; its texts must be read again."""


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ShardHeader:
    """What a shard holds."""

    version: str
    width: PositiveInt
    texts: PositiveInt
    rows: PositiveInt
    kind: RowKind = "float16"
    exact: NonNegativeInt = 0
    format: Literal[1] = 1

    def __post_init__(self) -> None:
        _ = self.row_format  # sizes that do not go together are an error

    @property
    def row_format(self) -> RowFormat:
        """How its rows are kept."""
        return RowFormat(self.width, self.kind, self.exact)

    @property
    def end(self) -> int:
        """Where its rows end."""
        return HEADER + self.rows * self.row_format.bytes

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self.end + self.texts * (KEY.itemsize + COUNT.itemsize)


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """A shard on disk, and which texts it holds."""

    path: Path
    header: ShardHeader
    keys: NDArray[np.bytes_]  # (T,)
    counts: NDArray[np.int64]  # (T,) at least 1 each

    @property
    def starts(self) -> NDArray[np.int64]:
        """The first row of each text, (T,)."""
        return np.cumsum(self.counts) - self.counts

    def rows(self) -> NDArray[np.uint8]:
        """Map the encoded rows (R, bytes of a row) into memory."""
        shape = (self.header.rows, self.header.row_format.bytes)
        return map_file(self.path, self.header.bytes, BYTE, HEADER, shape)


def text_keys(texts: Sequence[str]) -> NDArray[np.bytes_]:
    """The key of each text, (T,): what is equal to an encoder, which sees lone surrogates as "?", has one key.

    Raises:
        InputError: An entry is not a string.
    """
    keys = np.empty(len(texts), KEY)
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"Text {place} is {text!r}, not a string: fill or drop missing texts first.")
        keys[place] = blake2b(text.encode("utf-8", "replace"), digest_size=KEY.itemsize).digest()
    return keys


def write_shard(folder: Path, version: str, row_format: RowFormat, parts: Iterable[Part]) -> Shard:
    """Write a shard as its parts arrive, so that one part is in memory at a time.

    Raises:
        ArtifactError: The disk refused. Nothing is left of the shard, nor where ``parts`` raises.
    """
    keys, counts = [np.empty(0, KEY)], [np.empty(0, COUNT)]
    digest = blake2b(digest_size=16)

    def write(file: BinaryIO) -> str:
        file.seek(HEADER)
        for part_keys, part_counts, rows in parts:
            content = np.ascontiguousarray(rows).data
            digest.update(content)
            with disk_refusals(folder):
                file.write(content)
            keys.append(part_keys)
            counts.append(part_counts.astype(COUNT))
        texts, every = sum(map(len, keys)), int(np.concatenate(counts).sum())
        shard = ShardHeader(version, row_format.width, texts, every, row_format.kind, row_format.exact)
        header = TypeAdapter(ShardHeader).dump_json(shard)
        tail = np.concatenate(keys).tobytes() + np.concatenate(counts).tobytes()
        digest.update(header + tail)
        with disk_refusals(folder):
            file.write(tail)
            file.seek(0)
            file.write(header.ljust(HEADER))
        return f"shard-{digest.hexdigest()}.bin"

    return read_shard(write_whole(folder, write), version, row_format)


def read_shards(folder: Path, version: str, row_format: RowFormat) -> list[Shard]:
    """The whole shards of a folder, the largest last; damaged ones are passed over with a warning.

    Raises:
        ArtifactError: A shard is of another version, row format or file format.
    """
    shards = []
    with disk_refusals(folder):
        paths = sorted(path for path in folder.iterdir() if SHARD.fullmatch(path.name))
    for path in paths:
        try:
            shards.append(read_shard(path, version, row_format))
        except DamagedShardError as error:
            logger.warning("The texts of a damaged shard are read again (%s).", error)
    return sorted(shards, key=lambda shard: len(shard.keys))


def read_shard(path: Path, version: str, row_format: RowFormat) -> Shard:
    """Open a shard.

    Raises:
        DamagedShardError: It is not whole.
        ArtifactError: It is of another version, row format or file format.
    """
    try:
        with path.open("rb") as file:
            content = file.read(HEADER)
        check_format(path, content)
        header = TypeAdapter(ShardHeader).validate_json(content)
    except ValidationError as error:
        raise DamagedShardError(f"{path}: no readable header") from error
    except OSError as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(
            f"{path}: cannot be read ({error.strerror}). Check who may read it, or delete it."
        ) from error
    check_maker(path.parent, (header.version, header.row_format), (version, row_format))
    try:
        keys = map_file(path, header.bytes, KEY, header.end, (header.texts,))
        counts = np.array(map_file(path, header.bytes, COUNT, header.end + keys.nbytes, (header.texts,)))
    except ArtifactError as error:
        raise DamagedShardError(str(error)) from error
    if not ((counts >= 1) & (counts <= header.rows)).all() or counts.sum() != header.rows:
        raise DamagedShardError(f"{path}: its counts do not add up to its {header.rows:,} rows")
    return Shard(path, header, np.array(keys), counts)
