"""Averaging: the mean of the weights on the way is measured and kept, and training goes on from its own."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from retrieval.training import LoopConfig, train


class Climbing(nn.Module):
    """One weight that each step moves up; it notes where it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.learning: list[float] = []
        self.measured: list[float] = []

    def forward(self, labels: Tensor) -> dict[str, Tensor]:
        (self.learning if self.training else self.measured).append(self.weight.item())
        return {"loss": -self.weight.sum(), "logits": self.weight.expand(len(labels), 1)}


def climbed(averaging: float | None) -> tuple[Climbing, float]:
    """A model after six steps, and what its weight became; what it was worth fell from one measurement to the next."""
    model, worth = Climbing(), iter([0.9, 0.5, 0.1])
    config = LoopConfig(
        epochs=3, batch_size=1, learning_rate=0.5, averaging=averaging, evaluations_per_epoch=1, patience=9
    )
    train(
        model, [{"params": list(model.parameters()), "lr": config.learning_rate}], [0, 1], [0],
        lambda numbers: {"labels": torch.tensor(numbers)}, lambda prediction: next(worth), config, 0, False,
    )  # fmt: skip
    return model, model.weight.item()


@pytest.mark.parametrize("decay", [0.05, 0.999])
def test_the_average_is_measured_and_kept_and_training_goes_on_from_its_own_weights(decay) -> None:
    plain, kept = climbed(None)
    assert plain.measured == plain.learning[2:6:2] + plain.measured[-1:]
    assert kept == plain.measured[0]
    averaged, kept = climbed(decay)
    np.testing.assert_allclose(averaged.learning, plain.learning, rtol=1e-6)
    average = averaged.learning[1]  # after the first step
    means = [average]
    for steps, weight in enumerate([*averaged.learning[2:], plain.measured[-1]], start=1):
        share = min(decay, (1 + steps) / (10 + steps))
        average = share * average + (1 - share) * weight
        means.append(average)
    np.testing.assert_allclose(averaged.measured, means[1::2], rtol=1e-5)
    assert kept == averaged.measured[0]
