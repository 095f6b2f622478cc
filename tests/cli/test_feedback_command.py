"""`feedback`: one event from options or many from a file, recorded whole or not at all."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from small_site import NEVER_SEEN, Run

from ranker import load

EVENTS = pd.DataFrame(
    {
        "event_id": ["a", "b", "c"],
        "user_id": [1, 1, 99],
        "item_id": [2, NEVER_SEEN, 4],
        "kind": ["click", "dwell", "hide"],
        "value": [None, 12.5, None],
        "datetime": [1_700_000_000, 1_700_000_060, 1_700_000_120],
    }
)


def logged(model: Path) -> pd.DataFrame:
    engine = load(model)
    events = engine.log.read()
    engine.log.close()
    return events


def write_json_lines(events: pd.DataFrame, path: Path) -> None:
    rows = [{name: value for name, value in row.items() if not pd.isna(value)} for row in events.to_dict("records")]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("suffix", "write"),
    [
        ("csv", lambda events, path: events.to_csv(path, index=False)),
        ("tsv", lambda events, path: events.to_csv(path, index=False, sep="\t")),
        ("parquet", lambda events, path: events.to_parquet(path)),
        ("jsonl", write_json_lines),
    ],
)
def test_every_kind_of_file_records_the_same_events_once(
    suffix: str, write: Callable[[pd.DataFrame, Path], None], model: Path, tmp_path: Path, ranker: Run
) -> None:
    path = tmp_path / f"events.{suffix}"
    write(EVENTS, path)
    assert ranker("feedback", model, path, "--json").json == {"recorded": {"events": 3, "new": 3, "in_the_log": 3}}
    assert ranker("feedback", model, path, "--json").json == {"recorded": {"events": 3, "new": 0, "in_the_log": 3}}
    expected = EVENTS.assign(
        value=EVENTS["value"].astype("float64"),
        datetime=pd.to_datetime(EVENTS["datetime"], unit="s").astype("datetime64[us]"),
    )
    pd.testing.assert_frame_equal(logged(model)[list(EVENTS.columns)], expected)


def test_one_event_from_options_happens_now_and_shows_in_the_next_answer(model: Path, ranker: Run) -> None:
    def recommended() -> set[int]:
        return {row["item_id"] for row in ranker("recommend", model, "1", "-k", "30", "--json").json["recommendations"]}

    assert NEVER_SEEN in recommended()
    one = ("feedback", model, "--user", 1, "--item", NEVER_SEEN, "--kind", "rating", "--value", "4.5")
    before = pd.Timestamp.now("UTC").tz_localize(None)
    assert ranker(*one).code == 0
    assert ranker(*one).code == 0  # another act, not the same one again
    events = logged(model)
    assert events[["user_id", "item_id", "kind", "value"]].to_numpy().tolist() == [[1, NEVER_SEEN, "rating", 4.5]] * 2
    assert events["event_id"].is_unique
    assert events["datetime"].between(before.floor("us"), pd.Timestamp.now("UTC").tz_localize(None)).all()
    assert NEVER_SEEN not in recommended()


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("event_id", "a", ["'a' occurs twice with different content"]),
        ("kind", "clik", ["did you mean 'click'?"]),
        ("item_id", 77, ["77"]),
        ("datetime", "noon", ["datetime", "event id 'b'"]),
        ("user_id", "one", ["one"]),
    ],
)
def test_a_bad_event_keeps_the_whole_file_out(
    column: str, value: object, told: list[str], model: Path, tmp_path: Path, ranker: Run
) -> None:
    events = EVENTS.astype({column: "object"})
    events.loc[1, column] = value
    events.to_csv(tmp_path / "events.csv", index=False)
    ranker("feedback", model, tmp_path / "events.csv").refused(*told)
    assert logged(model).empty


def test_an_event_id_of_the_log_with_other_content_keeps_the_whole_file_out(
    model: Path, tmp_path: Path, ranker: Run
) -> None:
    path = tmp_path / "events.csv"
    EVENTS.iloc[:1].to_csv(path, index=False)
    assert ranker("feedback", model, path).code == 0
    EVENTS.iloc[::-1].replace({"click": "like"}).to_csv(path, index=False)
    ranker("feedback", model, path).refused("'a'", "Nothing was recorded")
    assert logged(model)["event_id"].tolist() == ["a"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"event_id": "a"}\n{"event_id": ', ["line 2 is no JSON"]),
        ('{"event_id": "a"}\n[1]\n', ["line 2 is no JSON object"]),
        ('{"event_id": "a", "user_id": 1}\n', ["no column 'item_id'"]),
        ("\n", ["no rows"]),
    ],
)
def test_json_lines_that_are_no_events_are_refused(
    content: str, told: list[str], model: Path, tmp_path: Path, ranker: Run
) -> None:
    (tmp_path / "events.jsonl").write_text(content, encoding="utf-8")
    ranker("feedback", model, tmp_path / "events.jsonl").refused(*told)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], ["either a file"]),
        (["events.csv", "--user", "1"], ["either a file"]),
        (["--user", "1", "--item", "2"], ["--kind"]),
        (["--user", "1", "--item", "2", "--kind", "dwell"], ["value"]),
        (["--user", "1", "--item", "2", "--kind", "rating", "--value", "nan"], ["value"]),
        (["--user", "one", "--item", "2", "--kind", "click"], ["'one'"]),
        (["none.jsonl"], ["none.jsonl"]),
    ],
)
def test_half_an_event_is_refused(words: list[str], told: list[str], model: Path, ranker: Run) -> None:
    ranker("feedback", model, *words).refused(*told)
    assert logged(model).empty
