"""Fit one model of another library and rank for some users: ``python rank.py FOLDER``, in the peers' environment.

It imports nothing of this project, whose numpy is newer than RecTools allows. The folder holds

- ``job.json``: ``model`` (a key of MODELS), its ``settings``, ``seed``, and ``k``, how many items a user gets;
- ``train.parquet``: ``user_id, item_id, weight, datetime``, in stable time order; ids are integers;
- ``users.parquet``: ``user_id``, whom to rank for; all of them are in train.

It writes ``ranked.parquet`` (``user_id, item_id, rank`` from 1, without what a user had), then ``took.json`` (``fit_s``
and ``rank_s``).
"""

import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

Settings = dict[str, Any]
Ranker = Callable[[list[int], int], pd.DataFrame]  # users, k → user_id, item_id, rank


def rectools(name: str, train: pd.DataFrame, settings: Settings, seed: int) -> Ranker:
    """RecTools' transformers, which train for a fixed number of epochs."""
    from pytorch_lightning import seed_everything
    from rectools.dataset import Dataset
    from rectools.models import BERT4RecModel, SASRecModel

    seed_everything(seed, verbose=False)
    dataset = Dataset.construct(train)
    model = {"SASRec": SASRecModel, "BERT4Rec": BERT4RecModel}[name](
        **settings, deterministic=True, recommend_torch_device="cpu"
    )
    model.fit(dataset)
    return lambda users, k: model.recommend(users, dataset, k=k, filter_viewed=True)


def lenskit(name: str, train: pd.DataFrame, settings: Settings, seed: int) -> Ranker:
    """LensKit's item-item models, in its pipeline, which leaves out what a user had."""
    from lenskit.batch import recommend
    from lenskit.data import from_interactions_df
    from lenskit.knn import EASEScorer, ItemKNNScorer
    from lenskit.pipeline import topn_pipeline

    data = from_interactions_df(train[["user_id", "item_id"]])
    pipeline = topn_pipeline({"EASE": EASEScorer, "ItemKNN": ItemKNNScorer}[name](**settings))
    pipeline.train(data)

    def rank(users: list[int], k: int) -> pd.DataFrame:
        return recommend(pipeline, users, k, n_jobs=1).to_df()

    return rank


MODELS = {
    "RecTools SASRec": lambda *given: rectools("SASRec", *given),
    "RecTools BERT4Rec": lambda *given: rectools("BERT4Rec", *given),
    "LensKit ItemKNN": lambda *given: lenskit("ItemKNN", *given),
    "LensKit EASE": lambda *given: lenskit("EASE", *given),
}


def main(folder: Path) -> None:
    """Do the job in this folder."""
    warnings.simplefilter("ignore")  # theirs, which only their authors can act on
    job = json.loads((folder / "job.json").read_bytes())
    train = pd.read_parquet(folder / "train.parquet")
    users = pd.read_parquet(folder / "users.parquet")["user_id"].tolist()
    clock = time.perf_counter()
    rank = MODELS[job["model"]](train, job["settings"], job["seed"])
    fitted = time.perf_counter()
    ranked = rank(users, job["k"])
    took = {"fit_s": fitted - clock, "rank_s": time.perf_counter() - fitted}
    ranked[["user_id", "item_id", "rank"]].to_parquet(folder / "ranked.parquet")
    (folder / "took.json").write_text(json.dumps(took), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
