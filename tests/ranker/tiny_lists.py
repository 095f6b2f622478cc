"""Labelled lists in which the newest event decides, and settings with which it is soon learned."""

import numpy as np

from ranker.config import JointTrainingConfig
from ranker.lists import LabelledLists
from retrieval.candidates import NO_ITEM, Candidates, Requests
from retrieval.histories import Histories

WORDS = ["robot", "cat"]
N_ITEMS, DEPTH = 48, 8
TEXTS = [f"{WORDS[n % 2]} {n // 2}" for n in range(N_ITEMS)]
CONFIG = JointTrainingConfig(
    negatives=5, epochs=6, batch_size=16, learning_rate=2e-3, evaluations_per_epoch=1, patience=9, validation_lists=60
)


def lists(count, seed, short=False):
    """Lists of one item that shares its word with the user's newest event and seven that do not, in no order.

    The event before it has the other word. Every third list may end early.
    """
    rng = np.random.default_rng(seed)
    words = np.arange(N_ITEMS) % 2
    chosen = rng.integers(0, N_ITEMS, count)
    items = np.full((count, DEPTH), NO_ITEM)
    events = []
    for row, item in enumerate(chosen):
        alike = np.setdiff1d(np.flatnonzero(words == words[item]), [item])
        others = np.flatnonzero(words != words[item])
        length = 4 if short and row % 3 == 0 else DEPTH
        items[row, :length] = rng.permutation([item, *rng.choice(others, length - 1, replace=False)])
        events += [rng.choice(others), rng.choice(alike)]
    scores = np.where(items == NO_ITEM, -np.inf, np.linspace(1, 0, DEPTH)).astype(np.float32)
    histories = Histories.from_rows(
        np.repeat(np.arange(count), 2), np.array(events, np.int64), np.ones(2 * count, np.float32),
        np.arange(2 * count), count,
    )  # fmt: skip
    requests = Requests(histories, np.ones(N_ITEMS, np.bool_))
    return LabelledLists(np.arange(count), requests, Candidates.of("a", items, scores), chosen)
