"""Tables in: one form out, whatever kind of source they came from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_tables import EVERY_SOURCE, FILMS, LOG, log_with, write_csv

from encoders.errors import InputError
from ranker.data import read_interactions, read_items


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


def test_tables_of_arrow_are_read_as_those_of_numpy() -> None:
    expected, _ = read_interactions(LOG)
    found, _ = read_interactions(LOG.convert_dtypes(dtype_backend="pyarrow"))
    pd.testing.assert_frame_equal(found, expected)
    days = pd.Series(pd.to_datetime(["2024-01-02"] * len(LOG)).date).astype("date32[pyarrow]")
    found, _ = read_interactions(LOG.assign(datetime=days), on_bad_rows="drop")
    assert found["datetime"].unique().tolist() == [pd.Timestamp("2024-01-02")]


def test_columns_without_names_are_refused() -> None:
    with pytest.raises(InputError, match="the DataFrame has a column 0, whose name is no text"):
        read_interactions(LOG.set_axis(range(LOG.shape[1]), axis="columns"))


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
