"""A Spark session, and folders on every machine of its cluster."""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import faiss
import pyarrow as pa
import torch
from pyspark import SparkFiles
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from threadpoolctl import threadpool_limits

from encoders.errors import ArtifactError, ConfigError, ExtraError
from ranker.temporary import remove_with, temporary_folder


@contextmanager
def session(master: str | None = None, name: str = "ranker") -> Iterator[SparkSession]:
    """The session that is open already, as in a notebook, or a new one, which ends with the block.

    Args:
        master: Where it runs, such as ``local[2]`` or ``spark://host:7077``; None: as Spark is configured.
        name: Of the application, as its pages show it.

    Raises:
        ExtraError: There is no Java.
        ConfigError: Spark did not start.
    """
    open_already = SparkSession.getActiveSession()
    if open_already is not None:
        yield open_already
        return
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        raise ExtraError(
            "Spark runs on Java 17, and there is none here: install it, and put java on the PATH or set JAVA_HOME. "
            'PySpark itself comes with the extra: pip install "hybrid-ranker[spark]".'
        )
    builder = SparkSession.builder.appName(name)
    if master is not None and master.startswith("local"):
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # its tasks run here, in this environment
    try:
        spark = (builder if master is None else builder.master(master)).getOrCreate()
    except PySparkException as error:
        raise ConfigError(f"Spark did not start with master {master!r} ({' '.join(str(error).split())}).") from error
    try:
        yield spark
    finally:
        spark.stop()


def send(spark: SparkSession, write: Callable[[Path], object]) -> str:
    """Send a folder to every machine, once each; ``folder_of`` finds it there until the session ends.

    Args:
        spark: The session.
        write: Fills the folder.

    Returns:
        The folder's name.

    Raises:
        ArtifactError: It cannot be sent.
    """
    name = f"ranker-{uuid4().hex}"
    with temporary_folder("spark-") as folder:
        write(folder / name)
        try:
            spark.sparkContext.addFile(str(folder / name), recursive=True)
        except Exception as error:  # Py4J hands on whatever Java raised
            raise ArtifactError(f"{folder / name}: could not be sent to the cluster ({error}).") from error
        remove_with(spark.sparkContext, folder)  # machines that join later fetch it from here
    return name


def folder_of(name: str) -> Path:
    """Where a folder that was sent is on this machine."""
    return Path(SparkFiles.get(name))


def mapped(table: DataFrame, function: Callable[..., Iterator[pa.RecordBatch]], schema: Any) -> DataFrame:
    """A table made by a function of Arrow batches, partition by partition."""
    with warnings.catch_warnings():  # Spark warns of a pandas that it checks for, and does not use here
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
        return table.mapInArrow(function, schema)


def on_one_core() -> None:
    """Keep this process to one core: Spark runs as many tasks beside each other as there are."""
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    threadpool_limits(1)
