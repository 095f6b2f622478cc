"""What is counted is what happened."""

import pandas as pd
import pytest
from prometheus_client import generate_latest
from tiny_engine import START, events

import ranker
from encoders.errors import InputError

DAY = pd.Timedelta(days=1)


def at(day, *row):
    return events(row, datetime=START + (100 + day) * DAY)


def test_each_event_is_counted_by_its_outcome(engine):
    items = engine.recommend([100], 9)["item_id"].tolist()
    engine.feedback(events(("a", 100, items[0], "click"), ("b", 100, items[1], "click")))
    engine.feedback(events(("a", 100, items[0], "click"), ("c", 100, items[0], "click")))  # known; the same act
    engine.feedback(at(1, "d", 100, items[1], "hide"))
    engine.feedback(at(-1, "e", 100, items[2], "click"))
    for wrong in (events(("f", 100, "nothing", "click")), "events"):
        with pytest.raises(InputError):
            engine.feedback(wrong)
    engine.recommend([100, 101], 3, list_ids=["x", "y"])
    seen = engine.status()["observed"]
    assert seen["ranker_events_total"] == {"new": 5, "duplicate": 1, "refused": 2}
    assert seen["ranker_acts_total"] == {"act": 4, "repeated": 1, "overruled": 1, "out of order": 1}
    assert seen["ranker_lists_total"] == 2
    assert seen["ranker_event_lag_seconds_count"] == 5
    assert seen["ranker_seconds_count"] == {"feedback": 4, "retrieve": 2, "rerank": 2}
    assert seen["ranker_seconds_sum"]["feedback"] > 0
    assert engine.status()["log"]["events"] == len(engine.log) == 11
    assert engine.status()["users"]["in_memory"] == 2


def test_prometheus_reads_the_same(engine):
    engine.feedback(events(("a", 100, "i1", "click")))
    text = generate_latest(engine.observations.registry).decode()
    assert 'ranker_events_total{outcome="new"} 1.0' in text
    assert 'ranker_seconds_bucket{le="+Inf",stage="feedback"} 1.0' in text


def test_engines_count_each_for_itself(engine, model):
    other = ranker.load(model)
    engine.feedback(events(("a", 100, "i1", "click")))
    assert engine.status()["observed"]["ranker_events_total"]["new"] == 1
    assert "ranker_events_total" not in other.status()["observed"]
