"""What several events about one item come to, whatever the order in which they arrive."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.feedback import KIND_CODES, FeedbackPolicy, acts_of
from ranker.feedback.acts import Report

SECOND = 1_000_000
POLICY = FeedbackPolicy(sources=("shop", "pixel"))


def report(kind, second, item=0, source="", value=None):
    return Report(item, POLICY.weight(kind, value), second * SECOND, KIND_CODES[kind], POLICY.mistrust(source))


def told(*reports, window=60.0):
    """(second, kind, weight) of each act."""
    acts = acts_of(reports, window)
    names = {code: kind for kind, code in KIND_CODES.items()}
    return [
        (time // SECOND, names[kind], weight)
        for time, kind, weight in zip(acts.times.tolist(), acts.kinds.tolist(), acts.weights.tolist(), strict=True)
    ]


def test_reports_within_the_window_are_one_act_and_later_ones_another():
    assert told(report("click", 0), report("click", 50), report("click", 100), report("click", 161)) == [
        (100, "click", 1.0),  # each within a minute of the one before
        (161, "click", 1.0),
    ]
    assert len(told(report("click", 0), report("click", 1), window=0.5)) == 2
    assert len(told(report("click", 0), report("cart", 1), report("click", 0, item=1))) == 3


def test_the_most_trusted_source_of_an_act_counts():
    shop, pixel, other = (report("purchase", n, source=name) for n, name in enumerate(["shop", "pixel", "other"]))
    for order in itertools.permutations([shop, pixel, other]):
        assert told(*order) == [(0, "purchase", 4.0)]
    assert told(other, pixel) == [(1, "purchase", 4.0)]


def test_of_equally_trusted_reports_the_newest_counts_and_of_equal_times_the_last():
    longer, shorter = report("dwell", 5, value=60), report("dwell", 5, value=3)
    assert told(longer, shorter) == [(5, "dwell", 0.0)]
    assert told(shorter, longer) == [(5, "dwell", 1.0)]
    assert told(report("dwell", 9, value=60), shorter) == [(9, "dwell", 1.0)]


@pytest.mark.parametrize("kind", ["hide", "dislike"])
def test_a_refusal_takes_the_weight_of_what_came_before_it_and_of_nothing_after(kind):
    reports = [report("purchase", 100), report(kind, 1000), report("click", 2000), report("click", 50, item=1)]
    for order in itertools.permutations(reports):
        assert told(*order) == [(50, "click", 1.0), (100, "purchase", 0.0), (1000, kind, 0.0), (2000, "click", 1.0)]
    acts = acts_of(reports, 60)
    assert acts.refused == {0: 1000 * SECOND}
    assert (acts.repeated, acts.overruled) == (0, 1)


def test_a_newer_rating_stands_in_place_of_an_older_one_and_leaves_clicks_alone():
    reports = [report("click", 0), report("rating", 100, value=5.0), report("rating", 900, value=4.0)]
    for order in itertools.permutations(reports):
        assert told(*order) == [(0, "click", 1.0), (100, "rating", 0.0), (900, "rating", 4.0)]
    low = report("rating", 2000, value=1.0)
    assert [weight for _, _, weight in told(*reports, low)] == [0, 0, 0, 0]


REPORTS = st.lists(
    st.builds(
        report, st.sampled_from(sorted(KIND_CODES)), st.integers(0, 300), st.integers(0, 2),
        st.sampled_from(["shop", "pixel", ""]), st.floats(0, 60),
    ),
    max_size=12,
)  # fmt: skip


@given(REPORTS, st.randoms())
def test_the_order_of_arrival_decides_between_equal_times_only(reports, random):
    reports = list({(each.item, each.kind, each.time): each for each in reports}.values())
    shuffled = random.sample(reports, len(reports))
    times = [each.time for each in reports]
    if len(set(times)) == len(times):
        assert told(*shuffled) == told(*reports)
    assert sorted(told(*shuffled, window=0)) == sorted(told(*reports, window=0)) or len(set(times)) < len(times)


@given(REPORTS)
def test_every_report_is_an_act_or_a_repetition_of_one(reports):
    acts = acts_of(reports, 60)
    assert len(acts) + acts.repeated == len(reports)
    assert (acts.times[1:] >= acts.times[:-1]).all()
    assert {each.item for each in reports} == set(acts.items.tolist())  # an item that was had stays had
    assert (acts.weights >= 0).all()
