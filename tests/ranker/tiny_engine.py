"""A made-up site small enough to fit an engine on in seconds: four tastes, and users who mostly keep to one."""

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from tiny_models import bert_config, save_checkpoint, wordpiece_tokenizer
from transformers import BertModel

import ranker
from encoders import PairCrossEncoderConfig, TextEncoderConfig
from ranker import Between, EngineConfig
from ranker.config import JointTrainingConfig, PairConfig, RerankConfig, SplitConfig, TrainingConfig
from ranker.feedback.events import COLUMNS, DTYPES
from retrieval.als import AlsConfig
from retrieval.fusion import FusionConfig

N_USERS, N_ITEMS = 40, 60
TASTES = (("robot", "war", "city"), ("cat", "love", "summer"), ("river", "old", "story"), ("dog", "winter", "night"))
START = pd.Timestamp("2024-01-01")
HISTORY = pd.DataFrame({"user_id": ["a", "a", "b", "c", "a"], "item_id": ["i1", "i5", "i2", "i59", "i9"]})


def taste(n: int) -> int:
    return n % len(TASTES)


def items() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(TASTES[taste(n)], 4)) + f" {n}" for n in range(N_ITEMS)]
    return pd.DataFrame(
        {
            "item_id": [f"i{n}" for n in range(N_ITEMS)],
            "title": [" ".join(text.split()[:2]) for text in texts],
            "text": texts,
            "year": [1960 + n for n in range(N_ITEMS)],
            "genres": [[f"g{taste(n)}", "any"] for n in range(N_ITEMS)],
        }
    )


def interactions() -> pd.DataFrame:
    """Ten different items a user, eight of them of the user's own taste; user ids are integers from 100."""
    rng = np.random.default_rng(2)
    rows = []
    for user in range(N_USERS):
        own = [n for n in range(N_ITEMS) if taste(n) == taste(user)]
        others = [n for n in range(N_ITEMS) if taste(n) != taste(user)]
        chosen = [*rng.permutation(own)[:8], *rng.permutation(others)[:2]]
        for place, item in enumerate(rng.permutation(chosen)):
            rows.append((100 + user, f"i{item}", 1.0, START + pd.Timedelta(hours=int(100 * place + user))))
    return pd.DataFrame(rows, columns=["user_id", "item_id", "weight", "datetime"])


def checkpoint(folder):
    torch.manual_seed(0)
    return save_checkpoint(folder, BertModel(bert_config()), wordpiece_tokenizer())


def config(folder, **changes) -> EngineConfig:
    training = TrainingConfig(
        holdout=2, newcomers=0, negatives=3, epochs=2, batch_size=16, learning_rate=1e-3, evaluations_per_epoch=1
    )
    settings = {
        "checkpoint": str(folder),
        "encoder": TextEncoderConfig(max_tokens=32, batch_size=16, device="cpu"),
        "als": AlsConfig(factors=8, iterations=5, regularization=1.0, alpha=1.0),
        "fusion": FusionConfig(depth=15),
        "rerank": RerankConfig(
            kind="pair",
            pair=PairConfig(
                checkpoint=str(folder),
                model=PairCrossEncoderConfig(max_tokens=48, batch_size=16, layers=1, device="cpu"),
                depth=8,
                context_items=3,
                training=training,
            ),
        ),
    }
    return EngineConfig(**(settings | changes))


def split_config(folder, split=None, **changes) -> EngineConfig:
    """The same with a split cross-encoder, by default over the encoder in torch.

    Without transitions: these users' order is chance, and what learns from feedback is to see their tastes alone.
    """
    training = JointTrainingConfig(
        holdout=2, newcomers=0, negatives=7, epochs=2, batch_size=16, learning_rate=2e-3, evaluations_per_epoch=1
    )
    settings = {"depth": 8, "events": 4, "quantized": False, "max_tokens": 16, "training": training}
    rerank = RerankConfig(kind="split", split=SplitConfig(**(settings | (split or {}))))
    return config(folder, **({"sources": ("als", "text", "popularity"), "rerank": rerank} | changes))


def events(*rows: tuple, **columns) -> pd.DataFrame:
    """Feedback from (event id, user, item, kind) rows, all at one time after the log, without a value."""
    table = pd.DataFrame(rows, columns=["event_id", "user_id", "item_id", "kind"])
    return table.assign(value=np.nan, datetime=START + pd.Timedelta(days=100)).assign(**columns)


def as_logged(table: pd.DataFrame) -> pd.DataFrame:
    """Feedback with every column of a checked event."""
    table = table.reindex(columns=list(COLUMNS))
    return table.assign(source=table["source"].astype(object).where(table["source"].notna(), "")).astype(DTYPES)


def answers(engine):
    """What an engine says, of every kind."""
    users = [*range(100, 140), 7]
    history = pd.DataFrame({"user_id": ["x", "x", "y"], "item_id": ["i1", "i5", "i2"]})
    return {
        "recommend": engine.recommend(users, 12),
        "query": engine.recommend(users, 12, query="red robot"),
        "history": engine.recommend(history=history, k=50),
        "where": engine.recommend(users, 12, where={"genres": "g1", "year": Between(1965, 2000)}),
        "rank": engine.rank(101, [f"i{n}" for n in range(1, N_ITEMS, 3)]),
        "rank query": engine.rank(101, [f"i{n}" for n in range(1, N_ITEMS, 3)], query="old river"),
        "similar": engine.similar_items([f"i{n}" for n in range(1, N_ITEMS)], 9),
        "candidates": pa.Table.from_batches(list(engine.candidates(range(100, 140), k=50))).to_pandas(),
    }


def small_fit(checkpoint, items, interactions):
    """An engine without a reranker, which is fitted sooner."""
    fused = config(checkpoint, rerank=RerankConfig(enabled=False))
    return ranker.fit(interactions, items, fused, progress=False)


def assert_same(one, other):
    """Equal lists; scores to a few units in the last place, which differ with where in memory weights happen to lie."""
    for name, table in one.items():
        pd.testing.assert_frame_equal(other[name], table, rtol=1e-6, atol=1e-6, obj=name)
