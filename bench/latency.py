"""Re-ranking latency on MovieLens-1M: the engines of a dial beside cross-encoders that read pairs of texts."""

import dataclasses
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import psutil
import torch
import typer

from bench import latency_parts as parts
from bench.demo import console, show_progress
from bench.latency_cells import Condition, Plan, System, build_cases, every_system, time_systems
from bench.latency_engines import Dial, load_dial, rerankers
from bench.latency_peers import INT8_PAIR, INT8_PEER, TORCH_PEER, agreement, pair_scorers
from bench.latency_report import report
from bench.quantization import machine
from bench.timing import MOST_RUNS, Budget, Timings, median_ratio
from bench.training_rate import training_rate
from encoders.checkpoint import resolve_checkpoint
from encoders.errors import ArtifactError

REFERENCES = {"× ST torch": TORCH_PEER, "× ST int8": INT8_PEER, "× pair int8": INT8_PAIR}
TINY_PLAN = Plan((4, 10, 40), (0, 3, 5, 8), (1, 2), (500, 2000), cases=2, trained_lists=64)
TINY_SECONDS, TINY_RUNS = 0.05, 20  # of a system at most
COMPARED = 50  # requests on which the cache is compared with no cache


def main(
    dial: Annotated[Path, typer.Option(help="The folder that python -m bench dial wrote.")] = Path("runs/dial"),
    out: Annotated[Path, typer.Option(help="Where tables and plots go.")] = Path("runs/latency"),
    seconds: Annotated[float, typer.Option(help="Time for each system under each condition, beyond three runs.")] = 20,
    large: Annotated[bool, typer.Option("--large", help="A store of a million items too: 3 GB of disk.")] = False,
    tiny: Annotated[bool, typer.Option("--tiny", help="Little of everything, to try the path on a tiny dial.")] = False,
) -> None:
    """Latency of re-ranking, beside sentence-transformers, and the quality that it buys."""
    show_progress()
    logging.getLogger().addHandler(logging.NullHandler())  # ONNX Runtime's quantizer advises through the root logger
    # what ONNX Runtime takes by itself; torch would take fewer where OMP_NUM_THREADS is set
    torch.set_num_threads(psutil.cpu_count(logical=False) or 1)
    try:
        trained = load_dial(dial)
    except ArtifactError as error:
        raise SystemExit(str(error)) from error
    plan = TINY_PLAN if tiny else Plan(stores=(10_000, 100_000, *([1_000_000] if large else [])))
    budget = Budget(TINY_SECONDS, most=TINY_RUNS) if tiny else Budget(seconds, most=MOST_RUNS)
    with tempfile.TemporaryDirectory() as name:
        figures, raw = measure(trained, plan, budget, Path(name))
    settings = {"plan": str(plan), "seconds": budget.seconds, "tiny": tiny}
    settings |= {f"dial: {key}": value for key, value in trained.about.items()}
    threads = {"threads": str(torch.get_num_threads()), "cores": str(os.cpu_count())}
    report({"machine": machine() | threads, "settings": settings, **figures}, raw, out)


def measure(dial: Dial, plan: Plan, budget: Budget, temporary: Path) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """Everything that is reported, by section, and the tables behind it."""
    logging.getLogger("ranker").setLevel(logging.WARNING)  # a note costs time, too
    site = dial.site
    served = rerankers(dial, max(plan.events), max(plan.candidates))
    cases = {condition: build_cases(site, condition, plan) for condition in plan.conditions}
    centre = cases[plan.centre]
    sample = [pair for case in centre for pair in case.pairs][:128]
    (temporary / "pairs").mkdir()
    scorers = pair_scorers(site.config.checkpoint, sample, temporary / "pairs", machine()["kernels"])
    systems = every_system(dial, served, scorers, plan)
    console.print(f"Timing {len(systems)} systems under {len(cases)} conditions.", highlight=False)
    timings = time_systems(systems, cases, budget)
    one, first = served[dial.one], centre[0]
    every = {count: cases[Condition(count, plan.centre.events, 1)][0].candidates for count in plan.candidates}
    texts = site.catalogue.texts
    compared = build_cases(site, plan.centre, dataclasses.replace(plan, cases=COMPARED))
    asked = [(case.requests, case.candidates) for case in compared]
    figures = {
        "latency": latency_rows(systems, timings, dial),
        "quality": list(dial.quality.values()),
        "pairs": [{**row, "system": name} for name, row in dial.pairs.items()],
        "growth": growth(systems, timings, plan),
        "pair_agreement": agreement(scorers, sample),
        "stores": parts.store_sizes(one, plan.stores, plan.centre.candidates, plan.centre.events, budget),
        "swap": parts.swap(one, first.requests, first.candidates, budget),
        "batching": dataclasses.asdict(one.batcher.stats()),
        "store_build": parts.store_build(one, texts, resolve_checkpoint(site.config.checkpoint), budget),
        "training": training_rate(dial.engines[dial.one], plan.trained_lists),
        "cache": parts.cached_against_uncached(one, texts, asked, budget),
        "roofline": parts.roofline(one, first.requests, every, budget),
    }
    taken = [
        pd.DataFrame({"system": name, **vars(condition), "seconds": cell.latencies})
        for (condition, name), cell in timings.items()
    ]
    return figures, {"latencies": pd.concat(taken, ignore_index=True)}


def latency_rows(
    systems: Mapping[str, System], timings: Mapping[tuple[Condition, str], Timings], dial: Dial
) -> list[dict[str, Any]]:
    """One row for each system under each condition."""
    nothing = {"ndcg": float("nan"), "vs_full": float("nan")}
    known_quality, rows = dial.quality | dial.pairs, []
    for (condition, name), taken in timings.items():
        row: dict[str, Any] = {"system": name, **vars(condition), **parts.milliseconds(taken)}
        row["requests_per_s"] = taken.per_second
        for column, reference in REFERENCES.items():
            known = timings.get((condition, reference))
            row[column] = "" if known in (None, taken) else str(median_ratio(known, taken))
        judged = known_quality.get(systems[name].variant, nothing)
        rows.append(row | {"ndcg@10": judged["ndcg"], "ndcg_vs_full": judged["vs_full"]})
    return rows


def growth(
    systems: Mapping[str, System], timings: Mapping[tuple[Condition, str], Timings], plan: Plan
) -> list[dict[str, Any]]:
    """How much longer the most candidates take than the centre's."""
    most = Condition(max(plan.candidates), plan.centre.events, plan.centre.callers)
    return [
        {
            "system": name,
            "candidates": f"{most.candidates} against {plan.centre.candidates}",
            "times": str(median_ratio(timings[most, name], timings[plan.centre, name])),
        }
        for name in systems
    ]
