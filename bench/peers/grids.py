"""Which peers there are, and the settings that are tried of each one: all combinations of its grid."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Grid = Mapping[str, Sequence[Any]]

# On MovieLens-1M with two cores the first five take about half an hour together. An epoch of RecTools' transformers
# takes 45 to 50 s there, so they get one setting each, near what their papers use, and 20 minutes of training. SASRec's
# softmax over all films is the quickest of its losses (gBCE with 256 negatives takes 61 s), on the newest 100 events.
GRIDS: dict[str, Grid] = {
    "implicit ALS": {
        "factors": (64, 128, 256), "regularization": (1.0, 10.0, 100.0), "alpha": (0.2, 1.0, 5.0), "iterations": (15,),
    },
    "implicit BPR": {
        "factors": (64, 128, 256), "learning_rate": (0.01, 0.02, 0.05), "regularization": (0.01, 0.03),
        "iterations": (100,),
    },
    "implicit item-kNN": {"similarity": ("cosine", "tf-idf", "bm25"), "K": (20, 100, 400)},
    "LensKit EASE": {"regularization": (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)},
    "LensKit ItemKNN": {"feedback": ("implicit",), "max_nbrs": (20, 50, 100, 200)},
    "RecTools SASRec": {
        "n_factors": (64,), "n_blocks": (2,), "n_heads": (2,), "session_max_len": (100,), "lr": (1e-3,),
        "batch_size": (128,), "dropout_rate": (0.2,), "epochs": (25,),
    },
    "RecTools BERT4Rec": {
        "n_factors": (64,), "n_blocks": (2,), "n_heads": (2,), "session_max_len": (100,), "lr": (1e-3,),
        "batch_size": (128,), "dropout_rate": (0.2,), "epochs": (24,),
    },
}  # fmt: skip


def combinations(grid: Grid) -> Iterator[dict[str, Any]]:
    """Every combination of a grid's values."""
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))
