"""The view of lasting taste: every event counts the same, and its weights come from what users came back for."""

import numpy as np
import pandas as pd
import pytest
import tiny_engine

import ranker
from encoders.errors import InputError
from ranker.config import LastingConfig, RerankConfig
from ranker.lasting import cut, lasting_views, learn_lasting_weights
from ranker.sources import LASTING, SOURCES, fit_sources
from retrieval.candidates import Requests
from retrieval.histories import Histories

N_ITEMS = 6
ROWS, ITEMS = np.array([0, 0, 0, 1, 1, 1, 2]), np.array([0, 1, 2, 3, 3, 4, 5])
WEIGHTS, TIMES = np.array([1, 1, 2, 1, 1, 0, 5], np.float32), np.array([1, 2, 30, 3, 31, 32, 33])
LOG = Histories.from_rows(ROWS, ITEMS, WEIGHTS, TIMES, 3)


@pytest.fixture(scope="module")
def engine(checkpoint):
    sources = ("als", "ease", "text", "popularity")
    config = tiny_engine.config(checkpoint, sources=sources, rerank=RerankConfig(enabled=False))
    return ranker.fit(tiny_engine.interactions(), tiny_engine.items(), config, progress=False)


def test_what_is_learned_from_is_new_positive_and_after_the_instant():
    before, later = cut(LOG, 4 / 7, N_ITEMS)
    assert before.lengths.tolist() == [2, 1, 0]
    # user 0 took item 2 anew; user 1 had item 3 before and did not like item 4; user 2 has no past but is told of
    assert later.toarray().tolist() == [[0, 0, 2, 0, 0, 0], [0] * 6, [0, 0, 0, 0, 0, 5]]


def test_a_view_gives_every_event_of_a_history_the_same_say(engine):
    histories = engine.users.histories([100])
    order = np.arange(histories.lengths[0])[::-1]
    turned = Histories(
        histories.indptr, histories.items[order], histories.weights[order], histories.times, histories.kinds
    )
    everything = np.ones(tiny_engine.N_ITEMS, np.bool_)
    items = np.arange(tiny_engine.N_ITEMS)[None, :]
    for name, view in lasting_views(engine.retriever.sources).items():
        scores = [view.score(Requests(given, everything), items) for given in (histories, turned)]
        np.testing.assert_allclose(*scores, rtol=1e-4, atol=1e-5, err_msg=name)
        usual = [
            engine.retriever.sources[name].score(Requests(given, everything), items) for given in (histories, turned)
        ]
        if name != "popularity":
            assert not np.allclose(*usual, atol=1e-3), name


def test_every_source_but_the_sequence_has_a_lasting_view():
    assert set(SOURCES) - set(LASTING) == {"sequence"}


def test_transitions_read_the_newest_events_for_the_coming_weeks_too(checkpoint):
    config = tiny_engine.config(checkpoint, sources=("transitions", "popularity"), rerank=RerankConfig(enabled=False))
    engine = ranker.fit(tiny_engine.interactions(), tiny_engine.items(), config, progress=False)
    assert set(engine.lasting.sources) == {"transitions", "popularity"}
    assert engine.lasting.sources["transitions"] is engine.retriever.sources["transitions"]


def test_weights_favour_the_source_that_knows_what_users_come_back_for(engine):
    """Everybody comes back for items of their own taste, which popularity cannot tell."""
    log = engine.users.base.histories
    config = engine.config
    weights = learn_lasting_weights(log, np.asarray(engine.retriever.sources["text"].vectors), config)
    assert set(weights) == {"als", "ease", "text", "popularity"}
    assert max(weights["als"], weights["ease"]) > 2 * weights["popularity"]


def test_nothing_after_the_instant_takes_part_in_what_proposes(engine, monkeypatch):
    seen = []

    def spied(histories, vectors, config, progress=False):
        seen.append(histories)
        return fit_sources(histories, vectors, config, progress)

    monkeypatch.setattr("ranker.lasting.fit_sources", spied)
    log = engine.users.base.histories
    learn_lasting_weights(log, np.asarray(engine.retriever.sources["text"].vectors), engine.config)
    assert seen[0].times.max() < np.sort(log.times)[int(len(log.times) * 0.9)]


def test_too_few_users_who_came_back_leave_the_weights_alone(checkpoint):
    config = tiny_engine.config(checkpoint, lasting=LastingConfig(least_users=3))
    assert learn_lasting_weights(LOG, np.eye(N_ITEMS, dtype=np.float32), config) == {
        "als": 1.0, "transitions": 1.0, "text": 1.0, "popularity": 1.0,
    }  # fmt: skip


def test_recommendations_for_the_lasting_horizon_are_the_views_own(engine, tmp_path):
    lasting = engine.recommend([100, 101], 5, horizon="lasting")
    requests = Requests(engine.users.histories([100, 101]), np.ones(tiny_engine.N_ITEMS, np.bool_))
    expected = engine.lasting.retrieve(requests, 5)
    assert lasting["item_id"].tolist() == list(engine.catalogue.ids.at(expected.items.ravel()))
    assert lasting["item_id"].tolist() != engine.recommend([100, 101], 5)["item_id"].tolist()
    engine.save(tmp_path / "engine")
    loaded = ranker.load(tmp_path / "engine")
    pd.testing.assert_frame_equal(loaded.recommend([100, 101], 5, horizon="lasting"), lasting, rtol=1e-5)
    loaded.log.close()


@pytest.mark.parametrize(
    "changes", [{"lasting": LastingConfig(enabled=False)}, {"sources": ("sequence",)}], ids=["off", "no source"]
)
def test_an_engine_without_the_view_says_so(checkpoint, changes, tmp_path):
    config = tiny_engine.config(checkpoint, rerank=RerankConfig(enabled=False), **changes)
    engine = ranker.fit(tiny_engine.interactions(), tiny_engine.items(), config, progress=False)
    for horizon in ("lasting", "auto"):
        with pytest.raises(InputError, match=f"'{horizon}', but this engine has no view of lasting taste"):
            engine.recommend([100], 5, horizon=horizon)
    engine.save(tmp_path / "engine")
    assert ranker.load(tmp_path / "engine").lasting is None


@pytest.mark.parametrize("query", [None, "crimson"])
def test_the_horizon_can_follow_from_how_long_ago_the_last_event_was(engine, query):
    """100's was long ago, 101's a moment ago, and 999 never did anything."""
    click = pd.DataFrame({"event_id": [f"now {query}"], "user_id": [101], "item_id": ["i3"], "kind": ["click"]})
    engine.feedback(click.assign(datetime=pd.Timestamp.now("UTC")))
    users = [101, 100, 999]
    views = {name: engine.recommend(users, 5, horizon=name, query=query) for name in ("next", "lasting", "auto")}
    shown = {name: table.set_index("user_id") for name, table in views.items()}
    for user, expected in {101: "next", 100: "lasting" if query is None else "next", 999: "next"}.items():
        pd.testing.assert_frame_equal(shown["auto"].loc[[user]], shown[expected].loc[[user]])
    assert views["auto"]["user_id"].drop_duplicates().tolist() == users
    assert shown["lasting"].loc[100, "item_id"].tolist() != shown["next"].loc[100, "item_id"].tolist()


@pytest.mark.parametrize("filters", [{"allow": ["i1", "i2", "i9"]}, {"exclude_seen": False}])
def test_horizons_with_few_items_left_go_together(engine, filters):
    users = [100, 999]  # one who comes back, and one who was never here
    both = engine.recommend(users, 20, horizon="auto", **filters)
    alone = [
        engine.recommend([user], 20, horizon=horizon, **filters)
        for user, horizon in zip(users, ("lasting", "next"), strict=True)
    ]
    pd.testing.assert_frame_equal(both, pd.concat(alone, ignore_index=True), rtol=1e-5)


def test_lists_by_the_pause_are_logged_as_they_are_shown(engine):
    click = pd.DataFrame({"event_id": ["between"], "user_id": [101], "item_id": ["i4"], "kind": ["click"]})
    engine.feedback(click.assign(datetime=pd.Timestamp.now("UTC")))  # so that the one between the two others is here
    shown = engine.recommend([100, 101, 102], 4, horizon="auto", list_ids=["a", "b", "c"])
    logged = engine.log.read().query("kind == 'impression'")
    columns = {"user_id": "user_id", "item_id": "item_id", "rank": "value"}
    expected = shown[[*columns]].rename(columns=columns).assign(list_id=np.repeat(["a", "b", "c"], 4))
    pd.testing.assert_frame_equal(
        logged[[*columns.values(), "list_id"]].reset_index(drop=True), expected, check_dtype=False
    )


def test_a_history_without_times_tells_of_no_pause(engine):
    history = pd.DataFrame({"user_id": ["x"], "item_id": ["i7"]})
    with pytest.raises(InputError, match="history has no column 'datetime'"):
        engine.recommend(history=history, horizon="auto")
    now = engine.recommend(history=history.assign(datetime=pd.Timestamp.now("UTC")), horizon="auto")
    pd.testing.assert_frame_equal(now, engine.recommend(history=history))


def test_a_horizon_that_is_none_is_refused(engine):
    with pytest.raises(InputError, match="horizon = 'weeks', but it must be one of next, lasting"):
        engine.recommend([100], 5, horizon="weeks")
