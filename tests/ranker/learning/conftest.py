import shutil

import pytest
import tiny_engine

import ranker


@pytest.fixture(scope="session")
def split_saved(checkpoint, tmp_path_factory):
    """A folder that holds an engine with a split cross-encoder; no test may write to it."""
    folder = tmp_path_factory.mktemp("split") / "model"
    config = tiny_engine.split_config(checkpoint)
    ranker.fit(tiny_engine.interactions(), tiny_engine.items(), config, progress=False).save(folder)
    return folder


@pytest.fixture
def split_engine(split_saved, tmp_path):
    """Such an engine of the test's own."""
    return ranker.load(shutil.copytree(split_saved, tmp_path / "model"))
