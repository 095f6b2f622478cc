"""Variants of the split re-ranker: how many layers are joint, what is kept of an item, and which encoder reads it."""

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal

import numpy as np

from bench.sites import Site
from encoders import OnnxTextEncoder, StateEncoder
from ranker.config import EngineConfig
from ranker.fitting import serving_encoder
from ranker.lists import Lessons
from ranker.split.fitting import fit_split
from ranker.split.reranker import SplitReranker
from ranker.temporary import remove_with, temporary_folder
from retrieval.training import TrainingReport

States = Literal["float32", "int8"]  # of the encoder in torch, or of its export in the lowest precision that passed
JOINT_LAYERS = (1, 2, 3, 6)
FEWER_VECTORS = ((2, 8), (2, 4))  # joint layers, vectors of an item
INT8_ROWS = ((1, None), (2, 8))  # joint layers and vectors at which the store's rows are kept in 8 bits, too
QUANTIZED_LAYERS = 1  # joint layers at which the encoder's precision is varied


@dataclass(frozen=True)
class Variant:
    """One setting of the dial.

    Attributes:
        name: What it is called in tables.
        joint_layers: Layers that read item and user together.
        item_vectors: That an item's tokens are averaged into; None keeps every token.
        trained_on: Whose states the joint layers learned on.
        served_on: Whose states they are judged on.
        rows: What the store keeps them as.
    """

    name: str
    joint_layers: int
    item_vectors: int | None = None
    trained_on: States = "int8"
    served_on: States = "int8"
    rows: Literal["float16", "int8"] = "float16"

    @property
    def folder(self) -> str:
        """The name in letters, digits and dashes."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower())

    @property
    def usual(self) -> bool:
        """Whether it is trained and served as ``ranker.fit`` does it by default."""
        return self.trained_on == self.served_on == "int8" and self.rows == "float16"

    @property
    def size(self) -> tuple[int, float]:
        """Of two variants, what makes one the smaller: joint layers, then vectors."""
        return self.joint_layers, np.inf if self.item_vectors is None else self.item_vectors

    def settings(self, config: EngineConfig) -> EngineConfig:
        """The same settings for an engine with this re-ranker."""
        split = replace(
            config.rerank.split,
            joint_layers=self.joint_layers,
            item_vectors=self.item_vectors,
            quantized=self.served_on == "int8",
            states=self.rows,
        )
        return replace(config, rerank=replace(config.rerank, split=split))


def every_variant(joint_layers: Iterable[int]) -> list[Variant]:
    """Every token at each of these numbers of joint layers, then fewer vectors and other precisions where they fit."""
    counts = sorted(set(joint_layers))
    whole = [Variant(f"split {count}", count) for count in counts]
    fewer = [Variant(f"split {count}, {vectors} vectors", count, vectors) for count, vectors in FEWER_VECTORS]
    fewer = [variant for variant in fewer if variant.joint_layers in counts]
    rows = [
        replace(variant, name=f"{variant.name}, int8 rows", rows="int8")
        for variant in whole + fewer
        if (variant.joint_layers, variant.item_vectors) in INT8_ROWS
    ]
    precisions = [
        Variant(f"split {QUANTIZED_LAYERS}, float32 states", QUANTIZED_LAYERS, None, "float32", "float32"),
        Variant(f"split {QUANTIZED_LAYERS}, int8 after training", QUANTIZED_LAYERS, None, "float32", "int8"),
    ]
    return whole + fewer + rows + (precisions if QUANTIZED_LAYERS in counts else [])


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A variant's re-ranker, the encoder that it is served with, and what its training took."""

    variant: Variant
    reranker: SplitReranker
    encoder: StateEncoder
    training: TrainingReport
    seconds: float  # of reading the items and training; the encoder's export is not part of it

    @property
    def facts(self) -> dict[str, Any]:
        """What a table says of it beside its quality."""
        store = self.reranker.inputs.store
        rows = float(store.counts.mean())
        return {
            "variant": self.variant.name, "joint_layers": self.variant.joint_layers,
            # with several joint layers, the first row is what stands for the item as an event
            "vectors_per_item": rows if self.variant.joint_layers == 1 else rows - 1,
            "bytes_per_item": store.bytes_per_item, "trained_on": self.variant.trained_on,
            "served_on": self.variant.served_on, "rows": self.variant.rows, "precision": precision(self.encoder),
            "lists": self.training.examples, "steps": self.training.steps, "fit_s": self.seconds,
        }  # fmt: skip


def train(site: Site, variants: Sequence[Variant]) -> Iterator[Trained]:
    """Every variant, the largest first; those that differ in nothing but what they are served on are trained once."""
    exports: dict[int, StateEncoder] = {site.config.rerank.split.joint_layers: site.encoder}

    def encoder(states: States, joint_layers: int) -> StateEncoder:
        if states == "float32":
            return site.original
        if joint_layers not in exports:
            config = Variant("", joint_layers).settings(site.config)
            exports[joint_layers] = serving_encoder(site.original, site.log.histories, site.catalogue, config)
        return exports[joint_layers]

    def training(variant: Variant) -> tuple[Any, ...]:
        return variant.size, variant.trained_on, variant.rows == "float16"  # the full model is the very first

    for (_, states, _), group in groupby(sorted(variants, key=training, reverse=True), training):
        alike = list(group)
        count = alike[0].joint_layers
        rerank, seed = alike[0].settings(site.config).rerank, site.config.seed
        reading = encoder(states, count)  # exported before the clock starts
        clock = time.perf_counter()
        reranker, report, _ = fit_split(
            Lessons.of(site.learn),
            site.catalogue,
            site.original,
            reading,
            site.factors,
            rerank,
            seed,
            progress=True,
        )
        seconds = time.perf_counter() - clock
        for variant in alike:
            serving = encoder(variant.served_on, count)
            served = reranker if variant.served_on == states else read_anew(reranker, serving, site)
            yield Trained(variant, served, serving, report, seconds)


def read_anew(reranker: SplitReranker, encoder: StateEncoder, site: Site) -> SplitReranker:
    """The same joint layers over items that another encoder has read."""
    with temporary_folder("states-") as folder:
        other = reranker.read_by(encoder, site.catalogue.texts, folder)
        remove_with(other, folder)
    return other


def precision(encoder: StateEncoder) -> str:
    """Of an encoder's weights: an export may have been refused in the lowest one."""
    return encoder.manifest.precision if isinstance(encoder, OnnxTextEncoder) else "float32"
