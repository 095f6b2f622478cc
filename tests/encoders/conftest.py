"""Tiny random checkpoints, and one encoder and one scorer of every kind made from them."""

import pytest
import torch
from tiny_models import (
    bert_config,
    distilbert_checkpoint,
    exported,
    gpt2_checkpoint,
    ranking_task,
    roberta_checkpoint,
    save_checkpoint,
    wordpiece_tokenizer,
)
from transformers import BertModel

from encoders import (
    ExportConfig,
    OnnxPairCrossEncoder,
    PairCrossEncoder,
    PairCrossEncoderConfig,
    TextEncoder,
    TextEncoderConfig,
    export_pair_cross_encoder,
)


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory):
    torch.manual_seed(0)
    return save_checkpoint(tmp_path_factory.mktemp("bert"), BertModel(bert_config()), wordpiece_tokenizer())


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory):
    return gpt2_checkpoint(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="session")
def roberta_folder(tmp_path_factory):
    return roberta_checkpoint(tmp_path_factory.mktemp("roberta"))


@pytest.fixture(scope="session")
def distilbert_folder(tmp_path_factory):
    return distilbert_checkpoint(tmp_path_factory.mktemp("distilbert"))


@pytest.fixture(scope="session")
def cuttable(bert_folder, distilbert_folder, roberta_folder):
    """An encoder of every family that can be cut into lower and joint layers, by name."""
    config = TextEncoderConfig(max_tokens=32, batch_size=4)
    folders = {"bert": bert_folder, "distilbert": distilbert_folder, "roberta": roberta_folder}
    return {name: TextEncoder.load(folder, config) for name, folder in folders.items()}


@pytest.fixture(scope="session")
def encoders(bert_folder, gpt2_folder, roberta_folder, tmp_path_factory):
    """One encoder of every kind, by name."""
    config = TextEncoderConfig(max_tokens=32, batch_size=4)
    found = {
        "bert": TextEncoder.load(bert_folder, config),
        "gpt2": TextEncoder.load(gpt2_folder, config),
        "roberta": TextEncoder.load(roberta_folder, config),
    }
    for name in tuple(found):
        for precision in ("fp32", "int8"):
            folder = tmp_path_factory.mktemp(name) / precision
            found[f"{name}-{precision}"] = exported(found[name], folder, precision)
    return found


@pytest.fixture(scope="session")
def scorers(bert_folder, roberta_folder, tmp_path_factory):
    """One pair scorer of every kind, by name."""
    config = PairCrossEncoderConfig(max_tokens=32, batch_size=4)
    found = {
        "bert": PairCrossEncoder.load(bert_folder, config, seed=3),
        "roberta": PairCrossEncoder.load(roberta_folder, config, seed=3),
    }
    for name in tuple(found):
        for precision in ("fp32", "int8"):
            folder = tmp_path_factory.mktemp(f"{name}-pair") / precision
            export = ExportConfig(precisions=(precision,), tolerance=0.9)
            export_pair_cross_encoder(found[name], ranking_task(found[name]), folder, export)
            found[f"{name}-{precision}"] = OnnxPairCrossEncoder.load(folder)
    return found
