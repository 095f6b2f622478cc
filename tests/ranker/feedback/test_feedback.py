"""Feedback shows in the very next answer, and what cannot be used leaves nothing behind."""

import numpy as np
import pandas as pd
import pytest
import tiny_engine
from hypothesis import given
from hypothesis import strategies as st
from tiny_engine import events

import ranker
from encoders.errors import InputError
from ranker.feedback import KINDS, FeedbackPolicy

ALL = tiny_engine.N_ITEMS
LIST = ["click", "cart", "purchase", "like", "dislike", "hide"]  # kinds that need no value and consume the item


def shown(engine, user, k=10, **arguments):
    return engine.recommend([user], k, **arguments)["item_id"].tolist()


def scores(engine, source, user):
    """A source's score of every item, by id."""
    from retrieval.candidates import Requests

    requests = Requests(engine.users.histories([user]), np.ones(ALL, np.bool_), exclude_seen=False)
    return pd.Series(
        engine.retriever.sources[source].score(requests, np.arange(ALL)[None])[0], engine.catalogue.ids.ids
    )


@pytest.mark.parametrize("kind", LIST)
def test_a_consumed_item_is_not_shown_again(engine, kind):
    first = shown(engine, 100)[0]
    assert engine.feedback(events(("e1", 100, first, kind))) == 1
    assert first not in shown(engine, 100, ALL)
    assert first in shown(engine, 101, ALL) or first in set(tiny_engine.interactions().query("user_id == 101").item_id)


def test_a_skipped_item_may_return(engine):
    before = engine.recommend([100], ALL)
    engine.feedback(events(("e1", 100, before["item_id"][0], "skip")))
    pd.testing.assert_frame_equal(engine.recommend([100], ALL), before)


def test_a_click_lifts_what_others_took_with_the_item(engine):
    user, item = 100, "i1"  # of the second taste, and the user is of the first
    alike = [f"i{n}" for n in range(ALL) if tiny_engine.taste(n) == 1 and n != 1]
    others = [f"i{n}" for n in range(ALL) if tiny_engine.taste(n) == 3]
    before = scores(engine, "als", user)
    engine.feedback(events(("e1", user, item, "purchase")))
    gained = scores(engine, "als", user) - before
    assert gained[alike].mean() > gained[others].mean() + 0.1


def test_a_click_lifts_the_nearest_texts(engine):
    vectors = engine.retriever.sources["text"].vectors
    by_distance = engine.catalogue.ids.at(np.argsort(-(vectors @ vectors[1])))
    before = scores(engine, "text", 100)
    engine.feedback(events(("e1", 100, "i1", "purchase")))
    gained = scores(engine, "text", 100) - before
    assert gained["i1"] > 0
    assert gained[by_distance[1:6]].mean() > gained[by_distance[-5:]].mean() + 0.1


def test_the_list_moves_towards_what_was_clicked(engine):
    def of_taste(found):
        return np.mean([tiny_engine.taste(int(item[1:])) == 1 for item in found])

    before = shown(engine, 100)
    clicks = [(f"e{n}", 100, f"i{n}", "purchase") for n in (1, 5, 9, 13)]
    engine.feedback(events(*clicks))
    assert of_taste(shown(engine, 100)) > of_taste(before) + 0.3


@pytest.mark.parametrize("kind", ["dislike", "hide"])
def test_a_negative_event_lifts_nothing(engine, kind):
    before = scores(engine, "als", 100)
    engine.feedback(events(("e1", 100, "i1", kind)))
    pd.testing.assert_series_equal(scores(engine, "als", 100), before)


def test_feedback_of_one_user_changes_nobody_else(engine):
    others = list(range(101, 140))
    before = engine.recommend(others)
    engine.feedback(events(*[(f"e{n}", 100, f"i{n}", "like") for n in range(20)]))
    pd.testing.assert_frame_equal(engine.recommend(others), before)


def test_a_new_user_is_known_from_the_first_event(engine):
    with pytest.raises(InputError, match="1 of 1 users are unknown"):
        engine.recommend([7], on_unknown="raise")
    popular = shown(engine, 7)
    engine.feedback(events(("e1", 7, "i1", "like")))
    found = engine.recommend([7], on_unknown="raise")["item_id"].tolist()
    assert "i1" not in found
    assert found != popular
    assert 7 in engine.users.ids


def test_a_late_event_is_sorted_into_the_history(engine):
    engine.feedback(events(("e1", 100, "i1", "like")))
    late = events(("e2", 100, "i2", "like"), datetime=pd.Timestamp("2000-01-01"))
    engine.feedback(late)
    history = engine.users.histories([100])
    assert engine.catalogue.ids.at(history.items)[[0, -1]].tolist() == ["i2", "i1"]
    assert (np.diff(history.times) >= 0).all()


def test_a_retry_counts_once(engine):
    batch = events(("e1", 100, "i1", "click"), ("e2", 100, "i2", "click"))
    assert engine.feedback(batch) == 2
    once = engine.recommend([100], ALL)
    assert engine.feedback(batch) == 0
    assert engine.feedback(pd.concat([batch, events(("e3", 100, "i3", "skip"))])) == 1
    pd.testing.assert_frame_equal(engine.recommend([100], ALL), once)


def test_an_event_that_is_twice_in_a_batch_counts_once(engine):
    assert engine.feedback(events(("e1", 100, "i1", "click"), ("e1", 100, "i1", "click"))) == 1


CHANGES = {"user_id": 101, "item_id": "i7", "kind": "cart", "value": 2.0, "datetime": pd.Timestamp("2023-05-05")}


@pytest.mark.parametrize("column", CHANGES)
def test_an_id_with_other_content_is_refused_and_nothing_of_its_batch_is_recorded(engine, column):
    engine.feedback(events(("e1", 100, "i1", "click")))
    before = engine.recommend([100, 7], ALL)
    batch = events(("new", 7, "i5", "click"), ("e1", 100, "i1", "click"), ("newer", 7, "i6", "click"))
    batch.loc[1, column] = CHANGES[column]
    with pytest.raises(InputError, match="event id 'e1' is in the log already with different content") as caught:
        engine.feedback(batch)
    assert "\n" not in str(caught.value)
    assert len(engine.log) == 1
    pd.testing.assert_frame_equal(engine.recommend([100, 7], ALL), before)
    assert engine.feedback(events(("new", 7, "i5", "click"))) == 1  # the log is not left in a transaction


@pytest.mark.parametrize("column", CHANGES)
def test_one_id_for_two_events_of_a_batch_is_refused(engine, column):
    batch = events(("e1", 100, "i1", "click"), ("e1", 100, "i1", "click"))
    batch.loc[1, column] = CHANGES[column]
    with pytest.raises(InputError, match="event id 'e1' occurs twice with different content"):
        engine.feedback(batch)
    assert len(engine.log) == 0


ONE = events(("e1", 100, "i1", "click"))
WRONG = {
    "a list": ([{"event_id": "e1"}], "pass a DataFrame .* not a list"),
    "no rows": (ONE[:0], "no rows"),
    "no column": (ONE.drop(columns="kind"), "no column 'kind'; the columns are event_id"),
    "a column twice": (pd.concat([ONE, ONE[["kind"]]], axis=1), "2 times a column 'kind'"),
    "no event id": (ONE.assign(event_id=None), "event_id is missing in 1 of 1 events .first: row 0"),
    "no user": (ONE.assign(user_id=np.nan), "user_id is missing"),
    "no item": (ONE.assign(item_id=None), "item_id is missing"),
    "no kind": (ONE.assign(kind=None), "kind is missing"),
    "a misspelt kind": (ONE.assign(kind="clik"), "kind 'clik' is unknown .did you mean 'click'"),
    "an unheard-of kind": (ONE.assign(kind="zzz"), "kind 'zzz' is unknown .it must be one of click, dwell"),
    "a kind that is no text": (ONE.assign(kind=[["click"]]), "is unknown"),
    "an unknown item": (ONE.assign(item_id="zz"), "item_id: 1 items are not in the catalogue of 60 .first: 'zz'"),
    "an item of another kind": (ONE.assign(item_id=1), "item_id: ids here are strings, but 1 is none"),
    "a user of another kind": (ONE.assign(user_id="100"), "user_id: ids here are integers, but '100' is none"),
    "a fractional user": (ONE.assign(user_id=100.5), "user_id: ids here are integers, but 100.5 is none"),
    "a truth for a user": (ONE.assign(user_id=True), "user_id: ids here are integers, but True is none"),
    "a list for a user": (ONE.assign(user_id=[[1]]), "user_id: ids here are integers, but .1. is none"),
    "a user of more than 64 bits": (ONE.assign(user_id=[2**70]), "64 bits at most"),
    "broken text": (ONE.assign(event_id=pd.Series(["\ud800"], dtype=object)), "no valid text"),
    "a value that is no number": (ONE.assign(value=["much"]), "value is not a finite number"),
    "a negative value": (ONE.assign(value=-1.0), "value is not a finite number of at least 0"),
    "an infinite value": (ONE.assign(value=np.inf), "value is not a finite number"),
    "a dwell without seconds": (ONE.assign(kind="dwell"), "value is not a finite number"),
    "a rating without a value": (ONE.drop(columns="value").assign(kind="rating"), "value is not a finite number"),
    "no time": (ONE.assign(datetime=pd.NaT), "datetime is no time"),
    "an unreadable time": (ONE.assign(datetime="yesterday"), "datetime is no time"),
    "milliseconds": (ONE.assign(datetime=1_700_000_000_000), "datetime is no time between 1678 and 2261"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_used_is_one_line_and_leaves_nothing(engine, case):
    wrong, message = WRONG[case]
    if case not in ("a list", "no rows", "no column", "a column twice"):
        wrong = pd.concat([events(("fine", 100, "i2", "click")).astype(object), wrong.astype(object)])
        message = message.replace("of 1 events", "of 2 events").replace("row 0", "row 1")
    before = engine.recommend([100], ALL)
    with pytest.raises(InputError, match=message) as caught:
        engine.feedback(wrong)
    assert "\n" not in str(caught.value)
    assert len(engine.log) == 0
    pd.testing.assert_frame_equal(engine.recommend([100], ALL), before)
    assert engine.feedback(ONE) == 1


TIME = pd.Timestamp("2024-05-06 07:08:09")


@pytest.mark.parametrize(
    "form",
    [
        TIME,
        TIME.tz_localize("UTC"),
        TIME.tz_localize("UTC").tz_convert("Asia/Tokyo"),
        "2024-05-06T07:08:09",
        "2024-05-06 09:08:09+02:00",
        int(TIME.timestamp()),
        TIME.to_pydatetime(),
        TIME.to_datetime64(),
    ],
    ids=repr,
)
def test_times_are_read_in_every_usual_form(engine, form):
    engine.feedback(ONE.assign(datetime=form))
    engine.feedback(ONE.assign(event_id="e2", datetime=pd.Series([form], dtype=object)))
    assert engine.log.read()["datetime"].tolist() == [TIME, TIME]


def test_times_of_one_batch_may_differ_in_form(engine):
    times = pd.Series(["2024-05-06", "2024-05-06 07:08:09.5", "2024-05-06T07:08Z"])
    engine.feedback(events(*[(f"e{n}", 100, "i1", "skip") for n in range(3)], datetime=times))
    assert engine.log.read()["datetime"].dt.second.tolist() == [0, 9, 0]


def test_columns_of_every_usual_type_say_the_same(engine, model):
    batch = events(("1", 100, "i1", "click"), ("2", 7, "i2", "dwell"), ("3", 101, "i3", "rating"))
    batch["value"] = [np.nan, 20, 5]
    variants = [
        batch,
        batch.astype(dict.fromkeys(["event_id", "item_id", "kind"], "category")),
        batch.astype(object),
        batch.astype({"event_id": "int64", "user_id": "Int64", "value": "Int64", "kind": "object"}),
        batch.assign(value=["", "20", "5.0"]).assign(value=[None, "20", "5.0"]),
        batch.set_axis([5, 5, 5]),  # labels that repeat
        batch.assign(extra="x")[["kind", "extra", "datetime", "value", "item_id", "user_id", "event_id"]],
    ]
    assert engine.feedback(variants[0]) == 3
    for same in variants[1:]:
        assert engine.feedback(same) == 0


def test_the_table_is_left_unchanged(engine):
    batch = pd.concat([events(("e1", 100, "i1", "click")), events(("e2", 7, "i2", "skip"))]).assign(
        datetime=["2024-01-01", "2024-01-02T00:00:00Z"]
    )
    before = batch.copy(deep=True)
    engine.feedback(batch)
    pd.testing.assert_frame_equal(batch, before)


POLICY = FeedbackPolicy(click=1, dwell=2, cart=3, purchase=5, like=6, dwell_seconds=10, rating_from=4)


@given(st.sampled_from(KINDS), st.floats(0, 100))
def test_a_weight_follows_the_policy(kind, value):
    expected = {"click": 1, "cart": 3, "purchase": 5, "like": 6}.get(kind, 0)
    if kind == "dwell" and value >= 10:
        expected = 2
    if kind == "rating" and value >= 4:
        expected = min(value, 10)
    table = events(("e1", 1, "i1", kind), value=value)
    assert POLICY.weights(table).tolist() == [np.float32(expected)]


@pytest.mark.parametrize(
    ("kind", "value", "liked"),
    [
        ("dwell", 10.0, True),
        ("dwell", 9.99, False),
        ("rating", 4.0, True),
        ("rating", 3.5, False),
        ("rating", 0, False),
    ],
)
def test_dwell_and_rating_count_from_their_threshold(engine, kind, value, liked):
    engine.feedback(events(("e1", 7, "i1", kind), value=value))
    assert len(engine.users.histories([7]).liked().items) == liked
    assert "i1" not in shown(engine, 7, ALL)


def test_one_huge_rating_spoils_no_fit(engine):
    engine.feedback(events(("e1", 7, "i1", "rating"), ("e2", 8, "i2", "rating"), value=[1e300, 10]))
    assert engine.users.histories([7, 8]).weights.tolist() == [10, 10]


def test_an_engine_that_was_never_saved_keeps_feedback_and_saves_it(checkpoint, tmp_path):
    config = tiny_engine.config(checkpoint, rerank=ranker.config.RerankConfig(enabled=False))
    engine = ranker.fit(tiny_engine.interactions(), tiny_engine.items(), config, progress=False)
    engine.feedback(events(("e1", 7, "i1", "like")))
    before = engine.recommend([7, 100], ALL)
    engine.save(tmp_path / "model")
    pd.testing.assert_frame_equal(engine.recommend([7, 100], ALL), before)
    loaded = ranker.load(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.recommend([7, 100], ALL), before)
    assert engine.feedback(events(("e2", 7, "i2", "like"))) == 1  # now kept in the folder
    assert ranker.load(tmp_path / "model").log.read()["event_id"].tolist() == ["e1", "e2"]
