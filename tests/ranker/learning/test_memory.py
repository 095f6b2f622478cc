"""An even sample of all that was, with the newest word about each item."""

import numpy as np

from ranker.learning.memory import Kept, Memory, batch
from retrieval.candidates import NO_ITEM
from retrieval.histories import Histories


def listed(user, item, *, refused=False, weight=1.0, length=3, events=0):
    past = Histories.from_rows(
        np.zeros(events, np.int64), np.arange(events), np.ones(events, np.float32), np.arange(events), 1
    )
    items = np.array([item, *range(100, 99 + length)])
    return Kept((user, item), past, items, np.full((length, 2), item, np.float32), refused, weight)


def keys(memory):
    return [each.key for each in memory.sample(10**6)]


def test_every_list_there_ever_was_is_as_likely_to_be_remembered():
    counts = np.zeros(40)
    for seed in range(2000):
        memory = Memory(10, np.random.default_rng(seed))
        memory.add([listed(0, item) for item in range(25)])
        memory.add([listed(0, item) for item in range(25, 40)])
        assert len(memory) == 10
        for _, item in keys(memory):
            counts[item] += 1
    assert abs(counts / 2000 - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / 2000)


def test_a_newer_word_about_an_item_takes_the_place_of_an_older_one():
    memory = Memory(3, np.random.default_rng(0))
    memory.add([listed("a", 1), listed("a", 2), listed("b", 1)])
    memory.add([listed("a", 2, refused=True)])
    assert sorted(keys(memory)) == [("a", 1), ("a", 2), ("b", 1)]
    assert [each.refused for each in memory.sample(9) if each.key == ("a", 2)] == [True]
    for item in range(3, 50):  # what leaves the memory is a new word again
        memory.add([listed("a", item)])
    assert len(memory) == len(set(keys(memory))) == 3


def test_a_forgotten_user_is_not_remembered():
    memory = Memory(5, np.random.default_rng(0))
    memory.add([listed(user, item) for user in "ab" for item in (1, 2)])
    memory.add([listed("c", 3)])
    memory.forget(["a"], ["a", "b"])
    assert sorted(keys(memory)) == [("b", 1), ("b", 2)]
    memory.add([listed("a", 1), listed("b", 2)])
    assert len(memory) == 3


def test_no_memory_at_all_is_one():
    memory = Memory(0, np.random.default_rng(0))
    memory.add([listed("a", 1)])
    assert keys(memory) == []


def test_a_batch_is_its_lists_padded():
    made = batch([listed("a", 1, events=2), listed("b", 2, refused=True, weight=4.0, length=5)], n_items=200)
    assert made.requests.histories.lengths.tolist() == [2, 0]
    assert made.candidates.items.tolist() == [[1, 100, 101, NO_ITEM, NO_ITEM], [2, 100, 101, 102, 103]]
    assert made.labels.tolist() == [[1, 0, 0, -1, -1], [1, 0, 0, 0, 0]]
    assert made.features[:, :, 0].tolist() == [[1, 1, 1, 0, 0], [2] * 5]
    assert (made.refused.tolist(), made.weights.tolist()) == ([False, True], [1, 4])
