"""Where Spark meets the engine; needs the extra ``spark``."""

from importlib.util import find_spec

from encoders.errors import ExtraError

if find_spec("pyspark") is None:
    raise ExtraError(
        'ranker.spark needs PySpark, which is not installed: pip install "hybrid-ranker[spark]". It runs on Java 17.'
    )

from ranker.spark.sink import FeedbackSink

__all__ = ["FeedbackSink"]
