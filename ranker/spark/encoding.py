"""Text vectors of a catalogue on a cluster, by an exported encoder."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import pyarrow as pa
from pyspark.sql import DataFrame

from encoders import OnnxTextEncoder
from encoders.errors import InputError
from ranker.spark.session import folder_of, mapped, on_one_core, send


def encode(texts: DataFrame, encoder: OnnxTextEncoder) -> DataFrame:
    """Encode texts, each task its partition on one core.

    Args:
        texts: ``item_id`` and ``text``.
        encoder: The exported encoder, such as ``OnnxTextEncoder.load(model / "v0001" / "encoder")``; a copy goes to
            every machine once.

    Returns:
        ``item_id`` and ``vector``, of length 1.

    Raises:
        InputError: A column is missing. A text that is null fails the job.
        ArtifactError: The encoder's files cannot be read.
    """
    for name in ("item_id", "text"):
        if name not in texts.columns:
            raise InputError(f"texts: no column {name!r}; the columns are {', '.join(texts.columns)}.")

    def write(folder: Path) -> None:
        folder.mkdir()
        encoder.save(folder)

    name = send(texts.sparkSession, write)
    kind = dict(texts.dtypes)["item_id"]
    return mapped(texts.select("item_id", "text"), partial(_encoded, name), f"item_id {kind}, vector array<float>")


@cache
def _opened(name: str) -> OnnxTextEncoder:
    on_one_core()
    return OnnxTextEncoder.load(folder_of(name), threads=1)


def _encoded(name: str, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    encoder = _opened(name)
    for batch in batches:
        vectors = encoder.encode(batch.column("text").to_pylist())
        starts = pa.array(range(0, vectors.size + 1, encoder.dim), pa.int32())
        lists = pa.ListArray.from_arrays(starts, pa.array(vectors.ravel()))
        yield pa.RecordBatch.from_arrays([batch.column("item_id"), lists], ["item_id", "vector"])
