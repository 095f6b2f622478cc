"""Candidates by Spark on this machine: by the number of its task threads."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from subprocess import run
from sys import argv, executable

import numpy as np
import pyarrow as pa

import ranker
from bench.scale.memory import FACTORS, fitted, save_with_users
from bench.scale.part import Asked, Told
from bench.sites import small_checkpoint
from bench.timing import Timings, median_ratio

EVENTS = 20  # of a user, on average
K = 200
ROUNDS = 3
PARTITIONS = 8  # of the users, so that no task thread waits long for the last one


def measured(asked: Asked) -> Told:
    """Candidates by Spark, by its task threads."""
    n_users, n_items, threads, rounds = (200, 300, (2,), 1) if asked.tiny else (20_000, 100_000, (1, 2), ROUNDS)
    timings = spark(n_users, n_items, threads, asked.folder, rounds)
    rows = [
        {
            "task threads": tasks, "jobs": len(each.latencies), "users a second": n_users / each.median,
            "times one": str(median_ratio(timings[1], each)) if tasks > 1 and 1 in timings else "",
        }
        for tasks, each in timings.items()
    ]  # fmt: skip
    protocol = (
        f"Candidates of ALS ({FACTORS} factors) and popularity, {K} for each of {n_users:,} users among {n_items:,} "
        "items, written as Parquet by local Spark. A session for each job, which has run once before it is timed."
    )
    return Told("Spark by task threads", protocol, rows, {"users": n_users, "items": n_items})


def spark(n_users: int, n_items: int, tasks: tuple[int, ...], folder: Path, rounds: int) -> dict[int, Timings]:
    """Seconds of a job that writes every user's candidates, by task threads, in turn.

    Args:
        n_users: How many.
        n_items: How many.
        tasks: Numbers of task threads.
        folder: An empty one.
        rounds: Jobs with each number.
    """
    model = folder / "model"
    save_with_users(fitted(n_items, small_checkpoint(folder / "checkpoint"), K), n_users, EVENTS, model)
    seconds: dict[int, list[float]] = {count: [] for count in tasks}
    for turn in range(rounds):
        for count in tasks if turn % 2 else tasks[::-1]:
            # a session takes its number of threads to its end, and Java its own: a process for each
            told = run(
                [executable, "-m", "bench.scale.spark", str(count), model], capture_output=True, text=True, check=True
            )
            seconds[count].append(float(told.stdout.splitlines()[-1]))
    return {count: Timings(np.array(each), np.array(each)) for count, each in seconds.items()}


def _job(tasks: int, model: Path) -> float:
    """Seconds of the job, whose Python processes have the model open since it ran before."""
    from ranker.spark import candidates, session, write

    engine = ranker.load(model)
    users = engine.users.ids
    with session(f"local[{tasks}]") as opened, tempfile.TemporaryDirectory(dir=model.parent) as folder:
        table = opened.createDataFrame(pa.table({"user_id": pa.array(list(users))})).repartition(PARTITIONS)
        found = candidates(opened, engine, table, K)
        seconds = []
        for name in ("first", "timed"):
            clock = time.perf_counter()
            rows = write(found, f"{folder}/{name}")
            seconds.append(time.perf_counter() - clock)
    assert rows == len(users) * K
    return seconds[-1]


if __name__ == "__main__":
    print(_job(int(argv[1]), Path(argv[2])))
