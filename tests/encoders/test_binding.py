"""A bound session answers as a plain one does, whatever the sizes and whoever asks."""

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from small_graphs import FLOAT, attention, attention_feed, model

from encoders import open_session
from encoders.binding import MOST_SHAPES, BoundSession, Buckets
from encoders.errors import InputError

BUCKETS = Buckets({"users": (1, 4), "items": (2, 8), "rows": (8, 16), "events": (6,)}, {"mask": -1e9})
CPU = ["CPUExecutionProvider"]
ATTENTION = attention().SerializeToString()
SIZES = {
    "users": st.integers(1, 5),
    "items": st.integers(1, 9),
    "rows": st.integers(1, 17),
    "events": st.integers(1, 7),
    "seed": st.integers(0, 99),
}


@pytest.fixture(scope="module")
def plain():
    return open_session(ATTENTION, CPU, threads=1)


@pytest.fixture(scope="module")
def shared():
    """A session that all examples share, so that each finds what others have left in its buffers."""
    return BoundSession(open_session(ATTENTION, CPU, threads=1), BUCKETS)


@pytest.fixture
def bound():
    return BoundSession(open_session(ATTENTION, CPU, threads=1), BUCKETS)


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, atol=1e-4)


@settings(deadline=None, max_examples=60)
@given(st.fixed_dictionaries(SIZES))
def test_it_answers_as_the_plain_session_at_any_size(plain, shared, sizes):
    feed = attention_feed(**sizes)
    assert_same(shared.run(feed), plain.run(feed))


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abc"), st.integers(1, 9), min_size=1))
def test_a_length_is_padded_to_the_smallest_size_that_holds_it(lengths):
    buckets = Buckets({"a": (2, 5, 9), "b": (9,)})
    assert buckets.hold(lengths)
    for axis, size in buckets.padded(lengths).items():
        larger = [one for one in buckets.sizes.get(axis, (lengths[axis],)) if one >= lengths[axis]]
        assert size == min(larger)


def test_requests_of_one_bucket_share_buffers_and_no_other_run_in_them(bound, plain):
    for users, items in ((1, 1), (1, 2), (2, 2), (4, 1), (3, 7), (5, 1), (1, 9)):
        feed = attention_feed(users, items)
        assert_same(bound.run(feed), plain.run(feed))
    assert len(bound._buffers) == 3  # (1, 2), (4, 2) and (4, 8); what no bucket holds has none


def test_answers_are_the_callers_own(bound):
    first = bound.run(attention_feed(seed=1))
    kept = [output.copy() for output in first]
    bound.run(attention_feed(seed=2))
    assert_same(first, kept)
    for output in first:
        output[...] = 7
    assert_same(bound.run(attention_feed(seed=1)), kept)


def test_what_was_asked_is_left_as_it_is(bound):
    feed = attention_feed()
    copies = {name: array.copy() for name, array in feed.items()}
    bound.run(feed)
    for name, array in feed.items():
        np.testing.assert_array_equal(array, copies[name])


def test_outputs_can_be_picked_by_name(bound, plain):
    feed = attention_feed()
    assert_same(bound.run(feed, ["states"]), plain.run(feed, ["states"]))
    assert_same(bound.run(feed, ["states", "logits"]), plain.run(feed, ["states", "logits"]))


def test_it_is_the_session_it_was_made_of_to_all_who_ask(bound, plain):
    assert (bound.inputs, bound.outputs) == (plain.inputs, plain.outputs)
    assert (bound.provider, bound.path) == (plain.provider, plain.path)


def test_threads_get_the_answers_to_their_own_requests(bound, plain):
    feeds = [attention_feed(1 + seed % 3, 1 + seed % 7, 1 + seed % 9, 1 + seed % 5, seed=seed) for seed in range(24)]
    expected = [plain.run(feed) for feed in feeds]
    start = threading.Barrier(4)

    def ask(thread):
        start.wait()
        return [bound.run(feeds[(thread + step) % len(feeds)]) for step in range(len(feeds))]

    with ThreadPoolExecutor(4) as pool:
        for thread, answers in enumerate(pool.map(ask, range(4))):
            for step, found in enumerate(answers):
                assert_same(found, expected[(thread + step) % len(feeds)])


def test_shapes_beyond_the_most_run_all_the_same(plain):
    sizes = tuple(range(1, MOST_SHAPES + 4))
    bound = BoundSession(open_session(ATTENTION, CPU, threads=1), Buckets({"items": sizes}))
    for _ in range(2):
        for items in sizes:
            feed = attention_feed(items=items)
            assert_same(bound.run(feed), plain.run(feed))
    assert len(bound._buffers) == MOST_SHAPES


def test_an_axis_without_a_size_keeps_its_length(plain):
    bound = BoundSession(open_session(ATTENTION, CPU, threads=1), Buckets({}))
    for users in (1, 2):
        feed = attention_feed(users)
        assert_same(bound.run(feed), plain.run(feed))


def test_inputs_that_disagree_on_an_axis_are_an_error_and_no_padding_hides_it(bound):
    feed = attention_feed() | {"mask": np.zeros((2, 3), np.float32)}
    with pytest.raises(InputError, match="mask has 3 events where another has 4"):
        bound.run(feed)


def test_an_error_in_a_run_reaches_the_caller_and_the_next_run_is_well(bound, plain):
    feed = attention_feed()
    with pytest.raises(Exception, match="indices"):
        bound.run(feed | {"places": np.full((2, 3), 99)})
    assert_same(bound.run(feed), plain.run(feed))


def test_free_axes_without_a_name_are_apart(tmp_path):
    graph = model([helper.make_node("Neg", ["x"], ["y"])], [("x", FLOAT, [None, None])], [("y", FLOAT, [None, None])])
    bound = BoundSession(open_session(graph.SerializeToString(), CPU), Buckets({}))
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(bound.run({"x": x})[0], -x)


def test_a_session_that_nobody_holds_is_gone_with_its_thread():
    bound = BoundSession(open_session(ATTENTION, CPU, threads=1), BUCKETS)
    bound.run(attention_feed())
    (thread,) = bound._runner._threads
    held = weakref.ref(bound)
    del bound
    gc.collect()
    assert held() is None
    thread.join(timeout=10)
    assert not thread.is_alive()
