"""A full disk or a read-only one leaves the engine that was there, which goes on to serve."""

import pandas as pd
import pytest
import tiny_engine
from tests_support import file_limit
from tiny_engine import answers, assert_same, events

import ranker
from encoders.errors import ArtifactError
from ranker.persistence import LOG

ALL = tiny_engine.N_ITEMS


@pytest.mark.parametrize("size", [600, 5_000, 20_000, 100_000, 160_000])
def test_a_disk_that_fills_up_leaves_the_engine_that_was_there(engine, model, size):
    before = answers(engine)
    with pytest.raises(ArtifactError, match=r"not saved \(the disk is full\)") as caught, file_limit(size):
        engine.save(model)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in model.iterdir() if not path.name.startswith(LOG)) == ["CURRENT", "v0001"]
    assert_same(before, answers(engine))
    assert_same(before, answers(ranker.load(model)))


def test_a_log_that_the_disk_refuses_records_nothing_and_takes_it_later(engine, model):
    before = engine.recommend([100], ALL)
    batch = events(*[(f"event {n}", 100, f"i{n % ALL}", "like") for n in range(3000)])
    refused = pytest.raises(ArtifactError, match=r"feedback\.sqlite: the feedback was not recorded \(")
    with refused as caught, file_limit(50_000):
        engine.feedback(batch)
    assert "\n" not in str(caught.value)
    pd.testing.assert_frame_equal(engine.recommend([100], ALL), before)
    assert engine.feedback(batch) == 3000
    assert len(ranker.load(model).log) == 3000


def test_an_engine_on_a_read_only_mount_serves_and_refuses_feedback(engine, model, read_only, tmp_path):
    engine.feedback(events(("e1", 7, "i1", "like")))
    before = answers(engine)
    with read_only(model) as folder:
        served = ranker.load(folder)
        assert_same(before, answers(served))
        with pytest.raises(ArtifactError, match=r"feedback\.sqlite: cannot be written, so the feedback was not"):
            served.feedback(events(("e2", 7, "i2", "like")))
        with pytest.raises(ArtifactError, match="not saved"):
            served.save(folder)
        assert_same(before, answers(served))
    served.save(tmp_path / "writable")
    assert served.feedback(events(("e2", 7, "i2", "like"))) == 1
    assert ranker.load(tmp_path / "writable").log.read()["event_id"].tolist() == ["e1", "e2"]
