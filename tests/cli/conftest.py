"""One small engine, fitted once, and the command line in this process."""

import io
import shutil
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from small_site import Fitted, Result, Run, Shelf, write_site
from threadpoolctl import threadpool_limits

from ranker import Engine, load
from ranker.cli import main


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return write_site(tmp_path_factory.mktemp("shelf"))


@pytest.fixture
def ranker(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line: takes its words, returns what it left."""

    def run(*words: object) -> Result:
        capsys.readouterr()
        code = main([str(word) for word in words])
        printed = capsys.readouterr()
        return Result(code, printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def fitted(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    folder = tmp_path_factory.mktemp("fitted") / "model"
    words = ["--json", "fit", shelf.interactions, shelf.items, "--out", folder, "--config", shelf.config]
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = main([str(word) for word in words])
    assert code == 0, err.getvalue()
    return Fitted(folder, Result(code, out.getvalue(), err.getvalue()))


@pytest.fixture
def model(fitted: Fitted, tmp_path: Path) -> Path:
    """A copy of the fitted engine, which the test may change."""
    return Path(shutil.copytree(fitted.folder, tmp_path / "model"))


@pytest.fixture
def engine(model: Path) -> Iterator[Engine]:
    """The same engine in Python."""
    engine = load(model)
    yield engine
    engine.log.close()
