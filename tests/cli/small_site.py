"""The files of one small site, and what a command left."""

import json
import string
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

N_USERS, N_ITEMS, EVENTS = 40, 30, 6
NEVER_SEEN = 7
WORDS = ("river", "city", "night", "winter", "robot", "love", "war", "story")


@dataclass(frozen=True)
class Shelf:
    """Files of one small site.

    Users 1 to 40 saw up to six neighbouring items of one parity, in order. Item 7 is in nobody's log.
    """

    interactions: Path
    items: Path
    config: Path


@dataclass(frozen=True)
class Result:
    """What one command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))

    def refused(self, *words: str) -> None:
        """Assert that it was refused as the user's mistake, in one line that has these words."""
        assert (self.code, self.out) == (2, ""), self
        *notes, line = self.err.splitlines()
        assert line.startswith("error: ")
        assert not [note for note in notes if "error" in note.lower() or "Traceback" in note]
        for word in words:
            assert word in line


@dataclass(frozen=True)
class Fitted:
    """The fitted engine's folder, which no test may change, and what `ranker --json fit` left."""

    folder: Path
    result: Result


Run = Callable[..., Result]


def write_site(folder: Path) -> Shelf:
    rng = np.random.default_rng(0)
    rows = []
    for user in range(1, N_USERS + 1):
        first = 1 + user % 2 + 2 * int(rng.integers(N_ITEMS // 2 - EVENTS))
        for at in range(EVENTS):
            item = first + 2 * at
            if item != NEVER_SEEN:
                rows.append((user, item, 1.0 + at % 3, 1_000 * user + 10_000 * at))
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "weight", "datetime"])
    log.to_csv(folder / "log.csv", index=False)
    items = pd.DataFrame(
        {
            "item_id": range(1, N_ITEMS + 1),
            "title": [f"Film {item}" for item in range(1, N_ITEMS + 1)],
            "text": [f"{WORDS[item % 2]} {WORDS[2 + item % 3]} film {item}" for item in range(1, N_ITEMS + 1)],
            "year": [1990 + item % 10 for item in range(1, N_ITEMS + 1)],
            "genre": ["Drama, odd" if item % 2 else "Comedy" for item in range(1, N_ITEMS + 1)],
        }
    )
    items.to_csv(folder / "items.csv", index=False)
    settings = {
        "checkpoint": str(_checkpoint(folder / "bert")),
        "encoder": {"max_tokens": 16},
        "als": {"factors": 8, "iterations": 3},
        "rerank": {
            "kind": "pair",
            "pair": {
                "checkpoint": str(folder / "bert"),
                "model": {"max_tokens": 32},
                "depth": 5,
                "training": {"max_lists": 40, "negatives": 2, "validation_lists": 10, "evaluations_per_epoch": 1},
            },
        },
        "export": {"tolerance": 0.9},
    }
    (folder / "engine.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return Shelf(folder / "log.csv", folder / "items.csv", folder / "engine.yaml")


def _checkpoint(folder: Path) -> Path:
    letters = string.ascii_lowercase + string.digits
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, "film", *letters, *(f"##{letter}" for letter in letters)]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=128,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        initializer_range=0.2,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}
