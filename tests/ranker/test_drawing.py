"""The places drawn of a list are its chosen item and others at random, each once and no empty one before it."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.lists import drawn_places
from retrieval.candidates import NO_ITEM

LISTS = st.integers(2, 12).flatmap(
    lambda width: st.lists(
        st.integers(1, width).flatmap(
            lambda known: st.tuples(
                st.permutations(range(20)).map(lambda items: items[:known]), st.integers(0, known - 1)
            )
        ),
        min_size=1,
        max_size=5,
    ).map(lambda rows: (width, rows))
)


@settings(deadline=None)
@given(LISTS, st.integers(1, 14), st.integers(0, 2**32 - 1), st.booleans())
def test_drawn_places_are_the_chosen_item_and_others_at_random(made, negatives, seed, at_end):
    width, rows = made
    rng = np.random.default_rng(seed)
    items = np.full((len(rows), width), NO_ITEM)
    for row, (known, _) in enumerate(rows):
        places = np.arange(len(known)) if at_end else np.sort(rng.permutation(width)[: len(known)])
        items[row, places] = known
    chosen = np.array([known[at] for known, at in rows])
    drawn = drawn_places(items, chosen, negatives, rng)
    assert drawn.shape == (len(rows), min(1 + negatives, width))
    for row, (known, _) in enumerate(rows):
        places = drawn[row].tolist()
        assert len(set(places)) == len(places)
        found = items[row, places]
        assert found[0] == chosen[row]
        taken = min(len(places), len(known))
        assert (found[:taken] != NO_ITEM).all()
        assert (found[taken:] == NO_ITEM).all()


def test_every_other_item_is_drawn_alike_often():
    items = np.tile([7, 3, NO_ITEM, 5, 9, 2], (3000, 1))
    drawn = drawn_places(items, np.full(3000, 5), 2, np.random.default_rng(0))
    counts = np.bincount(drawn[:, 1:].ravel(), minlength=6)
    assert counts[[2, 3]].tolist() == [0, 0]
    np.testing.assert_allclose(counts[[0, 1, 4, 5]], 1500, rtol=0.1)
    again = drawn_places(items, np.full(3000, 5), 2, np.random.default_rng(0))
    np.testing.assert_array_equal(drawn, again)
