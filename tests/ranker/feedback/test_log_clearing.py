"""What leaves the log, and what an older format of it held."""

import sqlite3
from contextlib import closing

import pandas as pd
import pytest
from test_log import numbered
from tiny_engine import as_logged, events

from encoders.errors import InputError
from ranker.feedback import FeedbackLog
from ranker.feedback.schema import EVENTS


def test_what_was_compacted_is_gone_from_the_file_and_never_taken_again(tmp_path):
    log = FeedbackLog(tmp_path / "log.sqlite")
    old = numbered("old", 2000).assign(datetime=pd.Timestamp("2024-01-01"))
    new = numbered("new", 2).assign(datetime=pd.Timestamp("2024-03-01"))
    log.append(pd.concat([old, new]))
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert log.compact(pd.Timestamp("2024-02-01", tz="UTC")) == 2000
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < size / 3
    assert b"old-7" not in log.path.read_bytes()
    assert log.read()["event_id"].tolist() == ["new-0", "new-1"]
    assert log.last_offset() == 2002
    with pytest.raises(InputError, match=r"'old-0' is of 2024-01-01.* the log keeps events from 2024-02-01"):
        log.append(old)
    assert log.compact(pd.Timestamp("2023-01-01")) == 0  # the limit never goes back
    with pytest.raises(InputError, match="the log keeps events from 2024-02-01"):
        FeedbackLog(tmp_path / "log.sqlite").append(old.iloc[:1])
    assert log.append(numbered("new", 1, 2))["event_id"].tolist() == ["new-2"]


def test_a_time_to_come_is_no_limit(tmp_path):
    log = FeedbackLog(tmp_path / "log.sqlite")
    with pytest.raises(InputError, match=r"compact: 2061.* is still to come"):
        log.compact(pd.Timestamp("2061-01-01"))
    assert len(log.append(numbered("new", 1))) == 1


def test_no_byte_of_a_forgotten_user_stays(tmp_path):
    log = FeedbackLog(tmp_path / "log.sqlite")
    log.append(pd.concat([numbered("alice-of-main-street", 50), numbered("bob", 50)]))
    assert log.forget(["alice-of-main-street"]) == 50
    assert log.forgotten() == ["alice-of-main-street"]
    log.all_forgotten()
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"alice" not in held
    assert b"bob" in held
    assert log.users() == ["bob"]
    assert len(log.read()) == 50


def test_a_log_of_the_first_format_goes_on(tmp_path):
    with closing(sqlite3.connect(tmp_path / "log.sqlite")) as old:
        old.execute(EVENTS)
        old.execute("INSERT INTO events VALUES (7, 'a', 1, 'i1', 'click', NULL, 5)")
        old.commit()
    log = FeedbackLog(tmp_path / "log.sqlite")
    again = as_logged(events(("a", 1, "i1", "click"), datetime=pd.Timestamp(5, unit="us")))
    assert log.append(again).empty
    log.append(numbered("new", 1))
    assert log.read()["event_id"].tolist() == ["a", "new-0"]
