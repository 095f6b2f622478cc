"""One instant is read from every notation of it, to the microsecond."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tables import EVERY_SOURCE, log_with

from encoders.errors import InputError
from ranker.data import read_interactions

NOON = dt.datetime(2024, 2, 29, 12, 0, 0, 250_000)


@pytest.mark.parametrize(
    ("value", "unit"),
    [
        (NOON, "s"),
        (NOON.replace(tzinfo=dt.UTC), "s"),
        (NOON.replace(hour=14, tzinfo=dt.timezone(dt.timedelta(hours=2))), "s"),
        ("2024-02-29T12:00:00.25", "s"),
        ("2024-02-29 14:00:00.250000+02:00", "s"),
        ("2024-02-29T12:00:00.250Z", "s"),
        (1709208000.25, "s"),
        (1709208000250000.0, "us"),
        (1709208000250, "ms"),
        ("1709208000250", "ms"),
        (1709208000250000, "us"),
        (1709208000250000999, "ns"),
        (pd.Timestamp("2024-02-29T12:00:00.250000999"), "s"),
    ],
)
@EVERY_SOURCE
def test_one_instant_is_read_from_every_notation(
    write: Callable[[pd.DataFrame, Path], Path | pd.DataFrame], value: object, unit: str, tmp_path: Path
) -> None:
    frame, _ = read_interactions(write(log_with(datetime=[value]), tmp_path), time_unit=unit)
    assert frame["datetime"].tolist() == [pd.Timestamp(NOON)]


def test_fractions_of_a_second_are_rounded_not_cut() -> None:
    assert int(531.343496 * 1e6) == 531343495  # the float lies below the microsecond that is meant
    frame, _ = read_interactions(log_with(datetime=[531.343496]))
    assert frame["datetime"].tolist() == [pd.Timestamp("1970-01-01 00:08:51.343496")]


def test_notations_may_be_mixed_in_one_column() -> None:
    texts = ["2024-02-29T13:00:00+01:00", "1709208000", "2024-02-29 12:00:00"]
    values = [NOON, NOON.date(), 1709208000, *texts]
    frame, _ = read_interactions(log_with(datetime=values))
    expected = pd.to_datetime(["2024-02-29", *["2024-02-29 12:00:00"] * 4, NOON.isoformat()], format="ISO8601")
    assert frame["datetime"].tolist() == expected.tolist()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2261, 12, 31)), min_size=1, max_size=8))
def test_microseconds_survive_every_notation(instants: list[dt.datetime]) -> None:
    epoch, microsecond = dt.datetime(1970, 1, 1), dt.timedelta(microseconds=1)
    expected = [pd.Timestamp(instant) for instant in sorted(instants)]
    as_numbers = log_with(datetime=[(instant - epoch) // microsecond for instant in instants])
    assert read_interactions(as_numbers, time_unit="us")[0]["datetime"].tolist() == expected
    as_strings = log_with(datetime=[instant.isoformat() for instant in instants])
    assert read_interactions(as_strings)[0]["datetime"].tolist() == expected


@pytest.mark.parametrize("value", ["yesterday", None, "", "inf", np.inf, True, 1709208000250, "0001-01-01", pd.NaT])
def test_times_that_cannot_be_meant_are_refused(value: object) -> None:
    table = log_with(datetime=["2024-02-29", value])
    with pytest.raises(InputError, match=r"neither ISO 8601 nor unix time in 's'.*: 1 \(row 2"):
        read_interactions(table)
    frame, report = read_interactions(table, on_bad_rows="drop")
    assert (len(frame), report.findings[0].code) == (1, "unreadable_time")
