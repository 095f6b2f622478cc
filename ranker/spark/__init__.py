"""Where Spark meets the engine; needs the extra ``spark``."""

from importlib.util import find_spec

from encoders.errors import ExtraError

if find_spec("pyspark") is None:
    raise ExtraError(
        'ranker.spark needs PySpark, which is not installed: pip install "hybrid-ranker[spark]". It runs on Java 17.'
    )

from ranker.spark.als import fit_als
from ranker.spark.candidates import candidates, write
from ranker.spark.encoding import encode
from ranker.spark.session import session
from ranker.spark.sink import FeedbackSink

__all__ = ["FeedbackSink", "candidates", "encode", "fit_als", "session", "write"]
