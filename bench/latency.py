"""Re-ranking latency and quality on MovieLens-1M: split engines beside cross-encoders that read pairs of texts."""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
from transformers import BertConfig, BertModel

from bench import latency_parts as parts
from bench.demo import console, show_progress
from bench.latency_engines import Dial, Site, engine, lengthened, prepare, quality, train
from bench.latency_peers import INT8_PAIR, INT8_PEER, TORCH_PEER, Scorer, agreement, pair_scorers
from bench.latency_report import report
from bench.quantization import machine
from bench.timing import Budget, Timings, callers, median_ratio, time_in_turn
from encoders import DEFAULT_CHECKPOINT
from encoders.checkpoint import load_tokenizer, resolve_checkpoint, save_checkpoint
from ranker.config import EngineConfig
from ranker.data import load_movielens
from ranker.evaluation import leave_one_out
from ranker.pair.reranker import PairTexts
from ranker.split.reranker import SplitReranker
from retrieval.candidates import Candidates, Requests

REFERENCES = (TORCH_PEER, INT8_PEER, INT8_PAIR)
CALLS_EACH = 4  # of each of several callers, in one run
COMPARED = 50  # requests on which the cache is compared with no cache


@dataclass(frozen=True)
class Plan:
    """What is varied, one factor at a time around the centre, and how large everything is.

    Attributes:
        joint_layers: Of the engines; the most are the reference of quality.
        candidates: Of a request; the second is the centre.
        events: Of a user; the third is the centre.
        callers: At once; the first is the centre.
        stores: Items of made-up stores.
        cases: Different requests.
    """

    joint_layers: tuple[int, ...] = (1, 2, 3, 6)
    candidates: tuple[int, ...] = (10, 100, 1000)
    events: tuple[int, ...] = (0, 10, 20, 50)
    callers: tuple[int, ...] = (1, 8)
    stores: tuple[int, ...] = (10_000, 100_000)
    cases: int = 16

    @property
    def centre(self) -> "Condition":
        """What every other condition differs from in one factor."""
        return Condition(self.candidates[1], self.events[2], self.callers[0])

    @property
    def conditions(self) -> list["Condition"]:
        """The centre, then each factor's other values."""
        centre = self.centre
        varied = [
            *(Condition(count, centre.events, centre.callers) for count in self.candidates),
            *(Condition(centre.candidates, count, centre.callers) for count in self.events),
            *(Condition(centre.candidates, centre.events, count) for count in self.callers),
        ]
        return list(dict.fromkeys([centre, *varied]))


TINY_PLAN = Plan((1, 6), (4, 10, 40), (0, 3, 5, 8), (1, 2), (500, 2000), cases=2)


@dataclass(frozen=True)
class Condition:
    """What a request is like."""

    candidates: int
    events: int
    callers: int


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One request, in the form that each system takes."""

    events: int
    user: Any
    item_ids: list[Any]
    requests: Requests
    candidates: Candidates
    pairs: list[tuple[str, str]]


@dataclass(frozen=True)
class System:
    """Something that is timed.

    Attributes:
        call: Answers a case.
        joint_layers: Of its engine; 0 where nothing was trained.
        concurrent: Whether several callers ask it at once, too.
    """

    call: Callable[[Case], object]
    joint_layers: int = 0
    concurrent: bool = False


def main(
    folder: Annotated[Path, typer.Option(help="Where the data set is kept.")] = Path("data"),
    out: Annotated[Path, typer.Option(help="Where tables and plots go.")] = Path("runs/latency"),
    seconds: Annotated[float, typer.Option(help="Time for each system under each condition, beyond three runs.")] = 20,
    lists: Annotated[int, typer.Option(help="Held-out events that candidate lists are made of, at most.")] = 6000,
    negatives: Annotated[int, typer.Option(help="Candidates beside the chosen one in a training list.")] = 15,
    epochs: Annotated[float, typer.Option(help="Passes over the training lists.")] = 2,
    large: Annotated[bool, typer.Option("--large", help="A store of a million items too: 3 GB of disk.")] = False,
    tiny: Annotated[bool, typer.Option("--tiny", help="A made-up site and a tiny model, to try the path.")] = False,
) -> None:
    """Latency and quality of re-ranking, beside sentence-transformers."""
    show_progress()
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
        figures = measure(site, dials, plan, Budget(seconds), temporary)
    settings = {
        "plan": str(plan), "seconds": seconds, "lists": lists, "negatives": negatives, "epochs": epochs,
        "learned_lists": len(site.learn), "test_lists": len(site.test), "tiny": tiny,
    }  # fmt: skip
    threads = {"threads": str(torch.get_num_threads()), "cores": str(len(os.sched_getaffinity(0)))}
    report({"machine": machine() | threads, "settings": settings, **figures}, out)


def measure(site: Site, dials: Sequence[Dial], plan: Plan, budget: Budget, temporary: Path) -> dict[str, Any]:
    """Everything that is reported, by section."""
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
    return {
        "latency": latency_rows(systems, timings, judged),
        "quality": judged,
        "growth": growth(systems, timings, plan),
        "pair_agreement": agreement(scorers, sample),
        "stores": parts.store_sizes(one, plan.stores, plan.centre.candidates, plan.centre.events, budget),
        "swap": parts.swap(one, first.requests, first.candidates, budget),
        "store_build": parts.store_build(one, texts, temporary / "pairs" / "checkpoint", budget),
        "cache": parts.cached_against_uncached(
            one, texts, site.test.take(np.arange(COMPARED) % len(site.test)), budget
        ),
        "roofline": parts.roofline(one, first.requests, every, budget),
    }


def every_system(
    site: Site, served: Mapping[int, SplitReranker], scorers: Mapping[str, Scorer], plan: Plan
) -> dict[str, System]:
    """What is timed, by name."""
    systems = {
        name: System(lambda case, score=score: score(case.pairs), concurrent=name == INT8_PAIR)  # type: ignore[misc]
        for name, score in scorers.items()
    }
    for count, reranker in served.items():
        engines = {events: engine(site, reranker, events) for events in plan.events}

        def rank(case: Case, engines: Mapping[int, Any] = engines) -> object:
            return engines[case.events].rank(case.user, case.item_ids)

        def score(case: Case, reranker: SplitReranker = reranker) -> object:
            return reranker.score(case.requests, case.candidates)

        systems[f"split {count}, Engine.rank"] = System(rank, count, concurrent=count == 1)
        systems[f"split {count}, score"] = System(score, count, concurrent=count == 1)
    return systems


def build_cases(site: Site, condition: Condition, plan: Plan) -> list[Case]:
    """Random items for random users who did enough; their histories are cut to the newest events."""
    rng = np.random.default_rng(0)
    long_enough = np.flatnonzero(site.log.histories.lengths >= max(plan.events))
    histories = site.log.histories.latest(condition.events)
    everything = np.ones(len(site.catalogue), np.bool_)
    texts = PairTexts(site.catalogue.titles, site.catalogue.texts, condition.events)
    cases = []
    for row in rng.permutation(long_enough)[: plan.cases]:
        items = rng.permutation(len(site.catalogue))[: condition.candidates]
        requests = Requests(histories.take(np.array([row])), everything, exclude_seen=False)
        cases.append(
            Case(
                condition.events,
                site.log.users.ids[row],
                site.catalogue.ids.at(items).tolist(),
                requests,
                site.retriever.arrange(requests, items[None]),
                texts.pairs(texts.contexts(requests)[0], items),
            )
        )
    return cases


def time_systems(
    systems: Mapping[str, System], cases: Mapping[Condition, Sequence[Case]], budget: Budget
) -> dict[tuple[Condition, str], Timings]:
    """Time all systems under all conditions, those of equally many callers in turn."""
    timings: dict[tuple[Condition, str], Timings] = {}
    for count in sorted({condition.callers for condition in cases}):
        with callers(count, CALLS_EACH if count > 1 else 1) as runner:
            runs = {
                (condition, name): runner(system.call, cases[condition])
                for condition in cases
                for name, system in systems.items()
                if condition.callers == count and (count == 1 or system.concurrent)
            }
            timings |= time_in_turn(runs, budget)
    return timings


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
        for reference in REFERENCES:
            known = timings.get((condition, reference))
            row[f"faster than {reference}"] = "" if known is None else str(median_ratio(known, taken))
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
