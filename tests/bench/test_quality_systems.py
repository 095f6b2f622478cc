"""What an engine answers as a whole is what it answers beside its parts."""

import numpy as np
import pytest
import torch
from tiny_models import bert_config, save_checkpoint, wordpiece_tokenizer
from transformers import BertModel

from bench.quality.protocols import pose
from bench.quality.systems import SERVED, TOLD_LATER, engine_answer, engine_answers
from bench.sites import made_up_tables


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    torch.manual_seed(0)
    folder = save_checkpoint(tmp_path_factory.mktemp("checkpoint"), BertModel(bert_config()), wordpiece_tokenizer())
    return {
        "checkpoint": str(folder),
        "encoder": {"max_tokens": 32, "device": "cpu"},
        "rerank": {"enabled": False},
        "liked_from": 2,
    }


@pytest.mark.parametrize("protocol", ["loo", "temporal", "prequential", "cold"])
def test_an_engine_is_asked_for_its_lists_alone(settings, protocol):
    interactions, items = made_up_tables()
    task = pose(interactions.assign(weight=5.0), items, protocol, "file")
    every = engine_answers(task, settings, 0)
    alone = engine_answer(task, settings, 0)
    np.testing.assert_array_equal(alone.items, every[SERVED[protocol]].items)
    assert alone.fit_s > 0
    assert alone.list_ms > 0
    assert (TOLD_LATER in every) == (protocol == "cold")
