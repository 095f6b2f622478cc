"""``python -m bench feedback``."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

import ranker
from bench.demo import TINY, console, show_progress
from bench.feedback.beside import Beside, beside_a_learner
from bench.feedback.poison import Poison
from bench.feedback.replay import LEARNING, LIKED, REFITTING, K, Replayed, replayed
from bench.feedback.report import write, write_beside, write_poisoned
from bench.quality import chosen
from bench.sites import few_users, small_checkpoint
from ranker.artifact import check_target
from ranker.data import load_movielens
from ranker.data.movielens import MovieLensName
from ranker.evaluation import global_temporal, per_user_metrics
from ranker.evaluation.evaluate import ENGINE, ranked_by_every_part
from ranker.evaluation.questions import asked_before_each
from ranker.learning.learner import Learner
from ranker.learning.refit import Refitter


def main(
    data: Annotated[MovieLensName, typer.Option(help="The data set.")] = "ml-1m",
    trained: Annotated[float, typer.Option(min=0.1, max=0.99, help="Oldest share of the log that is fitted on.")] = 0.9,
    ratings: Annotated[int | None, typer.Option(min=100, help="How many of the rest are replayed; else all.")] = None,
    new_items: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of the films of which the fit sees no rating: they arrive.")
    ] = 0.0,
    poisoned: Annotated[
        bool, typer.Option("--poisoned", help="Once more with a flood, flipped ratings and broken events.")
    ] = False,
    learning: Annotated[
        bool, typer.Option(help="Have two more engines learn beside, which takes twice as long again.")
    ] = True,
    config: Annotated[
        Path | None, typer.Option(help="Settings of the engine, YAML, in place of those of the replay's benchmark.")
    ] = None,
    fitted: Annotated[
        bool, typer.Option("--fitted", help="Take the engine that an earlier run with the same options left.")
    ] = False,
    folder: Annotated[Path, typer.Option(help="Where the data set is kept.")] = Path("data"),
    out: Annotated[Path, typer.Option(help="Results and the engine go into a folder below.")] = Path("runs/feedback"),
    tiny: Annotated[bool, typer.Option(help="A fraction of the work, to try the path.")] = False,
) -> None:
    """Replay ratings through the durable log: told nothing, told of each, and learning in both ways beside."""
    show_progress()
    if poisoned and not learning:
        raise typer.BadParameter("--poisoned is about what learns: leave out --no-learning.")
    paths = load_movielens(data, folder)
    interactions, items = pd.read_parquet(paths.interactions), pd.read_parquet(paths.items)
    settings: dict[str, Any] = {} if tiny else chosen.read(data, "prequential")["engine"]
    if config is not None:
        settings = ranker.EngineConfig.from_yaml(config).to_dict()
    # ratings count as in the log of the fit: each is a sign of liking, as strong as it is high
    settings = {**(TINY if tiny else settings), "feedback": {"rating_from": 0.5}}
    if tiny:
        interactions = few_users(interactions)
        settings["checkpoint"] = small_checkpoint(out / "tiny-checkpoint")
    split = global_temporal(interactions, test_fraction=1 - trained)
    train, test = split.train, split.test[: 600 if tiny else ratings]
    if new_items:
        rated = np.sort(interactions["item_id"].unique())
        new = np.random.default_rng(0).permutation(rated)[: round(new_items * len(rated))]
        train = train[~train["item_id"].isin(new)]
    test = test[test["item_id"].isin(items["item_id"])]
    arrived = sorted(set(test["item_id"]) - set(train["item_id"]))
    target = out / f"{data}-{trained:g}{f'-new-{new_items:g}' if new_items else ''}"
    model = target / "model"
    clock = time.perf_counter()
    if not fitted:
        check_target(model)
        shutil.rmtree(model, ignore_errors=True)
        ranker.fit(train, items, ranker.EngineConfig.from_dict(settings)).save(model)
    fit_s = time.perf_counter() - clock
    engine = ranker.load(model)
    asked = asked_before_each(engine.users, engine.catalogue, test, test["weight"] >= LIKED)
    in_memory = per_user_metrics(ranked_by_every_part(engine, asked, K)[ENGINE], asked.relevant, (K,))[f"ndcg@{K}"]
    found_items = engine.catalogue.ids.at(asked.log.items[asked.ends]).tolist()
    expected = dict(zip(zip(asked.users, found_items, strict=True), in_memory, strict=True))
    engine.log.close()

    clock = time.perf_counter()
    found, counts = walked(model, target / "served", test, learning=learning, poisoned=False)
    about = {
        "data": data, "fitted on": f"the oldest {trained:.0%}", "ratings replayed": len(test),
        "films that arrive": f"{new_items:.0%}", "lists": len(found.users), "users": len(set(found.users)),
        "fit s": None if fitted else round(fit_s), "replay s": round(time.perf_counter() - clock), "settings": settings,
        "learning": engine.config.to_dict()["learning"] if learning else None,
    }  # fmt: skip
    write(found, expected, counts, about, target, arrived)
    if learning:
        write_beside(beside(model, target / "beside", test, tiny), target)
    if poisoned:
        broken, counts = walked(model, target / "poisoned", test, learning=True, poisoned=True)
        write_poisoned(found, broken, counts, target)
    console.print(f"Written to {target}.")


def beside(model: Path, copy: Path, test: pd.DataFrame, tiny: bool) -> Beside:
    """Time requests beside a learner, over a copy of a saved engine."""
    engine = ranker.load(copied(model, copy))
    measured = beside_a_learner(engine, test, *((0.5, 1.5) if tiny else (5.0, 30.0)))
    engine.log.close()
    return measured


def copied(model: Path, copy: Path) -> Path:
    """A copy of a saved engine, in place of what was there."""
    check_target(copy)
    shutil.rmtree(copy, ignore_errors=True)
    return Path(shutil.copytree(model, copy))


def walked(
    model: Path, copy: Path, test: pd.DataFrame, *, learning: bool, poisoned: bool
) -> tuple[Replayed, dict[str, int]]:
    """Replay over copies of a saved engine, which keep the log and what was learned.

    Returns:
        What was measured, and counts of the learner of weights alone and of sources that were fitted again.
    """
    live = ranker.load(copied(model, copy))
    batch = live.config.learning.batch_lists
    if not learning:
        return replayed(live, {}, None, test, batch), {}
    engines = {LEARNING: ranker.load(copy), REFITTING: ranker.load(copied(model, copy.with_name(f"{copy.name}-refit")))}
    learners = {name: Learner(engine, engine.config.learning, engine.config.seed) for name, engine in engines.items()}
    refitter = Refitter(engines[REFITTING], live.config.learning)
    poison = Poison(live.users.base.users, live.catalogue.ids) if poisoned else None
    found = replayed(live, learners, refitter, test, batch, poison)
    found.gradient_s = engines[LEARNING].observations.snapshot()["ranker_seconds_sum"].get("gradient", 0.0)
    refits = {f"sources {outcome}": count for outcome, count in refitter.counts.items()}
    return found, {**learners[LEARNING].counts, **refits}
