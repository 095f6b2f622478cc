"""A sink of Spark Structured Streaming: feedback that a site streams already, into an engine's log."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from ranker.engine import Engine
from ranker.following import AT_ONCE, Recorded, Recorder, Refuse

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

logger = logging.getLogger(__name__)


class FeedbackSink:
    """Records each micro-batch of a stream of events; pass it to ``DataStreamWriter.foreachBatch``.

    Spark gives a batch again after a failure, and event ids make that harmless: each event counts exactly once. A row
    that is no event is refused by itself. The rows come to the driver, which holds the engine.

        events.writeStream.foreachBatch(FeedbackSink(engine)).option("checkpointLocation", folder).start()

    Args:
        engine: Whose log they go into.
        refuse: Is told each refused row, as JSON, and why; None logs a warning.
    """

    def __init__(self, engine: Engine, refuse: Refuse | None = None) -> None:
        self._recorder = Recorder(engine, _warn if refuse is None else refuse)

    @property
    def counts(self) -> Recorded:
        """What became of the rows so far."""
        return self._recorder.counts

    def __call__(self, batch: DataFrame, number: int) -> None:
        """Record a batch; all of it is on disk, or refused, when it returns.

        Args:
            batch: Columns as for ``Engine.feedback``; missing values are null.
            number: Of the batch, which Spark passes.

        Raises:
            ArtifactError: The log cannot be written; Spark stops the query, and gives the batch again later.
        """
        for part in batch.toArrow().to_batches(max_chunksize=AT_ONCE):
            rows = part.to_pylist()
            told = [(json.dumps(row, default=str), row) for row in rows]
            self._recorder.record_rows(told)


def _warn(row: str, why: str) -> None:
    logger.warning("A row is no event: %s %s", why, row[:500])
