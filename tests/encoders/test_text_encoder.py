import numpy as np
import pytest
import torch
from tiny_models import WORDS, catalogue
from transformers import AutoModel, AutoTokenizer

from encoders import TextEncoder, TextEncoderConfig


def reference(folder, texts, pooling):
    """One text at a time through plain transformers, with no padding at all."""
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    vectors = []
    for text in texts:
        with torch.inference_mode():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        vector = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling]
        vectors.append((vector / vector.norm()).numpy())
    return np.stack(vectors)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("folder", ["bert_folder", "gpt2_folder", "roberta_folder"])
def test_vectors_equal_plain_transformers(folder, pooling, request):
    folder = request.getfixturevalue(folder)
    encoder = TextEncoder.load(folder, TextEncoderConfig(pooling=pooling, batch_size=7))
    texts = catalogue()
    np.testing.assert_allclose(encoder.encode(texts), reference(folder, texts, pooling), atol=1e-5)


def test_the_token_limit_is_the_lowest_of_the_three(bert_folder, roberta_folder):
    assert TextEncoder.load(bert_folder, TextEncoderConfig(max_tokens=20)).tokens.max_tokens == 20
    assert TextEncoder.load(bert_folder).tokens.max_tokens == 64
    assert TextEncoder.load(roberta_folder).tokens.max_tokens == 39  # positions are counted from after the padding id


def test_a_text_at_the_models_own_limit_is_encoded(roberta_folder, bert_folder, gpt2_folder):
    for folder in (roberta_folder, bert_folder, gpt2_folder):
        assert np.isfinite(TextEncoder.load(folder).encode([" ".join(WORDS * 40)])).all()


def test_settings_out_of_range_are_refused():
    for wrong in ({"pooling": "max"}, {"batch_size": 0}, {"max_tokens": 1}, {"layers": 3}):
        with pytest.raises((ValueError, TypeError)):
            TextEncoderConfig(**wrong)


@pytest.mark.slow
def test_minilm_equals_plain_transformers():
    encoder = TextEncoder.load()
    folder = encoder.model.config._name_or_path
    texts = ["Toy Story Animation Children's Comedy", "Heat Action Crime Thriller", "a", "日本語 ünïcode"]
    np.testing.assert_allclose(encoder.encode(texts), reference(folder, texts, "mean"), atol=1e-5)
    assert encoder.dim == 384
