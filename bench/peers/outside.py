"""Peers that run as a process of their own, in the environment that ``make peers`` sets up."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.peers import rank
from retrieval.candidates import NO_ITEM
from retrieval.histories import Histories

PYTHON = Path(".venv-peers/bin/python")  # below the root of the project, where the benchmarks are run


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """What a peer ranked, and how long that took.

    Attributes:
        items: (U, k) positions in the catalogue, best first, NO_ITEM at the end.
        fit_s: Seconds of fitting.
        rank_s: Seconds of ranking for all users.
    """

    items: NDArray[np.int64]
    fit_s: float
    rank_s: float


def ranked_outside(
    model: str, settings: Mapping[str, Any], log: Histories, rows: NDArray[np.int64], k: int, seed: int
) -> Ranked:
    """Fit a peer on a log and rank for some of its users what they did not have.

    Args:
        model: Its name, a key of ``bench.peers.rank.MODELS``.
        settings: Of the model.
        log: Every user's history; positive events alone are given to it.
        rows: (U,) of the users.
        k: Items for each.
        seed: Of everything random.

    Raises:
        SystemExit: There is no environment for peers, or the model failed; the message holds what it said.
    """
    if not PYTHON.exists():
        raise SystemExit(f"{model} runs in an environment of its own, which is not there. Set it up with: make peers")
    liked = log.liked()
    train = pd.DataFrame(
        {
            "user_id": liked.rows,
            "item_id": liked.items,
            "weight": liked.weights,
            "datetime": liked.times.astype("datetime64[us]"),
        }
    )
    with TemporaryDirectory() as name:
        folder = Path(name)
        # users' own orders stay as they are: the sort is stable
        train.sort_values("datetime", kind="stable").to_parquet(folder / "train.parquet")
        pd.DataFrame({"user_id": rows}).to_parquet(folder / "users.parquet")
        job = {"model": model, "settings": dict(settings), "seed": seed, "k": k}
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        done = subprocess.run([PYTHON, rank.__file__, folder], capture_output=True, text=True, check=False)
        if done.returncode:
            told = " ".join(line.strip() for line in done.stderr.strip().splitlines()[-4:])
            raise SystemExit(f"{model} failed: {told}")
        found = pd.read_parquet(folder / "ranked.parquet")
        took = json.loads((folder / "took.json").read_bytes())
    items = np.full((len(rows), k), NO_ITEM, np.int64)
    places = pd.Index(rows).get_indexer(found["user_id"])
    items[places, found["rank"].to_numpy(np.int64) - 1] = found["item_id"]
    return Ranked(items, took["fit_s"], took["rank_s"])
