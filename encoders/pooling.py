"""Pooling: from one vector per token to one per text."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from encoders.errors import ArtifactError, ConfigError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

logger = logging.getLogger(__name__)

Pooling = Literal["mean", "cls", "last"]

# the two layouts in which sentence-transformers writes 1_Pooling/config.json
SENTENCE_TRANSFORMERS_FLAGS: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
SENTENCE_TRANSFORMERS_NAMES: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}


def resolve_pooling(folder: Path, config: PretrainedConfig) -> Pooling:
    """Find how a checkpoint is meant to be pooled.

    Its own 1_Pooling/config.json decides where it is present; else a causal language model is read at its
    last token, which alone has seen the whole text, and everything else by the mean.

    Raises:
        ArtifactError: 1_Pooling/config.json cannot be read.
        ConfigError: it asks for a pooling that is not offered.
    """
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        from transformers.models.auto import modeling_auto

        causal = config.model_type in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        masked = config.model_type in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
        return "last" if causal and not masked else "mean"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        modes = {name for name, value in settings.items() if name.startswith("pooling_mode") and value is True}
        named = settings.get("pooling_mode")
    except (OSError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{path} is not a sentence-transformers pooling file: {error}") from error
    if isinstance(named, str) and named in SENTENCE_TRANSFORMERS_NAMES:
        found = SENTENCE_TRANSFORMERS_NAMES[named]
    elif len(modes) == 1 and modes <= SENTENCE_TRANSFORMERS_FLAGS.keys():
        found = SENTENCE_TRANSFORMERS_FLAGS[modes.pop()]
    else:
        raise ConfigError(
            f"{path} asks for {named or sorted(modes)}; offered are mean, cls and last. "
            "Pass one of them in TextEncoderConfig(pooling=...)."
        )
    if (folder / "2_Dense").is_dir():
        logger.warning("%s has a Dense module after its pooling, which is left out here", folder)
    return found


def save_pooling(folder: Path, pooling: Pooling) -> None:
    """Write how a checkpoint is pooled where `resolve_pooling` finds it."""
    flags = {flag: name == pooling for flag, name in SENTENCE_TRANSFORMERS_FLAGS.items()}
    path = folder / "1_Pooling" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(flags, indent=2) + "\n", encoding="utf-8")


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Pool token states to unit vectors; padding on either side changes nothing.

    Args:
        hidden: (B, L, dim) token states.
        mask: (B, L) 1 for a token, 0 for padding; every row has a token.
        pooling: mean of the tokens, the first token, or the last one.

    Returns:
        (B, dim) rows of length 1.
    """
    weights = mask.to(hidden.dtype).unsqueeze(-1)
    if pooling == "mean":
        vectors = (hidden * weights).sum(1) / weights.sum(1)
    else:
        places = torch.arange(mask.shape[1], device=mask.device) + 1
        order = places if pooling == "last" else -places
        # padding gets a value below every token's, so that the largest value marks the wanted token
        index = (order * mask - (mask.shape[1] + 1) * (1 - mask)).argmax(1)
        vectors = hidden.gather(1, index[:, None, None].expand(-1, 1, hidden.shape[2])).squeeze(1)
    return F.normalize(vectors, dim=-1)
