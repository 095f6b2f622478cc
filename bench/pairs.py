"""Quality of pair cross-encoders beside the dial's engines, and of a split one that was taught by a pair one."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray

from bench import judging
from bench.demo import console, show_progress
from bench.dial import build_site, readable
from bench.latency_engines import PAIRS, Dial, load_dial
from bench.latency_peers import BATCH, FP32_PAIR, INT8_PAIR, INT8_PEER, MAX_TOKENS, Scorer, pair_scorers
from bench.quantization import machine
from bench.sites import Site
from bench.tables import facts, markdown, show, write_json
from encoders import PairCrossEncoder, PairCrossEncoderConfig
from encoders.errors import ArtifactError
from ranker.config import TrainingConfig
from ranker.feedback.labels import LabelledEvents
from ranker.lists import NOBODY, LabelledLists, Lessons
from ranker.pair.reranker import Blend, PairReranker, PairTexts
from ranker.pair.training import fine_tune, learned_blend
from ranker.reranker import NO_GAIN
from ranker.split.fitting import fit_split

CHECKPOINT = "pair-cross-encoder"  # in the folder of a dial
TAUGHT = "split 1, taught by pairs"
JUDGED = (FP32_PAIR, INT8_PAIR, INT8_PEER)  # in torch, the logits are those of float32
BLEND_LISTS = 100  # validation lists from which the blend with the fused scores is learned
STOPPING_LISTS = 50  # of them, scored for early stopping
SAMPLE = 64  # training lists whose first pairs calibrate the int8 exports

TITLE = "Quality of pair cross-encoders: NDCG@10 on one list of each test user"
TAUGHT_TITLE = "Distillation: NDCG@10 on all lists of the test users"
PROTOCOL = """\
The site, lists and users of `python -m bench dial` (its quality.md holds the protocol), made again from its settings;
the fused order's NDCG@10 of every test user is compared with the dial's, and nothing goes on where one differs. The
pair cross-encoder starts from the same checkpoint as the dial's engines and is fine-tuned on the same lists for the
same number of epochs: each list is one pair with label 1 and as many with label 0 as the dial's lists have negatives.
It reads the titles of a user's newest events, as many as the dial's engines read, and the candidate's text. It serves
as `ranker.fit` makes it serve: in a blend with the fused scores, whose two weights are learned on {blend} validation
lists. *{fp32}* stands for torch, too, whose logits are the same; *{int8}* is the recipe of our export, *{peer}*
the dynamic quantization that sentence-transformers calls. Each is judged on the newest list of {users} test users, as
are the dial's engines here. Intervals: 95 %, bootstrap over users, paired for differences, which are shares of the mean
that is compared with: the dial's engine with the most joint layers, and the fused order.

*{taught}* is the dial's *split 1* trained once more, with this cross-encoder as the teacher of up to {teacher_lists} of
its lists. It is judged as the dial's engines are there, on all lists of the test users.
"""


def main(
    dial: Annotated[Path, typer.Option(help="The folder that python -m bench dial wrote.")] = Path("runs/dial"),
    folder: Annotated[Path, typer.Option(help="Where the data set is kept.")] = Path("data"),
    users: Annotated[int, typer.Option(min=2, help="Test users whose newest list is judged, at most.")] = 300,
    teacher_lists: Annotated[int, typer.Option(min=1, help="Lists that it teaches the split one, at most.")] = 1000,
    trained: Annotated[
        bool, typer.Option("--trained", help="Take the one that an earlier run has fine-tuned.")
    ] = False,
) -> None:
    """Fine-tune a pair cross-encoder on a dial's lists, judge it beside the dial's engines, and let it teach one."""
    show_progress()
    try:
        known = load_dial(dial)
    except ArtifactError as error:
        raise SystemExit(str(error)) from error
    site = remade(known, dial, folder)
    texts = PairTexts(site.catalogue.titles, site.catalogue.texts, site.config.rerank.split.events)
    train, validation = site.learn.split_by_user(
        site.config.rerank.split.training.validation_fraction, np.random.default_rng(site.config.seed)
    )
    if not trained:
        fine_tuned(site, texts, train, validation, dial / CHECKPOINT)
    with TemporaryDirectory() as exports:
        sample = [
            pair
            for context, items in zip(texts.contexts(train.requests), train.candidates.items, strict=True)
            for pair in texts.pairs(context, items[:1])
        ][:SAMPLE]
        scorers = pair_scorers(str(dial / CHECKPOINT), sample, Path(exports), machine()["kernels"])
        newest = np.flatnonzero(np.append(np.diff(site.test.users) != 0, True))
        lists = site.test.take(np.sort(np.random.default_rng(0).permutation(newest)[:users]))
        ndcg, blend = judged({name: scorers[name] for name in JUDGED}, texts, validation, lists)
    ndcg |= {
        name: judging.user_ndcg(judging.reranked(engine.reranker, lists), lists)
        for name, engine in known.engines.items()
    }
    ndcg[judging.FUSED] = judging.user_ndcg(lists.candidates.scores, lists)
    full = max(known.engines, key=lambda name: known.quality[name]["joint_layers"])
    named = [{"variant": name, "joint_layers": known.quality.get(name, {}).get("joint_layers", "all")} for name in ndcg]
    of_users = pd.read_parquet(dial / "ndcg.parquet")
    before = {name: of_users[name].to_numpy() for name in (judging.FUSED, known.one)}
    taught = {TAUGHT: taught_ndcg(site, dial / CHECKPOINT, teacher_lists)}
    about = {
        "protocol": PROTOCOL.format(
            blend=BLEND_LISTS,
            users=len(lists),
            fp32=FP32_PAIR,
            int8=INT8_PAIR,
            peer=INT8_PEER,
            taught=TAUGHT,
            teacher_lists=teacher_lists,
        ),
        "machine": machine(),
        "settings": {**known.about, "judged_lists": len(lists), "blend": str(blend)},
    }
    rows = judging.quality([row for row in named if row["variant"] != judging.FUSED], ndcg, full)
    again = judging.quality([{"variant": known.one}, {"variant": TAUGHT}], before | taught, known.one)
    report({**about, "quality": rows, "distillation": again}, dial)


def remade(known: Dial, dial: Path, folder: Path) -> Site:
    """The site of a dial.

    Raises:
        SystemExit: It cannot be made again as it was.
    """
    settings = known.about
    layers = min(int(row["joint_layers"]) for row in known.quality.values() if row["joint_layers"])
    named = (settings[name] for name in ("lists", "test_share", "negatives", "epochs", "tiny"))
    site, _ = build_site(layers, *named, folder, dial)
    fused = judging.user_ndcg(site.test.candidates.scores, site.test)
    before = pd.read_parquet(dial / "ndcg.parquet")[judging.FUSED].to_numpy()
    if fused.shape != before.shape or not np.allclose(fused, before, atol=1e-6):
        raise SystemExit(
            f"{dial}: its lists cannot be made again: run python -m bench dial once more, on this machine."
        )
    return site


def fine_tuned(site: Site, texts: PairTexts, train: LabelledLists, validation: LabelledLists, target: Path) -> None:
    """Fine-tune a pair cross-encoder and keep it."""
    split = site.config.rerank.split
    config = TrainingConfig(
        negatives=split.training.negatives,
        epochs=split.training.epochs,
        evaluations_per_epoch=1,
        validation_lists=STOPPING_LISTS,
    )
    reading = PairCrossEncoderConfig(max_tokens=MAX_TOKENS, batch_size=BATCH)
    cross_encoder = PairCrossEncoder.load(site.config.checkpoint, reading, site.config.seed)
    nothing = train.take(NOBODY)
    told = LabelledEvents(nothing.users, nothing.requests, nothing.chosen, np.zeros(0, np.float32))
    fine_tune(cross_encoder, texts, train, told, validation, config, site.config.seed)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    cross_encoder.save(target)


def judged(
    scorers: Mapping[str, Scorer], texts: PairTexts, validation: LabelledLists, lists: LabelledLists
) -> tuple[dict[str, NDArray[np.float64]], Blend]:
    """NDCG@10 of each user by scorer, all in one blend with the fused scores, which the first one's opinions decide."""
    blend, ndcg = Blend(), {}
    learn = validation.take(np.random.default_rng(0).permutation(len(validation))[:BLEND_LISTS])
    for name, score in scorers.items():
        scorer = SimpleNamespace(score=score)
        if not ndcg:
            asked = PairReranker(scorer, texts, learn.candidates.items.shape[1], blend, NO_GAIN)
            blend, _ = learned_blend(asked.opinions(learn.requests, learn.candidates), learn)
        reranker = PairReranker(scorer, texts, lists.candidates.items.shape[1], blend, NO_GAIN)
        ndcg[name] = judging.user_ndcg(judging.reranked(reranker, lists), lists)
        console.print(f"{name}: NDCG@10 {ndcg[name].mean():.4f}", highlight=False)
    return ndcg, blend


def taught_ndcg(site: Site, teacher: Path, teacher_lists: int) -> NDArray[np.float64]:
    """NDCG@10 of each test user, by one joint layer that learns from a teacher, too."""
    rerank = site.config.rerank
    training = replace(rerank.split.training, teacher=str(teacher), teacher_lists=teacher_lists)
    pair = replace(
        rerank.pair,
        model=PairCrossEncoderConfig(max_tokens=MAX_TOKENS, batch_size=BATCH),
        context_items=rerank.split.events,
    )
    reranker, _, _ = fit_split(
        Lessons.of(site.learn),
        site.catalogue,
        site.original,
        site.encoder,
        site.factors,
        replace(rerank, split=replace(rerank.split, joint_layers=1, training=training), pair=pair),
        site.config.seed,
        progress=True,
    )
    return judging.user_ndcg(judging.reranked(reranker, site.test), site.test)


def report(figures: Mapping[str, Any], dial: Path) -> None:
    """Show the tables and write them as JSON and Markdown beside the dial's."""
    write_json(figures, dial / PAIRS)
    pages = [
        "# Pair cross-encoders beside the dial",
        figures["protocol"],
        "## Machine and settings",
        facts(figures["machine"], figures["settings"]),
    ]
    for section, title in (("quality", TITLE), ("distillation", TAUGHT_TITLE)):
        table = readable(figures[section])
        if section == "distillation":
            table = table.rename(columns={"against full": "against one without a teacher"})
        show(title, table)
        pages += [f"## {title}", markdown(table)]
    (dial / "pairs.md").write_text("\n\n".join(page.strip() for page in pages) + "\n", encoding="utf-8")
    console.print(f"Written to {dial}", highlight=False)
