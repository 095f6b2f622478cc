"""Candidates by Spark are those of one machine, whatever becomes of its tasks."""

import os
import signal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from tiny_engine import events, interactions, items, small_fit

import ranker
from encoders.errors import ArtifactError, InputError
from ranker.offline import generate, read_manifest
from ranker.persistence import fingerprint
from ranker.spark import candidates, write
from ranker.spark.session import mapped

pytestmark = pytest.mark.slow

K = 12


@pytest.fixture
def told(engine):
    """A saved engine that was told something since."""
    engine.feedback(events(("a", 100, "i1", "click"), ("b", 7, "i5", "purchase")))
    return engine


def rows(table):
    return table.sort_values(["user_id", "rank"]).reset_index(drop=True)


@pytest.mark.parametrize("asked", [{}, {"rerank": True}, {"horizon": "lasting"}], ids=str)
def test_rows_are_those_of_one_machine(spark, told, tmp_path, asked):
    generate(told.folder, tmp_path / "local", k=K, **asked, workers=1, progress=False)
    found = candidates(spark, told, k=K, **asked)
    found.write.parquet(str(tmp_path / "spark"), compression="zstd")
    local, spread = (pd.read_parquet(tmp_path / name) for name in ("local", "spark"))
    assert local["user_id"].nunique() == 41  # the one who came since is there, too
    pd.testing.assert_frame_equal(rows(spread), rows(local), rtol=1e-5, atol=1e-5)
    assert found.schema["user_id"].metadata["model_sha256"] == fingerprint(told)
    assert read_manifest(tmp_path / "local").plan.fingerprint == fingerprint(told)
    assert found.rdd.getNumPartitions() == 2


def test_the_users_may_be_a_list_or_a_table(spark, told):
    expected = pa.Table.from_batches(list(told.candidates([103, 7, 120], k=K))).to_pandas()
    listed = candidates(spark, told, [103, 7, 120], K).toArrow().to_pandas()
    pd.testing.assert_frame_equal(rows(listed), rows(expected), rtol=1e-5, atol=1e-5)
    table = spark.createDataFrame([(103, "x"), (7, "y"), (120, "z")], "user_id long, name string").repartition(3)
    pd.testing.assert_frame_equal(rows(candidates(spark, told, table, K).toArrow().to_pandas()), rows(listed))


def test_a_task_that_is_killed_changes_nothing(spark, told, tmp_path):
    found = candidates(spark, told, k=K)
    marker = str(tmp_path / "killed")

    def killed_once(batches):
        for batch in batches:
            yield batch
            try:
                os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            os.kill(os.getpid(), signal.SIGKILL)

    mapped(found, killed_once, found.schema).write.parquet(str(tmp_path / "out"))
    assert os.path.exists(marker)
    expected = pa.Table.from_batches(list(told.candidates(k=K))).to_pandas()
    pd.testing.assert_frame_equal(rows(pd.read_parquet(tmp_path / "out")), rows(expected), rtol=1e-5, atol=1e-5)


def test_what_cannot_be_asked_for_is_refused_before_a_job(spark, told):
    with pytest.raises(InputError, match=r"unknown.*999"):
        candidates(spark, told, [100, 999], K)
    with pytest.raises(InputError, match="user_ids is empty"):
        candidates(spark, told, [], K)
    with pytest.raises(InputError, match="k = 61"):
        candidates(spark, told, k=61)
    with pytest.raises(InputError, match=r"no column 'user_id'.*visitor"):
        candidates(spark, told, spark.createDataFrame([(1,)], "visitor long"), K)
    ranker.load(told.folder).save(told.folder)
    with pytest.raises(InputError, match="holds another version than was loaded"):
        candidates(spark, told, k=K)


def test_an_unknown_user_of_a_table_fails_the_job_with_the_reason(spark, told):
    table = spark.createDataFrame([(100,), (999,)], "user_id long")
    with pytest.raises(Exception, match=r"users are unknown \(first: 999\)"):
        candidates(spark, told, table, K).count()


def test_a_user_may_have_any_id_that_the_engine_knows(spark, checkpoint, tmp_path):
    log = interactions().assign(user_id=lambda table: "u" + table["user_id"].astype(str))
    engine = ranker.export(small_fit(checkpoint, items(), log), tmp_path / "strings").engine
    found = candidates(spark, engine, ["u100"], 5).toArrow().to_pandas()
    assert found["user_id"].tolist() == ["u100"] * 5
    assert found["rank"].tolist() == [1, 2, 3, 4, 5]
    assert np.isfinite(found["score"]).all()


def test_they_are_written_once(spark, told, tmp_path):
    out = str(tmp_path / "out")
    found = candidates(spark, told, [100, 101], K)
    assert write(found, out) == 2 * K
    with pytest.raises(InputError, match="is there already"):
        write(found, out)
    table = spark.createDataFrame([(100,), (999,)], "user_id long")
    with pytest.raises(ArtifactError, match=r"was not written \(1 of 2 users are unknown \(first: 999\)"):
        write(candidates(spark, told, table.coalesce(1), K), str(tmp_path / "another"))
    assert not (tmp_path / "another" / "_SUCCESS").exists()
