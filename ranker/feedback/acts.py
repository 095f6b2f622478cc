"""From events that were logged to what a user did: one act for its several reports, and the newest verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ranker.data.times import US_PER_SECOND
from ranker.feedback.event_log import Logged
from ranker.feedback.events import IMPRESSION, KIND_CODES
from ranker.feedback.policy import FeedbackPolicy
from retrieval.ids import UNKNOWN

TRACELESS = ("skip", IMPRESSION)  # kinds that leave nothing in a history: the item may be shown again
VERDICTS = [KIND_CODES[kind] for kind in ("rating", "like", "dislike", "hide")]


class Report(NamedTuple):
    """An event of some user, as far as it tells what they did."""

    item: int  # position in the catalogue
    weight: float
    time: int  # microseconds since 1970
    kind: int  # its code
    mistrust: int  # of its source


@dataclass(frozen=True, slots=True, eq=False)
class Acts:
    """What a user did by what was logged of them, oldest first.

    Attributes:
        items: (A,) positions in the catalogue.
        weights: (A,) 0 where the act is no sign of liking, or a newer verdict took its weight.
        times: (A,) microseconds since 1970.
        kinds: (A,) codes.
        refused: Item → time of the newest verdict against it, which takes the weight of all that the user did with the
            item before, in older logs, too.
        repeated: Reports of an act that another report stands for.
        overruled: Acts whose weight a newer verdict took.
    """

    items: NDArray[np.int64]
    weights: NDArray[np.float32]
    times: NDArray[np.int64]
    kinds: NDArray[np.uint8]
    refused: dict[int, int]
    repeated: int
    overruled: int

    def __len__(self) -> int:
        return len(self.items)


def reports_of(events: Sequence[Logged], items: NDArray[np.int64], policy: FeedbackPolicy) -> list[Report]:
    """The events that tell what their user did, in their order.

    Args:
        events: Logged events.
        items: (E,) position of each one's item, UNKNOWN for one that the catalogue lacks.
        policy: What each kind says.
    """
    return [
        Report(
            item, policy.weight(event.kind, event.value), event.datetime, KIND_CODES[event.kind],
            policy.mistrust(event.source),
        )
        for event, item in zip(events, items.tolist(), strict=True)
        if item != UNKNOWN and event.kind not in TRACELESS
    ]  # fmt: skip


def acts_of(reports: Sequence[Report], same_act_seconds: float) -> Acts:
    """What one user's reports, in the order of their arrival, come to.

    - Reports of one kind on one item, each within ``same_act_seconds`` of the one before, are one act. The most trusted
      source's counts; of its reports the newest, and of equal times the one that came last.
    - A verdict (rating, like, dislike, hide) takes the weight of older verdicts on the item.
    - A verdict against the item takes the weight of everything older on it.

    The order of arrival decides between equal times only, so late and unordered events end where they belong.
    """
    weights = np.array([report.weight for report in reports], np.float32)
    items, times, kinds, mistrust = (
        np.array([report[place] for report in reports], np.int64) for place in (0, 2, 3, 4)
    )
    arrival = np.arange(len(reports))
    order = np.lexsort((arrival, times, kinds, items))
    apart = np.ones(len(order), np.bool_)
    apart[1:] = (
        (np.diff(items[order]) != 0)
        | (np.diff(kinds[order]) != 0)
        | (np.diff(times[order]) > same_act_seconds * US_PER_SECOND)
    )
    act = np.empty(len(order), np.int64)
    act[order] = np.cumsum(apart) - 1
    best_last = np.lexsort((arrival, times, -mistrust, act))
    ends = np.flatnonzero(np.diff(act[best_last], append=-1))
    counted = best_last[ends]
    counted = counted[np.lexsort((counted, times[counted]))]
    items, times, kinds, weights = items[counted], times[counted], kinds[counted], weights[counted]

    verdict = np.isin(kinds, VERDICTS)
    newest = {item: at for at, item in enumerate(items.tolist()) if verdict[at]}
    against = {item: at for at, item in enumerate(items.tolist()) if verdict[at] and weights[at] == 0}
    at = np.arange(len(items))
    overruled = (weights > 0) & (
        (at < np.array([against.get(item, -1) for item in items.tolist()], np.int64))
        | (verdict & (at < np.array([newest.get(item, -1) for item in items.tolist()], np.int64)))
    )
    weights[overruled] = 0
    return Acts(
        items, weights, times, kinds.astype(np.uint8),
        refused={item: int(times[place]) for item, place in against.items()},
        repeated=len(reports) - len(items),
        overruled=int(overruled.sum()),
    )  # fmt: skip
