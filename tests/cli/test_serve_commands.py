"""`recommend`, `rank`, `similar`, `candidates` and `info`: what the engine answers, as tables and as JSON."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from small_site import Run, files_below

from ranker import Between, Engine


def titled(found: pd.DataFrame, engine: Engine, column: str = "item_id") -> list[dict[str, Any]]:
    """The rows of an engine's answer with titles, as JSON would have them."""
    titles = dict(zip(engine.catalogue.frame["item_id"], engine.catalogue.titles, strict=True))
    rows = found.assign(title=found[column].map(titles)).astype({"score": "float64"}).to_dict("records")
    return [{name: None if value != value else value for name, value in row.items()} for row in rows]


def test_recommend_prints_the_engines_answer_with_titles(model: Path, engine: Engine, ranker: Run) -> None:
    done = ranker("recommend", model, "3", "1", "-k", "4", "--json")
    assert (done.code, done.err) == (0, "")
    rows = done.json["recommendations"]
    assert rows == titled(engine.recommend([3, 1], 4), engine)
    assert list(rows[0]) == ["user_id", "item_id", "title", "score", "rank", "probability"]
    assert all(0 < row["probability"] < 1 for row in rows)
    table = ranker("recommend", model, "3", "1", "-k", "4")
    assert [line.split() for line in table.out.splitlines() if "Film" in line] == [
        [str(r["user_id"]), str(r["item_id"]), *r["title"].split(), f"{r['score']:.4f}", str(r["rank"]),
         f"{r['probability']:.4f}"] for r in rows
    ]  # fmt: skip


def test_a_probability_that_is_missing_is_null_or_a_dash(model: Path, ranker: Run) -> None:
    words = ["recommend", model, "3", "-k", "4", "--query", "river"]
    assert [row["probability"] for row in ranker(*words, "--json").json["recommendations"]] == [None] * 4
    shown = [line.split() for line in ranker(*words).out.splitlines() if "Film" in line]
    assert [line[-1] for line in shown] == ["–"] * 4


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        (["--where", "year=1993"], {"where": {"year": 1993}}),
        (["--where", "year=1993..1995"], {"where": {"year": Between(1993, 1995)}}),
        (["--where", "year=..1992"], {"where": {"year": Between(None, 1992)}}),
        (["--where", "year=1998.."], {"where": {"year": Between(1998, None)}}),
        (["--where", "year=1993,1996"], {"where": {"year": [1993, 1996]}}),
        (["--where", "genre=Comedy"], {"where": {"genre": "Comedy"}}),
        (["--where", "genre=Drama, odd"], {"where": {"genre": "Drama, odd"}}),  # one value that has a comma
        (["--where", "genre=Comedy,Western"], {"where": {"genre": ["Comedy", "Western"]}}),
        (["--where", "year=1990..", "--where", "genre=Comedy"], {"where": {"year": Between(1990), "genre": "Comedy"}}),
        (["--allow", "2,4,6", "--allow", "8"], {"allow": [2, 4, 6, 8]}),
        (["--deny", "2, 4"], {"deny": [2, 4]}),
        (["--include-seen"], {"exclude_seen": False}),
        (["--query", "river night"], {"query": "river night"}),
    ],
)  # fmt: skip
def test_recommend_passes_every_condition_on(
    words: list[str], meaning: dict[str, Any], model: Path, engine: Engine, ranker: Run
) -> None:
    done = ranker("recommend", model, "5", *words, "--json")
    assert done.code == 0
    assert done.json["recommendations"] == titled(engine.recommend([5], **meaning), engine)


def test_recommend_takes_a_history_in_place_of_what_it_knows(
    model: Path, engine: Engine, tmp_path: Path, ranker: Run
) -> None:
    history = pd.DataFrame({"user_id": ["new", "new", "other"], "item_id": [4, 6, 9]})
    history.to_csv(tmp_path / "history.csv", index=False)
    done = ranker("recommend", model, "--history", tmp_path / "history.csv", "--json")
    assert done.json["recommendations"] == titled(engine.recommend(history=history), engine)
    assert {row["user_id"] for row in done.json["recommendations"]} == {"new", "other"}


def test_users_of_a_history_are_named_as_the_history_names_them(model: Path, tmp_path: Path, ranker: Run) -> None:
    pd.DataFrame({"user_id": ["07", "x"], "item_id": [4, 9]}).to_csv(tmp_path / "history.csv", index=False)
    done = ranker("recommend", model, "x", "07", "-k", "1", "--history", tmp_path / "history.csv", "--json")
    assert [row["user_id"] for row in done.json["recommendations"]] == ["x", "07"]


@pytest.mark.parametrize(
    ("suffix", "read"),
    [("parquet", pd.read_parquet), ("csv", pd.read_csv), ("tsv", lambda p: pd.read_csv(p, sep="\t"))],
)
def test_recommend_writes_a_file(
    suffix: str, read: Callable[[Path], pd.DataFrame], model: Path, engine: Engine, tmp_path: Path, ranker: Run
) -> None:
    out = tmp_path / f"recommended.{suffix}"
    assert ranker("recommend", model, "1", "2", "--out", out, "--json").json == {
        "written": {"file": str(out), "rows": 20}
    }
    written = read(out)
    assert written["title"].tolist() == [row["title"] for row in titled(engine.recommend([1, 2]), engine)]
    assert files_below(tmp_path) == {
        f"recommended.{suffix}",
        *(f for f in files_below(tmp_path) if f.startswith("model")),
    }


def test_recommend_says_when_nothing_is_left(model: Path, ranker: Run) -> None:
    done = ranker("recommend", model, "1", "--where", "genre=Western", "--json")
    assert (done.code, done.json) == (0, {"recommendations": []})
    assert "No item is left" in done.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["999", "--on-unknown", "raise"], ["unknown", "999"]),
        (["nobody", "--on-unknown", "raise"], ["'nobody'"]),
        (["1", "-k", "31"], ["k = 31", "30"]),
        (["1", "-k", "0"], ["k = 0"]),
        (["1", "1"], ["twice"]),
        ([], ["For whom?"]),
        (["1", "--where", "yaer=1993"], ["no column 'yaer'", "'year'"]),
        (["1", "--where", "year"], ["column=value"]),
        (["1", "--where", "year=old"], ["year holds numbers", "'old'"]),
        (["1", "--where", "year=1..2", "--where", "year=3"], ["'year' twice"]),
        (["1", "--allow", "2,77"], ["allow", "77"]),
        (["1", "--query", " "], ["query"]),
        (["1", "--history", "none.csv"], ["none.csv does not exist"]),
        (["1", "--out", "table.xlsx"], ["table.xlsx", ".parquet"]),
        (["1", "--out", "/no/such/folder/table.csv"], ["/no/such/folder"]),
    ],
)
def test_recommend_refuses_in_one_line(words: list[str], told: list[str], model: Path, ranker: Run) -> None:
    before = files_below(model)
    ranker("recommend", model, *words).refused(*told)
    assert files_below(model) == before


def test_rank_orders_given_items(model: Path, engine: Engine, ranker: Run) -> None:
    done = ranker("rank", model, "2", "9", "4", "30", "--json")
    assert done.json["ranking"] == titled(engine.rank(2, [9, 4, 30]), engine)
    ranker("rank", model, "2", "9", "9").refused("pass each item once")
    ranker("rank", model, "2", "77").refused("77")


def test_similar_finds_neighbours(model: Path, engine: Engine, ranker: Run) -> None:
    done = ranker("similar", model, "9", "4", "-k", "3", "--json")
    assert done.json["similar"] == titled(engine.similar_items([9, 4], 3), engine, "similar_item_id")
    ranker("similar", model, "9", "-k", "30").refused("k = 30", "29")


def test_info_describes_the_engine(model: Path, engine: Engine, ranker: Run) -> None:
    told = ranker("info", model, "--json").json
    assert told["version"]["serving"] == "v0001"
    assert told["version"]["libraries"]["torch"]
    assert told["engine"]["sources"] == engine.retriever.weights
    assert told["engine"]["encoder"] == {"kind": "torch", "precision": "float32", "device": "cpu"}
    assert told["engine"]["feedback_events"] == 0
    assert told["engine"]["calibration"] == dataclasses.asdict(engine.calibration)
    size = sum(path.stat().st_size for path in (model / "v0001").rglob("*") if path.is_file())
    size -= (model / "v0001" / "manifest.json").stat().st_size
    assert told["megabytes"]["all of this version"] == pytest.approx(size / 1e6)
    assert told["executions"]["cpu"] == "can be used"
    assert all(told["executions"].values())
    assert "cuda-half-graph" in told["executions"]
    shown = ranker("info", model).out
    assert "validation_ndcg@10" in shown


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("catalogue.parquet", flip_a_byte),
        ("users/items.npy", lambda path: path.write_bytes(path.read_bytes()[:-8])),
        ("fusion.json", Path.unlink),
        ("manifest.json", lambda path: path.write_text("{}", encoding="utf-8")),
    ],
)
def test_a_damaged_engine_is_refused_by_the_name_of_the_file(
    file: str, damage: Callable[[Path], object], model: Path, ranker: Run
) -> None:
    damage(model / "v0001" / file)
    ranker("recommend", model, "1").refused(str(model / "v0001" / file))


def test_a_folder_without_an_engine_is_refused(tmp_path: Path, ranker: Run) -> None:
    ranker("info", tmp_path).refused("no saved engine here")
    assert files_below(tmp_path) == set()
