"""External ids at the edge, contiguous positions inside."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from encoders.errors import ArtifactError, InputError
from retrieval.storage import load_array

Ids: TypeAlias = Sequence[Any] | pd.Series | pd.Index

INT64 = np.iinfo(np.int64)
IDS, KEYS, PLACES = "ids.arrow", "keys.npy", "places.npy"
BLOCK = 2**16  # ids that are objects, or checked, at once
UNKNOWN = -1  # the position of an id that the map does not hold


class IdList(Sequence[object]):
    """Ids in an order, each an object only while it is used; a slice is such a list, too.

    Args:
        ids: Integers or strings, in any number of parts.
    """

    def __init__(self, ids: pa.ChunkedArray) -> None:
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, at: int) -> object: ...
    @overload
    def __getitem__(self, at: slice) -> IdList: ...
    def __getitem__(self, at: int | slice) -> object:
        return IdList(self._ids[at]) if isinstance(at, slice) else self._ids[at].as_py()

    def __iter__(self) -> Iterator[object]:
        for start in range(0, len(self), BLOCK):
            yield from self._ids.slice(start, BLOCK).to_pylist()


class IdMap:
    """A fixed order of unique ids, all integers or all strings.

    An id is found by its key, 64 bits, among the sorted ones. All of it can lie in files that are mapped into memory,
    so that a process needs none for those that it does not ask for.

    Args:
        ids: Unique ids; position ``i`` of the map is ``ids[i]``.

    Raises:
        InputError: The ids repeat, or are neither all integers nor all strings.
    """

    def __init__(self, ids: Iterable[object]) -> None:
        index = _index(ids, "ids")
        if index.inferred_type not in ("integer", "string", "empty") or index.hasnans:
            odd = next((value for value in index if not isinstance(value, str)), index[0])
            raise InputError(
                f"Ids are all integers or all strings, but these are {index.inferred_type} (one is {odd!r}). "
                "Convert the id column first."
            )
        integers = index.inferred_type == "integer"
        values = index.to_numpy(np.int64 if integers else object)
        keys = _keys(values)
        self._ids = pa.array(values, pa.int64() if integers else pa.large_string())
        self._places: NDArray[np.int64] = np.argsort(keys, kind="stable")
        self._sorted: NDArray[np.uint64] = keys[self._places]
        self._check_unique()

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def ids(self) -> IdList:
        """The ids in order."""
        return IdList(pa.chunked_array([self._ids]))

    def ids_with(self, more: Sequence[object]) -> IdList:
        """The ids in order, and then these of the same kind."""
        return IdList(pa.chunked_array([self._ids, pa.array(more, self._ids.type)]))

    @property
    def are_integers(self) -> bool:
        """Whether the ids are integers (strings otherwise)."""
        return bool(pa.types.is_integer(self._ids.type))

    def positions(self, ids: Ids, where: str = "ids") -> NDArray[np.int64]:
        """Where each id stands, ``UNKNOWN`` for an id that the map does not hold.

        Args:
            ids: Ids of this map's kind.
            where: What held them, for the message.

        Raises:
            InputError: These are no ids, or one is an integer and the map's are strings, or the other way round: it
                could never be found, so it is a mistake.
        """
        index = _index(ids, where)
        kind = "integer" if self.are_integers else "string"
        if index.inferred_type not in (kind, "empty") or index.hasnans:
            odd = next((value for value in index if not _is_of(kind, value)), index[0])
            raise InputError(f"{where}: ids here are {kind}s, but {odd!r} is none. Use one kind of id throughout.")
        found = np.full(len(index), UNKNOWN)
        values = index.to_numpy(np.int64 if self.are_integers else object)
        keys = _keys(values)
        sought, at = np.arange(len(values)), np.searchsorted(self._sorted, keys)
        while len(sought):  # once but for ids that share a key
            inside = at < len(self)
            inside[inside] = self._sorted[at[inside]] == keys[sought[inside]]
            sought, at = sought[inside], at[inside]
            places = self._places[at]
            same = self._values(places) == values[sought]
            found[sought[same]] = places[same]
            sought, at = sought[~same], at[~same] + 1
        return found

    def of_kind(self, ids: Ids) -> NDArray[np.bool_]:
        """Which of these are of this map's kind, so that ``positions`` takes them."""
        kind = "integer" if self.are_integers else "string"
        return np.fromiter((_is_of(kind, value) for value in ids), np.bool_, len(ids))

    def find(self, ids: Sequence[Any]) -> NDArray[np.int64]:
        """Where each id stands, ``UNKNOWN`` for one that the map does not hold, of whatever kind it is."""
        found = np.full(len(ids), UNKNOWN)
        ours = self.of_kind(ids)
        found[ours] = self.positions([one for one, own in zip(ids, ours, strict=True) if own])
        return found

    def at(self, positions: NDArray[np.int64]) -> pd.Index:
        """The ids at these positions."""
        ids: pd.Index = pd.Index(self._values(positions))
        return ids

    def _values(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        values: NDArray[Any] = self._ids.take(pa.array(positions)).to_numpy(zero_copy_only=False)
        return values

    def parse(self, texts: Iterable[str]) -> list[object]:
        """Ids typed on a command line, as this map's own kind; what is no integer stays as it is (unknown)."""
        if not self.are_integers:
            return list(texts)
        return [int(text) if re.fullmatch(r"-?[0-9]+", text) else text for text in texts]

    def save(self, folder: Path) -> None:
        """Write the ids, and how they are found, into this folder."""
        batch = pa.record_batch({"id": self._ids})
        with pa.ipc.new_file(folder / IDS, batch.schema) as writer:
            writer.write_batch(batch)
        np.save(folder / KEYS, self._sorted)
        np.save(folder / PLACES, self._places)

    @classmethod
    def load(cls, folder: Path) -> IdMap:
        """Read what ``save`` wrote; it stays memory-mapped.

        Raises:
            ArtifactError: A file is missing or damaged, or they do not belong together.
        """
        try:
            with pa.memory_map(str(folder / IDS)) as source, pa.ipc.open_file(source) as file:
                (batch,) = [file.get_batch(number) for number in range(file.num_record_batches)]  # written as one
            batch.validate(full=True)
            ids = batch.column("id")
        except (OSError, pa.ArrowException, KeyError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ArtifactError(f"{folder / IDS}: not a table of ids ({reason}). Save the engine again.") from error
        if ids.type not in (pa.int64(), pa.large_string()) or ids.null_count:
            raise ArtifactError(f"{folder / IDS}: not a table of ids, but of {ids.type}. Save the engine again.")
        loaded = cls.__new__(cls)
        loaded._ids = ids
        loaded._sorted = load_array(folder / KEYS, np.uint64, ndim=1)
        loaded._places = load_array(folder / PLACES, np.int64, ndim=1)
        if not loaded._is_whole():
            raise ArtifactError(f"{folder}: {IDS}, {KEYS} and {PLACES} do not belong together. Save the engine again.")
        try:
            loaded._check_unique()
        except InputError as error:
            raise ArtifactError(f"{folder / IDS}: {error}") from error
        return loaded

    def _is_whole(self) -> bool:
        """Whether every id is found by its own key; read in blocks, so that little of it is in memory at once."""
        if not len(self._sorted) == len(self._places) == len(self):
            return False
        for start in range(0, len(self), BLOCK):
            block = slice(start, start + BLOCK + 1)
            keys, places = self._sorted[block], self._places[block]
            if places.min() < 0 or places.max() >= len(self) or (keys != _keys(self._values(places))).any():
                return False
            ties = keys[1:] == keys[:-1]
            if (keys[1:] < keys[:-1]).any() or (places[1:] <= places[:-1])[ties].any():
                return False
        return True

    def _check_unique(self) -> None:
        shared = [
            start + np.flatnonzero(np.diff(self._sorted[start : start + BLOCK + 1]) == 0)
            for start in range(0, len(self), BLOCK)
        ]
        first = np.concatenate([np.empty(0, np.int64), *shared])
        values = pd.Index(self.at(self._places[np.unique([first, first + 1])]))
        if values.has_duplicates:
            repeated = values[values.duplicated()].tolist()[0]
            raise InputError(f"Id {repeated!r} occurs more than once; an id names one thing.")


def _keys(values: NDArray[Any]) -> NDArray[np.uint64]:
    """64 bits of each id: an integer's own, and of a string a hash that is the same in every process."""
    if values.dtype != object:
        return values.view(np.uint64)
    try:
        return pd.util.hash_array(values, categorize=False)
    except UnicodeEncodeError as error:  # a lone surrogate
        raise InputError(f"ids: these are no ids ({error}).") from error


def _index(ids: object, where: str) -> pd.Index:
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise InputError(f"{where}: pass a list of ids, also for a single one, instead of {ids!r}.")
    array = ids if isinstance(ids, (pd.Series, pd.Index, np.ndarray)) else list(ids)
    if not len(array):
        return pd.Index([], dtype=object)
    try:
        index = pd.Index(array, tupleize_cols=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: these are no ids ({error}).") from error
    if isinstance(index, pd.CategoricalIndex):
        index = index.astype(index.categories.dtype)
    if index.dtype.kind != "i" and index.inferred_type == "integer":  # wider than 64 bits, or unsigned, or objects
        widest = max(index, key=abs)
        if not INT64.min <= widest <= INT64.max:
            raise InputError(f"{where}: integer ids have 64 bits at most, and {widest} has more. Make strings of them.")
    return index


def _is_of(kind: str, value: object) -> bool:
    if kind == "string":
        return isinstance(value, str)
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
