"""Tables in: one form out, whatever they came as, and a reason for every row that cannot be used."""

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.errors import InputError
from ranker.data import check_items_known, read_interactions, read_items

LOG = pd.DataFrame(
    {
        "user_id": [2, 1, 2, 1],
        "item_id": ["b", "a", "c", "b"],
        "weight": [1.0, 2.5, 4.0, 0.5],
        "datetime": pd.to_datetime([20, 10, 10, 30], unit="s").astype("datetime64[us]"),
    }
)
FILMS = pd.DataFrame(
    {
        "item_id": [7, 3],
        "title": ["Alpha", "Beta"],
        "text": ["Alpha. A dog", "Beta. A cat"],
        "year": [1999, 2001],
    }
)


def write_csv(table: pd.DataFrame, folder: Path) -> Path:
    table.to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def write_tsv(table: pd.DataFrame, folder: Path) -> Path:
    table.to_csv(folder / "table.tsv", index=False, sep="\t")
    return folder / "table.tsv"


def write_parquet(table: pd.DataFrame, folder: Path) -> Path:
    table.to_parquet(folder / "table.parquet", index=False)
    return folder / "table.parquet"


def keep(table: pd.DataFrame, folder: Path) -> pd.DataFrame:
    return table


def log_with(**columns: list[object]) -> pd.DataFrame:
    n_rows = len(next(iter(columns.values())))
    plain = {"user_id": [1] * n_rows, "item_id": range(n_rows), "datetime": [0] * n_rows}
    return pd.DataFrame(plain | columns)


EVERY_SOURCE = pytest.mark.parametrize("write", [write_csv, write_tsv, write_parquet, keep])


@EVERY_SOURCE
def test_interactions_come_out_the_same_from_every_kind_of_source(
    write: Callable[[pd.DataFrame, Path], Path | pd.DataFrame], tmp_path: Path
) -> None:
    frame, report = read_interactions(write(LOG, tmp_path))
    assert frame["item_id"].tolist() == ["a", "c", "b", "b"]  # by time, the order of the source inside ties
    assert frame["user_id"].tolist() == [1, 2, 2, 1]
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == {
        "user_id": "int64",
        "item_id": "str",
        "weight": "float32",
        "datetime": "datetime64[us]",
    }
    assert (report.rows_read, report.rows_kept, report.findings) == (4, 4, ())


@EVERY_SOURCE
def test_items_come_out_the_same_from_every_kind_of_source(
    write: Callable[[pd.DataFrame, Path], Path | pd.DataFrame], tmp_path: Path
) -> None:
    frame, _ = read_items(write(FILMS, tmp_path))
    assert list(frame.columns) == ["item_id", "title", "text", "year"]
    assert (str(frame["item_id"].dtype), str(frame["text"].dtype)) == ("int64", "str")
    assert frame.to_numpy().tolist() == FILMS.to_numpy().tolist()


def test_ties_keep_the_order_of_the_source_however_many_they_are() -> None:
    seconds = np.random.default_rng(0).integers(0, 3, 2_000)  # long enough for an unstable sort to show
    frame, _ = read_interactions(log_with(datetime=seconds))
    assert frame["item_id"].tolist() == sorted(range(2_000), key=lambda row: seconds[row])


def test_a_dataframe_is_left_unchanged() -> None:
    log, films = LOG.copy(deep=True), FILMS.copy(deep=True)
    frame, _ = read_interactions(log)
    frame.loc[:, "weight"] = 9
    items, _ = read_items(films)
    items.loc[:, "year"] = 0
    pd.testing.assert_frame_equal(log, LOG)
    pd.testing.assert_frame_equal(films, FILMS)


def test_columns_are_found_under_their_own_names(tmp_path: Path) -> None:
    theirs = {"user_id": "visitorid", "item_id": "itemid", "weight": "stars", "datetime": "timestamp"}
    expected, _ = read_interactions(LOG)
    frame, _ = read_interactions(write_csv(LOG.rename(columns=theirs), tmp_path), theirs)
    pd.testing.assert_frame_equal(frame, expected)


def test_without_weights_every_interaction_weighs_one() -> None:
    frame, _ = read_interactions(LOG.drop(columns="weight"))
    assert frame["weight"].tolist() == [1, 1, 1, 1]


# --- ids


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
    table = log_with(user_id=[0, 0]).assign(user_id=pd.Series([2**62 + 1, pd.NA], dtype="Int64"))
    for write in (write_csv, write_parquet, keep):
        frame, report = read_interactions(write(table, tmp_path), on_bad_rows="drop")
        assert frame["user_id"].tolist() == [2**62 + 1]
        assert report.findings[0].code == "missing_id"


# --- times

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


# --- bad rows


def test_bad_rows_are_refused_in_one_line_with_counts_and_examples() -> None:
    table = log_with(user_id=["u", None, " ", "v", "w", ""], weight=[1.0, 1.0, 1.0, -2.0, np.nan, np.inf])
    with pytest.raises(InputError) as caught:
        read_interactions(table)
    assert str(caught.value) == (
        "the DataFrame has rows that cannot be used. rows without a user_id: 3 (row 2, row 3, row 6); "
        "weights that are not finite numbers above zero: 3 (row 4: -2.0, row 5: nan, row 6: inf). "
        "Correct them, or leave them out with on_bad_rows='drop' (--on-bad-rows drop)."
    )
    frame, report = read_interactions(table, on_bad_rows="drop")
    assert frame["user_id"].tolist() == ["u"]
    assert (report.rows_read, report.rows_kept) == (6, 1)
    assert [(finding.code, finding.count) for finding in report.findings] == [
        ("missing_id", 3),
        ("bad_weight", 3),
    ]


@pytest.mark.parametrize("weight", [0, -1, "many", None, 1e300, 1e-60])
def test_weights_that_are_not_positive_in_float32_are_refused(weight: object) -> None:
    with pytest.raises(InputError, match=r"above zero: 1 \(row 2"):
        read_interactions(log_with(weight=[1, weight]))


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
        read_interactions(log_with(weight=[0, 0]), on_bad_rows="drop")


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([1, 2, None, "x", ""]),
            st.sampled_from(["a", "b", None]),
            st.sampled_from([0, 1, "1970-01-01", "never", None]),
            st.sampled_from([1.0, 0.0, np.nan]),
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


# --- items


def test_a_text_may_be_made_of_several_columns() -> None:
    table = pd.DataFrame(
        {
            "sku": [1, 2, 3, 4],
            "name": ["Toy Story", "Help!", None, "Solo"],
            "genres": ["Comedy", "Music", "Drama", " "],
        }
    )
    frame, _ = read_items(table, {"item_id": "sku", "title": "name", "text": ["name", "genres"]})
    assert frame["text"].tolist() == ["Toy Story. Comedy", "Help! Music", "Drama", "Solo"]
    assert frame["title"].tolist() == ["Toy Story", "Help!", "Drama", "Solo"]
    assert list(frame.columns) == ["item_id", "title", "text", "genres"]  # genres stays, to filter by


def test_without_titles_the_text_is_the_title() -> None:
    frame, _ = read_items(FILMS[["item_id", "text"]])
    assert frame["title"].tolist() == frame["text"].tolist()


def test_texts_that_look_like_numbers_or_gaps_stay_texts(tmp_path: Path) -> None:
    path = tmp_path / "films.csv"
    path.write_text('item_id,text,year\n1,1984,1956\n2,NA,\n3,"a ""quoted"", long\ntext",2000\n', encoding="utf-8-sig")
    frame, _ = read_items(path)
    assert frame["text"].tolist() == ["1984", "NA", 'a "quoted", long\ntext']
    assert frame["year"].isna().tolist() == [False, True, False]


def test_items_without_a_text_are_refused_by_id() -> None:
    with pytest.raises(InputError, match=r"items without a text: 2 \(row 1: 7, row 3: 9\)"):
        read_items(pd.DataFrame({"item_id": [7, 8, 9], "text": ["", "x", None]}))


def test_an_item_given_twice_is_left_out_if_equal_and_refused_if_not() -> None:
    equal = pd.concat([FILMS, FILMS.iloc[:1]]).assign(tags=[["x"], ["y"], ["x"]])
    frame, report = read_items(equal)
    assert frame["item_id"].tolist() == [7, 3]
    assert (report.findings[0].code, report.findings[0].examples) == ("duplicate_row", ((3, "7"),))
    different = equal.assign(year=[1999, 2001, 1950])
    with pytest.raises(InputError, match=r"earlier row differently: 1 \(row 3: 7\)"):
        read_items(different)
    frame, report = read_items(different, on_bad_rows="drop")
    assert frame["year"].tolist() == [1999, 2001]
    assert report.findings[0].code == "duplicate_item"


def test_interactions_with_unknown_items_are_found() -> None:
    log, _ = read_interactions(log_with(item_id=[7, 3, 5, 7], datetime=[1, 2, 3, 4]))
    films, _ = read_items(FILMS)
    with pytest.raises(InputError, match=rf"not in the items: 1 \(row 3: 5 of user {log.user_id[2]}\)"):
        check_items_known(log, films)
    known, report = check_items_known(log, films, on_bad_rows="drop")
    assert known["item_id"].tolist() == [7, 3, 7]
    assert (report.rows_read, report.rows_kept, report.findings[0].code) == (4, 3, "unknown_item")
    with pytest.raises(InputError, match="item_id is str in the interactions and int64 in the items"):
        check_items_known(log.astype({"item_id": "str"}), films, on_bad_rows="drop")


# --- files that are none


@pytest.mark.parametrize("read", [read_interactions, read_items])
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", b"", "is empty"),
        ("header.csv", b"user_id,item_id,text,datetime\n", "no rows"),
        ("blank.csv", b"\n\n", "cannot be read as CSV"),
        (
            "latin.csv",
            "user_id,item_id,text,datetime\n1,2,caf\u00e9,3\n".encode("latin1"),
            "cannot be read as CSV.*utf-8",
        ),
        ("wide.csv", "user_id,item_id,text,datetime\n1,2,x,3\n".encode("utf-16"), "zero bytes"),
        ("ragged.csv", b"user_id,item_id,text,datetime\n1,2,x,3\n1,2,x,3,4\n", "line 3, saw 5"),
        ("longer.csv", b"user_id,item_id,text,datetime\n1,2,x,3,4\n", "cannot be read as CSV"),
        ("open.csv", b'user_id,item_id,text,datetime\n1,2,"x,3\n', "cannot be read as CSV"),
        (
            "twice.csv",
            b"user_id,item_id,item_id,text,datetime\n1,2,2,x,3\n",
            "more than one column named item_id",
        ),
        ("noise.csv", bytes(range(256)) * 10, "zero bytes"),
        ("noise.parquet", bytes(range(256)) * 10, "cannot be read as PARQUET"),
        ("cut.parquet", b"PAR1", "cannot be read as PARQUET"),
        ("table.xlsx", b"PK", "not a .csv, .tsv or .parquet"),
        ("table", b"x", "not a .csv, .tsv or .parquet"),
    ],
)
def test_files_that_hold_no_table_are_refused_by_name(
    read: Callable[..., object], name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(deadline=None, max_examples=50)
@given(st.binary(min_size=1, max_size=300), st.sampled_from([".csv", ".tsv", ".parquet"]))
def test_no_bytes_get_past_input_error(tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"noise{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError):
        read_interactions(path)


def test_folders_and_missing_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "parts.parquet").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        read_interactions(tmp_path / "parts.parquet")
    with pytest.raises(InputError, match="does not exist"):
        read_items(str(tmp_path / "none.csv"))


def test_a_missing_column_is_named_with_the_nearest_there_is() -> None:
    with pytest.raises(
        InputError, match=r"no column 'user_id' \(did you mean 'userid'\?\). It has 'userid', 'item_id'"
    ):
        read_interactions(LOG.rename(columns={"user_id": "userid"}))
    with pytest.raises(InputError, match="no column 'stars'"):
        read_interactions(LOG, {"weight": "stars"})
    with pytest.raises(InputError, match="separator"):
        read_items(pd.DataFrame({"item_id\ttext": ["1\tx"]}))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: read_interactions(LOG, {"user": "u"}), r"maps 'user' \(did you mean 'user_id'\?\)"),
        (lambda: read_interactions(LOG, time_unit="m"), "time_unit is 'm'"),
        (lambda: read_interactions(LOG, on_bad_rows="skip"), "on_bad_rows is 'skip'"),
        (lambda: read_items(FILMS, {"text": []}), "'text' to 0 columns"),
        (lambda: read_items(FILMS, {"title": ["title", "year"]}), "'title' to 2 columns"),
    ],
)
def test_wrong_arguments_are_refused_with_what_they_take(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


# --- the report


def test_a_report_reads_well_and_goes_to_json() -> None:
    _, report = read_interactions(log_with(user_id=[1, "x", 2, 3, 4], weight=[1, 1, 1, 1, 0]), on_bad_rows="drop")
    assert str(report).splitlines() == [
        "the DataFrame: 4 of 5 rows kept",
        "  weights that are not finite numbers above zero: 1 (row 5: 0)",
        "  user_id values turned into strings, as not all are integers of 64 bits: 4 (row 1: 1, row 3: 2, row 4: 3, …)",
    ]
    assert json.loads(json.dumps(report.to_dict()))["findings"][0] == {
        "code": "bad_weight",
        "count": 1,
        "columns": ["weight"],
        "what": "weights that are not finite numbers above zero",
        "examples": [[5, "0"]],
    }
    assert str(read_items(FILMS)[1]) == "the DataFrame: 2 of 2 rows kept, nothing to report"
