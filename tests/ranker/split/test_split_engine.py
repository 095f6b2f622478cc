"""An engine with a split cross-encoder is fitted and asked like any other."""

import gc
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import tiny_engine
import torch
from tests_support import same_ranking
from tiny_engine import events
from tiny_models import gpt2_checkpoint
from tiny_split import ALL, USERS, assert_same, at, fit, fitted_with, without_reranker

import ranker
from encoders import TextEncoder
from encoders.errors import ConfigError
from encoders.layers import top_layers
from ranker.reranker import Gain
from ranker.split.reranker import SplitReranker
from retrieval.candidates import NO_ITEM, Requests


def test_the_joint_layers_are_what_orders_the_best_candidates(fitted):
    """The first ``depth`` candidates of every user by the torch model's logits, the rest in fused order."""
    reranker = fitted.reranker
    assert isinstance(reranker, SplitReranker)
    model = reranker.joint.model()
    histories = fitted.users.histories(USERS[:-1])
    requests = Requests(histories, np.ones(ALL, np.bool_))
    before = fitted.retriever.retrieve(requests, 12)
    inputs = reranker.inputs.read(requests, before.head(8))
    with torch.no_grad():
        logits = model(**inputs.tensors()).numpy()
    table, changed = fitted.recommend(USERS[:-1], 12), 0
    for row, user in enumerate(USERS[:-1]):
        found = table[table["user_id"] == user]
        items = fitted.catalogue.ids.at(before.items[row])
        order = np.argsort(-logits[row])
        expected = np.concatenate([np.asarray(items)[:8][order], np.asarray(items)[8:]])
        scores = found["score"].to_numpy()
        np.testing.assert_allclose(scores[:8], logits[row][order], atol=1e-4)
        assert found["item_id"].tolist()[8:] == expected[8:].tolist()
        same_ranking(found["item_id"].to_numpy()[:8], scores[:8], expected[:8], logits[row][order], 1e-4)
        changed += found["item_id"].tolist() != list(items)
    assert changed > len(USERS) / 2


def test_a_batch_equals_its_users_one_by_one(fitted):
    batch = fitted.recommend(USERS, 12)
    assert_same({"batch": batch}, {"batch": pd.concat([fitted.recommend([user], 12) for user in USERS])})


def test_concurrent_users_get_what_they_get_alone(fitted):
    users = USERS * 2
    alone = [fitted.recommend([user], 12) for user in users]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda user: fitted.recommend([user], 12), users))
    for one, other in zip(alone, together, strict=True):
        assert_same({"user": one}, {"user": other})


def test_users_without_events_keep_the_fused_order(fitted):
    before, after = (one.recommend([7, 8], ALL) for one in (without_reranker(fitted), fitted))
    assert after["item_id"].tolist() == before["item_id"].tolist()
    alone = fitted.recommend([7], ALL)
    assert alone["item_id"].tolist() == after["item_id"].tolist()[:ALL]


def test_joint_layers_that_do_not_serve_are_not_asked(engine):
    engine.reranker.gain = engine.reranker.saved_gain = Gain(0.1, 0.2)
    pd.testing.assert_frame_equal(engine.recommend(USERS, 12), without_reranker(engine).recommend(USERS, 12))


def test_feedback_shows_in_the_very_next_answer(engine):
    for user in (101, 7):
        before = engine.recommend([user], ALL)
        first = before["item_id"].iloc[0]
        engine.feedback(events((f"e{user}", user, first, "like")))
        after = engine.recommend([user], ALL)
        assert first not in set(after["item_id"])
        history = engine.users.histories([user])
        told = pd.DataFrame(
            {
                "user_id": user,
                "item_id": engine.catalogue.ids.at(history.items),
                "weight": history.weights,
                "datetime": pd.to_datetime(history.times, unit="us"),
            }
        )
        expected = engine.recommend(history=told, k=ALL)
        assert_same({"user": after}, {"user": expected})


def test_the_newest_event_changes_the_order_of_what_is_left(engine):
    orders = set()
    for number in range(4):
        engine.feedback(events((f"e{number}", 200 + number, f"i{number}", "like")))
        ranked = engine.rank(200 + number, [f"i{n}" for n in range(10, 18)])
        orders.add(tuple(ranked["item_id"]))
    assert len(orders) > 1


def test_the_same_seed_fits_the_same_joint_layers_and_nothing_below_them(checkpoint):
    engine, again = fit(checkpoint), fit(checkpoint)
    assert again.training == engine.training
    assert again.reranker.gain == engine.reranker.gain
    weights = engine.reranker.joint.weights
    for name, weight in weights.items():
        assert torch.equal(again.reranker.joint.weights[name], weight)
    original = TextEncoder.load(checkpoint, engine.config.encoder)
    (pretrained,) = top_layers(original.model, 1)
    for name, weight in pretrained.state_dict().items():
        assert torch.equal(engine.reranker.items.folding.state_dict()[name], weight)
    assert not torch.equal(weights["top.layer.widen.weight"], pretrained.widen.weight)
    assert original.fingerprint == engine.encoder.fingerprint


def test_fitting_and_loading_reseed_nothing(checkpoint, saved):
    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002

    before = states()
    ranker.load(saved).recommend(USERS, 5)
    assert states() == before
    fitted_with(checkpoint)
    assert states() == before


@pytest.mark.parametrize("quantized", [False, True])
def test_more_joint_layers_than_there_are_is_an_error(checkpoint, quantized, temporary):
    with pytest.raises(ConfigError, match="joint_layers is 4; the checkpoint has 3 layers: take 1 to 3"):
        fitted_with(checkpoint, split={"joint_layers": 4, "quantized": quantized})
    gc.collect()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("quantized", [False, True])
def test_a_checkpoint_that_cannot_be_cut_is_an_error_that_names_those_that_can(tmp_path, quantized, temporary):
    folder = gpt2_checkpoint(tmp_path)
    with pytest.raises(ConfigError, match=r"A gpt2 cannot be cut.*bert, roberta.*distilbert.*pair cross-encoder"):
        fitted_with(folder, split={"quantized": quantized})
    gc.collect()
    assert list(temporary.iterdir()) == []


def test_a_checkpoint_that_cannot_be_cut_is_refused_before_the_items_are_read(tmp_path, monkeypatch):
    def encode(*_, **__):
        raise AssertionError("items are read")

    monkeypatch.setattr(TextEncoder, "encode", encode)
    with pytest.raises(ConfigError, match="cannot be cut"):
        fitted_with(gpt2_checkpoint(tmp_path))


def test_sources_without_collaborative_vectors_do(checkpoint, tmp_path):
    engine = fitted_with(checkpoint, sources=("text", "popularity"))
    assert engine.reranker.inputs.factors.shape == (ALL, 1)
    assert not engine.reranker.inputs.factors.any()
    before = tiny_engine.answers(engine)
    engine.save(tmp_path / "model")
    assert_same(before, tiny_engine.answers(ranker.load(tmp_path / "model")))


@pytest.mark.parametrize("split", [{"joint_layers": 2}, {"states": "int8"}], ids=str)
def test_other_settings_serve_as_the_defaults_do(checkpoint, tmp_path, split):
    engine = fitted_with(checkpoint, split=split)
    kind = engine.config.rerank.split.states
    assert engine.reranker.inputs.store.row_format.kind == kind
    assert not len(engine.recommend([101, 102], 5, allow=[]))  # no candidate, so no token to attend to
    batch = engine.recommend(USERS, 12)
    assert_same({"batch": batch}, {"batch": pd.concat([engine.recommend([user], 12) for user in USERS])})
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda user: engine.recommend([user], 12), USERS))
    assert_same({"batch": batch}, {"batch": pd.concat(together)})
    before = tiny_engine.answers(engine)
    engine.save(tmp_path / "model")
    assert_same(before, tiny_engine.answers(ranker.load(tmp_path / "model")))
    export = ranker.export(at(engine, "fp32"), tmp_path / "served")
    assert export.engine.reranker.inputs.store.row_format.kind == kind
    assert_same({"batch": batch}, {"batch": export.engine.recommend(USERS, 12)}, 2e-2)


def test_nothing_that_is_allowed_gives_nothing(fitted):
    assert not len(fitted.recommend([101, 102], 5, allow=[]))
    assert not len(fitted.recommend([101], 5, where={"year": 1800}))
    assert len(fitted.recommend([101], 5, allow=["i1", "i2"])) <= 2
    assert NO_ITEM not in set(fitted.recommend(USERS, 5, where={"genres": "g1"})["item_id"])
