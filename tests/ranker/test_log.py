"""The feedback log: durable, shared, and honest about what is on disk."""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_engine import events

from encoders.errors import ArtifactError, InputError
from ranker.feedback import COLUMNS, KINDS
from ranker.log import IN_MEMORY, FeedbackLog

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]))
IDS = st.one_of(st.integers(-(2**63), 2**63 - 1), TEXT)
ROWS = st.lists(
    st.tuples(
        TEXT, IDS, IDS, st.sampled_from(KINDS), st.none() | st.floats(0, allow_infinity=False),
        st.datetimes(pd.Timestamp("1678-01-01"), pd.Timestamp("2261-01-01")),
    ),
    unique_by=lambda row: row[0], max_size=8,
)  # fmt: skip


def table(rows):
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    objects = {name: frame[name].astype(object) for name in COLUMNS[:4]}
    value = frame["value"].astype("float64")
    return frame.assign(**objects, value=value, datetime=frame["datetime"].astype("datetime64[us]"))


@settings(max_examples=25, deadline=None)
@given(ROWS)
def test_what_is_read_is_what_was_appended(rows):
    log = FeedbackLog(IN_MEMORY)
    batch = table(rows)
    assert len(log.append(batch)) == len(log) == len(rows)
    read = log.read()
    for name in COLUMNS[:4]:
        assert read[name].tolist() == batch[name].tolist()
        assert list(map(type, read[name])) == list(map(type, batch[name]))
    pd.testing.assert_frame_equal(read[["value", "datetime"]], batch[["value", "datetime"]])
    assert log.append(batch).empty
    log.close()


def numbered(process, count, start=0):
    return events(*[(f"{process}-{n}", process, f"i{n}", "click") for n in range(start, start + count)])


def test_appended_events_are_in_the_file_once_append_returns(tmp_path):
    log = FeedbackLog(tmp_path / "log.sqlite")
    log.append(numbered(1, 3))
    again = FeedbackLog(tmp_path / "log.sqlite")
    assert again.read()["event_id"].tolist() == ["1-0", "1-1", "1-2"]


def test_threads_lose_nothing_and_double_nothing(tmp_path):
    log = FeedbackLog(tmp_path / "log.sqlite")
    new = []

    def work(me):
        for n in range(8):
            batch = pd.concat([numbered(me, 1, n), numbered("shared", 1, n)])
            new.append(len(log.append(batch)))

    threads = [threading.Thread(target=work, args=(me,)) for me in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {f"{me}-{n}" for me in (0, 1, 2, 3, "shared") for n in range(8)}
    assert sum(new) == len(expected)
    read = log.read()["event_id"]
    assert set(read) == expected
    assert len(read) == len(expected)


APPEND = """
import sys
sys.path[:0] = sys.argv[3:]
from pathlib import Path
from ranker.log import FeedbackLog
from test_log import numbered
log = FeedbackLog(Path(sys.argv[1]))
for n in range(20):
    log.append(numbered(int(sys.argv[2]), 2, 2 * n))
"""


def test_two_logs_on_one_file_lose_nothing(tmp_path):
    logs = [FeedbackLog(tmp_path / "log.sqlite") for _ in range(2)]
    threads = [
        threading.Thread(target=lambda me=me: [logs[me].append(numbered(me, 2, 2 * n)) for n in range(10)])
        for me in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(logs[0].read()["event_id"]) == {f"{me}-{n}" for me in range(2) for n in range(20)}
    assert len(logs[1]) == 40


@pytest.mark.slow
def test_processes_append_to_one_file(tmp_path):
    path = tmp_path / "log.sqlite"
    started = [
        subprocess.Popen([sys.executable, "-c", APPEND, str(path), str(me), *sys.path], stderr=subprocess.PIPE)
        for me in range(2)
    ]
    for process in started:
        assert process.wait() == 0, process.stderr.read()
        process.stderr.close()
    read = FeedbackLog(path).read()
    assert set(read["event_id"]) == {f"{me}-{n}" for me in range(2) for n in range(40)}
    assert len(read) == 80


def test_a_batch_that_fails_half_way_leaves_nothing(tmp_path):
    log = FeedbackLog(tmp_path / "log.sqlite")
    log.append(numbered(1, 1))
    with pytest.raises(InputError, match="'1-0' is in the log already"):
        log.append(pd.concat([numbered(2, 5), numbered(1, 1).assign(user_id=9), numbered(3, 5)]))
    with pytest.raises(OverflowError):
        log.append(pd.concat([numbered(4, 1), numbered(5, 1).astype(object).assign(user_id=2**70)]))
    assert log.read()["event_id"].tolist() == ["1-0"]
    assert len(log.append(numbered(2, 5))) == 5


def test_a_conflict_is_found_before_anything_is_appended(tmp_path):
    log = FeedbackLog(tmp_path / "log.sqlite")
    log.append(numbered(1, 2))
    log.check(numbered(1, 3))
    with pytest.raises(InputError, match="'1-1' is in the log already with different content"):
        log.check(numbered(1, 3).assign(kind=["click", "cart", "click"]))


@pytest.fixture
def path(tmp_path):
    log = FeedbackLog(tmp_path / "log.sqlite")
    log.append(events(*[(f"event number {n}", n, f"i{n}", "click") for n in range(400)]))
    log.close()
    return tmp_path / "log.sqlite"


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9])
def test_a_truncated_file_is_named(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ArtifactError, match=r"log\.sqlite: can") as caught:
        FeedbackLog(path).read()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_bit_is_named_or_changes_one_event_at_most(path, seed):
    import random

    before = FeedbackLog(path).read()
    content = bytearray(path.read_bytes())
    place = random.Random(seed).randrange(len(content))
    content[place] ^= 1 << random.Random(seed).randrange(8)
    path.write_bytes(content)
    try:
        after = FeedbackLog(path).read()
    except ArtifactError as error:
        assert "log.sqlite" in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
    else:
        same = (before.drop(columns="value") == after.drop(columns="value")).all(axis=1)
        assert (~same).sum() <= 1


def test_what_is_no_log_is_named(tmp_path):
    (tmp_path / "text").write_text("this is no database, however long it may be" * 20)
    with pytest.raises(ArtifactError, match=r"text: cannot be used as a feedback log \(file is not a database\)"):
        FeedbackLog(tmp_path / "text")
    with pytest.raises(ArtifactError, match="cannot be used as a feedback log"):
        FeedbackLog(tmp_path / "absent" / "log.sqlite")
    with closing(sqlite3.connect(tmp_path / "other.sqlite")) as other:
        other.execute("CREATE TABLE events (name)")
    with pytest.raises(ArtifactError, match=r"other\.sqlite: cannot be used.*no such column"):
        FeedbackLog(tmp_path / "other.sqlite")


def test_values_that_no_event_has_are_named(path):
    for change in ("kind = 'clikc'", "datetime = 'noon'", "value = 'much'"):
        other = path.with_name("other.sqlite")
        shutil.copyfile(path, other)
        with closing(sqlite3.connect(other)) as connection, connection:
            connection.execute(f"UPDATE events SET {change} WHERE offset = 7")
        with pytest.raises(ArtifactError, match=r"other\.sqlite: cannot be (read|used)"):
            FeedbackLog(other).read()
        other.unlink()


@pytest.mark.parametrize("journal", [False, True])
def test_a_read_only_folder_can_be_read(path, journal, read_only):
    log = FeedbackLog(path)
    log.append(numbered(1, 3))  # in the journal until the log is closed
    if not journal:
        log.close()
    source = path.with_name("source")
    source.mkdir()
    for name in ["log.sqlite", "log.sqlite-wal"][: 1 + journal]:
        shutil.copyfile(path.with_name(name), source / name)
    with read_only(source) as folder:
        held = FeedbackLog(folder / "log.sqlite")
        assert len(held) == len(held.read()) == 403
        with pytest.raises(ArtifactError, match=r"log\.sqlite: cannot be written, so the feedback was not recorded"):
            held.append(numbered(9, 1))
        assert len(held) == 403
        assert sorted(os.listdir(folder)) == ["log.sqlite", "log.sqlite-wal"][: 1 + journal]


def test_a_read_only_folder_without_a_log_holds_no_event(read_only, tmp_path):
    with read_only(tmp_path) as folder:
        assert FeedbackLog(folder / "log.sqlite").read().empty
