"""Exports: fusion, the gate, and folders that are whole or not there."""

import collections
import json

import numpy as np
import onnx
import pytest
import torch
from scipy import sparse
from tiny_models import (
    bert_config,
    catalogue,
    ranking_task,
    retrieval_task,
    save_checkpoint,
    wordpiece_tokenizer,
)
from transformers import BertModel

from encoders import (
    ExportConfig,
    OnnxPairCrossEncoder,
    OnnxTextEncoder,
    PairCrossEncoder,
    RetrievalTask,
    TextEncoder,
    export_pair_cross_encoder,
    export_text_encoder,
)
from encoders.errors import ArtifactError, ExportError, InputError
from encoders.gate import RetrievalGate


def operators(path):
    return collections.Counter(node.op_type for node in onnx.load(str(path)).graph.node)


@pytest.fixture(scope="module")
def encoder(bert_folder):
    return TextEncoder.load(bert_folder)


@pytest.fixture(scope="module")
def task(encoder):
    return retrieval_task(encoder, catalogue(60))


@pytest.fixture(scope="module")
def outlier_encoder(tmp_path_factory):
    """Right in fp32, ruined in half precision and in 8 bits.

    One channel of what attention gathers is huge in every token and then ignored, so it takes all the steps
    there are; the rest of that tensor decides the vectors, but through weights beyond half precision's range.
    """
    torch.manual_seed(0)
    model = BertModel(bert_config(num_hidden_layers=1))
    attention = model.encoder.layer[0].attention
    with torch.no_grad():
        attention.self.value.bias[0] = 1e6
        attention.output.dense.weight[:, 0] = 0
        attention.self.value.weight.mul_(1e-6)
        attention.output.dense.weight.mul_(50e6)
    folder = tmp_path_factory.mktemp("outlier")
    return TextEncoder.load(save_checkpoint(folder, model, wordpiece_tokenizer()))


def test_attention_norms_and_activations_are_fused(encoder, task, tmp_path):
    export_text_encoder(encoder, task, tmp_path / "out", ExportConfig(precisions=("fp32",)))
    found = operators(tmp_path / "out" / "model.onnx")
    assert (found["Attention"], found["LayerNormalization"], found["BiasGelu"]) == (3, 7, 3)
    assert found["Softmax"] == 0


def test_int8_leaves_no_float_product_with_weights(encoder, task, tmp_path):
    export_text_encoder(encoder, task, tmp_path / "out", ExportConfig(precisions=("int8",), tolerance=0.5))
    model = onnx.load(str(tmp_path / "out" / "model.onnx"))
    found = operators(tmp_path / "out" / "model.onnx")
    assert found["MatMul"] == found["Attention"] == 0
    assert (
        found["MatMulIntegerToFloat"] == 12
    )  # query-key-value, attention output, two of the feed-forward, in 3 layers
    floats = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    assert max(int(np.prod(tensor.dims)) for tensor in floats) <= 64 * 32  # the position table


def test_the_report_says_what_was_tried(encoder, task, tmp_path):
    report = export_text_encoder(encoder, task, tmp_path / "out", ExportConfig(precisions=("fp32",)))
    (row,) = report.tried
    assert (report.chosen, row.passed, row.size) == ("fp32", True, 1.0)
    assert [change.name for change in row.changes] == ["recall@10", "ndcg@10"]
    for change in row.changes:
        assert change.original == pytest.approx(change.exported, abs=1e-3)
        assert change.low <= change.loss <= change.high
    assert row.agreement["overlap@10"] == pytest.approx(1.0, abs=0.01)
    assert row.agreement["cosine_min"] == pytest.approx(1.0, abs=1e-4)
    assert row.bytes == (tmp_path / "out" / "model.onnx").stat().st_size
    for shown in ("chosen: fp32", "passed", "recall@10", "overlap@10", "100% of fp32"):
        assert shown in str(report)


def test_the_folder_holds_the_report(encoder, task, tmp_path):
    report = export_text_encoder(encoder, task, tmp_path / "out", ExportConfig(precisions=("fp32",)))
    assert OnnxTextEncoder.load(tmp_path / "out").manifest.report == report
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "export.json",
        "model.onnx",
        "tokenizer.json",
    ]


@pytest.mark.parametrize("ruined", ["fp16", "int8"])
def test_a_ruined_precision_is_refused_and_the_next_one_taken(outlier_encoder, tmp_path, ruined):
    task = retrieval_task(outlier_encoder, catalogue(60))
    report = export_text_encoder(outlier_encoder, task, tmp_path / "out", ExportConfig(precisions=(ruined, "fp32")))
    assert report.chosen == "fp32"
    assert [row.passed for row in report.tried] == [False, True]
    assert report.tried[0].changes[1].loss > 0.1


def test_when_every_precision_is_ruined_the_figures_are_given_and_nothing_is_written(outlier_encoder, tmp_path):
    task = retrieval_task(outlier_encoder, catalogue(60))
    with pytest.raises(ExportError, match=r"No precision kept within 1.0% .*int8 refused recall@10 .*overlap@10"):
        export_text_encoder(outlier_encoder, task, tmp_path / "out", ExportConfig(precisions=("int8",)))
    assert list(tmp_path.iterdir()) == []


def test_a_refused_export_leaves_the_earlier_one_in_place(encoder, outlier_encoder, task, tmp_path):
    export_text_encoder(encoder, task, tmp_path / "out", ExportConfig(precisions=("fp32",)))
    before = OnnxTextEncoder.load(tmp_path / "out").encode(["cat"])
    with pytest.raises(ExportError):
        export_text_encoder(
            outlier_encoder, retrieval_task(outlier_encoder, catalogue(60)), tmp_path / "out",
            ExportConfig(precisions=("int8",)),
        )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    np.testing.assert_array_equal(OnnxTextEncoder.load(tmp_path / "out").encode(["cat"]), before)


def test_an_export_replaces_an_earlier_one(encoder, task, tmp_path):
    for precision in ("fp32", "int8"):
        export_text_encoder(encoder, task, tmp_path / "out", ExportConfig(precisions=(precision,), tolerance=0.5))
        assert OnnxTextEncoder.load(tmp_path / "out").manifest.precision == precision
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_of_something_else_is_left_alone(encoder, task, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds something that is no export"):
        export_text_encoder(encoder, task, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_the_gate_refuses_another_models_weights(encoder, task, tmp_path):
    torch.manual_seed(99)
    other = TextEncoder.load(save_checkpoint(tmp_path / "other", BertModel(bert_config()), wordpiece_tokenizer()))
    other_task = retrieval_task(other, catalogue(60))
    export_text_encoder(other, other_task, tmp_path / "out", ExportConfig(precisions=("fp32",)))
    verdict = RetrievalGate(encoder, task, k=10, tolerance=0.01, seed=0).judge(OnnxTextEncoder.load(tmp_path / "out"))
    assert not verdict.passed
    assert all(change.low > 0.1 for change in verdict.changes)


def test_a_task_that_the_original_cannot_do_is_no_task(encoder):
    texts = catalogue(60)
    vectors = encoder.encode(texts)
    farthest = np.argmin(vectors @ vectors.T, axis=1)
    relevant = np.zeros((60, 60), dtype=bool)
    relevant[np.arange(60), farthest] = True
    hopeless = RetrievalTask(texts, texts, sparse.csr_array(relevant))
    with pytest.raises(InputError, match="recall@1 on this task is 0"):
        RetrievalGate(encoder, hopeless, k=1, tolerance=0.01, seed=0).judge(encoder)


def test_the_original_keeps_its_mode_and_kernels(bert_folder, task, tmp_path):
    encoder = TextEncoder.load(bert_folder)
    encoder.model.train()
    kernels = encoder.model.config._attn_implementation
    trace_task = retrieval_task(encoder, catalogue(20))
    encoder.model.train()
    export_text_encoder(encoder, trace_task, tmp_path / "out", ExportConfig(precisions=("fp32",)))
    assert encoder.model.config._attn_implementation == kernels


def test_a_cross_encoder_export_reports_kendalls_tau(bert_folder, tmp_path):
    scorer = PairCrossEncoder.load(bert_folder, seed=1)
    report = export_pair_cross_encoder(
        scorer, ranking_task(scorer), tmp_path / "out", ExportConfig(precisions=("fp32",))
    )
    (row,) = report.tried
    assert [change.name for change in row.changes] == ["ndcg@10"]
    assert row.agreement["kendall_tau_min"] == pytest.approx(1.0)


def test_half_precision_works_on_request(encoder, task, tmp_path):
    report = export_text_encoder(encoder, task, tmp_path / "out", ExportConfig(precisions=("fp16",), tolerance=0.05))
    assert report.tried[0].size < 0.6
    np.testing.assert_allclose(
        OnnxTextEncoder.load(tmp_path / "out").encode(["old cat"]), encoder.encode(["old cat"]), atol=0.02
    )


# damaged folders


@pytest.fixture
def folder(encoder, task, tmp_path):
    export_text_encoder(encoder, task, tmp_path / "out", ExportConfig(precisions=("fp32",)))
    return tmp_path / "out"


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "export.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=name):
        OnnxTextEncoder.load(folder)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "export.json"])
def test_a_truncated_file_is_named(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactError, match=name):
        OnnxTextEncoder.load(folder)


@pytest.mark.parametrize(
    "change",
    [{"format": 2}, {"dim": 0}, {"max_tokens": "many"}, {"surprise": 1}, {"kind": "pair_cross_encoder"}],
)
def test_a_foreign_manifest_is_named(folder, change):
    manifest = json.loads((folder / "export.json").read_text())
    (folder / "export.json").write_text(json.dumps(manifest | change))
    with pytest.raises(ArtifactError, match=r"export\.json"):
        OnnxTextEncoder.load(folder)


def test_a_text_encoder_is_not_a_cross_encoder(folder):
    with pytest.raises(ArtifactError, match="describes a text_encoder, not a pair_cross_encoder"):
        OnnxPairCrossEncoder.load(folder)


@pytest.mark.slow
def test_minilm_exports_to_int8_within_the_tolerance(tmp_path):
    encoder = TextEncoder.load()
    texts = tuple(f"{text} in the {place}" for text in catalogue(60) for place in ("north", "south"))
    report = export_text_encoder(
        encoder, retrieval_task(encoder, texts), tmp_path / "out", ExportConfig(tolerance=0.05)
    )
    assert report.chosen == "int8"
    assert report.tried[0].size < 0.3
    assert report.tried[0].agreement["cosine_min"] > 0.98


@pytest.mark.slow
def test_minilm_fuses_all_its_layers_and_equals_torch_in_fp32(tmp_path):
    encoder = TextEncoder.load()
    texts = catalogue(60)
    export_text_encoder(encoder, retrieval_task(encoder, texts), tmp_path / "out", ExportConfig(precisions=("fp32",)))
    found = operators(tmp_path / "out" / "model.onnx")
    assert (found["Attention"], found["LayerNormalization"], found["BiasGelu"]) == (6, 13, 6)
    np.testing.assert_allclose(OnnxTextEncoder.load(tmp_path / "out").encode(texts), encoder.encode(texts), atol=1e-5)


@pytest.mark.slow
def test_an_int8_minilm_batch_equals_its_texts_one_by_one(tmp_path):
    encoder = TextEncoder.load()
    texts = catalogue(200)
    export_text_encoder(
        encoder,
        retrieval_task(encoder, texts),
        tmp_path / "out",
        ExportConfig(precisions=("int8",), tolerance=0.2),
    )
    served = OnnxTextEncoder.load(tmp_path / "out")
    alone = np.concatenate([served.encode([text]) for text in texts])
    np.testing.assert_allclose(served.encode(texts), alone, atol=1e-5)
