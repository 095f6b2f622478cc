from dataclasses import replace

import numpy as np
import pytest
from item_item_oracle import anybody, asked, events_of, strongest

from encoders.errors import ArtifactError
from retrieval.histories import Histories
from retrieval.transitions import TransitionConfig, TransitionRetriever

N_ITEMS = 60
EVERYTHING = TransitionConfig(window=3, distance_power=1, popularity_power=0, neighbours=N_ITEMS)


def plain_counts(histories: Histories, config: TransitionConfig) -> np.ndarray:
    """What follows what, counted pair by pair."""
    counts = np.zeros((N_ITEMS, N_ITEMS))
    for row in range(len(histories)):
        events = events_of(histories, row)
        for at, (item, _, time) in enumerate(events):
            for distance, (other, _, later) in enumerate(events[at + 1 : at + 1 + config.window], start=1):
                if item == other:
                    continue
                value = 1 / distance**config.distance_power
                if config.ties == "both" and time == later:
                    counts[item, other] += value / 2
                    counts[other, item] += value / 2
                else:
                    counts[item, other] += value
    return counts


def plain_weights(histories: Histories, config: TransitionConfig) -> np.ndarray:
    counts = plain_counts(histories, config)
    weights = np.zeros_like(counts)
    for source, target in zip(*counts.nonzero(), strict=True):
        count = counts[source, target]
        worth = count / (count + config.shrinkage)
        weights[source, target] = count * worth / counts[source].sum()
        weights[source, target] /= counts[:, target].sum() ** config.popularity_power
    return weights


@pytest.mark.parametrize(
    "config",
    [
        TransitionConfig(neighbours=N_ITEMS),
        TransitionConfig(neighbours=N_ITEMS, ties="order"),
        TransitionConfig(window=1, neighbours=N_ITEMS),
        TransitionConfig(window=4, distance_power=1, neighbours=N_ITEMS),
        TransitionConfig(window=100, distance_power=0.5, popularity_power=0.75, shrinkage=1.5, neighbours=N_ITEMS),
        TransitionConfig(window=3, distance_power=0, popularity_power=0, shrinkage=4, neighbours=N_ITEMS, ties="order"),
    ],
)
def test_weights_are_those_counted_pair_by_pair(config, histories):
    source = TransitionRetriever.fit(histories, N_ITEMS, config)
    np.testing.assert_allclose(source.weights.toarray(), plain_weights(histories, config), rtol=1e-5)


def test_the_strongest_followers_are_kept(histories):
    config = TransitionConfig(window=12, neighbours=N_ITEMS)
    every = TransitionRetriever.fit(histories, N_ITEMS, config).weights.toarray()
    source = TransitionRetriever.fit(histories, N_ITEMS, replace(config, neighbours=3))
    assert ((every > 0).sum(axis=1) > 3).any()
    np.testing.assert_array_equal(source.weights.toarray(), strongest(every, 3))


def test_order_is_direction():
    weights = TransitionRetriever.fit(anybody([1, 2, 3]), N_ITEMS, EVERYTHING).weights.toarray()
    assert weights[1, 2] == pytest.approx(2 / 3)
    assert weights[1, 3] == pytest.approx(1 / 3)  # two events later counts half
    assert weights[2, 3] == 1
    assert weights.sum() == pytest.approx(2)  # and nothing backwards


def test_nothing_follows_from_one_user_to_the_next():
    weights = TransitionRetriever.fit(anybody([1, 2], [3], [], [4, 5]), N_ITEMS, EVERYTHING).weights.toarray()
    assert list(zip(*weights.nonzero(), strict=True)) == [(1, 2), (4, 5)]


def test_the_order_of_equal_times_says_nothing_unless_told_so():
    one = anybody([1, 2, 3], times=[[0, 0, 9]])
    other = anybody([2, 1, 3], times=[[0, 0, 9]])
    adjacent = replace(EVERYTHING, window=1)
    for history in (one, other):
        weights = TransitionRetriever.fit(history, N_ITEMS, adjacent).weights.toarray()
        assert weights[1, 2] > 0
        assert weights[2, 1] > 0
        assert weights[3].sum() == 0
    ordered = replace(adjacent, ties="order")
    assert TransitionRetriever.fit(one, N_ITEMS, ordered).weights.toarray()[2, 1] == 0
    assert TransitionRetriever.fit(other, N_ITEMS, ordered).weights.toarray()[1, 2] == 0


def test_a_repeated_item_does_not_follow_itself_and_adds_up():
    flat = TransitionRetriever.fit(anybody([1, 1, 2]), N_ITEMS, replace(EVERYTHING, half_life=None))
    assert flat.weights.toarray()[1, 1] == 0
    twice = flat.score(asked(anybody([1, 1]), N_ITEMS), np.array([[2]]))
    once = flat.score(asked(anybody([1]), N_ITEMS), np.array([[2]]))
    np.testing.assert_allclose(twice, 2 * once)


def test_the_newest_event_leads():
    source = TransitionRetriever.fit(anybody([1, 2], [3, 4]), N_ITEMS, replace(EVERYTHING, half_life=1.0))
    found = source.retrieve(asked(anybody([1, 3], [3, 1]), N_ITEMS), 2)
    assert found.items.tolist() == [[4, 2], [2, 4]]
    np.testing.assert_allclose(found.scores, [[1, 0.5], [1, 0.5]])


def test_what_nothing_reaches_is_not_proposed_and_scores_zero():
    source = TransitionRetriever.fit(anybody([1, 2], [3, 4]), N_ITEMS, EVERYTHING)
    request = asked(anybody([1]), N_ITEMS)
    assert source.retrieve(request, 3).items.tolist() == [[2, -1, -1]]
    assert source.score(request, np.array([[4, 2, -1]])).tolist() == [[0, 1, -np.inf]]


def test_a_weight_that_rests_on_little_is_shrunk():
    often = [[1, 2]] * 9 + [[1, 3]]
    plain, shrunk = (
        TransitionRetriever.fit(anybody(*often), N_ITEMS, replace(EVERYTHING, shrinkage=shrinkage)).weights.toarray()
        for shrinkage in (0, 3)
    )
    assert shrunk[1, 2] / plain[1, 2] == pytest.approx(9 / 12)
    assert shrunk[1, 3] / plain[1, 3] == pytest.approx(1 / 4)


def test_settings_that_are_not_its_own_are_refused(tmp_path):
    TransitionRetriever.fit(anybody([1, 2]), N_ITEMS, EVERYTHING).save(tmp_path)
    (tmp_path / "config.json").write_text('{"factors": 3}')
    with pytest.raises(ArtifactError, match=r"config\.json: not the settings of TransitionConfig"):
        TransitionRetriever.load(tmp_path)
