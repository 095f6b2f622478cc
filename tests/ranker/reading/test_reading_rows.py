"""Rows that cannot be used are refused or left out, each with its reason, and reported."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tables import FILMS, log_with

from encoders.errors import InputError
from ranker.data import read_interactions, read_items


def test_bad_rows_are_refused_in_one_line_with_counts_and_examples() -> None:
    table = log_with(user_id=["u", None, " ", "v", "w", ""], weight=[1.0, 1.0, 1.0, -2.0, np.nan, np.inf])
    with pytest.raises(InputError) as caught:
        read_interactions(table)
    assert str(caught.value) == (
        "the DataFrame has rows that cannot be used. rows without a user_id: 3 (row 2, row 3, row 6); "
        "weights that are not finite numbers of at least 0: 3 (row 4: -2.0, row 5: nan, row 6: inf). "
        "Correct them, or leave them out with on_bad_rows='drop' (--on-bad-rows drop)."
    )
    frame, report = read_interactions(table, on_bad_rows="drop")
    assert frame["user_id"].tolist() == ["u"]
    assert (report.rows_read, report.rows_kept) == (6, 1)
    assert [(finding.code, finding.count) for finding in report.findings] == [
        ("missing_id", 3),
        ("bad_weight", 3),
    ]


@pytest.mark.parametrize("weight", [-1, "many", None, 1e300])
def test_weights_that_are_negative_or_not_finite_in_float32_are_refused(weight: object) -> None:
    with pytest.raises(InputError, match=r"of at least 0: 1 \(row 2"):
        read_interactions(log_with(weight=[1, weight]))


def test_events_of_weight_0_are_kept_and_counted() -> None:
    frame, report = read_interactions(log_with(weight=[0, 2, 0]))
    assert frame["weight"].tolist() == [0, 2, 0]
    assert [(finding.code, finding.count) for finding in report.findings] == [("no_liking", 2)]


def test_lesser_weights_become_0_where_liking_starts_higher() -> None:
    frame, report = read_interactions(log_with(weight=[3, 4, 5, 3.9]), liked_from=4)
    assert frame["weight"].tolist() == [0, 4, 5, 0]
    assert [(finding.code, finding.examples) for finding in report.findings] == [("no_liking", ((1, ""), (4, "")))]


@pytest.mark.parametrize(("weight", "liked_from"), [([0, 0], 0), ([3, 4], 5)])
def test_a_table_without_any_sign_of_liking_is_refused(weight: list[int], liked_from: float) -> None:
    with pytest.raises(InputError, match="all 2 events have weight 0"):
        read_interactions(log_with(weight=weight), liked_from=liked_from)


@pytest.mark.parametrize("liked_from", [float("nan"), float("inf")])
def test_liking_starts_at_a_number(liked_from: float) -> None:
    with pytest.raises(InputError, match="liked_from is"):
        read_interactions(log_with(weight=[1]), liked_from=liked_from)


def test_repeated_events_are_left_out_and_counted() -> None:
    table = log_with(item_id=["a", "a", "a", "b"], datetime=[5, 5, 6, 5], weight=[1, 2, 3, 4])
    frame, report = read_interactions(table)
    assert frame["weight"].tolist() == [1, 4, 3]  # the first of the repeats stays
    assert [(finding.code, finding.count, finding.examples) for finding in report.findings] == [
        ("duplicate_row", 1, ((2, ""),))
    ]


def test_a_bad_row_does_not_make_a_good_one_its_repeat() -> None:
    table = log_with(item_id=["a", "a"], datetime=[5, 5], weight=[-1, 2])
    frame, _ = read_interactions(table, on_bad_rows="drop")
    assert frame["weight"].tolist() == [2]


def test_a_table_without_one_usable_row_is_refused() -> None:
    with pytest.raises(InputError, match=r"none of its 2 rows can be used\. weights"):
        read_interactions(log_with(weight=[-1, -1]), on_bad_rows="drop")


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([1, 2, None, "x", ""]),
            st.sampled_from(["a", "b", None]),
            st.sampled_from([0, 1, "1970-01-01", "never", None]),
            st.sampled_from([1.0, -1.0, np.nan]),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_what_is_kept_is_clean_and_reads_back_as_itself(rows: list[tuple[object, ...]]) -> None:
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "datetime", "weight"], dtype="object")
    anchor = pd.DataFrame([[9, "z", 9, 1.0]], columns=table.columns, dtype="object")  # one row is always usable
    table = pd.concat([table, anchor], ignore_index=True)
    frame, report = read_interactions(table, on_bad_rows="drop")
    assert report.rows_kept == len(frame) <= report.rows_read == len(table)
    assert not frame.isna().any(axis=None)
    assert frame["datetime"].is_monotonic_increasing
    again, clean = read_interactions(frame)
    pd.testing.assert_frame_equal(again, frame)
    assert clean.findings == ()


def test_a_report_reads_well_and_goes_to_json() -> None:
    _, report = read_interactions(log_with(user_id=[1, "x", 2, 3, 4], weight=[1, 1, 1, 1, -1]), on_bad_rows="drop")
    assert str(report).splitlines() == [
        "the DataFrame: 4 of 5 rows kept",
        "  weights that are not finite numbers of at least 0: 1 (row 5: -1)",
        "  user_id values turned into strings, as not all are integers of 64 bits: 4 (row 1: 1, row 3: 2, row 4: 3, …)",
    ]
    assert json.loads(json.dumps(report.to_dict()))["findings"][0] == {
        "code": "bad_weight",
        "count": 1,
        "columns": ["weight"],
        "what": "weights that are not finite numbers of at least 0",
        "examples": [[5, "-1"]],
    }
    assert str(read_items(FILMS)[1]) == "the DataFrame: 2 of 2 rows kept, nothing to report"
