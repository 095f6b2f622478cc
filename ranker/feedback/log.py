"""The durable feedback log: an append-only SQLite table that acknowledges an event only once it is on disk."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pandas as pd

from encoders.errors import ArtifactError, InputError
from ranker.batching import BatchingConfig, MicroBatcher
from ranker.feedback.event_log import Logged
from ranker.feedback.events import KINDS
from ranker.feedback.schema import (
    COUNT_ERASURE,
    KEEP_FROM,
    READ,
    Row,
    check_kept,
    check_same,
    connect,
    copy_in_memory,
    inserted,
    kept_from_in,
    one_line,
    prepare,
    rows_of,
    table_of,
    writable,
)
from retrieval.ids import Ids
from retrieval.interactions import microseconds

TOGETHER = 10_000  # events of concurrent callers that share one commit at most


class FeedbackLog:
    """Feedback events in the order of their arrival, in a file of SQLite.

    Safe to use from several threads, which share a commit, and with it the wait for the disk, where they come at the
    same time; several processes may append to the same file. Where the file or its folder cannot be written, as on a
    read-only mount, the events can be read but none can be appended.

    Args:
        path: The file, created where it is missing, or ``IN_MEMORY`` for a log that ends with its object.

    Raises:
        ArtifactError: The file is not a readable feedback log.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self.read_only = isinstance(path, Path) and not writable(path)
        self._writing = threading.Lock()
        try:
            if isinstance(path, Path) and self.read_only:
                self._writer = copy_in_memory(path)
            else:
                self._writer = connect(path)
                self._writer.execute("PRAGMA journal_mode = WAL")
                self._writer.execute("PRAGMA synchronous = FULL")
                self._writer.execute("PRAGMA secure_delete = ON")
            (state,) = self._writer.execute("PRAGMA quick_check(1)").fetchone()
            if state != "ok":
                raise sqlite3.DatabaseError(state)
            prepare(self._writer)
            # Readers of a file need not wait for the disk: they see the newest commit while another is under way.
            apart = isinstance(path, Path) and not self.read_only
            self._reader, self._reading = (connect(path), threading.Lock()) if apart else (self._writer, self._writing)
            self._reader.execute(f"SELECT {READ} FROM events LIMIT 1")
        except (sqlite3.Error, OSError) as error:
            reason = f"cannot be used as a feedback log ({one_line(error)})"
            raise ArtifactError(f"{path}: {reason}. Check the disk, or restore the file from a backup.") from error
        together = BatchingConfig(max_size=TOGETHER, max_queued=TOGETHER, buckets=())  # of whatever size
        self._commits = MicroBatcher(self._committed, together, len)

    def append(self, events: pd.DataFrame) -> pd.DataFrame:
        """Record checked events; returns those that were new, once they are on disk.

        An event that the log holds already is passed over, so that a caller may send it again. The batch is recorded
        whole or not at all.

        Raises:
            InputError: The log holds an event of the same id with different content, or an event is older than what the
                log keeps (``compact``).
            ArtifactError: The log is read-only, or the disk refused the write.
        """
        self._check_writable(
            "the feedback was not recorded. Save the engine to a folder that can be, and send it again"
        )
        outcome = self._commits.ask(list(rows_of(events)))
        if isinstance(outcome, Exception):
            raise outcome
        return events if all(outcome) else events[outcome]

    def check(self, events: pd.DataFrame) -> None:
        """Raise InputError where ``append`` would."""
        with self._reading, closing(self._reader.cursor()) as cursor:
            kept_from = kept_from_in(cursor)
            for row in rows_of(events):
                check_kept(row, kept_from)
                check_same(cursor, row)

    def read(self, after: int = 0, most: int | None = None) -> pd.DataFrame:
        """Events in the order of arrival.

        Args:
            after: Offset from which on, exclusive.
            most: How many at most; None: all.

        Returns:
            Columns ``offset``, those of ``ranker.feedback.COLUMNS``, and ``received``.

        Raises:
            ArtifactError: The file is damaged.
        """
        events = self.newer(after, -1 if most is None else most)
        try:
            return table_of(events)
        except (TypeError, ValueError, OverflowError) as error:
            raise self._damaged(one_line(error)) from error

    def newer(self, after: int, most: int) -> Sequence[Logged]:
        """The next events beyond an offset, at most so many (any number where it is negative), in order of arrival.

        Raises:
            ArtifactError: The file is damaged.
        """
        return self._select("WHERE offset > ? ORDER BY offset LIMIT ?", [(after, most)])

    def of_users(self, after: Mapping[int | str, int]) -> Sequence[Logged]:
        """Events of these users, each beyond an offset of their own, in the order of arrival, all as of one moment.

        Raises:
            ArtifactError: The file is damaged.
        """
        return self._select("WHERE user_id = ? AND offset > ?", list(after.items()))

    def of_lists(self, list_ids: Sequence[str]) -> Sequence[Logged]:
        """All events of these lists, in the order of arrival; raises what ``newer`` does."""
        return self._select("WHERE list_id = ?", [(list_id,) for list_id in dict.fromkeys(list_ids)])

    def users(self) -> list[int | str]:
        """Everybody of whom there is an event, in the order of the first one."""
        query = "SELECT user_id FROM events GROUP BY user_id ORDER BY MIN(offset)"
        return [user_id for (user_id,) in self._fetched(query)]

    def last_offset(self) -> int:
        """Of the newest event that there ever was, 0 where there was none."""
        return self._number("SELECT MAX(seq) FROM sqlite_sequence WHERE name = 'events'")

    def compact(self, before: pd.Timestamp) -> int:
        """Drop every event from before a time, and give its room back to the disk.

        From then on an older event is refused: the log could not tell whether it had it already.

        Args:
            before: Events from this time on are kept; UTC where it has no zone.

        Returns:
            How many events were dropped.

        Raises:
            InputError: The time is still to come: all events until then would be refused.
            ArtifactError: The log is read-only, or the disk refused the write.
        """
        if (limit := int(microseconds(pd.Series([before]))[0])) > time.time_ns() // 1000:
            raise InputError(f"compact: {before} is still to come, and all feedback until then would be refused.")
        return self._deleted("datetime < ?", [(limit,)], [(KEEP_FROM, (limit, limit))])

    def refuse_as(self, other: FeedbackLog) -> None:
        """Refuse from now on the old events that another log refuses since it was compacted."""
        limit = other._number("SELECT MAX(value) FROM limits WHERE name = 'kept_from'")
        if limit:
            self._deleted("0", [()], [(KEEP_FROM, (limit, limit))])

    def forget(self, user_ids: Ids) -> int:
        """Delete every event of these users, so that no byte of it stays in the file; returns how many there were.

        Who they were is remembered until ``all_forgotten``, since a saved engine may still tell of them.

        Raises:
            ArtifactError: The log is read-only, or the disk refused the write.
        """
        users = [(user_id,) for user_id in pd.Index(user_ids).tolist()]
        statement = "INSERT INTO forgotten VALUES (?) ON CONFLICT (user_id) DO NOTHING"
        return self._deleted("user_id = ?", users, [(statement, user) for user in users])

    def forgotten(self) -> list[int | str]:
        """Users who were forgotten, of whom a saved engine may still tell."""
        return [user_id for (user_id,) in self._fetched("SELECT user_id FROM forgotten")]

    def erasures(self) -> int:
        """How often events were deleted, by whichever process; what was read before may hold what is gone."""
        return self._number("SELECT MAX(value) FROM limits WHERE name = 'erasures'")

    def all_forgotten(self) -> None:
        """No saved engine tells of a forgotten user any more: let their ids go, too."""
        self._deleted("0", [()], [("DELETE FROM forgotten", ())])

    def __len__(self) -> int:
        return self._number("SELECT COUNT(*) FROM events")

    def close(self) -> None:
        """Close the file, once whoever reads or writes it now is done."""
        with self._reading:  # SQLite does not survive a connection that is closed under a running query
            self._reader.close()
        with self._writing:
            self._writer.close()

    def _committed(self, batches: list[list[Row]]) -> list[list[bool] | Exception]:
        """Record several callers' rows in one commit: which rows were new, or why none of a caller's was recorded."""
        outcomes: list[list[bool] | Exception] = []
        received = time.time_ns() // 1000
        with self._writing, closing(self._writer.cursor()) as cursor:
            try:
                cursor.execute("BEGIN IMMEDIATE")
                kept_from = kept_from_in(cursor)
                for rows in batches:
                    cursor.execute("SAVEPOINT caller")
                    try:
                        outcomes.append([inserted(cursor, row, received, kept_from) for row in rows])
                    except (InputError, OverflowError) as error:
                        cursor.execute("ROLLBACK TO caller")
                        outcomes.append(error)
                    cursor.execute("RELEASE caller")
                cursor.execute("COMMIT")
            except BaseException as error:
                if self._writer.in_transaction:
                    cursor.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise ArtifactError(
                        f"{self.path}: the feedback was not recorded ({one_line(error)}). Mend that, and send it again."
                    ) from error
                raise
        return outcomes

    def _deleted(self, where: str, several: list[Row], also: list[tuple[str, Row]]) -> int:
        """Delete what meets a condition with each of these values, in one commit, and leave no trace in the files."""
        self._check_writable("nothing was deleted. Make it writable first")
        with self._writing, closing(self._writer.cursor()) as cursor:
            try:
                cursor.execute("BEGIN IMMEDIATE")
                deleted = sum(cursor.execute(f"DELETE FROM events WHERE {where}", row).rowcount for row in several)
                for statement, values in [*also, (COUNT_ERASURE, ())]:
                    cursor.execute(statement, values)
                cursor.execute("COMMIT")
                cursor.execute("VACUUM")
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except sqlite3.Error as error:
                if self._writer.in_transaction:
                    cursor.execute("ROLLBACK")
                raise ArtifactError(
                    f"{self.path}: the log could not be cleared ({one_line(error)}). Mend that, and ask again."
                ) from error
        return deleted

    def _select(self, condition: str, several: Sequence[Row]) -> list[Logged]:
        """Events that meet a condition with any of these values, by offset, all as of one moment.

        What no event can hold is refused.
        """
        query = f"SELECT {READ} FROM events {condition}"
        with self._reading:
            try:
                with closing(self._reader.cursor()) as cursor:
                    cursor.execute("BEGIN")
                    try:
                        rows = [row for values in several for row in cursor.execute(query, values)]
                    finally:
                        cursor.execute("COMMIT")
            except sqlite3.Error as error:
                raise self._damaged(one_line(error)) from error
        found = [Logged._make(row) for row in rows]
        for event in found:
            if event.kind not in KINDS or type(event.datetime) is not int or isinstance(event.value, (str, bytes)):
                raise self._damaged(f"event {event.event_id!r} is none: {tuple(event)}")
        return sorted(found)

    def _fetched(self, query: str, values: Row = ()) -> list[Row]:
        with self._reading:
            try:
                return self._reader.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise self._damaged(one_line(error)) from error

    def _number(self, query: str) -> int:
        ((number,),) = self._fetched(query)
        return int(number or 0)

    def _check_writable(self, so: str) -> None:
        if self.read_only:
            raise ArtifactError(f"{self.path}: cannot be written, so {so}.")

    def _damaged(self, reason: str) -> ArtifactError:
        return ArtifactError(f"{self.path}: cannot be read ({reason}). Restore it from a backup.")
