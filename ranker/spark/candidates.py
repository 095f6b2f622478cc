"""Candidates of many users on a cluster: each task answers for its part of the users from a model on local disk."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import pyarrow as pa
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from encoders.errors import ArtifactError, InputError
from ranker.arguments import View, check_known, listed
from ranker.batches import BLOCK_USERS, candidate_batches, check_candidates, schema_of
from ranker.engine import Engine
from ranker.persistence import fingerprint, load_engine, save_engine
from ranker.spark.session import folder_of, mapped, on_one_core, send
from retrieval.ids import Ids

USERS_PER_PARTITION = 5_000


def candidates(
    spark: SparkSession,
    engine: Engine,
    users: DataFrame | Ids | None = None,
    k: int = 200,
    *,
    rerank: bool = False,
    horizon: View = "next",
) -> DataFrame:
    """The candidates of many users, as ``ranker.offline.generate`` writes them, in the same schema.

    A copy of the engine, with all that its log holds at this moment, goes to every machine once; each Python process
    opens it memory-mapped, and what a task that is run again answers is the same. Write the answer where it belongs:

        candidates(spark, ranker.load("model")).write.parquet("s3a://shop/candidates", compression="zstd")

    Args:
        spark: The session; ``hybrid-ranker`` is installed on its machines.
        engine: A saved engine.
        users: A table with the column ``user_id``, which keeps its partitions; a list of ids; None for everybody.
        k: Items for each, at most.
        rerank: Let the re-ranker order its part of them.
        horizon: As for ``Engine.recommend``: lists that will be used later are better of the lasting view.

    Returns:
        ``user_id, item_id, score, rank`` and each source's own score. Version and SHA-256 of the model are in the
        metadata of ``user_id``. Nothing is computed before it is written or counted.

    Raises:
        InputError: A user of a list is unknown, the list is empty, ``k`` is out of range, the table has no column
            ``user_id``, or the engine is not saved as it is. Unknown users of a table fail its job.
        ArtifactError: The engine cannot be copied.
    """
    check_candidates(engine, k, rerank, horizon)
    told = {"model_version": engine.version, "model_sha256": fingerprint(engine)}
    schema = schema_of(engine, horizon)
    table = _table(spark, engine, users, schema.field("user_id").type)
    name = send(spark, partial(_copy, engine, told["model_sha256"]))
    found = mapped(table.select("user_id"), partial(_found, name, k, rerank, horizon), from_arrow_schema(schema))
    return found.withMetadata("user_id", told)


def write(found: DataFrame, out: str) -> int:
    """Write candidates into a new folder of Parquet files; how many rows.

    Raises:
        InputError: There is something already.
        ArtifactError: The job failed; the message says why. What it left is no answer: there is no ``_SUCCESS``.
    """
    try:
        found.write.parquet(out, compression="zstd")
        return found.sparkSession.read.parquet(out).count()
    except AnalysisException as error:
        if error.getCondition() == "PATH_ALREADY_EXISTS":
            raise InputError(f"{out}: is there already. Choose another folder, or remove it.") from error
        raise
    except PySparkException as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        why = next((line for line in lines if line.startswith("encoders.errors.")), lines[0])
        raise ArtifactError(f"{out}: was not written ({why.partition(': ')[2] or why}).") from error


def _table(spark: SparkSession, engine: Engine, users: DataFrame | Ids | None, kind: pa.DataType) -> DataFrame:
    if isinstance(users, DataFrame):
        if "user_id" not in users.columns:
            raise InputError(f"users: no column 'user_id'; the columns are {', '.join(users.columns)}.")
        return users
    ids = engine.users.ids if users is None else listed(users)
    if users is not None:
        for start in range(0, len(ids), BLOCK_USERS):
            block = ids[start : start + BLOCK_USERS]
            check_known(block, engine.users.histories(block).lengths)
    table = spark.createDataFrame(pa.table({"user_id": pa.array(ids, kind)}))
    return table.repartition(max(spark.sparkContext.defaultParallelism, -(-len(ids) // USERS_PER_PARTITION)))


def _copy(engine: Engine, expected: str, folder: Path) -> None:
    """Save an engine as it is on disk, with its log as of now, into another folder."""
    if engine.folder is None:
        raise InputError("This engine is not saved. Save it to a folder first.")
    copy = load_engine(engine.folder)
    try:
        if fingerprint(copy) != expected:
            raise InputError(f"{engine.folder}: holds another version than was loaded. Load it again.")
        save_engine(copy, folder)
    finally:
        copy.log.close()


@cache
def _opened(name: str) -> Engine:
    on_one_core()
    return load_engine(folder_of(name))


def _found(
    name: str, k: int, rerank: bool, horizon: View, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    engine = _opened(name)
    for batch in batches:
        if len(batch):
            yield from candidate_batches(engine, batch.column(0).to_pylist(), k, rerank, horizon, engine.users)
