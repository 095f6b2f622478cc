"""The feedback log: durable, shared, and honest about what is on disk."""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_engine import as_logged, events

from encoders.errors import ArtifactError, InputError
from ranker.feedback import COLUMNS, IN_MEMORY, KINDS, FeedbackLog
from ranker.feedback.events import DTYPES

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]))
IDS = st.one_of(st.integers(-(2**63), 2**63 - 1), TEXT)
NUMBERS = st.none() | st.floats(0, allow_infinity=False)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "event_id": TEXT, "user_id": IDS, "item_id": IDS, "kind": st.sampled_from(KINDS), "value": NUMBERS,
            "datetime": st.datetimes(pd.Timestamp("1678-01-01"), pd.Timestamp("2261-01-01")), "source": TEXT,
            "list_id": st.none() | TEXT, "score": NUMBERS, "propensity": NUMBERS, "version": st.none() | TEXT,
        }
    ),
    unique_by=lambda row: row["event_id"], max_size=8,
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(ROWS, st.integers(0, 8), st.integers(0, 8))
def test_what_is_read_is_what_was_appended(rows, after, most):
    log = FeedbackLog(IN_MEMORY)
    batch = pd.DataFrame(rows, columns=list(COLUMNS))
    ids = {name: batch[name].astype(object) for name in ("user_id", "item_id")}
    batch = batch.assign(**ids).astype(DTYPES)
    assert len(log.append(batch)) == len(log) == log.last_offset() == len(rows)
    read = log.read()
    for name in ids:
        assert read[name].tolist() == batch[name].tolist()
        assert list(map(type, read[name])) == list(map(type, batch[name]))
    others = [name for name in COLUMNS if name not in ids]
    pd.testing.assert_frame_equal(read[others], batch[others])
    assert read["offset"].tolist() == list(range(1, len(rows) + 1))
    assert log.read(after, most)["event_id"].tolist() == read["event_id"].tolist()[after : after + most]
    for user_id in set(batch["user_id"]):
        own = read[(read["user_id"] == user_id) & (read["offset"] > after)]
        assert [event.event_id for event in log.of_users({user_id: after})] == own["event_id"].tolist()
    assert log.users() == list(dict.fromkeys(batch["user_id"]))
    assert log.append(batch).empty
    log.close()


def numbered(process, count, start=0):
    return as_logged(events(*[(f"{process}-{n}", process, f"i{n}", "click") for n in range(start, start + count)]))


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
from pathlib import Path
import pandas as pd
from ranker.feedback import FeedbackLog
log, events = FeedbackLog(Path(sys.argv[1])), pd.read_pickle(sys.argv[2])
for start in range(0, len(events), 2):
    log.append(events[start : start + 2])
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
    started = []
    for me in range(2):
        numbered(me, 40).to_pickle(tmp_path / str(me))
        command = [sys.executable, "-c", APPEND, path, tmp_path / str(me)]
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE))
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
    log.append(as_logged(events(*[(f"event number {n}", n, f"i{n}", "click") for n in range(400)])))
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
        same = (before.astype("object").fillna("") == after.astype("object").fillna("")).all(axis=1)
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


def test_a_log_that_is_closed_under_its_readers_ends_in_an_error_for_them(tmp_path):
    for round_number in range(20):
        log = FeedbackLog(tmp_path / f"{round_number}.sqlite")
        log.append(numbered(1, 50))
        ended = []

        def read(log=log, ended=ended):
            try:
                while True:
                    log.of_users({1: 0, 2: 0})
            except ArtifactError as error:
                ended.append(str(error))

        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        time.sleep(0.005)
        log.close()
        for reader in readers:
            reader.join()
        assert len(ended) == 3
        assert "closed database" in ended[0]


def test_callers_who_come_together_share_a_commit_and_each_has_an_outcome_of_its_own(tmp_path):
    log = FeedbackLog(tmp_path / "log.sqlite")
    log.append(numbered("held", 1))
    commits, outcomes = [], {}
    log._writer.set_trace_callback(lambda statement: commits.append(statement) if statement == "COMMIT" else None)
    blocker = FeedbackLog(tmp_path / "log.sqlite")
    blocker._writer.execute("BEGIN IMMEDIATE")  # until it ends, the first caller's commit waits, and the others gather

    def work(me):
        conflicting = me % 3 == 0
        batch = numbered(me, 2)
        if conflicting:
            batch = pd.concat([batch, numbered("held", 1).assign(user_id="someone else")])
        try:
            outcomes[me] = log.append(batch)["event_id"].tolist()
        except InputError as error:
            outcomes[me] = str(error)

    threads = [threading.Thread(target=work, args=(me,)) for me in range(24)]
    for thread in threads:
        thread.start()
    while log._commits.stats().waiting < 23:
        time.sleep(0.001)
    blocker._writer.execute("ROLLBACK")
    for thread in threads:
        thread.join()
    assert len(commits) == 2  # the first caller's, and that of all who came meanwhile
    for me, outcome in outcomes.items():
        assert ("is in the log already" in outcome) if me % 3 == 0 else outcome == [f"{me}-0", f"{me}-1"]
    recorded = {f"{me}-{n}" for me in range(24) if me % 3 for n in range(2)} | {"held-0"}
    assert set(log.read()["event_id"]) == recorded
