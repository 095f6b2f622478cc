"""A stream of Spark's file source ends in the log, each event once, whatever Spark repeats."""

import json

import pandas as pd
import pytest
from tiny_engine import events

from ranker.spark import FeedbackSink

pytestmark = pytest.mark.slow

SCHEMA = "event_id string, user_id long, item_id string, kind string, value double, datetime timestamp, list_id string"


def write(folder, name, rows):
    fields = ("event_id", "user_id", "item_id", "kind", "value")
    lines = [json.dumps(dict(zip(fields, row, strict=True)) | {"datetime": "2024-06-01T10:00:00Z"}) for row in rows]
    (folder / name).write_text("\n".join(lines) + "\n")


def run(spark, folder, sink, checkpoint):
    stream = spark.readStream.schema(SCHEMA).option("maxFilesPerTrigger", 1).json(str(folder))
    query = (
        stream.writeStream.foreachBatch(sink)
        .option("checkpointLocation", str(checkpoint))
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination()


@pytest.fixture
def folder(tmp_path):
    found = tmp_path / "in"
    found.mkdir()
    return found


def test_each_event_counts_once_and_a_wrong_row_is_refused_alone(spark, engine, folder, tmp_path):
    refused = []
    sink = FeedbackSink(engine, lambda row, why: refused.append((json.loads(row)["event_id"], why)))
    write(folder, "0.json", [("a", 100, "i1", "click", None), ("b", 100, "nothing", "click", None)])
    write(folder, "1.json", [("c", 101, "i2", "dwell", 30.0), ("a", 100, "i1", "click", None)])
    run(spark, folder, sink, tmp_path / "checkpoint")
    assert sorted(engine.log.read()["event_id"]) == ["a", "c"]
    assert [(name, "'nothing'" in why) for name, why in refused] == [("b", True)]
    write(folder, "2.json", [("d", 102, "i3", "click", None)])
    run(spark, folder, sink, tmp_path / "checkpoint")  # goes on
    assert vars(sink.counts) == {"new": 3, "known": 1, "refused": 1}
    run(spark, folder, sink, tmp_path / "another")  # everything once more, as after a lost checkpoint
    assert vars(sink.counts) == {"new": 3, "known": 5, "refused": 2}
    held = engine.log.read()
    assert held["event_id"].is_unique
    assert set(held["datetime"]) == {pd.Timestamp("2024-06-01 10:00")}
    assert held.set_index("event_id").loc["c", "value"] == 30


def test_a_batch_that_fails_half_way_is_given_again(spark, engine, folder, tmp_path):
    sink = FeedbackSink(engine)
    write(folder, "0.json", [(f"e{n}", 100 + n % 40, f"i{n % 60}", "click", None) for n in range(50)])

    def fails_after_recording(batch, number):
        sink(batch, number)
        raise OSError("the machine went away")

    with pytest.raises(Exception, match="the machine went away"):
        run(spark, folder, fails_after_recording, tmp_path / "checkpoint")
    assert len(engine.log) == 50
    run(spark, folder, sink, tmp_path / "checkpoint")
    assert len(engine.log) == 50
    assert vars(sink.counts) == {"new": 50, "known": 50, "refused": 0}
    assert engine.feedback(events(("e0", 100, "i0", "click"), datetime="2024-06-01T10:00:00")) == 0
