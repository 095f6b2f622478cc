"""Served encoders answer alike however their graphs are run."""

import shutil

import numpy as np
import pytest
import torch
from tiny_models import catalogue, exported, ranking_task

from encoders import (
    ExportConfig,
    OnnxPairCrossEncoder,
    OnnxTextEncoder,
    PairCrossEncoder,
    PairCrossEncoderConfig,
    TextEncoder,
    TextEncoderConfig,
    export_pair_cross_encoder,
)
from encoders.binding import BoundSession
from encoders.errors import InputError
from encoders.execution import EXECUTIONS, Execution
from encoders.session import CPU, CUDA

TEXTS = catalogue(30)
PAIRS = [(TEXTS[place], TEXTS[-place]) for place in range(30)]
BOUND, UNKNOWN = Execution("bound", CPU, captured=True), Execution("teapot", "TeapotExecutionProvider")


@pytest.fixture(scope="module")
def text_folder(bert_folder, tmp_path_factory):
    encoder = TextEncoder.load(bert_folder, TextEncoderConfig(max_tokens=32, batch_size=4, device="cpu"))
    folder = tmp_path_factory.mktemp("text") / "fp32"
    exported(encoder, folder, "fp32")
    return folder


@pytest.fixture(scope="module")
def pair_folder(bert_folder, tmp_path_factory):
    config = PairCrossEncoderConfig(max_tokens=32, batch_size=4, device="cpu")
    cross_encoder = PairCrossEncoder.load(bert_folder, config, seed=3)
    folder = tmp_path_factory.mktemp("pair") / "fp32"
    export = ExportConfig(precisions=("fp32",), tolerance=0.9)
    export_pair_cross_encoder(cross_encoder, ranking_task(cross_encoder), folder, export)
    return folder


def in_buffers(model, choose):
    """Whether the model was made to run in buffers; a dearer stand-in makes sure that there is a choice."""
    choice = choose((BOUND, Execution("again", CPU, captured=True)))
    assert choice.measured
    return isinstance(model.session, BoundSession)


def test_a_text_encoder_gives_the_same_vectors_in_buffers(text_folder):
    plain = OnnxTextEncoder.load(text_folder, ["CPUExecutionProvider"], threads=1)
    bound = OnnxTextEncoder.load(text_folder, ["CPUExecutionProvider"], threads=1)
    assert in_buffers(bound, lambda executions: bound.choose(TEXTS[:8], executions))
    np.testing.assert_allclose(bound.encode(TEXTS), plain.encode(TEXTS), atol=1e-5)
    assert bound.fingerprint == plain.fingerprint


def test_a_pair_cross_encoder_gives_the_same_logits_in_buffers(pair_folder):
    plain = OnnxPairCrossEncoder.load(pair_folder, ["CPUExecutionProvider"], threads=1)
    bound = OnnxPairCrossEncoder.load(pair_folder, ["CPUExecutionProvider"], threads=1)
    assert in_buffers(bound, lambda executions: bound.choose(PAIRS[:8], executions))
    np.testing.assert_allclose(bound.score(PAIRS), plain.score(PAIRS), atol=1e-5)


@pytest.mark.parametrize("later", ["same", "gone", "another"])
def test_many_texts_are_encoded_a_batch_on_each_core_by_the_graph_that_was_loaded(text_folder, tmp_path, later):
    folder = shutil.copytree(text_folder, tmp_path / "export")
    expected = OnnxTextEncoder.load(folder, ["CPUExecutionProvider"], threads=1).encode(TEXTS)
    several = OnnxTextEncoder.load(folder, ["CPUExecutionProvider"], threads=2)
    if later == "gone":
        shutil.rmtree(folder)
    elif later == "another":
        (folder / "model.onnx").write_bytes(b"?")
    np.testing.assert_allclose(several.encode(TEXTS), expected, atol=1e-5)
    assert (several._on_one_core is not None) == (later == "same")
    np.testing.assert_allclose(several.encode(TEXTS[:2]), expected[:2], atol=1e-5)


def test_an_encoder_is_saved_as_it_was_exported_whatever_runs_it(text_folder, tmp_path):
    bound = OnnxTextEncoder.load(text_folder)
    bound.choose(TEXTS[:8], (BOUND, Execution("again", CPU, captured=True)))
    bound.save(tmp_path / "new" / "folder")
    for path in text_folder.iterdir():
        assert (tmp_path / "new" / "folder" / path.name).read_bytes() == path.read_bytes()


def test_where_only_one_can_run_the_session_stays(text_folder):
    encoder = OnnxTextEncoder.load(text_folder)
    before = encoder.session
    choice = encoder.choose(TEXTS[:8], (BOUND, UNKNOWN))
    assert encoder.session is before
    assert (choice.execution, choice.measured) == ("bound", False)


def test_what_is_no_text_is_refused(text_folder):
    with pytest.raises(InputError, match="Text 1 is None"):
        OnnxTextEncoder.load(text_folder).choose(["a", None])
    with pytest.raises(InputError, match="Pass a list of texts, also for a single one, instead of 'a text'"):
        OnnxTextEncoder.load(text_folder).encode("a text")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("execution", [one for one in EXECUTIONS if one.provider == CUDA], ids=lambda one: one.name)
def test_cuda_gives_the_vectors_of_the_cpu(text_folder, execution):
    plain = OnnxTextEncoder.load(text_folder, ["CPUExecutionProvider"])
    other = OnnxTextEncoder.load(text_folder, ["CPUExecutionProvider"])
    choice = other.choose(TEXTS, (EXECUTIONS[0], execution))
    assert not choice.measurements[1].obstacle
    np.testing.assert_allclose(other.encode(TEXTS), plain.encode(TEXTS), atol=0.02)
