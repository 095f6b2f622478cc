"""Settings by data set and protocol: read from a file beside this one, which ``--tune-peers`` writes for the peers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bench.demo import console
from bench.peers.grids import GRIDS, combinations
from bench.quality.protocols import LIKED, ProtocolName, Task
from bench.quality.systems import LIKED_FROM, peer_answer
from ranker.data.movielens import MovieLensName
from ranker.evaluation import per_user_metrics

METRIC = "ndcg@10"
TUNED_ON = 2_000  # lists at most: a replay asks for tens of thousands


def path_of(data: MovieLensName, protocol: ProtocolName) -> Path:
    """Where the settings for a protocol on a data set are kept."""
    return Path(__file__).with_name("settings") / f"{data}-{protocol}.yaml"


def read(data: MovieLensName, protocol: ProtocolName) -> dict[str, Any]:
    """``engine``, ``others`` (further engines beside it, by name) and ``peers`` (by name).

    The engine's and the peers' are what was chosen on validation, and the defaults where nothing was.
    """
    path = path_of(data, protocol)
    kept = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {part: kept.get(part, {}) for part in ("engine", "others", "peers")}


def tune_peers(task: Task, names: Sequence[str], data: MovieLensName) -> dict[str, Any]:
    """Try every setting of these peers on validation, and keep the best of each one in the file.

    Where it is high ratings that are to be found in one list for each user, every setting is tried twice: with all
    ratings as signs of liking, and with the high ones alone. A peer whose grid is a single setting is left out, since
    there is nothing to choose, or a try takes too long.

    Args:
        task: The validation's questions.
        names: Of the peers.
        data: The data set.
    """
    kept = read(data, task.protocol)
    task = task.some(TUNED_ON, seed=0)
    readings = ({}, {LIKED_FROM: LIKED}) if task.protocol in ("temporal", "cold") else ({},)
    for name in names:
        grid = list(combinations(GRIDS[name]))
        if len(grid) == 1:
            continue
        every = [{**settings, **reading} for settings in grid for reading in readings]
        tried = [(quality(name, settings, task), settings) for settings in every]
        best, settings = max(tried, key=lambda one: one[0])
        console.print(f"{name}: {best:.4f} with {settings}, the best of {len(tried)}", highlight=False)
        kept["peers"][name] = settings
        path_of(data, task.protocol).write_text(yaml.safe_dump(kept, sort_keys=False), encoding="utf-8")
    return kept


def quality(name: str, settings: dict[str, Any], task: Task) -> float:
    """Mean NDCG@10 over the lists."""
    answer = peer_answer(name, settings, task, seed=0)
    return float(np.mean(per_user_metrics(answer.items, task.asked.relevant, (10,))[METRIC]))
