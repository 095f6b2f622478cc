"""Tables that commands read beside the log and the items, and files that they write."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ranker.cli.arguments import Refuse, Unit

if TYPE_CHECKING:
    import pandas as pd

    from retrieval.ids import IdMap

WRITTEN = (".parquet", ".csv", ".tsv")


def read_events(path: Path, time_unit: Unit) -> pd.DataFrame:
    """What users did, checked like a log; without a ``datetime`` column the order of the rows is the order in time."""
    from ranker.data import read_interactions
    from ranker.data.table import read_table

    table = read_table(path, ids=("user_id", "item_id"))
    timed = "datetime" in table.columns
    events, _ = read_interactions(path if timed else table.assign(datetime=range(len(table))), time_unit=time_unit)
    return events


def read_feedback(path: Path, refuse: Refuse | None, known: Mapping[str, IdMap] | None = None) -> pd.DataFrame:
    """Feedback events as the file gives them; ``Engine.feedback`` checks them.

    Args:
        path: .csv, .tsv, .parquet, or .jsonl (an object a line).
        refuse: Is told each line that is no JSON object; None refuses the file.
        known: Column → ids of an engine: those of a file without types are read as of the same kind, each by itself.
            None: they are integers where all of the file's are.
    """
    import pandas as pd

    from ranker.data.table import SEPARATORS, read_table

    if path.suffix == ".jsonl":
        return _read_json_lines(path, refuse)
    texts = ["event_id", "kind", "source", "list_id", "version"]
    if known is None or path.suffix not in SEPARATORS:
        return read_table(path, ids=("user_id", "item_id"), texts=texts)
    events = read_table(path, texts=[*texts, *known])
    for name, ids in known.items():
        if name in events:
            one_by_one = [None if pd.isna(text) else ids.parse([text])[0] for text in events[name]]
            events[name] = pd.Series(one_by_one, dtype="object")
    return events


def with_times(events: pd.DataFrame, unit: Unit) -> pd.DataFrame:
    """The events with datetimes in place of numbers of this unit."""
    from ranker.data.times import read_times

    return events.assign(datetime=read_times(events["datetime"], unit)) if "datetime" in events else events


def check_writable(path: Path | None, kinds: tuple[str, ...] = WRITTEN) -> None:
    """Refuse, before any work, a file of a kind that is not written or in a folder that is not there."""
    from encoders.errors import InputError

    if path is None:
        return
    if path.suffix not in kinds:
        raise InputError(f"{path}: what is written here is {', '.join(kinds)}; let the file's name end so.")
    if not path.parent.is_dir() or path.is_dir():
        raise InputError(f"{path}: {'is' if path.is_dir() else 'lies in'} no {'file' if path.is_dir() else 'folder'}.")


def check_report_file(path: Path | None) -> None:
    """Refuse, before any work, a report that cannot be written or made."""
    from ranker.evaluation.report import check_report

    check_writable(path, (".html",))
    if path is not None:
        check_report()


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as its suffix says, whole or not at all."""
    with appearing(path) as part:
        if path.suffix == ".parquet":
            frame.to_parquet(part, index=False)
        else:
            from ranker.data.table import SEPARATORS

            frame.to_csv(part, index=False, sep=SEPARATORS[path.suffix])


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write to; once it is written, it takes the place of ``path``.

    Raises:
        ArtifactError: The disk refused. What was at ``path`` is untouched then.
    """
    from encoders.errors import ArtifactError

    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        if isinstance(error, ArtifactError):
            raise
        reason = error.strerror or error
        raise ArtifactError(f"{path}: not written ({reason}). Make room or choose another folder.") from error
    finally:
        part.unlink(missing_ok=True)


def _read_json_lines(path: Path, refuse: Refuse | None) -> pd.DataFrame:
    import pandas as pd

    from encoders.errors import InputError

    events = []
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
            if not line.strip():
                continue
            try:
                event = json.loads(line)
                if not isinstance(event, dict):
                    raise TypeError(f"but a {type(event).__name__}")
                events.append(event)
            except (ValueError, TypeError, RecursionError) as error:
                why = f"line {number} is no JSON object ({error})"
                if refuse is None:
                    raise InputError(f"{path}: {why}. Mend it; nothing was recorded.") from error
                refuse(line, why)
    except (OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read ({reason}).") from error
    return pd.DataFrame(events, dtype="object")  # one line's odd value changes no other's type
