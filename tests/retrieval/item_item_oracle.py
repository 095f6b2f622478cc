"""Item-item sources in plain Python: loops over events and dictionaries, none of the sources' code."""

import numpy as np

from retrieval.candidates import Requests
from retrieval.histories import Histories
from retrieval.item_item import ItemItemConfig


def events_of(histories: Histories, row: int):
    """The liked (item, weight, time) events of a row, oldest first."""
    events = range(histories.indptr[row], histories.indptr[row + 1])
    told = [(int(histories.items[e]), float(histories.weights[e]), int(histories.times[e])) for e in events]
    return [event for event in told if event[1] > 0]


def scores(weights: np.ndarray, histories: Histories, config: ItemItemConfig, full: bool) -> np.ndarray:
    """Every item's score (U, I) by weights (I, I) as an array; -inf where nothing is liked, or nothing known.

    Of an item that has no weight at all nothing is known. Full weights are never 0 but for such an item, so what a
    history has no weight to is one.
    """
    answer = np.full((len(histories), len(weights)), -np.inf)
    for row in range(len(histories)):
        events = events_of(histories, row)
        for item in range(len(weights)) if events else ():
            answer[row, item] = sum(
                (weight if config.weighted else 1.0)
                * (1.0 if config.half_life is None else 0.5 ** (age / config.half_life))
                * weights[past, item]
                for age, (past, weight, _) in enumerate(reversed(events))
            )
            related = weights[[past for past, _, _ in events], item] if full else [*weights[item], *weights[:, item]]
            if not np.any(related):
                answer[row, item] = -np.inf
    return answer


def strongest(weights: np.ndarray, neighbours: int) -> np.ndarray:
    """The same (I, I) with all but each row's largest set to 0; of equal ones the lower column stays."""
    kept = np.zeros_like(weights)
    for row, values in enumerate(weights):
        for column in sorted(range(len(values)), key=lambda at: (-values[at], at))[:neighbours]:
            kept[row, column] = values[column]
    return kept


def anybody(*rows, times=None) -> Histories:
    """Histories of these lists of items, all of weight 1, an event a second unless times are given."""
    items = [item for row in rows for item in row]
    users = [user for user, row in enumerate(rows) for _ in row]
    flat = [time for row in times for time in row] if times is not None else range(len(items))
    return Histories.from_rows(
        np.array(users, np.int64), np.array(items, np.int64), np.ones(len(items), np.float32),
        np.array(flat, np.int64), len(rows),
    )  # fmt: skip


def asked(histories: Histories, n_items: int) -> Requests:
    """A request of each row for any item of the catalogue, seen ones, too."""
    return Requests(histories, np.ones(n_items, np.bool_), exclude_seen=False)
