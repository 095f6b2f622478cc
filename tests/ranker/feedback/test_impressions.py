"""Lists that were shown are in the log before they are returned, and say nothing by themselves."""

import numpy as np
import pandas as pd
import pytest
import tiny_engine
from tiny_engine import events, small_fit

import ranker
from encoders.errors import InputError
from ranker.exploration import ExplorationConfig
from ranker.feedback import IMPRESSION


def test_a_logged_list_holds_what_was_shown_where_and_by_which_version(engine):
    lists = engine.recommend([100, 101], 5, list_ids=["first", "second"])
    pd.testing.assert_frame_equal(lists, engine.recommend([100, 101], 5))
    held = engine.log.read()
    assert held["list_id"].tolist() == ["first"] * 5 + ["second"] * 5
    assert held["event_id"].tolist() == [f"{name}/{place}" for name in ("first", "second") for place in range(1, 6)]
    assert held["user_id"].tolist() == lists["user_id"].tolist()
    assert held["item_id"].tolist() == lists["item_id"].tolist()
    assert held["value"].tolist() == lists["rank"].tolist()
    np.testing.assert_allclose(held["score"], lists["score"])
    assert held["propensity"].isna().all()  # nothing was left to chance
    assert (set(held["kind"]), set(held["version"])) == ({IMPRESSION}, {"v0001"})
    assert abs(held["datetime"] - pd.Timestamp.now("UTC").tz_localize(None)).max() < pd.Timedelta(minutes=1)


def test_an_impression_says_nothing_by_itself(engine):
    before = engine.recommend([100, 7], 30)
    engine.recommend([100, 7], 30, list_ids=["a", "b"])
    pd.testing.assert_frame_equal(engine.recommend([100, 7], 30), before)


def test_feedback_names_the_list_that_it_answers(engine):
    item = engine.recommend([100], 5, list_ids="shown")["item_id"][2]
    engine.feedback(events(("click", 100, item, "click"), list_id="shown", source="web"))
    answered = engine.log.of_lists(["shown"])
    assert [event.kind for event in answered] == [IMPRESSION] * 5 + ["click"]
    assert (answered[-1].item_id, answered[-1].source) == (item, "web")
    assert engine.log.of_lists(["another"]) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"list_ids": ["a"]}, "1 different texts in 1 ids for 2 users"),
        ({"list_ids": ["a", "a"]}, "1 different texts in 2 ids for 2 users"),
        ({"list_ids": ["a", ""]}, "give each list a new text"),
        ({"list_ids": ["a", 5]}, "give each list a new text"),
        ({"list_ids": "a"}, "1 different texts in 1 ids for 2 users"),
        ({"list_ids": "a", "history": tiny_engine.HISTORY, "user_ids": None}, "a given history are not logged"),
    ],
)
def test_ids_that_name_no_list_each_are_refused_and_nothing_is_logged(engine, arguments, message):
    with pytest.raises(InputError, match=message):
        engine.recommend(**({"user_ids": [100, 101]} | arguments))
    assert len(engine.log) == 0


def test_a_list_id_that_was_used_is_refused(engine):
    engine.recommend([100], 5, list_ids="a")
    with pytest.raises(InputError, match="'a/1' is in the log already with different content"):
        engine.recommend([101], 5, list_ids="a")


def test_a_site_may_log_impressions_of_its_own_and_a_wrong_one_is_refused(engine):
    shown = events(("1", 100, "i1", IMPRESSION), ("2", 100, "i2", IMPRESSION)).assign(value=[1, 2], list_id="own")
    assert engine.feedback(shown.assign(propensity=0.5, score=[2.0, 1.0], version="mine")) == 2
    for change, message in (
        ({"list_id": None}, "list_id is missing"),
        ({"value": 0}, "value is no position"),
        ({"value": 1.5}, "value is no position"),
        ({"value": np.nan}, "value is not a finite number"),
        ({"propensity": 0.0}, "propensity is not above 0"),
        ({"propensity": 1.5}, "propensity is not above 0"),
        ({"propensity": "much"}, "propensity is not a finite number"),
        ({"score": np.inf}, "score is not a finite number"),
        ({"kind": "click", "score": 1.0}, "score is given, which only an impression has"),
    ):
        with pytest.raises(InputError, match=message):
            engine.feedback(shown.assign(event_id=["3", "4"], **change))
    assert len(engine.log) == 2


def test_a_time_that_has_not_come_is_refused(engine):
    ahead = pd.Timestamp.now("UTC").tz_localize(None) + pd.Timedelta(days=3650)
    told = events(("a", 100, "i1", "click"), ("b", 100, "i2", "click"), datetime=[tiny_engine.START, ahead])
    with pytest.raises(InputError, match="datetime is more than a day ahead of this machine's clock in 1 of 2 events"):
        engine.feedback(told)
    assert len(engine.log) == 0


def test_exploration_draws_logged_lists_and_keeps_their_propensities(checkpoint):
    hot = ExplorationConfig(temperature=1.0)
    settings = tiny_engine.config(checkpoint, rerank=ranker.config.RerankConfig(enabled=False), exploration=hot)
    engine = ranker.fit(tiny_engine.interactions(), tiny_engine.items(), settings, progress=False)
    plain = engine.recommend([100], 10)
    drawn = engine.recommend([100], 10, list_ids="a")
    assert drawn.columns.tolist() == plain.columns.tolist()
    assert drawn["item_id"].tolist() != plain["item_id"].tolist()
    assert drawn["rank"].tolist() == list(range(1, 11))
    pd.testing.assert_frame_equal(engine.recommend([100], 10), plain)
    held = engine.log.read()
    assert ((held["propensity"] > 0) & (held["propensity"] <= 1)).all()
    again = plain.set_index("item_id").loc[[item for item in drawn["item_id"] if item in set(plain["item_id"])]]
    assert len(again)
    told = drawn.set_index("item_id").loc[again.index]
    pd.testing.assert_frame_equal(told[["score", "probability"]], again[["score", "probability"]])


def test_an_engine_that_no_folder_holds_says_so(checkpoint):
    engine = small_fit(checkpoint, tiny_engine.items(), tiny_engine.interactions())
    engine.recommend([100], 3, list_ids="a")
    assert set(engine.log.read()["version"]) == {"unsaved"}
