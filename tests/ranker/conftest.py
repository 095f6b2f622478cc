import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import tiny_engine
import torch
from tests_support import bound_by_permissions

import ranker
from encoders import ExportConfig


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return tiny_engine.checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def fitted(checkpoint):
    """A fitted engine that no test may give feedback to or save anywhere else."""
    return ranker.fit(tiny_engine.interactions(), tiny_engine.items(), tiny_engine.config(checkpoint), progress=False)


@pytest.fixture(scope="session")
def saved(fitted, tmp_path_factory):
    """A folder that holds the fitted engine; no test may write to it."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    fitted.save(folder)
    return folder


@pytest.fixture(scope="session")
def exported(checkpoint, tmp_path_factory):
    """A folder that holds an exported engine, whose processes import no transformers, which takes seconds.

    No test may write to it.
    """
    exact = tiny_engine.config(checkpoint, export=ExportConfig(precisions=("fp32",), tolerance=0.9))
    engine = ranker.fit(tiny_engine.interactions(), tiny_engine.items(), exact, progress=False)
    folder = tmp_path_factory.mktemp("exported") / "model"
    ranker.export(engine, folder)
    return folder


@pytest.fixture
def model(saved, tmp_path):
    """A saved engine of the test's own."""
    return shutil.copytree(saved, tmp_path / "model")


@pytest.fixture
def engine(model):
    """An engine of the test's own, loaded from ``model``."""
    return ranker.load(model)


@pytest.fixture
def read_only():
    """A context in which a copy of a folder cannot be written, not even by root."""

    @contextmanager
    def context(source):
        with tempfile.TemporaryDirectory() as parent:
            os.chmod(parent, 0o755)
            folder = shutil.copytree(source, Path(parent) / "mount")
            for path in [folder, *folder.rglob("*")]:
                path.chmod(0o555 if path.is_dir() else 0o444)
            try:
                with bound_by_permissions():
                    yield folder
            finally:
                for path in [folder, *folder.rglob("*")]:
                    path.chmod(0o755)

    return context
