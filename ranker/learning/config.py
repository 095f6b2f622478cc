"""Settings of online learning."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class LearningConfig:
    """How the joint layers go on learning from feedback while they serve.

    Attributes:
        list_size: Items of a list that is learned from, the chosen one among them.
        examined: A shown item teaches as one that was passed over where it stood no further than so many places below
            the last one of its list that something was done about (Joachims et al., SIGIR 2005: users read downwards).
        batch_lists: New lists in a gradient step.
        replayed: Old lists in a gradient step, for each new one.
        memory_lists: Old lists that are remembered, an even sample of all there ever were.
        learning_rate: Of the joint layers, the same all the time.
        head_rate: Learning rate of the head, as a multiple.
        anchor: Decay toward the weights of the saved engine, as AdamW's is toward zero.
        largest_gradient: Gradients are scaled down to this norm.
        refusal: Weight of a list whose item was refused, where a click has 1.
        user_share: Share of the newest lists that may be of one user, beyond which theirs teach nothing.
        quarantine: Standard deviations above the usual loss of new lists from which a step is not taken: a burst of odd
            events is passed over, while a lasting change is soon usual.
        measured: Share of the lists on which weights are compared; every one of these is ranked to its full depth.
        least_lists: Measured lists between two looks at whether the learned weights shall serve.
        most_lists: Measured lists after which weights that still did not gain are dropped.
        window_lists: Newest measured lists by which what serves is compared with the weights of the saved engine.
        margin: NDCG@10 by which it may be below them, and by no less than two standard errors, before they serve again.
        kept_versions: Versions that can be returned to.
        refit_share: New events, as a share of those of the fit, after which the sources are fitted again
            (``ranker.learning.refit``). None never does.
        refit_lists: Newest events by which it is judged whether they find less, at most, and at most half of the new
            ones.
    """

    list_size: Annotated[int, Field(ge=2)] = 20
    examined: Annotated[int, Field(ge=0)] = 1
    batch_lists: Annotated[int, Field(ge=1)] = 32
    replayed: Annotated[float, Field(ge=0)] = 1.0
    memory_lists: Annotated[int, Field(ge=0)] = 20_000
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    head_rate: Annotated[float, Field(gt=0)] = 5.0
    anchor: Annotated[float, Field(ge=0)] = 0.1
    largest_gradient: Annotated[float, Field(gt=0)] = 1.0
    refusal: Annotated[float, Field(ge=0)] = 0.5
    user_share: Annotated[float, Field(gt=0, le=1)] = 0.05
    quarantine: Annotated[float, Field(gt=0)] = 6.0
    measured: Annotated[float, Field(gt=0, le=1)] = 0.25
    least_lists: Annotated[int, Field(ge=2)] = 200
    most_lists: Annotated[int, Field(ge=2)] = 2_000
    window_lists: Annotated[int, Field(ge=2)] = 2_000
    margin: Annotated[float, Field(ge=0)] = 0.002
    kept_versions: Annotated[int, Field(ge=1)] = 5
    refit_share: Annotated[float, Field(gt=0)] | None = 0.05
    refit_lists: Annotated[int, Field(ge=2)] = 2_000
