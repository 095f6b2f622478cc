"""The store of item states: what the lower layers made of each item's text, once, memory-mapped for every request.

    store.json         format, version, how rows are kept, and the size of every file below
    index-….bin        (3, N) int64: shard, first row and number of rows of each item
    shard-….bin        rows of texts; see `ranker.states.shards`

Files bear the hash of their content and never change, so that store.json, replaced last, is what makes a build count.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoders.errors import ArtifactError, InputError
from ranker.states.files import disk_refusals, map_file
from ranker.states.manifest import MANIFEST, StoreManifest, read_manifest, write_manifest
from ranker.states.shards import BYTE, COUNT, HEADER
from retrieval.candidates import NO_ITEM
from retrieval.storage import sync


class StateStore:
    """The cached rows of N items, each of one or more rows of ``width`` numbers; open it with ``open``.

    Nothing changes once it is open: threads may share it, and it answers as before while its folder is updated or
    deleted.

    Attributes:
        folder: Where it was opened.
        version: What made the rows.
        row_format: How rows are kept. What is given of them is float16 in any case.
        width: Numbers in a row.
        counts: Rows of each item, (N,).
        max_rows: The most rows that an item has.
    """

    def __init__(
        self,
        folder: Path,
        manifest: StoreManifest,
        index: NDArray[np.int64],
        shards: Sequence[NDArray[np.uint8]],
    ) -> None:
        self.folder = folder
        self.version = manifest.version
        self.row_format = manifest.row_format
        self.width = manifest.width
        self._manifest = manifest
        self._numbers, self._starts, self.counts = index
        self._shards = shards
        self.max_rows = int(self.counts.max())

    @classmethod
    def open(cls, folder: Path, version: str | None = None) -> StateStore:
        """Map a store into memory.

        Args:
            folder: What ``build_store`` wrote.
            version: What must have made the rows; None takes any.

        Raises:
            ArtifactError: A file is missing, damaged, or of another format; or the store is of another version.
        """
        while True:
            manifest = read_manifest(folder)
            if version is not None and version != manifest.version:
                raise ArtifactError(
                    f"{folder}: holds states of version {manifest.version}, but this encoder is version {version}. "
                    "Build a store with this encoder in another folder, or load the encoder that made this one."
                )
            try:
                return cls(folder, manifest, *_map(folder, manifest))
            except ArtifactError:
                if read_manifest(folder) == manifest:  # else an update came between
                    raise

    @property
    def n_items(self) -> int:
        """How many items it holds."""
        return len(self.counts)

    @property
    def bytes_per_item(self) -> float:
        """Mean size of an item's rows, as they are kept."""
        return float(self.counts.mean()) * self.row_format.bytes

    def gather(self, items: NDArray[np.int64]) -> NDArray[np.float16]:
        """The row of each item of a store in which every item has one.

        Args:
            items: Positions in the catalogue, of any shape S.

        Returns:
            S + (width,); zeros for NO_ITEM.

        Raises:
            InputError: An item is not in the store, or items have several rows.
        """
        if self.max_rows > 1:
            raise InputError(
                f"{self.folder}: items have up to {self.max_rows} rows each; use gather_ragged, or build a store "
                "of one row per item."
            )
        flat = self._flat(items)
        return self._padded(flat, (flat != NO_ITEM).astype(np.int64), 1).reshape(*items.shape, self.width)

    def gather_ragged(self, items: NDArray[np.int64], limit: int) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
        """The first rows of each item, padded with zeros to a common number.

        Args:
            items: Positions in the catalogue, of any shape S.
            limit: The most rows of an item that are given.

        Returns:
            Rows S + (L, width) and their numbers S, where L is the largest of these numbers and at least 1;
            NO_ITEM has none.

        Raises:
            InputError: An item is not in the store, or the limit is below 1.
        """
        if limit < 1:
            raise InputError(f"The limit is {limit} rows of each item; it must be 1 or more.")
        flat = self._flat(items)
        counts = np.where(flat == NO_ITEM, 0, np.minimum(self.counts[flat], limit))
        length = int(counts.max(initial=1))
        rows = self._padded(flat, counts, length)
        return rows.reshape(*items.shape, length, self.width), counts.reshape(items.shape)

    def copy_to(self, folder: Path) -> None:
        """Write the store into an empty folder, created where it is missing.

        Files are hard-linked where the file system can, so that a copy takes no room.

        Raises:
            ArtifactError: The folder is not empty, the disk refused, or a file of this store is gone.
        """
        with disk_refusals(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise ArtifactError(f"{folder}: is not empty. Name another folder for the copy, or empty this one.")
            for name in self._manifest.files:
                _link(self.folder / name, folder / name)
            write_manifest(folder, self._manifest)

    def _flat(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        flat = items.reshape(-1)
        outside = flat[(flat < NO_ITEM) | (flat >= self.n_items)]
        if len(outside):
            raise InputError(
                f"Item {outside[0]} is not in the store {self.folder}, which holds {self.n_items:,} items (from 0). "
                "Update the store: build it again with the texts of all items."
            )
        return flat

    def _padded(self, items: NDArray[np.int64], counts: NDArray[np.int64], length: int) -> NDArray[np.float16]:
        """The first ``counts`` (n,) rows of items (n,): (n, length, width), zeros beyond."""
        # what is padding reads a row that is read anyway, then becomes zeros: one copy of bytes, straight from the file
        stand_in = items.max(initial=0)
        items = np.where(items == NO_ITEM, stand_in, items)
        within = np.minimum(np.arange(length), np.maximum(counts, 1)[:, None] - 1)
        sources = self._starts[items][:, None] + within
        numbers = self._numbers[items]
        # shard by shard, each into its own stretch; items that come in their order need no rearrangement after it
        order = np.argsort(numbers, kind="stable")
        sources, numbers = sources[order], numbers[order]
        rows = np.empty((len(items), length, self.row_format.bytes), BYTE)
        ends = [*np.flatnonzero(np.diff(numbers, append=-1)) + 1]
        for start, end in zip([0, *ends], ends, strict=False):
            # a mode other than "raise", or numpy copies twice; the places are known to be in range
            self._shards[numbers[start]].take(sources[start:end], axis=0, out=rows[start:end], mode="clip")
        if (np.diff(order) < 0).any():
            rows = rows[np.argsort(order)]
        rows[np.arange(length) >= counts[:, None]] = 0  # what is decoded as zeros
        return self.row_format.decode(rows)


def _map(folder: Path, manifest: StoreManifest) -> tuple[NDArray[np.int64], list[NDArray[np.uint8]]]:
    """The index (3, N) and the shards that store.json names; see ``StateStore.open``."""
    shards, size = [], manifest.row_format.bytes
    for shard in manifest.shards:
        if HEADER + shard.rows * size > shard.bytes:
            raise ArtifactError(
                f"{folder / MANIFEST}: {shard.rows:,} rows do not fit in the {shard.bytes:,} bytes of {shard.name}. "
                "Delete it and build the store again; shards that are whole are kept."
            )
        shards.append(map_file(folder / shard.name, shard.bytes, BYTE, HEADER, (shard.rows, size)))
    path, shape = folder / manifest.index, (3, manifest.n_items)
    index = map_file(path, manifest.n_items * 3 * COUNT.itemsize, COUNT, 0, shape)
    _check_index(path, index, np.array([len(rows) for rows in shards]))
    return index, shards


def _check_index(path: Path, index: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
    """Raise ArtifactError where an item of the index (3, N) lies outside the shards, of so many rows each."""
    numbers, starts, counts = index
    known = (numbers >= 0) & (numbers < len(rows))
    held = rows[np.where(known, numbers, 0)]
    # starts are compared with a difference, since a sum could overflow
    within = known & (counts >= 1) & (counts <= held) & (starts >= 0) & (starts <= held - counts)
    if not within.all():
        place = int(np.argmin(within))
        raise ArtifactError(
            f"{path}: item {place} has {counts[place]} rows from row {starts[place]} of shard {numbers[place]}, which "
            "are not there; build the store again."
        )


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system gives it none."""
    try:
        os.link(source, target)
    except OSError:
        try:
            shutil.copyfile(source, target)
        except FileNotFoundError as error:
            raise ArtifactError(f"{source}: is gone since the store was opened; open it again.") from error
        sync(target)
