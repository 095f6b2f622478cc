"""A search on a site where it is known what is good."""

import json
import logging

import numpy as np
import optuna
import pandas as pd
import pytest
import tiny_engine
import tiny_tuning
from tiny_tuning import ABSURD, GOOD

import ranker
from encoders.errors import ConfigError, ExtraError, InputError
from ranker import EngineConfig
from ranker.evaluation import evaluate, leave_one_out
from ranker.tuning import draw, study

LOG = tiny_engine.interactions()


def test_the_sensible_setting_is_found_and_its_value_is_that_of_a_fit_of_ones_own(checkpoint, tuned):
    assert tuned.chosen["sources"] == GOOD
    assert tuned.config == tiny_tuning.space(checkpoint).config(tuned.chosen)
    parts = leave_one_out(LOG, holdout=2)
    engine = ranker.fit(parts.train, tiny_engine.items(), tuned.config, progress=False)
    assert tuned.value == evaluate(engine, parts.test).summary.loc["engine", "ndcg@10"]
    table = tuned.trials.set_index("trial")
    assert tuned.value == table["ndcg@10"].max() == table.loc[tuned.best, "ndcg@10"]
    absurd = table[table["sources"] == json.dumps(ABSURD)]["ndcg@10"]
    assert tuned.value > 1.5 * absurd.max()


def test_a_trial_is_pruned_where_complete_ones_were_better_on_the_same_users(tuned):
    rung = "ndcg@10 at 50%"
    pruned = tuned.trials["state"] == "pruned"
    assert 0 < pruned.sum() < len(tuned.trials)
    for row in tuned.trials.itertuples(index=False):
        before = tuned.trials[(tuned.trials["trial"] < row.trial) & (tuned.trials["state"] == "complete")][rung]
        value = getattr(row, f"_{[*tuned.trials.columns].index(rung)}")
        assert (row.state == "pruned") == (len(before) >= 5 and value < before.median())
    assert tuned.trials.loc[pruned, "ndcg@10"].isna().all()
    assert tuned.trials.loc[~pruned, "ndcg@10"].notna().all()
    assert tuned.trials["seconds"].gt(0).all()


def test_rungs_are_whole_users_each_share_within_the_next():
    parts = leave_one_out(LOG, holdout=2)
    steps = study._steps(parts, (0.1, 0.5, 1), seed=3)
    users = [set(step.train["user_id"]) for step in steps]
    assert [len(some) for some in users] == [4, 20, 40]
    assert users[0] < users[1] < users[2]
    for step, some in zip(steps, users, strict=True):
        pd.testing.assert_frame_equal(step.train, parts.train[parts.train["user_id"].isin(some)])
        pd.testing.assert_frame_equal(step.test, parts.test[parts.test["user_id"].isin(some)])
    assert users[0] != set(study._steps(parts, (0.1, 1), seed=4)[0].train["user_id"])


def test_a_rung_is_a_fit_on_its_users_alone(checkpoint, tuned):
    step = study._steps(leave_one_out(LOG, holdout=2), (0.5, 1), seed=0)[0]
    engine = ranker.fit(step.train, tiny_engine.items(), tuned.config, progress=False)
    measured = evaluate(engine, step.test).summary.loc["engine", "ndcg@10"]
    assert tuned.trials.set_index("trial").loc[tuned.best, "ndcg@10 at 50%"] == measured


def test_what_cannot_matter_does_not(checkpoint):
    tree = {
        "fusion.query_weight": {"low": 0.1, "high": 9.0},
        "sources": tiny_tuning.SPACE["sources"],
    }  # no queries here
    found = tiny_tuning.search(tiny_tuning.space(checkpoint, tree), rungs=(0.25, 1), trials=20)
    assert list(found.importance) == ["sources", "fusion.query_weight"]
    assert found.importance["sources"] > 0.9


def test_importance_is_of_every_setting_and_of_pruned_trials_too(tuned):
    assert set(tuned.importance) == set(tiny_tuning.SPACE)
    assert list(tuned.importance.values()) == sorted(tuned.importance.values(), reverse=True)
    assert sum(tuned.importance.values()) == pytest.approx(1)
    assert (tuned.trials["state"] == "complete").sum() < 20 <= len(tuned.trials)
    assert tuned.settings["setting"].tolist() == list(tiny_tuning.SPACE)
    assert tuned.settings["chosen"].tolist() == list(tuned.chosen.values())
    assert tuned.settings.set_index("setting")["importance"].to_dict() == tuned.importance


def test_the_plot_shows_every_trial_the_best_so_far_and_what_mattered(tuned):
    course, importance = draw(tuned).axes
    complete, pruned = (collection.get_offsets().data for collection in course.collections)
    table = tuned.trials
    ended = table[table["state"] == "complete"]
    np.testing.assert_allclose(complete, ended[["trial", "ndcg@10"]].astype(float))
    np.testing.assert_allclose(pruned, table[table["state"] == "pruned"][["trial", "ndcg@10 at 50%"]].astype(float))
    (best,) = course.lines
    assert best.get_ydata().tolist() == np.maximum.accumulate(ended["ndcg@10"].astype(float)).tolist()
    bars = dict(zip((label.get_text() for label in importance.get_yticklabels()), importance.patches, strict=True))
    assert {name: bar.get_width() for name, bar in bars.items()} == tuned.importance


def test_settings_that_do_not_go_together_fail_their_trial_and_not_the_study(checkpoint):
    alike = dict.fromkeys(EngineConfig().sources, 1.0)
    weights = {"choices": [alike, {"als": 1.0}]}
    found = tiny_tuning.search(tiny_tuning.space(checkpoint, {"fusion.weights": weights}), trials=5)
    failed = found.trials[found.trials["state"] == "failed"]
    assert 0 < len(failed) < len(found.trials) == 5
    assert failed["error"].str.startswith("fusion.weights names als, but the sources are als, transitions, text,").all()
    assert failed["fusion.weights"].unique().tolist() == ['{"als": 1.0}']
    assert found.chosen == {"fusion.weights": alike}
    assert found.importance == {}  # of five trials nothing can be said
    (course,) = draw(found).axes
    assert course.collections[1].get_offsets()[:, 0].tolist() == failed["trial"].tolist()


def test_a_study_whose_every_trial_failed_is_an_error_that_says_why(checkpoint):
    space = tiny_tuning.space(checkpoint, {"fusion.weights": {"choices": [{"als": 1.0}, {"text": 1.0}]}})
    with pytest.raises(ConfigError, match=r"All 3 trials failed; the first with: fusion\.weights names"):
        tiny_tuning.search(space, trials=3)


def test_another_metric_is_maximised(checkpoint):
    found = tiny_tuning.search(tiny_tuning.space(checkpoint), metric="recall@3")
    parts = leave_one_out(LOG, holdout=2)
    engine = ranker.fit(parts.train, tiny_engine.items(), found.config, progress=False)
    assert found.value == evaluate(engine, parts.test, cutoffs=(3, 10)).summary.loc["engine", "recall@3"]
    assert found.value == found.trials["recall@3"].max()


def test_no_trial_is_begun_after_the_time(checkpoint):
    with pytest.raises(ConfigError, match="No trial came to its end before the time was over"):
        tiny_tuning.search(tiny_tuning.space(checkpoint), timeout=0)
    assert len(tiny_tuning.search(tiny_tuning.space(checkpoint), timeout=0.01, trials=500).trials) == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"metric": "ncdg@10"}, r"No metric 'ncdg@10'; did you mean ndcg@10\?"),
        ({"metric": "ndcg"}, "No metric 'ndcg'"),
        ({"metric": "ndcg@0"}, "No metric 'ndcg@0'"),
        ({"metric": "hr@05"}, "No metric 'hr@05'"),
        ({"rungs": ()}, "rungs are none"),
        ({"rungs": (0.5,)}, "rungs are 0.5: .* end with 1"),
        ({"rungs": (0.5, 0.25, 1)}, "growing shares"),
        ({"rungs": (0, 1)}, "growing shares"),
        ({"rungs": (float("nan"), 1)}, "growing shares"),
        ({"trials": 0}, "trials is 0"),
        ({"backtest": ranker.evaluation.Backtest("random")}, "No split 'random'"),
        ({"backtest": ranker.evaluation.Backtest(least_weight=float("nan"))}, "least_weight is nan"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_before_any_fit(checkpoint, options, told, caplog):
    caplog.set_level(logging.INFO, "ranker")
    with pytest.raises(InputError, match=told):
        tiny_tuning.search(tiny_tuning.space(checkpoint), **options)
    assert not caplog.records


@pytest.mark.parametrize("package", ["optuna", "sklearn", "matplotlib"])
def test_a_package_that_is_not_there_is_an_error_with_the_install_command(checkpoint, package, monkeypatch):
    monkeypatch.setattr(study, "find_spec", lambda name: None if name == package else name)  # as if not installed
    with pytest.raises(ExtraError, match=rf'needs {package}.*pip install "hybrid-ranker\[tune\]"'):
        tiny_tuning.search(tiny_tuning.space(checkpoint))


def test_trials_are_told_as_notes_of_the_library_and_optuna_is_silent(checkpoint, caplog, capfd):
    caplog.set_level(logging.INFO, "ranker.tuning")
    before = optuna.logging.get_verbosity()
    found = tiny_tuning.search(tiny_tuning.space(checkpoint))
    told = [record.getMessage() for record in caplog.records if record.name.startswith("ranker.tuning")]
    assert [line[:20] for line in told] == ["Trial 0 (1 of 2): nd", "Trial 1 (2 of 2): nd"]
    assert told[1].endswith(f"The best is {found.value:.4f}, of trial {found.best}.")
    assert "Trial" not in capfd.readouterr().err
    assert optuna.logging.get_verbosity() == before


def test_the_chosen_settings_are_written_whole_and_fit(tuned, tmp_path):
    tuned.config.to_yaml(tmp_path / "tuned.yaml")
    read = EngineConfig.from_yaml(tmp_path / "tuned.yaml")
    assert read == tuned.config
    engine = ranker.fit(LOG, tiny_engine.items(), read, progress=False)
    assert list(engine.retriever.sources) == tuned.chosen["sources"]
