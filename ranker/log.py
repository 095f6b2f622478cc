"""The durable feedback log: an append-only SQLite table that acknowledges an event only once it is on disk."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pandas as pd

from encoders.errors import ArtifactError, InputError
from ranker.feedback import COLUMNS, KINDS

IN_MEMORY = ":memory:"

# No type on the ids: SQLite then keeps integers as integers and strings as strings.
SCHEMA = """
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

SELECT = f"SELECT {', '.join(COLUMNS)} FROM events"


class FeedbackLog:
    """Feedback events in the order of their arrival.

    Safe to use from several threads; several processes may append to the same file. Where the file or its folder
    cannot be written, as on a read-only mount, the events can be read but none can be appended.

    Args:
        path: The file, created where it is missing, or ``IN_MEMORY`` for a log that ends with its object.

    Raises:
        ArtifactError: The file is not a readable feedback log.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self.read_only = isinstance(path, Path) and not _writable(path)
        self._lock = threading.Lock()
        try:
            if isinstance(path, Path) and self.read_only:
                self._connection = _copy_in_memory(path)
            else:
                self._connection = _connect(path)
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = FULL")
            (state,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
            if state != "ok":
                raise sqlite3.DatabaseError(state)
            self._connection.execute(SCHEMA)
            self._connection.execute(f"{SELECT} LIMIT 1")
        except (sqlite3.Error, OSError) as error:
            raise ArtifactError(
                f"{path}: cannot be used as a feedback log ({_one_line(error)}). Check the disk, or restore the file "
                "from a backup."
            ) from error

    def append(self, events: pd.DataFrame) -> pd.DataFrame:
        """Record checked events; returns those that were new, once they are on disk.

        An event that the log holds already is passed over, so that a caller may send it again. The batch is recorded
        whole or not at all.

        Raises:
            InputError: The log holds an event of the same id with different content.
            ArtifactError: The log is read-only, or the disk refused the write.
        """
        if self.read_only:
            raise ArtifactError(
                f"{self.path}: cannot be written, so the feedback was not recorded. Save the engine to a folder that "
                "can be, and send it again."
            )
        new = []
        with self._lock, closing(self._connection.cursor()) as cursor:
            try:
                cursor.execute("BEGIN IMMEDIATE")
                for row in _rows(events):
                    cursor.execute(
                        f"INSERT INTO events ({', '.join(COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?) "
                        "ON CONFLICT (event_id) DO NOTHING",
                        row,
                    )
                    new.append(cursor.rowcount == 1)
                    if not new[-1]:
                        _check_same(cursor, row)
                cursor.execute("COMMIT")
            except BaseException as error:
                if self._connection.in_transaction:
                    cursor.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise ArtifactError(
                        f"{self.path}: the feedback was not recorded ({_one_line(error)}). Mend that, and send it "
                        "again."
                    ) from error
                raise
        return events[new]

    def check(self, events: pd.DataFrame) -> None:
        """Raise InputError where ``append`` would, for an event that is here with different content."""
        with self._lock, closing(self._connection.cursor()) as cursor:
            for row in _rows(events):
                _check_same(cursor, row)

    def read(self) -> pd.DataFrame:
        """Every event in the order of arrival, with the columns ``ranker.feedback.COLUMNS``.

        Raises:
            ArtifactError: The file is damaged.
        """
        with self._lock:
            try:
                rows = self._connection.execute(f"{SELECT} ORDER BY offset").fetchall()
            except sqlite3.Error as error:
                raise self._damaged(_one_line(error)) from error
        events = pd.DataFrame(rows, columns=list(COLUMNS))
        try:
            events["value"] = events["value"].astype("float64")
            events["datetime"] = events["datetime"].astype("int64").astype("datetime64[us]")
        except (TypeError, ValueError, OverflowError) as error:
            raise self._damaged(_one_line(error)) from error
        unknown = ~events["kind"].isin(KINDS)
        if unknown.any():
            raise self._damaged(f"kind {events['kind'][unknown].iloc[0]!r} is unknown")
        return events

    def _damaged(self, reason: str) -> ArtifactError:
        return ArtifactError(f"{self.path}: cannot be read ({reason}). Restore it from a backup.")

    def __len__(self) -> int:
        with self._lock:
            (count,) = self._connection.execute("SELECT COUNT(*) FROM events").fetchone()
        return int(count)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


Row = tuple[object, ...]  # in the order of COLUMNS


def _rows(events: pd.DataFrame) -> Iterator[Row]:
    columns = [events[name].tolist() for name in COLUMNS[:4]]
    values = [None if pd.isna(value) else float(value) for value in events["value"]]
    times = events["datetime"].to_numpy("datetime64[us]").astype("int64").tolist()
    return zip(*columns, values, times, strict=True)


def _check_same(cursor: sqlite3.Cursor, row: Row) -> None:
    held = cursor.execute(f"{SELECT} WHERE event_id = ?", row[:1]).fetchone()
    if held is not None and held != row:
        raise InputError(
            f"feedback: event id {row[0]!r} is in the log already with different content. Nothing was recorded; "
            "give each act an id of its own."
        )


def _connect(path: Path | str) -> sqlite3.Connection:
    return sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)


def _writable(path: Path) -> bool:
    """Whether the file and the folder, in which SQLite keeps a journal beside it, can be written."""
    effective = os.access in os.supports_effective_ids
    return all(os.access(part, os.W_OK, effective_ids=effective) for part in (path.parent, path) if part.exists())


def _copy_in_memory(path: Path) -> sqlite3.Connection:
    """The log's events as they are now; SQLite cannot read a file whose journal it cannot write beside it."""
    memory = _connect(IN_MEMORY)
    if path.exists():
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            shutil.copyfile(path, copy)
            journal = path.with_name(f"{path.name}-wal")
            if journal.exists():
                shutil.copyfile(journal, copy.with_name(journal.name))
            with closing(_connect(copy)) as disk:
                disk.backup(memory)
    return memory


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
