"""Graphs: a torch module traced to ONNX, its attention, layer norms and activations each in one operator."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import torch
from torch import Tensor, nn

from encoders.pooling import Pooling, pool

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

OPSET = 17
MICROSOFT = "com.microsoft"  # the domain of ONNX Runtime's own operators


class PooledText(nn.Module):
    """(input_ids, attention_mask) → (B, dim) unit vectors."""

    def __init__(self, model: PreTrainedModel, pooling: Pooling):
        super().__init__()
        self.model = _traceable(model)
        self.pooling: Pooling = pooling

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode a padded batch."""
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return pool(hidden, attention_mask, self.pooling)


class PooledStates(PooledText):
    """(input_ids, attention_mask) → the same vectors, and (B, L, dim) token states after some of the layers."""

    def __init__(self, model: PreTrainedModel, pooling: Pooling, lower_layers: int):
        super().__init__(model, pooling)
        self.lower_layers = lower_layers

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Encode a padded batch."""
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
        return pool(output.last_hidden_state, attention_mask, self.pooling), output.hidden_states[self.lower_layers]


class PairLogit(nn.Module):
    """(input_ids, attention_mask, token_type_ids where the model has them) → (B,) logits."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = _traceable(model)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, *token_type_ids: Tensor) -> Tensor:
        """Score a padded batch."""
        types = {"token_type_ids": token_type_ids[0]} if token_type_ids else {}
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask, **types).logits
        return logits[:, 0]


def trace(module: nn.Module, inputs: Sequence[str], outputs: Mapping[str, int], path: Path) -> None:
    """Write a module over (B, L) int64 inputs as an ONNX file with free B and L.

    The TorchScript exporter is used: ONNX Runtime's shape inference, on which fusion and quantization rest,
    rejects the graphs of the newer one.

    Args:
        module: takes the inputs in order.
        inputs: their names.
        outputs: the names of what it returns, each with its free axes: 1 where only the first (B) is, 2 for (B, L).
        path: the file to write.
    """
    example = torch.tensor([[3, 4, 5, 6, 7], [5, 6, 7, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    arguments = tuple(
        {"attention_mask": mask, "token_type_ids": torch.zeros_like(mask)}.get(name, example) for name in inputs
    )
    free = {0: "batch", 1: "tokens"}
    axes = dict.fromkeys(inputs, free)
    axes |= {name: dict(list(free.items())[:count]) for name, count in outputs.items()}
    with warnings.catch_warnings(), torch.inference_mode():
        # the exporter announces its own retirement, and tracing warns of each shape that Python looks at;
        # that the graph holds for other shapes is tested, not guessed from warnings
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            arguments,
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=axes,
        )


def fuse(path: Path, config: PretrainedConfig) -> onnx.ModelProto:
    """Fuse a traced transformer for ONNX Runtime; patterns that are not found are left as they are.

    The embedding lookups stay apart from their layer norm, so that the tables can be quantized by row.
    Residual additions stay apart from theirs, too: on CPU, ONNX Runtime's SkipLayerNormalization is several
    times slower than the addition and the layer norm that it replaces; on CUDA, the session fuses them.
    """
    # here, since it brings symbolic algebra along, which takes seconds
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    kind = "gpt2" if config.model_type == "gpt2" else "bert"
    options = FusionOptions(kind)
    options.enable_embed_layer_norm = False
    options.enable_skip_layer_norm = False
    options.enable_bias_skip_layer_norm = False
    fused = optimizer.optimize_model(
        str(path),
        kind,
        num_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
        optimization_options=options,
        opt_level=0,
    )
    fused.topological_sort()
    model: onnx.ModelProto = fused.model
    if all(entry.domain != MICROSOFT for entry in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(MICROSOFT, 1))
    return model


def _traceable(model: PreTrainedModel) -> PreTrainedModel:
    """A copy on CPU with attention as plain operators; the caller's model stays as it is."""
    plain = copy.deepcopy(model).cpu()
    plain.set_attn_implementation("eager")
    plain.config.use_cache = False
    return plain
