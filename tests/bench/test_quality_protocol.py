"""The protocol of the quality benchmark: its numbers come from the data."""

import pandas as pd

from bench.quality import GRIDS, combinations, protocol, ties_at_the_end


def log(*rows):
    table = pd.DataFrame(rows, columns=["user_id", "second"])
    return table.assign(item_id=range(len(rows)), datetime=pd.to_datetime(table["second"], unit="s"))


def test_a_tie_counts_only_where_it_is_the_users_last_time() -> None:
    ties = ties_at_the_end(log((1, 5), (1, 5), (2, 5), (2, 5), (2, 6), (3, 9), (3, 4), (3, 9), (4, 5)))
    assert ties.to_dict() == {1: True, 2: False, 3: True, 4: False}


def test_the_protocol_names_what_is_in_the_data() -> None:
    text = protocol("A site", log((1, 5), (1, 5), (2, 5), (3, 5), (4, 5)), 12_345, "last", {"factors": [2, 4]})
    assert text.startswith("A site, leave-one-out: each user's last rating")
    for part in ("all 12,345 films", "4 users; 25% of them", "(factors 2, 4)"):
        assert part in text


def test_the_grids_try_equally_many_settings() -> None:
    assert {len(list(combinations(grid))) for grid in GRIDS.values()} == {27}
