"""The durable feedback log: an append-only SQLite table that acknowledges an event only once it is on disk."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pandas as pd

from encoders.errors import ArtifactError, InputError
from ranker.feedback import COLUMNS

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

    Safe to use from several threads; several processes may append to the same file.

    Args:
        path: The file, created where it is missing, or ``IN_MEMORY`` for a log that ends with its object.

    Raises:
        ArtifactError: The file is not a readable feedback log.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute(SCHEMA)
            self._connection.execute(f"{SELECT} LIMIT 1")
        except sqlite3.Error as error:
            raise ArtifactError(f"{path}: not a readable feedback log ({error}). Restore it from a backup.") from error

    def append(self, events: pd.DataFrame) -> pd.DataFrame:
        """Record checked events; returns those that were new, once they are on disk.

        An event that the log holds already is passed over, so that a caller may send it again. The batch is recorded
        whole or not at all.

        Raises:
            InputError: The log holds an event of the same id with different content.
            ArtifactError: The disk refused the write.
        """
        rows = [
            (event_id, _plain(user_id), _plain(item_id), kind, None if pd.isna(value) else float(value), time)
            for event_id, user_id, item_id, kind, value, time in zip(
                *(events[name].tolist() for name in COLUMNS[:-1]),
                events["datetime"].to_numpy("datetime64[us]").astype("int64").tolist(),
                strict=True,
            )
        ]
        new = []
        with self._lock, closing(self._connection.cursor()) as cursor:
            try:
                cursor.execute("BEGIN IMMEDIATE")
                for row in rows:
                    cursor.execute(
                        f"INSERT INTO events ({', '.join(COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?) "
                        "ON CONFLICT (event_id) DO NOTHING",
                        row,
                    )
                    new.append(cursor.rowcount == 1)
                    if not new[-1]:
                        _check_same(cursor, row)
                cursor.execute("COMMIT")
            except sqlite3.Error as error:
                _roll_back(cursor)
                raise ArtifactError(
                    f"{self.path}: the feedback was not recorded ({error}). Free the disk and send it again."
                ) from error
            except InputError:
                _roll_back(cursor)
                raise
        return events[new]

    def read(self) -> pd.DataFrame:
        """Every event in the order of arrival, with the columns ``ranker.feedback.COLUMNS``."""
        with self._lock:
            try:
                rows = self._connection.execute(f"{SELECT} ORDER BY offset").fetchall()
            except sqlite3.Error as error:
                raise ArtifactError(f"{self.path}: cannot be read ({error}). Restore it from a backup.") from error
        events = pd.DataFrame(rows, columns=list(COLUMNS))
        events["value"] = events["value"].astype("float64")
        events["datetime"] = events["datetime"].astype("int64").astype("datetime64[us]")
        return events

    def __len__(self) -> int:
        with self._lock:
            (count,) = self._connection.execute("SELECT COUNT(*) FROM events").fetchone()
        return int(count)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _plain(value: object) -> object:
    return value.item() if hasattr(value, "item") else value


def _check_same(cursor: sqlite3.Cursor, row: tuple[object, ...]) -> None:
    held = cursor.execute(f"{SELECT} WHERE event_id = ?", row[:1]).fetchone()
    if held != row:
        raise InputError(
            f"feedback: event id {row[0]!r} is in the log already with different content. Nothing was recorded; "
            "give each act an id of its own."
        )


def _roll_back(cursor: sqlite3.Cursor) -> None:
    if cursor.connection.in_transaction:
        cursor.execute("ROLLBACK")
