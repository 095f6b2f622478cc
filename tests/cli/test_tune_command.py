"""`tune`: from two files and a space to settings that `fit` takes."""

from pathlib import Path

import pandas as pd
import pytest
import yaml
from small_site import Run, Shelf, files_below

from ranker import EngineConfig
from ranker.data import read_interactions, read_items
from ranker.evaluation import Backtest
from ranker.tuning import SearchSpace
from ranker.tuning import tune as search

SPACE = {"sources": {"choices": [["als", "text"], ["popularity"]]}, "als.factors": {"low": 2, "high": 8}}


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(SPACE), encoding="utf-8")
    return path


def test_tune_finds_settings_that_fit_takes(shelf: Shelf, space: Path, tmp_path: Path, ranker: Run) -> None:
    out, storage = tmp_path / "tuned.yaml", tmp_path / "study.sqlite"
    words = [
        "tune", shelf.interactions, shelf.items, "--space", space, "--out", out, "--config", shelf.config, "--fast",
        "--split", "leave-one-out", "--holdout", 2, "--metric", "recall@5", "--rungs", "0.5,1", "--storage", storage,
    ]  # fmt: skip
    first = ranker(*words, "--trials", 3)
    assert first.code == 0
    assert "Trial 2 (3 of 3): recall@5 is 0." in first.err
    assert first.err.count("Fitting the sources on all") == 6  # two rungs each
    told = ranker(*words, "--trials", 9, "--json").json

    log, catalogue = read_interactions(shelf.interactions)[0], read_items(shelf.items)[0]
    tree = EngineConfig.from_yaml(shelf.config).to_dict()
    base = EngineConfig.from_dict({**tree, "rerank": {**tree["rerank"], "enabled": False}})
    expected = search(
        log, catalogue, SearchSpace.from_dict(SPACE, base), backtest=Backtest("leave-one-out", 2), metric="recall@5",
        rungs=(0.5, 1), trials=9, progress=False,
    )  # fmt: skip
    assert EngineConfig.from_yaml(out) == expected.config
    chosen = {row["setting"]: row["chosen"] for row in told["settings"]}
    assert chosen == expected.chosen
    assert told["tuned"]["recall@5"] == expected.value
    assert told["tuned"]["trials"] == expected.trials["state"].value_counts().to_dict()
    table = pd.read_csv(tmp_path / "tuned-trials.csv")
    pd.testing.assert_frame_equal(
        table.drop(columns=["seconds", "error"]),
        expected.trials.drop(columns=["seconds", "error"]),
        check_dtype=False,
        check_like=True,
    )
    assert "</svg>" in (tmp_path / "tuned-trials.svg").read_text(encoding="utf-8")
    assert files_below(tmp_path) == {
        "space.yaml", "study.sqlite", "tuned.yaml", "tuned-trials.csv", "tuned-trials.svg",
    }  # fmt: skip

    fitted = ranker("fit", shelf.interactions, shelf.items, "--out", tmp_path / "model", "--config", out)
    assert fitted.code == 0
    assert ranker("recommend", tmp_path / "model", 1).code == 0


def test_tune_shows_the_chosen_numbers_in_full(shelf: Shelf, tmp_path: Path, ranker: Run) -> None:
    (tmp_path / "space.yaml").write_text("als.alpha: {choices: [0.123456789, 0.123456788]}", encoding="utf-8")
    shown = ranker(
        "tune", shelf.interactions, shelf.items, "--space", tmp_path / "space.yaml", "--out", tmp_path / "tuned.yaml",
        "--config", shelf.config, "--fast", "--trials", 1, "--rungs", 1, "--quiet",
    )  # fmt: skip
    chosen = EngineConfig.from_yaml(tmp_path / "tuned.yaml").als.alpha
    assert f"als.alpha   {chosen}" in shown.out
    assert shown.err == ""


def test_tune_takes_a_seed_and_a_split_of_its_own(shelf: Shelf, space: Path, tmp_path: Path, ranker: Run) -> None:
    done = ranker(
        "tune", shelf.interactions, shelf.items, "--space", space, "--out", tmp_path / "tuned.yaml", "--config",
        shelf.config, "--fast", "--trials", 1, "--rungs", 1, "--split", "prequential", "--test-fraction", 0.3,
        "--least-weight", 2, "--seed", 5,
    )  # fmt: skip
    assert done.code == 0
    assert EngineConfig.from_yaml(tmp_path / "tuned.yaml").seed == 5


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--out", "no/such/tuned.yaml"], ["lies in no folder"]),
        (["--out", "tuned.json"], [".yaml"]),
        (["--metric", "ndgc@10"], ["did you mean ndcg@10?"]),
        (["--rungs", "half,1"], ["0.25,1"]),
        (["--rungs", "0.5"], ["end with 1"]),
        (["--storage", "no/such/study.sqlite"], ["lies in no folder"]),
        (["--config", "none.yaml"], ["none.yaml: cannot be read"]),
        (["--space", "none.yaml"], ["none.yaml: cannot be read"]),
        (["--test-fraction", "2"], ["2.0"]),
    ],
)
def test_tune_refuses_in_one_line_and_writes_nothing(
    words: list[str], told: list[str], shelf: Shelf, space: Path, tmp_path: Path, ranker: Run
) -> None:
    usual = ["--space", space, "--out", tmp_path / "tuned.yaml", "--config", shelf.config, "--fast"]
    ranker("tune", shelf.interactions, shelf.items, *usual, *words).refused(*told)
    assert files_below(tmp_path) == {"space.yaml"}


def test_tune_refuses_an_unknown_setting_before_it_reads_a_table(tmp_path: Path, ranker: Run) -> None:
    (tmp_path / "space.yaml").write_text("als.factor: {low: 2, high: 8}", encoding="utf-8")
    none, out = tmp_path / "none.csv", tmp_path / "tuned.yaml"
    told = ranker("tune", none, none, "--space", tmp_path / "space.yaml", "--out", out)
    told.refused("space.yaml: unknown key 'als.factor'; did you mean 'als.factors'?")
