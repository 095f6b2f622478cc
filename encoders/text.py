"""Text encoders: any Hugging Face checkpoint as a function from texts to unit vectors."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from encoders.batching import TextTokenizer, TokenBatch, answered, fill_rows
from encoders.checkpoint import (
    DEFAULT_CHECKPOINT,
    load_config,
    load_model,
    load_tokenizer,
    resolve_checkpoint,
    resolve_device,
    save_checkpoint,
)
from encoders.errors import ArtifactError, ConfigError
from encoders.pooling import Pooling, pool, resolve_pooling, save_pooling

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class TextStates:
    """One batch of texts as an encoder read it."""

    rows: NDArray[np.int64]  # (B,) places of the texts in the input
    vectors: NDArray[np.float32]  # (B, dim) of length 1, as `Encoder.encode` gives them
    states: NDArray[np.float32]  # (B, L, dim) after the lower layers
    lengths: NDArray[np.int64]  # (B,) tokens of each text; states beyond are padding


class Encoder(Protocol):
    """Turns texts into unit vectors, each a function of its own text alone."""

    @property
    def dim(self) -> int:
        """Entries of a vector."""
        ...

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> NDArray[np.float32]:
        """Encode texts to (T, dim) rows of length 1, in the order of the input; no texts give (0, dim)."""
        ...

    def save(self, folder: str | Path) -> None:
        """Write the encoder into this empty folder."""
        ...


class StateEncoder(Encoder, Protocol):
    """A text encoder that also gives the token states that its lower layers leave."""

    @property
    def fingerprint(self) -> str:
        """A hash of all that its answers depend on beside the text: weights, tokens, pooling, limits."""
        ...

    def read(self, texts: Sequence[str], lower_layers: int) -> Iterator[TextStates]:
        """Read texts in batches, longest first within a window, each batch padded to its longest.

        Args:
            texts: T texts.
            lower_layers: layers after which the states are taken.

        Raises:
            ConfigError: this encoder cannot give the states after so many layers.
            InputError: an entry is not a string.
        """
        ...


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TextEncoderConfig:
    """Settings of a text encoder.

    Attributes:
        pooling: "auto" follows the checkpoint: its sentence-transformers pooling file, else the last token
            of a causal language model, else the mean.
        max_tokens: longer texts are cut; the checkpoint's own limit holds where it is lower.
        batch_size: texts per forward pass at most; fewer long ones on CPU.
        device: "auto", or a torch device name.
    """

    pooling: Literal["auto", "mean", "cls", "last"] = "auto"
    max_tokens: Annotated[int, Field(ge=8)] = 256
    batch_size: Annotated[int, Field(ge=1)] = 64
    device: str = "auto"


DEFAULTS = TextEncoderConfig()
LEAST_TOKENS = 4  # one, and those that a tokenizer puts around two texts


class TextEncoder:
    """A transformer in torch that reads one text at a time; build it with `load`.

    A batch equals its texts one by one to 1e-5 per entry (float32 sums in another order).

    Attributes:
        model: the transformer, without a head.
        tokenizer: its Hugging Face tokenizer.
        pooling: how token states become one vector.
        tokens: cuts and batches texts as `max_tokens` and `batch_size` say.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        pooling: Pooling,
        config: TextEncoderConfig,
    ):
        self.model = model.to(resolve_device(config.device))  # type: ignore[arg-type]
        self.tokenizer = tokenizer
        self.pooling: Pooling = pooling
        self.tokens = TextTokenizer(
            tokenizer.backend_tokenizer,
            token_limit(model.config, tokenizer, config.max_tokens),
            pad_id(tokenizer),
            config.batch_size,
        )

    @classmethod
    def load(cls, checkpoint: str | Path = DEFAULT_CHECKPOINT, config: TextEncoderConfig = DEFAULTS) -> TextEncoder:
        """Load a checkpoint from a local folder or the Hub (safetensors; its code is never run).

        Raises:
            ArtifactError: there is no such checkpoint, or it is damaged.
            ConfigError: its kind of model or pooling is not supported, or the device is not usable.
            ExtraError: the default checkpoint is neither installed nor downloadable.
        """
        folder = resolve_checkpoint(checkpoint)
        model_config = load_config(folder)
        pooling = resolve_pooling(folder, model_config) if config.pooling == "auto" else config.pooling
        return cls(load_model("AutoModel", folder, model_config), load_tokenizer(folder), pooling, config)

    @property
    def dim(self) -> int:
        """Entries of a vector."""
        return int(self.model.config.hidden_size)

    @property
    def fingerprint(self) -> str:
        """A hash of its weights, tokenizer, pooling and limit of tokens."""
        digest = hashlib.sha256(f"{self.pooling} {self.tokens.max_tokens} {self.tokens.to_str()}".encode())
        for name, tensor in self.model.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.cpu().numpy().data)
        return digest.hexdigest()

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> NDArray[np.float32]:
        """Encode texts to (T, dim) rows of length 1, in the order of the input.

        Raises:
            InputError: an entry is not a string.
        """
        self.model.eval()
        answers = answered(self._batches(texts), self._run)
        return fill_rows(answers, (len(texts), self.dim), "text", progress)

    def read(self, texts: Sequence[str], lower_layers: int) -> Iterator[TextStates]:
        """Read texts in batches, keeping the token states after so many layers; see `StateEncoder.read`.

        Raises:
            ConfigError: the model has fewer layers.
            InputError: an entry is not a string.
        """
        self.check_layers(lower_layers)
        self.model.eval()
        for batch in self._batches(texts):
            vectors, states = self._forward(batch, lower_layers)
            yield TextStates(batch.rows, vectors, states, batch.attention_mask.sum(1))

    def check_layers(self, lower_layers: int) -> None:
        """Raise ConfigError where the model has fewer layers than these."""
        layers = int(self.model.config.num_hidden_layers)
        if not 0 <= lower_layers <= layers:
            raise ConfigError(f"lower_layers is {lower_layers}, but the checkpoint has {layers} layers.")

    def save(self, folder: str | Path) -> None:
        """Write model (safetensors), tokenizer and pooling into this empty folder; `load` reads it back."""
        save_checkpoint(self.model, self.tokenizer, folder)
        save_pooling(Path(folder), self.pooling)

    def _batches(self, texts: Sequence[str]) -> Iterator[TokenBatch]:
        return self.tokens.text_batches(texts, on_cpu=self.model.device.type == "cpu")

    def _run(self, batch: TokenBatch) -> NDArray[np.float32]:
        return self._forward(batch, None)[0]

    @torch.inference_mode()
    def _forward(self, batch: TokenBatch, lower_layers: int | None) -> list[NDArray[np.float32]]:
        """Vectors (B, dim) and, where asked for, states (B, L, dim)."""
        input_ids = torch.from_numpy(batch.input_ids).to(self.model.device)
        mask = torch.from_numpy(batch.attention_mask).to(self.model.device)
        kept = lower_layers is not None
        output = self.model(input_ids=input_ids, attention_mask=mask, output_hidden_states=kept)
        vectors = pool(output.last_hidden_state, mask, self.pooling)
        states = [output.hidden_states[lower_layers]] if kept else []
        return [tensor.cpu().numpy() for tensor in (vectors, *states)]


def token_limit(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, wanted: int) -> int:
    """The most tokens that a model can read, or `wanted` where that is lower.

    Raises:
        ArtifactError: the checkpoint's own limit is no number, or too low for any text.
    """
    try:
        positions = int(getattr(config, "max_position_embeddings", wanted))
        if config.model_type in {"roberta", "xlm-roberta", "camembert", "mpnet", "longformer"}:
            positions -= int(config.pad_token_id) + 1  # these count positions from after the padding id
        limit = min(wanted, positions, int(tokenizer.model_max_length))
    except (TypeError, ValueError, OverflowError) as error:
        raise ArtifactError(f"The checkpoint's limit of tokens is no number: {error}.") from error
    if limit < LEAST_TOKENS:
        raise ArtifactError(f"The checkpoint reads {limit} tokens by what it says, and no text is so short.")
    return limit


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that fills short rows; masked everywhere, so any id of the vocabulary does."""
    return int(tokenizer.pad_token_id) if tokenizer.pad_token_id is not None else 0
