"""Free-text queries and the joint layers of an engine."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import tiny_engine
import torch
from tests_support import same_ranking
from tiny_engine import TASTES
from tiny_split import ALL, SERVES, USERS, assert_same, at, fit, without_reranker

import ranker
from encoders.errors import ArtifactError
from ranker.cli.info import engine_facts
from ranker.reranker import NO_GAIN, Gain, Gains
from retrieval.candidates import Requests
from retrieval.queries import Queries
from retrieval.storage import load_settings


def test_queries_keep_the_fused_order_where_their_gain_does_not_serve(engine):
    engine.reranker.query_gain = Gain(0.1, 0.2)
    for asked in ({"query": "old river"}, {"query": ["robot city"] * len(USERS)}):
        before, after = (one.recommend(USERS, 12, **asked) for one in (without_reranker(engine), engine))
        pd.testing.assert_frame_equal(after, before)
    ids = [f"i{n}" for n in range(20)]
    before, after = (one.rank(101, ids, query="old river") for one in (without_reranker(engine), engine))
    pd.testing.assert_frame_equal(after, before)


def test_where_it_serves_the_joint_layers_read_the_query(searching):
    """The first ``depth`` candidates by the torch model's logits, given what the lower layers make of the query."""
    reranker, encoder = searching.reranker, searching.encoder
    users, texts = USERS[:4], ["old river", "red robot war", "cat", "old river"]
    histories = searching.users.histories(users)
    (read,) = encoder.read(texts, reranker.joint.shape.lower_layers)
    rows = np.argsort(read.rows)
    queries = Queries(read.vectors[rows], read.states[rows].astype(np.float16), read.lengths[rows])
    requests = Requests(histories, np.ones(ALL, np.bool_), queries=queries)
    before = searching.retriever.retrieve(requests, 12)
    with torch.no_grad():
        logits = reranker.joint.model()(**reranker.inputs.read(requests, before.head(8)).tensors()).numpy()
    table = searching.recommend(users, 12, query=texts)
    fused = without_reranker(searching).recommend(users, 12, query=texts)
    changed = 0
    for row, user in enumerate(users):
        found, old = (of[of["user_id"] == user]["item_id"].to_numpy() for of in (table, fused))
        scores = table[table["user_id"] == user]["score"].to_numpy()
        order = np.argsort(-logits[row])
        same_ranking(found[:8], scores[:8], old[:8][order], logits[row][order], 1e-3)
        assert found[8:].tolist() == old[8:].tolist()
        changed += found.tolist() != old.tolist()
    assert changed


def test_users_without_events_keep_the_fused_order_with_a_query_too(searching):
    before, after = (one.recommend([7, 8], ALL, query="cat") for one in (without_reranker(searching), searching))
    assert after["item_id"].tolist() == before["item_id"].tolist()


def test_what_an_engine_is_made_of_tells_both_gains(searching):
    facts = engine_facts(searching)["cross_encoder"]
    assert facts["gain"] == {"ndcg@10": 1.0, "standard_error": 0.0, "serves": True}
    assert facts["gain_with_a_query"] == {"ndcg@10": 0.5, "standard_error": 0.1, "serves": True}


def test_another_query_gives_another_order_of_the_same_items(searching):
    ids = [f"i{n}" for n in range(20)]
    shown = [searching.rank(101, ids, query=query)["item_id"].tolist() for query in ("old river", "robot war")]
    assert shown[0] != shown[1]
    assert sorted(shown[0]) == sorted(shown[1]) == sorted(ids)
    fused = without_reranker(searching).rank(101, ids, query="old river")
    assert fused["item_id"].tolist() != shown[0]


def test_a_batch_of_queries_equals_them_one_by_one_and_at_once(searching):
    texts = [f"{TASTES[n % 4][n % 3]} river" if n % 2 else "cat" for n in range(len(USERS))]
    batch = searching.recommend(USERS, 12, query=texts)
    asked = list(zip(USERS, texts, strict=True))
    alone = [searching.recommend([user], 12, query=text) for user, text in asked]
    rounding = 1e-3  # a query's states are float16: what sums in another order leave may round to the next number
    assert_same({"batch": batch}, {"batch": pd.concat(alone)}, rounding)
    with ThreadPoolExecutor(8) as pool:  # some with a query and some without share a run
        others = [pool.submit(searching.recommend, [user], 12) for user in USERS]
        together = list(pool.map(lambda one: searching.recommend([one[0]], 12, query=one[1]), asked))
    assert_same({"batch": pd.concat(f.result() for f in others)}, {"batch": searching.recommend(USERS, 12)})
    assert_same({"batch": batch}, {"batch": pd.concat(together)}, rounding)


def test_a_long_query_is_read_to_its_first_tokens(searching):
    most = searching.reranker.joint.shape.max_tokens
    queries = searching.reranker.read_queries(["river " * 100, "river"], searching.encoder)
    assert queries.lengths.tolist() == [most, 3]  # with what the tokenizer puts at both ends
    assert queries.states.shape[1] == most
    assert len(searching.recommend([101], 5, query="river " * 100)) == 5


def test_saved_and_exported_engines_read_queries_as_before(searching, tmp_path):
    before = tiny_engine.answers(searching)
    searching.save(tmp_path / "model")
    loaded = ranker.load(tmp_path / "model")
    assert (loaded.reranker.gain, loaded.reranker.query_gain) == (SERVES, Gain(0.5, 0.1))
    assert_same(before, tiny_engine.answers(loaded))
    served = ranker.export(at(loaded, "fp32"), tmp_path / "served").engine
    assert served.reranker.query_gain == Gain(0.5, 0.1)
    assert_same(before, tiny_engine.answers(served), 1e-2)


def test_a_gain_of_an_older_version_is_refused(model):
    path = model / "v0001" / "reranker" / "gain.json"
    path.write_text('{"mean": 0.1, "error": 0.01}')
    with pytest.raises(ArtifactError, match=r"gain\.json: not the settings of Gains"):
        load_settings(Gains, path)


def test_lists_with_queries_are_learned_from_and_measured_apart(checkpoint):
    def fitted(share):
        config = tiny_engine.split_config(checkpoint)
        training = dataclasses.replace(config.rerank.split.training, queries=share)
        return fit(checkpoint, split={"training": training})

    never, often = fitted(0), fitted(0.9)
    assert never.reranker.query_gain is NO_GAIN
    assert not never.reranker.joint.weights["query"].any()
    assert often.training.examples > never.training.examples
    assert often.reranker.query_gain is not NO_GAIN
    assert often.reranker.joint.weights["query"].any()
