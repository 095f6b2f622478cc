"""Re-ranking by the split cross-encoder: cached item states and a user's newest events, read together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoders import Encoder, StateEncoder
from encoders.errors import ArtifactError
from encoders.execution import QUICKLY_OPENED, usable
from ranker.batching import BatchingConfig, MicroBatcher
from ranker.reranker import NO_GAIN, CrossEncoderReranker, Gain
from ranker.split.inputs import InputReader, JointInputs, stacked
from ranker.split.items import ItemReader
from ranker.split.queries import read_queries
from ranker.split.serving import OnnxJoint
from ranker.split.workload import sample_inputs
from ranker.states.building import build_store
from ranker.states.store import StateStore
from retrieval.candidates import Candidates, Requests
from retrieval.fusion import standardised
from retrieval.queries import Queries
from retrieval.storage import load_array

BLOCK_REQUESTS = 32  # read and scored at once: bounds the memory of their rows
STORE, FACTORS, FOLDING = "states", "factors.npy", "folding.safetensors"


class SplitReranker(CrossEncoderReranker):
    """Re-orders candidates by the joint layers' logit, in which the retrieval scores have a part.

    Args:
        joint: The joint layers.
        inputs: Gathers what they read.
        items: Reads items into the store.
        depth: Candidates of each request that are scored.
        gain: What that was worth.
        query_gain: What it was worth where requests have a free-text query.
    """

    def __init__(
        self,
        joint: OnnxJoint,
        inputs: InputReader,
        items: ItemReader,
        depth: int,
        gain: Gain,
        query_gain: Gain = NO_GAIN,
    ) -> None:
        super().__init__(depth, gain, query_gain)
        self.joint = joint
        self.inputs = inputs
        self.items = items
        # no method of this object, which would keep it and its files alive until the garbage collector runs
        self.batcher = MicroBatcher(partial(_together, joint), BatchingConfig(), _candidates)

    @property
    def from_files(self) -> bool:
        """Always: the store is memory-mapped."""
        return True

    def score(self, requests: Requests, candidates: Candidates) -> NDArray[np.float32]:
        """Logits (U, K); a user without any positive event keeps the fused scores, standardised."""
        logits = np.empty(candidates.items.shape, np.float32)
        for start in range(0, len(requests), BLOCK_REQUESTS):
            rows = np.arange(start, min(start + BLOCK_REQUESTS, len(requests)))
            inputs = self.inputs.read(requests.take(rows), candidates.take(rows))
            # A lone request may share its run with those of other threads.
            logits[rows] = self.batcher.ask(inputs) if len(requests) == 1 else self.joint.score(inputs)
        silent = requests.histories.liked().lengths == 0
        logits[silent] = standardised(candidates.scores[silent, :, None])[:, :, 0]
        return logits

    def read_queries(self, texts: Sequence[str], encoder: Encoder) -> Queries:
        """Vectors and token states, in one pass, where queries are re-ranked; else the vectors alone."""
        if not self.query_gain.serves:
            return super().read_queries(texts, encoder)
        shape = self.joint.shape
        return read_queries(self.items.encoder, texts, shape.lower_layers, shape.max_tokens)

    def read_by(self, encoder: StateEncoder, texts: Sequence[str], folder: Path) -> SplitReranker:
        """The same joint layers over items read anew by another encoder, kept in this folder."""
        items = self.items.read_by(encoder)
        store = build_store(folder, texts, items.version, self.inputs.store.row_format, items.read)
        return SplitReranker(self.joint, self.inputs.over(store), items, self.depth, self.gain, self.query_gain)

    def over(self, texts: Sequence[str], factors: NDArray[np.float32], folder: Path) -> SplitReranker:
        """The same joint layers over another catalogue, whose states are kept in this empty folder.

        Args:
            texts: (I,) of its items; those that the store knows are not read again.
            factors: (I, factors) collaborative vectors.
            folder: Where the states are kept.
        """
        self.inputs.store.copy_to(folder)
        store = build_store(folder, texts, self.items.version, self.inputs.store.row_format, self.items.read)
        inputs = InputReader(store, factors, self.joint.shape)
        return SplitReranker(self.joint, inputs, self.items, self.depth, self.gain, self.query_gain)

    def save(self, folder: Path) -> None:
        """Write joint layers, store and vectors into this empty folder."""
        self.joint.save(folder)
        self.items.save(folder / FOLDING)
        np.save(folder / FACTORS, self.inputs.factors)
        self.inputs.store.copy_to(folder / STORE)

    @classmethod
    def load(
        cls, folder: Path, encoder: StateEncoder, depth: int, gain: Gain, query_gain: Gain = NO_GAIN
    ) -> SplitReranker:
        """Read what ``save`` wrote; states and vectors stay memory-mapped.

        Where this machine can run the joint layers in several ways, the fastest is found by measurement.

        Args:
            folder: Where it is.
            encoder: The one that read the items.
            depth: Candidates of each request that are scored.
            gain: What that was worth.
            query_gain: What it was worth where requests have a free-text query.

        Raises:
            ArtifactError: A file is missing or damaged, or the files do not belong together.
        """
        joint = OnnxJoint.load(folder)
        items = ItemReader.load(folder / FOLDING, encoder, joint.shape)
        store = StateStore.open(folder / STORE, items.version)
        factors = load_array(folder / FACTORS, np.float32, ndim=2)
        if store.row_format != items.row_format(store.row_format.kind):
            raise ArtifactError(
                f"{folder / STORE}: holds rows of {store.row_format}, but the joint layers read rows of "
                f"{items.row_format(store.row_format.kind)}. Save the engine again."
            )
        expected = (store.n_items, joint.shape.factors)
        if factors.shape != expected:
            raise ArtifactError(
                f"{folder / FACTORS}: vectors {factors.shape} do not belong to {expected[0]} items and {expected[1]} "
                "factors. Save the engine again."
            )
        reader = InputReader(store, factors, joint.shape)
        if len(usable(QUICKLY_OPENED)) > 1:  # samples are not made for nothing
            joint.choose(sample_inputs(reader, depth), QUICKLY_OPENED)
        return cls(joint, reader, items, depth, gain, query_gain)


def _candidates(inputs: JointInputs) -> int:
    return len(inputs.features[0])


def _together(joint: OnnxJoint, several: list[JointInputs]) -> list[NDArray[np.float32]]:
    """Logits (1, K) of each of several requests, from one run."""
    if len(several) == 1:
        return [joint.score(several[0])]
    logits = joint.score(stacked(several))
    return [logits[row : row + 1, : _candidates(inputs)] for row, inputs in enumerate(several)]
