"""Ids are integers where the integer says the same, and strings otherwise."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_tables import keep, log_with, write_csv, write_parquet

from ranker.data import read_interactions


@pytest.mark.parametrize(
    ("written", "ids"),
    [
        (["7", "12"], [7, 12]),
        (["-7", "0"], [-7, 0]),
        (["007", "12"], ["007", "12"]),
        (["1.0", "2"], ["1.0", "2"]),
        (["NA", "None"], ["NA", "None"]),
        (["9223372036854775808", "1"], ["9223372036854775808", "1"]),
    ],
)
def test_ids_in_text_files_are_integers_only_if_the_integer_says_the_same(
    written: list[str], ids: list[object], tmp_path: Path
) -> None:
    path = write_csv(log_with(user_id=written), tmp_path)
    assert read_interactions(path)[0]["user_id"].tolist() == ids


@pytest.mark.parametrize(
    ("given_ids", "ids", "n_converted"),
    [
        (pd.Series([1.0, 2.0]), [1, 2], 0),
        (pd.Series([1, 2], dtype="uint8"), [1, 2], 0),
        (pd.Series([1, 2], dtype="Int64"), [1, 2], 0),
        (pd.Series([1, 2], dtype="category"), [1, 2], 0),
        (pd.Series([1, np.int32(2)], dtype="object"), [1, 2], 0),
        (pd.Series(["1", "2"]), ["1", "2"], 0),
        (pd.Series(["x", "y"], dtype="category"), ["x", "y"], 0),
        (pd.Series([1, "x"], dtype="object"), ["1", "x"], 1),
        (pd.Series([2.0, "x"], dtype="object"), ["2", "x"], 1),
        (pd.Series([1.5, 2.0]), ["1.5", "2"], 2),
        (pd.Series([2**63, 1], dtype="uint64"), ["9223372036854775808", "1"], 2),
        (pd.Series([True, False]), ["True", "False"], 2),
    ],
)
def test_ids_keep_their_kind_and_mixtures_become_strings(
    given_ids: pd.Series, ids: list[object], n_converted: int
) -> None:
    frame, report = read_interactions(log_with(user_id=[0, 0]).assign(user_id=given_ids))
    assert frame["user_id"].tolist() == ids
    assert [(finding.code, finding.count) for finding in report.findings] == (
        [("mixed_ids", n_converted)] if n_converted else []
    )


def test_large_integer_ids_stay_exact_beside_missing_ones(tmp_path: Path) -> None:
    for kind in ("Int64", "UInt64", "int64[pyarrow]", "uint64[pyarrow]"):
        table = log_with(user_id=[0, 0]).assign(user_id=pd.Series([2**62 + 1, pd.NA], dtype=kind))
        for write in (write_csv, write_parquet, keep):
            frame, report = read_interactions(write(table, tmp_path), on_bad_rows="drop")
            assert frame["user_id"].tolist() == [2**62 + 1]
            assert report.findings[0].code == "missing_id"
