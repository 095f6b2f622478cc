import pytest

import ranker


@pytest.fixture(scope="session")
def saved(exported):
    return exported


@pytest.fixture(scope="session")
def fitted(saved):
    """The engine in that folder."""
    return ranker.load(saved)
