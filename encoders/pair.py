"""Pair cross-encoders: two texts read together, one score.

The plain BERT recipe (Nogueira and Cho, "Passage Re-ranking with BERT", 2019): [CLS] first [SEP] second [SEP]
through every layer, and a linear head on the pooled [CLS].
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from encoders.batching import TextTokenizer, TokenBatch, answered, fill_rows
from encoders.checkpoint import (
    load_config,
    load_model,
    load_tokenizer,
    resolve_checkpoint,
    resolve_device,
    save_checkpoint,
)
from encoders.errors import ConfigError
from encoders.text import pad_id, token_limit

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


class PairScorer(Protocol):
    """Scores pairs of texts, each pair a function of its own two texts alone."""

    def score(self, pairs: Sequence[tuple[str, str]], *, progress: bool = False) -> NDArray[np.float32]:
        """Score pairs to (P,) logits, higher is better, in the order of the input."""
        ...

    def save(self, folder: str | Path) -> None:
        """Write the scorer into this empty folder."""
        ...


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PairCrossEncoderConfig:
    """Settings of a pair cross-encoder.

    Attributes:
        max_tokens: a longer pair loses the end of its first text; the checkpoint's own limit holds where it
            is lower.
        batch_size: pairs per forward pass at most; fewer long ones on CPU.
        layers: keep only the first so many transformer layers; None keeps all.
        device: "auto", or a torch device name.
    """

    max_tokens: Annotated[int, Field(ge=16)] = 256
    batch_size: Annotated[int, Field(ge=1)] = 64
    layers: Annotated[int, Field(ge=1)] | None = None
    device: str = "auto"


DEFAULTS = PairCrossEncoderConfig()


class PairCrossEncoder:
    """A transformer in torch that reads a (user text, item text) pair and scores it; build it with `load`.

    A batch equals its pairs one by one to 1e-5 of the logits' scale.

    Attributes:
        model: the transformer with its one-label head, as the Hugging Face Trainer takes it.
        tokenizer: its Hugging Face tokenizer.
        tokens: cuts and batches pairs as `max_tokens` and `batch_size` say.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: PairCrossEncoderConfig):
        self.model = model.to(resolve_device(config.device))  # type: ignore[arg-type]
        self.tokenizer = tokenizer
        self.inputs = tuple(
            name for name in ("input_ids", "attention_mask", "token_type_ids") if name in tokenizer.model_input_names
        )
        self.tokens = TextTokenizer(
            tokenizer.backend_tokenizer,
            token_limit(model.config, tokenizer, config.max_tokens),
            pad_id(tokenizer),
            config.batch_size,
        )

    @classmethod
    def load(cls, checkpoint: str | Path, config: PairCrossEncoderConfig = DEFAULTS, seed: int = 0) -> PairCrossEncoder:
        """Load an encoder checkpoint, with the one-label head that it has or with a fresh one.

        Args:
            checkpoint: a local folder or a Hub id (safetensors; its code is never run).
            config: the settings.
            seed: of the fresh weights: the head's, and the pooler's where the checkpoint has none.

        Raises:
            ArtifactError: there is no such checkpoint, or it is damaged.
            ConfigError: the checkpoint cannot score pairs with one label, or has no such number of layers.
        """
        folder = resolve_checkpoint(checkpoint)
        model_config = load_config(folder)
        _set_one_label(model_config, folder)
        if config.layers is not None:
            _set_layers(model_config, folder, config.layers)
        tokenizer = load_tokenizer(folder)
        if model_config.pad_token_id is None:
            model_config.pad_token_id = tokenizer.pad_token_id
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = load_model("AutoModelForSequenceClassification", folder, model_config)
        return cls(model, tokenizer, config)

    def score(self, pairs: Sequence[tuple[str, str]], *, progress: bool = False) -> NDArray[np.float32]:
        """Score pairs to (P,) logits, higher is better, in the order of the input.

        Raises:
            InputError: an entry is not a pair of strings.
        """
        self.model.eval()
        batches = self.tokens.pair_batches(pairs, on_cpu=self.model.device.type == "cpu")
        return fill_rows(answered(batches, self._run), (len(pairs),), "pair", progress)

    def save(self, folder: str | Path) -> None:
        """Write the model (safetensors) and the tokenizer as Hugging Face does; `load` reads them."""
        save_checkpoint(self.model, self.tokenizer, folder)

    @torch.inference_mode()
    def _run(self, batch: TokenBatch) -> NDArray[np.float32]:
        arrays = batch.named(self.inputs)
        tensors = {name: torch.from_numpy(array).to(self.model.device) for name, array in arrays.items()}
        logits: NDArray[np.float32] = self.model(**tensors).logits[:, 0].cpu().numpy()
        return logits


def _set_one_label(config: PretrainedConfig, folder: Path) -> None:
    ready_made = any(name.endswith("ForSequenceClassification") for name in config.architectures or ())
    if ready_made and config.num_labels != 1:
        raise ConfigError(
            f"{folder} classifies into {config.num_labels} labels; a cross-encoder needs a head with one. "
            "Pass a ranking checkpoint, or the encoder that this one was made from."
        )
    config.num_labels = 1


def _set_layers(config: PretrainedConfig, folder: Path, layers: int) -> None:
    """Ask for the first layers only; the weights of the others are then not loaded."""
    if not hasattr(config, "num_hidden_layers"):
        raise ConfigError(f"{folder} ({config.model_type}) has no stack of layers to shorten: leave layers unset.")
    if layers > config.num_hidden_layers:
        raise ConfigError(f"layers={layers}, but {folder} has {config.num_hidden_layers}: ask for fewer.")
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
