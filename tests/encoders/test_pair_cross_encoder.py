import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import bert_config, catalogue, save_checkpoint, wordpiece_tokenizer
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
    BertModel,
)

from encoders import PairCrossEncoder, PairCrossEncoderConfig
from encoders.errors import ConfigError

PAIRS = list(zip(catalogue(12), catalogue(12, seed=1), strict=True))


def test_scores_equal_plain_transformers(bert_folder, tmp_path):
    scorer = PairCrossEncoder.load(bert_folder, seed=1)
    scorer.save(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    with torch.inference_mode():
        expected = [model(**tokenizer(*pair, return_tensors="pt")).logits.item() for pair in PAIRS]
    np.testing.assert_allclose(scorer.score(PAIRS), expected, atol=1e-5)


@pytest.mark.parametrize("layers", [None, 2])
def test_saved_and_loaded_scores_are_equal(bert_folder, tmp_path, layers):
    scorer = PairCrossEncoder.load(bert_folder, PairCrossEncoderConfig(layers=layers), seed=1)
    scorer.save(tmp_path)
    loaded = PairCrossEncoder.load(tmp_path, seed=2)  # a saved head is kept, whatever the seed
    np.testing.assert_array_equal(loaded.score(PAIRS), scorer.score(PAIRS))


def test_a_fresh_head_follows_the_seed(bert_folder):
    one, same, other = (PairCrossEncoder.load(bert_folder, seed=seed).score(PAIRS) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)


def test_a_missing_pooler_is_made_and_follows_the_seed(bert_folder, tmp_path):
    save_checkpoint(tmp_path, BertModel.from_pretrained(bert_folder), wordpiece_tokenizer())
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "pooler" not in name}
    assert len(kept) < len(weights)
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    one, same, other = (PairCrossEncoder.load(tmp_path, seed=seed) for seed in (1, 1, 2))
    pooler = [scorer.model.bert.pooler.dense.weight for scorer in (one, same, other)]
    assert torch.equal(pooler[0], pooler[1])
    assert not torch.equal(pooler[0], pooler[2])


def test_fewer_layers_are_the_first_ones(bert_folder):
    full = PairCrossEncoder.load(bert_folder).model.bert.encoder.layer
    cut = PairCrossEncoder.load(bert_folder, PairCrossEncoderConfig(layers=2)).model.bert.encoder.layer
    assert len(cut) == 2
    for kept, original in zip(cut, full, strict=False):
        for one, other in zip(kept.parameters(), original.parameters(), strict=True):
            assert torch.equal(one, other)


def test_more_layers_than_there_are_is_an_error(bert_folder):
    with pytest.raises(ConfigError, match=r"layers=4, but .* has 3"):
        PairCrossEncoder.load(bert_folder, PairCrossEncoderConfig(layers=4))


def test_a_classifier_with_several_labels_is_refused(tmp_path):
    save_checkpoint(tmp_path, BertForSequenceClassification(bert_config(num_labels=3)), wordpiece_tokenizer())
    with pytest.raises(ConfigError, match="classifies into 3 labels"):
        PairCrossEncoder.load(tmp_path)


def test_loading_leaves_the_random_state_alone(bert_folder):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    PairCrossEncoder.load(bert_folder, seed=9)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(("first", "second"), [(4, 4), (40, 4), (4, 40), (40, 40), (0, 40), (40, 0), (0, 0)])
def test_the_longer_side_gives_way_by_the_stated_rule(bert_folder, first, second):
    tokens = PairCrossEncoder.load(bert_folder, PairCrossEncoderConfig(max_tokens=23)).tokens
    batch = next(tokens.pair_batches([("cat " * first, "dog " * second)]))
    length = int(batch.attention_mask.sum())
    second_kept = int(batch.token_type_ids.sum()) - 1
    assert second_kept == min(second, 20 - min(first, 5))
    assert length - 3 - second_kept == min(first, 20 - second_kept)


@pytest.mark.slow
def test_minilm_becomes_a_cross_encoder_with_its_own_transformer():
    scorer = PairCrossEncoder.load("sentence-transformers/all-MiniLM-L6-v2", PairCrossEncoderConfig(layers=3))
    assert len(scorer.model.bert.encoder.layer) == 3
    assert np.isfinite(scorer.score([("liked Toy Story", "A Bug's Life"), ("liked Toy Story", "Heat")])).all()
