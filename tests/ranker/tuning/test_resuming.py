"""A study that is kept goes on as if it had never stopped, and only if it is the same search."""

import logging
import shutil
import sqlite3
from contextlib import closing, contextmanager

import optuna
import pandas as pd
import pytest
import tiny_engine
import tiny_tuning
from tests_support import file_limit
from tiny_tuning import SPACE

from encoders.errors import ArtifactError, InputError
from ranker import EngineConfig
from ranker.evaluation import Backtest
from ranker.tuning import SearchSpace, tune

PRUNED = {"rungs": (0.5, 1)}


@pytest.fixture(scope="module")
def kept(checkpoint, tmp_path_factory):
    """A storage with two trials, which no test may change."""
    path = tmp_path_factory.mktemp("kept") / "study.sqlite"
    tiny_tuning.search(tiny_tuning.space(checkpoint), storage=path)
    return path


@pytest.fixture
def storage(kept, tmp_path):
    return shutil.copy(kept, tmp_path / "study.sqlite")


@contextmanager
def interrupt_at(note, times):
    """Interrupt the process, as Ctrl-C would, when the fit has said this so many times."""
    left = iter(range(times - 1))

    def listen(record):
        if record.getMessage().startswith(note) and next(left, None) is None:
            raise KeyboardInterrupt
        return True

    logger = logging.getLogger("ranker.fitting")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addFilter(listen)
    try:
        yield
    finally:
        logger.removeFilter(listen)
        logger.setLevel(level)


def ended(found):
    table = found.trials[found.trials["state"] != "interrupted"]
    return table.drop(columns=["trial", "seconds"]).reset_index(drop=True)


def fits(caplog):
    return sum(record.getMessage().startswith("Fitting the sources") for record in caplog.records)


def test_an_interrupted_study_goes_on_as_if_it_never_was(checkpoint, tmp_path, tuned):
    storage = tmp_path / "study.sqlite"
    space = tiny_tuning.space(checkpoint)
    for fits in (4, 9):  # the interrupt comes in a second trial's second fit, then in one of a later trial
        with interrupt_at("Fitting the sources", fits), pytest.raises(KeyboardInterrupt):
            tiny_tuning.search(space, storage=storage, trials=28, **PRUNED)
    found = tiny_tuning.search(space, storage=storage, trials=10, **PRUNED)
    pd.testing.assert_frame_equal(ended(found), ended(tuned).head(10))
    assert "pruned" in set(found.trials["state"])
    assert (found.trials["state"] == "interrupted").sum() == 2


def test_the_number_of_trials_is_that_of_the_whole_study(checkpoint, storage, caplog):
    caplog.set_level(logging.INFO, "ranker")
    space = tiny_tuning.space(checkpoint)
    assert len(tiny_tuning.search(space, storage=storage, trials=3).trials) == 3
    assert fits(caplog) == 1
    caplog.clear()
    again = tiny_tuning.search(space, storage=storage, trials=2)  # fewer than there are: nothing is left to do
    assert (len(again.trials), fits(caplog)) == (3, 0)
    assert len(tiny_tuning.search(space, storage=storage, study="another", trials=1).trials) == 1


def test_a_trial_whose_process_was_killed_is_made_again(checkpoint, storage):
    study = optuna.load_study(study_name="tune", storage=f"sqlite:///{storage}")
    tiny_tuning.space(checkpoint).draw(study.ask())  # and nothing more is ever heard of it
    found = tiny_tuning.search(tiny_tuning.space(checkpoint), storage=storage, trials=3)
    assert found.trials["state"].tolist() == ["complete", "complete", "interrupted", "complete"]


def test_failed_trials_are_kept_with_their_reason_and_count(checkpoint, tmp_path, caplog):
    caplog.set_level(logging.INFO, "ranker")
    weights = {"choices": [dict.fromkeys(EngineConfig().sources, 1.0), {"als": 1.0}]}
    space = tiny_tuning.space(checkpoint, {"fusion.weights": weights})
    first = tiny_tuning.search(space, trials=5, storage=tmp_path / "study.sqlite")
    caplog.clear()
    again = tiny_tuning.search(space, trials=5, storage=tmp_path / "study.sqlite")
    assert fits(caplog) == 0
    pd.testing.assert_frame_equal(again.trials, first.trials)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"tree": {**SPACE, "als.factors": {"low": 2, "high": 32}}}, "space.als.factors.high = 16, now 32"),
        ({"tree": {**SPACE, "als.alpha": {"low": 0.1, "high": 1.0}}}, "space.als.alpha = null, now "),
        ({"tree": {"sources": SPACE["sources"]}}, "space.als.factors = "),
        ({"settings": {"seed": 1}}, "settings.seed = 0, now 1"),
        ({"backtest": Backtest("leave-one-out", holdout=1)}, "backtest.holdout = 2, now 1"),
        ({"metric": "hr@10"}, 'metric = "ndcg@10", now "hr@10"'),
        ({"rungs": (0.5, 1)}, "rungs = [1], now [0.5, 1]"),
        ({"interactions": tiny_engine.interactions().iloc[1:]}, "data = "),
        ({"interactions": tiny_engine.interactions().assign(weight=2.0)}, "data = "),
        ({"items": tiny_engine.items().assign(text="a film")}, "data = "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_another_search_is_refused_and_leaves_the_study_as_it_was(checkpoint, storage, changes, told):
    before = storage.read_bytes()
    changes = {
        "interactions": tiny_engine.interactions(), "items": tiny_engine.items(), "tree": SPACE, "settings": {},
        "backtest": tiny_tuning.BACKTEST, "rungs": (1,),
    } | changes  # fmt: skip
    space = SearchSpace.from_dict(changes.pop("tree"), tiny_tuning.base(checkpoint, **changes.pop("settings")))
    with pytest.raises(InputError) as caught:
        tune(space=space, storage=storage, progress=False, **changes)
    assert f"the study 'tune' was begun with {told}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert storage.read_bytes() == before


def test_columns_that_no_fit_reads_may_change(checkpoint, storage):
    space = tiny_tuning.space(checkpoint)
    more = tiny_engine.items().assign(year=2000)
    found = tune(
        tiny_engine.interactions(), more, space, backtest=tiny_tuning.BACKTEST, rungs=(1,), trials=2, storage=storage
    )
    assert len(found.trials) == 2


def test_a_study_of_somebody_elses_is_refused(checkpoint, storage):
    optuna.create_study(study_name="mine", storage=f"sqlite:///{storage}").optimize(lambda trial: 1.0, n_trials=1)
    with pytest.raises(InputError, match="ranker tune did not begin the study 'mine'"):
        tiny_tuning.search(tiny_tuning.space(checkpoint), storage=storage, study="mine")


def test_files_that_hold_something_else_are_refused_unchanged(checkpoint, tmp_path):
    other, text = tmp_path / "feedback.sqlite", tmp_path / "study.txt"
    with closing(sqlite3.connect(other)) as file:
        file.execute("CREATE TABLE events (id)")
    text.write_text("no database " * 100)
    for path, error, told in ((other, InputError, "something else"), (text, ArtifactError, "cannot be read as SQLite")):
        before = path.read_bytes()
        with pytest.raises(error, match=told):
            tiny_tuning.search(tiny_tuning.space(checkpoint), storage=path)
        assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "told"), [("", "is no file"), ("no/such", "lies in no folder"), ("a?b", "rename"), ("a%20b", "rename")]
)
def test_a_place_that_cannot_hold_a_study_is_refused(checkpoint, tmp_path, name, told):
    with pytest.raises(InputError, match=told):
        tiny_tuning.search(tiny_tuning.space(checkpoint), storage=tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_odd_names_of_files_are_kept_to(checkpoint, tmp_path):
    path = tmp_path / "a b#c&d.sqlite"
    tiny_tuning.search(tiny_tuning.space(checkpoint), storage=path, trials=1)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_full_disk_is_told_and_what_was_kept_stays(checkpoint, storage):
    with file_limit(storage.stat().st_size), pytest.raises(ArtifactError, match="cannot be kept there"):
        tiny_tuning.search(tiny_tuning.space(checkpoint), storage=storage, trials=400, study="big")
    assert len(tiny_tuning.search(tiny_tuning.space(checkpoint), storage=storage).trials) == 2
