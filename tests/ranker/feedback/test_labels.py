"""Feedback as labels: what each event says, and what its user had done before it."""

import numpy as np
import pandas as pd
import pytest
import tiny_engine
import torch
from tiny_engine import events

import ranker
from encoders.errors import InputError
from ranker.feedback import FeedbackPolicy
from ranker.feedback.labels import labelled_events
from retrieval.catalogue import Catalogue
from retrieval.interactions import Interactions

CATALOGUE = Catalogue(tiny_engine.items())
LOG = Interactions.from_frame(tiny_engine.interactions(), CATALOGUE)
LAST = tiny_engine.interactions()["datetime"].max()


def label(feedback, max_events=100):
    return labelled_events(feedback, LOG, CATALOGUE, FeedbackPolicy(), max_events)


def past(labelled, event):
    histories = labelled.requests.histories
    return histories.items[histories.indptr[event] : histories.indptr[event + 1]].tolist()


def test_each_kind_is_1_or_0_by_the_policy():
    kinds = {
        ("click", np.nan): 1, ("dwell", 10.0): 1, ("dwell", 9.0): 0, ("cart", np.nan): 1, ("purchase", np.nan): 1,
        ("like", np.nan): 1, ("rating", 4.0): 1, ("rating", 3.0): 0, ("dislike", np.nan): 0, ("hide", np.nan): 0,
        ("skip", np.nan): 0,
    }  # fmt: skip
    rows = [(str(at), 100, "i3", kind) for at, (kind, _) in enumerate(kinds)]
    labelled = label(events(*rows, value=[value for _, value in kinds]))
    assert labelled.labels.tolist() == list(kinds.values())
    assert labelled.items.tolist() == [3] * len(kinds)


def test_a_label_comes_with_what_its_user_had_done_before_and_nothing_later():
    own = tiny_engine.interactions().query("user_id == 117")
    middle = own["datetime"].iloc[4]  # the event at this very moment is not before it
    labelled = label(events(("a", 117, "i0", "click"), ("b", 117, "i1", "hide"), datetime=[middle, LAST]))
    whole = [int(item[1:]) for item in own["item_id"]]
    assert past(labelled, 0) == whole[:4]
    assert past(labelled, 1) == whole
    assert LOG.users.at(labelled.users).tolist() == [117, 117]


def test_only_the_newest_are_taken_and_users_without_any_past_are_not():
    times = [LAST + pd.Timedelta(days=day) for day in (3, 1, 2, 9)]
    rows = events(
        ("a", 100, "i0", "click"), ("b", 101, "i1", "click"), ("c", 102, "i2", "hide"), ("d", 7, "i3", "skip")
    )
    labelled = label(rows.assign(datetime=times), max_events=2)
    assert sorted(labelled.items.tolist()) == [0, 2]
    assert len(label(rows, max_events=0)) == 0
    assert len(label(rows)) == 3
    assert label(rows).of_others(labelled.users).items.tolist() == [1]


def test_fit_takes_feedback_into_the_log_and_into_fine_tuning(checkpoint):
    log, items = tiny_engine.interactions(), tiny_engine.items()
    config = tiny_engine.config(checkpoint)
    feedback = events(
        ("a", 100, "i3", "purchase"), ("b", 100, "i7", "hide"), ("c", 100, "i11", "skip"), ("d", 9, "i4", "click")
    )
    before = feedback.copy()
    without = ranker.fit(log, items, config, progress=False)
    engine = ranker.fit(log, items, config, feedback=feedback, progress=False)
    pd.testing.assert_frame_equal(feedback, before)
    assert engine.training.feedback == 3  # of user 9 nothing was known before
    assert without.training.feedback == 0
    assert engine.training.examples > without.training.examples
    told = engine.users.histories([100, 9])
    newest = told.latest(2)
    assert newest.items.tolist() == [3, 7, 4]
    assert newest.weights.tolist() == [4, 0, 1]
    shown = engine.recommend([100], k=tiny_engine.N_ITEMS)["item_id"].tolist()
    assert {"i3", "i7"}.isdisjoint(shown)
    assert "i11" in shown
    assert len(engine.log) == 0


def test_a_split_cross_encoder_learns_from_what_was_refused(checkpoint):
    log, items = tiny_engine.interactions(), tiny_engine.items()
    config = tiny_engine.split_config(checkpoint)
    had = set(log["user_id"][log["item_id"] == "i3"])  # hiding it would take the weight of that
    refused = [(f"{user}", user, "i3", "hide" if user % 2 else "skip") for user in range(100, 140) if user not in had]
    engines = [ranker.fit(log, items, config, feedback=rows, progress=False) for rows in (None, events(*refused))]
    without, told = (engine.training for engine in engines)
    assert without.feedback == 0
    # not those of the users on whose lists the gain is measured
    assert 0.5 * len(refused) < told.feedback < len(refused)
    assert told.examples == without.examples + told.feedback
    weights = [engine.reranker.joint.weights["top.layer.widen.weight"] for engine in engines]
    assert not torch.equal(*weights)


def test_an_engine_fitted_on_feedback_knows_each_event_once_beside_the_log_that_holds_it(model, checkpoint):
    old = ranker.load(model)
    old.feedback(events(("a", 100, "i3", "click"), ("b", 9, "i4", "click")))
    log, items = tiny_engine.interactions(), tiny_engine.items()
    engine = ranker.fit(log, items, tiny_engine.config(checkpoint), feedback=old.log.read(), progress=False)
    old.log.close()
    before = engine.users.histories([100, 9])
    engine.save(model)
    for each in (engine, ranker.load(model)):
        after = each.users.histories([100, 9])
        assert after.items.tolist() == before.items.tolist()
        assert after.weights.tolist() == before.weights.tolist()


def test_feedback_that_cannot_be_used_is_refused_and_none_is_none(checkpoint):
    log, items, config = tiny_engine.interactions(), tiny_engine.items(), tiny_engine.config(checkpoint)
    with pytest.raises(InputError, match="kind 'clack' is unknown \\(did you mean 'click'"):
        ranker.fit(log, items, config, feedback=events(("a", 100, "i3", "clack")), progress=False)
    engine = ranker.fit(log, items, config, feedback=events()[:0], progress=False)
    assert engine.training.feedback == 0
