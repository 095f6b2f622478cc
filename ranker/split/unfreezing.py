"""Unfreezing: the uppermost of the lower layers, tuned together with joint layers that read what they make of texts."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from encoders import TextEncoder
from encoders.layers import Layer, layer_stack, lower_part, top_layers
from ranker.config import SplitConfig
from ranker.lists import LabelledLists, Lessons, check_lists
from ranker.split.fitting import untrained_joint
from ranker.split.inputs import InputReader
from ranker.split.items import averaged
from ranker.split.model import JointModel, JointShape, folded_first, packed
from ranker.split.training import joint_groups, train_lists
from retrieval.training import check_tracker

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

NO_TOKEN = -1  # fills a row of tokens that ran out
TEXTS_AT_ONCE = 64  # read in one pass: bounds the memory of what is not tuned


def unfreeze(
    encoder: TextEncoder,
    lists: LabelledLists,
    texts: Sequence[str],
    factors: NDArray[np.float32],
    config: SplitConfig,
    seed: int,
    progress: bool,
) -> tuple[TextEncoder, NDArray[np.int64]]:
    """A copy of an encoder whose uppermost lower layers are tuned on some users' lists.

    The joint layers that were tuned with them are dropped: those that serve are trained from the pretrained ones again,
    on every list and on the states that serve.

    Args:
        encoder: It stays as it is.
        lists: Labelled lists.
        texts: Of the items.
        factors: (I, d) collaborative vectors of the items, from a source that did not see the lists' choices.
        config: Settings; ``unfreezing.layers`` is at least 1.
        seed: Of everything random.
        progress: Show bars.

    Returns:
        The encoder, and the users on whose lists it was tuned, on whom nothing that reads it may be judged.

    Raises:
        ConfigError: The encoder cannot be cut as asked for.
        InputError: There are too few lists, or training diverged.
    """
    unfreezing, rng = config.unfreezing, np.random.default_rng(seed)
    train, validation = lists.containing_choice(config.depth).split_by_user(config.training.validation_fraction, rng)
    train = train.take(np.sort(rng.permutation(len(train))[: unfreezing.lists]))
    training = dataclasses.replace(config.training, batch_size=unfreezing.batch_size)
    check_lists(len(train), len(validation))
    check_tracker(training)
    joint = untrained_joint(encoder, lists, factors, config, seed)
    lower = joint.shape.lower_layers
    model = JointOverTexts(
        lower_part(encoder.model, lower),
        top_layers(encoder.model, config.joint_layers)[0],
        joint,
        encoder.tokens.pad_id,
    ).to(encoder.model.device)
    tuned_layers = list(layer_stack(model.lower))[lower - unfreezing.layers :]
    weights = [weight for layer in tuned_layers for weight in layer.parameters()]
    for weight in weights:
        weight.requires_grad_(True)
    logger.info("Tuning %d lower layers with the joint ones on %d lists.", unfreezing.layers, len(train))
    train_lists(
        model,
        [*joint_groups(joint, training), {"params": weights, "lr": unfreezing.learning_rate}],
        TokenReader(encoder, texts, factors, joint.shape),
        Lessons.of(train),
        validation,
        training,
        seed,
        progress,
    )
    tuned = copy.copy(encoder)
    tuned.model = copy.deepcopy(encoder.model)
    for old, new in zip(layer_stack(tuned.model), layer_stack(model.lower), strict=False):  # the top ones stay
        old.load_state_dict(new.state_dict())
    return tuned, np.unique(train.users)


class TokenReader(InputReader):
    """Gives the tokens of the items that occur, one line each, where the store would give their rows.

    Args:
        encoder: Cuts texts into tokens.
        texts: Of the items.
        factors: (I, factors) collaborative vectors.
        shape: Of the joint layers.
    """

    def __init__(
        self, encoder: TextEncoder, texts: Sequence[str], factors: NDArray[np.float32], shape: JointShape
    ) -> None:
        self.factors = factors
        self.shape = shape
        self._tokens = encoder.tokens
        self._texts = texts

    def _rows(self, items: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
        """Tokens (N, L) of items (N,), and which rows will be made of each."""
        batches = list(self._tokens.text_batches([self._texts[item] for item in items[1:]]))
        width = max((batch.input_ids.shape[1] for batch in batches), default=1)
        tokens, lengths = np.full((len(items), width), NO_TOKEN), np.zeros(len(items), np.int64)
        for batch in batches:
            real = batch.attention_mask == 1
            tokens[1 + batch.rows, : real.shape[1]] = np.where(real, batch.input_ids, NO_TOKEN)
            lengths[1 + batch.rows] = real.sum(axis=1)
        if self.shape.joint_layers == 1:
            return tokens, np.arange(len(items)), np.ones(len(items), np.int64)
        kept = np.minimum(lengths, self.shape.max_tokens)
        if self.shape.item_vectors is not None:
            kept = np.minimum(kept, self.shape.item_vectors)
        counts = np.where(lengths > 0, 1 + kept, 1)
        return tokens, np.cumsum(counts) - counts, np.where(lengths > 0, counts, 0)


class JointOverTexts(nn.Module):
    """Joint layers whose item rows are made anew, with a gradient, each time that they are read.

    The lower layers read as they do when they serve, without dropout; none of their weights has a gradient until asked
    for.

    Args:
        lower: A transformer of the lower layers alone.
        folding: The layer through which items are folded; it stays as it is.
        joint: The joint layers.
        pad_id: A token for padding.
    """

    def __init__(self, lower: PreTrainedModel, folding: Layer, joint: JointModel, pad_id: int) -> None:
        super().__init__()
        self.lower = lower.requires_grad_(False)
        self.folding = folding.requires_grad_(False)
        self.joint = joint
        self.pad_id = pad_id

    def train(self, mode: bool = True) -> JointOverTexts:
        """Set the joint layers to training or evaluation."""
        super().train(mode)
        self.lower.train(False)
        return self

    def forward(self, rows: Tensor, **inputs: Tensor) -> Tensor:
        """Logits (U, K) from what a ``TokenReader`` gives: ``JointModel``'s inputs, tokens (N, L) in place of rows."""
        logits: Tensor = self.joint(rows=self.item_rows(rows), **inputs)
        return logits

    def item_rows(self, tokens: Tensor) -> Tensor:
        """Rows (R, width) of items (N,), as the store would hold them, but in float32; the first is zeros."""
        made = [self._rows_of(part) for part in torch.split(tokens[1:], TEXTS_AT_ONCE)]
        return torch.cat([torch.zeros_like(made[0][:1]), *made])

    def _rows_of(self, tokens: Tensor) -> Tensor:
        real = tokens != NO_TOKEN
        lengths = real.sum(dim=1)
        real = real[:, : int(lengths.max())]
        ids = tokens[:, : real.shape[1]].masked_fill(~real, self.pad_id)
        states = self.lower(input_ids=ids, attention_mask=real.long()).last_hidden_state
        shape = self.joint.shape
        states, real, lengths = (
            states[:, : shape.max_tokens], real[:, : shape.max_tokens], lengths.clamp(max=shape.max_tokens)
        )  # fmt: skip
        pooled = (states * real[..., None]).sum(dim=1) / lengths[:, None]
        if shape.joint_layers == 1:
            return packed(states[:, 0], folded_first(self.folding, states, real), pooled, torch.float32)
        if shape.item_vectors is not None:
            states, kept = averaged(states, lengths.cpu().numpy(), shape.item_vectors)
            lengths = torch.from_numpy(kept).to(states.device)
        rows = torch.cat([pooled[:, None], states], dim=1)
        return rows[torch.arange(rows.shape[1], device=rows.device) <= lengths[:, None]]
