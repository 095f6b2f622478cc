"""Layers: the blocks of a pretrained transformer as modules of one form, whatever the checkpoint calls their parts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, cast

import torch
from pydantic import ConfigDict, Field, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from encoders.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# part → its place in a layer; one row per family, the layers themselves under the first entry
BERT = {
    "layers": "encoder.layer",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attended": "attention.output.dense",
    "attended_norm": "attention.output.LayerNorm",
    "widen": "intermediate.dense",
    "narrow": "output.dense",
    "norm": "output.LayerNorm",
}
DISTILBERT = {
    "layers": "transformer.layer",
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "attended": "attention.out_lin",
    "attended_norm": "sa_layer_norm",
    "widen": "ffn.lin1",
    "narrow": "ffn.lin2",
    "norm": "output_layer_norm",
}
LAYOUTS: Mapping[str, Mapping[str, str]] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), BERT),
    "distilbert": DISTILBERT,
}
ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {  # by transformers' names
    "gelu": nn.GELU,
    "gelu_new": partial(nn.GELU, approximate="tanh"),
    "gelu_pytorch_tanh": partial(nn.GELU, approximate="tanh"),
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
}


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class LayerShape:
    """Sizes of a transformer layer.

    Attributes:
        dim: Length of a token's state.
        heads: Attention heads.
        inner: Width of the feed-forward part.
        activation: Its activation, one of ``ACTIVATIONS``.
        epsilon: Of the layer norms.
    """

    dim: PositiveInt
    heads: PositiveInt
    inner: PositiveInt
    activation: str
    epsilon: Annotated[float, Field(gt=0, lt=1)]

    def __post_init__(self) -> None:
        if self.dim % self.heads or self.activation not in ACTIVATIONS:
            raise ValueError(
                f"{self.heads} heads must divide {self.dim} numbers, and the activation {self.activation!r} be one of "
                f"{', '.join(ACTIVATIONS)}"
            )


class Layer(nn.Module):
    """A transformer layer with its norms after the residual sums (Vaswani et al., 2017): the parts, not how they join.

    Args:
        shape: Its sizes.
    """

    def __init__(self, shape: LayerShape) -> None:
        super().__init__()
        self.shape = shape
        dim = shape.dim
        self.query, self.key, self.value, self.attended = (nn.Linear(dim, dim) for _ in range(4))
        self.attended_norm = nn.LayerNorm(dim, eps=shape.epsilon)
        self.widen = nn.Linear(dim, shape.inner)
        self.activation = ACTIVATIONS[shape.activation]()
        self.narrow = nn.Linear(shape.inner, dim)
        self.norm = nn.LayerNorm(dim, eps=shape.epsilon)

    @classmethod
    def blank(cls, shape: LayerShape) -> Layer:
        """A layer whose weights are still to be loaded; the caller's random numbers go on as if it drew none."""
        # Not on the meta device: torch would import much of its compiler for that, which is most of a start.
        with torch.random.fork_rng(devices=[]):
            return cls(shape)

    def heads(self, states: Tensor) -> Tensor:
        """(…, N, dim) cut into heads: (…, heads, N, dim / heads)."""
        heads = self.shape.heads
        return states.reshape(*states.shape[:-1], heads, states.shape[-1] // heads).transpose(-2, -3)

    def finish(self, states: Tensor, attention: Tensor) -> Tensor:
        """The rest of the layer once attention (…, N, dim) is known: both residual sums and the feed-forward part."""
        states = self.attended_norm(states + self.attended(attention))
        out: Tensor = self.norm(states + self.narrow(self.activation(self.widen(states))))
        return out


def layer_shape(model: PreTrainedModel) -> LayerShape:
    """The sizes of a checkpoint's layers.

    Raises:
        ConfigError: Its kind of transformer cannot be cut.
    """
    config = model.config
    if config.model_type not in LAYOUTS:
        raise ConfigError(
            f"A {config.model_type} cannot be cut into lower and joint layers; {', '.join(LAYOUTS)} can. Pass such a "
            "checkpoint, or re-rank with the pair cross-encoder."
        )
    activation = str(config.activation if config.model_type == "distilbert" else config.hidden_act)
    if activation not in ACTIVATIONS:
        raise ConfigError(
            f"A checkpoint with the activation {activation} cannot be cut into lower and joint layers; one with "
            f"{', '.join(ACTIVATIONS)} can. Pass such a checkpoint, or re-rank with the pair cross-encoder."
        )
    return LayerShape(
        dim=int(config.hidden_size),
        heads=int(config.num_attention_heads),
        inner=int(config.hidden_dim if config.model_type == "distilbert" else config.intermediate_size),
        activation=activation,
        epsilon=float(getattr(config, "layer_norm_eps", 1e-12)),  # DistilBERT's is fixed
    )


def check_cut(model: PreTrainedModel, count: int) -> None:
    """Make sure that a bare transformer can be cut below so many of its layers.

    Raises:
        ConfigError: Its kind cannot be cut, or it has fewer layers.
    """
    layer_shape(model)
    layers = int(model.config.num_hidden_layers)
    if not 1 <= count <= layers:
        raise ConfigError(f"joint_layers is {count}; the checkpoint has {layers} layers: take 1 to {layers}.")


def top_layers(model: PreTrainedModel, count: int) -> list[Layer]:
    """Copies of a bare transformer's last layers, lowest first.

    Raises:
        ConfigError: Its kind cannot be cut, or it has fewer layers.
    """
    check_cut(model, count)
    shape = layer_shape(model)
    layout = LAYOUTS[model.config.model_type]
    return [_copied(original, layout, shape) for original in list(layer_stack(model))[-count:]]


def layer_stack(model: PreTrainedModel) -> nn.ModuleList:
    """The layers of a bare transformer that can be cut, lowest first: the model's own."""
    return cast(nn.ModuleList, model.get_submodule(LAYOUTS[model.config.model_type]["layers"]))


def lower_part(model: PreTrainedModel, count: int) -> PreTrainedModel:
    """A copy of a bare transformer with its first layers only: its last states are those that the next would read."""
    part = copy.deepcopy(model)
    del layer_stack(part)[count:]
    part.config.num_hidden_layers = count
    return part


def _copied(original: nn.Module, layout: Mapping[str, str], shape: LayerShape) -> Layer:
    layer = Layer.blank(shape)
    with torch.no_grad():
        for name, part in layer.named_children():
            if name in layout:
                part.load_state_dict(original.get_submodule(layout[name]).state_dict())
    return layer
