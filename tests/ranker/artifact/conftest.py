import pytest
from tiny_versions import writer

from ranker.artifact import write_version


@pytest.fixture
def root(tmp_path):
    write_version(tmp_path / "model", writer(1))
    write_version(tmp_path / "model", writer(2))
    return tmp_path / "model"
