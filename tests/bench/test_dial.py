"""The dial: every variant trained on the same lists and judged on the same users, and kept as an engine."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

import ranker
from bench.dial import ENGINES, QUALITY
from bench.judging import FUSED, reranked, user_ndcg
from bench.latency_engines import PAIRS, lengthened, load_dial, with_newest
from bench.latency_peers import FP32_PAIR, INT8_PAIR, TORCH_PAIR, TORCH_PEER
from encoders import OnnxTextEncoder, TextEncoder
from encoders.errors import ArtifactError


@pytest.fixture(scope="module")
def engines(dial, variants):
    return {variant.name: ranker.load(dial / ENGINES / variant.folder) for variant in variants}


def test_no_user_is_both_learned_from_and_judged_on(site) -> None:
    assert len(site.test) > 0
    assert not np.isin(site.test.users, site.learn.users).any()


def test_each_kept_engine_scores_the_test_lists_as_its_row_says(site, dial, engines) -> None:
    rows = {row["variant"]: row for row in json.loads((dial / QUALITY).read_bytes())["quality"]}
    assert list(rows) == [FUSED, *engines]
    for name, engine in engines.items():
        own = user_ndcg(reranked(engine.reranker, site.test), site.test)
        assert rows[name]["ndcg"] == pytest.approx(own.mean(), abs=1e-9)


def test_each_users_ndcg_is_kept_under_the_users_id(site, dial) -> None:
    table = pd.read_parquet(dial / "ndcg.parquet")
    lists = site.test
    for user, row in list(table.iterrows())[:5]:
        own = np.flatnonzero(lists.users == list(site.log.users.ids).index(user))
        ranks = [
            list(lists.candidates.items[at][np.argsort(-lists.candidates.scores[at], kind="stable")]).index(
                lists.chosen[at]
            )
            for at in own
        ]
        assert row[FUSED] == pytest.approx(np.mean([1 / np.log2(2 + rank) for rank in ranks]))


def test_what_is_quantized_after_training_has_the_weights_of_what_was_trained_before(engines) -> None:
    before, after, usual = (
        engines[name].reranker for name in ("split 1, float32 states", "split 1, int8 after training", "split 1")
    )
    for name, weight in before.joint.weights.items():
        assert weight.equal(after.joint.weights[name])
    assert any(not weight.equal(usual.joint.weights[name]) for name, weight in before.joint.weights.items())
    items = np.arange(20)
    assert not np.array_equal(before.inputs.store.gather(items), after.inputs.store.gather(items))
    np.testing.assert_array_equal(after.inputs.store.gather(items), usual.inputs.store.gather(items))


def test_each_engine_is_kept_with_the_encoder_that_read_its_items(engines) -> None:
    assert isinstance(engines["split 1, float32 states"].encoder, TextEncoder)
    assert isinstance(engines["split 1, int8 after training"].encoder, OnnxTextEncoder)
    assert not engines["split 1, float32 states"].config.rerank.split.quantized


def test_the_report_says_it_in_words_too(dial) -> None:
    text = (dial / "quality.md").read_text(encoding="utf-8")
    assert text.startswith("# The dial")
    assert "no smaller variant" in text  # one joint layer is all there is
    assert "| split 1, int8 after training | " in text


def test_what_is_timed_is_what_serves_on_int8_states(dial) -> None:
    loaded = load_dial(dial)
    assert list(loaded.engines) == ["split 1", "split 1, int8 rows"]
    assert loaded.about == {"lists": 200}
    assert loaded.pairs == {}


def test_pair_cross_encoders_in_float32_share_what_one_of_them_was_judged_by(dial, tmp_path) -> None:
    folder = shutil.copytree(dial, tmp_path / "dial")
    rows = [
        {"variant": FP32_PAIR, "ndcg": 0.3},
        {"variant": INT8_PAIR, "ndcg": 0.2},
        {"variant": "split 1", "ndcg": 0.1},
    ]
    (folder / PAIRS).write_text(json.dumps({"quality": rows}))
    judged = {name: row["ndcg"] for name, row in load_dial(folder).pairs.items()}
    assert judged == {TORCH_PEER: 0.3, TORCH_PAIR: 0.3, FP32_PAIR: 0.3, INT8_PAIR: 0.2}


def test_a_lengthened_reranker_says_the_same_of_as_many_events(site, engines) -> None:
    reranker = engines["split 1"].reranker
    longer = lengthened(reranker, events=9, depth=40)
    assert longer.gain.serves
    some = site.test.take(np.arange(4))
    cut = some.requests.histories.latest(reranker.joint.shape.max_events)
    requests = type(some.requests)(cut, some.requests.allowed, some.requests.exclude_seen)
    expected = reranker.score(requests, some.candidates)
    np.testing.assert_allclose(longer.score(requests, some.candidates), expected, atol=1e-5)


def test_an_engine_for_timing_knows_the_newest_events_alone(site, engines) -> None:
    engine = with_newest(engines["split 1"], engines["split 1"].reranker, 3)
    users = list(site.log.users.ids[:5])
    np.testing.assert_array_equal(
        engine.users.histories(users).items, site.log.histories.take(np.arange(5)).latest(3).items
    )


@pytest.mark.parametrize("content", [None, "{", "[]", '{"quality": 3, "settings": {}}', '{"quality": []}'])
def test_a_folder_that_is_no_dial_is_refused_with_what_to_run(tmp_path, content) -> None:
    if content is not None:
        (tmp_path / QUALITY).write_text(content)
    with pytest.raises(ArtifactError, match=f"no figures of a dial.* python -m bench dial --out {tmp_path}$"):
        load_dial(tmp_path)


def test_a_dial_without_one_joint_layer_is_refused(tmp_path) -> None:
    row = {"variant": "split 2", "joint_layers": 2, "trained_on": "int8", "served_on": "int8"}
    (tmp_path / QUALITY).write_text(json.dumps({"quality": [row], "settings": {}}))
    with pytest.raises(ArtifactError, match="no engine with one joint layer"):
        load_dial(tmp_path)
