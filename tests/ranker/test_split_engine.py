"""An engine with a split cross-encoder is fitted, saved, exported and asked like any other."""

import dataclasses
import gc
import random
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import tiny_engine
import torch
from tests_support import same_ranking
from tiny_engine import TASTES, events
from tiny_joint import moved
from tiny_models import gpt2_checkpoint

import ranker
from encoders import ExportConfig, OnnxTextEncoder, TextEncoder
from encoders.errors import ArtifactError, ConfigError, InputError
from encoders.layers import top_layers
from ranker.cli.info import engine_facts
from ranker.reranker import NO_GAIN, Gain, Gains, KeepOrder
from ranker.split.reranker import FACTORS, SplitReranker
from retrieval.candidates import NO_ITEM, Requests
from retrieval.queries import Queries
from retrieval.storage import load_settings

ALL = tiny_engine.N_ITEMS
USERS = [*range(100, 140), 7]
SERVES = Gain(1.0, 0.0)


def fit(checkpoint, **changes):
    config = tiny_engine.split_config(checkpoint, **changes)
    return ranker.fit(tiny_engine.interactions(), tiny_engine.items(), config, progress=False)


def fitted_with(checkpoint, **changes):
    """A fitted engine whose joint layers are asked, and far enough from the fused order to see it."""
    engine = fit(checkpoint, **changes)
    engine.reranker.gain = SERVES
    weights = moved(engine.reranker.joint.model()).state_dict()
    weights["kind.weight"].zero_()  # it learned from no feedback, so any kind reads as a logged event
    engine.reranker.joint.replace(weights)
    return engine


@pytest.fixture(scope="module")
def fitted(checkpoint):
    """A fitted engine that no test may give feedback to or save."""
    return fitted_with(checkpoint)


@pytest.fixture
def searching(engine):
    """An engine of the test's own whose joint layers are asked where there is a query, too."""
    engine.reranker.query_gain = Gain(0.5, 0.1)
    return engine


@pytest.fixture(scope="module")
def saved(checkpoint, tmp_path_factory):
    """A folder that holds the same engine; no test may write to it."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    fitted_with(checkpoint).save(folder)
    return folder


@pytest.fixture(scope="module")
def quantized(checkpoint):
    """An engine whose encoder was exported before the joint layers were trained on what it makes of items."""
    return fitted_with(checkpoint, split={"quantized": True}, export=ExportConfig(precisions=("int8",), tolerance=0.9))


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """An empty folder that temporary files go to."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def assert_same(one, other, tolerance=1e-5):
    """Equal scores, and equal lists but for the order of items whose scores are one within rounding."""
    for name, table in one.items():
        assert len(other[name]) == len(table)
        owner, item = table.columns[:2]
        for whose, rows in table.groupby(owner):
            found = other[name][other[name][owner] == whose]
            same_ranking(
                rows[item].to_numpy(), rows["score"].to_numpy(), found[item].to_numpy(), found["score"].to_numpy(),
                tolerance,
            )  # fmt: skip


def without_reranker(engine):
    fused = ranker.Engine(
        catalogue=engine.catalogue,
        users=engine.users,
        encoder=engine.encoder,
        retriever=engine.retriever,
        reranker=KeepOrder(),
        log=engine.log,
        config=engine.config,
        training=None,
    )
    assert not len(engine.log.read())
    return fused


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


def test_joint_layers_that_do_not_serve_are_not_asked(engine):
    engine.reranker.gain = Gain(0.1, 0.2)
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


def test_a_loaded_engine_answers_as_the_fitted_one(fitted, engine):
    assert_same(tiny_engine.answers(fitted), tiny_engine.answers(engine))
    assert engine.config == fitted.config
    assert engine.training == fitted.training
    assert engine.reranker.gain == SERVES


def test_saving_again_and_again_changes_no_answer(engine, tmp_path):
    engine.feedback(events(("e1", 100, "i1", "like"), ("e2", 7, "i2", "like")))
    before = tiny_engine.answers(engine)
    for _ in range(3):  # more than the versions that are kept: the files that it serves from are pruned
        engine.save(tmp_path / "model")
    engine.save(tmp_path / "other")
    assert_same(before, tiny_engine.answers(engine))
    assert_same(before, tiny_engine.answers(ranker.load(tmp_path / "other")))
    shutil.rmtree(tmp_path / "model")
    shutil.rmtree(tmp_path / "other" / "v0001")
    assert_same(before, tiny_engine.answers(engine))  # what is mapped into memory stays


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


def test_the_states_on_disk_go_away_with_the_engine(checkpoint, temporary, tmp_path):
    engine = fitted_with(checkpoint)
    assert [path.name.split("-")[0] for path in temporary.iterdir()] == ["states"]
    before = tiny_engine.answers(engine)
    engine.save(tmp_path / "model")
    gc.collect()
    assert list(temporary.iterdir()) == []  # it serves from what was saved now
    assert_same(before, tiny_engine.answers(engine))
    engine = fitted_with(checkpoint)
    del engine
    gc.collect()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("quantized", [False, True])
def test_a_fit_that_fails_leaves_no_files_behind(checkpoint, quantized, temporary):
    log = tiny_engine.interactions()
    training = tiny_engine.split_config(checkpoint).rerank.split.training
    diverging = dataclasses.replace(training, learning_rate=1e30)
    for events_of, settings, error in (
        (log[log["user_id"] == 100], training, "0 training and 1 validation lists"),
        (log, diverging, "no finite numbers.*lower learning rate"),
    ):
        config = tiny_engine.split_config(
            checkpoint,
            split={"quantized": quantized, "training": settings},
            export=ExportConfig(precisions=("fp32",), tolerance=0.9),
        )
        with pytest.raises(InputError, match=error):
            ranker.fit(events_of, tiny_engine.items(), config, progress=False)
        gc.collect()
        assert list(temporary.iterdir()) == []


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


@pytest.mark.parametrize(
    "name",
    [
        "states/shard-*.bin", "states/index-*.bin", "states/store.json", "joint.json", "joint.onnx",
        "joint.safetensors", "folding.safetensors", "factors.npy", "gain.json",
    ],
)  # fmt: skip
def test_a_corrupted_file_is_refused(model, name):
    (path,) = (model / "v0001" / "reranker").glob(name)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{path.name}.*differs from what was saved") as caught:
        ranker.load(model)
    assert "\n" not in str(caught.value)


def test_parts_that_do_not_belong_together_are_refused(engine, fitted, model, checkpoint):
    folder = model / "v0001" / "reranker"
    heavier = TextEncoder.load(checkpoint, engine.config.encoder)
    with torch.no_grad():
        heavier.model.encoder.layer[0].output.dense.bias += 1
    with pytest.raises(ArtifactError, match=r"states: holds states of version .* but this encoder is version"):
        SplitReranker.load(folder, heavier, 8, SERVES)
    factors = fitted.reranker.inputs.factors
    for other in (factors[:-1], factors[:, :-1]):
        np.save(folder / FACTORS, other)
        with pytest.raises(ArtifactError, match=rf"{FACTORS}: vectors \({other.shape[0]}, {other.shape[1]}\)"):
            SplitReranker.load(folder, engine.encoder, 8, SERVES)
    for other, pattern in ((factors.astype(np.float64), "expected 2 dimensions of float32"), (None, "not a readable")):
        np.save(folder / FACTORS, other) if other is not None else (folder / FACTORS).unlink()
        with pytest.raises(ArtifactError, match=f"{FACTORS}: {pattern}"):
            SplitReranker.load(folder, engine.encoder, 8, SERVES)


def at(engine, *precisions):
    engine.config = dataclasses.replace(engine.config, export=ExportConfig(precisions=precisions, tolerance=0.9))
    return engine


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-2), ("int8", 1.0)])
def test_an_export_reads_the_items_anew_with_its_own_encoder(engine, tmp_path, temporary, precision, tolerance):
    before, old = tiny_engine.answers(engine), engine.reranker
    export = ranker.export(at(engine, precision), tmp_path / "served")
    served = export.engine
    assert list(export.reports) == ["encoder"]
    assert isinstance(served.encoder, OnnxTextEncoder)
    assert served.encoder.manifest.lower_layers == 2
    assert served.reranker.items.encoder is served.encoder
    assert served.reranker.inputs.store.version == served.reranker.items.version != old.items.version
    after = tiny_engine.answers(served)
    if precision == "fp32":
        assert_same(before, after, tolerance)
    shared = [
        len(set(rows["item_id"]) & set(after["recommend"].query("user_id == @user")["item_id"])) / 12
        for user, rows in before["recommend"].groupby("user_id")
    ]
    assert np.mean(shared) > (0.99 if precision == "fp32" else 0.7)
    assert engine.reranker is old  # what was exported goes on as it was
    assert_same(before, tiny_engine.answers(engine))
    gc.collect()
    assert list(temporary.iterdir()) == []


def test_a_quantized_engine_is_trained_on_what_its_export_makes_of_items(quantized, tmp_path, temporary):
    assert isinstance(quantized.encoder, OnnxTextEncoder)
    assert quantized.encoder.manifest.precision == "int8"
    assert quantized.reranker.items.encoder is quantized.encoder
    batch = quantized.recommend(USERS, 12)
    assert_same({"batch": batch}, {"batch": pd.concat([quantized.recommend([user], 12) for user in USERS])})
    before = tiny_engine.answers(quantized)
    export = ranker.export(quantized, tmp_path / "served")  # it serves from ONNX already
    assert_same(before, tiny_engine.answers(export.engine))
    assert export.reports["encoder"] == quantized.encoder.manifest.report
    loaded = ranker.load(tmp_path / "served")
    for _ in range(3):
        loaded.save(tmp_path / "served")
    assert_same(before, tiny_engine.answers(loaded))
    assert list(temporary.iterdir()) == []


def test_a_quantized_engine_leaves_no_files_behind(checkpoint, temporary):
    engine = fitted_with(
        checkpoint, split={"quantized": True}, export=ExportConfig(precisions=("fp32",), tolerance=0.9)
    )
    assert {path.name.split("-")[0] for path in temporary.iterdir()} == {"states", "encoder"}
    assert len(engine.recommend([101], 5)) == 5
    del engine
    gc.collect()
    assert list(temporary.iterdir()) == []
    assert tempfile.gettempdir() == str(temporary)
