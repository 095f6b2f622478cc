"""The event reader: what comes later changes nothing before it, and everything that is known of an event counts."""

import numpy as np
import pytest
import torch

from retrieval.sequence.model import GAPS, NO_EVENT, EventReader, ItemTable, SequenceConfig, gap_buckets

CONFIG = SequenceConfig(dim=8, layers=2, heads=2, max_events=9, dropout=0.3)


@pytest.fixture
def reader():
    torch.manual_seed(0)
    made = EventReader(CONFIG).eval()
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.5)  # the biases begin at zero, which would say nothing
    return made


@pytest.fixture
def events():
    rng = np.random.default_rng(0)
    arrays = {
        "places": rng.integers(0, 12, (3, 6)), "seconds": np.cumsum(rng.integers(0, 5000, (3, 6)), axis=1),
        "kinds": rng.integers(0, 4, (3, 6)), "levels": rng.integers(0, 6, (3, 6)),
    }  # fmt: skip
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


TABLE = torch.randn(12, 8, generator=torch.Generator().manual_seed(1))


def test_events_read_nothing_that_comes_later(reader, events) -> None:
    whole = reader(TABLE, **events)
    for length in range(1, 6):
        torch.testing.assert_close(
            reader(TABLE, **{name: array[:, :length] for name, array in events.items()}), whole[:, :length]
        )


def test_a_shorter_row_reads_the_same_beside_longer_ones(reader, events) -> None:
    alone = reader(TABLE, **{name: array[:1, :4] for name, array in events.items()})
    padded = {name: array.clone() for name, array in events.items()}
    padded["places"][0, 4:] = NO_EVENT
    torch.testing.assert_close(reader(TABLE, **padded)[0, :4], alone[0])


@pytest.mark.parametrize("name", ["places", "seconds", "kinds", "levels"])
def test_everything_known_of_an_event_changes_what_is_read_after_it(reader, events, name) -> None:
    changed = {key: array.clone() for key, array in events.items()}
    changed[name][:, 2:] += 10**6 if name == "seconds" else 1
    if name in ("places", "levels"):
        changed[name] %= 12 if name == "places" else 6
    before, after = reader(TABLE, **events), reader(TABLE, **changed)
    torch.testing.assert_close(before[:, :2], after[:, :2])
    assert ((before[:, 2:] - after[:, 2:]).abs().amax(dim=2) > 1e-4).all()


def test_the_order_of_events_counts(reader, events) -> None:
    swapped = {name: array.clone() for name, array in events.items()}
    swapped["places"][:, [1, 3]] = events["places"][:, [3, 1]]
    assert not torch.allclose(reader(TABLE, **events)[:, 5], reader(TABLE, **swapped)[:, 5], atol=1e-4)


def test_a_kind_that_nobody_knew_reads_like_a_logged_event(reader, events) -> None:
    logged, unknown = ({**events, "kinds": torch.full((3, 6), kind)} for kind in (0, 99))
    torch.testing.assert_close(reader(TABLE, **logged), reader(TABLE, **unknown))


def test_gaps_fall_into_buckets_that_double() -> None:
    assert gap_buckets(torch.tensor([-5, 0, 1, 2, 3, 6, 7, 3600, 2**40])).tolist() == [
        0,
        0,
        1,
        1,
        2,
        2,
        3,
        11,
        GAPS - 1,
    ]


def test_an_items_own_embedding_is_left_out_of_a_share_of_the_steps() -> None:
    torch.manual_seed(0)
    table = ItemTable(torch.randn(4000, 3), 8, id_dropout=0.25)
    of_features = table.projection(table.features)
    without = (table() == of_features).all(dim=1)
    assert without.float().mean() == pytest.approx(0.25, abs=0.03)
    torch.testing.assert_close(table.eval()(), table.own + of_features)
