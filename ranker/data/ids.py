"""External ids: integers or strings, one kind per column."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

# A float holds every integer up to here
LARGEST_EXACT_FLOAT = 2**53
INT64 = np.iinfo(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class IdColumn:
    """One column of ids of one kind.

    Attributes:
        ids: Int64 or str, with missing values.
        missing: (rows,) True where there is no id.
        converted: (rows,) True where an id that was no string became one.
    """

    ids: pd.Series
    missing: NDArray[np.bool_]
    converted: NDArray[np.bool_]


def read_ids(values: pd.Series) -> IdColumn:
    """Bring a column of ids to one kind.

    Integers stay integers, and so do the floats that pandas makes of integers beside missing values; strings
    stay strings. Anything else, and any mixture, becomes strings. A blank string is a missing id.
    """
    nothing = np.zeros(len(values), dtype=np.bool_)
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        exact = pd.api.types.is_integer_dtype(values) or not (values.abs() > LARGEST_EXACT_FLOAT).any()
        if exact and not (values > INT64.max).any() and (values.dropna() % 1 == 0).all():
            return IdColumn(values.astype("Int64"), values.isna().to_numpy(dtype=np.bool_), nothing)
    if isinstance(values.dtype, pd.StringDtype):
        return IdColumn(values.astype("str"), _blank(values), nothing)
    return _read_objects(values.astype(object))


def settle_ids(ids: pd.Series) -> pd.Series:
    """Return ids none of which is missing as int64 or str."""
    return ids.astype("int64" if pd.api.types.is_integer_dtype(ids) else "str")


def _read_objects(values: pd.Series) -> IdColumn:
    present = values[values.notna()]
    # built as objects, since map would make floats of whole numbers beside fractions again
    present = pd.Series([_exact(value) for value in present], index=present.index, dtype="object")
    converted = np.zeros(len(values), dtype=np.bool_)
    if present.map(_is_int64).all():
        ids = present.astype("Int64").reindex(values.index)
        return IdColumn(ids, values.isna().to_numpy(dtype=np.bool_), converted)
    others = present[~present.map(lambda value: isinstance(value, str)).to_numpy(dtype=np.bool_)]
    converted[others.index] = True
    strings = present.map(str).astype("str").reindex(values.index)
    return IdColumn(strings, _blank(strings), converted)


def _blank(strings: pd.Series) -> NDArray[np.bool_]:
    return (strings.isna() | strings.str.strip().eq("")).to_numpy(dtype=np.bool_)


def _exact(value: object) -> object:
    """Return a whole number as an int, whatever type holds it, and anything else as it is."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, (float, np.floating)):
        number = float(value)
        return int(number) if number.is_integer() and abs(number) <= LARGEST_EXACT_FLOAT else value
    return value


def _is_int64(value: object) -> bool:
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return int(INT64.min) <= value <= int(INT64.max)
