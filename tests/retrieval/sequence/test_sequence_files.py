"""What is kept of a sequence source, read back as the untrusted input that it is."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sources import build

from encoders.errors import ArtifactError
from retrieval.sequence import SequenceRetriever
from retrieval.sequence.source import BIAS, PROJECTION, SETTINGS, TABLE, WEIGHTS


@pytest.fixture(scope="module")
def source(histories, vectors):
    return build("sequence", histories, vectors)


@pytest.fixture
def folder(source, tmp_path):
    source.save(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", [TABLE, BIAS, PROJECTION, WEIGHTS, SETTINGS])
def test_a_missing_file_is_named(folder, name) -> None:
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=name):
        SequenceRetriever.load(folder)


@pytest.mark.parametrize(
    ("name", "shape", "message"), [(BIAS, (7,), r"7 biases"), (PROJECTION, (7, 3), r"a projection of \(7, 3\)")]
)
def test_parts_of_different_sources_are_refused(folder, name, shape, message) -> None:
    np.save(folder / name, np.zeros(shape, np.float32))
    with pytest.raises(ArtifactError, match=rf"{message}.* do not belong together"):
        SequenceRetriever.load(folder)


def test_weights_of_another_shape_are_refused(folder) -> None:
    weights = load_file(folder / WEIGHTS)
    weights["exit.weight"] = torch.ones(9)
    save_file(weights, folder / WEIGHTS)
    with pytest.raises(ArtifactError, match="not this reader's weights"):
        SequenceRetriever.load(folder)


def test_weights_that_are_no_numbers_are_refused(folder) -> None:
    weights = load_file(folder / WEIGHTS)
    weights["exit.weight"][0] = float("nan")
    save_file(weights, folder / WEIGHTS)
    with pytest.raises(ArtifactError, match="no finite numbers"):
        SequenceRetriever.load(folder)
