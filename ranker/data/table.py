"""One table from a CSV, TSV or Parquet file or a DataFrame, with its columns found by name."""

import difflib
import logging
import os
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from encoders.errors import InputError

logger = logging.getLogger(__name__)

Source: TypeAlias = str | os.PathLike[str] | pd.DataFrame

SEPARATORS = {".csv": ",", ".tsv": "\t"}
SNIFFED_BYTES = 64 * 1024

# Without leading zeros, plus signs or blanks: the strings that the integer gives back unchanged.
INTEGER = r"0|-?[1-9]\d*"
EXACT = {pa.int64(): pd.Int64Dtype(), pa.uint64(): pd.UInt64Dtype()}


def read_table(source: Source, *, ids: Collection[str] = (), texts: Collection[str] = ()) -> pd.DataFrame:
    """Read a table as it is, under its own column names.

    Args:
        source: ``.csv`` (commas), ``.tsv`` (tabs) or ``.parquet`` file, or a DataFrame, which is left
            unchanged. Text files are UTF-8 with one header line; an empty field is a missing value, and
            nothing else is.
        ids: Columns that hold ids. A text file has no types: ids read from one become integers if all of them
            are integers as written, and stay strings otherwise, so that ``007`` stays ``007``.
        texts: Columns of a text file that stay strings whatever they look like.

    Returns:
        The table, with a fresh index from 0.

    Raises:
        InputError: If the file is missing, empty, a folder, of another format, damaged or not UTF-8, or if a
            column name occurs twice.
    """
    if isinstance(source, pd.DataFrame):
        table = source.reset_index(drop=True)
        names = list(table.columns)
        odd = [name for name in names if not isinstance(name, str)]
        if odd:
            raise InputError(f"the DataFrame has a column {odd[0]!r}, whose name is no text: name its columns first.")
    else:
        path = Path(source)
        _check_file(path)
        logger.info("Reading %s", path)
        try:
            names, table = _read_parquet(path) if path.suffix == ".parquet" else _read_text(path, ids, texts)
        except (OSError, ValueError, pa.ArrowException, pd.errors.ParserWarning) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise InputError(f"{path} cannot be read as {path.suffix[1:].upper()}: {reason}.") from error
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{source_name(source)} has more than one column named {', '.join(twice)}: rename them.")
    arrow = [name for name, kind in table.dtypes.items() if isinstance(kind, pd.ArrowDtype)]
    return table.assign(**_from_arrow(pa.Table.from_pandas(table[arrow], preserve_index=False))) if arrow else table


def source_name(source: Source) -> str:
    """Return what messages call `source`."""
    return "the DataFrame" if isinstance(source, pd.DataFrame) else os.fspath(source)


def check_mapping(columns: Mapping[str, object], known: Sequence[str]) -> None:
    """Raise InputError if `columns` maps a name that the library does not know."""
    for name in columns:
        if name not in known:
            raise InputError(
                f"columns maps {name!r}{_nearest(name, known)}: it maps the library's names "
                f"({', '.join(known)}) to the table's, as in {{'item_id': 'sku'}}."
            )


def check_columns(table: pd.DataFrame, needed: Sequence[str], source: Source) -> None:
    """Raise InputError if a needed column is absent, naming the columns there are and the nearest."""
    present = [str(name) for name in table.columns]
    for name in needed:
        if name not in present:
            alone = " With one column only, the separator may be another one." if len(present) == 1 else ""
            raise InputError(
                f"{source_name(source)} has no column {name!r}{_nearest(name, present)}. It has "
                f"{', '.join(map(repr, present)) or 'no columns'}.{alone} Pass columns={{our name: their "
                "name} for what is called otherwise."
            )


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(
            f"{path} is a folder: give one file. A folder of Parquet parts can be read with "
            "pandas.read_parquet and passed as a DataFrame."
        )
    if not path.exists():
        raise InputError(f"{path} does not exist (looked in {path.absolute().parent}).")
    if path.suffix not in (*SEPARATORS, ".parquet"):
        raise InputError(
            f"{path} is not a .csv, .tsv or .parquet file, the three that are read. Rename it, or read it "
            "with pandas and pass the DataFrame."
        )
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes).")


def _read_parquet(path: Path) -> tuple[list[str], pd.DataFrame]:
    with pq.ParquetFile(path) as file:
        columns = file.read()
    columns.validate(full=True)  # pyarrow reads text that is not UTF-8 without a word
    return list(columns.column_names), _from_arrow(columns)


def _from_arrow(columns: pa.Table) -> pd.DataFrame:
    # Nullable integers keep 64-bit ids exact beside missing ones; without the pandas metadata, which another
    # program may have written wrongly, an index column is a column like the others.
    table: pd.DataFrame = columns.to_pandas(ignore_metadata=True, types_mapper=EXACT.get)
    return table


def _read_text(path: Path, ids: Collection[str], texts: Collection[str]) -> tuple[list[str], pd.DataFrame]:
    with path.open("rb") as file:
        if b"\0" in file.read(SNIFFED_BYTES):
            raise ValueError("it holds zero bytes, so it is binary or UTF-16, and text has to be UTF-8")
    separator = SEPARATORS[path.suffix]
    # pandas renames a repeated column, so the header is read as it stands first
    header = pd.read_csv(path, sep=separator, encoding="utf-8-sig", header=None, nrows=1, dtype="str")
    with warnings.catch_warnings():
        # pandas warns of rows longer than the header, and drops their last fields
        warnings.simplefilter("error", pd.errors.ParserWarning)
        table = pd.read_csv(
            path,
            sep=separator,
            encoding="utf-8-sig",
            index_col=False,
            dtype=dict.fromkeys([*ids, *texts], "str"),
            keep_default_na=False,
            na_values=[""],
            low_memory=False,  # one type per column, not one per chunk
        )
    return [str(name) for name in header.iloc[0]], table.assign(
        **{name: _integers(table[name]) for name in ids if name in table.columns}
    )


def _integers(ids: pd.Series) -> pd.Series:
    present = ids.dropna()
    if not len(present) or not present.str.fullmatch(INTEGER).all():
        return ids
    try:
        return ids.astype("Int64")
    except ValueError:  # more than 64 bits
        return ids
