"""Engines that are timed: those of a dial, changed so that every condition can be put to them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import ranker
from bench.dial import ENGINES, QUALITY
from bench.latency_peers import FP32_PAIR, INT8_PAIR, INT8_PEER, TORCH_PAIR, TORCH_PEER
from bench.variants import Variant
from encoders.errors import ArtifactError
from encoders.layers import Layer
from ranker.engine import Engine
from ranker.feedback import IN_MEMORY, FeedbackLog
from ranker.reranker import Gain
from ranker.split.inputs import InputReader
from ranker.split.model import JointModel
from ranker.split.reranker import SplitReranker
from ranker.split.serving import OnnxJoint
from retrieval.interactions import Interactions

PAIRS = "pairs.json"  # of python -m bench pairs, in the same folder


@dataclass(frozen=True, slots=True, eq=False)
class Dial:
    """What ``python -m bench dial`` found and keeps.

    Attributes:
        quality: Its rows, by variant.
        about: Its settings.
        engines: By variant, those that are trained and served as usual: the precision of the encoder that read the
            items does not bear on the time of a request.
        pairs: What ``python -m bench pairs`` found, by pair cross-encoder; empty where it has not run.
    """

    quality: dict[str, dict[str, Any]]
    about: dict[str, Any]
    engines: dict[str, Engine]
    pairs: dict[str, dict[str, Any]]

    @property
    def one(self) -> str:
        """The variant with one joint layer."""
        return Variant("split 1", 1).name

    @property
    def site(self) -> Engine:
        """What gives the others its catalogue, users and sources, which they have in common."""
        return self.engines[self.one]


def load_dial(folder: Path) -> Dial:
    """Read a dial's folder.

    Raises:
        ArtifactError: It is none, or lacks the engine with one joint layer; or an engine is damaged.
    """
    first = f"Run first: python -m bench dial --out {folder}"
    path = folder / QUALITY
    try:
        content = json.loads(path.read_bytes())
        quality = _by_variant(content["quality"])
        usual = {name: row for name, row in quality.items() if row.get("trained_on") == row.get("served_on") == "int8"}
        found = [Variant(name, int(row["joint_layers"])) for name, row in usual.items()]
        about = dict(content["settings"])
        pairs = _by_variant(json.loads((folder / PAIRS).read_bytes())["quality"]) if (folder / PAIRS).exists() else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path}: no figures of a dial can be read here. {first}") from error
    if all(variant.name != Variant("split 1", 1).name for variant in found):
        raise ArtifactError(f"{path}: no engine with one joint layer, whose parts are timed. {first}")
    engines = {variant.name: ranker.load(folder / ENGINES / variant.folder) for variant in found}
    # in torch, the logits are those of float32
    judged = {
        FP32_PAIR: FP32_PAIR,
        TORCH_PAIR: FP32_PAIR,
        TORCH_PEER: FP32_PAIR,
        INT8_PAIR: INT8_PAIR,
        INT8_PEER: INT8_PEER,
    }
    return Dial(quality, about, engines, {name: pairs[same] for name, same in judged.items() if same in pairs})


def _by_variant(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {str(row["variant"]): dict(row) for row in rows}


def lengthened(reranker: SplitReranker, events: int, depth: int) -> SplitReranker:
    """The same joint layers for more events and candidates, always asked; what they say of fewer events is the same.

    The embeddings of the ages that training did not see are zeros: they are for timing alone.
    """
    shape = replace(reranker.joint.shape, max_events=max(events, reranker.joint.shape.max_events))
    weights = dict(reranker.joint.weights)
    ages = weights["age.weight"]
    weights["age.weight"] = torch.cat([ages, ages.new_zeros(shape.max_events - len(ages), ages.shape[1])])
    joint = OnnxJoint.trace(JointModel(shape, [Layer(shape.layer) for _ in range(shape.joint_layers)]))
    joint.replace(weights)
    inputs = InputReader(reranker.inputs.store, reranker.inputs.factors, shape)
    return SplitReranker(joint, inputs, reranker.items, depth, Gain(1, 0))


def with_newest(site: Engine, reranker: SplitReranker, events: int) -> Engine:
    """An engine with this re-ranker whose users have done nothing but their newest events."""
    log = site.users.base
    return Engine(
        catalogue=site.catalogue,
        interactions=Interactions(log.users, log.histories.latest(events)),
        encoder=site.encoder,
        retriever=site.retriever,
        lasting=None,
        reranker=reranker,
        log=FeedbackLog(IN_MEMORY),
        config=site.config,
        training=None,
    )


def rerankers(dial: Dial, events: int, depth: int) -> Mapping[str, SplitReranker]:
    """By variant, each for so many events and candidates."""
    return {name: lengthened(engine.reranker, events, depth) for name, engine in dial.engines.items()}
