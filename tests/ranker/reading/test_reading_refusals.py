"""Files that hold no table, missing columns and wrong arguments are refused by name."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tables import FILMS, LOG

from encoders.errors import InputError
from ranker.data import read_interactions, read_items


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
    with pytest.raises(InputError, match=r"no column 'stars'.* columns={our name: their name} for"):
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
