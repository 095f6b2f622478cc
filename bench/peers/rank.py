"""Fit one model of another library and rank with it: ``python rank.py FOLDER``, in the peers' environment.

It imports nothing of this project, whose numpy is newer than RecTools allows. The folder holds

- ``job.json``: ``model`` (a key of MODELS), its ``settings``, ``seed``, and ``k``, how many items a list gets;
- ``train.parquet``: ``user_id, item_id, weight, datetime``, in stable time order; ids are integers;
- ``asked.parquet``: the same columns, ``user_id`` being the number of a list: what is known of whom it is for. It may
  hold events that are not in train, which the model reads but does not learn from; one on an item that is not in train
  is passed over.

It writes ``ranked.parquet`` (``user_id, item_id, rank`` from 1, without what a history holds), then ``took.json``
(``fit_s``, and ``rank_s`` on one core).
"""

import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from threadpoolctl import threadpool_limits

Settings = dict[str, Any]
Ranker = Callable[[pd.DataFrame, int], pd.DataFrame]  # asked, k → user_id, item_id, rank


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

    def rank(asked: pd.DataFrame, k: int) -> pd.DataFrame:
        histories = Dataset.construct(asked)
        return model.recommend(asked["user_id"].unique(), histories, k=k, filter_viewed=True)

    return rank


def lenskit(name: str, train: pd.DataFrame, settings: Settings, seed: int) -> Ranker:
    """LensKit's item-item models, in its pipeline, which leaves out what a user had."""
    from lenskit.batch import recommend
    from lenskit.data import ItemList, RecQuery, from_interactions_df
    from lenskit.knn import EASEScorer, ItemKNNScorer
    from lenskit.pipeline import topn_pipeline

    data = from_interactions_df(train[["user_id", "item_id"]])
    pipeline = topn_pipeline({"EASE": EASEScorer, "ItemKNN": ItemKNNScorer}[name](**settings))
    pipeline.train(data)

    def rank(asked: pd.DataFrame, k: int) -> pd.DataFrame:
        queries = [
            RecQuery(user_id=number, user_items=ItemList(item_ids=items.to_numpy()))
            for number, items in asked.groupby("user_id")["item_id"]
        ]
        return recommend(pipeline, queries, k, n_jobs=1).to_df()

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
    asked = pd.read_parquet(folder / "asked.parquet")
    asked = asked[asked["item_id"].isin(train["item_id"])]  # none of them takes an item that it was not trained on
    clock = time.perf_counter()
    rank = MODELS[job["model"]](train, job["settings"], job["seed"])
    took = {"fit_s": time.perf_counter() - clock}
    torch.set_num_threads(1)
    clock = time.perf_counter()
    with threadpool_limits(1):
        ranked = rank(asked, job["k"])
    took["rank_s"] = time.perf_counter() - clock
    ranked[["user_id", "item_id", "rank"]].to_parquet(folder / "ranked.parquet")
    (folder / "took.json").write_text(json.dumps(took), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
