"""The dial of the split re-ranker on MovieLens-1M: what joint layers, vectors of an item and quantization are worth."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from bench import judging
from bench.demo import console, show_progress
from bench.quantization import machine
from bench.sites import Site, made_up_tables, prepare, small_checkpoint
from bench.tables import facts, markdown, show, write_json
from bench.variants import JOINT_LAYERS, Trained, Variant, every_variant, train
from encoders import DEFAULT_CHECKPOINT
from ranker.artifact import check_target
from ranker.config import EngineConfig
from ranker.data import load_movielens
from ranker.engine import Engine
from ranker.evaluation import leave_one_out
from ranker.feedback import IN_MEMORY, FeedbackLog

QUALITY, ENGINES = "quality.json", "engines"  # in the folder of a dial
VALIDATION_LISTS = 300  # scored for early stopping: six joint layers take a third of a second for each
TITLE = "Quality of the dial: NDCG@10 on the test users"
PROTOCOL = """\
{data} without each user's last rating, which is used by nothing. The newest events of some users become candidate lists
of sources that did not see them. Lists that hold the chosen item among the first {depth} candidates are kept. Some of
the users ({test_share:.0%}) are the test, on whose lists nothing but the fusion's weights was learned. Every variant
learns from the same other lists with the same budget and seed; early stopping uses a fifth of those users. NDCG@10 is
measured on the test users' lists, with up to {events} events of a user; a user's is the mean of their lists. Intervals:
95 %, bootstrap over users, paired for differences, which are shares of the mean that is compared with. The full model
has the most joint layers and every token, trained and served on int8 states.

*split n* has n joint layers and reads every token of an item, *split n, v vectors* at most v vectors of it; one joint
layer keeps one row of an item, whatever its tokens. States are those of the encoder's int8 export, where it passes the
gate (*precision* is the one that did). *float32 states*: trained and served on those of the encoder in torch. *int8
after training*: the same joint layers, trained on float32 states, served on int8 ones. *int8 rows*: the store
keeps states in 8 bits, too. Candidates are the same for all. *fit_s* is the time of reading the items and training,
without the export.
"""


def main(
    joint_layers: Annotated[
        list[int],
        typer.Option(min=1, help="Of the dial's settings; repeatable.", default_factory=lambda: list(JOINT_LAYERS)),
    ],
    folder: Annotated[Path, typer.Option(help="Where the data set is kept.")] = Path("data"),
    out: Annotated[Path, typer.Option(help="Where engines and tables go.")] = Path("runs/dial"),
    lists: Annotated[int, typer.Option(min=1, help="Held-out events that lists are made of, at most.")] = 3000,
    test_share: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="Of the users with lists, in (0, 1); the others train.")
    ] = 1 / 3,
    negatives: Annotated[int, typer.Option(min=1, help="Candidates beside the chosen one in a training list.")] = 15,
    epochs: Annotated[float, typer.Option(help="Passes over the training lists.")] = 2,
    tiny: Annotated[bool, typer.Option("--tiny", help="A made-up site and a tiny model, to try the path.")] = False,
) -> None:
    """Train split re-rankers of several settings on the same lists, judge and keep them."""
    show_progress()
    site, data = build_site(min(joint_layers), lists, test_share, negatives, epochs, tiny, folder, out)
    chosen = site.config.rerank.split
    about = {
        "protocol": PROTOCOL.format(data=data, depth=chosen.depth, events=chosen.events, test_share=test_share),
        "machine": machine(),
        "settings": {
            "lists": lists, "learned_lists": len(site.learn), "test_lists": len(site.test),
            "test_users": len(np.unique(site.test.users)), "test_share": test_share, "negatives": negatives,
            "epochs": epochs, "tiny": tiny,
        },
    }  # fmt: skip
    run(site, every_variant(joint_layers), about, out)


def build_site(
    joint_layers: int,
    lists: int,
    test_share: float,
    negatives: int,
    epochs: float,
    tiny: bool,
    folder: Path,
    out: Path,
) -> tuple[Site, str]:
    """The same site for the same settings, see ``main``, and what its data set is called.

    Args:
        joint_layers: Of the encoder's export that reads the items for retrieval.
        lists: Held-out events that lists are made of, at most.
        test_share: Of the users with lists, in (0, 1).
        negatives: Candidates beside the chosen one in a training list.
        epochs: Passes over the training lists.
        tiny: A made-up site and a tiny model.
        folder: Where the data set is kept.
        out: Where the tiny model is written.
    """
    split: dict[str, Any] = {"joint_layers": joint_layers}
    if tiny:
        interactions, items = made_up_tables()
        data, checkpoint = "A made-up site", small_checkpoint((out / "checkpoint").resolve())
        lists, negatives, epochs = 60, 3, 1
        split |= {"depth": 10, "events": 5}
    else:
        paths = load_movielens("ml-1m", folder)
        interactions, items = pd.read_parquet(paths.interactions), pd.read_parquet(paths.items)
        data, checkpoint = "MovieLens-1M", DEFAULT_CHECKPOINT
    split["training"] = {
        "max_lists": lists, "negatives": negatives, "epochs": epochs, "validation_lists": VALIDATION_LISTS,
    }  # fmt: skip
    config = EngineConfig.from_dict({"checkpoint": checkpoint, "rerank": {"kind": "split", "split": split}})
    return prepare(leave_one_out(interactions).train, items, config, test_share), data


def run(site: Site, variants: Sequence[Variant], about: Mapping[str, Any], out: Path) -> None:
    """Train, judge and keep every variant; what is finished is on disk whenever the rest is not.

    Args:
        site: What they share.
        variants: Which.
        about: What is reported beside the figures: ``protocol``, ``machine`` and ``settings``.
        out: The folder.
    """
    full = judging.full_model(variants)
    ndcg = {judging.FUSED: judging.user_ndcg(site.test.candidates.scores, site.test)}
    known: dict[str, dict[str, Any]] = {}
    for trained in train(site, variants):
        name = trained.variant.name
        ndcg[name] = judging.user_ndcg(judging.reranked(trained.reranker, site.test), site.test)
        known[name] = trained.facts
        save(site, trained, out / ENGINES / trained.variant.folder)
        finished = [variant for variant in variants if variant.name in known]
        rows = judging.quality([known[variant.name] for variant in finished], ndcg, full.name)
        words = [
            judging.smallest_sufficient(finished, ndcg),
            *judging.quantization_losses(finished, ndcg),
            *judging.row_losses(finished, ndcg),
        ]
        write({**about, "quality": rows, "words": words}, out)
        users = site.log.users.at(np.unique(site.test.users)).rename("user_id")
        pd.DataFrame(ndcg, index=users).to_parquet(out / "ndcg.parquet")
        console.print(f"{name}: NDCG@10 {ndcg[name].mean():.4f} after {trained.seconds:.0f} s", highlight=False)
    show(TITLE, readable(rows))
    for line in words:
        console.print(line, highlight=False)
    console.print(f"Written to {out}", highlight=False)


def save(site: Site, trained: Trained, folder: Path) -> None:
    """Write a whole engine with this re-ranker; an engine that is there is replaced."""
    check_target(folder)
    shutil.rmtree(folder, ignore_errors=True)
    Engine(
        catalogue=site.catalogue,
        interactions=site.log,
        encoder=trained.encoder,
        retriever=site.retriever,
        lasting=None,
        reranker=trained.reranker,
        log=FeedbackLog(IN_MEMORY),
        config=trained.variant.settings(site.config),
        training=trained.training,
    ).save(folder)


def write(figures: Mapping[str, Any], out: Path) -> None:
    """Write figures as JSON and Markdown."""
    write_json(figures, out / QUALITY)
    lines = "\n".join(f"- {line}" for line in figures["words"])
    parts = [
        "# The dial of the split re-ranker",
        figures["protocol"],
        "## Machine and settings",
        facts(figures["machine"], figures["settings"]),
        f"## {TITLE}",
        markdown(readable(figures["quality"])),
        lines,
    ]
    (out / "quality.md").write_text("\n\n".join(part.strip() for part in parts) + "\n", encoding="utf-8")


def readable(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows with each interval beside its figure."""
    table = pd.DataFrame({"variant": [row["variant"] for row in rows]})
    table["NDCG@10 (95 %)"] = [f"{row['ndcg']:.4f} ({row['low']:.4f} to {row['high']:.4f})" for row in rows]
    shown = ["variant", "ndcg", "low", "high"]
    for name in ("full", "fused"):
        columns = [f"vs_{name}", f"vs_{name}_low", f"vs_{name}_high"]
        table[f"against {name}"] = [judging.percent(*(row[column] for column in columns)) for row in rows]
        shown += columns
    return table.join(pd.DataFrame(rows).drop(columns=shown))
