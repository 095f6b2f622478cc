"""An engine with a split cross-encoder is saved, loaded and exported like any other, and leaves nothing behind."""

import dataclasses
import gc
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import pandas as pd
import pytest
import tiny_engine
import torch
from tiny_engine import events
from tiny_split import SERVES, USERS, assert_same, at, fitted_with

import ranker
from encoders import ExportConfig, OnnxTextEncoder, TextEncoder
from encoders.errors import ArtifactError, InputError
from ranker.reranker import NO_GAIN
from ranker.split.reranker import FACTORS, SplitReranker


def test_a_loaded_engine_answers_as_the_fitted_one(fitted, engine):
    assert_same(tiny_engine.answers(fitted), tiny_engine.answers(engine))
    assert engine.config == fitted.config
    assert engine.training == fitted.training
    assert engine.reranker.gain == SERVES


def test_a_fitted_engine_keeps_its_probabilities_when_it_is_saved(checkpoint, tmp_path):
    config = tiny_engine.split_config(checkpoint)
    engine = ranker.fit(tiny_engine.interactions(), tiny_engine.items(), config, progress=False)
    assert engine.reranker.saved_gain == engine.reranker.gain != NO_GAIN
    calibration = engine.calibration
    assert calibration is not None
    engine.save(tmp_path / "model")
    assert engine.calibration == ranker.load(tmp_path / "model").calibration == calibration


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


def test_a_process_that_serves_imports_nothing_that_only_checkpoints_training_and_exports_need(quantized, tmp_path):
    quantized.save(tmp_path / "served")
    slow = {"transformers", "torch._dynamo", "sympy", "onnxruntime.transformers.optimizer", "scipy.stats"}
    check = (
        f"import sys, ranker; assert len(ranker.load(sys.argv[1]).recommend([{USERS[0]}], 5)) == 5; "
        f"print({slow} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", check, tmp_path / "served"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


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
