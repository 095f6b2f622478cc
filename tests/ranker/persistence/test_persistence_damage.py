"""A damaged or forged file of a saved engine is an error in one line that says where."""

import json
import random

import numpy as np
import pytest

import ranker
from encoders.errors import ArtifactError


def files():
    """Every file of a version, found once so that each is a test of its own."""
    parts = ["calibrations.json", "catalogue.parquet", "config.yaml", "fusion.json", "lasting.json", "training.json"]
    parts += ["users/ids.arrow", "users/keys.npy", "users/places.npy"]
    parts += [f"users/{name}.npy" for name in ("indptr", "items", "weights", "times", "kinds")]
    parts += [f"sources/als/{name}" for name in ("config.json", "item_factors.npy")]
    parts += [f"sources/transitions/{name}" for name in ("config.json", "indptr.npy", "indices.npy", "data.npy")]
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


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0},
        {"temperature": -1.0},
        {"temperature": "NaN"},
        {"temperature": "Infinity"},
        {"coverage": 0},
        {"coverage": 1.5},
        {"depth": 0},
        {"depth": 2.5},
        {"slope": 1.0},
    ],
)
def test_a_calibration_that_no_fit_could_find_is_refused(model, change):
    path = model / "v0001" / "calibrations.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"fused": found["fused"] | change}))
    reseal(model / "v0001")
    with pytest.raises(ArtifactError, match=r"v0001/calibrations\.json: not the settings of Calibrations") as caught:
        ranker.load(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: {"weights": {"als": 1.0}},
        lambda weights: {"weights": weights | {"als": -1.0}},
        lambda weights: {"weights": weights | {"als": "NaN"}},
        lambda weights: {"short": {"5": {"als": 1.0}}},
        lambda weights: {"short": {"few": weights}},
        lambda weights: {"long": {}},
    ],
)
@pytest.mark.parametrize("name", ["fusion.json", "lasting.json"])
def test_fusion_weights_that_no_fit_could_find_are_refused(model, name, change):
    path = model / "v0001" / name
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | change(found["weights"])))
    reseal(model / "v0001")
    with pytest.raises(ArtifactError, match=f"v0001/{name}: ") as caught:
        ranker.load(model)
    assert "\n" not in str(caught.value)


def test_a_version_from_before_there_was_a_calibration_has_no_probabilities(model):
    (model / "v0001" / "calibrations.json").unlink()
    reseal(model / "v0001")
    engine = ranker.load(model)
    assert engine.calibration is None
    assert engine.recommend([100])["probability"].isna().all()


def test_a_pickle_in_place_of_an_array_is_not_opened(model):
    path = model / "v0001" / "users" / "items.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    reseal(model / "v0001")
    with pytest.raises(ArtifactError, match=r"items\.npy: not a readable array"):
        ranker.load(model)
