"""The replay of feedback: who is told what, and what poison is."""

import numpy as np
import pandas as pd

from bench.feedback.poison import ODD_EVERY, SOURCES, Poison
from bench.feedback.replay import LEARNING, LIVE, STATIC, K, Replayed, Static
from bench.feedback.report import curves
from retrieval.ids import IdMap


def rating(at):
    return {
        "event_id": f"r{at}", "user_id": at % 7, "item_id": at % 5, "kind": "rating", "value": 5.0,
        "datetime": pd.Timestamp("2000-01-01"), "source": "replay",
    }  # fmt: skip


def test_poison_is_a_flood_of_one_user_flips_of_one_source_and_events_that_are_none():
    poison = Poison(IdMap(range(7)), IdMap(range(5)))
    arriving = [event for at in range(4000) for event in poison.events(rating(at))]
    flood = [event for event in arriving if event["kind"] == "click"]
    assert len({event["user_id"] for event in flood}) == 1
    assert flood[0]["user_id"] not in range(7)
    told = [event for event in arriving if event["event_id"].startswith("r")]
    assert (len(told), len(flood)) == (4000, 4000)
    assert {event["value"] for event in told if event["source"] == SOURCES[0]} == {5.0}
    flipped = [event["value"] == 1.0 for event in told if event["source"] == SOURCES[1]]
    assert abs(np.mean(flipped) - 0.3) < 0.04
    assert abs(len(flipped) - 2000) < 200
    odd = arriving[:]
    for event in (*told, *flood):
        odd.remove(event)
    assert len(odd) == 2 * (4000 // ODD_EVERY)
    assert all(event["datetime"] > pd.Timestamp.now() or np.isnan(event["value"]) for event in odd)
    ids = [event["event_id"] for event in arriving]
    assert len(set(ids)) == len(ids)


class Lists:
    """An engine whose list of everybody is the catalogue, backwards."""

    catalogue = range(40)

    def recommend(self, users, k):
        rows = [(user, item) for user in users for item in range(39, 39 - k, -1)]
        return pd.DataFrame(rows, columns=["user_id", "item_id"])


def test_who_is_told_nothing_still_leaves_out_what_was_rated_meanwhile():
    test = pd.DataFrame({"user_id": [1] * 3 + [2], "item_id": [39, 38, 20, 1]})
    static = Static(Lists(), test)
    assert static.list_for(1, set()) == list(range(39, 39 - K, -1))
    assert static.list_for(1, {39, 38, 20}) == list(range(37, 37 - K, -1))


def test_curves_are_means_of_equal_parts_of_the_replay():
    found = Replayed(ndcg={}, at=list(range(0, 500, 2)))
    values = {name: np.arange(250.0) + shift for shift, name in enumerate((STATIC, LIVE, LEARNING))}
    table = curves(found, values)
    assert table["lists"].tolist() == [10] * 25
    np.testing.assert_allclose(table[STATIC], np.arange(25) * 10 + 4.5)
    np.testing.assert_allclose(table[LEARNING] - table[STATIC], 2)
