import json
import logging

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig, GPT2Config, LlamaConfig, RobertaConfig

from encoders.errors import ArtifactError, ConfigError
from encoders.pooling import pool, resolve_pooling


def by_hand(states, pooling):
    vector = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling]
    return vector / vector.norm()


@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4), left=st.booleans(), seed=st.integers(0, 99))
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_pooling_reads_the_tokens_alone_whichever_side_is_padded(pooling, lengths, left, seed):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(len(lengths), 6, 5, generator=generator)
    mask = torch.zeros(len(lengths), 6, dtype=torch.int64)
    spans = [slice(6 - n, 6) if left else slice(0, n) for n in lengths]
    for row, span in enumerate(spans):
        mask[row, span] = 1
    expected = torch.stack([by_hand(hidden[row, span], pooling) for row, span in enumerate(spans)])
    np.testing.assert_allclose(pool(hidden, mask, pooling), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "pooling"),
    [(BertConfig(), "mean"), (RobertaConfig(), "mean"), (GPT2Config(), "last"), (LlamaConfig(), "last")],
)
def test_a_plain_checkpoint_is_pooled_by_its_kind(tmp_path, config, pooling):
    assert resolve_pooling(tmp_path, config) == pooling


@pytest.mark.parametrize(
    ("settings", "pooling"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"embedding_dimension": 384, "pooling_mode": "cls"}, "cls"),
    ],
)
def test_the_sentence_transformers_file_decides(tmp_path, settings, pooling):
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    assert resolve_pooling(tmp_path, BertConfig()) == pooling


@pytest.mark.parametrize("settings", [{"pooling_mode_max_tokens": True}, {"pooling_mode": "max"}, {}])
def test_a_pooling_that_is_not_offered_is_named(tmp_path, settings):
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match="offered are mean, cls and last"):
        resolve_pooling(tmp_path, BertConfig())


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_pooling_file_is_named(tmp_path, content):
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"1_Pooling"):
        resolve_pooling(tmp_path, BertConfig())


def test_a_left_out_dense_module_is_logged(tmp_path, caplog):
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    (tmp_path / "2_Dense").mkdir()
    with caplog.at_level(logging.WARNING):
        resolve_pooling(tmp_path, BertConfig())
    assert "Dense module" in caplog.text
