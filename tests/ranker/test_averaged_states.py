"""Fewer vectors of an item: its first state, and means of even runs of the others."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ranker.split.items import averaged

DIM = 3


@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(2, 6), st.integers(0, 2**16))
def test_each_vector_is_the_mean_of_its_run(lengths, count, seed):
    states = np.random.default_rng(seed).normal(size=(len(lengths), max(lengths), DIM)).astype(np.float32)
    vectors, kept = averaged(torch.from_numpy(states), np.array(lengths), count)
    for row, length in enumerate(lengths):
        assert kept[row] == min(length, count)
        np.testing.assert_array_equal(vectors[row, 0], states[row, 0])
        runs = np.array_split(states[row, 1:length], kept[row] - 1) if kept[row] > 1 else []
        sizes = [len(run) for run in runs]
        assert not sizes or max(sizes) - min(sizes) <= 1
        total = sum(vectors[row, 1 + at].numpy() * size for at, size in enumerate(_sizes(length, kept[row])))
        np.testing.assert_allclose(total, states[row, 1:length].sum(0) if length > 1 else 0, atol=1e-5)


def _sizes(length, kept):
    """How many states each run has, by the rule that state t belongs to run (t - 1) · runs // (length - 1)."""
    runs = kept - 1
    return [sum((t - 1) * runs // (length - 1) == run for t in range(1, length)) for run in range(runs)]


@pytest.mark.parametrize("count", [2, 3, 9])
def test_a_text_of_no_more_states_keeps_them(count):
    states = torch.arange(2 * 2 * DIM, dtype=torch.float32).reshape(2, 2, DIM)
    vectors, kept = averaged(states, np.array([2, 1]), count)
    assert kept.tolist() == [2, 1]
    torch.testing.assert_close(vectors[0, :2], states[0])
    torch.testing.assert_close(vectors[1, :1], states[1, :1])


def test_padding_changes_nothing():
    states = torch.randn(1, 7, DIM, generator=torch.Generator().manual_seed(0))
    padded = torch.cat([states, torch.full((1, 5, DIM), 99.0)], dim=1)
    one, _ = averaged(states, np.array([7]), 4)
    other, _ = averaged(padded, np.array([7]), 4)
    torch.testing.assert_close(one, other)
