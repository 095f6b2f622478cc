"""Candidates on disk: what the engine answers, whole, and the same bytes however the run went."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_engine
from tests_support import file_limit
from tiny_engine import events

import ranker
from encoders.errors import ArtifactError, ConfigError, InputError
from ranker.offline import generate, read_manifest, shards
from ranker.offline.shards import write_shard, writers

KILLS = int(os.environ.get("RANKER_GENERATION_KILLS", "5"))
SETTINGS = {"k": 12, "workers": 2, "users_per_shard": 4, "progress": False}


@pytest.fixture(scope="module")
def whole(saved, tmp_path_factory):
    """The candidates of an engine's 60 users by a run that nothing interrupted; no test may write to the folder."""
    out = tmp_path_factory.mktemp("whole") / "candidates"
    generate(saved, out, **SETTINGS)
    return out


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_folder_holds_what_the_engine_answers(saved, whole, fitted):
    manifest = read_manifest(whole)
    expected = pa.Table.from_batches(list(fitted.candidates(k=12)))
    found = pq.read_table(whole)
    assert found.schema.remove_metadata().equals(expected.schema)
    pd.testing.assert_frame_equal(found.to_pandas(), expected.to_pandas(), check_exact=False, rtol=1e-4)
    assert manifest.rows == expected.num_rows
    assert manifest.plan.users == len(fitted.users.ids) == sum(shard.users for shard in manifest.shards)
    assert all(shard.users == 4 for shard in manifest.shards[:-1])
    metadata = pq.read_schema(whole / manifest.shards[0].name).metadata
    assert metadata[b"model_version"] == b"v0001"
    assert pq.read_metadata(whole / manifest.shards[0].name).row_group(0).column(0).compression == "ZSTD"


def test_candidates_may_be_of_lasting_taste(saved, fitted, tmp_path):
    manifest = generate(saved, tmp_path / "out", horizon="lasting", **SETTINGS)
    assert manifest.plan.horizon == "lasting"
    found = pq.read_table(tmp_path / "out").to_pandas()
    assert list(found.columns[4:]) == list(fitted.lasting.sources)
    expected = fitted.recommend(found["user_id"].unique(), 12, horizon="lasting").drop(columns="probability")
    pd.testing.assert_frame_equal(found[expected.columns], expected, check_dtype=False, rtol=1e-4)
    with pytest.raises(InputError, match="Ask for one of the two"):
        generate(saved, tmp_path / "other", horizon="lasting", rerank=True, **SETTINGS)
    assert not (tmp_path / "other").exists()


def test_a_run_goes_on_that_was_begun_before_plans_told_of_a_horizon(saved, whole, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    plan = json.loads((out / "_plan.json").read_bytes())
    del plan["horizon"]
    (out / "_plan.json").write_text(json.dumps(plan))
    generate(saved, out, **SETTINGS)
    assert read_manifest(out) == read_manifest(whole)


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_processes_writes_the_same_bytes(saved, whole, tmp_path, workers):
    generate(saved, tmp_path / "out", **{**SETTINGS, "workers": workers})
    assert content(tmp_path / "out") == content(whole)


def test_the_re_ranker_orders_the_first_of_them(checkpoint, tmp_path):
    engine = ranker.fit(
        tiny_engine.interactions(), tiny_engine.items(), tiny_engine.split_config(checkpoint), progress=False
    )
    engine.reranker.gain = engine.reranker.saved_gain = type(engine.reranker.gain)(0.1, 0.01)
    engine.save(tmp_path / "model")
    users = [101, 100, 139]
    generate(tmp_path / "model", tmp_path / "out", users, k=20, rerank=True, workers=1, progress=False)
    found = pd.read_parquet(tmp_path / "out")
    expected = engine.recommend(users, 20)
    assert found[["user_id", "item_id", "rank"]].equals(
        expected[["user_id", "item_id", "rank"]].astype({"rank": "int32"})
    )
    np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(60 + 30 * KILLS)
def test_a_run_that_is_killed_at_random_ends_with_the_same_bytes(saved, whole, tmp_path):
    draw = random.Random(3)
    script = Path(__file__).with_name("generating.py")
    interrupted = 0
    for _ in range(KILLS):
        out = tmp_path / "out"
        process = subprocess.Popen([sys.executable, script, saved, out], start_new_session=True)
        # from the model's loading to the last shard
        deadline = time.monotonic() + draw.uniform(4, 10)
        shards = draw.randrange(15)
        while time.monotonic() < deadline and process.poll() is None and len(list(out.glob("part-*"))) < shards:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        interrupted += not (out / "_manifest.json").exists()
        generate(saved, out, **SETTINGS)
        assert content(out) == content(whole)
        shutil.rmtree(out)
    assert interrupted > 0


def test_a_run_goes_on_with_what_lacks_and_lets_the_rest_be(saved, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "out")
    (out / "_manifest.json").unlink()
    (out / "part-00002.parquet").unlink()
    (out / ".part-00002.parquet.abc.tmp").write_bytes(b"half")
    os.utime(out / "part-00001.parquet", (0, 0))
    generate(saved, out, **SETTINGS)
    assert content(out) == content(whole)
    assert (out / "part-00001.parquet").stat().st_mtime == 0


def test_feedback_that_comes_meanwhile_is_for_the_next_run(model, whole, tmp_path):
    out = tmp_path / "out"
    generate(model, out, **SETTINGS)
    before = content(out)
    engine = ranker.load(model)
    engine.feedback(events(("a", 100, "i1", "like"), ("b", 9_999, "i2", "like")))
    for name in ("part-00000.parquet", "_manifest.json"):
        (out / name).unlink()
    generate(model, out, **SETTINGS)
    assert content(out) == before
    generate(model, tmp_path / "next", **SETTINGS)
    assert 9_999 in set(pd.read_parquet(tmp_path / "next")["user_id"])
    newer = pd.read_parquet(tmp_path / "next", filters=[("user_id", "==", 100)])
    assert "i1" not in set(newer["item_id"])


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"k": 11}, "k was 12 and is 11"),
        ({"rerank": True}, "rerank was False"),
        ({"horizon": "lasting"}, "horizon was 'next'"),
        ({"user_ids": [100]}, "users was"),
    ],
)
def test_another_runs_folder_is_refused_with_what_differs(saved, whole, changed, told):
    before = content(whole)
    with pytest.raises(InputError, match=told):
        generate(saved, whole, **{**SETTINGS, **changed})
    assert content(whole) == before


def test_another_model_is_refused_though_its_version_has_the_same_name(checkpoint, whole, tmp_path):
    other = tiny_engine.small_fit(checkpoint, tiny_engine.items(), tiny_engine.interactions())
    other.save(tmp_path / "model")
    with pytest.raises(InputError, match="fingerprint was"):
        generate(tmp_path / "model", whole, **SETTINGS)


def test_a_forgotten_user_is_no_part_of_a_run_that_goes_on(model, whole, tmp_path):
    generate(model, tmp_path / "out", **SETTINGS)
    ranker.load(model).forget([100])
    with pytest.raises(InputError, match="erasures was 0 and is 1"):
        generate(model, tmp_path / "out", **SETTINGS)


def test_a_damaged_file_is_found(saved, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "out")
    path = out / "part-00001.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtifactError, match=r"part-00001\.parquet: is missing, or differs"):
        read_manifest(out)
    with pytest.raises(ArtifactError, match=r"part-00001\.parquet: cannot be read"):
        generate(saved, out, **SETTINGS)
    (out / "_manifest.json").unlink()
    with pytest.raises(ArtifactError, match="no complete candidates"):
        read_manifest(out)


def test_a_file_that_was_changed_is_written_again(saved, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "out")
    path = out / "part-00001.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 7), path, compression="zstd")
    generate(saved, out, **SETTINGS)
    assert content(out) == content(whole)


@pytest.mark.parametrize("number", [{"workers": 1.5}, {"users_per_shard": 2.5}, {"workers": 0}])
def test_numbers_that_are_none_are_refused(saved, tmp_path, number):
    with pytest.raises(ConfigError, match="must be an integer of at least 1"):
        generate(saved, tmp_path / "out", **number)


def test_two_runs_do_not_write_to_one_folder(saved, tmp_path):
    from filelock import FileLock

    out = tmp_path / "out"
    out.mkdir()
    with FileLock(out / "_lock"), pytest.raises(InputError, match="another run writes to this folder"):
        generate(saved, out, **SETTINGS)


def test_a_folder_that_cannot_be_written_is_told(saved, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot be written"):
        generate(saved, tmp_path / "file" / "out", **SETTINGS)


def test_a_full_disk_is_told_and_what_was_written_stays(saved, whole, tmp_path, monkeypatch):
    out = shutil.copytree(whole, tmp_path / "out")
    (out / "_manifest.json").unlink()
    (out / "part-00001.parquet").unlink()
    before = content(out)
    plan = read_manifest(whole).plan
    monkeypatch.setattr(shards, "_task", (saved, plan), raising=False)
    shards._opened.cache_clear()
    ids = list(ranker.load(saved).users.ids[plan.shard(1)])
    full = pytest.raises(ArtifactError, match=r"part-00001\.parquet: was not written \(the disk is full\)\. Make room")
    with full, file_limit(500):
        write_shard(ids, out / "part-00001.parquet")
    shards._opened.cache_clear()
    assert content(out) == before
    with pytest.raises(ArtifactError, match="the disk is full"), file_limit(500):
        generate(saved, tmp_path / "none", **SETTINGS)
    generate(saved, out, **SETTINGS)
    assert content(out) == content(whole)


def test_a_model_without_users_is_refused(model, tmp_path):
    engine = ranker.load(model)
    engine.forget(list(engine.users.ids))
    engine.save(model)
    with pytest.raises(InputError, match="holds no users"):
        generate(model, tmp_path / "out", **SETTINGS)
    assert not list((tmp_path / "out").glob("_plan*"))


def test_a_model_that_changes_before_it_is_opened_ends_the_run_with_the_reason(model, whole, tmp_path):
    plan = replace(read_manifest(whole).plan, fingerprint="another")
    with writers(model, plan, 1) as pool, pytest.raises(InputError, match="was changed while candidates"):
        pool.submit(write_shard, [100], tmp_path / "part-00000.parquet").result()
    (model / "v0001" / "config.yaml").write_text("?")
    with writers(model, plan, 1) as pool, pytest.raises(ArtifactError, match=r"config\.yaml"):
        pool.submit(write_shard, [100], tmp_path / "part-00000.parquet").result()
    assert not list(tmp_path.glob("*part-*"))
