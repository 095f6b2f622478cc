"""A small log and a small catalogue, in every kind of source that they may come from."""

from pathlib import Path

import pandas as pd
import pytest

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
