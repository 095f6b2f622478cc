"""`evaluate`, `backtest` and `export`: figures as the library computes them."""

from pathlib import Path

import pandas as pd
import pytest
from small_site import N_USERS, Run, Shelf, files_below

from ranker import Engine, EngineConfig, fit, load
from ranker.data import read_interactions, read_items
from ranker.evaluation import global_temporal, leave_one_out, read_per_user, replay
from ranker.evaluation.evaluate import evaluate


@pytest.fixture
def test_file(tmp_path: Path) -> Path:
    rows = [(user, 1 + (user * 7 + step) % 30) for user in range(1, N_USERS + 1) for step in range(2)]
    path = tmp_path / "test.csv"
    pd.DataFrame(rows, columns=["user_id", "item_id"]).to_csv(path, index=False)
    return path


def test_evaluate_prints_the_librarys_figures(model: Path, engine: Engine, test_file: Path, ranker: Run) -> None:
    told = ranker("evaluate", model, test_file, "--cutoffs", "10,20", "--json").json
    expected = evaluate(engine, pd.read_csv(test_file), cutoffs=(10, 20), seed=engine.config.seed)
    summary = pd.DataFrame(told["summary"]).set_index("metric").T
    pd.testing.assert_frame_equal(summary, expected.summary, check_names=False)
    interval, effect = expected.interval("engine"), expected.difference()
    assert told["engine"]["users"] == interval.n_users
    assert told["engine"]["ndcg@10"] == {
        "mean": interval.mean, "low": interval.low, "high": interval.high,
        "confidence": 0.95, "n_users": interval.n_users,
    }  # fmt: skip
    assert told["engine"]["effect_of_the_cross_encoder"]["difference"] == effect.difference
    shown = ranker("evaluate", model, test_file, "--cutoffs", "10,20").out
    assert str(interval) in shown
    assert str(effect) in shown


def test_evaluate_writes_every_users_metrics(
    model: Path, engine: Engine, test_file: Path, tmp_path: Path, ranker: Run
) -> None:
    out = tmp_path / "per_user.parquet"
    assert ranker("evaluate", model, test_file, "--out", out).code == 0
    written = read_per_user(out)
    assert (written.split, written.cutoffs) == ("the events of test.csv", (5, 10, 20))
    expected = evaluate(engine, pd.read_csv(test_file)).per_user
    assert list(written.per_user) == list(expected)
    for system, table in expected.items():
        pd.testing.assert_frame_equal(written.per_user[system], table, check_like=True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--cutoffs", "5,ten"], ["5,10,20"]),
        (["--cutoffs", "5,20"], ["10"]),
        (["--cutoffs", "10,10"], ["[10, 10]"]),
        (["--out", "per_user.csv"], [".parquet"]),
    ],
)
def test_evaluate_refuses_in_one_line(
    words: list[str], told: list[str], model: Path, test_file: Path, ranker: Run
) -> None:
    before = files_below(model.parent)
    ranker("evaluate", model, test_file, *words).refused(*told)
    assert files_below(model.parent) == before


def test_evaluate_looks_for_nothing_of_weight_0_and_reads_times_of_any_unit(
    model: Path, test_file: Path, tmp_path: Path, ranker: Run
) -> None:
    events = pd.read_csv(test_file)
    expected = ranker("evaluate", model, test_file, "--json").json
    more = pd.concat([events.assign(weight=1), events.assign(weight=0, item_id=events["item_id"] % 30 + 1)])
    more = more.assign(datetime=[1_700_000_000_000 + place for place in range(len(more))])
    more.to_csv(tmp_path / "ms.csv", index=False)
    found = ranker("evaluate", model, tmp_path / "ms.csv", "--time-unit", "ms", "--json").json
    assert found["summary"] == expected["summary"]


def test_cutoffs_are_checked_before_a_fit(shelf: Shelf, ranker: Run) -> None:
    done = ranker("backtest", shelf.interactions, shelf.items, "--config", shelf.config, "--cutoffs", "5")
    done.refused("cutoffs are (5,)")
    assert "Reading" not in done.err


def test_evaluate_refuses_the_log_that_the_engine_was_fitted_on(model: Path, shelf: Shelf, ranker: Run) -> None:
    ranker("evaluate", model, shelf.interactions).refused("fitted on the test's own events")


def test_backtest_fits_on_the_earlier_events_and_measures_on_the_later(
    shelf: Shelf, tmp_path: Path, ranker: Run
) -> None:
    done = ranker(
        "backtest", shelf.interactions, shelf.items, "--config", shelf.config, "--fast",
        "--split", "leave-one-out", "--out", tmp_path / "per_user.parquet", "--json",
    )  # fmt: skip
    assert done.code == 0
    log, _ = read_interactions(shelf.interactions)
    parts = leave_one_out(log)
    assert f"Fitting on {len(parts.train)} events, measuring on {len(parts.test)} later ones." in done.err
    assert done.json["engine"]["users"] == parts.test["user_id"].nunique()
    assert "effect_of_the_cross_encoder" not in done.json["engine"]  # there is none
    written = read_per_user(tmp_path / "per_user.parquet")
    assert written.split == f"leave-one-out, holdout 1, of {shelf.interactions.name}"
    engine_rows = written.per_user["engine"]
    assert engine_rows["ndcg@10"].mean() == pytest.approx(done.json["engine"]["ndcg@10"]["mean"])


def test_backtest_replays_events_and_judges_those_of_some_weight(shelf: Shelf, ranker: Run, tmp_path: Path) -> None:
    out = tmp_path / "replayed.parquet"
    told = ranker(
        "backtest", shelf.interactions, shelf.items, "--config", shelf.config, "--fast", "--split", "prequential",
        "--test-fraction", 0.3, "--least-weight", 2, "--json", "--out", out,
    ).json  # fmt: skip
    log, _ = read_interactions(shelf.interactions)
    tree = EngineConfig.from_yaml(shelf.config).to_dict()
    settings = EngineConfig.from_dict({**tree, "rerank": {**tree["rerank"], "enabled": False}})
    parts = global_temporal(log, 0.3)
    engine = fit(parts.train, read_items(shelf.items)[0], settings, progress=False)
    expected = replay(engine, parts.test, relevant=parts.test["weight"] >= 2, seed=settings.seed)
    engine.log.close()
    assert told["engine"]["users"] == len(expected.per_user["engine"])
    summary = pd.DataFrame(told["summary"]).set_index("metric").T
    pd.testing.assert_frame_equal(summary, expected.summary, check_names=False)
    assert read_per_user(out).split.startswith("prequential, test fraction 0.3, of weight 2 or more")


def test_backtest_reads_lesser_weights_as_no_sign_of_liking(shelf: Shelf, ranker: Run) -> None:
    told = ranker(
        "backtest", shelf.interactions, shelf.items, "--config", shelf.config, "--fast", "--split", "prequential",
        "--test-fraction", 0.3, "--liked-from", 2, "--json",
    )  # fmt: skip
    log, _ = read_interactions(shelf.interactions, liked_from=2)
    assert 0 < (log["weight"] == 0).sum() < len(log)
    assert f"no sign of liking (weight 0): {(log['weight'] == 0).sum()}" in told.err
    tree = EngineConfig.from_yaml(shelf.config).to_dict()
    settings = EngineConfig.from_dict({**tree, "rerank": {**tree["rerank"], "enabled": False}})
    parts = global_temporal(log, 0.3)
    engine = fit(parts.train, read_items(shelf.items)[0], settings, progress=False)
    expected = replay(engine, parts.test, seed=settings.seed)
    engine.log.close()
    summary = pd.DataFrame(told.json["summary"]).set_index("metric").T
    pd.testing.assert_frame_equal(summary, expected.summary, check_names=False)


def test_backtest_cuts_at_one_instant_unless_told_otherwise(shelf: Shelf, ranker: Run) -> None:
    done = ranker(
        "backtest", shelf.interactions, shelf.items, "--config", shelf.config, "--fast", "--test-fraction", 0.3
    )
    assert done.code == 0
    assert "ndcg@10" in done.out
    ranker("backtest", shelf.interactions, shelf.items, "--config", shelf.config, "--test-fraction", 2).refused("2.0")


def test_export_makes_a_new_version_that_serves_from_onnx(model: Path, ranker: Run) -> None:
    told = ranker("export", model, "--precision", "fp32", "--tolerance", "0.5", "--json")
    assert told.code == 0
    assert told.json["chosen"] == {"encoder": "fp32", "cross_encoder": "fp32"}
    assert {(row["part"], row["passed"]) for row in told.json["gates"]} == {("encoder", True), ("cross_encoder", True)}
    facts = ranker("info", model, "--json").json
    assert facts["version"]["serving"] == "v0002"
    assert facts["engine"]["encoder"] == {"kind": "onnx", "precision": "fp32", "provider": "CPUExecutionProvider"}
    exported = load(model)
    assert (exported.config.export.precisions, exported.config.export.tolerance) == (("fp32",), 0.5)
    exported.log.close()
    assert ranker("recommend", model, "1").code == 0
    ranker("export", model, "--precision", "int8").refused("serves from ONNX already", "export.precisions")
    assert ranker("export", model, "--json").json["chosen"] == told.json["chosen"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--precision", "int9"], ["precisions", "int9"]),
        (["--tolerance", "1.5"], ["tolerance", "1.5"]),
    ],
)
def test_export_refuses_in_one_line_and_writes_nothing(
    words: list[str], told: list[str], model: Path, ranker: Run
) -> None:
    before = files_below(model)
    ranker("export", model, *words).refused(*told)
    assert files_below(model) == before
