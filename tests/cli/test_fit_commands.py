"""`data` and `fit`: files in, an engine out, and nothing where a file cannot be used."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml
from small_site import N_ITEMS, N_USERS, NEVER_SEEN, Fitted, Run, Shelf, files_below

from ranker import EngineConfig, load
from ranker.data import check_items_known, read_interactions, read_items


def test_fit_saves_an_engine_of_what_the_files_hold(fitted: Fitted, shelf: Shelf) -> None:
    events = len(pd.read_csv(shelf.interactions))
    told = fitted.result.json
    assert told["engine"]["saved"] == str(fitted.folder / "v0001")
    assert (told["engine"]["users"], told["engine"]["items"], told["engine"]["events"]) == (N_USERS, N_ITEMS, events)
    assert set(told["engine"]["sources"]) == {"als", "transitions", "text", "popularity"}
    assert told["engine"]["training"]["steps"] > 0
    log, log_report = read_interactions(shelf.interactions)
    items, items_report = read_items(shelf.items)
    _, known_report = check_items_known(log, items)
    reports = [log_report, items_report, known_report]
    assert [report["rows_kept"] for report in told["validation"]] == [report.rows_kept for report in reports]
    for report in reports:
        assert str(report) in fitted.result.err
    engine = load(fitted.folder)
    assert engine.config == EngineConfig.from_yaml(shelf.config)
    engine.log.close()


def test_fit_renames_columns_joins_texts_drops_bad_rows_and_overrides_settings(
    shelf: Shelf, tmp_path: Path, ranker: Run
) -> None:
    log = pd.read_csv(shelf.interactions).rename(columns={"user_id": "visitor", "datetime": "when"})
    log["when"] *= 1000
    log.loc[3, "weight"] = float("nan")
    log.to_csv(tmp_path / "log.tsv", sep="\t", index=False)
    items = pd.read_csv(shelf.items).rename(columns={"text": "plot"})
    items.to_parquet(tmp_path / "items.parquet")
    done = ranker(
        "fit", tmp_path / "log.tsv", tmp_path / "items.parquet", "--out", tmp_path / "model", "--config", shelf.config,
        "--columns", "user_id=visitor,datetime=when", "--item-columns", "text=plot+genre", "--time-unit", "ms",
        "--on-bad-rows", "drop", "--fast", "--seed", 5,
    )  # fmt: skip
    assert done.code == 0
    assert "weights that are not finite numbers of at least 0: 1 (row 4" in done.err
    engine = load(tmp_path / "model")
    assert (engine.config.seed, engine.config.rerank.enabled) == (5, False)
    assert engine.catalogue.texts[0] == f"{items['plot'][0]}. {items['genre'][0]}"
    times = engine.users.base.histories.times
    assert len(times) == len(log) - 1
    assert times.max() == pd.read_csv(shelf.interactions)["datetime"].max() * 10**6
    engine.log.close()


def damaged(shelf: Shelf, folder: Path, change: Callable[[pd.DataFrame, pd.DataFrame], None]) -> tuple[Path, Path]:
    log, items = pd.read_csv(shelf.interactions), pd.read_csv(shelf.items)
    change(log, items)
    log.to_csv(folder / "log.csv", index=False)
    items.to_csv(folder / "items.csv", index=False)
    return folder / "log.csv", folder / "items.csv"


def without_column(log: pd.DataFrame, items: pd.DataFrame) -> None:
    log.columns = log.columns.str.replace("user_id", "userid")


def without_text(log: pd.DataFrame, items: pd.DataFrame) -> None:
    items.loc[4, "text"] = None


def with_bad_weight(log: pd.DataFrame, items: pd.DataFrame) -> None:
    log.loc[2, "weight"] = float("nan")


def with_unknown_item(log: pd.DataFrame, items: pd.DataFrame) -> None:
    log.loc[0, "item_id"] = 999


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_column, ["log.csv has no column 'user_id'", "'userid'"]),
        (without_text, ["items.csv", "items without a text: 1 (row 5: 5)"]),
        (with_bad_weight, ["log.csv", "weights that are not finite numbers of at least 0: 1 (row 3"]),
        (with_unknown_item, ["not in the items: 1", "999"]),
    ],
)
def test_a_bad_row_stops_a_fit_before_anything_is_written(
    change: Callable[[pd.DataFrame, pd.DataFrame], None], words: list[str], shelf: Shelf, tmp_path: Path, ranker: Run
) -> None:
    log, items = damaged(shelf, tmp_path, change)
    ranker("fit", log, items, "--out", tmp_path / "model").refused(*words)
    assert files_below(tmp_path) == {"log.csv", "items.csv"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["does not exist"]),
        (b"", ["is empty"]),
        (b"user_id,item_id\0\xff", ["cannot be read as CSV"]),
    ],
)
def test_an_unreadable_file_stops_a_fit(
    content: bytes | None, words: list[str], shelf: Shelf, tmp_path: Path, ranker: Run
) -> None:
    log = tmp_path / "bad.csv"
    if content is not None:
        log.write_bytes(content)
    before = files_below(tmp_path)
    ranker("fit", log, shelf.items, "--out", tmp_path / "model").refused(str(log), *words)
    assert files_below(tmp_path) == before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rerank": {"pair": {"dept": 5}}}, ["'rerank.pair.dept'", "did you mean 'rerank.pair.depth'?"]),
        ({"seed": "soon"}, ["seed", "soon"]),
        ({"checkpoint": "/nowhere/at/all"}, ["/nowhere/at/all"]),
    ],
)
def test_a_wrong_setting_stops_a_fit(
    settings: dict[str, object], words: list[str], shelf: Shelf, tmp_path: Path, ranker: Run
) -> None:
    config = tmp_path / "engine.yaml"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    ranker("fit", shelf.interactions, shelf.items, "--out", tmp_path / "model", "--config", config).refused(*words)
    assert files_below(tmp_path) == {"engine.yaml"}


@pytest.mark.parametrize(
    ("option", "mapping", "words"),
    [
        ("--columns", "user_id", ["'user_id' maps no column"]),
        ("--columns", "user_id=a,user_id=b", ["mapped twice"]),
        ("--columns", "user_id=a+b", ["only the text"]),
        ("--columns", "usr_id=a", ["'usr_id'", "did you mean 'user_id'?"]),
        ("--item-columns", "text=title+plot", ["'plot'"]),
    ],
)
def test_a_wrong_column_mapping_is_refused(
    option: str, mapping: str, words: list[str], shelf: Shelf, tmp_path: Path, ranker: Run
) -> None:
    ranker("fit", shelf.interactions, shelf.items, "--out", tmp_path / "model", option, mapping).refused(*words)
    assert files_below(tmp_path) == set()


def test_a_folder_that_holds_something_else_is_refused_before_the_files_are_read(tmp_path: Path, ranker: Run) -> None:
    (tmp_path / "thesis.txt").write_text("precious", encoding="utf-8")
    ranker("fit", "no.csv", "none.csv", "--out", tmp_path).refused("holds no saved engine")
    assert files_below(tmp_path) == {"thesis.txt"}


def test_data_says_where_the_files_lie(tmp_path: Path, ranker: Run) -> None:
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    # what lies there whole is not fetched again
    pd.DataFrame({"user_id": range(100_000)}).to_parquet(folder / "interactions.parquet")
    pd.DataFrame({"item_id": range(1_682)}).to_parquet(folder / "items.parquet")
    done = ranker("data", "ml-100k", "--folder", tmp_path, "--json")
    assert done.code == 0
    assert done.json == {
        "files": {"interactions": str(folder / "interactions.parquet"), "items": str(folder / "items.parquet")}
    }


def test_fit_learns_from_a_file_of_events_or_from_what_another_engine_was_told(
    shelf: Shelf, model: Path, tmp_path: Path, ranker: Run
) -> None:
    events = pd.DataFrame(
        {
            "event_id": ["a", "b", "c"],
            "user_id": [1, 2, 77],
            "item_id": [NEVER_SEEN, 2, NEVER_SEEN],
            "kind": ["click", "hide", "click"],
            "datetime": 1_700_000_000,
        }
    )
    events.to_csv(tmp_path / "events.csv", index=False)
    assert ranker("feedback", model, tmp_path / "events.csv").code == 0
    for name, source in (("file", tmp_path / "events.csv"), ("engine", model)):
        words = ("fit", shelf.interactions, shelf.items, "--config", shelf.config, "--feedback", source)
        done = ranker(*words, "--out", tmp_path / name, "--json")
        assert done.code == 0
        assert "feedback: 3 of 3 rows kept" in done.err
        assert done.json["engine"]["training"]["of_feedback"] > 0
        engine = load(tmp_path / name)
        assert engine.users.histories([1, 77]).latest(1).items.tolist() == [NEVER_SEEN - 1] * 2
        engine.log.close()


def test_fit_reads_feedback_with_times_of_the_same_unit_and_of_an_engine_that_was_told_nothing(
    shelf: Shelf, model: Path, tmp_path: Path, ranker: Run
) -> None:
    log = pd.read_csv(shelf.interactions)
    log.assign(datetime=log["datetime"] * 1000).to_csv(tmp_path / "log.csv", index=False)
    event = {"event_id": ["a"], "user_id": [1], "item_id": [NEVER_SEEN], "kind": ["click"], "datetime": [1.7e12]}
    pd.DataFrame(event).to_csv(tmp_path / "events.csv", index=False)
    words = ("fit", tmp_path / "log.csv", shelf.items, "--config", shelf.config, "--time-unit", "ms")
    for name, source, newest in (("told", tmp_path / "events.csv", NEVER_SEEN - 1), ("untold", model, None)):
        assert ranker(*words, "--out", tmp_path / name, "--feedback", source).code == 0
        engine = load(tmp_path / name)
        found = engine.users.histories([1]).latest(1).items.tolist()
        assert (found == [newest]) == (newest is not None)
        engine.log.close()


def test_feedback_that_is_nowhere_or_about_other_items_is_refused(shelf: Shelf, tmp_path: Path, ranker: Run) -> None:
    words = ("fit", shelf.interactions, shelf.items, "--config", shelf.config, "--out", tmp_path / "model")
    (tmp_path / "empty").mkdir()
    ranker(*words, "--feedback", tmp_path / "empty").refused("holds no feedback.sqlite")
    pd.DataFrame({"event_id": ["a"], "user_id": [1], "item_id": [999], "kind": ["click"], "datetime": [1]}).to_csv(
        tmp_path / "events.csv", index=False
    )
    ranker(*words, "--feedback", tmp_path / "events.csv").refused("feedback", "not in the items", "row 1: 999")
    (tmp_path / "events.csv").write_text("event_id,user_id\na,1\n", encoding="utf-8")
    ranker(*words, "--feedback", tmp_path / "events.csv").refused("feedback: no column 'item_id'")
    (tmp_path / "events.jsonl").write_text("no json\n", encoding="utf-8")
    ranker(*words, "--feedback", tmp_path / "events.jsonl").refused("events.jsonl: line 1 is no JSON object")
    assert not (tmp_path / "model").exists()


def test_update_adds_and_changes_items_of_a_saved_engine(
    model: Path, shelf: Shelf, tmp_path: Path, ranker: Run
) -> None:
    items = pd.read_csv(shelf.items)
    changed = items.iloc[:2].assign(text="a night in the city")
    came = items.iloc[[0]].assign(item_id=9001, text="robot war story", title="Robots")
    pd.concat([changed, came]).to_csv(tmp_path / "now.csv", index=False)
    done = ranker("--json", "update", model, tmp_path / "now.csv")
    assert done.code == 0, done.err
    assert done.json == {
        "saved": str(model / "v0002"), "items": {"new": 1, "others": 2, "all": N_ITEMS + 1},
    }  # fmt: skip
    engine = load(model)
    assert engine.recommend([1], 1, query="robot war story")["item_id"].tolist() == [9001]
    assert engine.catalogue.texts[:2] == ("a night in the city",) * 2
    engine.log.close()


def test_update_refuses_items_with_other_columns(model: Path, shelf: Shelf, tmp_path: Path, ranker: Run) -> None:
    pd.read_csv(shelf.items).assign(price=1).to_csv(tmp_path / "now.csv", index=False)
    before = files_below(model)
    ranker("update", model, tmp_path / "now.csv").refused("has the column 'price'")
    assert files_below(model) == before
