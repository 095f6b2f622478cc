"""Building of a store: every text is read once, and what an earlier build read is kept."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Never

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from encoders.errors import InputError
from ranker.states.files import TEMPORARY, check_maker, disk_refusals, write_file
from ranker.states.manifest import MANIFEST, ShardEntry, StoreManifest, read_manifest, write_manifest
from ranker.states.rows import NUMBER, RowFormat
from ranker.states.shards import COUNT, SHARD, Part, Shard, read_shards, text_keys, write_shard
from ranker.states.store import StateStore

INDEX = re.compile(r"index-[0-9a-f]{32}\.bin")
LONGEST_VERSION = 512  # characters; the header of a shard has room for no more than a few thousand bytes
SMALL_SHARDS = 16  # a store keeps no more shards of which less than half is used

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class StoredRows:
    """One batch of texts as what makes the rows read it."""

    places: NDArray[np.int64]  # (B,) places of the texts in the input, in any order
    counts: NDArray[np.int64]  # (B,) rows of each text, at least 1
    rows: NDArray[np.float16]  # (sum of counts, width)


Read = Callable[[Sequence[str]], Iterable[StoredRows]]


def build_store(
    folder: Path,
    texts: Sequence[str],
    version: str,
    row_format: RowFormat,
    read: Read,
    *,
    shard_items: int = 4096,
    progress: bool = False,
) -> StateStore:
    """Build the store of these texts, or bring one up to date with them.

    Equal texts are read once, and texts that whole shards in the folder hold are not read again, be they from an
    earlier store or from a build that was killed. The earlier store serves until the new one is whole; then shards
    that no item uses are deleted. Only one build at a time may write to a folder.

    Args:
        folder: Created where it is missing.
        texts: The text of each of N items.
        version: Identity of what makes the rows, at most 512 characters.
        row_format: How its rows are kept.
        read: Reads at most ``shard_items`` texts in batches.
        shard_items: Texts in a shard, which is what a killed build loses at most. An open store keeps a file open
            for each shard, of which a process may have about a thousand.
        progress: Show a bar if the output is a terminal.

    Raises:
        ArtifactError: The folder holds states of another version or row format, or the disk refused; a store that was
            there before is untouched.
        InputError: There are no texts, an entry is not a string, an argument is out of range, or ``read`` gave
            other rows than were asked for or rows that are not finite.
    """
    if not len(texts):
        raise InputError("There are no texts to build a store of; pass the text of each item.")
    if shard_items < 1 or not 1 <= len(version) <= LONGEST_VERSION:
        raise InputError(
            f"shard_items is {shard_items}, and the version has {len(version)} characters: the one must be 1 or more, "
            f"the other 1 to {LONGEST_VERSION} characters."
        )
    keys = text_keys(texts)
    _prepare(folder, version, row_format)
    shards = read_shards(folder, version, row_format)
    distinct, firsts, items = np.unique(keys, return_index=True, return_inverse=True)
    missing = np.sort(firsts[_locate(distinct, shards)[0] < 0])
    with tqdm(total=len(missing), unit="text", disable=None if progress else True) as bar:
        for start in range(0, len(missing), shard_items):
            places = missing[start : start + shard_items]
            parts = _read(read, texts, places, keys[places], row_format, bar)
            shards.append(write_shard(folder, version, row_format, parts))
    shards = _merge(folder, distinct, shards, shard_items)
    index = _locate(distinct, shards)[:, items]
    used, firsts, index[0] = np.unique(index[0], return_index=True, return_inverse=True)
    order = np.argsort(firsts)  # shards are numbered as items use them, so that a build gives the same store again
    index[0] = np.argsort(order)[index[0]]
    _replace(folder, index, [shards[number] for number in used[order]])
    logger.debug("%s: %d items, of which %d texts were read anew.", folder, len(texts), len(missing))
    return StateStore.open(folder, version)


def _prepare(folder: Path, version: str, row_format: RowFormat) -> None:
    """Create the folder, or refuse it and remove what a killed build left half-written."""
    with disk_refusals(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / MANIFEST).exists():
            manifest = read_manifest(folder)
            check_maker(folder, (manifest.version, manifest.row_format), (version, row_format))
        for path in folder.iterdir():
            if TEMPORARY.fullmatch(path.name):
                path.unlink()


def _locate(distinct: NDArray[np.bytes_], shards: Sequence[Shard]) -> NDArray[np.int64]:
    """Where the text of each key (D,), sorted, is held, the last shard first: shard or -1, first row, count; (3, D)."""
    located = np.full((3, len(distinct)), -1, COUNT)
    for number, shard in enumerate(shards):
        places = np.searchsorted(distinct, shard.keys)
        places[places == len(distinct)] = 0
        found = distinct[places] == shard.keys
        located[:, places[found]] = np.full(found.sum(), number), shard.starts[found], shard.counts[found]
    return located


def _read(
    read: Read,
    texts: Sequence[str],
    places: NDArray[np.int64],
    keys: NDArray[np.bytes_],
    row_format: RowFormat,
    bar: tqdm[Never],
) -> Iterator[Part]:
    """The rows of the texts at these places (n,), encoded as they are read."""
    awaited = np.ones(len(places), np.bool_)
    for batch in read([texts[place] for place in places.tolist()]):
        _check_places(batch.places, awaited)
        _check_rows(batch, row_format.width, places)
        awaited[batch.places] = False
        bar.update(len(batch.places))
        yield keys[batch.places], batch.counts, row_format.encode(batch.rows)
    if awaited.any():
        raise InputError(
            f"The reader gave rows of {len(places) - awaited.sum()} texts, but {len(places)} were asked for; text "
            f"{places[awaited][0]} has none. It must read every text."
        )


def _check_places(places: NDArray[np.int64], awaited: NDArray[np.bool_]) -> None:
    """Raise InputError unless a batch is of texts that were asked for and have no rows yet."""
    inside = (places >= 0) & (places < len(awaited))
    if not inside.all() or not awaited[places].all() or len(np.unique(places)) < len(places):
        raise InputError(
            f"The reader gave rows of places {places.tolist()[:10]} among {len(awaited)} texts: each place from 0 to "
            f"{len(awaited) - 1} must come once."
        )


def _check_rows(batch: StoredRows, width: int, places: NDArray[np.int64]) -> None:
    """Raise InputError unless a batch of the texts at these places holds finite rows of the right shape."""
    counts, rows = batch.counts, batch.rows
    if counts.shape != batch.places.shape or (counts < 1).any():
        raise InputError(
            f"The reader gave {len(batch.places)} texts with the counts {counts.tolist()[:10]}: each text needs one, "
            "and at least 1 row."
        )
    if rows.shape != (counts.sum(), width) or rows.dtype != NUMBER:
        raise InputError(
            f"The reader gave rows {rows.shape} of {rows.dtype}, but its counts and the store's width ask for "
            f"{(int(counts.sum()), width)} of {NUMBER}: build the store with the width of what it reads."
        )
    broken = ~np.isfinite(rows).all(axis=1)
    if broken.any():
        place = places[np.repeat(batch.places, counts)[broken]].min()
        raise InputError(
            f"Text {place}: the encoder gave states that are not finite. Most likely they are beyond "
            f"{np.finfo(NUMBER).max:,.0f}, the largest float16; take them after another layer, or use another encoder."
        )


def _merge(folder: Path, distinct: NDArray[np.bytes_], shards: Sequence[Shard], shard_items: int) -> list[Shard]:
    """Write the used rows of small shards together once there are too many of these; all shards, new ones last."""
    numbers, starts, counts = _locate(distinct, shards)
    small = np.flatnonzero(np.bincount(numbers, minlength=len(shards)) < shard_items / 2)
    moved = np.flatnonzero(np.isin(numbers, small))
    if len(np.unique(numbers[moved])) <= SMALL_SHARDS:
        return list(shards)
    moved = moved[np.lexsort((starts[moved], numbers[moved]))]

    def parts(chunk: NDArray[np.int64]) -> Iterator[Part]:
        for number in np.unique(numbers[chunk]):
            texts = chunk[numbers[chunk] == number]
            ends = np.cumsum(counts[texts])
            rows = np.arange(ends[-1]) + np.repeat(starts[texts] - ends + counts[texts], counts[texts])
            yield distinct[texts], counts[texts], shards[number].rows()[rows]

    header = shards[0].header
    chunks = [moved[start : start + shard_items] for start in range(0, len(moved), shard_items)]
    merged = [write_shard(folder, header.version, header.row_format, parts(chunk)) for chunk in chunks]
    return [*shards, *merged]


def _replace(folder: Path, index: NDArray[np.int64], shards: Sequence[Shard]) -> None:
    """Let an index (3, N) into these shards be the store, and delete what no item uses."""
    content = np.ascontiguousarray(index, COUNT).tobytes()
    name = f"index-{blake2b(content, digest_size=16).hexdigest()}.bin"
    write_file(folder, name, content)
    header = shards[0].header
    entries = tuple(ShardEntry(shard.path.name, shard.header.rows, shard.header.bytes) for shard in shards)
    manifest = StoreManifest(header.version, header.width, index.shape[1], name, entries, header.kind, header.exact)
    write_manifest(folder, manifest)
    for path in folder.iterdir():
        if (SHARD.fullmatch(path.name) or INDEX.fullmatch(path.name)) and path.name not in manifest.files:
            try:
                path.unlink()
            except OSError as error:
                logger.warning("%s: no item uses it, but it could not be deleted (%s).", path, error.strerror)
