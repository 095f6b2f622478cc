"""``python -m bench quality``."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

import ranker
from bench.demo import TINY, console, show_progress
from bench.peers import inside
from bench.peers.grids import GRIDS, combinations
from bench.peers.outside import PYTHON
from bench.quality import chosen
from bench.quality.protocols import ProtocolName, Task, Ties, pose
from bench.quality.report import write
from bench.quality.seeds import Measured, keep, kept, key_of
from bench.quality.systems import Answer, engine_answer, engine_answers, peer_answer
from bench.sites import few_users, small_checkpoint
from ranker.data import load_movielens
from ranker.data.movielens import MovieLensName


def main(
    data: Annotated[MovieLensName, typer.Option(help="The data set.")] = "ml-100k",
    protocol: Annotated[ProtocolName, typer.Option(help="How the log is split, and what is asked.")] = "loo",
    ties: Annotated[Ties, typer.Option(help="What orders ratings of one user in one second.")] = "file",
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, counted from 0.")] = 3,
    peers: Annotated[bool, typer.Option(help="Other libraries' systems, too; make peers sets some of them up.")] = True,
    leave_out: Annotated[list[str] | None, typer.Option(help="A peer to do without, by its name in the table.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings of one engine, YAML, in place of the chosen ones.")
    ] = None,
    validation: Annotated[bool, typer.Option(help="Judge on the end of the training part: for choosing.")] = False,
    tune_peers: Annotated[bool, typer.Option(help="Choose the peers' settings on validation, and keep them.")] = False,
    folder: Annotated[Path, typer.Option(help="Where the data set is kept.")] = Path("data"),
    out: Annotated[Path, typer.Option(help="Results go into a folder below, by data set and protocol.")] = Path(
        "runs/quality"
    ),
    tiny: Annotated[bool, typer.Option(help="One seed and a fraction of the work, to try the path.")] = False,
) -> None:
    """Ranking quality on MovieLens beside other libraries."""
    show_progress()
    paths = load_movielens(data, folder)
    interactions, items = pd.read_parquet(paths.interactions), pd.read_parquet(paths.items)
    left_out = leave_out or []
    if unknown := sorted(set(left_out) - set(GRIDS)):
        raise typer.BadParameter(f"no peer is called {', '.join(unknown)}; there are {', '.join(GRIDS)}.")
    able = [name for name in GRIDS if name in inside.MODELS or (PYTHON.exists() and not tiny)]
    names = [name for name in able if name not in left_out] if peers else []
    if peers and not PYTHON.exists():
        console.print("Without the peers that need an environment of their own: make peers sets it up.")
    if tune_peers:
        task = pose(validation_part(interactions, items, protocol, ties), items, protocol, ties)
        chosen.tune_peers(task, names, data)
        return
    if tiny:
        interactions = few_users(interactions)
    settings = chosen.read(data, protocol)
    if config is not None:
        settings |= {"engine": ranker.EngineConfig.from_yaml(config).to_dict(), "others": {}}
    if tiny:
        checkpoint = small_checkpoint(out / "tiny-checkpoint")  # the tiny demo reads with the real one
        engine = {**TINY, "checkpoint": checkpoint}
        others = {"engine, ALS alone": {**engine, "sources": ["als"]}}
        settings = {"engine": engine, "others": others, "peers": {}}
    if validation:
        interactions = validation_part(interactions, items, protocol, ties)
    kind = "validation" if validation else ties
    results = out / f"{data}-{protocol}-{kind}"
    key = key_of(settings, names)
    measured: list[Measured] = []
    for seed in range(1 if tiny else seeds):
        task = pose(interactions, items, protocol, ties, seed)
        if not measured:
            console.print(task.described, highlight=False)
        path = results / f"seed-{seed}.npz"
        found = kept(task, key, path)
        if found is None:
            clock = time.perf_counter()
            answers = engine_answers(task, settings["engine"], seed)
            for name, other in settings["others"].items():
                answers[name] = engine_answer(task, other, seed)
            for name in names:
                answers[name] = peer(name, settings["peers"].get(name), task, seed)
            found = Measured(task, answers, (time.perf_counter() - clock) / 60)
            keep(found, key, path)
        else:
            console.print(f"Seed {seed} was measured before, by the same code and settings: {path}.", highlight=False)
        measured.append(found)
    write(measured, {"settings": settings, "python": platform.python_version()}, results)


def peer(name: str, settings: dict[str, object] | None, task: Task, seed: int) -> Answer:
    """What a peer answers with its chosen settings, or with the first of its grid."""
    given = settings if settings is not None else next(combinations(GRIDS[name]))
    clock = time.perf_counter()
    answer = peer_answer(name, given, task, seed)
    console.print(f"{name}: {time.perf_counter() - clock:.0f} s", highlight=False)
    return answer


def validation_part(
    interactions: pd.DataFrame, items: pd.DataFrame, protocol: ProtocolName, ties: Ties
) -> pd.DataFrame:
    """What may be used to choose settings: the training part, whose own end is then the validation."""
    return pose(interactions, items, protocol, ties).train
