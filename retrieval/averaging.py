"""A moving average of the weights that training passes through, which ranks better than the last of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from transformers import TrainerCallback, TrainerControl, TrainerState

Weights = tuple[Tensor, ...] | list[Tensor]


class Averaging(TrainerCallback):
    """Lets the averaged weights be measured and kept, while training goes on from its own (Polyak & Juditsky, 1992).

    The average looks back over a ninth of the steps so far, and over ``1 / (1 - decay)`` at most: the first steps,
    which lead away from where training began, are soon forgotten.

    Args:
        decay: What a step leaves of the average, at most.
    """

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._averaged: AveragedModel | None = None
        self._own: dict[str, Tensor] | None = None  # training's weights, while the averaged ones are in the model

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Take a step's weights into the average, and put the average in their place where it is to be measured."""
        model: nn.Module = kwargs["model"]
        if self._averaged is None:
            self._averaged = AveragedModel(model, multi_avg_fn=self._average)
        self._averaged.update_parameters(model)
        if control.should_evaluate:
            self._own = {name: weight.detach().clone() for name, weight in model.named_parameters()}
            _fill(model, dict(self._averaged.module.named_parameters()))

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Go on from training's own weights once the averaged ones are measured and kept."""
        if self._own is not None:
            _fill(kwargs["model"], self._own)
            self._own = None

    @torch.no_grad()
    def _average(self, averaged: Weights, current: Weights, steps: Tensor | int) -> None:
        kept = min(self._decay, (1 + int(steps)) / (10 + int(steps)))
        torch._foreach_lerp_(averaged, current, 1 - kept)


@torch.no_grad()
def _fill(model: nn.Module, weights: dict[str, Tensor]) -> None:
    for name, weight in model.named_parameters():
        weight.copy_(weights[name])
