"""Feedback stays in the folder that it was given to, whichever engine is saved there next."""

import logging

import pandas as pd
import pytest
import tiny_engine
from tiny_engine import answers, assert_same, events, small_fit

import ranker
from encoders.errors import InputError
from ranker.feedback import IN_MEMORY, FeedbackLog
from ranker.persistence import LOG, erase

ALL = tiny_engine.N_ITEMS


def test_feedback_after_loading_shows_in_an_engine_loaded_later(engine, model):
    engine.feedback(events(("e1", 100, "i1", "like"), ("e2", 7, "i2", "hide")))
    assert_same(answers(engine), answers(ranker.load(model)))


def test_feedback_outlives_a_new_version(engine, model, fitted):
    engine.feedback(events(("e1", 7, "i1", "like")))
    before = engine.recommend([7], ALL)
    engine.save(model)
    pd.testing.assert_frame_equal(ranker.load(model).recommend([7], ALL), before)


def test_who_was_forgotten_is_in_no_log_and_no_version_that_is_saved_later(checkpoint, tmp_path):
    engine = small_fit(checkpoint, tiny_engine.items(), tiny_engine.interactions())
    engine.feedback(events(("e1", 100, "i1", "like"), ("e2", 101, "i2", "like")))
    engine.forget([100])
    engine.feedback(events(("e3", 100, "i3", "like")))  # and comes back
    engine.save(tmp_path / "new")
    for one in (engine, ranker.load(tmp_path / "new")):
        assert one.users.histories([100]).lengths.tolist() == [1]
        assert one.users.histories([101]).lengths[0] > 0
        assert set(one.log.read()["event_id"]) == {"e2", "e3"}


def test_who_was_erased_by_another_process_is_known_to_none_that_asked_nothing_meanwhile(engine, model, tmp_path):
    other = ranker.load(model)
    assert engine.users.histories([100]).lengths[0] > 0
    assert erase(other, model, [100]) == 0
    assert other.log.forgotten() == []
    for one in (engine, other, ranker.load(model)):
        assert one.users.histories([100]).lengths.tolist() == [0]
        assert one.users.histories([101]).lengths[0] > 0
    engine.save(tmp_path / "copy")
    assert 100 not in ranker.load(tmp_path / "copy").users.ids


def test_an_older_log_is_kept_and_taken_in_by_a_new_engine(checkpoint, engine, model):
    engine.feedback(events(("old", 7, "i1", "like")))
    new = small_fit(checkpoint, tiny_engine.items(), tiny_engine.interactions())
    new.feedback(events(("newer", 8, "i2", "like")))
    new.save(model)
    loaded = ranker.load(model)
    assert loaded.log.read()["event_id"].tolist() == ["old", "newer"]
    assert_same(answers(new), answers(loaded))
    assert "i1" not in set(new.recommend([7], ALL)["item_id"])


def test_items_that_left_the_catalogue_are_passed_over_with_a_warning(checkpoint, engine, model, caplog):
    engine.feedback(events(("gone", 7, "i0", "like"), ("kept", 7, "i1", "like"), ("gone too", 8, "i0", "hide")))
    items = tiny_engine.items().iloc[1:]
    log = tiny_engine.interactions()
    new = small_fit(checkpoint, items, log[log["item_id"] != "i0"])
    new.save(model)
    loaded = ranker.load(model)
    with caplog.at_level(logging.WARNING):
        loaded.recommend([7, 8])
    warnings = [record.getMessage() for record in caplog.records if record.name == "ranker.users"]
    start = f"{model / LOG}: 1 of "
    assert [warning.removeprefix(start) for warning in warnings] == [
        "2 new events of user 7 are on items that this engine does not know; they are passed over.",
        "1 new events of user 8 are on items that this engine does not know; they are passed over.",
    ]
    assert len(loaded.log) == 3
    assert set(loaded.users.ids) == {*tiny_engine.interactions()["user_id"], 7, 8}
    assert_same(answers(new), answers(loaded))


def test_users_of_another_kind_are_passed_over_with_a_warning(checkpoint, engine, model, caplog):
    engine.feedback(events(("old", 7, "i1", "like")))
    named = tiny_engine.interactions().assign(user_id=lambda log: "u" + log["user_id"].astype(str))
    new = small_fit(checkpoint, tiny_engine.items(), named)
    new.save(model)
    loaded = ranker.load(model)
    assert 7 not in loaded.users.ids
    assert "tells of 1 users of 1 whose ids are no strings" in caplog.text
    assert len(loaded.log) == 1
    assert loaded.feedback(events(("new", "somebody", "i1", "like"))) == 1


def test_a_log_with_the_same_id_for_another_event_is_refused_before_anything_is_written(checkpoint, engine, model):
    engine.feedback(events(("e1", 7, "i1", "like")))
    new = small_fit(checkpoint, tiny_engine.items(), tiny_engine.interactions())
    new.feedback(events(("e1", 8, "i2", "like")))
    with pytest.raises(InputError, match="'e1' is in the log already with different content"):
        new.save(model)
    assert sorted(path.name for path in model.glob("v*")) == ["v0001"]
    assert_same(answers(engine), answers(ranker.load(model)))
    assert new.log.read()["user_id"].tolist() == [8]


def test_a_log_that_keeps_none_so_old_is_told_before_anything_is_written(checkpoint, engine, model):
    engine.log.compact(pd.Timestamp("2024-08-01"))
    new = small_fit(checkpoint, tiny_engine.items(), tiny_engine.interactions())
    new.feedback(events(("e1", 8, "i2", "like"), datetime="2024-07-01"))
    with pytest.raises(InputError, match="the log keeps events from 2024-08-01"):
        new.save(model)
    assert sorted(path.name for path in model.glob("v*")) == ["v0001"]
    assert new.log.path == IN_MEMORY


def test_what_a_log_refuses_it_refuses_in_another_folder(engine, model, tmp_path):
    other = ranker.load(model)
    other.save(tmp_path / "there")
    other.feedback(events(("there", 8, "i2", "like"), datetime="2024-07-01"))
    engine.log.compact(pd.Timestamp("2024-08-01"))
    for folder in (tmp_path / "there", tmp_path / "copy"):
        engine.save(folder)
        assert engine.log.read()["event_id"].tolist() == ["there"]
        with pytest.raises(InputError, match="the log keeps events from 2024-08-01"):
            engine.feedback(events(("e1", 8, "i2", "like"), datetime="2024-07-01"))


def test_a_sites_own_store_stays_its_store(model, tmp_path):
    class Store:
        """Another kind of store."""

        def __init__(self, log):
            self._log = log

        def __getattr__(self, name):
            return getattr(self._log, name)

        def __len__(self):
            return len(self._log)

    theirs = Store(FeedbackLog(tmp_path / "theirs.sqlite"))
    engine = ranker.load(model, theirs)
    engine.save(tmp_path / "copy")
    assert engine.log is theirs
    assert not (tmp_path / "copy" / LOG).exists()
