import pytest
from tiny_split import fitted_with

from encoders import ExportConfig
from ranker.reranker import Gain


@pytest.fixture(scope="session")
def fitted(checkpoint):
    """A fitted engine that no test may give feedback to or save."""
    return fitted_with(checkpoint)


@pytest.fixture
def searching(engine):
    """An engine of the test's own whose joint layers are asked where there is a query, too."""
    engine.reranker.query_gain = Gain(0.5, 0.1)
    return engine


@pytest.fixture(scope="session")
def saved(checkpoint, tmp_path_factory):
    """A folder that holds the same engine; no test may write to it."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    fitted_with(checkpoint).save(folder)
    return folder


@pytest.fixture(scope="session")
def quantized(checkpoint):
    """An engine whose encoder was exported before the joint layers were trained on what it makes of items."""
    return fitted_with(checkpoint, split={"quantized": True}, export=ExportConfig(precisions=("int8",), tolerance=0.9))


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """An empty folder that temporary files go to."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder
