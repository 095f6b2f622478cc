"""The tables of the feedback log: how they are made, brought up to date, filled and copied."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd

from encoders.errors import InputError
from ranker.feedback.event_log import Logged
from ranker.feedback.events import COLUMNS, DTYPES

IN_MEMORY = ":memory:"

# No type on the ids: SQLite then keeps integers as integers and strings as strings.
EVENTS = """
CREATE TABLE IF NOT EXISTS events (
    offset INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE,
    user_id NOT NULL,
    item_id NOT NULL,
    kind TEXT NOT NULL,
    value REAL,
    datetime INTEGER NOT NULL -- microseconds since 1970, UTC
)
"""
ADDED = {  # since the first format of the table
    "source": "TEXT NOT NULL DEFAULT ''",
    "list_id": "TEXT",
    "score": "REAL",
    "propensity": "REAL",
    "version": "TEXT",
    "received": "INTEGER NOT NULL DEFAULT 0",  # microseconds since 1970, UTC, by this machine's clock
}
BY_USER = "CREATE INDEX IF NOT EXISTS by_user ON events (user_id)"  # and by offset within, as in every SQLite index
BY_LIST = "CREATE INDEX IF NOT EXISTS by_list ON events (list_id) WHERE list_id IS NOT NULL"
LIMITS = "CREATE TABLE IF NOT EXISTS limits (name TEXT PRIMARY KEY, value INTEGER NOT NULL)"
FORGOTTEN = "CREATE TABLE IF NOT EXISTS forgotten (user_id NOT NULL UNIQUE)"
KEEP_FROM = "INSERT INTO limits VALUES ('kept_from', ?) ON CONFLICT (name) DO UPDATE SET value = MAX(value, ?)"
COUNT_ERASURE = "INSERT INTO limits VALUES ('erasures', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1"

READ = ", ".join(("offset", *COLUMNS, "received"))
SAME = ", ".join(COLUMNS)
INSERT = f"INSERT INTO events ({SAME}, received) VALUES ({', '.join('?' * (len(COLUMNS) + 1))}) "
INSERT += "ON CONFLICT (event_id) DO NOTHING"

Row = tuple[Any, ...]  # in the order of COLUMNS


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables, or bring those of an older format up to this one, while no other process does."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in (EVENTS, LIMITS, FORGOTTEN):
            connection.execute(statement)
        there = {name for _, name, *_ in connection.execute("PRAGMA table_info(events)")}
        for name, described in ADDED.items():
            if name not in there:
                connection.execute(f"ALTER TABLE events ADD COLUMN {name} {described}")
        for statement in (BY_USER, BY_LIST):
            connection.execute(statement)
    finally:
        connection.execute("COMMIT")


def rows_of(events: pd.DataFrame) -> Iterator[Row]:
    """The rows of checked events, as SQLite takes them."""
    columns = []
    for name in COLUMNS:
        column = events[name]
        if name == "datetime":
            columns.append(column.to_numpy("datetime64[us]").astype("int64").tolist())
        else:
            columns.append([None if value != value else value for value in column.tolist()])  # NaN is not itself
    return zip(*columns, strict=True)


def table_of(events: Sequence[Logged]) -> pd.DataFrame:
    """Events as a table; a value that its column cannot hold raises what pandas does."""
    table = pd.DataFrame(events, columns=list(Logged._fields))
    return table.astype(DTYPES | {"offset": "int64", "received": "int64"}).astype({"received": "datetime64[us]"})


def inserted(cursor: sqlite3.Cursor, row: Row, received: int, kept_from: int) -> bool:
    """Insert a row; False where it is there already."""
    check_kept(row, kept_from)
    cursor.execute(INSERT, (*row, received))
    if cursor.rowcount == 1:
        return True
    check_same(cursor, row)
    return False


def check_kept(row: Row, kept_from: int) -> None:
    """Raise InputError where an event is older than those that the log keeps."""
    event_id, moment = row[0], row[COLUMNS.index("datetime")]
    if moment < kept_from:
        raise InputError(
            f"feedback: event id {event_id!r} is of {pd.Timestamp(moment, unit='us')}, but the log keeps events from "
            f"{pd.Timestamp(kept_from, unit='us')} on, and cannot tell whether it had this one. Leave such events "
            "out."
        )


def check_same(cursor: sqlite3.Cursor, row: Row) -> None:
    """Raise InputError where the log holds an event of the same id with different content."""
    held = cursor.execute(f"SELECT {SAME} FROM events WHERE event_id = ?", row[:1]).fetchone()
    if held is not None and held != row:
        raise InputError(
            f"feedback: event id {row[0]!r} is in the log already with different content. "
            "Give each act an id of its own."
        )


def kept_from_in(cursor: sqlite3.Cursor) -> int:
    """Time from which on events are kept, in microseconds since 1970; before all times where none was ever dropped."""
    found = cursor.execute("SELECT value FROM limits WHERE name = 'kept_from'").fetchone()
    return int(found[0]) if found else -(2**63)


def connect(path: Path | str) -> sqlite3.Connection:
    """A connection that any thread may use, and that begins no transaction by itself."""
    return sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)


def writable(path: Path) -> bool:
    """Whether the file and the folder, in which SQLite keeps a journal beside it, can be written."""
    effective = os.access in os.supports_effective_ids
    return all(os.access(part, os.W_OK, effective_ids=effective) for part in (path.parent, path) if part.exists())


def copy_in_memory(path: Path) -> sqlite3.Connection:
    """The log's events as they are now; SQLite cannot read a file whose journal it cannot write beside it."""
    memory = connect(IN_MEMORY)
    if path.exists():
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            shutil.copyfile(path, copy)
            journal = path.with_name(f"{path.name}-wal")
            if journal.exists():
                shutil.copyfile(journal, copy.with_name(journal.name))
            with closing(connect(copy)) as disk:
                disk.backup(memory)
    return memory


def one_line(error: Exception) -> str:
    """Its message."""
    return " ".join(str(error).split())
