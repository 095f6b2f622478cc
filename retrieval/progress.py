"""What a training shows while it goes on."""

from __future__ import annotations

import logging
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerState

logger = logging.getLogger(__name__)


class Progress(TrainerCallback):
    """One bar over the steps, and a note of each evaluation."""

    def __init__(self, shown: bool) -> None:
        self._bar = tqdm(desc="fine-tuning", unit="step", disable=None if shown else True)

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Start the bar over."""
        self._bar.reset(state.max_steps)

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """One step further."""
        self._bar.update()

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Note what was measured."""
        logger.info("Step %d: NDCG@10 on validation %.4f.", state.global_step, kwargs["metrics"]["eval_ndcg"])

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Leave the bar as it stands."""
        self._bar.close()
