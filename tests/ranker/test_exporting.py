"""An export serves what was fitted, at a precision that was judged on the site's own rankings."""

import dataclasses
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import tiny_engine
from tiny_engine import events

import ranker
from encoders import ExportConfig, OnnxPairCrossEncoder, OnnxTextEncoder
from encoders.errors import ArtifactError, ExportError, InputError, TaskError
from ranker.reranker import Gain
from ranker.tasks import ranking_task, retrieval_task
from retrieval.histories import Histories

ALL = tiny_engine.N_ITEMS
USERS = [*range(100, 140), 7]


def at(engine, *precisions, tolerance=0.9):
    engine.config = dataclasses.replace(engine.config, export=ExportConfig(precisions=precisions, tolerance=tolerance))
    return engine


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_exported_engine_serves_from_onnx_and_nearly_as_before(engine, tmp_path, precision):
    engine.feedback(events(("e1", 7, "i1", "like"), ("e2", 100, "i2", "like")))
    before = engine.recommend(USERS, 12)
    query = engine.recommend(USERS, 12, query="red robot")
    export = ranker.export(at(engine, precision), tmp_path / "served")
    served = export.engine
    assert isinstance(served.encoder, OnnxTextEncoder)
    assert isinstance(served.reranker.cross_encoder, OnnxPairCrossEncoder)
    assert served.calibration == engine.calibration is not None
    assert {name: report.chosen for name, report in export.reports.items()} == {
        "encoder": precision, "cross_encoder": precision,
    }  # fmt: skip
    assert served.encoder.manifest.report == export.reports["encoder"]
    assert served.reranker.cross_encoder.manifest.report == export.reports["cross_encoder"]
    after = served.recommend(USERS, 12)
    shared = [
        len(set(one["item_id"]) & set(after[after["user_id"] == user]["item_id"])) / 12
        for user, one in before.groupby("user_id")
    ]
    assert np.mean(shared) > (0.99 if precision == "fp32" else 0.7)
    if precision == "fp32":
        pd.testing.assert_frame_equal(after, before, atol=1e-3)
        pd.testing.assert_frame_equal(served.recommend(USERS, 12, query="red robot"), query, atol=1e-3)


def test_an_export_of_what_came_to_order_since_the_fit_has_its_probabilities(engine, tmp_path):
    fitted, other = engine.calibration, not engine.reranker.gain.serves  # as when learning lets it serve, or no longer
    engine.reranker.gain = Gain(1.0 if other else -1.0, 0.0)
    assert ranker.export(at(engine, "fp32"), tmp_path / "served").engine.calibration == engine.calibration != fitted


@pytest.mark.parametrize("part", ["text encoder", "cross-encoder"])
def test_a_log_that_tells_nothing_of_a_transformer_is_refused_in_words_of_its_caller(
    engine, tmp_path, monkeypatch, part
):
    def nothing_found(*_):
        raise TaskError("The original model's recall@10 on this task is 0: pass a task that the model can do.")

    exporter = {"text encoder": "export_text_encoder", "cross-encoder": "export_pair_cross_encoder"}[part]
    monkeypatch.setattr(f"ranker.exporting.{exporter}", nothing_found)
    with pytest.raises(InputError, match=f"No export of the {part} can be judged: .* Serve the engine as it is, or"):
        ranker.export(at(engine, "fp32"), tmp_path / "served")
    assert not (tmp_path / "served").exists()
    assert len(engine.recommend([100], 5)) == 5


def test_items_and_queries_are_read_by_the_same_encoder(engine, tmp_path):
    served = ranker.export(at(engine, "int8"), tmp_path / "served").engine
    vectors = served.retriever.sources["text"].vectors
    again = served.encoder.encode(served.catalogue.texts)
    assert (np.einsum("id,id->i", vectors, again) > 0.99).all()


def test_an_exported_engine_takes_feedback_and_is_saved_again_and_again(engine, tmp_path):
    served = ranker.export(at(engine, "fp32"), tmp_path / "served").engine
    served.feedback(events(("e1", 7, "i1", "like")))
    before = served.recommend(USERS)
    for _ in range(4):  # more than the versions that are kept: the files that it serves from are pruned
        served.save(tmp_path / "served")
        served.save(tmp_path / "other")
    pd.testing.assert_frame_equal(served.recommend(USERS), before)
    for folder in ("served", "other"):
        pd.testing.assert_frame_equal(ranker.load(tmp_path / folder).recommend(USERS), before)


def test_the_engine_that_is_exported_stays_as_it_is(engine, model, tmp_path):
    engine.feedback(events(("e1", 7, "i1", "like"), ("e2", 100, "i2", "like")))
    before = engine.recommend(USERS, ALL)
    lengths = engine.users.histories(USERS).lengths
    ranker.export(at(engine, "fp32"), tmp_path / "served")
    np.testing.assert_array_equal(engine.users.histories(USERS).lengths, lengths)
    pd.testing.assert_frame_equal(engine.recommend(USERS, ALL), before)
    assert engine.feedback(events(("e3", 7, "i3", "like"))) == 1
    assert ranker.load(model).log.read()["event_id"].tolist() == ["e1", "e2", "e3"]
    assert ranker.load(tmp_path / "served").log.read()["event_id"].tolist() == ["e1", "e2"]


def test_an_export_into_the_engines_own_folder_is_its_next_version(engine, model):
    engine.feedback(events(("e1", 7, "i1", "like")))
    served = ranker.export(at(engine, "fp32"), model).engine
    assert sorted(path.name for path in model.glob("v*")) == ["v0001", "v0002"]
    assert served.users.histories([7]).lengths.tolist() == [1]
    assert isinstance(ranker.load(model).encoder, OnnxTextEncoder)
    assert isinstance(served.encoder, OnnxTextEncoder)


def test_a_refused_export_leaves_the_old_version_serving(engine, model):
    before = engine.recommend(USERS)
    # a negative loss is asked for: no precision can gain on the original
    with pytest.raises(ExportError, match="No precision kept within") as caught:
        ranker.export(impossible(engine), model)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in model.iterdir() if not path.name.startswith("feedback")) == ["CURRENT", "v0001"]
    pd.testing.assert_frame_equal(ranker.load(model).recommend(USERS), before)


def impossible(engine):
    """An engine whose encoder cannot be kept within int8: its weights span many orders of magnitude."""
    import torch

    engine = at(engine, "int8", tolerance=0.0)
    with torch.no_grad():
        for layer in engine.encoder.model.encoder.layer:
            layer.intermediate.dense.weight[0] *= 1000
            layer.attention.self.query.weight[0] *= 1000
    return engine


def test_what_serves_from_onnx_already_is_kept_with_its_report(engine, tmp_path):
    first = ranker.export(at(engine, "fp32"), tmp_path / "served")
    second = ranker.export(first.engine, tmp_path / "again")
    assert second.reports == first.reports
    pd.testing.assert_frame_equal(second.engine.recommend(USERS), first.engine.recommend(USERS))


def test_a_folder_that_holds_something_else_is_refused(engine, tmp_path):
    (tmp_path / "letter.txt").touch()
    with pytest.raises(ArtifactError, match="holds no saved engine"):
        ranker.export(at(engine, "fp32"), tmp_path)


def test_an_engine_without_a_cross_encoder_exports_its_encoder(checkpoint, tmp_path):
    config = tiny_engine.config(checkpoint, rerank=ranker.config.RerankConfig(enabled=False))
    engine = ranker.fit(tiny_engine.interactions(), tiny_engine.items(), config, progress=False)
    export = ranker.export(at(engine, "fp32"), tmp_path / "served")
    assert list(export.reports) == ["encoder"]
    pd.testing.assert_frame_equal(export.engine.recommend(USERS), engine.recommend(USERS), atol=1e-3)


def test_an_export_leaves_nothing_in_the_working_folder(engine, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    ranker.export(at(engine, "fp32"), tmp_path / "served")
    assert list((tmp_path / "work").iterdir()) == []


def test_the_encoder_is_judged_on_what_users_took_next(fitted):
    histories = fitted.users.histories(fitted.users.ids).liked()
    task = retrieval_task(histories, fitted.catalogue, np.random.default_rng(0))
    texts = fitted.catalogue.texts
    follows = set()
    for row in range(len(histories)):
        items = histories.items[histories.indptr[row] : histories.indptr[row + 1]]
        follows |= {(texts[one], texts[other]) for one, other in pairwise(items)}
    relevant = task.relevant.tocoo()
    told = {(task.queries[row], task.documents[column]) for row, column in zip(relevant.row, relevant.col, strict=True)}
    assert told == follows


def test_the_cross_encoder_is_judged_on_lists_that_hold_what_was_taken(fitted):
    histories = fitted.users.histories(fitted.users.ids).liked()
    task = ranking_task(histories, fitted.retriever, fitted.reranker, np.random.default_rng(0))
    titles = fitted.catalogue.titles
    for row, (pairs, relevant) in enumerate(zip(task.lists, task.relevant, strict=True)):
        items = histories.items[histories.indptr[row] : histories.indptr[row + 1]]
        assert relevant.sum() == 1
        assert pairs[int(relevant.argmax())][1] == fitted.catalogue.texts[items[-1]]
        context = "; ".join(titles[item] for item in items[-2:-5:-1])  # before the newest, which it must not see
        assert {pair[0] for pair in pairs} == {context}


def test_a_log_too_thin_to_judge_is_an_error(fitted):
    one_each = Histories.from_rows(np.arange(3), np.arange(3), np.ones(3, np.float32), np.arange(3), 3)
    with pytest.raises(InputError, match="No user has two positive events"):
        retrieval_task(one_each, fitted.catalogue, np.random.default_rng(0))
