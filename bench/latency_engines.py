"""Split engines of several numbers of joint layers: trained on the same lists, judged on the same users."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from encoders import StateEncoder, TextEncoder
from encoders.layers import top_layers
from ranker.config import EngineConfig
from ranker.engine import Engine
from ranker.evaluation import bootstrap_mean, paired_bootstrap
from ranker.fitting import collaborative_factors, fit_sources, held_out_lists, serving_encoder
from ranker.lists import LabelledLists, list_ndcg
from ranker.log import IN_MEMORY, FeedbackLog
from ranker.reranker import Gain
from ranker.split.fitting import fit_split
from ranker.split.inputs import InputReader
from ranker.split.model import JointModel
from ranker.split.reranker import SplitReranker
from ranker.split.serving import OnnxJoint
from ranker.users import UserHistories
from retrieval.candidates import NO_ITEM
from retrieval.catalogue import Catalogue
from retrieval.fusion import FusedRetriever
from retrieval.interactions import Interactions

TEST_SHARE = 1 / 3  # of the users with lists: they are neither trained on nor stopped by
SCORED_AT_ONCE = 32  # lists


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """All that the engines have in common."""

    catalogue: Catalogue
    log: Interactions
    config: EngineConfig
    original: TextEncoder
    encoder: StateEncoder  # the export for the fewest joint layers; its vectors are the text source's
    retriever: FusedRetriever  # trained on the whole log
    factors: NDArray[np.float32]  # (I, d) of a source that did not see what the lists' users chose
    learn: LabelledLists
    test: LabelledLists


@dataclass(frozen=True, slots=True, eq=False)
class Dial:
    """An engine's re-ranker at one number of joint layers."""

    joint_layers: int
    reranker: SplitReranker
    ndcg: NDArray[np.float64]  # (T,) of each test user, over their lists
    report: dict[str, object]


def with_joint_layers(config: EngineConfig, count: int) -> EngineConfig:
    """The same settings at another number of joint layers."""
    split = replace(config.rerank.split, joint_layers=count)
    return replace(config, rerank=replace(config.rerank, split=split))


def prepare(interactions: pd.DataFrame, items: pd.DataFrame, config: EngineConfig) -> Site:
    """Candidate lists, fusion weights and sources, as ``ranker.fit`` makes them, once for every engine."""
    catalogue = Catalogue(items)
    log = Interactions.from_frame(interactions, catalogue)
    original = TextEncoder.load(config.checkpoint, config.encoder)
    encoder = serving_encoder(original, log.histories, catalogue, config)
    vectors = encoder.encode(catalogue.texts, progress=True)
    lists, proposer = held_out_lists(log.histories, vectors, None, config)
    factors = collaborative_factors(proposer, len(catalogue))
    retriever = FusedRetriever(fit_sources(log.histories, vectors, config), proposer.weights, config.fusion)
    rng = np.random.default_rng(config.seed)
    learn, test = lists.containing_choice(config.rerank.split.depth).split_by_user(TEST_SHARE, rng)
    return Site(catalogue, log, config, original, encoder, retriever, factors, learn, test)


def train(site: Site, joint_layers: int) -> Dial:
    """Export the encoder for this cut, read the items, train the joint layers, and judge them on the test users."""
    config = with_joint_layers(site.config, joint_layers)
    clock = time.perf_counter()
    if joint_layers == site.config.rerank.split.joint_layers:
        encoder = site.encoder
    else:
        encoder = serving_encoder(site.original, site.log.histories, site.catalogue, config)
    reranker, training = fit_split(
        site.learn,
        site.learn.take(np.arange(0)),
        site.catalogue,
        site.original,
        encoder,
        site.factors,
        config.rerank,
        config.seed,
        True,
    )
    seconds = time.perf_counter() - clock
    store = reranker.inputs.store
    report: dict[str, object] = {
        "joint_layers": joint_layers, "lists": training.examples, "steps": training.steps, "fit_s": seconds,
        "store_mb": store.bytes_per_item * store.n_items / 1e6, "bytes_per_item": store.bytes_per_item,
    }  # fmt: skip
    return Dial(joint_layers, reranker, user_ndcg(reranked(reranker, site.test), site.test), report)


def reranked(reranker: SplitReranker, lists: LabelledLists) -> NDArray[np.float32]:
    """Scores (L, K) of lists."""
    blocks = np.array_split(np.arange(len(lists)), -(-len(lists) // SCORED_AT_ONCE))
    return np.concatenate([reranker.score(part.requests, part.candidates) for part in map(lists.take, blocks)])


def user_ndcg(scores: NDArray[np.float32], lists: LabelledLists) -> NDArray[np.float64]:
    """NDCG@10 of each user (T,), the mean over their lists, since users are what is independent."""
    items = lists.candidates.items
    gains = list_ndcg(np.where(items == NO_ITEM, -np.inf, scores), items == lists.chosen[:, None])
    return pd.Series(gains).groupby(lists.users).mean().to_numpy()


def quality(dials: Sequence[Dial], site: Site) -> list[dict[str, object]]:
    """One row for the fused order and one for each engine: NDCG@10, and the difference to the most joint layers."""
    fused = user_ndcg(site.test.candidates.scores, site.test)
    full = max(dials, key=lambda dial: dial.joint_layers).ndcg
    rows: list[dict[str, object]] = []
    for report, ndcg in [({"joint_layers": 0}, fused), *((dial.report, dial.ndcg) for dial in dials)]:
        mean, against_full, against_fused = (
            bootstrap_mean(ndcg, seed=0), paired_bootstrap(full, ndcg, seed=0), paired_bootstrap(fused, ndcg, seed=0)
        )  # fmt: skip
        row: dict[str, object] = {**report, "users": len(ndcg), "ndcg": mean.mean, "low": mean.low, "high": mean.high}
        for name, difference in (("full", against_full), ("fused", against_fused)):
            scale = difference.mean_before or float("nan")
            row |= {
                f"vs_{name}": difference.difference / scale,
                f"vs_{name}_low": difference.low / scale,
                f"vs_{name}_high": difference.high / scale,
            }
        rows.append(row)
    return rows


def lengthened(site: Site, reranker: SplitReranker, events: int, depth: int) -> SplitReranker:
    """The same joint layers for more events and candidates, always asked; what they say of fewer events is the same.

    The embeddings of the ages that training did not see are zeros: they are for timing alone.
    """
    shape = replace(reranker.joint.shape, max_events=max(events, reranker.joint.shape.max_events))
    weights = dict(reranker.joint.weights)
    ages = weights["age.weight"]
    weights["age.weight"] = torch.cat([ages, ages.new_zeros(shape.max_events - len(ages), ages.shape[1])])
    joint = OnnxJoint.trace(JointModel(shape, top_layers(site.original.model, shape.joint_layers)))
    joint.replace(weights)
    inputs = InputReader(reranker.inputs.store, reranker.inputs.factors, shape)
    return SplitReranker(joint, inputs, reranker.items, depth, Gain(1, 0))


def engine(site: Site, reranker: SplitReranker, events: int) -> Engine:
    """An engine whose users have done nothing but their newest events."""
    return Engine(
        catalogue=site.catalogue,
        users=UserHistories(Interactions(site.log.users, site.log.histories.latest(events))),
        encoder=site.encoder,
        retriever=site.retriever,
        reranker=reranker,
        log=FeedbackLog(IN_MEMORY),
        config=site.config,
        training=None,
    )
