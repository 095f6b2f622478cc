"""A made-up site with a tiny encoder, and the dial that was trained on it."""

import pytest
import torch
from tiny_models import bert_config, save_checkpoint, wordpiece_tokenizer
from transformers import BertModel

from bench.dial import run
from bench.sites import made_up_tables, prepare
from bench.variants import every_variant
from ranker import EngineConfig
from ranker.evaluation import leave_one_out


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    torch.manual_seed(0)
    checkpoint = save_checkpoint(tmp_path_factory.mktemp("checkpoint"), BertModel(bert_config()), wordpiece_tokenizer())
    training = {
        "max_lists": 200, "holdout": 3, "negatives": 3, "epochs": 4, "batch_size": 8, "learning_rate": 5e-3,
    }  # fmt: skip
    config = EngineConfig.from_dict(
        {
            "checkpoint": str(checkpoint),
            "encoder": {"max_tokens": 32, "device": "cpu"},
            "rerank": {"kind": "split", "split": {"depth": 10, "events": 5, "training": training}},
        }
    )
    interactions, items = made_up_tables()
    return prepare(leave_one_out(interactions).train, items, config, test_share=0.5)


@pytest.fixture(scope="session")
def variants():
    return every_variant([1])


@pytest.fixture(scope="session")
def dial(site, variants, tmp_path_factory):
    """The folder of a dial; no test may write to it."""
    folder = tmp_path_factory.mktemp("dial")
    run(site, variants, {"protocol": "As it was.", "machine": {"threads": "1"}, "settings": {"lists": 200}}, folder)
    return folder
