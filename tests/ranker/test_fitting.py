"""What is learned from lists earns its place on lists that it was not learned from."""

import numpy as np
import pytest
import tiny_engine

import ranker
from encoders import TextEncoder
from encoders.errors import ConfigError, TaskError
from ranker.config import EngineConfig
from ranker.fitting import _given_weights
from ranker.lists import LabelledLists, list_ndcg
from ranker.pair.training import learned_blend
from retrieval.candidates import Candidates, Requests
from retrieval.histories import Histories

N_LISTS, DEPTH = 300, 20


def lists_and_opinions(knowledge: float) -> tuple[LabelledLists, np.ndarray]:
    """Lists whose choice follows the fused score, noise, and ``knowledge`` times the cross-encoder's logit."""
    rng = np.random.default_rng(0)
    opinions = rng.normal(size=(N_LISTS, DEPTH, 2)).astype(np.float32)
    utility = opinions[:, :, 0] + knowledge * opinions[:, :, 1] + rng.gumbel(size=(N_LISTS, DEPTH))
    items = np.tile(np.arange(DEPTH), (N_LISTS, 1))
    candidates = Candidates(items, opinions[:, :, 0], np.zeros((N_LISTS, DEPTH, 0), np.float32), ())
    requests = Requests(Histories.empty(N_LISTS), np.ones(DEPTH, np.bool_))
    return LabelledLists(np.arange(N_LISTS), requests, candidates, utility.argmax(axis=1)), opinions


def test_a_cross_encoder_that_knows_something_serves_with_its_weight():
    lists, opinions = lists_and_opinions(knowledge=1.0)
    blend, gain = learned_blend(opinions, lists)
    assert gain.serves
    assert blend.cross_encoder == pytest.approx(blend.fused, rel=0.3)
    assert gain.mean > 5 * gain.error


def test_a_cross_encoder_that_knows_nothing_does_not_serve():
    lists, opinions = lists_and_opinions(knowledge=0.0)
    _, gain = learned_blend(opinions, lists)
    assert not gain.serves
    assert gain.mean <= gain.error


def test_list_ndcg_is_the_discount_at_the_chosen_place():
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 1.0, 1.0], [np.nan, 2.0, 5.0]], np.float32)
    chosen = np.array([[False, True, False], [True, False, False], [True, False, False]])
    np.testing.assert_allclose(list_ndcg(scores, chosen), [1 / np.log2(3), 1 / np.log2(4), 1 / np.log2(4)])
    far = np.arange(12, 0, -1, dtype=np.float32)[None]
    assert list_ndcg(far, np.arange(12)[None] == 10).tolist() == [0.0]


def test_given_weights_must_name_the_sources():
    sources = ("als", "transitions", "text", "popularity")
    with pytest.raises(ConfigError, match=rf"fusion\.weights names als, but the sources are {', '.join(sources)}"):
        _given_weights(EngineConfig.from_dict({"fusion": {"weights": {"als": 1.0}}}))
    assert _given_weights(EngineConfig.from_dict({"fusion": {"method": "rrf"}})) == dict.fromkeys(sources, 1.0)
    assert _given_weights(EngineConfig()) is None


def test_texts_that_say_nothing_of_what_is_taken_next_do_not_stop_a_fit(checkpoint, monkeypatch, caplog):
    def nothing_found(*_):
        raise TaskError("The original model's recall@10 on this task is 0.")

    monkeypatch.setattr("ranker.fitting.export_text_encoder", nothing_found)
    settings = tiny_engine.split_config(checkpoint, {"quantized": True})
    engine = ranker.fit(tiny_engine.interactions(), tiny_engine.items(), settings, progress=False)
    assert isinstance(engine.encoder, TextEncoder)
    assert "Text search finds nothing of what users took next" in caplog.text
    assert len(engine.recommend([100], 5)) == 5
