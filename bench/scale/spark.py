"""Candidates by Spark on this machine: by the number of its task threads."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import run
from sys import argv, executable

import numpy as np
import pyarrow as pa

import ranker
from bench.scale.engines import FACTORS, of_als, of_films, save_with_users
from bench.scale.part import Asked, Told
from bench.sites import small_checkpoint
from bench.timing import Timings, median_ratio
from ranker.reranker import CrossEncoderReranker, Gain

EVENTS = 20  # of a user, on average
ITEMS = 100_000  # of the made-up catalogue
ROUNDS = 3
PARTITIONS = 8  # of the users, so that no task thread waits long for the last one
K = 200


@dataclass(frozen=True, slots=True)
class Job:
    """What Spark is asked for.

    Attributes:
        name: What it is called.
        engine: What was asked → the engine; its users make way for made-up ones.
        users: How many.
        k: Candidates for each.
        rerank: Whether the re-ranker orders them.
    """

    name: str
    engine: Callable[[Asked], ranker.Engine]
    users: int
    k: int
    rerank: bool


def cheap(asked: Asked) -> ranker.Engine:
    """ALS and popularity over the made-up catalogue."""
    return of_als(300 if asked.tiny else ITEMS, small_checkpoint(asked.folder / "checkpoint"), K)


def reranked(asked: Asked) -> ranker.Engine:
    """ALS, text and popularity over MovieLens-100K's films, and joint layers that serve whatever they learned."""
    engine = of_films(asked.folder, asked.data, asked.tiny)
    reranker = engine.reranker
    assert isinstance(reranker, CrossEncoderReranker)
    reranker.gain = reranker.saved_gain = Gain(1.0, 0.0)
    return engine


JOBS = (
    Job(f"{K} by ALS ({FACTORS} factors) and popularity, of {ITEMS:,} items", cheap, 20_000, K, rerank=False),
    Job("100 by ALS, text and popularity, of 1,682 films, re-ranked", reranked, 2_000, 100, rerank=True),
)


def measured(asked: Asked) -> Told:
    """Candidates by Spark, by its task threads."""
    rows = []
    for job in JOBS[-1:] if asked.tiny else JOBS:  # the last does all that the first does
        number = JOBS.index(job)
        n_users, threads, rounds = (60, (2,), 1) if asked.tiny else (job.users, (1, 2), ROUNDS)
        model = asked.folder / f"model-{number}"
        save_with_users(job.engine(asked), n_users, EVENTS, model)
        timings = spark(model, number, threads, rounds)
        rows += [
            {
                "for each user": job.name, "task threads": tasks, "jobs": len(each.latencies),
                "users": n_users, "users a second": n_users / each.median,
                "times one": str(median_ratio(timings[1], each)) if tasks > 1 and 1 in timings else "",
            }
            for tasks, each in timings.items()
        ]  # fmt: skip
    protocol = (
        "Candidates written as Parquet by local Spark. A session for each job, which has run once before it is timed."
    )
    return Told("Spark by task threads", protocol, rows, {})


def spark(model: Path, number: int, tasks: tuple[int, ...], rounds: int) -> dict[int, Timings]:
    """Seconds of a job that writes every user's candidates, by task threads, in turn.

    Args:
        model: The engine's folder.
        number: Of the job in ``JOBS``.
        tasks: Numbers of task threads.
        rounds: Runs with each number.
    """
    seconds: dict[int, list[float]] = {count: [] for count in tasks}
    for turn in range(rounds):
        for count in tasks if turn % 2 else tasks[::-1]:
            # a session takes its number of threads to its end, and Java its own: a process for each
            command = [executable, "-m", "bench.scale.spark", str(count), str(number), model]
            told = run(command, capture_output=True, text=True, check=True)
            seconds[count].append(float(told.stdout.splitlines()[-1]))
    return {count: Timings(np.array(each), np.array(each)) for count, each in seconds.items()}


def _seconds(tasks: int, job: Job, model: Path) -> float:
    """What the job takes, once its Python processes have the model open since it ran before."""
    from ranker.spark import candidates, session, write

    engine = ranker.load(model)
    users = engine.users.ids
    with session(f"local[{tasks}]") as opened, tempfile.TemporaryDirectory(dir=model.parent) as folder:
        table = opened.createDataFrame(pa.table({"user_id": pa.array(list(users))})).repartition(PARTITIONS)
        found = candidates(opened, engine, table, job.k, rerank=job.rerank)
        seconds = []
        for name in ("first", "timed"):
            clock = time.perf_counter()
            rows = write(found, f"{folder}/{name}")
            seconds.append(time.perf_counter() - clock)
    assert rows == len(users) * job.k
    return seconds[-1]


if __name__ == "__main__":
    print(_seconds(int(argv[1]), JOBS[int(argv[2])], Path(argv[3])))
