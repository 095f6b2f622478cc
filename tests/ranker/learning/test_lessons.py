"""Which events teach, what they say, and in which list they say it."""

import numpy as np
import pytest
from tiny_engine import N_ITEMS, events, interactions

from ranker.feedback import IMPRESSION
from ranker.learning.config import LearningConfig
from ranker.learning.lessons import LessonMaker
from ranker.split.inputs import features_of
from retrieval.candidates import Requests

DEPTH = 8
LAST = interactions()["datetime"].max()


def lessons(engine, **settings):
    """Of all events of an engine's log."""
    return LessonMaker(engine, LearningConfig(**settings)).make(engine.log.newer(0, -1))


def items_of(engine, made, row=0):
    """The ids of what a lesson learns from, the chosen one first."""
    return engine.catalogue.ids.at(made.candidates.items[row, made.places[row]]).tolist()


def fresh(engine, user=100, count=30):
    return engine.recommend([user], count)["item_id"].tolist()


def test_an_event_teaches_in_the_list_that_would_have_been_served_just_before_it(split_engine):
    engine = split_engine
    first, second = fresh(engine)[:2]
    everything = np.ones(N_ITEMS, np.bool_)
    before = engine.retriever.retrieve(Requests(engine.users.histories([100]), everything), DEPTH)
    engine.feedback(events(("a", 100, first, "click")))
    engine.feedback(events(("b", 100, second, "purchase"), datetime=LAST.replace(year=2025)))
    made = lessons(engine)
    assert made.users == [100, 100]
    assert engine.catalogue.ids.at(made.chosen).tolist() == [first, second]
    assert made.weights.tolist() == [1, 4]
    assert not made.refused.any()
    np.testing.assert_array_equal(made.candidates.items[0], before.items[0])
    expected = features_of(Requests(made.requests.histories.take(np.array([0])), everything), before)
    np.testing.assert_allclose(made.features[0], expected[0], atol=1e-5)
    assert first not in engine.catalogue.ids.at(made.candidates.items[1]).tolist()  # it is in that history
    lengths = made.requests.histories.lengths
    assert lengths[1] == lengths[0] + 1


def test_events_of_the_same_time_know_those_that_came_before(split_engine):
    listed = fresh(split_engine)[:4]
    kinds = ["click", "click", "cart", "skip"]
    rows = zip("abcd", [100] * 4, listed, kinds, strict=True)
    split_engine.feedback(events(*rows))
    made = lessons(split_engine)
    lengths = made.requests.histories.lengths
    assert (lengths - lengths[0]).tolist() == [0, 1, 2, 0]  # a skip leaves no event that tells its place


def test_what_was_shown_and_passed_over_teaches_beside_what_was_taken(split_engine):
    engine = split_engine
    shown = engine.recommend([100], 12, list_ids="list")["item_id"].tolist()
    engine.feedback(events(("a", 100, shown[4], "click"), ("b", 100, shown[1], "click"), list_id="list"))
    made = lessons(engine, list_size=6, examined=1)
    assert len(made) == 2
    clicked, others = items_of(engine, made)[:1], items_of(engine, made)[1:5]
    assert clicked == [shown[4]]
    # down to one place below the lowest click, and not what was clicked, too
    assert set(others) == {shown[0], shown[2], shown[3], shown[5]}
    assert made.candidates.items.shape[1] == DEPTH
    assert set(shown[:6]) <= set(engine.catalogue.ids.at(made.candidates.items[0]).tolist())


def test_a_refusal_teaches_that_its_item_should_have_lost(split_engine):
    first, second, third = fresh(split_engine)[:3]
    split_engine.feedback(
        events(("a", 100, first, "hide"), ("b", 100, second, "skip"), ("c", 100, third, "dwell"), value=[None, None, 1])
    )
    made = lessons(split_engine, refusal=0.25)
    assert made.refused.tolist() == [True] * 3
    assert made.weights.tolist() == [0.25] * 3


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([("a", 100, 0, "click"), ("b", 100, 0, "click")], {"repeated": 1}),
        ([("a", 100, 0, "click"), ("b", 100, 0, "hide")], {"overruled": 1}),
    ],
)
def test_what_does_not_stand_teaches_nothing(split_engine, rows, why):
    listed = fresh(split_engine)
    split_engine.feedback(events(*[(name, user, listed[item], kind) for name, user, item, kind in rows]))
    made = lessons(split_engine)
    assert len(made) == 1
    assert {name: count for name, count in made.passed_over.items() if count} == why


def test_a_change_of_mind_is_about_the_list_in_which_the_item_was_first_taken(split_engine):
    first, other = fresh(split_engine)[:2]
    split_engine.feedback(events(("a", 100, first, "click"), ("b", 100, other, "click")))
    split_engine.feedback(events(("c", 100, first, "hide"), datetime=LAST.replace(year=2025)))
    made = lessons(split_engine)
    assert split_engine.catalogue.ids.at(made.chosen).tolist() == [other, first]
    assert made.refused.tolist() == [False, True]
    lengths = made.requests.histories.lengths
    assert lengths[1] == lengths[0] - 1  # before the click that the refusal overruled
    assert made.passed_over["overruled"] == 1


def test_what_was_had_or_is_never_proposed_teaches_nothing(split_engine):
    own = interactions().query("user_id == 100")["item_id"].iloc[0]
    split_engine.feedback(events(("a", 100, own, "click")))
    made = lessons(split_engine)
    assert len(made) == 0
    assert made.passed_over["had before"] == 1
    assert made.features.shape[1:] == (DEPTH, made.features.shape[2])


def test_impressions_alone_teach_nothing(split_engine):
    split_engine.recommend([100, 7], 5, list_ids=["a", "b"])
    assert {event.kind for event in split_engine.log.newer(0, -1)} == {IMPRESSION}
    assert len(lessons(split_engine)) == 0


def test_a_newcomer_teaches_from_the_first_event(split_engine):
    split_engine.feedback(events(("a", 7, fresh(split_engine, 7)[0], "click")))
    made = lessons(split_engine)
    assert made.users == [7]
    assert made.requests.histories.lengths.tolist() == [0]
