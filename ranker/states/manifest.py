"""The manifest of a store: store.json, which says what made the rows and which files hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from encoders.errors import ArtifactError
from ranker.states.files import check_format, write_file
from ranker.states.rows import RowFormat, RowKind

MANIFEST = "store.json"


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ShardEntry:
    """A shard of a store."""

    name: Annotated[str, Field(pattern=r"^shard-[0-9a-f]{32}\.bin$")]
    rows: PositiveInt
    bytes: PositiveInt


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class StoreManifest:
    """The store.json of a store."""

    version: str
    width: PositiveInt
    n_items: PositiveInt
    index: Annotated[str, Field(pattern=r"^index-[0-9a-f]{32}\.bin$")]
    shards: Annotated[tuple[ShardEntry, ...], Field(min_length=1)]
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
    def files(self) -> list[str]:
        """The files of the store beside store.json."""
        return [self.index, *(shard.name for shard in self.shards)]


def read_manifest(folder: Path) -> StoreManifest:
    """Read and check a folder's store.json.

    Raises:
        ArtifactError: It is missing, damaged, or of another format.
    """
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
        check_format(path, content)
        return TypeAdapter(StoreManifest).validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ArtifactError(
            f"{path}: not a readable store ({where}: {first['msg']}). Delete it and build the store again; shards that "
            "are whole are kept."
        ) from error
    except OSError as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(
            f"{path}: cannot be read ({error.strerror}). Check the path, or build the store: one that was not finished "
            "goes on."
        ) from error


def write_manifest(folder: Path, manifest: StoreManifest) -> None:
    """Replace store.json, and so the store.

    Raises:
        ArtifactError: The disk refused.
    """
    write_file(folder, MANIFEST, TypeAdapter(StoreManifest).dump_json(manifest, indent=2) + b"\n")
