"""`log`, `compact` and `forget`: what the log holds, and what leaves it for good."""

from pathlib import Path

import pandas as pd
import pytest
from small_site import Run
from test_feedback_command import EVENTS, logged

from retrieval.ids import IdMap


@pytest.fixture
def told(model: Path, tmp_path: Path, ranker: Run) -> Path:
    """A model whose log holds EVENTS."""
    EVENTS.to_csv(tmp_path / "events.csv", index=False)
    assert ranker("feedback", model, tmp_path / "events.csv").code == 0
    return model


def test_what_log_writes_feedback_reads_back(told: Path, model: Path, tmp_path: Path, ranker: Run) -> None:
    out = tmp_path / "out.parquet"
    written = ranker("log", told, "--out", out, "--json").json["written"]
    assert (written["events"], written["last_offset"]) == (3, 3)
    assert pd.read_parquet(out)["event_id"].tolist() == ["a", "b", "c"]
    assert ranker("feedback", told, out, "--json").json["recorded"] == {"events": 3, "new": 0, "in_the_log": 3}
    assert ranker("log", told, "--out", out, "--after", "2", "--json").json["written"]["events"] == 1
    assert pd.read_parquet(out)["event_id"].tolist() == ["c"]
    ranker("log", told, "--out", tmp_path / "out.csv").refused("out.csv", ".parquet")


def test_an_empty_log_is_a_table_without_rows(model: Path, tmp_path: Path, ranker: Run) -> None:
    out = tmp_path / "out.parquet"
    assert ranker("log", model, "--out", out, "--json").json["written"]["events"] == 0
    assert pd.read_parquet(out).empty


def test_compact_drops_what_is_older(told: Path, tmp_path: Path, ranker: Run) -> None:
    before = pd.Timestamp(EVENTS["datetime"][1], unit="s").isoformat()
    assert ranker("compact", told, "--before", before, "--json").json == {"log": {"dropped": 1, "kept": 2}}
    assert logged(told)["event_id"].tolist() == ["b", "c"]
    ranker("feedback", told, tmp_path / "events.csv").refused("'a'", "the log keeps events from")
    ranker("compact", told, "--before", "soon").refused("'soon'", "is no time")
    ranker("compact", tmp_path / "nowhere", "--before", "2026-01-01").refused("nowhere", "no feedback log")


def test_forget_leaves_no_file_that_tells_of_a_user(told: Path, ranker: Run) -> None:
    assert ranker("recommend", told, "1", "--on-unknown", "raise").code == 0
    done = ranker("forget", told, "1", "99", "--json").json["forgotten"]
    assert (done["users"], done["events"]) == (2, 3)
    assert [path.name for path in told.glob("v*")] == [done["version"]]
    assert logged(told).empty
    users = IdMap.load(told / done["version"] / "users").ids
    assert 1 not in set(users)
    assert 2 in set(users)
    ranker("recommend", told, "1", "--on-unknown", "raise").refused("1 of 1 users are unknown")
    ranker("forget", told, "x").refused("'x'", "integers")
