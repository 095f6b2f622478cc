"""A newer catalogue under a fitted engine: what came is found, what changed is changed, and all else stays."""

import numpy as np
import pandas as pd
import pytest
import tiny_engine
import tiny_split
from tiny_engine import answers, assert_same, config, events, interactions, items, split_config

import ranker
from encoders.errors import ConfigError, InputError
from ranker.config import RerankConfig
from ranker.reranker import Gain
from ranker.sources import fit_sources
from retrieval.candidates import Requests
from retrieval.ease import EaseConfig
from retrieval.sequence import SequenceConfig
from retrieval.training import LoopConfig

N = tiny_engine.N_ITEMS
NEW = pd.DataFrame(
    {"item_id": ["n1"], "title": ["robot war"], "text": ["robot war robot city 99"], "year": 2024, "genres": [["g0"]]}
)
FOND_OF_ROBOTS = [user for user in range(100, 140) if tiny_engine.taste(user) == tiny_engine.taste(100)]
QUICK = SequenceConfig(dim=8, heads=2, max_events=6, training=LoopConfig(epochs=1, batch_size=8))
EVERY = ("als", "ease", "neighbours", "transitions", "sequence", "text", "popularity", "trend")


def fused(checkpoint, **changes):
    return config(checkpoint, rerank=RerankConfig(enabled=False), **changes)


def rank_of(engine, item, user):
    """The place of an item in a user's list, the list's end where it is not in it."""
    listed = engine.recommend([user], len(engine.catalogue))
    return listed.set_index("item_id")["rank"].get(item, len(engine.catalogue))


@pytest.mark.parametrize("fit", [lambda folder: fused(folder, sources=EVERY, sequence=QUICK), split_config, config])
def test_an_item_that_came_is_found_by_whom_its_text_suits_and_by_a_query(checkpoint, fit, tmp_path):
    engine = ranker.fit(interactions(), items(), fit(checkpoint), progress=False)
    engine.save(tmp_path / "model")
    before = answers(engine)
    updated = ranker.update_items(engine, NEW, progress=False)
    ranks = [rank_of(updated, "n1", user) for user in FOND_OF_ROBOTS]
    others = [rank_of(updated, "n1", user) for user in range(100, 140) if user not in FOND_OF_ROBOTS]
    assert np.median(ranks) < np.median(others)
    assert updated.recommend([7], 1, query="robot war robot city 99")["item_id"].tolist() == ["n1"]
    assert updated.recommend([100], 5, where={"year": 2024})["item_id"].tolist() == ["n1"]
    assert_same(before, answers(engine))  # the engine itself goes on as it was
    updated.save(tmp_path / "model")
    assert_same(answers(updated), answers(ranker.load(tmp_path / "model")))


def test_sources_know_what_a_fit_on_the_newer_catalogue_and_the_whole_log_would(checkpoint):
    settings = fused(checkpoint, sources=("als", "ease", "neighbours", "transitions", "text", "popularity", "trend"))
    engine = ranker.fit(interactions(), items(), settings, progress=False)
    engine.feedback(events(*((f"e{n}", 500 + n, "i3", "click") for n in range(20))))
    updated = ranker.update_items(engine, NEW, progress=False)
    known = updated.users.merged().histories
    vectors = updated.encoder.encode(updated.catalogue.texts)
    expected = fit_sources(known, vectors, updated.config)
    asked = Requests(updated.users.histories(FOND_OF_ROBOTS), np.ones(N + 1, np.bool_))
    for name, source in expected.items():
        own = updated.retriever.sources[name]
        ours, theirs = (each.retrieve(asked, 20) for each in (own, source))
        np.testing.assert_array_equal(ours.items, theirs.items, err_msg=name)
        np.testing.assert_allclose(ours.scores, theirs.scores, rtol=1e-4, atol=1e-5, err_msg=name)
    assert updated.views.until == engine.log.last_offset() == 20


def test_feedback_on_an_item_that_came_is_taken_and_counts(engine):
    updated = ranker.update_items(engine, NEW, progress=False)
    click = events(("c-1", 100, "n1", "click"))
    with pytest.raises(InputError, match="'n1'"):
        engine.feedback(click)
    assert updated.feedback(click) == 1
    assert "n1" not in set(updated.recommend([100], N)["item_id"])


def test_where_attributes_and_titles_change_alone_nothing_is_fitted_or_read(checkpoint):
    engine = tiny_split.fitted_with(checkpoint)
    table = items().iloc[[4, 9]].assign(year=1066, title="renamed")
    updated = ranker.update_items(engine, table, progress=False)
    assert updated.retriever is engine.retriever
    assert updated.lasting is engine.lasting
    assert updated.reranker is engine.reranker
    assert updated.calibration == engine.calibration is not None
    assert set(updated.recommend([100], N, where={"year": 1066}, exclude_seen=False)["item_id"]) == {"i4", "i9"}
    assert {updated.catalogue.titles[row] for row in (4, 9)} == {"renamed"}
    assert not len(engine.recommend([100], N, where={"year": 1066}, exclude_seen=False))


def test_a_pair_cross_encoder_reads_a_title_that_changed(engine):
    updated = ranker.update_items(engine, items().iloc[[4]].assign(title="river story"), progress=False)
    assert updated.reranker.texts.titles[4] == "river story"
    assert engine.reranker.texts.titles[4] == items()["title"][4]


@pytest.mark.parametrize("layers", [1, 2])
def test_joint_layers_read_new_texts_anew_and_keep_the_states_of_others(checkpoint, layers):
    engine = tiny_split.fitted_with(checkpoint, split={"joint_layers": layers})
    table = pd.concat([NEW, items().iloc[[3]].assign(text="cat love summer 3")])
    read = []
    reading = engine.reranker.items.read
    engine.reranker.items.read = lambda texts: read.extend(texts) or reading(texts)
    updated = ranker.update_items(engine, table, progress=False)
    assert sorted(read) == ["cat love summer 3", "robot war robot city 99"]
    width = 1 + engine.reranker.joint.shape.max_tokens
    same = np.setdiff1d(np.arange(N), [3])
    states, counts = updated.reranker.inputs.store.gather_ragged(np.arange(N + 1), width)
    before, counted = engine.reranker.inputs.store.gather_ragged(np.arange(N), width)
    np.testing.assert_array_equal(counts[same], counted[same])
    length = min(states.shape[1], before.shape[1])
    np.testing.assert_array_equal(states[same, :length], before[same, :length])
    assert (states[3, 0] != before[3, 0]).any()
    factors = updated.reranker.inputs.factors
    np.testing.assert_array_equal(factors[:N], engine.reranker.inputs.factors)
    assert factors[N].any()
    # one step further, since an update is an engine like any other
    again = ranker.update_items(updated, NEW.assign(item_id="n2", text="old river story 98"), progress=False)
    assert again.reranker.inputs.store.n_items == len(again.reranker.inputs.factors) == N + 2


def test_what_was_learned_since_goes_on(checkpoint):
    engine = tiny_split.fitted_with(checkpoint)
    for gain in (engine.reranker.gain, Gain(-1.0, 0.0)):  # something else orders than when probabilities were measured
        engine.reranker.gain = gain
        updated = ranker.update_items(engine, NEW, progress=False)
        assert updated.calibrations == engine.calibrations
        assert updated.calibration == engine.calibration is not None


def test_a_catalogue_that_has_grown_too_large_for_a_source_is_refused_before_anything_is_read(checkpoint):
    settings = fused(checkpoint, sources=("ease", "text"), ease=EaseConfig(max_items=N))
    engine = ranker.fit(interactions(), items(), settings, progress=False)
    engine.encoder.encode = None
    with pytest.raises(ConfigError, match=f"ease.max_items = {N}, but the catalogue has {N + 1} items"):
        ranker.update_items(engine, NEW)


def test_an_engine_is_outdated_once_another_is_saved_in_its_folder(model, engine):
    other = ranker.load(model)
    assert not engine.outdated()
    updated = ranker.update_items(engine, NEW, progress=False)
    assert not updated.outdated()
    updated.save(model)
    assert (engine.outdated(), other.outdated(), updated.outdated()) == (True, True, False)
    assert not other.refresh()
    assert not ranker.load(model).outdated()


def test_a_table_that_does_not_fit_changes_nothing(engine):
    with pytest.raises(InputError, match="lacks the column 'year'"):
        ranker.update_items(engine, NEW.drop(columns="year"))
