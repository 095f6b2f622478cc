"""The processes that write shards: each has the model open, memory-mapped, and one core."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path

import faiss
import pyarrow.parquet as pq
import torch
from threadpoolctl import threadpool_limits

from encoders.errors import ArtifactError, InputError
from ranker.artifact import refusal
from ranker.batches import candidate_batches, schema_of
from ranker.engine import Engine
from ranker.offline.folder import Plan, Shard, sha256_of
from ranker.persistence import fingerprint, load_engine
from ranker.users import LoggedActs, UserHistories
from retrieval.storage import replacing


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
    """What a process works with."""

    engine: Engine
    users: UserHistories  # as of the plan's offset
    fingerprint: str


_task: tuple[Path, Plan]  # of this process


def writers(model: Path, plan: Plan, count: int) -> ProcessPoolExecutor:
    """So many processes for ``write_shard``, which end with this one."""
    kinds = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in kinds else "spawn")
    if "forkserver" in kinds:
        # torch takes seconds, and so does what an encoder that was not exported is read with, here as there
        context.set_forkserver_preload([__name__, *({"transformers.modeling_utils"} & sys.modules.keys())])
    return ProcessPoolExecutor(count, context, _begin, (model, plan))


def _begin(model: Path, plan: Plan) -> None:
    global _task
    _task = model, plan
    parent = multiprocessing.parent_process()
    if parent is not None:  # a killed one leaves its processes waiting for work
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)


@cache
def _opened() -> _Opened:
    """The model in this process; opened with its first shard, whose caller is told if that fails."""
    model, plan = _task
    engine = load_engine(model)
    acts = LoggedActs(engine.log, engine.config.feedback, engine.catalogue.ids, until=plan.log_offset)
    return _Opened(engine, engine.users.over(acts), fingerprint(engine))


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def write_shard(user_ids: Sequence[object], path: Path) -> Shard:
    """Write the candidates of these users, whole or not at all.

    Raises:
        InputError: A user is unknown, or the model is no longer the plan's.
        ArtifactError: The model cannot be read, or the disk refused.
    """
    plan, opened = _task[1], _opened()
    engine = opened.engine
    if opened.fingerprint != plan.fingerprint:
        raise InputError(f"{engine.folder}: was changed while candidates were generated. Let it be, and start again.")
    told = {"model_version": plan.version, "model_sha256": plan.fingerprint}
    schema = schema_of(engine, plan.horizon).with_metadata(told)
    try:
        with (
            threadpool_limits(1),
            replacing(path) as part,
            pq.ParquetWriter(part, schema, compression="zstd") as writer,
        ):
            for batch in candidate_batches(engine, user_ids, plan.k, plan.rerank, plan.horizon, opened.users):
                writer.write_batch(batch.replace_schema_metadata(schema.metadata))
    except OSError as error:
        why = refusal(error)
        if why is None:
            raise
        raise ArtifactError(f"{path}: was not written ({why}). Make room, and generate again: it goes on.") from error
    return shard_of(path, len(user_ids))


def shard_of(path: Path, users: int) -> Shard:
    """What a shard that is there holds."""
    rows = pq.read_metadata(path).num_rows
    return Shard(path.name, users, rows, path.stat().st_size, sha256_of(path))
