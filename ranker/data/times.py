"""Datetimes in any usual form, as UTC microseconds."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd

TimeUnit: TypeAlias = Literal["s", "ms", "us", "ns"]

PER_SECOND: Mapping[str, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
US_PER_SECOND = 10**6

# The range of nanosecond timestamps in whole years. A time outside it is a unit misread (milliseconds taken
# for seconds land in the year 50,000), not an event that somebody logged.
EARLIEST, END = (pd.Timestamp(day).as_unit("s") for day in ("1678-01-01", "2262-01-01"))


def read_times(values: pd.Series, unit: TimeUnit) -> pd.Series:
    """Read times value by value.

    Args:
        values: Datetimes with or without a zone, ISO 8601 strings, numbers since 1970, strings that are
            numbers, or a mixture of these. Without a zone, UTC is meant.
        unit: Unit of the numbers.

    Returns:
        datetime64[us] in UTC without a zone; NaT where a value is none of these, or outside 1678 to 2261.
    """
    if pd.api.types.is_datetime64_any_dtype(values):
        times = values if values.dt.tz is None else values.dt.tz_convert("UTC").dt.tz_localize(None)
    elif pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        times = _from_numbers(values, unit)
    else:
        strings = values.astype("str")
        numbers = pd.to_numeric(strings, errors="coerce").astype("float64")
        times = pd.to_datetime(strings.mask(numbers.notna()), format="ISO8601", errors="coerce", utc=True)
        times = times.dt.tz_localize(None).astype("datetime64[us]").fillna(_from_numbers(numbers, unit))
    moments = times.to_numpy()
    inside = (moments >= EARLIEST.to_datetime64()) & (moments < END.to_datetime64())
    read = np.where(inside, moments, np.datetime64("NaT")).astype("datetime64[us]")
    return pd.Series(read, index=values.index, name=values.name)


def _from_numbers(numbers: pd.Series, unit: TimeUnit) -> pd.Series:
    """Return unix times; integers stay exact, floats are rounded to the microsecond."""
    epoch, per_second = pd.Timestamp(0), PER_SECOND[unit]
    lowest, end = (int((bound - epoch).total_seconds()) * per_second for bound in (EARLIEST, END))
    inside = ((numbers >= lowest) & (numbers < end)).fillna(False).to_numpy(dtype=np.bool_)
    known = numbers[inside].to_numpy()
    if np.issubdtype(known.dtype, np.integer):
        known = known.astype(np.int64)
        us = known * (US_PER_SECOND // per_second) if per_second <= US_PER_SECOND else known // 1000
    else:
        us = np.rint(known.astype(np.float64) * (US_PER_SECOND / per_second)).astype(np.int64)
    times = np.full(len(numbers), np.datetime64("NaT", "us"))
    times[inside] = us.astype("datetime64[us]")
    return pd.Series(times, index=numbers.index)
