"""What feedback says: the weight of each kind of event, and the rules for several events about one item."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class FeedbackPolicy:
    """What an event says: a positive one has a weight like an interaction's; a negative one has weight 0.

    The kinds "dislike", "hide" and "skip" are always negative. Every kind but "skip" marks the item as seen, so that
    it is not recommended to that user again; a skipped item may return. An impression says nothing by itself.

    Several events are read together (``ranker.feedback.acts``): reports of one act count once, and a newer verdict on
    an item (rating, like, dislike, hide) stands in place of older ones.

    Attributes:
        click: Weight of a click.
        dwell: Weight of a dwell of at least ``dwell_seconds``; a shorter one is negative.
        cart: Weight of an item put into the cart.
        purchase: Weight of a purchase.
        like: Weight of an explicit like.
        dwell_seconds: Seconds from which a dwell is positive.
        rating_from: Rating from which an event of kind "rating" is positive, with the rating as its weight; a lower
            one is negative.
        rating_to: Rating beyond which a higher one weighs no more: no event may weigh as much as all others together.
        same_act_seconds: Events of one user, item and kind that follow one another within so many seconds report the
            same act.
        sources: Names of sources, the most trusted first: of several reports of an act, that of the most trusted source
            counts. Sources that are not named here are trusted least, all alike.
    """

    click: Annotated[float, Field(gt=0)] = 1.0
    dwell: Annotated[float, Field(gt=0)] = 1.0
    cart: Annotated[float, Field(gt=0)] = 2.0
    purchase: Annotated[float, Field(gt=0)] = 4.0
    like: Annotated[float, Field(gt=0)] = 4.0
    dwell_seconds: Annotated[float, Field(ge=0)] = 10.0
    rating_from: Annotated[float, Field(gt=0)] = 4.0
    rating_to: Annotated[float, Field(gt=0)] = 10.0
    same_act_seconds: Annotated[float, Field(ge=0)] = 60.0
    sources: tuple[str, ...] = ()

    def weight(self, kind: str, value: float | None) -> float:
        """The weight of an event, 0 for a negative one."""
        measured = 0.0 if value is None else value
        if kind == "dwell":
            return self.dwell if measured >= self.dwell_seconds else 0.0
        if kind == "rating":
            return min(measured, self.rating_to) if measured >= self.rating_from else 0.0
        return {"click": self.click, "cart": self.cart, "purchase": self.purchase, "like": self.like}.get(kind, 0.0)

    def weights(self, events: pd.DataFrame) -> NDArray[np.float32]:
        """The weight of each event, (E,)."""
        pairs = zip(events["kind"], events["value"], strict=True)
        return np.array([self.weight(kind, value) for kind, value in pairs], np.float32)

    def mistrust(self, source: str) -> int:
        """The place of a source among ``sources``, beyond the last for one that is not named."""
        return self.sources.index(source) if source in self.sources else len(self.sources)
