import pytest
from tiny_store import FORMATS, TEXTS, build, kept_as


@pytest.fixture(scope="module", params=FORMATS, ids=lambda row_format: row_format.kind, autouse=True)
def row_format(request):
    """Every test runs on a store of each kind."""
    with kept_as(request.param):
        yield request.param


@pytest.fixture
def store(tmp_path):
    return build(tmp_path / "store", TEXTS)
