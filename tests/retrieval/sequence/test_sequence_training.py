"""Training: what is predicted from what, how it is measured, and that an order is learned."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from encoders.errors import ConfigError, InputError
from retrieval.candidates import Requests
from retrieval.histories import Histories
from retrieval.sequence import SequenceConfig, SequenceRetriever
from retrieval.sequence.training import NO_TARGET, SequenceModel, _Collator, windows
from retrieval.training import LoopConfig

LOOP = LoopConfig(epochs=15, batch_size=16, learning_rate=2e-2, evaluations_per_epoch=1)
CONFIG = SequenceConfig(dim=16, heads=2, max_events=8, dropout=0.0, validation_users=10, training=LOOP)


def cycles(n_users: int, n_items: int, step: int = 7) -> Histories:
    """Users who each take six items in a row, each item always followed by the same other one."""
    starts = np.arange(n_users) % n_items
    items = (starts[:, None] + step * np.arange(6)) % n_items
    rows, times = np.repeat(np.arange(n_users), 6), np.tile(np.arange(6) * 10**6, n_users)
    return Histories.from_rows(rows, items.ravel(), np.ones(rows.size, np.float32), times, n_users)


def collator(histories: Histories, max_events: int, seed: int = 0) -> _Collator:
    return _Collator(histories, histories.indptr[1:], max_events, np.random.default_rng(seed))


@pytest.mark.parametrize("max_events", [1, 2, 3, 50])
def test_each_event_but_the_first_comes_next_once(histories, max_events) -> None:
    found = windows(histories, histories.indptr[1:], max_events)
    assert all(1 <= stop - start <= max_events for start, stop, _ in found)
    predicted = sorted(event for start, stop, _ in found for event in range(start + 1, stop + 1))
    first = set(histories.indptr[:-1][histories.lengths > 0].tolist())
    assert predicted == [event for event in range(len(histories.items)) if event not in first]


def test_a_batch_holds_windows_and_what_came_next_if_it_was_liked() -> None:
    weights = np.array([1, 0, 2, 3, 1, 1], np.float32)
    times = np.array([5, 7, 7, 9, 1, 4]) * 10**6
    histories = Histories.from_rows(np.array([0, 0, 0, 0, 1, 1]), np.array([4, 5, 6, 7, 8, 9]), weights, times, 2)
    batch = collator(histories, 3)([(0, 3, NO_TARGET), (4, 5, NO_TARGET)])
    assert batch["places"].tolist() == [[4, 5, 6], [8, -1, -1]]
    assert batch["labels"].tolist() == [[NO_TARGET, 6, 7], [9, NO_TARGET, NO_TARGET]]
    assert batch["seconds"].tolist() == [[0, 2, 2], [0, 0, 0]]
    assert batch["levels"].tolist() == [[1, 0, 2], [1, 1, 1]]


@pytest.mark.parametrize("max_events", [1, 3, 4])
def test_a_window_is_moved_within_its_row_each_time(max_events) -> None:
    rows, items = np.repeat([0, 1], 12), np.arange(24)
    histories = Histories.from_rows(rows, items, np.ones(24, np.float32), items * 10**6, 2)
    stops = histories.indptr[1:] - [0, 1]  # the second row's newest event is not to be learned from
    examples = windows(histories, stops, max_events)
    collate = _Collator(histories, stops, max_events, np.random.default_rng(0))
    batches = [collate(examples) for _ in range(50)]
    starts = {int(start) for batch in batches for start in batch["places"][:, 0]}
    assert starts == set(range(12 - max_events)) | set(range(12, 23 - max_events))
    for batch in batches:
        assert batch["places"].shape == (len(examples), max_events)
        assert (batch["labels"] == batch["places"] + 1).all()
        assert (batch["places"] // 12 == batch["labels"] // 12).all()
        assert batch["labels"].max() < 23


def test_a_kind_that_training_never_saw_reads_as_a_logged_event(vectors) -> None:
    source = SequenceRetriever.fit(cycles(200, len(vectors)), vectors, CONFIG, seed=0)
    logged = cycles(5, len(vectors))
    rated = replace(logged, kinds=np.full_like(logged.kinds, 6))
    allowed = np.ones(len(vectors), np.bool_)
    first, second = (source.retrieve(Requests(events, allowed), 10) for events in (logged, rated))
    np.testing.assert_array_equal(first.items, second.items)
    np.testing.assert_array_equal(first.scores, second.scores)


def test_validation_ranks_the_next_item_among_all_that_were_not_seen(histories, vectors) -> None:
    torch.manual_seed(3)
    model = SequenceModel(vectors, np.ones(len(vectors), np.bool_), CONFIG, seed=0).eval()
    users = np.flatnonzero(histories.lengths >= 4)[:6]
    ends = histories.indptr[users + 1] - 1
    starts = np.maximum(ends - 2, histories.indptr[users])
    examples = list(zip(starts.tolist(), ends.tolist(), histories.items[ends].tolist(), strict=True))
    ranks = model(**collator(histories, CONFIG.max_events)(examples))["logits"][:, 0].tolist()
    reader = SequenceRetriever(*model.representations(), model.reader, CONFIG)
    for user, start, end, rank in zip(users, starts, ends, ranks, strict=True):
        read = Histories.from_rows(
            np.zeros(end - start, np.int64), histories.items[start:end], histories.weights[start:end],
            histories.times[start:end], 1,
        )  # fmt: skip
        scores = reader.table @ reader.states(read)[0] + reader.bias
        target = histories.items[end]
        seen = set(histories.items[histories.indptr[user] : end].tolist()) - {target}
        better = [item for item in range(len(scores)) if item not in seen and scores[item] > scores[target]]
        assert rank == max(1, 1 + len(better) - (target in histories.items[histories.indptr[user] : end]))


def test_an_order_is_learned_and_a_click_changes_what_comes_next() -> None:
    n_items = 40
    histories = cycles(120, n_items)
    source = SequenceRetriever.fit(histories, np.eye(n_items, dtype=np.float32), CONFIG, seed=0)
    asked = Histories.from_rows(
        np.array([0, 0, 1, 1, 1]), np.array([3, 10, 3, 10, 17]), np.ones(5, np.float32), np.arange(5) * 10**6, 2
    )
    found = source.retrieve(Requests(asked, np.ones(n_items, np.bool_)), 1)
    assert found.items[:, 0].tolist() == [17, 24]


def test_an_item_that_nobody_took_is_found_by_its_features() -> None:
    histories = cycles(120, 40)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(41, 64)).astype(np.float32)
    features[40] = features[17] + 0.1 * rng.normal(size=64)  # an item that nobody took is like one that many did
    config = SequenceConfig(
        dim=16, heads=2, max_events=8, dropout=0.0, id_dropout=0.5, validation_users=10, training=LOOP
    )
    source = SequenceRetriever.fit(histories, features, config, seed=0)
    asked = Histories.from_rows(
        np.zeros(2, np.int64), np.array([3, 10]), np.ones(2, np.float32), np.arange(2) * 10**6, 1
    )
    assert 40 in source.retrieve(Requests(asked, np.ones(41, np.bool_)), 2).items[0]


def test_an_item_that_comes_later_is_known_by_its_features_as_one_that_nobody_took(tmp_path) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(41, 64)).astype(np.float32)
    fitted = SequenceRetriever.fit(cycles(120, 40), features, CONFIG, seed=0)
    fitted.save(tmp_path)
    grown = SequenceRetriever.load(tmp_path).over(np.concatenate([features, 3 * features[40:]]))
    np.testing.assert_array_equal(grown.table[:41], fitted.table)
    np.testing.assert_allclose(grown.table[41], fitted.table[40], rtol=1e-5)
    np.testing.assert_allclose(grown.bias[41], fitted.bias[40], rtol=1e-5)
    asked = Requests(cycles(5, 40), np.ones(42, np.bool_))
    np.testing.assert_allclose(*(grown.score(asked, np.full((5, 1), item)) for item in (40, 41)), rtol=1e-5)


def test_the_same_seed_gives_the_same_source_and_leaves_the_callers_draws_alone(histories, vectors) -> None:
    config = SequenceConfig(dim=8, heads=2, negatives=20, max_events=6, training=LoopConfig(epochs=1, batch_size=8))
    torch.manual_seed(5)
    one = SequenceRetriever.fit(histories, vectors, config, seed=1)
    drawn = torch.rand(1)
    torch.manual_seed(6)
    other = SequenceRetriever.fit(histories, vectors, config, seed=1)
    np.testing.assert_array_equal(one.table, other.table)
    torch.manual_seed(5)
    assert torch.rand(1) == drawn


def test_a_source_goes_on_from_what_it_was_on_events_that_came_later() -> None:
    """What follows what has turned round since."""
    n_items = 40
    config = replace(CONFIG, refit_epochs=15, refit_rate=1.0)
    source = SequenceRetriever.fit(cycles(120, n_items), np.eye(n_items, dtype=np.float32), config, seed=0)
    table = source.table.copy()
    turned = cycles(120, n_items, step=13)
    later = source.refit(turned, seed=0)
    asked = Requests(turned.take(np.arange(n_items)), np.ones(n_items, np.bool_))
    following = (np.arange(n_items) + 13 * 6) % n_items
    assert (later.retrieve(asked, 1).items[:, 0] == following).mean() > 0.9
    assert (source.retrieve(asked, 1).items[:, 0] == following).mean() < 0.2
    np.testing.assert_array_equal(source.table, table)
    assert later.config == source.config


def test_a_source_that_was_loaded_cannot_go_on(histories, vectors, tmp_path) -> None:
    source = SequenceRetriever.fit(histories, vectors, CONFIG, seed=0)
    source.save(tmp_path)
    with pytest.raises(InputError, match="Fit it anew"):
        SequenceRetriever.load(tmp_path).refit(histories, seed=0)


def test_too_little_to_learn_an_order_from_is_refused(vectors) -> None:
    two = Histories.from_rows(np.array([0, 0]), np.array([1, 2]), np.ones(2, np.float32), np.arange(2), 1)
    with pytest.raises(InputError, match="none of 1 users has three events"):
        SequenceRetriever.fit(two, vectors, CONFIG, seed=0)


def test_heads_that_do_not_divide_the_width_are_refused(histories, vectors) -> None:
    with pytest.raises(ConfigError, match="3 heads do not divide a dim of 16"):
        SequenceRetriever.fit(histories, vectors, SequenceConfig(dim=16, heads=3), seed=0)
