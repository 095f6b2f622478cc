"""External ids at the edge, contiguous positions inside."""

from __future__ import annotations

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

UNKNOWN = -1  # the position of an id that the map does not hold


class IdMap:
    """A fixed order of unique ids, all integers or all strings.

    Args:
        ids: Unique ids; position ``i`` of the map is ``ids[i]``.

    Raises:
        InputError: The ids repeat, or are neither all integers nor all strings.
    """

    def __init__(self, ids: Iterable[object]) -> None:
        index = ids if isinstance(ids, pd.Index) else pd.Index(list(ids))
        if index.inferred_type not in ("integer", "string", "empty"):
            raise InputError(
                f"Ids are all integers or all strings, but these are {index.inferred_type} (first: {index[0]!r}). "
                "Convert the id column first."
            )
        self._index = index.astype("int64") if index.dtype.kind in "iu" else index.astype("str")
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

    def positions(self, ids: Ids) -> NDArray[np.int64]:
        """Where each id stands, ``UNKNOWN`` for an id that the map does not hold."""
        return self._index.get_indexer(pd.Index(ids)).astype(np.int64)

    def at(self, positions: NDArray[np.int64]) -> pd.Index:
        """The ids at these positions."""
        return self._index.take(positions)

    def parse(self, texts: Iterable[str]) -> list[object]:
        """Ids typed on a command line, as this map's own kind; what is no integer stays as it is (unknown)."""
        if not self.are_integers:
            return list(texts)
        return [int(text) if text.lstrip("-").isdigit() else text for text in texts]

    def extended(self, ids: Iterable[object]) -> IdMap:
        """A map with these new ids after the ones it has."""
        new = pd.Index(list(ids))
        if len(self) and (new.dtype.kind in "iu") != self.are_integers:
            ours, theirs = ("integers", "not") if self.are_integers else ("strings", "not")
            raise InputError(f"Ids here are {ours}, but {new[0]!r} is {theirs}. Use one kind of id throughout.")
        return IdMap(self._index.append(new))

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
        except (pa.ArrowException, KeyError, InputError) as error:
            raise ArtifactError(f"{path}: not a table of ids ({error}). Save the engine again.") from error
