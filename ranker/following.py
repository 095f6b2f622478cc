"""Feedback as a stream of JSON lines: from standard input, or from files that grow in a folder."""

from __future__ import annotations

import itertools
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, NamedTuple

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from encoders.errors import ArtifactError, InputError
from ranker.engine import Engine
from ranker.feedback.events import COLUMNS
from retrieval.storage import replace_text

AT_ONCE = 500  # lines that are recorded together
STATE = "followed.json"  # of a saved engine: how far each file was read
Row = dict[str, object]  # field → value
Refuse = Callable[[str, str], None]  # a line, and why


@dataclass
class Recorded:
    """What became of the lines so far."""

    new: int = 0
    known: int = 0  # their event ids were in the log
    refused: int = 0


class Recorder:
    """Records lines of feedback; one that is no event is refused by itself, and keeps no other out.

    Args:
        engine: Whose log they go into.
        refuse: Is told each refused line, and why.
    """

    def __init__(self, engine: Engine, refuse: Refuse) -> None:
        self.counts = Recorded()
        self._engine = engine
        self._refuse = refuse

    def record(self, lines: list[str]) -> None:
        """Record these lines, each a JSON object with an event; all are on disk, or refused, when it returns.

        Raises:
            ArtifactError: The log cannot be written. It may hold some of the lines; to record them again is harmless.
        """
        rows: list[tuple[str, Row]] = []
        for line in lines:
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise TypeError(f"a {type(row).__name__} is no object")
                rows.append((line, row))
            except (ValueError, TypeError, RecursionError) as error:
                self._refused(line, f"this is no JSON object ({error})")
        self.record_rows(rows)

    def record_rows(self, rows: Sequence[tuple[str, Row]]) -> None:
        """Record events, each with what is told of it where it is refused; see ``record``."""
        if not rows:
            return
        table = pd.DataFrame([row for _, row in rows], dtype="object")  # one line's odd value changes no other's type
        for name in COLUMNS:
            if name not in table:
                table[name] = None  # of each line, so that each is told
        before = self.counts.refused
        new = self._engine.feedback(table, lambda row, why: self._refused(rows[row][0], why))
        self.counts.new += new
        self.counts.known += len(rows) - new - (self.counts.refused - before)

    def _refused(self, line: str, why: str) -> None:
        self.counts.refused += 1
        self._refuse(line, why)


def follow_stream(stream: IO[str], recorder: Recorder) -> None:
    """Record the lines of a stream until it ends: those that wait together, and none is held back for others.

    Raises:
        InputError: It cannot be read on; what came before is recorded.
        ArtifactError: The log cannot be written.
    """
    lines: queue.Queue[str | None] = queue.Queue(maxsize=2 * AT_ONCE)

    broken: list[Exception] = []

    def read() -> None:
        try:
            for line in stream:
                lines.put(line)
        except (OSError, ValueError) as error:
            broken.append(error)
        finally:
            lines.put(None)

    threading.Thread(target=read, name="stream", daemon=True).start()
    ended = False
    while not ended:
        waiting = [lines.get()]
        while len(waiting) < AT_ONCE and not lines.empty():
            waiting.append(lines.get())
        ended = waiting[-1] is None
        recorder.record([line for line in waiting if line is not None and line.strip()])
    if broken:
        raise InputError(f"The stream broke off ({broken[0]}); what came before is recorded. Send the rest again.")


class Read(NamedTuple):
    """How far a file was read."""

    size: int  # bytes
    begins: str  # SHA-256 of its first line: another file may have taken its name


READ = TypeAdapter(dict[str, Read])  # by path


class FollowedFolder:
    """Files of JSON lines that appear and grow in a folder, read in the order of their names.

    How far each file was read is kept in a file of its own, so that a restart goes on from there; event ids make up
    for what a crash repeats. A last line without a newline is still being written, and waits.

    Args:
        folder: Files that end in ``.jsonl`` are read.
        state: Where it is kept how far.

    Raises:
        InputError: The folder is none.
        ArtifactError: The state is damaged.
    """

    def __init__(self, folder: Path, state: Path) -> None:
        if not folder.is_dir():
            raise InputError(f"{folder}: is no folder. Name one with files of JSON lines, or - for standard input.")
        self.folder = folder.resolve()
        self._state = state
        self._read: dict[str, Read] = {}
        if state.exists():
            try:
                self._read = READ.validate_json(state.read_bytes())
            except (ValidationError, OSError) as error:
                raise ArtifactError(
                    f"{state}: cannot be read ({' '.join(str(error).split())}). Remove it: all files are read again, "
                    "and what the log has counts once."
                ) from error

    def record_new(self, recorder: Recorder) -> int:
        """Record all whole lines that are new; how many bytes that were.

        Raises:
            ArtifactError: A file cannot be read, or the log or the state cannot be written.
        """
        total = 0
        for path in sorted(self.folder.glob("*.jsonl")):
            for lines, size, read in self._new_lines(path):
                recorder.record(lines)
                self._read[str(path)] = read
                try:
                    replace_text(self._state, READ.dump_json(self._read).decode())
                except OSError as error:
                    raise ArtifactError(f"{self._state}: cannot be written ({error.strerror}). Make room.") from error
                total += size
        return total

    def _new_lines(self, path: Path) -> Iterator[tuple[list[str], int, Read]]:
        """Whole lines beyond what was read, some at a time, their size in bytes, and how far the file is read then."""
        try:
            with path.open("rb") as file:
                begins = sha256(file.readline()).hexdigest()
                read = self._read.get(str(path), Read(0, begins))
                if read.begins != begins or path.stat().st_size < read.size:
                    read = Read(0, begins)
                file.seek(read.size)
                whole = itertools.takewhile(lambda line: line.endswith(b"\n"), file)
                while lines := list(itertools.islice(whole, AT_ONCE)):
                    size = sum(map(len, lines))
                    read = Read(read.size + size, begins)
                    yield [text for line in lines if (text := line.decode("utf-8", "replace")).strip()], size, read
        except OSError as error:
            raise ArtifactError(f"{path}: cannot be read ({error.strerror}).") from error


def follow_folder(folder: FollowedFolder, recorder: Recorder, poll_s: float, until: Callable[[], bool]) -> None:
    """Record what appears in a folder until told to end.

    Args:
        folder: The folder.
        recorder: Records the lines.
        poll_s: Seconds between two looks where there was nothing new.
        until: Asked after each look; ends it where true.
    """
    while True:
        new = folder.record_new(recorder)
        if until():
            return
        if not new:
            time.sleep(poll_s)
