"""Batches hold every text once, and no more tokens than whoever reads them wants."""

import numpy as np
import pytest
from tiny_models import wordpiece_tokenizer

from encoders.batching import CPU_TOKENS, TextTokenizer

TEXTS = ["cat " * words for words in (1, 2, 90, 3, 40, 40, 600, 41, 0, 7, 5, 60)] * 3


@pytest.fixture
def tokens():
    return TextTokenizer(wordpiece_tokenizer().backend_tokenizer, max_tokens=500, pad_id=0, batch_size=8)


@pytest.mark.parametrize("on_cpu", [True, False])
def test_each_text_is_in_one_batch_of_limited_size(tokens, on_cpu):
    batches = list(tokens.text_batches(TEXTS, on_cpu=on_cpu))
    assert sorted(np.concatenate([batch.rows for batch in batches])) == list(range(len(TEXTS)))
    assert max(len(batch.rows) for batch in batches) == 8
    large = [batch for batch in batches if batch.input_ids.size > CPU_TOKENS]
    assert all(len(batch.rows) == 1 for batch in large) or not on_cpu
    assert large


@pytest.mark.parametrize("on_cpu", [True, False])
def test_pairs_are_batched_as_texts_are(tokens, on_cpu):
    batches = list(tokens.pair_batches([(text, "dog") for text in TEXTS], on_cpu=on_cpu))
    assert sorted(np.concatenate([batch.rows for batch in batches])) == list(range(len(TEXTS)))
    assert all(batch.input_ids.size <= CPU_TOKENS or len(batch.rows) == 1 for batch in batches) is on_cpu
