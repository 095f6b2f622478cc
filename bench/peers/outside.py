"""Peers that run as a process of their own, in the environment that ``make peers`` sets up."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from bench.peers import rank
from bench.peers.ranked import Ranked
from retrieval.candidates import NO_ITEM
from retrieval.histories import Histories

PYTHON = Path(".venv-peers/bin/python")  # below the root of the project, where the benchmarks are run


def ranked_outside(
    model: str, settings: Mapping[str, Any], train: Histories, asked: Histories, k: int, seed: int
) -> Ranked:
    """Fit a peer on a log and rank by other histories what they do not hold.

    Args:
        model: Its name, a key of ``bench.peers.rank.MODELS``.
        settings: Of the model.
        train: Every user's history; of these and those asked for, positive events alone are given to it.
        asked: L rows to rank for; one without a positive event gets nothing.
        k: Items for each.
        seed: Of everything random.

    Raises:
        SystemExit: There is no environment for peers, or the model failed; the message holds what it said.
    """
    if not PYTHON.exists():
        raise SystemExit(f"{model} runs in an environment of its own, which is not there. Set it up with: make peers")
    with TemporaryDirectory() as name:
        folder = Path(name)
        events(train).to_parquet(folder / "train.parquet")
        events(asked).to_parquet(folder / "asked.parquet")
        job = {"model": model, "settings": dict(settings), "seed": seed, "k": k}
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        done = subprocess.run([PYTHON, rank.__file__, folder], capture_output=True, text=True, check=False)
        if done.returncode:
            told = " ".join(line.strip() for line in done.stderr.strip().splitlines()[-4:])
            raise SystemExit(f"{model} failed: {told}")
        found = pd.read_parquet(folder / "ranked.parquet")
        took = json.loads((folder / "took.json").read_bytes())
    items = np.full((len(asked), k), NO_ITEM, np.int64)
    items[found["user_id"].to_numpy(np.int64), found["rank"].to_numpy(np.int64) - 1] = found["item_id"]
    return Ranked(items, took["fit_s"], took["rank_s"])


def events(histories: Histories) -> pd.DataFrame:
    """Positive events as a table, in time order; a user's own order stays as it is."""
    liked = histories.liked()
    table = pd.DataFrame(
        {
            "user_id": liked.rows,
            "item_id": liked.items,
            "weight": liked.weights,
            "datetime": liked.times.astype("datetime64[us]"),
        }
    )
    return table.sort_values("datetime", kind="stable")
