"""Re-ranking latency and quality on MovieLens-1M: split engines beside cross-encoders that read pairs of texts."""

import dataclasses
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import psutil
import torch
import typer
from transformers import BertConfig, BertModel

from bench import latency_parts as parts
from bench.demo import console, show_progress
from bench.latency_cells import Condition, Plan, System, build_cases, every_system, time_systems
from bench.latency_engines import Dial, Site, lengthened, prepare, quality, train
from bench.latency_peers import INT8_PAIR, INT8_PEER, TORCH_PEER, agreement, pair_scorers
from bench.latency_report import report
from bench.quantization import machine
from bench.timing import MOST_RUNS, Budget, Timings, median_ratio
from encoders import DEFAULT_CHECKPOINT
from encoders.checkpoint import load_tokenizer, resolve_checkpoint, save_checkpoint
from ranker.config import EngineConfig
from ranker.data import load_movielens
from ranker.evaluation import leave_one_out

REFERENCES = {"× ST torch": TORCH_PEER, "× ST int8": INT8_PEER, "× pair int8": INT8_PAIR}
TINY_PLAN = Plan((1, 6), (4, 10, 40), (0, 3, 5, 8), (1, 2), (500, 2000), cases=2)
TINY_RUNS = 20  # of a system at most
COMPARED = 50  # requests on which the cache is compared with no cache


def main(
    folder: Annotated[Path, typer.Option(help="Where the data set is kept.")] = Path("data"),
    out: Annotated[Path, typer.Option(help="Where tables and plots go.")] = Path("runs/latency"),
    seconds: Annotated[float, typer.Option(help="Time for each system under each condition, beyond three runs.")] = 20,
    lists: Annotated[int, typer.Option(help="Held-out events that candidate lists are made of, at most.")] = 3000,
    negatives: Annotated[int, typer.Option(help="Candidates beside the chosen one in a training list.")] = 15,
    epochs: Annotated[float, typer.Option(help="Passes over the training lists.")] = 2,
    large: Annotated[bool, typer.Option("--large", help="A store of a million items too: 3 GB of disk.")] = False,
    tiny: Annotated[bool, typer.Option("--tiny", help="A made-up site and a tiny model, to try the path.")] = False,
) -> None:
    """Latency and quality of re-ranking, beside sentence-transformers."""
    show_progress()
    logging.getLogger().addHandler(logging.NullHandler())  # ONNX Runtime's quantizer advises through the root logger
    # what ONNX Runtime takes by itself; torch would take fewer where OMP_NUM_THREADS is set
    torch.set_num_threads(psutil.cpu_count(logical=False) or 1)
    plan = TINY_PLAN if tiny else Plan(stores=(10_000, 100_000, *([1_000_000] if large else [])))
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        if tiny:
            interactions, items = made_up_site()
            checkpoint, seconds, lists, negatives, epochs = small_checkpoint(temporary / "encoder"), 0.05, 60, 3, 1
        else:
            paths = load_movielens("ml-1m", folder)
            interactions, items = pd.read_parquet(paths.interactions), pd.read_parquet(paths.items)
            checkpoint = DEFAULT_CHECKPOINT
        centre = plan.centre
        training = {"max_lists": lists, "negatives": negatives, "epochs": epochs, "validation_lists": 200}
        split = {
            "joint_layers": min(plan.joint_layers), "depth": centre.candidates, "events": centre.events,
            "training": training,
        }  # fmt: skip
        config = EngineConfig.from_dict({"checkpoint": checkpoint, "rerank": {"kind": "split", "split": split}})
        site = prepare(leave_one_out(interactions).train, items, config)  # the test ratings are used by nothing
        dials = [train(site, count) for count in plan.joint_layers]
        figures, raw = measure(site, dials, plan, Budget(seconds, most=TINY_RUNS if tiny else MOST_RUNS), temporary)
    settings = {
        "plan": str(plan), "seconds": seconds, "lists": lists, "negatives": negatives, "epochs": epochs,
        "learned_lists": len(site.learn), "test_lists": len(site.test), "tiny": tiny,
    }  # fmt: skip
    threads = {"threads": str(torch.get_num_threads()), "cores": str(os.cpu_count())}
    report({"machine": machine() | threads, "settings": settings, **figures}, raw, out)


def measure(
    site: Site, dials: Sequence[Dial], plan: Plan, budget: Budget, temporary: Path
) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """Everything that is reported, by section, and the tables behind it."""
    logging.getLogger("ranker").setLevel(logging.WARNING)  # a note costs time, too
    served = {
        dial.joint_layers: lengthened(site, dial.reranker, max(plan.events), max(plan.candidates)) for dial in dials
    }
    cases = {condition: build_cases(site, condition, plan) for condition in plan.conditions}
    centre = cases[plan.centre]
    sample = [pair for case in centre for pair in case.pairs][:128]
    (temporary / "pairs").mkdir()
    scorers = pair_scorers(site.config.checkpoint, sample, temporary / "pairs", machine()["kernels"])
    systems = every_system(site, served, scorers, plan)
    console.print(f"Timing {len(systems)} systems under {len(cases)} conditions.", highlight=False)
    timings = time_systems(systems, cases, budget)
    judged = quality(dials, site)
    one, first = served[1], centre[0]
    every = {count: cases[Condition(count, plan.centre.events, 1)][0].candidates for count in plan.candidates}
    texts = site.catalogue.texts
    compared = site.test.take(np.arange(min(COMPARED, len(site.test))))
    figures = {
        "latency": latency_rows(systems, timings, judged),
        "quality": judged,
        "growth": growth(systems, timings, plan),
        "pair_agreement": agreement(scorers, sample),
        "stores": parts.store_sizes(one, plan.stores, plan.centre.candidates, plan.centre.events, budget),
        "swap": parts.swap(one, first.requests, first.candidates, budget),
        "batching": dataclasses.asdict(one.batcher.stats()),
        "store_build": parts.store_build(one, texts, resolve_checkpoint(site.config.checkpoint), budget),
        "cache": parts.cached_against_uncached(one, texts, compared, budget),
        "roofline": parts.roofline(one, first.requests, every, budget),
    }
    taken = [
        pd.DataFrame({"system": name, **vars(condition), "seconds": cell.latencies})
        for (condition, name), cell in timings.items()
    ]
    users = pd.DataFrame({f"split {dial.joint_layers}": dial.ndcg for dial in dials})
    return figures, {"latencies": pd.concat(taken, ignore_index=True), "ndcg": users}


def latency_rows(
    systems: Mapping[str, System],
    timings: Mapping[tuple[Condition, str], Timings],
    judged: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """One row for each system under each condition."""
    ndcg = {row["joint_layers"]: row for row in judged}
    rows = []
    for (condition, name), taken in timings.items():
        row: dict[str, Any] = {"system": name, **vars(condition), **parts.milliseconds(taken)}
        row["requests_per_s"] = taken.per_second
        for column, reference in REFERENCES.items():
            known = timings.get((condition, reference))
            row[column] = "" if known in (None, taken) else str(median_ratio(known, taken))
        trained = systems[name].joint_layers
        row["ndcg@10"] = ndcg[trained]["ndcg"] if trained else float("nan")
        row["ndcg_vs_full"] = ndcg[trained]["vs_full"] if trained else float("nan")
        rows.append(row)
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


def made_up_site() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Eighty items of four tastes, and forty users of ten or more events each who mostly keep to one."""
    rng = np.random.default_rng(0)
    words = ("robot war city", "cat love summer", "river old story", "dog winter night")
    titles = [" ".join(rng.choice(words[n % 4].split(), 3)) + f" {n}" for n in range(80)]
    items = pd.DataFrame({"item_id": [f"i{n}" for n in range(80)], "title": titles, "text": titles})
    rows = []
    for user in range(40):
        own = rng.permutation(np.arange(user % 4, 80, 4))[:10]
        taken = rng.permutation(np.unique([*own, *rng.integers(0, 80, 3)]))
        rows += [(user, f"i{item}", 1.0, pd.Timestamp(2024, 1, 1 + place)) for place, item in enumerate(taken)]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "weight", "datetime"]), items


def small_checkpoint(folder: Path) -> str:
    """The folder of a random transformer with the default encoder's six layers and tokenizer, but of small width."""
    tokenizer = load_tokenizer(resolve_checkpoint(DEFAULT_CHECKPOINT))
    torch.manual_seed(0)
    settings = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=6, num_attention_heads=4, intermediate_size=64
    )
    save_checkpoint(BertModel(settings), tokenizer, folder)
    return str(folder)
