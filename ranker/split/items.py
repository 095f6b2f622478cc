"""What is kept of an item: the rows of the store, made from the states that the lower layers leave of its text."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from encoders import StateEncoder
from encoders.errors import ArtifactError
from encoders.layers import Layer
from ranker.split.model import JointShape, folded_first, packed, packed_width
from ranker.states.building import StoredRows
from ranker.states.rows import RowFormat, RowKind


class ItemReader:
    """Reads item texts into rows of the store.

    With one joint layer an item is one row: its first position's state, query and attention to the item's own tokens,
    folded through ``folding``, and the pooled state. With more it is its pooled state and, after it, its token states.

    Args:
        encoder: Its lower layers read the texts.
        shape: Of the joint layers; says how many layers are the lower ones, and how many tokens are kept of an item.
        folding: The lowest joint layer as it was pretrained; only a single one is used. It is copied, since what
            starts from it is trained.
    """

    def __init__(self, encoder: StateEncoder, shape: JointShape, folding: Layer) -> None:
        self.encoder = encoder
        self.shape = shape
        self.folding = copy.deepcopy(folding).requires_grad_(False)

    def read_by(self, encoder: StateEncoder) -> ItemReader:
        """The same for another encoder."""
        return ItemReader(encoder, self.shape, self.folding)

    def save(self, path: Path) -> None:
        """Write the layer through which items are folded."""
        save_file(self.folding.state_dict(), path)

    @classmethod
    def load(cls, path: Path, encoder: StateEncoder, shape: JointShape) -> ItemReader:
        """Read what ``save`` wrote.

        Raises:
            ArtifactError: The file is missing, damaged, or of a layer of another shape.
        """
        folding = Layer.blank(shape.layer)
        try:
            folding.load_state_dict(load_file(path))
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise ArtifactError(f"{path}: is no layer of this model ({reason}). Save the engine again.") from error
        return cls(encoder, shape, folding)

    @property
    def width(self) -> int:
        """Length of a row."""
        return packed_width(self.shape.layer) if self.shape.joint_layers == 1 else self.shape.layer.dim

    def row_format(self, kind: RowKind) -> RowFormat:
        """How a store of this kind keeps rows: a folded item's weight is a logit, for which int8 is too coarse."""
        exact = 2 * self.shape.layer.heads if (kind, self.shape.joint_layers) == ("int8", 1) else 0
        return RowFormat(self.width, kind, exact)

    @property
    def version(self) -> str:
        """What a row depends on beside its text, as a hash."""
        shape = self.shape
        kept = "folded" if shape.joint_layers == 1 else shape.item_vectors
        sizes = (shape.layer, shape.lower_layers, shape.max_tokens, kept)
        digest = hashlib.sha256(f"{self.encoder.fingerprint} {sizes}".encode())
        if self.shape.joint_layers == 1:
            for tensor in self.folding.state_dict().values():
                digest.update(tensor.numpy().data)
        return digest.hexdigest()

    def read(self, texts: Sequence[str]) -> Iterator[StoredRows]:
        """Read texts in batches.

        Raises:
            InputError: A text is not a string.
        """
        for batch in self.encoder.read(texts, self.shape.lower_layers):
            lengths = np.minimum(batch.lengths, self.shape.max_tokens)
            states = torch.from_numpy(batch.states[:, : lengths.max()])
            real = torch.arange(states.shape[1]) < torch.from_numpy(lengths)[:, None]
            pooled = (states * real[..., None]).sum(1) / real.sum(1, keepdim=True)
            if self.shape.joint_layers > 1:
                if self.shape.item_vectors is not None:
                    states, lengths = averaged(states, lengths, self.shape.item_vectors)
                kept = torch.cat([pooled[:, None], states], dim=1).half().numpy()
                mask = np.arange(kept.shape[1]) <= lengths[:, None]
                yield StoredRows(batch.rows, lengths + 1, kept[mask])
            else:
                with torch.inference_mode():
                    rows = packed(states[:, 0], folded_first(self.folding, states, real), pooled)
                yield StoredRows(batch.rows, np.ones(len(lengths), np.int64), rows.numpy())


def averaged(states: Tensor, lengths: NDArray[np.int64], count: int) -> tuple[Tensor, NDArray[np.int64]]:
    """Each text's states (B, L, dim) in at most so many vectors: its first state, and the means of runs of the others.

    Runs are as even as can be. A text of no more states keeps them as they are.

    Returns:
        (B, count, dim) and how many each has now, (B,).
    """
    kept = np.minimum(lengths, count)
    place = np.arange(states.shape[1])
    run = 1 + (place - 1) * (kept[:, None] - 1) // np.maximum(lengths[:, None] - 1, 1)
    run = np.where(place == 0, 0, run)
    inside = (run[:, None, :] == np.arange(count)[:, None]) & (place < lengths[:, None])[:, None, :]  # (B, count, L)
    weights = inside / np.maximum(inside.sum(axis=2, keepdims=True), 1)
    return torch.from_numpy(weights.astype(np.float32)).to(states.device) @ states, kept
