"""Learned weights on disk: what gained survives a restart, and every kept version can serve again."""

import shutil
import time

import numpy as np
import pandas as pd
import pytest
import torch
from test_learner import FAST, run, same, told, weights
from tiny_engine import interactions, items, small_fit

import ranker
from encoders.errors import ArtifactError, InputError
from ranker.learning.background import BackgroundLearner
from ranker.learning.config import LearningConfig
from ranker.learning.learner import Learner, resumed
from ranker.learning.versions import FOLDER


def taught(engine):
    """Have an engine learn several versions; the learner."""
    learner = Learner(engine, LearningConfig(**FAST), after=0)
    told(engine, 2500, like=3)
    assert run(learner).count("promoted") >= 2
    return learner


@pytest.fixture(scope="module")
def taught_folder(split_saved, tmp_path_factory):
    """Of a saved engine that has learned several versions since; no test may write to it."""
    engine = ranker.load(shutil.copytree(split_saved, tmp_path_factory.mktemp("taught") / "model"))
    taught(engine)
    engine.log.close()
    return engine.folder


@pytest.fixture
def learned_engine(taught_folder, tmp_path):
    """Such an engine of the test's own, loaded."""
    return ranker.load(shutil.copytree(taught_folder, tmp_path / "model"))


def answers(engine):
    return engine.recommend([100, 101, 1005], 20)


def test_what_was_promoted_serves_after_a_restart(split_engine):
    engine, learner = split_engine, taught(split_engine)
    again = ranker.load(engine.folder)
    assert same(weights(again), weights(engine))
    assert again.version == engine.version
    assert again.version.startswith("v0001+v")
    pd.testing.assert_frame_equal(answers(again), answers(engine))
    facts = again.status()["learned_versions"][again.version.split("+")[1]]
    assert (facts["base"], facts["why"]) == ("v0001", "promoted")
    assert facts["gain"] > 0
    assert facts["offset"] <= learner.offset
    again.recommend([100], 3, list_ids="a")
    assert set(again.log.read()["version"].dropna()) == {engine.version}


def test_every_kept_version_can_serve_again(split_engine):
    engine, learner = split_engine, taught(split_engine)
    known = list(engine.status()["learned_versions"])
    assert len(known) <= LearningConfig().kept_versions
    newest = weights(engine)
    engine.rollback(known[0])
    older = weights(engine)
    assert not same(older, newest)
    assert engine.version == f"v0001+{known[0]}"
    assert same(weights(ranker.load(engine.folder)), older)
    engine.rollback("saved")
    assert same(weights(engine), engine.reranker.joint.saved)
    assert same(weights(ranker.load(engine.folder)), engine.reranker.joint.saved)
    told(engine, 64, like=3, seed=1)
    learner.step()
    assert learner.trial.lists <= 64  # it goes on from what serves now
    assert same(learner._frozen.weights, engine.reranker.joint.saved)


def test_what_another_process_learned_or_returned_to_serves_once_it_is_asked_for(learned_engine):
    engine = learned_engine
    other = ranker.load(engine.folder)
    assert not other.refresh()  # it was loaded with the newest
    engine.rollback("saved")
    assert not same(weights(other), weights(engine))
    assert other.refresh()
    assert same(weights(other), weights(engine))
    assert other.version == engine.version
    assert not other.refresh()
    learned = next(name for name, facts in engine.status()["learned_versions"].items() if facts["why"] == "promoted")
    other.rollback(learned)
    assert engine.refresh()
    pd.testing.assert_frame_equal(answers(engine), answers(other))


def test_a_damaged_learned_version_is_refused_and_what_serves_goes_on(learned_engine):
    engine = learned_engine
    other = ranker.load(engine.folder)
    engine.rollback("saved")
    newest = engine.folder / FOLDER / engine.version.split("+")[1]
    (newest / "joint.safetensors").write_bytes(b"nothing")
    before = other.version
    with pytest.raises(ArtifactError, match=r"joint\.safetensors"):
        other.refresh()
    assert other.version == before


def test_a_version_that_is_not_kept_is_refused_and_what_serves_goes_on(learned_engine):
    engine = learned_engine
    before = engine.version
    with pytest.raises(ArtifactError, match="no version 'v0099' of v0001 is kept, only v"):
        engine.rollback("v0099")
    newest = engine.version.split("+")[1]
    path = engine.folder / FOLDER / next(iter(engine.status()["learned_versions"])) / "joint.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match=r"joint\.safetensors: its content differs"):
        engine.rollback(path.parent.name)
    assert engine.version == before
    assert ranker.load(engine.folder).version == f"v0001+{newest}"


def test_a_damaged_version_is_named_at_a_load(learned_engine):
    engine = learned_engine
    path = engine.folder / FOLDER / engine.version.split("+")[1] / "joint.safetensors"
    path.unlink()
    with pytest.raises(ArtifactError, match=r"joint\.safetensors: is missing"):
        ranker.load(engine.folder)


def test_a_save_makes_what_was_learned_the_saved_engine(split_engine):
    engine, learner = split_engine, taught(split_engine)
    learned = weights(engine)
    engine.save(engine.folder)
    again = ranker.load(engine.folder)
    for each in (engine, again):
        assert each.version == "v0002"
        assert same(weights(each), learned)
        assert same(each.reranker.joint.saved, learned)
        assert each.status()["learned_versions"] == {}
    told(engine, 10, seed=3)
    assert learner.step().events == 10  # the learner goes on with the new one
    assert same(learner._frozen.weights, learned)


def test_an_engine_without_learned_versions_says_so(checkpoint):
    engine = small_fit(checkpoint, items(), interactions())
    with pytest.raises(InputError, match="no learned versions"):
        engine.rollback("v0001")
    assert engine.status()["learned_versions"] == {}


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_a_background_learner_takes_what_comes_and_requests_go_on(split_engine):
    threads = torch.get_num_threads()
    with BackgroundLearner(Learner(split_engine, LearningConfig(**FAST)), poll_s=0.01) as background:
        for seed in range(5):
            told(split_engine, 40, like=3, seed=seed)
            assert len(answers(split_engine)) > 0
        assert until(lambda: background.learner.offset == split_engine.log.last_offset())
    assert background.learner.counts["events"] == 200
    assert torch.get_num_threads() == threads
    told(split_engine, 10)
    assert background.learner.offset < split_engine.log.last_offset()


def test_a_failing_step_is_tried_again_and_ends_nothing(split_engine, caplog):
    log = split_engine.log
    with BackgroundLearner(Learner(split_engine, LearningConfig(**FAST)), poll_s=0.01) as background:
        log.close()  # as a disk that goes away
        assert until(lambda: "A learning step failed" in caplog.text)
        split_engine.intake.use_log(type(log)(log.path))
        told(split_engine, 20)
        assert until(lambda: background.learner.counts["events"] == 20)
    assert np.isfinite(answers(split_engine)["score"]).all()


def test_events_on_which_a_step_always_fails_are_passed_over(split_engine, caplog):
    learner = Learner(split_engine, LearningConfig(**FAST))
    learner._model.wide = torch.nn.Linear(1, 1)  # takes no features: every step that learns fails
    with BackgroundLearner(learner, poll_s=0.01):
        told(split_engine, 200)
        assert until(lambda: learner.offset == split_engine.log.last_offset())
    assert "its events are passed over" in caplog.text
    assert len(answers(split_engine)) > 0


def test_a_learner_that_is_started_again_after_a_save_goes_on_where_it_was(learned_engine):
    engine = learned_engine
    seen = max(facts["offset"] for facts in engine.status()["learned_versions"].values())
    assert resumed(engine) == seen
    engine.save(engine.folder)
    assert resumed(ranker.load(engine.folder)) == seen
