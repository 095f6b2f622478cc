import pytest
import tiny_tuning


@pytest.fixture(scope="session")
def tuned(checkpoint):
    """A whole search: enough trials that some are pruned and that it is known what mattered."""
    return tiny_tuning.search(tiny_tuning.space(checkpoint), rungs=(0.5, 1), trials=28)
