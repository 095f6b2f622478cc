"""The items: their ids, their texts, and the attributes that requests filter by."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from encoders.errors import InputError
from retrieval.ids import UNKNOWN, IdMap, Ids


@dataclass(frozen=True, slots=True)
class Between:
    """Attribute filter: from ``low`` to ``high``, both included; None leaves that side open."""

    low: Any = None
    high: Any = None


class Catalogue:
    """Every item that can be recommended, in a fixed order.

    Args:
        items: One row per item: ``item_id``, ``text``, ``title``, and any attributes. A column whose values are
            lists or arrays is filtered by membership.

    Raises:
        InputError: The table is empty, lacks a column, repeats an id, has a title or text that is no string, or
            attributes that cannot be saved.
    """

    def __init__(self, items: pd.DataFrame) -> None:
        missing = [name for name in ("item_id", "text", "title") if name not in items.columns]
        if missing:
            raise InputError(f"items: no column {missing[0]!r}; the columns are {', '.join(map(str, items.columns))}.")
        if not items.columns.is_unique or not all(isinstance(name, str) for name in items.columns):
            raise InputError(f"items: columns need different strings for names, but these are {list(items.columns)}.")
        if items.empty:
            raise InputError("items: the table has no rows, so there is nothing to recommend.")
        for name in ("title", "text"):
            strings = np.fromiter((isinstance(value, str) for value in items[name]), np.bool_, len(items))
            if not strings.all():
                row = int(strings.argmin())
                raise InputError(
                    f"items: {int((~strings).sum())} of {len(items)} values of {name!r} are no strings (first: "
                    f"{items[name].iloc[row]!r} in row {row}). Fill them in, or read the table with "
                    "ranker.data.read_items."
                )
        self.frame = items.reset_index(drop=True)
        self.ids = IdMap(self.frame["item_id"])
        try:
            table = pa.Table.from_pandas(self.frame)
            pq.write_table(table.slice(0, 1), pa.BufferOutputStream())  # Parquet takes fewer types than Arrow has
        except (pa.ArrowException, TypeError, ValueError) as error:
            reason = " ".join(map(str, error.args)).replace("\n", " ")
            raise InputError(f"items: {reason}, so the table cannot be saved. Give each column one type.") from error
        self.texts: tuple[str, ...] = tuple(self.frame["text"])
        self.titles: tuple[str, ...] = tuple(self.frame["title"])

    def __len__(self) -> int:
        return len(self.ids)

    def updated(self, items: pd.DataFrame) -> tuple[Catalogue, NDArray[np.int64]]:
        """The catalogue as it is now: these rows in place of those of the same ids, and the others after all.

        Args:
            items: Rows as for the class, with the columns of this catalogue. Items that it leaves out stay as they are.

        Returns:
            The catalogue, in which every item keeps its position, and the positions of texts that this one lacks.

        Raises:
            InputError: The table cannot be used, or its columns are not those of the catalogue.
        """
        given = Catalogue(items).frame
        odd = self.frame.columns.symmetric_difference(given.columns)
        if len(odd):
            here = "lacks" if odd[0] in self.frame.columns else "has"
            raise InputError(
                f"items: the table {here} the column {odd[0]!r}, unlike the catalogue, whose columns are "
                f"{', '.join(self.frame.columns)}. Give it the same."
            )
        places = self.ids.positions(given["item_id"], "items: item_id")
        known = places != UNKNOWN
        rows = np.append(np.arange(len(self)), len(self) + np.flatnonzero(~known))
        rows[places[known]] = len(self) + np.flatnonzero(known)
        now = Catalogue(pd.concat([self.frame, given], ignore_index=True).iloc[rows])
        changed = [row for row, text in enumerate(now.texts) if row >= len(self) or text != self.texts[row]]
        return now, np.array(changed, np.int64)

    def require(self, item_ids: Ids, where: str) -> NDArray[np.int64]:
        """The positions of these ids.

        Args:
            item_ids: Ids.
            where: What held them, for the message.

        Raises:
            InputError: The catalogue lacks one of them, or they are no ids of its kind.
        """
        item_ids = list(item_ids) if isinstance(item_ids, Iterator) else item_ids
        positions = self.ids.positions(item_ids, where)
        unknown = pd.unique(pd.Series(list(item_ids), dtype=object)[positions == UNKNOWN])
        if len(unknown):
            names = ", ".join(repr(name) for name in unknown[:3])
            raise InputError(
                f"{where}: {len(unknown)} items are not in the catalogue of {len(self)} (first: {names}). "
                "Leave them out, or fit an engine whose items include them."
            )
        return positions

    def allowed(
        self,
        allow: Ids | None = None,
        deny: Ids | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> NDArray[np.bool_]:
        """Which items (I,) pass an allow list, a deny list and attribute filters.

        Args:
            allow: Only these ids.
            deny: Not these ids.
            where: Column → a value it must equal (or contain, where the column holds lists), several of which any will
                do, or ``Between(low, high)``. Times may be written as ISO 8601.

        Raises:
            InputError: An id or a column is unknown, or a value or a bound cannot be compared with the column's values.
        """
        mask = np.ones(len(self), np.bool_)
        if allow is not None:
            mask[:] = False
            mask[self.require(allow, "allow")] = True
        if deny is not None:
            mask[self.require(deny, "deny")] = False
        if where is not None and not isinstance(where, Mapping):
            raise InputError(f"where: pass column names and what each must be, as a dictionary, not {where!r}.")
        for name, wanted in (where or {}).items():
            mask &= self._matches(name, wanted)
        return mask

    def _matches(self, name: str, wanted: Any) -> NDArray[np.bool_]:
        columns = list(map(str, self.frame.columns))
        if name not in self.frame.columns:
            near = difflib.get_close_matches(str(name), columns, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise InputError(f"where: items have no column {name!r}, only {', '.join(columns)}.{hint}")
        column = self.frame[name]
        try:
            if isinstance(wanted, Between):
                inside = column.notna()
                inside &= True if wanted.low is None else (column >= wanted.low).fillna(False)
                inside &= True if wanted.high is None else (column <= wanted.high).fillna(False)
                return inside.to_numpy(np.bool_)
            one = isinstance(wanted, (str, bytes)) or not isinstance(wanted, Iterable)
            values = {wanted} if one else set(wanted)
            present = column.dropna()
            if len(present) and isinstance(present.iloc[0], (list, tuple, set, np.ndarray)):
                many = (
                    () if value is None or value is pd.NA or isinstance(value, float) else value for value in column
                )
                return np.fromiter((not values.isdisjoint(row) for row in many), np.bool_, len(self))
            texts = {value for value in values if isinstance(value, str)}
            if pd.api.types.is_datetime64_any_dtype(column):
                values = values - texts | {pd.Timestamp(text) for text in texts}
            elif texts and pd.api.types.is_numeric_dtype(column):
                raise ValueError(f"it holds {column.dtype}")
            return column.isin(values).to_numpy(np.bool_)
        except (TypeError, ValueError) as error:
            raise InputError(f"where: {name} cannot be compared with {wanted!r} ({error}).") from error
