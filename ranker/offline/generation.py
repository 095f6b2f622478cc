"""Generation: every user's candidates into shards, by several processes, on from where an earlier run ended."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path

import pyarrow as pa
from filelock import FileLock, Timeout
from tqdm import tqdm

from encoders.errors import ArtifactError, ConfigError, InputError
from ranker.arguments import View, check_known, listed
from ranker.artifact import refusal
from ranker.batches import BLOCK_USERS, check_candidates
from ranker.engine import Engine
from ranker.installed import libraries
from ranker.offline.folder import LOCK, MANIFEST, Manifest, Plan, Shard, agreed_plan, ids_sha256, plan_of, shard_name
from ranker.offline.shards import shard_of, write_shard, writers
from ranker.persistence import fingerprint, load_engine
from retrieval.ids import IdList, Ids
from retrieval.storage import load_settings, replace_settings

USERS_PER_SHARD = 5_000
LEFTOVERS = ".part-*.tmp", f".{MANIFEST}.*.tmp"


def generate(
    model: Path | str,
    out: Path | str,
    user_ids: Ids | None = None,
    k: int = 200,
    *,
    rerank: bool = False,
    horizon: View = "next",
    workers: int | None = None,
    users_per_shard: int = USERS_PER_SHARD,
    progress: bool = True,
) -> Manifest:
    """Write the candidates of many users into a folder of Parquet files.

    Each file holds the candidates of some users, in the users' order, and is written whole or not at all. A run that
    was killed goes on with what lacks when it is started again with the same, and the result is the same to the byte as
    that of a run that was not; a file that differs from what a complete run wrote is written again. Feedback that comes
    meanwhile is for the next run. In a script, call it under ``if __name__ == "__main__"``: its processes import that.

    Args:
        model: Folder of a saved engine.
        out: The folder, made where it is missing.
        user_ids: The users; None for everybody.
        k: Items for each, at most.
        rerank: Let the re-ranker order its part of them.
        horizon: As for ``Engine.recommend``: lists that will be used later are better of the lasting view.
        workers: Processes, each on one core; None: as many as this process may use cores.
        users_per_shard: In each file but the last.
        progress: Show a bar.

    Returns:
        What was written: rows, sizes, checksums.

    Raises:
        InputError: A user is unknown, there are no users or no such candidates, or the folder holds something else or
            another run's candidates; the message says what differs.
        ConfigError: A number is out of range.
        ArtifactError: The model cannot be read, or the disk refused; what was written stays, and a new run goes on.
    """
    model, out = Path(model), Path(out)
    workers = cores() if workers is None else workers
    for name, number in {"workers": workers, "users_per_shard": users_per_shard}.items():
        if not isinstance(number, int) or number < 1:
            raise ConfigError(f"{name} = {number!r}, but it must be an integer of at least 1.")
    engine = load_engine(model)
    with closing(engine.log):
        check_candidates(engine, k, rerank, horizon)
        given = None if user_ids is None else _known(engine, user_ids)
        with _alone_in(out):
            ids = _everybody(engine, out) if given is None else given
            plan = agreed_plan(out, _planned(engine, ids, k, rerank, horizon, users_per_shard))
            for pattern in LEFTOVERS:
                for path in out.glob(pattern):
                    path.unlink()
            return _completed(model, out, plan, ids, workers, progress)


def _completed(model: Path, out: Path, plan: Plan, ids: Sequence[object], workers: int, progress: bool) -> Manifest:
    """The folder once all of the plan's shards are there."""
    complete = (out / MANIFEST).exists() and load_settings(Manifest, out / MANIFEST)
    found = {number: _there(out, plan, number) for number in range(plan.shards)}
    if complete and complete.plan == plan:
        found = {number: shard if shard in complete.shards else None for number, shard in found.items()}
    shards = {number: shard for number, shard in found.items() if shard is not None}
    lacking = [number for number in found if number not in shards]
    with tqdm(total=plan.users, unit="user", disable=None if progress else True) as bar:
        bar.update(sum(shard.users for shard in shards.values()))
        for number, shard in _written(model, out, plan, ids, lacking, workers):
            shards[number] = shard
            bar.update(shard.users)
    every = tuple(shards[number] for number in found)
    manifest = Manifest(plan, sum(shard.rows for shard in every), every)
    replace_settings(manifest, out / MANIFEST)
    return manifest


@contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """The folder, made where it is missing, while no other run writes to it.

    Raises:
        InputError: Another run does.
        ArtifactError: The disk refused.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / LOCK, blocking=False):
            yield
    except Timeout as error:
        raise InputError(
            f"{out}: another run writes to this folder. Wait for its end, or choose another one."
        ) from error
    except ArtifactError:
        raise
    except OSError as error:
        raise ArtifactError(
            f"{out}: cannot be written ({refusal(error) or error}). Choose another folder, or mend that; what is there "
            "stays, and a new run goes on."
        ) from error


def _known(engine: Engine, user_ids: Ids) -> list[object]:
    """The users, all of whom are known."""
    ids = listed(user_ids)
    for start in range(0, len(ids), BLOCK_USERS):
        block = ids[start : start + BLOCK_USERS]
        check_known(block, engine.users.histories(block).lengths)
    return ids


def _everybody(engine: Engine, out: Path) -> IdList:
    """Of all users those who were there when the folder's plan was made.

    Raises:
        InputError: There are none.
    """
    if not len(engine.users.ids):
        raise InputError(f"{engine.folder}: holds no users, so there is nobody to generate candidates for.")
    before = plan_of(out)
    return engine.users.ids[: None if before is None else before.users]


def _planned(engine: Engine, ids: Sequence[object], k: int, rerank: bool, horizon: View, users_per_shard: int) -> Plan:
    return Plan(
        version=engine.version, fingerprint=fingerprint(engine), log_offset=engine.log.last_offset(),
        erasures=engine.log.erasures(), users=len(ids), users_sha256=ids_sha256(ids), k=k, rerank=rerank,
        users_per_shard=users_per_shard, libraries={**libraries(), "pyarrow": pa.__version__}, horizon=horizon,
    )  # fmt: skip


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _there(out: Path, plan: Plan, number: int) -> Shard | None:
    """A shard that an earlier run wrote."""
    path = out / shard_name(number)
    users = plan.shard(number)
    try:
        return shard_of(path, users.stop - users.start) if path.exists() else None
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}). Remove it, and generate again: it goes on.") from error


def _written(
    model: Path, out: Path, plan: Plan, ids: Sequence[object], numbers: Sequence[int], workers: int
) -> Iterator[tuple[int, Shard]]:
    """Write these shards; each as it is done."""
    if not numbers:
        return
    left = iter(numbers)
    with writers(model, plan, min(workers, len(numbers))) as pool:

        def begin(count: int) -> dict[Future[Shard], int]:
            return {
                pool.submit(write_shard, list(ids[plan.shard(number)]), out / shard_name(number)): number
                for number in islice(left, count)
            }

        try:
            under_way = begin(2 * workers)  # not all at once: each holds its users' ids
            while under_way:
                for done in wait(under_way, return_when=FIRST_COMPLETED).done:
                    yield under_way.pop(done), done.result()
                    under_way |= begin(1)
        except BrokenProcessPool as error:
            raise ArtifactError(
                f"{out}: a process that generated candidates was killed. If for want of memory, start again with fewer "
                "workers: what it wrote stays. A script has to call generate under if __name__ == '__main__', since "
                "each process imports it."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
