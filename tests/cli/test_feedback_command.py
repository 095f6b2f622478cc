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


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_events_that_cannot_be_used_can_be_had_back_and_keep_no_others_out(
    suffix: str, model: Path, tmp_path: Path, ranker: Run
) -> None:
    more = EVENTS.assign(event_id=["d", "e", "f"], item_id=[2, 77, 4], kind=["click", "like", "clik"])
    late = EVENTS[:1].assign(event_id=["g"], datetime=[4_000_000_000])
    events = pd.concat([EVENTS, more, late], ignore_index=True)
    path, refused = tmp_path / f"events.{suffix}", tmp_path / "refused.jsonl"
    if suffix == "jsonl":
        write_json_lines(events, path)
        path.write_text('{"event_id": \n' + path.read_text(encoding="utf-8"), encoding="utf-8")
    else:
        events.to_csv(path, index=False) if suffix == "csv" else events.to_parquet(path)
    broken = 1 if suffix == "jsonl" else 0
    told = ranker("feedback", model, path, "--refused", refused, "--json").json["recorded"]
    assert told == {"events": 7, "new": 4, "refused": 3 + broken, "in_the_log": 4}
    assert logged(model)["event_id"].tolist() == ["a", "b", "c", "d"]
    back = [json.loads(line) for line in refused.read_text(encoding="utf-8").splitlines()]
    assert ["no JSON object" in line["why"] for line in back][:broken] == [True] * broken
    lines = [json.loads(line["refused"]) for line in back[broken:]]
    assert [(line["event_id"], line["item_id"], line["kind"]) for line in lines] == [
        ("e", 77, "like"), ("f", 4, "clik"), ("g", 2, "click"),
    ]  # fmt: skip
    assert [line["datetime"] for line in lines] == [1_700_000_060, 1_700_000_120, 4_000_000_000]
    assert "77" in back[broken]["why"]
    assert "did you mean 'click'?" in back[broken + 1]["why"]
    assert "ahead" in back[broken + 2]["why"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("odd", ["one", None, "\u2028"])
def test_a_user_that_is_none_changes_no_other_events_ids(
    suffix: str, odd: str | None, model: Path, tmp_path: Path, ranker: Run
) -> None:
    events = EVENTS.astype({"user_id": "object"})
    events.loc[1, "user_id"] = odd
    path, refused = tmp_path / f"events.{suffix}", tmp_path / "refused.jsonl"
    if suffix == "csv":
        events.to_csv(path, index=False)
    else:
        events.to_json(path, orient="records", lines=True, force_ascii=False)
    told = ranker("feedback", model, path, "--refused", refused, "--json").json["recorded"]
    assert told == {"events": 3, "new": 2, "refused": 1, "in_the_log": 2}
    assert logged(model)["user_id"].tolist() == [1, 99]


def test_what_is_no_text_can_be_had_back(model: Path, tmp_path: Path, ranker: Run) -> None:
    path, refused = tmp_path / "events.jsonl", tmp_path / "refused.jsonl"
    rows = EVENTS[["event_id", "user_id", "item_id", "kind", "datetime"]].assign(kind="click").to_dict("records")
    rows[1]["event_id"] = "\ud800"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    told = ranker("feedback", model, path, "--refused", refused, "--json").json["recorded"]
    assert told == {"events": 3, "new": 2, "refused": 1, "in_the_log": 2}
    (back,) = map(json.loads, refused.read_text(encoding="utf-8").splitlines())
    assert json.loads(back["refused"])["event_id"] == "\ud800"


def test_refused_events_that_have_no_place_to_go_are_told_before_anything_is_recorded(
    model: Path, tmp_path: Path, ranker: Run
) -> None:
    EVENTS.to_csv(tmp_path / "events.csv", index=False)
    ranker("feedback", model, tmp_path / "events.csv", "--refused", tmp_path / "none" / "r.jsonl").refused(
        "none/r.jsonl"
    )
    assert logged(model).empty


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"event_id": "a"}\n{"event_id": ', ["line 2 is no JSON object"]),
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
