"""Sources fitted again between two fits: when, by what they are judged, and what serves afterwards."""

import numpy as np
import pandas as pd
import pytest
from test_learner import FAST, same, told, weights
from tiny_engine import config, events, interactions, items

import ranker
from encoders.errors import ArtifactError, InputError
from ranker.config import RerankConfig
from ranker.learning.background import BackgroundLearner
from ranker.learning.config import LearningConfig
from ranker.learning.learner import Learner
from ranker.learning.refit import Refit, Refitter
from ranker.learning.versions import FOLDER, learned_versions
from ranker.reranker import Gain
from ranker.sources import STANDING
from retrieval.als import AlsRetriever
from retrieval.candidates import Requests
from retrieval.fusion import FusionConfig

OFTEN = LearningConfig(refit_share=0.25, refit_lists=50, user_share=1.0)  # after 100 of the fit's 400 events
ARRIVED = "i59"


@pytest.fixture
def without_one(checkpoint, tmp_path):
    """An engine that was fitted when nobody had taken one of its items yet."""
    log = interactions()
    fusion = FusionConfig(depth=15, weights={"als": 1, "transitions": 0.5, "text": 0.1, "popularity": 1})
    settings = config(checkpoint, rerank=RerankConfig(enabled=False), fusion=fusion)
    engine = ranker.fit(log[log["item_id"] != ARRIVED], items(), settings, progress=False)
    engine.save(tmp_path / "arrival")
    return engine


def arrives(engine, n=120):
    """Everybody who comes takes the item that nobody had, and one other."""
    start = engine.log.last_offset()
    rows = []
    for at in range(start, start + n // 2):
        rows += [(f"{at}a", 5000 + at, f"i{at % 40}", "click"), (f"{at}b", 5000 + at, ARRIVED, "click")]
    engine.feedback(events(*rows, datetime=pd.Timestamp("2024-06-01") + pd.to_timedelta(np.arange(len(rows)), "min")))


def rank_of(engine, item=ARRIVED):
    history = pd.DataFrame({"user_id": ["x"], "item_id": ["i7"]})
    listed = engine.recommend(history=history, k=len(engine.catalogue) - 1).set_index("item_id")["rank"]
    return listed[item]


def test_an_item_that_arrives_is_found_long_before_the_next_fit(without_one):
    engine = without_one
    before = rank_of(engine)
    arrives(engine)
    assert rank_of(engine) == before  # what others took reaches the sources by a fit alone
    refitter = Refitter(engine, OFTEN)
    assert refitter.step() == "served"
    assert refitter.counts == {"served": 1}
    assert rank_of(engine) < min(5, before)
    assert engine.observations.snapshot()["ranker_refits_total"] == {"served": 1}


def test_sources_are_as_a_fit_on_the_whole_log_would_make_them(without_one):
    engine = without_one
    arrives(engine)
    Refitter(engine, OFTEN).step()
    log = interactions()
    told_of = engine.log.read()[["user_id", "item_id", "datetime"]].assign(weight=1.0)
    everything = pd.concat([log[log["item_id"] != ARRIVED], told_of])
    anew = ranker.fit(everything, items(), engine.config, progress=False)
    requests = Requests(anew.users.histories([101, 5003]), np.ones(len(items()), np.bool_))
    wanted = np.tile(np.arange(len(items())), (2, 1))
    for name, source in engine.retriever.sources.items():
        if name not in STANDING:
            np.testing.assert_allclose(
                source.score(requests, wanted), anew.retriever.sources[name].score(requests, wanted), rtol=1e-3
            )


def test_it_is_time_once_enough_events_came(split_engine):
    refitter = Refitter(split_engine, OFTEN)
    told(split_engine, 99)
    assert not refitter.due()
    split_engine.recommend([100, 101, 102], list_ids=["a", "b", "c"])  # that lists were shown is no taste
    assert not refitter.due()
    told(split_engine, 1)
    assert refitter.due()
    refitter.step()
    assert not refitter.due()
    told(split_engine, 100, seed=1)
    assert refitter.due()
    assert not Refitter(split_engine, LearningConfig(refit_share=None)).due()


def test_sources_that_lost_do_not_serve(without_one, monkeypatch):
    engine = without_one
    best = engine.recommend(range(100, 140), 3)  # what serves is right
    rows = [(f"{at}", row.user_id, row.item_id, "click") for at, row in enumerate(best.itertuples())]
    engine.feedback(events(*rows))
    views, version = engine.views, engine.version
    refitter = Refitter(engine, OFTEN)
    backwards = AlsRetriever(-views.next.sources["als"].item_factors[::-1], engine.config.als)
    monkeypatch.setattr(refitter, "_fitted", lambda until: {"als": backwards})
    assert refitter.step() == "kept"
    assert engine.views is views
    assert engine.version == version
    assert learned_versions(engine) == {}


def test_they_are_judged_on_events_that_they_do_not_know(without_one, monkeypatch):
    engine = without_one
    arrives(engine)
    refitter = Refitter(engine, OFTEN)
    known = []
    fitted = refitter._fitted
    monkeypatch.setattr(refitter, "_fitted", lambda until: known.append(until) or fitted(until))
    judged = []
    taken = refitter._maker.taken
    monkeypatch.setattr(refitter._maker, "taken", lambda newest: judged.extend(newest) or taken(newest))
    refitter.step()
    assert len(judged) == OFTEN.refit_lists
    assert known == [judged[0].offset - 1, engine.log.last_offset()]


def test_what_was_fitted_again_serves_after_a_restart_and_can_be_taken_back(without_one):
    engine = without_one
    original = engine.recommend([100, 101, 130], 20)
    other = ranker.load(engine.folder)
    arrives(engine)
    Refitter(engine, OFTEN).step()
    name, facts = next(iter(learned_versions(engine).items()))
    assert (facts.why, facts.until) == ("refitted", engine.log.last_offset())
    assert facts.gain > facts.error
    refitted = engine.recommend([100, 101, 130], 20)
    assert not refitted.equals(original)
    again = ranker.load(engine.folder)
    assert again.version == engine.version == f"v0001+{name}"
    pd.testing.assert_frame_equal(again.recommend([100, 101, 130], 20), refitted)
    assert not Refitter(again, OFTEN).due()  # it knows how far the sources were fitted
    assert other.refresh()
    pd.testing.assert_frame_equal(other.recommend([100, 101, 130], 20), refitted)
    engine.rollback("saved")
    pd.testing.assert_frame_equal(engine.recommend([100, 101, 130], 20), original)
    pd.testing.assert_frame_equal(ranker.load(engine.folder).recommend([100, 101, 130], 20), original)
    engine.rollback(name)
    pd.testing.assert_frame_equal(engine.recommend([100, 101, 130], 20), refitted)


def test_a_save_takes_over_what_was_fitted_again(without_one):
    engine = without_one
    arrives(engine)
    Refitter(engine, OFTEN).step()
    refitted = engine.recommend([100, 101, 130], 20)
    engine.save(engine.folder)
    again = ranker.load(engine.folder)
    assert again.version == "v0002"
    pd.testing.assert_frame_equal(again.recommend([100, 101, 130], 20), refitted)
    assert again.views.until == again.log.last_offset()
    with pytest.raises(InputError, match="no learned versions"):
        again.rollback("saved")  # what was refitted is what is saved


@pytest.mark.parametrize("lost", [False, True])
def test_weights_that_are_promoted_later_keep_the_sources(split_engine, lost):
    engine = split_engine
    learner = Learner(engine, LearningConfig(**FAST))
    told(engine, 300, like=3)
    assert Refitter(engine, OFTEN).step() == "served"
    sources = engine.retriever.sources
    if lost:  # as where another process learned so much that this version is no longer kept
        written = engine.folder / FOLDER / engine.version.split("+")[1] / "sources"
        written.rename(engine.folder / "elsewhere")
    told(engine, 2500, like=3, seed=1)
    while learner.step().outcome != "promoted":
        assert learner.offset < engine.log.last_offset()
    assert engine.retriever.sources == sources
    again = ranker.load(engine.folder)
    assert again.version == engine.version
    assert same(weights(again), weights(engine))
    users = [100, 101, 1005]
    pd.testing.assert_frame_equal(again.recommend(users, 20), engine.recommend(users, 20))
    assert again.learned.reranker is not None


def test_refitted_sources_leave_learned_weights_as_they_are(split_engine):
    engine = split_engine
    learner = Learner(engine, LearningConfig(**FAST))
    told(engine, 2500, like=3)
    while learner.step().outcome != "promoted":
        assert learner.offset < engine.log.last_offset()
    learned, gain, offset = weights(engine), engine.reranker.gain, engine.learned.offset
    refitter = Refitter(engine, OFTEN)
    until = engine.log.last_offset()
    refitter.serve(Refit(refitter._fitted(until), until, 10, Gain(0.2, 0.1)))
    assert engine.learned.why == "refitted"
    again = ranker.load(engine.folder)
    for each in (engine, again):
        assert same(weights(each), learned)
        assert each.reranker.gain == gain
        assert each.learned.offset == offset


def test_one_user_cannot_decide_for_all(without_one):
    engine = without_one
    told(engine, 60, seed=1)
    start = pd.Timestamp("2024-07-01")
    flood = [(f"flood {at}", 9000, f"i{at % 59}", "click") for at in range(300)]
    engine.feedback(events(*flood, datetime=start + pd.to_timedelta(np.arange(300), "s")))
    refitter = Refitter(engine, LearningConfig(refit_share=0.25, refit_lists=400, user_share=0.05))
    newest = engine.log.newer(0, 1000)
    counted = []
    refitter._ndcg = lambda taken, retriever: counted.append(taken.users) or np.zeros(len(taken.users))
    refitter._gain(refitter._maker.taken(newest), {})
    assert counted[0].count(9000) == max(2, int(0.05 * len(refitter._maker.taken(newest).users)))


def test_a_full_disk_lets_the_old_sources_go_on(without_one, monkeypatch):
    engine = without_one
    arrives(engine)
    views = engine.views
    refitter = Refitter(engine, OFTEN)
    monkeypatch.setattr("ranker.learning.versions.save_sources", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(ArtifactError, match="the disk is full"):
        refitter.step()
    assert engine.views is views
    assert engine.version == "v0001"


def test_in_the_background_requests_go_on_and_the_learner_learns(split_engine):
    engine = split_engine
    learner = Learner(engine, LearningConfig(**FAST))
    with BackgroundLearner(learner, Refitter(engine, OFTEN), poll_s=0.01) as background:
        for seed in range(6):
            told(engine, 60, like=3, seed=seed)
            assert len(engine.recommend([100, 101], 10)) == 20
        while learner.offset < engine.log.last_offset() or background.refitter.due():
            assert len(engine.recommend([100, 101], 10)) == 20
    assert sum(background.refitter.counts.values()) >= 1
    assert learner.counts["events"] == 360
    pd.testing.assert_frame_equal(ranker.load(engine.folder).recommend([100], 10), engine.recommend([100], 10))


def test_an_engine_without_a_text_source_is_fitted_again_too(checkpoint):
    log = interactions()
    settings = config(checkpoint, rerank=RerankConfig(enabled=False), sources=("als", "popularity"))
    engine = ranker.fit(log[log["item_id"] != ARRIVED], items(), settings, progress=False)
    assert engine.retriever.sources["als"].item_factors[59].any()  # from its text
    arrives(engine)
    refitter, until = Refitter(engine, OFTEN), engine.log.last_offset()
    sources = refitter._fitted(until)
    assert set(sources) == {"als", "popularity"}
    refitter.serve(Refit(sources, until, 1, Gain(0, 0)))
    asked = Requests(engine.users.histories([101]), np.ones(len(items()), np.bool_))
    assert engine.catalogue.ids.at(engine.retriever.sources["popularity"].retrieve(asked, 1).items[0]) == [ARRIVED]
    assert engine.version == f"unsaved+refitted at {until}"
