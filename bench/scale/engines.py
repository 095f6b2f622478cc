"""Engines to generate with: of made-up factors, or of films, each with any number of made-up users."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

import ranker
from bench.scale.made import histories
from bench.sites import few_users, small_checkpoint
from ranker.data import load_movielens
from ranker.intake import Intake
from retrieval.ids import IdMap
from retrieval.interactions import Interactions

FACTORS = 64
SHORT_FIT = {  # of the engine whose encoder and joint layers are timed: what it learned is of no matter
    "sources": ["als", "text", "popularity"], "lasting": {"enabled": False},
    "rerank": {"split": {"training": {"max_lists": 300, "epochs": 1, "validation_lists": 50}}},
}  # fmt: skip


def of_als(n_items: int, checkpoint: str, depth: int) -> ranker.Engine:
    """An engine that ranks by ALS, of a small log, with so many candidates of each source."""
    log = histories(2_000, n_items, 20, np.random.default_rng(0))
    events = pd.DataFrame({"user_id": log.rows, "item_id": log.items, "weight": 1.0})
    events["datetime"] = pd.to_datetime(log.times, unit="s")
    texts = [f"item {item}" for item in range(n_items)]
    config = ranker.EngineConfig.from_dict(
        {
            "checkpoint": checkpoint, "sources": ["als", "popularity"], "als": {"factors": FACTORS},
            "fusion": {"depth": depth}, "rerank": {"enabled": False}, "lasting": {"enabled": False},
        }
    )  # fmt: skip
    return ranker.fit(events, pd.DataFrame({"item_id": range(n_items), "title": texts, "text": texts}), config)


def of_films(folder: Path, data: Path, tiny: bool) -> ranker.Engine:
    """An engine whose encoder and joint layers take the time of a good one's.

    Args:
        folder: Where a small transformer goes, if need be.
        data: Where MovieLens-100K is kept.
        tiny: Of few users, with a small transformer.
    """
    paths = load_movielens("ml-100k", data)
    interactions, items = pd.read_parquet(paths.interactions), pd.read_parquet(paths.items)
    config = ranker.EngineConfig.from_dict(
        {**SHORT_FIT, "checkpoint": small_checkpoint(folder / "checkpoint")} if tiny else SHORT_FIT
    )
    return ranker.fit(few_users(interactions) if tiny else interactions, items, config)


def save_with_users(engine: ranker.Engine, n_users: int, events: int, folder: Path) -> None:
    """Save an engine with so many made-up users of so many events on average in place of its own."""
    made = histories(n_users, len(engine.catalogue), events, np.random.default_rng(1))
    log = Interactions(IdMap(np.arange(n_users)), made)
    engine.intake = Intake(log, engine.log, engine.catalogue, engine.config.feedback, engine.observations)
    engine.save(folder)
