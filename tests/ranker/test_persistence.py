"""A saved engine answers as it did, in this process and in another, and a damaged one is an error that says where."""

import json
import logging
import random
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tiny_engine
from tests_support import file_limit
from tiny_engine import answers, events

import ranker
from encoders.errors import ArtifactError, InputError
from ranker.persistence import LOG

ALL = tiny_engine.N_ITEMS


def assert_same(one, other):
    """Equal lists; scores to a few units in the last place, which differ with where in memory weights happen to lie."""
    for name, table in one.items():
        pd.testing.assert_frame_equal(other[name], table, rtol=1e-6, atol=1e-6, obj=name)


def test_a_loaded_engine_answers_as_the_fitted_one(fitted, engine):
    assert_same(answers(fitted), answers(engine))
    everybody = [list(one.candidates(k=50)) for one in (fitted, engine)]
    for before, after in zip(*everybody, strict=True):
        pd.testing.assert_frame_equal(after, before, check_exact=True)
    assert engine.config == fitted.config
    assert engine.training == fitted.training


def test_saving_again_changes_no_answer(engine, tmp_path):
    engine.feedback(events(("e1", 100, "i1", "like"), ("e2", 7, "i2", "like"), ("e3", 101, "i3", "skip")))
    before = answers(engine)
    for _ in range(4):  # more than the versions that are kept
        engine.save(tmp_path / "model")
    engine.save(tmp_path / "other")
    assert_same(before, answers(engine))
    assert_same(before, answers(ranker.load(tmp_path / "model")))
    assert_same(before, answers(ranker.load(tmp_path / "other")))


def test_arrays_stay_memory_mapped(engine):
    mapped = [
        engine.retriever.sources["als"].item_factors,
        engine.retriever.sources["text"].vectors,
        engine.retriever.sources["popularity"].item_scores,
        *(getattr(engine.users.base.histories, name) for name in ("indptr", "items", "weights", "times")),
    ]
    assert all(isinstance(array, np.memmap) for array in mapped)


FRESH = """
import sys
sys.path[:0] = sys.argv[3:]
import torch
torch.set_num_threads(1)
import pandas as pd
import ranker, tiny_engine
engine = ranker.load(sys.argv[1])
for name, table in tiny_engine.answers(engine).items():
    table.to_parquet(f"{sys.argv[2]}/{name}.parquet")
engine.feedback(tiny_engine.events(("theirs", 100, "i9", "like")))
"""


@pytest.mark.slow
def test_another_process_answers_the_same_and_its_feedback_shows_here(engine, model, tmp_path):
    engine.feedback(events(("ours", 100, "i1", "like"), ("new", 7, "i2", "like")))
    arguments = [sys.executable, "-W", "error", "-c", FRESH, str(model), str(tmp_path), *sys.path]
    subprocess.run(arguments, check=True)
    assert_same(
        answers(engine),
        {name: pd.read_parquet(tmp_path / f"{name}.parquet") for name in answers(engine)},
    )
    loaded = ranker.load(model)
    assert loaded.log.read()["event_id"].tolist() == ["ours", "new", "theirs"]
    assert "i9" not in set(loaded.recommend([100], ALL)["item_id"])


def test_feedback_after_loading_shows_in_an_engine_loaded_later(engine, model):
    engine.feedback(events(("e1", 100, "i1", "like"), ("e2", 7, "i2", "hide")))
    assert_same(answers(engine), answers(ranker.load(model)))


def test_feedback_outlives_a_new_version(engine, model, fitted):
    engine.feedback(events(("e1", 7, "i1", "like")))
    before = engine.recommend([7], ALL)
    engine.save(model)
    pd.testing.assert_frame_equal(ranker.load(model).recommend([7], ALL), before)


def small_fit(checkpoint, items, interactions):
    config = tiny_engine.config(checkpoint, rerank=ranker.config.RerankConfig(enabled=False))
    return ranker.fit(interactions, items, config, progress=False)


def test_an_older_log_is_kept_and_taken_in_by_a_new_engine(checkpoint, engine, model):
    engine.feedback(events(("old", 7, "i1", "like")))
    new = small_fit(checkpoint, tiny_engine.items(), tiny_engine.interactions())
    new.feedback(events(("newer", 8, "i2", "like")))
    new.save(model)
    loaded = ranker.load(model)
    assert loaded.log.read()["event_id"].tolist() == ["old", "newer"]
    assert_same(answers(new), answers(loaded))
    assert "i1" not in set(new.recommend([7], ALL)["item_id"])


def test_items_that_left_the_catalogue_are_passed_over_with_a_count(checkpoint, engine, model, caplog):
    engine.feedback(events(("gone", 7, "i0", "like"), ("kept", 7, "i1", "like"), ("gone too", 8, "i0", "hide")))
    items = tiny_engine.items().iloc[1:]
    log = tiny_engine.interactions()
    new = small_fit(checkpoint, items, log[log["item_id"] != "i0"])
    with caplog.at_level(logging.WARNING):
        new.save(model)
        loaded = ranker.load(model)
    assert [record.getMessage() for record in caplog.records if record.name == "ranker.engine"] == [
        f"{model / LOG}: 2 of 3 events are on items or of users that this engine cannot know; they are passed over."
    ] * 2
    assert len(loaded.log) == 3
    assert loaded.users.ids[-1] == 7
    assert_same(answers(new), answers(loaded))


def test_users_of_another_kind_are_passed_over_with_a_count(checkpoint, engine, model, caplog):
    engine.feedback(events(("old", 7, "i1", "like")))
    named = tiny_engine.interactions().assign(user_id=lambda log: "u" + log["user_id"].astype(str))
    new = small_fit(checkpoint, tiny_engine.items(), named)
    new.save(model)
    loaded = ranker.load(model)
    assert "1 of 1 events are on items or of users that this engine cannot know" in caplog.text
    assert len(loaded.log) == 1
    assert loaded.feedback(events(("new", "somebody", "i1", "like"))) == 1


def test_a_log_with_the_same_id_for_another_event_is_refused_before_anything_is_written(checkpoint, engine, model):
    engine.feedback(events(("e1", 7, "i1", "like")))
    new = small_fit(checkpoint, tiny_engine.items(), tiny_engine.interactions())
    new.feedback(events(("e1", 8, "i2", "like")))
    with pytest.raises(InputError, match="'e1' is in the log already with different content"):
        new.save(model)
    assert sorted(path.name for path in model.glob("v*")) == ["v0001"]
    assert_same(answers(engine), answers(ranker.load(model)))
    assert new.log.read()["user_id"].tolist() == [8]


def files():
    """Every file of a version, found once so that each is a test of its own."""
    parts = ["catalogue.parquet", "config.yaml", "fusion.json", "training.json", "users/users.parquet"]
    parts += [f"users/{name}.npy" for name in ("indptr", "items", "weights", "times", "kinds")]
    parts += [f"sources/als/{name}" for name in ("config.json", "item_factors.npy")]
    parts += [f"sources/text/{name}" for name in ("config.json", "index.json", "vectors.npy")]
    parts += ["sources/popularity/item_scores.npy", "reranker/blend.json", "reranker/gain.json"]
    model = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    parts += [f"{folder}/{name}" for folder in ("encoder", "reranker/cross_encoder") for name in model]
    return [*parts, "encoder/1_Pooling/config.json"]


def test_the_list_of_files_is_whole(saved):
    found = {str(path.relative_to(saved / "v0001")) for path in (saved / "v0001").rglob("*") if path.is_file()}
    assert found == {*files(), "manifest.json"}


@pytest.mark.parametrize("name", files())
def test_every_damaged_file_of_an_engine_is_named(model, name):
    path = model / "v0001" / name
    original = path.read_bytes()
    flipped = bytearray(original)
    flipped[random.Random(name).randrange(len(flipped))] ^= 1 << random.Random(name).randrange(8)
    for damaged in (bytes(flipped), original[: len(original) // 2], b""):
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=f"v0001/{name}: ") as caught:
            ranker.load(model)
        assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(ArtifactError, match=f"v0001/{name}: is missing"):
        ranker.load(model)


def reseal(version):
    """Make the manifest agree with the files, as somebody who forges a folder would."""
    import hashlib

    manifest = json.loads((version / "manifest.json").read_text())
    manifest["files"] = {
        str(path.relative_to(version)): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in version.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    (version / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", [name for name in files() if "encoder" not in name])
@pytest.mark.parametrize("damage", ["halved", "emptied", "zeros"])
def test_a_damaged_file_with_a_matching_hash_is_an_artifact_error_still(model, name, damage):
    path = model / "v0001" / name
    size = path.stat().st_size
    path.write_bytes({"halved": path.read_bytes()[: size // 2], "emptied": b"", "zeros": bytes(size)}[damage])
    reseal(model / "v0001")
    if name == "config.yaml" and damage != "zeros":
        # what a YAML file leaves out has its default, so another engine's settings are met by the parts' own checks
        path.write_text("als: {factors: -1}")
        reseal(model / "v0001")
    with pytest.raises(ArtifactError, match="v0001") as caught:
        ranker.load(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("users/items.npy", lambda array: array + 1000),
        ("users/items.npy", lambda array: array - 1000),
        ("users/items.npy", lambda array: array[:-1]),
        ("users/indptr.npy", lambda array: array[::-1].copy()),
        ("users/indptr.npy", lambda array: array + 1),
        ("users/times.npy", lambda array: array.astype(np.int32)),
        ("sources/als/item_factors.npy", lambda array: array[:-1]),
        ("sources/als/item_factors.npy", lambda array: array[:, :-1]),
        ("sources/text/vectors.npy", lambda array: array[:-1]),
        ("sources/text/vectors.npy", lambda array: array.astype(np.float64)),
        ("sources/popularity/item_scores.npy", lambda array: array[:-1]),
        ("sources/popularity/item_scores.npy", lambda array: array[None]),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(model, name, change):
    path = model / "v0001" / name
    np.save(path, change(np.load(path)))
    reseal(model / "v0001")
    with pytest.raises(ArtifactError, match=f"v0001/{name.rsplit('/', 1)[0]}"):
        ranker.load(model)


def test_a_pickle_in_place_of_an_array_is_not_opened(model):
    path = model / "v0001" / "users" / "items.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    reseal(model / "v0001")
    with pytest.raises(ArtifactError, match=r"items\.npy: not a readable array"):
        ranker.load(model)


@pytest.mark.parametrize("size", [600, 5_000, 20_000, 100_000, 160_000])
def test_a_disk_that_fills_up_leaves_the_engine_that_was_there(engine, model, size):
    before = answers(engine)
    with pytest.raises(ArtifactError, match=r"not saved \(the disk is full\)") as caught, file_limit(size):
        engine.save(model)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in model.iterdir() if not path.name.startswith(LOG)) == ["CURRENT", "v0001"]
    assert_same(before, answers(engine))
    assert_same(before, answers(ranker.load(model)))


def test_a_log_that_the_disk_refuses_records_nothing_and_takes_it_later(engine, model):
    before = engine.recommend([100], ALL)
    batch = events(*[(f"event {n}", 100, f"i{n % ALL}", "like") for n in range(3000)])
    refused = pytest.raises(ArtifactError, match=r"feedback\.sqlite: the feedback was not recorded \(")
    with refused as caught, file_limit(50_000):
        engine.feedback(batch)
    assert "\n" not in str(caught.value)
    pd.testing.assert_frame_equal(engine.recommend([100], ALL), before)
    assert engine.feedback(batch) == 3000
    assert len(ranker.load(model).log) == 3000


def test_an_engine_on_a_read_only_mount_serves_and_refuses_feedback(engine, model, read_only, tmp_path):
    engine.feedback(events(("e1", 7, "i1", "like")))
    before = answers(engine)
    with read_only(model) as folder:
        served = ranker.load(folder)
        assert_same(before, answers(served))
        with pytest.raises(ArtifactError, match=r"feedback\.sqlite: cannot be written, so the feedback was not"):
            served.feedback(events(("e2", 7, "i2", "like")))
        with pytest.raises(ArtifactError, match="not saved"):
            served.save(folder)
        assert_same(before, answers(served))
    served.save(tmp_path / "writable")
    assert served.feedback(events(("e2", 7, "i2", "like"))) == 1
    assert ranker.load(tmp_path / "writable").log.read()["event_id"].tolist() == ["e1", "e2"]


def test_a_folder_may_be_named_by_a_string_or_relative(engine, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    engine.feedback(events(("e1", 7, "i1", "like")))
    again = ranker.load("model")
    assert_same(answers(engine), answers(again))
    again.save(model)
    assert_same(answers(engine), answers(again))
    shutil.move(model, tmp_path / "moved")
    assert_same(answers(engine), answers(ranker.load("moved")))


@pytest.mark.parametrize("kind", [tuple, set, list])
def test_attributes_filter_alike_before_and_after(checkpoint, tmp_path, kind):
    items = tiny_engine.items().assign(genres=lambda table: table["genres"].map(kind))
    items.loc[3, "genres"] = None
    engine = small_fit(checkpoint, items, tiny_engine.interactions())
    before = engine.recommend([100], ALL, where={"genres": "g0"})
    engine.save(tmp_path / "model")
    after = ranker.load(tmp_path / "model").recommend([100], ALL, where={"genres": "g0"})
    pd.testing.assert_frame_equal(after, before)


def test_attributes_that_no_file_can_hold_are_refused_before_the_fit(checkpoint):
    items = tiny_engine.items()
    items["odd"] = [1, "a", *[None] * (ALL - 2)]
    with pytest.raises(InputError, match=r"^items: .* column odd .*cannot be saved") as caught:
        small_fit(checkpoint, items, tiny_engine.interactions())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("columns", [{"year": 5}, {"year": "title"}])
def test_columns_need_names_of_their_own(checkpoint, columns):
    with pytest.raises(InputError, match=r"^items: columns need different strings for names"):
        small_fit(checkpoint, tiny_engine.items().rename(columns=columns), tiny_engine.interactions())
