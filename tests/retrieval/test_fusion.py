import numpy as np
import pytest

from encoders.errors import InputError
from retrieval.candidates import NO_ITEM, Candidates, Requests
from retrieval.fusion import FusedRetriever, FusionConfig, learn_weights, standardised, weigh_sources
from retrieval.histories import Histories
from retrieval.queries import Queries


class Table:
    """A source with a fixed score of each item, -inf for what it does not know."""

    def __init__(self, scores):
        self.scores = np.array(scores, np.float32)
        self.n_items = len(scores)

    def retrieve(self, requests, k):
        from retrieval.candidates import rank_all

        return rank_all("table", requests, k, lambda block: np.tile(self.scores, (len(block), 1)))

    def score(self, requests, items):
        return np.where(items == NO_ITEM, np.float32(-np.inf), self.scores[items])


def ask(n_items: int, **kwargs) -> Requests:
    return Requests(Histories.empty(1), np.ones(n_items, np.bool_), **kwargs)


def test_reciprocal_rank_fusion_is_the_sum_of_reciprocal_ranks():
    sources = {"als": Table([5, 4, 3, -np.inf]), "text": Table([-np.inf, 1, 9, 8])}
    fused = FusedRetriever(sources, {"als": 1.0, "text": 2.0}, FusionConfig("rrf", depth=4, rank_constant=60))
    found = fused.union(ask(4), 4)
    expected = {0: 1 / 61, 1: 1 / 62 + 2 / 63, 2: 1 / 63 + 2 / 61, 3: 2 / 62}
    assert found.items[0].tolist() == sorted(expected, key=lambda item: -expected[item])
    np.testing.assert_allclose(found.scores[0], sorted(expected.values(), reverse=True), rtol=1e-6)


def test_weighted_fusion_is_the_weighted_sum_of_standardised_scores():
    sources = {"als": Table([5, 4, 3]), "text": Table([0, 10, 50])}
    fused = FusedRetriever(sources, {"als": 1.0, "text": 0.5}, FusionConfig("weighted", depth=3))
    z = [(np.array(t) - np.mean(t)) / np.std(t) for t in ([5, 4, 3], [0, 10, 50])]
    expected = z[0] + 0.5 * z[1]
    found = fused.union(ask(3), 3)
    np.testing.assert_allclose(found.scores[0], np.sort(expected)[::-1], rtol=1e-5)
    assert found.items[0].tolist() == np.argsort(-expected).tolist()


def test_every_source_scores_what_any_source_proposed():
    sources = {"als": Table([5, 4, 3, 2]), "text": Table([1, 2, 3, 4])}
    fused = FusedRetriever(sources, {"als": 1.0, "text": 1.0}, FusionConfig(depth=1))
    found = fused.union(ask(4), 1)
    assert set(found.items[0]) == {0, 3}
    scores = dict(zip(found.items[0].tolist(), found.by_source[0].tolist(), strict=True))
    assert scores == {0: [5, 1], 3: [2, 4]}


def test_standardised_scores_have_mean_0_and_deviation_1_over_what_is_known():
    scores = np.random.default_rng(0).normal(3, 2, size=(4, 7, 2)).astype(np.float32)
    scores[:, 5:, 0] = -np.inf
    scores[0, :, 1] = 4.0  # says nothing
    z = standardised(scores)
    np.testing.assert_allclose(z[:, :5, 0].mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(z[:, :5, 0].std(axis=1), 1, atol=1e-5)
    assert (z[:, 5:, 0] == 0).all()
    assert (z[0, :, 1] == 0).all()


def test_learned_weights_favour_the_source_that_knows_and_ignore_noise():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 20, 3)).astype(np.float32)
    items = np.tile(np.arange(20), (400, 1))
    utility = 2.0 * features[:, :, 0] - 1.0 * features[:, :, 2] + rng.gumbel(size=(400, 20))
    weights = learn_weights(features, items, items == utility.argmax(axis=1)[:, None], penalty=1e-6)
    assert weights[0] == pytest.approx(2.0, abs=0.4)
    assert weights[1] < 0.2
    assert weights[2] == 0  # a source that points the wrong way is switched off, not reversed


def test_lists_without_their_positive_teach_nothing():
    features = np.random.default_rng(0).normal(size=(5, 4, 2)).astype(np.float32)
    items = np.tile(np.arange(4), (5, 1))
    assert learn_weights(features, items, np.zeros((5, 4))).tolist() == [1, 1]


def test_empty_places_have_no_share_in_learning():
    features = np.random.default_rng(1).normal(size=(50, 6, 2)).astype(np.float32)
    items = np.tile(np.arange(6), (50, 1))
    gains = items == features[:, :, 0].argmax(axis=1)[:, None]
    padded_items = np.concatenate([items, np.full((50, 3), NO_ITEM)], axis=1)
    padded = np.concatenate([features, np.full((50, 3, 2), 7, np.float32)], axis=1)
    padded_gains = np.pad(gains, ((0, 0), (0, 3)), constant_values=True)
    np.testing.assert_allclose(
        learn_weights(features, items, gains), learn_weights(padded, padded_items, padded_gains), rtol=1e-5
    )


def test_a_list_of_several_positives_is_worth_as_much_as_each_of_them_by_its_share():
    rng = np.random.default_rng(2)
    features = rng.normal(size=(80, 6, 2)).astype(np.float32)
    items = np.tile(np.arange(6), (80, 1))
    first, second = np.eye(6)[rng.integers(6, size=80)], np.eye(6)[rng.integers(6, size=80)]
    mixed = learn_weights(features, items, 2 * first + second)
    # the same lists one by one, those of the first item twice: as many likelihoods of each
    thrice = learn_weights(np.tile(features, (3, 1, 1)), np.tile(items, (3, 1)), np.concatenate([first, first, second]))
    np.testing.assert_allclose(mixed, thrice, atol=1e-4)


@pytest.mark.parametrize("weights", [{"als": 1.0}, {"als": 1.0, "text": -1.0}, {"als": 1.0, "tetx": 1.0, "text": 1.0}])
def test_weights_that_do_not_fit_the_sources_are_refused(weights):
    with pytest.raises(InputError, match="must give each source"):
        FusedRetriever({"als": Table([1]), "text": Table([1])}, weights, FusionConfig())


@pytest.mark.parametrize("weights", [{"als": 1.0}, {"als": 1.0, "text": float("nan")}])
def test_weights_of_short_histories_that_do_not_fit_the_sources_are_refused(weights):
    sources = {"als": Table([1]), "text": Table([1])}
    with pytest.raises(InputError, match="must give each source"):
        FusedRetriever(sources, {"als": 1.0, "text": 1.0}, FusionConfig(), {5: weights})


def known(lengths: list[int], n_items: int, queries: Queries | None = None) -> Requests:
    """One request each of so many signs of liking, after one event that is none."""
    rows = np.repeat(np.arange(len(lengths)), np.array(lengths) + 1)
    weights = np.ones(len(rows), np.float32)
    weights[np.flatnonzero(np.diff(rows, prepend=-1))] = 0
    histories = Histories.from_rows(rows, np.full(len(rows), n_items - 1), weights, np.arange(len(rows)), len(lengths))
    return Requests(histories, np.ones(n_items, np.bool_), queries=queries)


SHORT = {2: {"als": 0.0, "popularity": 1.0}, 4: {"als": 1.0, "popularity": 1.0}}


def test_a_short_history_gets_the_weights_of_the_lowest_number_that_it_is_below():
    sources = {"als": Table([9, 1, 0, 5, 0]), "popularity": Table([1, 9, 0, 6, 0])}
    fused = FusedRetriever(sources, {"als": 1.0, "popularity": 0.0}, FusionConfig(depth=5), SHORT)
    requests = known([1, 2, 3, 4, 0], 5)
    best = fused.retrieve(requests, 4).items
    assert best[:, 0].tolist() == [1, 3, 3, 0, 1]
    for row in range(5):
        alone = fused.retrieve(requests.take(np.array([row])), 4)
        assert alone.items[0].tolist() == best[row].tolist()
    assert fused.over(sources).retrieve(requests, 4).items.tolist() == best.tolist()


def test_a_query_outweighs_the_others_of_a_short_history_too():
    sources = {"als": Table([9, 1, 0, 5]), "popularity": Table([1, 9, 0, 6]), "text": Table([0, 0, 9, 1])}
    short = {2: {"als": 0.0, "popularity": 1.0, "text": 0.0}}
    config = FusionConfig(depth=4, query_weight=3)
    weights = {"als": 1.0, "popularity": 0.0, "text": 0.5}
    queries = Queries.without_states(np.ones((2, 2), np.float32))
    found = FusedRetriever(sources, weights, config, short).arrange(
        known([1, 5], 4, queries), np.array([[0, 1, 2, 3]] * 2)
    )
    for row, other in enumerate(("popularity", "als")):
        by_source = [standardised(sources[name].scores[None, :, None])[0, :, 0] for name in (other, "text")]
        expected = by_source[0] + 3 * by_source[1]
        np.testing.assert_allclose(found.scores[row], np.sort(expected)[::-1], rtol=1e-5)


def test_a_query_without_the_text_source_is_refused():
    fused = FusedRetriever({"als": Table([1, 2])}, {"als": 1.0}, FusionConfig())
    with pytest.raises(InputError, match="needs the source 'text'"):
        fused.retrieve(ask(2, queries=Queries.without_states(np.ones((1, 2), np.float32))), 1)


@pytest.mark.parametrize("method", ["weighted", "rrf"])
def test_where_weighted_sources_are_silent_the_others_decide(method):
    sources = {"als": Table([-np.inf] * 4), "popularity": Table([1, 4, 2, 3])}
    fused = FusedRetriever(sources, {"als": 1.0, "popularity": 0.0}, FusionConfig(method, depth=4))
    assert fused.retrieve(ask(4), 4).items[0].tolist() == [1, 3, 2, 0]


def test_a_source_of_no_weight_is_not_heard_where_others_speak():
    sources = {"als": Table([3, 2, 1, 0]), "popularity": Table([1, 4, 2, 3])}
    fused = FusedRetriever(sources, {"als": 1.0, "popularity": 0.0}, FusionConfig(depth=4))
    assert fused.retrieve(ask(4), 4).items[0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("sign", "equal"), [(1, False), (-1, True)])
def test_sources_that_all_point_the_wrong_way_weigh_the_same_and_it_is_said(sign, equal, caplog):
    rng = np.random.default_rng(0)
    taken = np.zeros((50, 6), np.bool_)
    taken[np.arange(50), rng.integers(0, 6, 50)] = True
    scores = (sign * taken[:, :, None] + 0.1 * rng.normal(size=(50, 6, 2))).astype(np.float32)
    items = np.tile(np.arange(6), (50, 1))
    proposed = Candidates(items, scores[:, :, 0], scores, ("als", "text"))
    weights = weigh_sources(proposed, taken)
    assert list(weights) == ["als", "text"]
    assert (weights == {"als": 1.0, "text": 1.0}) == equal
    assert ("no source puts what users took above" in caplog.text) == equal
