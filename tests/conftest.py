import gc

import pandas  # noqa: F401
import pytest
import torch  # noqa: F401
from transformers import Trainer  # noqa: F401
from xdist.scheduler import LoadScopeScheduling

gc.freeze()  # what the libraries hold stays: a collection, which every training asks for, need not look through it


class WholeFiles(LoadScopeScheduling):
    """Each file's tests go to one process, for what they share; all of Spark's to one, for one Java machine."""

    def _split_scope(self, nodeid):
        file = nodeid.partition("::")[0]
        return "spark" if file.startswith("tests/ranker/spark/") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return WholeFiles(config, log)
