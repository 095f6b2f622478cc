"""External ids at the edge, contiguous positions inside."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from encoders.errors import ArtifactError, InputError

Ids: TypeAlias = Sequence[Any] | pd.Series | pd.Index

INT64 = np.iinfo(np.int64)
UNKNOWN = -1  # the position of an id that the map does not hold


class IdMap:
    """A fixed order of unique ids, all integers or all strings.

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
        self._index = index.astype("int64" if integers else "str")
        if not self._index.is_unique:
            repeated = self._index[self._index.duplicated()].tolist()[0]
            raise InputError(f"Id {repeated!r} occurs more than once; an id names one thing.")

    def __len__(self) -> int:
        return len(self._index)

    @property
    def ids(self) -> pd.Index:
        """The ids in order."""
        return self._index

    @property
    def are_integers(self) -> bool:
        """Whether the ids are integers (strings otherwise)."""
        return bool(self._index.dtype.kind == "i")

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
        return self._index.get_indexer(index).astype(np.int64)  # it gives -1, UNKNOWN, for what it does not hold

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
        return self._index.take(positions)

    def parse(self, texts: Iterable[str]) -> list[object]:
        """Ids typed on a command line, as this map's own kind; what is no integer stays as it is (unknown)."""
        if not self.are_integers:
            return list(texts)
        return [int(text) if re.fullmatch(r"-?[0-9]+", text) else text for text in texts]

    def save(self, path: Path) -> None:
        """Write the ids as a one-column Parquet file."""
        pq.write_table(pa.table({"id": pa.array(self._index.to_numpy())}), path)

    @classmethod
    def load(cls, path: Path) -> IdMap:
        """Read what ``save`` wrote.

        Raises:
            ArtifactError: The file is not such a table.
        """
        try:
            return cls(pq.read_table(path, columns=["id"]).column("id").to_pandas())
        except (OSError, pa.ArrowException, KeyError, InputError) as error:
            reason = " ".join(str(error).split())
            raise ArtifactError(f"{path}: not a table of ids ({reason}). Save the engine again.") from error


def _index(ids: object, where: str) -> pd.Index:
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise InputError(f"{where}: pass a list of ids, also for a single one, instead of {ids!r}.")
    array = ids if isinstance(ids, (pd.Series, pd.Index, np.ndarray)) else list(ids)
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
